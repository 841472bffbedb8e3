"""Fills in what the oracles say, and names the first few keys where something is wrong: a number alone leads nobody to its cause."""

from dataclasses import replace
from pathlib import Path

import polars as pl

from pipeline.schemas import Forecasts, Readings
from pipeline.store.lake import Lake, read
from tests.faults.fleet import Fleet
from tests.faults.oracle import KEY, account, forecast_account, frame_of
from tests.faults.outcome import Outcome

NAMED = 5  # keys of each kind


def judged(outcome: Outcome, lake: str, ledger: Path, fleet: Fleet) -> Outcome:
    """Return an outcome with the accounts of readings and forecasts, and what is wrong with them in words."""
    readings, forecasts = account(lake, ledger, fleet), forecast_account(lake, fleet)
    found = replace(outcome, readings=readings, forecasts=forecasts)
    if found.is_whole:
        return found
    words = [outcome.failure, *_of_readings(lake, ledger, fleet), *_of_forecasts(lake)]
    return replace(found, failure="; ".join(filter(None, words)))


def _of_readings(lake: str, ledger: Path, fleet: Fleet) -> list[str]:
    lines = (line.split() for line in ledger.read_text().splitlines())
    sent = frame_of(fleet, {(int(device[1:]), int(seq)) for device, seq in lines})
    stored = read(Lake(lake).scan(Readings).filter(pl.col("source").str.starts_with("mqtt:fleet/")).select(KEY))
    named = {
        "lost": sent.join(stored, on=KEY, how="anti"),
        "repeated": stored.filter(stored.is_duplicated()).unique(maintain_order=True),
        "stored and not in the ledger": stored.join(sent, on=KEY, how="anti"),
    }
    return [_named(what, frame.select("series_id", "ts")) for what, frame in named.items() if len(frame)]


def _of_forecasts(lake: str) -> list[str]:
    stored = read(Lake(lake).scan(Forecasts).select(Forecasts.key))
    repeated = stored.filter(stored.is_duplicated()).unique(maintain_order=True)
    by_series = stored.unique().sort("series_id", "origin").with_columns(before=pl.col("origin").shift().over("series_id"))
    step = pl.col("origin") - pl.col("before")
    gaps = by_series.filter(step > step.min()).select("series_id", "before", "origin")
    named = {"forecast twice": repeated, "left out between": gaps}
    return [_named(what, frame) for what, frame in named.items() if len(frame)]


def _named(what: str, keys: pl.DataFrame) -> str:
    rows = [" ".join(str(part) for part in row) for row in keys.head(NAMED).iter_rows()]
    return f"{len(keys):,} {what}: {', '.join(rows)}{' …' if len(keys) > NAMED else ''}"
