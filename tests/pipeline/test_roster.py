"""Which series a reading may belong to: registered ones under the name that they have, and new ones as long as there is room."""

import polars as pl

from pipeline.ingest.roster import Roster

IDS = ("series_id", "device_id", "metric")


def series(*rows):
    return pl.DataFrame(rows, schema=dict.fromkeys(IDS, pl.String), orient="row")


def of(*names):
    """Rows of series of one metric, by their devices."""
    return series(*[(f"{name}/t", name, "t") for name in names])


def admitted(roster, readings):
    roster, good, bad = roster.admit(readings)
    assert len(good) + len(bad) == len(readings)
    return roster, good["series_id"].to_list(), bad["error_code"].to_list()


def test_beyond_the_limit_new_series_are_refused_and_known_ones_are_not():
    """Shown to fail by counting the batch alone."""
    roster, good, bad = admitted(Roster.of(of("a"), 2), of("b", "a", "c", "b"))
    assert (good, bad) == (["b/t", "a/t", "b/t"], ["too_many_series"])
    assert admitted(roster, of("c", "b"))[1:] == (["b/t"], ["too_many_series"])
    assert admitted(Roster.of(of("a", "b", "c"), 2), of("c"))[1:] == (["c/t"], [])


def test_a_series_that_was_named_with_a_slash_in_its_metric_keeps_its_name_and_nobody_else_gets_it():
    """Shown to fail by naming it as today, which cuts a history in two, and by letting two pairs be one series."""
    old = Roster.of(series(("a/b/c", "a", "b/c"), ("d/50%", "d", "50%")), 10)
    sent = series(("a/b%2Fc", "a", "b/c"), ("a/b/c", "a/b", "c"), ("d/50%", "d", "50%"))
    roster, good, bad = admitted(old, sent)
    assert (good, bad) == (["a/b/c", "d/50%"], ["series_name_taken"])
    assert len(roster.known) == 2
