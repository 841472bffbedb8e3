"""A search counts what has ended, tries again what was killed, and survives what goes wrong in a trial."""

from pathlib import Path

import optuna
import pytest

from models.config import NetworkConfig
from pipeline.errors import DataError, StoreError, TidecastError
from pipeline.prepare.splits import Split
from pipeline.study.knobs import Range, spread
from pipeline.study.search import Search, add_points, begin, best_record, records, run_trial, sole_user
from tests.laws.panels import HOUR, START
from tests.studies import BRIEF, RATE, small_search


def ended(search: Search, num_trials: int) -> Search:
    """Run trials of a new search and return it."""
    begin(search, spread(search.knobs, 2))
    for _ in range(num_trials):
        run_trial(search)
    return search


def interrupt(*given: object) -> None:
    raise KeyboardInterrupt


def test_trials_begin_with_the_points_that_were_given(tmp_path: Path) -> None:
    search = ended(small_search(tmp_path / "a b é%20"), 3)
    found = records(search)
    assert [record.knobs for record in found[:2]] == spread(search.knobs, 2)
    assert found[2].knobs not in spread(search.knobs, 2)
    assert [(record.state, len(record.curves)) for record in found] == [("complete", 2)] * 3
    assert all(record.ended >= record.started for record in found)
    assert best_record(search, found).validation == min(record.validation for record in found)


def test_beginning_again_changes_nothing_that_has_ended(tmp_path: Path) -> None:
    """Shown to fail by queueing the points again."""
    search = ended(small_search(tmp_path), 2)
    before = records(search)
    begin(search, spread(search.knobs, 2))
    run_trial(search)
    assert records(search)[:2] == before
    assert records(search)[2].knobs not in [record.knobs for record in before]


def test_what_was_under_way_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown to fail by forgetting what was under way."""
    search, points = small_search(tmp_path), spread((RATE,), 2)
    begin(search, points)
    with monkeypatch.context() as patched:
        patched.setattr("pipeline.study.search._fit", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_trial(search)
    begin(search, points)
    run_trial(search)
    run_trial(search)
    assert [(record.number, record.knobs) for record in records(search)] == [(1, points[1]), (2, points[0])]


def test_a_restart_does_not_draw_the_same_again(tmp_path: Path) -> None:
    """Shown to fail by one seed of the sampler for all trials."""
    search = ended(small_search(tmp_path, spread_trials=9, settings=BRIEF.model_copy(update={"max_epochs": 1})), 4)
    drawn = [record.knobs["learning_rate"] for record in records(search)]
    assert len(set(drawn)) == 4


def test_a_trial_that_fails_is_counted_and_the_next_one_runs(tmp_path: Path) -> None:
    """Shown to fail by letting the fault through."""
    search = ended(small_search(tmp_path, knobs=(Range("network.hidden_size", -4, 6, whole=True),)), 0)
    add_points(search, [{"network.hidden_size": -1}, {"network.hidden_size": 5}])
    for _ in range(4):
        run_trial(search)
    by_width = {record.knobs["network.hidden_size"]: record for record in records(search)}
    assert (by_width[-1].state, by_width[5].state) == ("fail", "complete")
    assert "num_layers >= 1 and hidden_size >= 1" in str(by_width[-1].error)
    assert best_record(search, records(search)).state == "complete"


def test_a_search_without_a_complete_trial_says_why(tmp_path: Path) -> None:
    search = ended(small_search(tmp_path, knobs=(Range("network.hidden_size", -4, -1, whole=True),)), 1)
    with pytest.raises(TidecastError, match=r"requires a trial that completes; got 1, none of which did \(ValidationError: "):
        best_record(search, records(search))


def test_too_little_data_ends_the_search_at_once(tmp_path: Path) -> None:
    """Shown to fail by taking it for a fault of the trial."""
    with pytest.raises(DataError, match="Training requires"):
        ended(small_search(tmp_path, split=Split(START, START + 200 * HOUR)), 1)


def test_hopeless_trials_are_pruned_after_the_warm_up(tmp_path: Path) -> None:
    """Shown to fail by a warm-up as long as the training."""
    settings = BRIEF.model_copy(update={"max_epochs": 4, "patience": 4, "network": NetworkConfig(hidden_size=6, num_layers=1)})
    search = small_search(tmp_path, knobs=(Range("learning_rate", 1e-7, 1e-2, log=True),), settings=settings, warm_up_epochs=2)
    begin(search, [{"learning_rate": 1e-2}, {"learning_rate": 8e-3}, {"learning_rate": 1e-7}])
    for _ in range(3):
        run_trial(search)
    found = records(search)
    assert [(record.state, len(record.curves)) for record in found] == [("complete", 4), ("complete", 4), ("pruned", 3)]


def test_a_point_is_queued_once(tmp_path: Path) -> None:
    """Shown to fail by queueing whatever is given."""
    search = small_search(tmp_path)
    begin(search, [{"learning_rate": 1e-3}])
    for _ in range(2):
        add_points(search, [{"learning_rate": 5e-3}])
    study = optuna.load_study(study_name=search.name, storage=f"sqlite:///{tmp_path}/optuna.db")
    assert [trial.system_attrs["fixed_params"]["learning_rate"] for trial in study.trials] == [1e-3, 5e-3]


def test_a_study_has_one_user_at_a_time(tmp_path: Path) -> None:
    """Shown to fail by a lock that waits."""
    with sole_user(tmp_path), pytest.raises(StoreError, match="another process works in"), sole_user(tmp_path):
        pytest.fail("two users")


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "optuna.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match=r"requires a working database; got .* from .*optuna.db"):
        begin(small_search(tmp_path, knobs=(RATE,)), [])
