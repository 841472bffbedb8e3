"""Fills in what the oracles say, and names the first few keys where something is wrong: a number alone leads nobody to its cause."""

from dataclasses import replace
from pathlib import Path

import polars as pl

from pipeline.schemas import Forecasts, Readings
from pipeline.store.lake import Lake, read
from tests.faults.fleet import Fleet
from tests.faults.oracle import KEY, OF_FLEET, account, acknowledged
from tests.faults.outcome import Outcome

NAMED = 5  # keys of each kind


def judged(outcome: Outcome, lake: str, ledger: Path, fleet: Fleet) -> Outcome:
    """Return an outcome with the account of readings, and what is wrong with it, or with that of forecasts, in words."""
    found = replace(outcome, readings=account(lake, ledger, fleet))
    if found.is_whole:
        return found
    words = [outcome.failure, *_of_readings(lake, ledger, fleet), *(_of_forecasts(lake) if outcome.forecasts is not None else [])]
    return replace(found, failure="; ".join(filter(None, words)))


def _of_readings(lake: str, ledger: Path, fleet: Fleet) -> list[str]:
    sent = acknowledged(ledger, fleet)
    stored = read(Lake(lake).scan(Readings).filter(OF_FLEET).select(KEY))
    wrong = {
        "lost": sent.join(stored, on=KEY, how="anti"),
        "repeated": stored.filter(stored.is_duplicated()).unique(maintain_order=True),
        "stored and not in the ledger": stored.join(sent, on=KEY, how="anti"),
    }
    return [named(what, frame.select("series_id", "ts")) for what, frame in wrong.items() if len(frame)]


def _of_forecasts(lake: str) -> list[str]:
    stored = read(Lake(lake).scan(Forecasts).select(Forecasts.key))
    repeated = stored.filter(stored.is_duplicated()).unique(maintain_order=True)
    by_series = stored.unique().sort("series_id", "origin").with_columns(before=pl.col("origin").shift().over("series_id"))
    step = pl.col("origin") - pl.col("before")
    gaps = by_series.filter(step > step.min()).select("series_id", "before", "origin")
    wrong = {"forecast twice": repeated, "left out between": gaps}
    return [named(what, frame) for what, frame in wrong.items() if len(frame)] if len(stored) else ["there is no forecast"]


def named(what: str, keys: pl.DataFrame) -> str:
    """Return how many keys something is wrong with, and the first few of them."""
    rows = [" ".join(str(part) for part in row) for row in keys.head(NAMED).iter_rows()]
    return f"{len(keys):,} {what}: {', '.join(rows)}{' …' if len(keys) > NAMED else ''}"
