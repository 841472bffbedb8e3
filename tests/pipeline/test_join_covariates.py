"""What a panel gets from the lake: values as they were known in time, on the ticks of its own grid, the same live as in one pass."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from mlflow.exceptions import MlflowException

from pipeline.errors import DataError
from pipeline.forecast.engine import StreamEngine
from pipeline.forecast.follower import Follower
from pipeline.forecast.new_ticks import new_panels
from pipeline.forecast.once import forecast_frame
from pipeline.forecast.rolling import forecast
from pipeline.prepare.covariates import CovariateNames, PanelCovariates
from pipeline.prepare.join_covariates import chosen_names, join_covariates
from pipeline.prepare.sequences import Panel
from pipeline.schemas import Plans
from pipeline.settings import CovariateSettings, TrainSettings
from pipeline.store.catalog import Catalog
from pipeline.store.forecasts import scan_forecasts
from pipeline.store.lake import Lake, read
from pipeline.store.plans import append_plans
from pipeline.tracking.mlflow_store import bound
from pipeline.tracking.registry import champion
from pipeline.tracking.saved_model import LoadedModel
from pipeline.train.fit import forecaster_config
from pipeline.train.train import load_panel
from tests.lakes import CONFIG, HOUR, START, TestLake, hourly_readings, random_weights

NUM_HOURS = 60
HEAT, WIND = "oven/heat", "oven/wind"
TARGET = hourly_readings(NUM_HOURS, (HEAT,))
MEASURED = hourly_readings(NUM_HOURS, (WIND,)).with_columns(value=pl.int_range(pl.len()).cast(pl.Float64))
EVERY_KIND = CovariateSettings(past=("wind",), future=("tariff",), static=("area", "kind"))


def lake_at(folder: Path, readings: pl.DataFrame, covariates: CovariateSettings) -> TestLake:
    lake = TestLake.at(folder)
    train = TrainSettings(horizon=CONFIG.horizon, context_length=CONFIG.context_length, seasons=CONFIG.seasons, covariates=covariates)
    lake.settings = lake.settings.model_copy(update={"train": train})
    lake.ingest(readings)
    return lake


def announce(lake: TestLake, values: list[float], available_at: datetime, first: datetime = START + HOUR) -> None:
    """Announce a tariff for hour after hour."""
    rows = pl.DataFrame({"value": values}).with_columns(
        pl.Series("ts", [first + hour * HOUR for hour in range(len(values))]),
        series_id=pl.lit("oven/tariff"),
        available_at=pl.lit(available_at),
        ingested_at=pl.lit(available_at),
    )
    append_plans(Lake(lake.settings.lake), Plans.conform(rows.with_columns(event_date=pl.col("ts").dt.date())), is_assumed=False)


def covariates_of(lake: TestLake) -> PanelCovariates:
    covariates = load_panel(lake.settings, Lake(lake.settings.lake), None).covariates
    assert covariates is not None
    return covariates


def test_a_past_covariate_is_the_value_of_the_tick_and_its_series_is_no_target(tmp_path: Path) -> None:
    lake = lake_at(tmp_path, pl.concat([TARGET, MEASURED]), CovariateSettings(past=("wind",)))
    panel = load_panel(lake.settings, Lake(lake.settings.lake), None)
    assert panel.series_ids == (HEAT,)
    assert panel.covariates is not None
    np.testing.assert_array_equal(panel.covariates.past_TBP[:, 0, 0], np.arange(NUM_HOURS))


def test_a_covariate_on_a_grid_of_its_own_counts_for_the_tick_it_lies_in(tmp_path: Path) -> None:
    """Shown to fail by joining on the label before: at 10:00 the wind of 10:20 is not known."""
    later = MEASURED.with_columns(pl.col("ts", "received_at") + timedelta(minutes=20))
    past_T = covariates_of(lake_at(tmp_path, pl.concat([TARGET, later]), CovariateSettings(past=("wind",)))).past_TBP[:, 0, 0]
    assert np.isnan(past_T[0])
    np.testing.assert_array_equal(past_T[1:], np.arange(NUM_HOURS - 1))


def test_a_value_that_came_late_or_was_corrected_is_as_it_was_known(tmp_path: Path) -> None:
    """Shown to fail by reading the newest revisions."""
    late = MEASURED.with_columns(received_at=pl.when(pl.col("seq") == 7).then(pl.col("ts") + 5 * HOUR).otherwise("received_at"))
    corrected = MEASURED.filter(seq=9).with_columns(value=pl.lit(99.0), received_at=pl.col("ts") + HOUR, seq=pl.col("seq") + 1000)
    lake = lake_at(tmp_path, pl.concat([TARGET, late, corrected]), CovariateSettings(past=("wind",)))
    past_T = covariates_of(lake).past_TBP[:, 0, 0]
    assert np.isnan(past_T[7])
    assert past_T[9] == 9


def test_a_plan_counts_as_it_was_a_horizon_before_its_tick(tmp_path: Path) -> None:
    """Shown to fail by taking the newest announcement, and by one tick less than the horizon."""
    lake = lake_at(tmp_path, TARGET, CovariateSettings(future=("tariff",)))
    horizon = lake.settings.train.horizon
    announce(lake, [1.0] * 20, START - 100 * HOUR)
    announce(lake, [2.0] * 20, START + 4 * HOUR)  # in time for the ticks from 4 + horizon on
    future_S = covariates_of(lake).future_SBU[:, 0, 0]
    assert len(future_S) == NUM_HOURS + horizon
    np.testing.assert_array_equal(future_S[1:21], [1.0] * (3 + horizon) + [2.0] * (17 - horizon))
    assert np.isnan(future_S[21:]).all()
    assert np.isnan(future_S[0])


def test_a_plan_reaches_a_horizon_beyond_the_last_tick(tmp_path: Path) -> None:
    lake = lake_at(tmp_path, TARGET, CovariateSettings(future=("tariff",)))
    announce(lake, list(np.arange(100.0)), START - 100 * HOUR, START)
    np.testing.assert_array_equal(covariates_of(lake).future_SBU[:, 0, 0], np.arange(NUM_HOURS + CONFIG.horizon))


def test_attributes_are_numbers_or_a_column_for_each_word(tmp_path: Path) -> None:
    lake = lake_at(tmp_path, hourly_readings(NUM_HOURS, ("a/heat", "b/heat", "c/heat")), CovariateSettings(static=("area", "kind")))
    table = [("a", "area", "120"), ("b", "area", "35"), ("a", "kind", "pump"), ("b", "kind", "fan"), ("d", "kind", "saw")]
    Catalog(lake.settings.state_dir).set_attributes(pl.DataFrame(table, schema=["device_id", "name", "value"], orient="row"))
    covariates = covariates_of(lake)
    assert covariates.names.static == ("area", "kind=fan", "kind=pump")
    np.testing.assert_array_equal(covariates.static_BJ, [[120, 0, 1], [35, 1, 0], [np.nan, 0, 0]])


@pytest.mark.parametrize(
    ("covariates", "sentence"),
    [
        (CovariateSettings(past=("rain",)), "known in time .* got none of rain"),
        (CovariateSettings(future=("tariff",)), "known-future covariate requires .* got none of tariff"),
        (CovariateSettings(static=("area",)), "got 'area', which none has"),
        (CovariateSettings(past=("heat", "wind")), "and that are no covariate"),
    ],
)
def test_a_covariate_of_which_nothing_is_known_is_refused(tmp_path: Path, covariates: CovariateSettings, sentence: str) -> None:
    lake = lake_at(tmp_path, pl.concat([TARGET, MEASURED]), covariates)
    with pytest.raises(DataError, match=sentence):
        load_panel(lake.settings, Lake(lake.settings.lake), None)


def test_an_attribute_of_too_many_words_is_refused(tmp_path: Path) -> None:
    devices = [f"d{number}" for number in range(51)]
    catalog = Catalog(tmp_path)
    catalog.upsert_series(pl.DataFrame({"series_id": [f"{d}/x" for d in devices], "device_id": devices}).with_columns(metric=pl.lit("x")))
    catalog.set_attributes(pl.DataFrame({"device_id": devices, "value": devices}).with_columns(name=pl.lit("name")))
    zeros = np.zeros(51, np.int64)
    panel = Panel(tuple(f"{d}/x" for d in devices), HOUR, zeros, zeros, zeros + 1, np.zeros((1, 51)))
    with pytest.raises(DataError, match="at most 50 words; got 51 for 'name'"):
        chosen_names((), (), ("name",), panel, catalog)


def test_without_covariates_the_panel_is_the_same(tmp_path: Path) -> None:
    lake = lake_at(tmp_path, TARGET, CovariateSettings())
    panel = load_panel(lake.settings, Lake(lake.settings.lake), None)
    tables = Lake(lake.settings.lake), Catalog(lake.settings.state_dir)
    assert join_covariates(panel, CovariateNames(), *tables, horizon=6, allowed_lateness=HOUR) is panel


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[TestLake, LoadedModel, Panel]:
    """A lake whose champion reads covariates of every kind and has forecast in two runs; the panel of all of it."""
    readings = pl.concat([TARGET, MEASURED])
    lake = lake_at(tmp_path_factory.mktemp("served"), readings.filter(pl.col("ts") < START + 40 * HOUR), EVERY_KIND)
    announce(lake, list(np.sin(np.arange(80.0))), START - 100 * HOUR)
    attributes = pl.DataFrame([("oven", "area", "120"), ("oven", "kind", "fan")], schema=["device_id", "name", "value"], orient="row")
    Catalog(lake.settings.state_dir).set_attributes(attributes)
    panel = load_panel(lake.settings, Lake(lake.settings.lake), None)
    config = forecaster_config(lake.settings.train, panel.interval, panel.covariates)
    lake.register(random_weights(config=replace(config, network=CONFIG.network)))
    forecast(lake.settings, lake.clock, origins=10)
    lake.ingest(readings.filter(pl.col("ts") >= START + 40 * HOUR))
    forecast(lake.settings, lake.clock)
    return lake, champion(lake.settings), load_panel(lake.settings, Lake(lake.settings.lake), None)


def test_forecasts_that_roll_are_those_of_one_pass(served: tuple[TestLake, LoadedModel, Panel]) -> None:
    """Shown to fail by a plan that ends with the panel, and by leaving past covariates out of the live run."""
    lake, loaded, panel = served
    issued = read(scan_forecasts(Lake(lake.settings.lake)).sort("origin"))
    assert issued["series_id"].unique().to_list() == [HEAT]
    engine = StreamEngine.fresh(loaded.model, 1, calibrate=True)
    (block,) = list(engine.advance(panel.values_TB, panel.time_TB, np.arange(30, NUM_HOURS), panel.covariates))
    np.testing.assert_allclose(np.array(issued["quantiles"].to_list()), block.quantiles_OBHQ.reshape(30, -1), rtol=1e-5)


def beside() -> pl.DataFrame:
    """Return the history of the target with a column for each covariate, as somebody without a lake has it."""
    ticks = range(NUM_HOURS + CONFIG.horizon)
    return pl.DataFrame({"unique_id": "oven", "ds": [START + tick * HOUR for tick in ticks]}).with_columns(
        pl.Series("y", [*TARGET["value"], *[None] * CONFIG.horizon]),
        pl.Series("wind", [*MEASURED["value"], *[None] * CONFIG.horizon]),
        pl.Series("tariff", [None, *np.sin(np.arange(len(ticks) - 1.0))]),
        area=120.0,
        kind=pl.lit("fan"),
    )


def test_one_frame_with_its_covariates_beside_it_gives_the_same_forecast(served: tuple[TestLake, LoadedModel, Panel]) -> None:
    """Shown to fail by dropping the rows after the last reading: they are the plan."""
    lake, loaded, panel = served
    last = read(scan_forecasts(Lake(lake.settings.lake)).sort("origin"))["quantiles"].to_list()[-1]
    found = forecast_frame(loaded, beside())
    assert found["cutoff"][0] == panel.label(0, NUM_HOURS - 1)
    np.testing.assert_allclose(found.select("^q.*$").to_numpy().ravel(), last, rtol=1e-5)
    with pytest.raises(DataError, match="without \\['tariff'\\]"):
        forecast_frame(loaded, beside().drop("tariff"))


def test_mlflow_serves_a_model_with_covariates_of_every_kind(served: tuple[TestLake, LoadedModel, Panel]) -> None:
    """Shown to fail by a signature without the columns of covariates: MLflow takes away what it does not name."""
    from mlflow.pyfunc import load_model  # warns when it is imported, unless the package of the model was written before

    lake, loaded, _ = served
    naive = beside().with_columns(pl.col("ds").dt.replace_time_zone(None))
    with bound(lake.settings):
        model = load_model(f"models:/{lake.settings.tracking.model_name}@champion")
        answer = pl.from_pandas(model.predict(naive.to_pandas()))
        with pytest.raises(MlflowException, match="Model is missing inputs \\['tariff'\\]"):
            model.predict(naive.drop("tariff").to_pandas())
    expected = forecast_frame(loaded, beside())
    assert answer.columns == expected.columns
    np.testing.assert_array_equal(answer.select("^q.*$").to_numpy(), expected.select("^q.*$").to_numpy())


def serving(folder: Path, readings: pl.DataFrame, covariates: CovariateSettings) -> TestLake:
    """Return a lake whose champion reads some covariates and has forecast once."""
    lake = lake_at(folder, readings, covariates)
    Catalog(lake.settings.state_dir).set_attributes(area_of("120"))
    if covariates.future:
        announce(lake, list(np.sin(np.arange(60.0))), START - 100 * HOUR)
    panel = load_panel(lake.settings, Lake(lake.settings.lake), None)
    config = forecaster_config(lake.settings.train, panel.interval, panel.covariates)
    lake.register(random_weights(config=replace(config, network=CONFIG.network)))
    forecast(lake.settings, lake.clock)
    return lake


def area_of(value: str) -> pl.DataFrame:
    return pl.DataFrame([("oven", "area", value)], schema=["device_id", "name", "value"], orient="row")


def assert_served_is_what_a_restart_serves(lake: TestLake, last: int) -> None:
    """Compare the newest forecast with one pass over all that is known now."""
    loaded, whole = champion(lake.settings), load_panel(lake.settings, Lake(lake.settings.lake), None)
    engine = StreamEngine.fresh(loaded.model, 1, calibrate=True)
    (block,) = engine.advance(whole.values_TB, whole.time_TB, np.array([last]), whole.covariates)
    newest = read(scan_forecasts(Lake(lake.settings.lake)).sort("origin"))["quantiles"].to_list()[-1]
    np.testing.assert_allclose(newest, block.quantiles_OBHQ.ravel(), rtol=1e-5)


def test_a_covariate_ingested_after_the_forecast_replays_its_target(tmp_path: Path) -> None:
    """Shown to fail by looking for revisions of the targets alone: what is served would differ from what a restart serves."""
    lake = serving(tmp_path, pl.concat([TARGET.head(40), MEASURED.head(30)]), CovariateSettings(past=("wind",)))
    lake.ingest(MEASURED.slice(30, 10))
    assert forecast(lake.settings, lake.clock).replayed == 1
    lake.ingest(pl.concat([TARGET.slice(40, 5), MEASURED.slice(40, 5)]))
    forecast(lake.settings, lake.clock)
    assert_served_is_what_a_restart_serves(lake, 44)


@pytest.mark.parametrize("first", [10, 44])  # of the last tick read, 39, calibration knows what was said of the ticks up to 45
def test_a_plan_ingested_after_the_forecast_replays_its_target(tmp_path: Path, first: int) -> None:
    """Shown to fail by not looking at plans, and by looking no further than the last tick that was read."""
    lake = serving(tmp_path, TARGET.head(40), CovariateSettings(future=("tariff",)))
    announce(lake, [7.0, 9.0], START - 50 * HOUR, START + first * HOUR)
    assert forecast(lake.settings, lake.clock).replayed == 1
    assert forecast(lake.settings, lake.clock).replayed == 0
    lake.ingest(TARGET.slice(40, 15))
    forecast(lake.settings, lake.clock)
    assert_served_is_what_a_restart_serves(lake, 54)


def test_a_plan_that_comes_while_a_follower_runs_is_in_the_forecast_of_the_next_tick(tmp_path: Path) -> None:
    """Shown to fail by a follower that looks at the version of the plans when it opens its state, and not again."""
    lake = serving(tmp_path, TARGET.head(40), CovariateSettings(future=("tariff",)))
    follower = Follower(lake.settings, lake.clock, lambda *_: 0)
    follower.lead()
    follower.tick()
    announce(lake, [7.0, 9.0], START - 50 * HOUR, START + 44 * HOUR)
    assert not follower.is_due()
    lake.ingest(TARGET.slice(40, 1))
    assert follower.tick().forecast.rows_written == 1
    assert_served_is_what_a_restart_serves(lake, 40)


def test_a_plan_that_comes_during_an_advance_waits_for_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown to fail by reading plans at whatever version is newest."""
    plain, disturbed = (serving(tmp_path / name, TARGET.head(40), CovariateSettings(future=("tariff",))) for name in ("plain", "disturbed"))

    def new_panels_after_a_plan(*args: object) -> list[Panel]:
        announce(disturbed, [7.0, 9.0], START - 50 * HOUR, START + 46 * HOUR)
        return new_panels(*args)  # type: ignore[arg-type]

    for lake, read_with in ((plain, new_panels), (disturbed, new_panels_after_a_plan)):
        lake.ingest(TARGET.slice(40, 5))
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.forecast.rolling.new_panels", read_with)
            forecast(lake.settings, lake.clock)
    issued = [read(scan_forecasts(Lake(lake.settings.lake)).sort("origin"))["quantiles"].to_list() for lake in (plain, disturbed)]
    assert issued[0] == issued[1]
    assert forecast(disturbed.settings, disturbed.clock).replayed == 1


def test_a_plan_that_changes_nothing_of_what_was_read_replays_nothing(tmp_path: Path) -> None:
    """Shown to fail by replaying for every new row: one beyond the horizon, one announced too late to be read."""
    lake = serving(tmp_path, TARGET.head(40), CovariateSettings(future=("tariff",)))
    announce(lake, [7.0], START, START + 46 * HOUR)
    announce(lake, [7.0], START + 36 * HOUR, START + 41 * HOUR)
    assert forecast(lake.settings, lake.clock).replayed == 0
    lake.ingest(TARGET.slice(40, 10))
    forecast(lake.settings, lake.clock)
    assert_served_is_what_a_restart_serves(lake, 49)


def test_an_attribute_that_is_corrected_replays_the_series_of_its_device(tmp_path: Path) -> None:
    """Shown to fail by going by the version of the observations alone: the same attribute again changes nothing."""
    lake = serving(tmp_path, TARGET.head(40), CovariateSettings(static=("area",)))
    catalog = Catalog(lake.settings.state_dir)
    catalog.set_attributes(area_of("120"))
    assert forecast(lake.settings, lake.clock).replayed == 0
    catalog.set_attributes(area_of("9000"))
    assert forecast(lake.settings, lake.clock).replayed == 1
    lake.ingest(TARGET.slice(40, 5))
    assert forecast(lake.settings, lake.clock).replayed == 0
    assert_served_is_what_a_restart_serves(lake, 44)
