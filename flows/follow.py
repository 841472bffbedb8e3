"""The loop `tidecast forecast --follow`: a follower without Prefect, from its first tick to a clean stop."""

import json
import sys
import threading
from typing import TYPE_CHECKING

from flows.closing import take_in
from flows.console import jsonable, note, stdout
from pipeline.clock import SystemClock
from pipeline.stopping import stopped_by_signals

if TYPE_CHECKING:
    from pipeline.forecast.follower import TickReport
    from pipeline.settings import Settings


def follow(settings: "Settings", origins: int, *, as_json: bool) -> None:
    """Follow a lake until SIGTERM or SIGINT, then finish the tick, write a snapshot and return.

    Args:
        settings: say where the lake is.
        origins: ticks to forecast for series that are new to the model.
        as_json: print one JSON line for each tick, for a pipe.

    Raises:
        LeaseLostError: when another process has taken over.
        StoreError: when the lake is already damaged at startup.
    """
    from pipeline.evaluate.maturity import score_matured
    from pipeline.forecast.follower import Follower

    stop = threading.Event()
    with stopped_by_signals(stop):
        Follower(settings, SystemClock(), score_matured, take_in=take_in, origins=origins).run(
            stop, _print_line if as_json else _print_sentence, note
        )


def _print_line(tick: "TickReport") -> None:
    sys.stdout.write(json.dumps(jsonable(tick.to_dict()), allow_nan=False, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _print_sentence(tick: "TickReport") -> None:
    done = tick.forecast
    origin = f" from {done.latest_origin:%Y-%m-%d %H:%M:%S}" if done.latest_origin else ""
    stdout().print(
        f"{tick.at:%H:%M:%S}  {done.rows_written:,} forecasts{origin} by model {done.model_version}, {done.replayed:,} series replayed, "
        f"{done.scored:,} steps scored",
        highlight=False,
    )
