"""The faults of clocks and streams: what a live source sees over months, each with what ingest must make of it.

They are injected only where they are asked for by name. Called by `pipeline.ingest.faults`, which says how faults keep apart.
"""

from dataclasses import replace

import numpy as np

from pipeline.ingest.fleet import FleetSpec
from pipeline.ingest.incidents import UNITS, Events, Fault, Incidents, Struck, struck_rows

FIRMWARE_AGE_US = 400 * 86_400_000_000  # a clock that restarts stands at the date of its firmware, a year and more ago
LEAST_AHEAD_S, MOST_AHEAD_S = 600, 7_200  # of a clock that is fast: beyond what ingest allows


def _clock_reset(spec: FleetSpec, events: Events, incidents: Incidents) -> Struck:
    """Restart a device's clock at the date of its firmware, or hours ago where it was last saved; the device counts on."""
    rows, incident = struck_rows(spec, incidents, incidents.length, all_metrics=True)
    is_firmware = incidents.roll[incident] < 0.5
    true_us = events["ts_us"][rows]
    since_restart_us = (events["tick"][rows] - incidents.tick[incident]) * spec.interval_us
    behind_us = spec.lateness_us + incidents.delay[incident] * spec.interval_us + spec.half_interval_us
    events["ts_us"][rows] = np.where(is_firmware, spec.start_us - FIRMWARE_AGE_US + since_restart_us, true_us - behind_us)
    outcomes = ["quarantined:stale_timestamp" if far else "late" for far in is_firmware]
    return Struck(rows, outcomes, [f"measured at {stamp}Z" for stamp in true_us.astype("M8[us]").astype("M8[s]")])


def _outage(spec: FleetSpec, events: Events, incidents: Incidents) -> Struck:
    """Cut a device off for longer than the idle timeout; then all that it has measured arrives at once, in order."""
    ticks = -(-spec.idle_timeout_us // spec.interval_us) + incidents.length
    rows, incident = struck_rows(spec, incidents, ticks, all_metrics=True)
    back_us = spec.start_us + (incidents.tick + ticks - 1) * spec.interval_us + spec.interval_us // 2
    events["received_us"][rows] = events["arrival_us"][rows] = back_us[incident]
    behind_us = back_us[incident] - events["ts_us"][rows]
    outcomes = ["late" if us > spec.idle_timeout_us else "accepted" for us in behind_us]
    return Struck(rows, outcomes, [f"brought {us / 1e6:.0f} s after it was measured" for us in behind_us])


def _unit_change(spec: FleetSpec, events: Events, incidents: Incidents) -> Struck:
    """Send temperatures in degF without saying so: only the registry of units knows."""
    if "temperature" not in spec.metrics:
        return Struck(np.empty(0, dtype=np.int64), [], [])
    incidents = replace(incidents, metric=np.full_like(incidents.metric, spec.metrics.index("temperature")))
    rows, _ = struck_rows(spec, incidents, 2 * incidents.length)
    events["value"][rows] = np.round(events["value"][rows] * 1.8 + 32.0, 2)
    events["unit"][rows] = UNITS.index("degF")
    events["unstated"][rows] = True
    return Struck(rows, ["converted"] * len(rows), ["in degF, as the registry says"] * len(rows))


def _future_clock(spec: FleetSpec, events: Events, incidents: Incidents) -> Struck:
    """Let a device's clock run fast by minutes or hours until it is set right."""
    rows, incident = struck_rows(spec, incidents, 2 * incidents.length, all_metrics=True)
    ahead_s = np.round(LEAST_AHEAD_S + incidents.roll[incident] * (MOST_AHEAD_S - LEAST_AHEAD_S)).astype(np.int64)
    events["ts_us"][rows] += 1_000_000 * ahead_s
    return Struck(rows, ["quarantined:future_timestamp"] * len(rows), [f"{seconds} s ahead" for seconds in ahead_s])


def _restamped(spec: FleetSpec, events: Events, incidents: Incidents) -> Struck:
    """Send a reading again under the same sequence number, with the stamp of the second sending."""
    originals, _ = struck_rows(spec, incidents, np.ones_like(incidents.tick))
    copies = events[originals]
    for name in ("ts_us", "received_us", "arrival_us"):
        copies[name] += spec.half_interval_us
    return Struck(
        len(events) + np.arange(len(copies)), ["accepted"] * len(copies), ["the same number, another stamp"] * len(copies), copies
    )


def _retirement(spec: FleetSpec, events: Events, incidents: Incidents) -> Struck:
    """Take every other device away for good, at its first incident: some of the fleet goes on.

    It comes last, and takes along what would have struck the device later.
    """
    incidents = incidents.select(incidents.device % 2 == 1)
    last_tick = np.full(spec.num_devices, spec.num_ticks)
    np.minimum.at(last_tick, incidents.device, incidents.tick)
    is_gone = ~events["lost"] & (events["tick"] >= last_tick[events["device"]])
    events["lost"][is_gone] = True
    rows = np.flatnonzero(is_gone[: spec.num_devices * len(spec.metrics) * spec.num_ticks])  # added events are no reading that is missing
    return Struck(rows, ["missing"] * len(rows), ["the device has been retired"] * len(rows))


LIVE_INJECTORS: dict[str, Fault] = {
    "clock_reset": _clock_reset,
    "outage": _outage,
    "unit_change": _unit_change,
    "future_clock": _future_clock,
    "restamped": _restamped,
    "retirement": _retirement,
}
