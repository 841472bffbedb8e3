"""What a fault is: the events it may change, the incidents it is given, and what it says it did.

Shared by `faults.py` (what goes wrong with any file) and `live_faults.py` (what goes wrong with clocks and streams).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.ingest.fleet import FleetSpec
from pipeline.ingest.signals import Floats, Ints

EVENT = np.dtype(
    [
        ("device", "i8"),
        ("metric", "i8"),  # index into the fleet's metrics
        ("tick", "i8"),  # when it was measured
        ("ts_us", "i8"),  # the stamp it carries
        ("emitted_us", "i8"),  # when the device counted it
        ("received_us", "i8"),  # the receiver's stamp it carries
        ("arrival_us", "i8"),  # its place in the stream
        ("seq", "i8"),
        ("value", "f8"),
        ("spelling", "i1"),  # index into SPELLINGS
        ("unit", "i1"),  # index into UNITS
        ("unstated", "?"),  # the line does not name it
        ("damage", "i1"),  # index into DAMAGES
        ("lost", "?"),
    ]
)
Events = npt.NDArray[np.void]

SPELLINGS = (None, "null", "NaN", '"ERR 04"')  # None: the number itself; NaN bare, as many JSON writers put it
SPELLING_CODES = ("accepted", "missing_value", "nan_or_infinite", "not_a_number")
UNITS = (None, "degF", "bar")  # None: the metric's own
DAMAGES = (None, "truncated", "text", "binary")


@dataclass(frozen=True)
class Incidents:
    """The incidents of one fault, one array entry each.

    Attributes:
        device: number of the device.
        metric: index of the metric, where the fault strikes just one.
        tick: when it begins.
        length: ticks it lasts, 1 to 4.
        delay: ticks by which something comes later, 2 to 8.
        roll: uniform in [0, 1), for whatever else the fault decides.
    """

    device: Ints
    metric: Ints
    tick: Ints
    length: Ints
    delay: Ints
    roll: Floats

    def select(self, mask: npt.NDArray[np.bool_]) -> "Incidents":
        """Return the incidents where `mask` holds."""
        return Incidents(self.device[mask], self.metric[mask], self.tick[mask], self.length[mask], self.delay[mask], self.roll[mask])


@dataclass(frozen=True)
class Struck:
    """What a fault did: the rows it struck, the outcome and a remark for each; and the events to append, where it adds any."""

    rows: Ints
    outcomes: list[str]
    details: list[str]
    added: Events | None = None


Fault = Callable[[FleetSpec, Events, Incidents], Struck]
"""Changes the events in place where its incidents strike."""


def struck_rows(spec: FleetSpec, incidents: Incidents, length: Ints, *, all_metrics: bool = False) -> tuple[Ints, Ints]:
    """Return the rows of the readings that the incidents strike, and for each row the incident it belongs to."""
    metrics = len(spec.metrics) if all_metrics else 1
    incident = np.repeat(np.arange(len(length)), length * metrics)
    within = np.arange(len(incident)) - np.repeat(np.cumsum(length * metrics) - length * metrics, length * metrics)
    metric = within % metrics if all_metrics else incidents.metric[incident]
    series = incidents.device[incident] * len(spec.metrics) + metric
    return series * spec.num_ticks + incidents.tick[incident] + within // metrics, incident
