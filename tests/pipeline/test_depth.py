"""A study of depth gives every cell the same chances, chooses on validation alone, and goes on where it was stopped."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from mlflow import MlflowClient

from pipeline.errors import SettingsError, TidecastError
from pipeline.evaluate.drawing import BLUE
from pipeline.study.bootstrap import Interval
from pipeline.study.cells import Cell
from pipeline.study.depth import study_depth
from pipeline.study.depth_report import CellReport, DepthReport
from pipeline.study.knobs import Range
from pipeline.study.pictures import draw_differences
from pipeline.study.plan import DepthRequest, StudyPlan
from pipeline.study.rates import widened
from pipeline.study.search import records, study_folder
from tests.lakes import TestLake
from tests.studies import BRIEF, small_lake, small_search

SLOW_LEARNER = BRIEF.model_copy(update={"learning_rate": 1e-6})  # so that every cell wants more than the range has
BLUE_PIXEL = np.float32(to_rgb(BLUE))
REQUEST = DepthRequest(trials=2, seeds=2, epochs=2, minutes=60, workers=1, depths=(1, 2))


def stop(done: int, total: int, what: str) -> None:
    """Interrupt a study after its tenth training, one of those beyond the border."""
    if done == 10:
        raise KeyboardInterrupt


@pytest.fixture(scope="module", autouse=True)
def short_epochs() -> Iterator[None]:
    """Let an epoch be as short as so little data makes it: no test here asks how well anything was trained."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.train.datamodule.EPOCH_BATCHES", 1)
        yield


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> tuple[TestLake, DepthReport, list[str]]:
    """A lake, the report of a study that was interrupted and run again, and what the second command was told."""
    lake = small_lake(tmp_path_factory.mktemp("depth"), settings=SLOW_LEARNER)
    with pytest.raises(KeyboardInterrupt):
        study_depth(lake.settings, REQUEST, lake.clock, stop)
    told: list[str] = []
    return lake, study_depth(lake.settings, REQUEST, lake.clock, lambda done, total, what: told.append(what)), told


def row(**changed: object) -> CellReport:
    """Return a row that nothing is wrong with."""
    sound = CellReport(
        cell=Cell(3, "plain", 8, 1000),
        trials=6,
        pruned=1,
        failed=0,
        learning_rate=1e-3,
        rate_low=1e-4,
        rate_high=1e-2,
        is_void=False,
        validation=0.2,
        crps=0.3,
        crps_spread=0.01,
        difference=Interval(0.05, 0.01, 0.09, 0.01),
        p_holm=0.02,
        epochs=20.0,
        late_gain=0.001,
        clipped=0.1,
        faded=(2, 4, 8),
        gone=(4, 20, 99),
    )
    return replace(sound, **changed)


def test_every_cell_gets_the_same_trials_epochs_and_fresh_seeds(studied: tuple[TestLake, DepthReport, list[str]]) -> None:
    lake, report, _ = studied
    assert [row.cell.name for row in report.cells] == ["plain-1", "plain-2", "residual-1", "residual-2"]
    assert (report.epochs, report.seeds, report.series) == (2, 2, 2)
    folder = study_folder(lake.settings, report.study)
    for row in report.cells:
        found = records(small_search(folder, name=row.cell.name))
        assert len(found) == row.trials == REQUEST.trials + 2
        assert {len(record.curves) for record in found if record.state == "complete"} == {2}
    finals = sorted(re.sub("-[0-9a-f]{6}-", " ", path.stem) for path in (folder / "finals").iterdir())
    assert finals == sorted(f"{row.cell.name} seed-{seed}" for row in report.cells for seed in (1, 2))


def test_the_comparison_is_with_depth_2_of_the_same_wiring(studied: tuple[TestLake, DepthReport, list[str]]) -> None:
    """Shown to fail by taking plain depth 2 for both wirings."""
    plain_1, plain_2, residual_1, residual_2 = studied[1].cells
    assert plain_2.difference is None
    assert residual_2.difference is None
    for row, reference in ((plain_1, plain_2), (residual_1, residual_2)):
        assert row.difference is not None
        assert row.difference.estimate == pytest.approx(row.crps / reference.crps - 1)


def test_an_interrupted_study_trains_only_what_is_missing(studied: tuple[TestLake, DepthReport, list[str]]) -> None:
    """Shown to fail by running finalists whose file is there."""
    lake, report, told = studied
    assert (told.count("search"), told.count("search beyond the border")) == (0, 6)
    finals = list((study_folder(lake.settings, report.study) / "finals").iterdir())
    before = [path.stat().st_mtime_ns for path in finals]
    assert study_depth(lake.settings, REQUEST, lake.clock) == report
    assert [path.stat().st_mtime_ns for path in finals] == before


def test_a_best_rate_at_the_border_widens_the_range_once_and_then_voids_the_cell(studied: tuple[TestLake, DepthReport, list[str]]) -> None:
    """Shown to fail by judging the best rate by the first range."""
    for row in studied[1].cells:
        assert (row.rate_low, row.rate_high) == pytest.approx((5.623e-8, 1.778e-4))
        assert row.learning_rate > 1.778e-5
        assert row.is_void


def test_all_trainings_are_runs_below_one_run_with_the_pictures(studied: tuple[TestLake, DepthReport, list[str]]) -> None:
    lake, report, _ = studied
    client = MlflowClient(lake.settings.tracking_uri)
    experiment = client.get_experiment_by_name(lake.settings.tracking.experiment)
    assert experiment is not None
    below = client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{report.run_id}'")
    assert len({run.info.run_name for run in below}) == len(below) == sum(row.trials for row in report.cells) + 8
    assert client.get_run(report.run_id).info.status == "FINISHED"
    artifacts = {file.path for file in client.list_artifacts(report.run_id)}
    assert artifacts >= {"differences.png", "memory.png", "budget.png", "depth.json", "summary.md"}


def test_what_makes_a_row_unfair_is_said() -> None:
    assert row().caveats == ()
    assert row(is_void=True).caveats == ("void: best learning rate at a border",)
    assert row(late_gain=0.03, clipped=0.4).caveats == ("curve not flat at the end", "more than 20% of the steps clipped")


def test_a_void_cell_is_no_finding(studied: tuple[TestLake, DepthReport, list[str]]) -> None:
    """Shown to fail by naming every cell with a small p-value."""
    report = studied[1]
    assert "p < 0.05): plain-3 +5.0% [+1.0%, +9.0%]." in replace(report, cells=(row(),)).to_markdown()
    assert "p < 0.05): no cell." in replace(report, cells=(row(is_void=True),)).to_markdown()


def test_a_memory_longer_than_was_followed_is_said_to_be(studied: tuple[TestLake, DepthReport, list[str]]) -> None:
    page = replace(studied[1], cells=(row(),), num_lags=99).to_markdown()
    assert "| plain-3 | 2 / 4 | 4 / 20 | 8 / ≥ 99 |" in page


def test_a_range_is_widened_by_a_decade_on_the_side_of_the_best_rate() -> None:
    rate = Range("learning_rate", 1e-4, 1e-2, log=True)
    wide, decade = widened(rate, 1)
    assert (wide.low, wide.high, decade.low, decade.high) == pytest.approx((1e-4, 1e-1, 1e-2, 1e-1))
    wide, decade = widened(rate, -1)
    assert (wide.low, wide.high, decade.low, decade.high) == pytest.approx((1e-5, 1e-2, 1e-5, 1e-4))


def test_a_plan_is_read_as_it_was_written(studied: tuple[TestLake, DepthReport, list[str]], tmp_path: Path) -> None:
    lake, report, _ = studied
    plan = StudyPlan.load(study_folder(lake.settings, report.study) / "plan.json")
    plan.save(tmp_path / "plan.json")
    assert StudyPlan.load(tmp_path / "plan.json") == plan
    assert (plan.data_end, plan.epochs) == (report.data_end, 2)


def test_too_little_time_is_refused_with_what_it_takes(studied: tuple[TestLake, DepthReport, list[str]]) -> None:
    """Shown to fail by planning one epoch."""
    lake = studied[0]
    with pytest.raises(SettingsError, match=r"requires time for 5 epochs of 16 trainings, .* got 0.001"):
        study_depth(lake.settings, replace(REQUEST, epochs=None, minutes=0.001), lake.clock)


def test_there_must_be_a_depth_to_compare_with() -> None:
    with pytest.raises(TidecastError, match="with 2 among them"):
        DepthRequest(depths=(1, 3))


def test_a_void_cell_is_drawn_hollow(tmp_path: Path) -> None:
    """Shown to fail by drawing void cells like the others, and by leaving them out."""
    valid, void, none = (
        (imread(draw_differences(rows, tmp_path / "new" / "differences.png"))[..., :3] == BLUE_PIXEL).all(axis=-1).sum()
        for rows in ([row()], [row(is_void=True)], [])
    )
    assert 0 == none < void < valid
