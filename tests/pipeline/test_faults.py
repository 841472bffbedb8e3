"""Laws of `pipeline.ingest.faults`: what the ledger says of a fault is what its lines show."""

import json
from datetime import timedelta
from functools import cache

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.ingest.faults import inject_faults
from pipeline.ingest.fleet import EVENT_FAULTS, FAULTS, LIVE_FAULTS, METRICS, FaultSpec, FleetSpec
from pipeline.ingest.signals import simulate_signals, truth
from pipeline.ingest.simulate import simulate, unit_registry

KEY = ["device_id", "metric", "ts"]


@cache
def fleet_with(*faults: str) -> tuple[FleetSpec, pl.DataFrame, pl.DataFrame]:
    """Simulate forty days of three devices in which about half of the slots are struck."""
    spec = FleetSpec(num_devices=3, days=40, faults=FaultSpec.only(*faults, rate=0.02 / len(faults)))
    events, ledger = simulate(spec)
    return spec, events.with_row_index("position", offset=1).cast({"position": pl.Int64}), ledger


def struck_lines(events: pl.DataFrame, ledger: pl.DataFrame) -> pl.DataFrame:
    return ledger.join(events.drop(*KEY, "seq"), on="position", how="inner")


def test_without_faults_the_lines_are_the_truth_in_order() -> None:
    spec = FleetSpec(num_devices=2, days=3, faults=FaultSpec.none())
    events, ledger = simulate(spec)
    assert ledger.is_empty()
    assert events.sort(KEY).select(*KEY, "value", "unit").equals(truth(spec).sort(KEY).select(*KEY, "value", "unit"))
    assert events.group_by("device_id").agg((pl.col("seq").diff() == 1).all())["seq"].all()
    assert (events["received_at"] - events["ts"]).is_between(timedelta(0), timedelta(seconds=3)).all()


@pytest.mark.parametrize("fault", FAULTS + LIVE_FAULTS)
def test_a_switch_turns_on_its_fault_and_no_other(fault: str) -> None:
    _, _, ledger = fleet_with(fault)
    assert ledger["fault"].unique().to_list() == [fault]
    assert len(ledger) > 10


def test_an_entry_points_at_the_line_it_struck() -> None:
    _, events, ledger = fleet_with(*EVENT_FAULTS)
    arrived = ledger.filter(pl.col("fault") != "gap")
    assert arrived.join(events, on=["position", *KEY, "seq"], how="inner").height == arrived.height == arrived["position"].n_unique()


def test_a_gap_leaves_no_line_and_shows_in_the_sequence_numbers() -> None:
    _, events, ledger = fleet_with("gap")
    assert ledger["position"].null_count() == len(ledger)
    assert ledger.join(events, on=["device_id", "seq"], how="semi").is_empty()
    counted = events.group_by("device_id").agg(lost=pl.col("seq").max() - pl.len()).sort("device_id")
    assert counted["lost"].to_list() == ledger.group_by("device_id").len().sort("device_id")["len"].to_list()


def test_a_duplicate_is_an_earlier_line_byte_for_byte() -> None:
    _, events, ledger = fleet_with("duplicate")
    first = events.group_by("payload").agg(original=pl.col("position").min(), copies=pl.len() - 1)
    copies = struck_lines(events, ledger).join(first, on="payload")
    assert copies.filter((pl.col("original") < pl.col("position")) & (pl.col("copies") == 1)).height == len(ledger)
    assert first["copies"].sum() == len(ledger)


@pytest.mark.parametrize(("interval", "days"), [(timedelta(hours=1), 40), (timedelta(seconds=10), 1)])
def test_an_out_of_order_reading_is_overtaken_but_never_late(interval: timedelta, days: int) -> None:
    spec = FleetSpec(num_devices=2, days=days, sample_interval=interval, faults=FaultSpec.only("out_of_order", rate=0.02))
    events, ledger = simulate(spec)
    overtaken = events.with_columns(ahead=pl.col("seq").cum_max().over("device_id")).filter(pl.col("ahead") > pl.col("seq"))
    assert overtaken.sort(KEY).select(*KEY, "seq").equals(ledger.sort(KEY).select(*KEY, "seq"))
    assert len(ledger) > 10
    assert (overtaken["received_at"] - overtaken["ts"]).max() < spec.allowed_lateness


@pytest.mark.parametrize("fault", ["late", "corrected"])
def test_what_comes_late_is_behind_the_watermark_of_its_series(fault: str) -> None:
    spec, events, ledger = fleet_with(fault)
    newest = pl.col("ts").cum_max().shift(1).over("device_id", "metric")
    behind = events.filter(pl.col("ts") < newest - spec.allowed_lateness)
    assert behind["position"].sort().to_list() == ledger["position"].sort().to_list()
    assert (behind["received_at"] - behind["ts"]).min() > spec.allowed_lateness


def test_a_correction_has_the_stamp_of_its_reading_a_newer_number_and_the_true_value() -> None:
    spec, events, ledger = fleet_with("corrected")
    corrections = struck_lines(events, ledger)
    pairs = corrections.join(events, on=KEY, suffix="_first").filter(pl.col("position") != pl.col("position_first"))
    assert pairs.height == len(ledger)
    assert pairs.select(((pl.col("seq") > pl.col("seq_first")) & (pl.col("value") != pl.col("value_first"))).all()).item()
    assert pairs.join(truth(spec), on=[*KEY, "value"], how="semi").height == len(ledger)


def test_a_wrong_unit_is_one_of_two_and_only_on_temperature() -> None:
    _, events, ledger = fleet_with("wrong_unit")
    struck = struck_lines(events, ledger)
    assert set(struck["metric"]) == {"temperature"}
    assert set(struck.select("unit", "outcome").rows()) == {("degF", "converted"), ("bar", "quarantined:unknown_unit")}
    assert events.filter(pl.col("unit").is_in(["degF", "bar"])).height == len(ledger)


def test_no_number_is_sent_in_three_spellings() -> None:
    _, events, ledger = fleet_with("nan")
    spelled = struck_lines(events, ledger).select("outcome", pl.col("payload").cast(pl.String).str.extract('"value":(.+),"unit"'))
    assert set(spelled.rows()) == {
        ("quarantined:missing_value", "null"),
        ("quarantined:nan_or_infinite", "NaN"),
        ("quarantined:not_a_number", '"ERR 04"'),
    }


def test_a_clock_jumps_to_1970_or_decades_ahead() -> None:
    _, events, ledger = fleet_with("clock_jump")
    years = ledger.select("outcome", pl.col("ts").dt.year().alias("year")).unique()
    assert set(years.rows()) == {("quarantined:implausible_timestamp", 1970), ("quarantined:future_timestamp", 2080)}
    assert events.filter(pl.col("ts").dt.year() != 2026).height == len(ledger)


def parses(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def test_garbage_is_no_json_and_keeps_to_its_line() -> None:
    _, events, ledger = fleet_with("garbage")
    broken = [position for position, line in events.select("position", "payload").iter_rows() if not parses(line)]
    assert broken == ledger["position"].sort().to_list()
    assert not any(b"\n" in line or b"\r" in line for line in events["payload"])
    assert set(ledger["detail"]) == {"truncated payload", "text payload", "binary payload"}


def test_what_ingest_must_end_up_with_is_the_truth_less_what_was_lost() -> None:
    spec, events, ledger = fleet_with(*EVENT_FAULTS)
    bad = ledger.filter(pl.col("outcome").str.starts_with("quarantined") | (pl.col("outcome") == "duplicate"))
    celsius = pl.when(pl.col("unit") == "degF").then(((pl.col("value") - 32) / 1.8).round(2)).otherwise("value")
    good = events.join(bad, on="position", how="anti").with_columns(value=celsius)
    known = good.sort("seq").unique(KEY, keep="last")
    expected = truth(spec).join(known, on=KEY, how="semi")
    assert known.sort(KEY).select(*KEY, "value").equals(expected.sort(KEY).select(*KEY, "value"))
    lost = ledger.filter(pl.col("outcome").str.starts_with("quarantined") | (pl.col("outcome") == "missing"))
    assert len(known) == len(truth(spec)) - len(lost)


def test_a_clock_restarts_at_its_firmware_or_falls_back_while_the_device_counts_on() -> None:
    spec, events, ledger = fleet_with("clock_reset")
    assert set(ledger["outcome"]) == {"quarantined:stale_timestamp", "late"}
    assert events.group_by("device_id").agg((pl.col("seq").diff() == 1).all())["seq"].all()
    struck = struck_lines(events, ledger).with_columns(behind=pl.col("received_at") - pl.col("ts"))
    assert struck.select("outcome", is_old=pl.col("behind") > timedelta(days=30)).unique().height == 2
    assert struck["behind"].min() > spec.allowed_lateness


@pytest.mark.parametrize(("interval", "days"), [(timedelta(hours=1), 40), (timedelta(minutes=5), 6)])
def test_an_outage_ends_in_a_burst_of_all_that_was_measured(interval: timedelta, days: int) -> None:
    spec = FleetSpec(num_devices=2, days=days, sample_interval=interval, faults=FaultSpec.only("outage", rate=0.01))
    events, ledger = simulate(spec)
    silences = events.group_by("device_id").agg(pl.col("received_at").diff().max())["received_at"]
    assert silences.min() > spec.idle_timeout
    assert events.sort(KEY).select(*KEY, "value").equals(truth(spec).sort(KEY).select(*KEY, "value"))
    behind = ledger.join(events.select(*KEY, "received_at"), on=KEY).with_columns(behind=pl.col("received_at") - pl.col("ts"))
    assert behind.select((pl.col("behind") > spec.idle_timeout).eq(pl.col("outcome") == "late").all()).item()
    assert set(ledger["outcome"]) == {"late", "accepted"}


def test_a_change_of_unit_shows_in_the_registry_alone() -> None:
    spec, events, ledger = fleet_with("unit_change")
    assert struck_lines(events, ledger)["unit"].null_count() == len(ledger) == events["unit"].null_count()
    registry = unit_registry(spec, ledger)
    ticks = (registry["valid_to"] - registry["valid_from"]).dt.total_seconds() // spec.sample_interval.total_seconds()
    assert (ticks.sum(), set(registry["unit"])) == (len(ledger), {"degF"})
    assert ticks.min() > 1


def test_a_restamped_reading_keeps_its_number_and_its_value() -> None:
    spec, events, ledger = fleet_with("restamped")
    copies = struck_lines(events, ledger)
    pairs = copies.join(events, on=["device_id", "metric", "seq"], suffix="_first").filter(pl.col("position") != pl.col("position_first"))
    assert len(pairs) == len(ledger)
    assert pairs.select((pl.col("ts") - pl.col("ts_first") == spec.sample_interval / 2).all()).item()
    assert (pairs["value"] == pairs["value_first"]).all()


def test_a_retired_device_takes_along_all_that_would_have_struck_it_later() -> None:
    """Shown to fail by injecting the retirement first, and by keeping entries of lines that never came."""
    spec = FleetSpec(num_devices=3, days=40, faults=FaultSpec.only("retirement", "late", "corrected", "gap", rate=0.005))
    events, ledger = simulate(spec)
    gone = ledger.filter(fault="retirement").group_by("device_id").agg(at=pl.col("ts").min())
    assert len(gone) > 0
    after = events.join(gone, on="device_id").filter(pl.col("ts") >= pl.col("at"))
    assert after.is_empty()
    assert ledger.filter(pl.col("outcome") != "missing")["position"].null_count() == 0
    assert not ledger.filter(outcome="missing").select(*KEY, "seq").is_duplicated().any()


def test_faults_on_the_way_leave_the_truth_alone() -> None:
    spec = FleetSpec(num_devices=2, days=20, faults=FaultSpec.only(*EVENT_FAULTS))
    clean = FleetSpec(num_devices=2, days=20, faults=FaultSpec.none())
    assert truth(spec).equals(truth(clean))


SPECS = st.builds(
    FleetSpec,
    num_devices=st.integers(1, 3),
    days=st.integers(1, 6),
    sample_interval=st.sampled_from([timedelta(seconds=90), timedelta(minutes=15), timedelta(hours=1), timedelta(days=1)]),
    seed=st.integers(0, 2**40),
    faults=st.sampled_from([FaultSpec.all(0.003), FaultSpec.only("gap", "late", rate=0.015), FaultSpec.none()]),
    metrics=st.lists(st.sampled_from(tuple(METRICS)), min_size=2, unique=True).map(tuple),
    allowed_lateness=st.sampled_from([timedelta(seconds=1), timedelta(seconds=45), timedelta(minutes=1)]),
)


@settings(max_examples=40, deadline=None)
@given(SPECS)
def test_the_ledger_accounts_for_every_line(spec: FleetSpec) -> None:
    events, ledger = simulate(spec)
    num_of = dict(ledger["outcome"].value_counts().iter_rows())
    num_clean = spec.num_devices * len(spec.metrics) * spec.num_ticks
    assert len(events) == num_clean - num_of.get("missing", 0) + num_of.get("duplicate", 0) + num_of.get("revision", 0)
    assert not events.unique().select("device_id", "seq").is_duplicated().any()


def test_lost_events_come_last() -> None:
    spec, events, _ = fleet_with("gap")
    lost = inject_faults(spec, simulate_signals(spec))[0]["lost"]
    assert not lost[: len(events)].any()
    assert lost[len(events) :].all()
