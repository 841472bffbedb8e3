"""The faults of the real world, injected into a fleet's clean readings, each with an entry that says what ingest must make of it.

A device's time is cut into slots (`FleetSpec.slot_ticks`). At most one fault strikes a slot, never its first tick, and does all its work
inside it: so every outcome is known in advance and independent of the others. Only a device that retires is gone for good, with all
that would have struck it later. Called by `pipeline.ingest.simulate`.
"""

from dataclasses import replace

import numpy as np
import polars as pl

from pipeline.ingest.fleet import EVENT_FAULTS, LIVE_FAULTS, METRICS, FleetSpec
from pipeline.ingest.incidents import DAMAGES, EVENT, SPELLING_CODES, SPELLINGS, UNITS, Events, Fault, Incidents, Struck, struck_rows
from pipeline.ingest.live_faults import LIVE_INJECTORS
from pipeline.ingest.signals import Floats, Signals

FAR_FUTURE_US = 20_000 * 86_400_000_000  # some 55 years
ENTRIES = pl.Schema({"fault": pl.String, "row": pl.Int64, "outcome": pl.String, "detail": pl.String})


def inject_faults(spec: FleetSpec, signals: Signals) -> tuple[Events, pl.DataFrame]:
    """Send a fleet's clean readings through the faults of its specification.

    Returns:
        The events in order of arrival (the lost ones last), and the faults: fault, row (of the events), outcome, detail.
    """
    events = _clean_events(spec, signals.values)
    incidents = _draw_incidents(spec)
    entries = [_signal_entries(spec, signals)]
    for name, fault in (INJECTORS | LIVE_INJECTORS).items():
        struck = fault(spec, events, incidents[name])
        if struck.added is not None:
            events = np.concatenate([events, struck.added])
        columns = {"fault": [name] * len(struck.rows), "row": struck.rows, "outcome": struck.outcomes, "detail": struck.details}
        entries.append(pl.DataFrame(columns, schema=ENTRIES))
    _count(events)
    order = np.lexsort((events["seq"], events["device"], events["arrival_us"], events["lost"]))
    new_row = np.empty(len(order), dtype=np.int64)
    new_row[order] = np.arange(len(order))
    listed = pl.concat(entries)
    rows = listed["row"].to_numpy()
    is_told = ~events["lost"][rows] | (listed["outcome"] == "missing").to_numpy()  # nothing else can be said of what never came
    return events[order], listed.with_columns(pl.Series("row", new_row[rows])).filter(is_told)


def _clean_events(spec: FleetSpec, values: Floats) -> Events:
    """Return one event for each reading, row = (device · metrics + metric) · ticks + tick, received after a short delay of the network."""
    events = np.zeros(values.size, dtype=EVENT)
    for name, index in zip(("device", "metric", "tick"), np.indices(values.shape), strict=True):
        events[name] = index.ravel()
    events["value"] = values.ravel()
    events["ts_us"] = events["emitted_us"] = spec.start_us + events["tick"] * spec.interval_us
    delays = np.stack([np.random.default_rng(spec.streams(device)[2]).random(spec.num_ticks) for device in range(spec.num_devices)])
    delay_ms = np.round((0.1 + 0.8 * delays) * spec.max_delay_us / 1000).astype(np.int64)
    received_us = events["ts_us"] + 1000 * (delay_ms[events["device"], events["tick"]] + events["metric"])
    events["received_us"] = events["arrival_us"] = received_us
    return events


def _draw_incidents(spec: FleetSpec) -> dict[str, Incidents]:
    """Draw what strikes each slot of each device, with as many random numbers for every slot."""
    num_slots = spec.num_ticks // spec.slot_ticks
    rolls = np.stack([np.random.default_rng(spec.streams(device)[3]).random((num_slots, 6)) for device in range(spec.num_devices)])
    which, metric, offset, length, delay, roll = rolls.reshape(-1, 6).T
    names = (*EVENT_FAULTS, *LIVE_FAULTS)
    rates = np.array([getattr(spec.faults, name) for name in names])
    struck = np.searchsorted(np.cumsum(rates * spec.slot_ticks), which, side="right")
    device, slot = (index.ravel() for index in np.indices(rolls.shape[:2]))
    everything = Incidents(
        device,
        (metric * len(spec.metrics)).astype(np.int64),
        slot * spec.slot_ticks + 1 + (offset * 8).astype(np.int64),
        1 + (length * 4).astype(np.int64),
        2 + (delay * 7).astype(np.int64),
        roll,
    )
    return {name: everything.select(struck == number) for number, name in enumerate(names)}


def _count(events: Events) -> None:
    """Number each device's events 1, 2, … in the order in which the device counted them; a copy keeps its original's number."""
    identity = ("device", "emitted_us", "tick", "metric")
    order = np.lexsort([events[name] for name in reversed(identity)])
    fresh = np.ones(len(order), dtype=np.int64)
    fresh[1:] = np.any([np.diff(events[name][order]) != 0 for name in identity], axis=0)
    counted = np.cumsum(fresh)
    device = events["device"][order]
    events["seq"][order] = counted - counted[np.searchsorted(device, device, side="left")] + 1


def _gap(spec: FleetSpec, events: Events, incidents: Incidents) -> Struck:
    """Lose everything that a device measures for a while; the device counts on, so that the loss shows."""
    length = incidents.length * 2
    rows, incident = struck_rows(spec, incidents, length, all_metrics=True)
    events["lost"][rows] = True
    return Struck(rows, ["missing"] * len(rows), [f"silent for {ticks} ticks" for ticks in length[incident]])


def _duplicate(spec: FleetSpec, events: Events, incidents: Incidents) -> Struck:
    """Deliver the very same event again: at once, or ticks later."""
    originals, _ = struck_rows(spec, incidents, np.ones_like(incidents.tick))
    copies = events[originals]
    delay = np.where(incidents.roll < 0.5, 0, incidents.delay)
    copies["arrival_us"] += delay * spec.interval_us + 1
    details = [f"the same event again after {ticks} ticks" for ticks in delay]
    return Struck(len(events) + np.arange(len(copies)), ["duplicate"] * len(copies), details, copies)


def _out_of_order(spec: FleetSpec, events: Events, incidents: Incidents) -> Struck:
    """Hold a reading back for most of the allowed lateness, so that others of the device overtake it."""
    rows, _ = struck_rows(spec, incidents, np.ones_like(incidents.tick))
    last = len(spec.metrics) - 1
    if last:  # the last one sent in a tick might be overtaken by nothing
        rows -= np.where(incidents.metric == last, spec.num_ticks, 0)
    held_ms = np.round((0.5 + 0.4 * incidents.roll) * spec.lateness_us / 1000).astype(np.int64)
    events["received_us"][rows] = events["arrival_us"][rows] = events["ts_us"][rows] + 1000 * held_ms
    return Struck(rows, ["accepted"] * len(rows), [f"held back for {ms / 1000:.1f} s" for ms in held_ms])


def _late(spec: FleetSpec, events: Events, incidents: Incidents) -> Struck:
    """Deliver a reading when later ones of its series have long closed its tick."""
    rows, _ = struck_rows(spec, incidents, np.ones_like(incidents.tick))
    behind_us = spec.lateness_us + incidents.delay * spec.interval_us
    events["received_us"][rows] += behind_us
    events["arrival_us"][rows] = events["received_us"][rows]
    return Struck(rows, ["late"] * len(rows), [f"{us / 1e6:.0f} s behind" for us in behind_us])


def _corrected(spec: FleetSpec, events: Events, incidents: Incidents) -> Struck:
    """Send a value that is off, and the right one later with the same stamp, a newer sequence number and a newer arrival."""
    originals, _ = struck_rows(spec, incidents, np.ones_like(incidents.tick))
    corrections = events[originals]
    names = [spec.metrics[index] for index in corrections["metric"]]
    errors = np.array([max(METRICS[name].typical_shift, 1.0) for name in names])
    decimals = [METRICS[name].decimals for name in names]
    wrong = [round(float(value), places) for value, places in zip(corrections["value"] + errors, decimals, strict=True)]
    events["value"][originals] = wrong
    behind_us = spec.lateness_us + incidents.delay * spec.interval_us + spec.interval_us // 2
    corrections["emitted_us"] += behind_us
    corrections["received_us"] += behind_us
    corrections["arrival_us"] = corrections["received_us"]
    details = [f"first sent as {value}" for value in wrong]
    return Struck(len(events) + np.arange(len(corrections)), ["revision"] * len(corrections), details, corrections)


def _wrong_unit(spec: FleetSpec, events: Events, incidents: Incidents) -> Struck:
    """Send temperatures in degF, which ingest can convert, or in bar, which nothing can."""
    if "temperature" not in spec.metrics:
        return Struck(np.empty(0, dtype=np.int64), [], [])
    incidents = replace(incidents, metric=np.full_like(incidents.metric, spec.metrics.index("temperature")))
    rows, incident = struck_rows(spec, incidents, incidents.length)
    convertible = incidents.roll[incident] < 0.6
    fahrenheit = rows[convertible]
    events["value"][fahrenheit] = np.round(events["value"][fahrenheit] * 1.8 + 32.0, 2)
    events["unit"][rows] = np.where(convertible, UNITS.index("degF"), UNITS.index("bar"))
    outcomes = ["converted" if can else "quarantined:unknown_unit" for can in convertible]
    return Struck(rows, outcomes, [f"in {UNITS[unit]}" for unit in events["unit"][rows]])


def _nan(spec: FleetSpec, events: Events, incidents: Incidents) -> Struck:
    """Send null, NaN or words where a number belongs."""
    rows, incident = struck_rows(spec, incidents, incidents.length)
    spelling = 1 + (incidents.roll[incident] * (len(SPELLINGS) - 1)).astype(np.int64)
    events["spelling"][rows] = spelling
    outcomes = [f"quarantined:{SPELLING_CODES[index]}" for index in spelling]
    return Struck(rows, outcomes, [f"sent as {SPELLINGS[index]}" for index in spelling])


def _clock_jump(spec: FleetSpec, events: Events, incidents: Incidents) -> Struck:
    """Stamp a device's readings by a clock that restarted in 1970 or runs decades ahead."""
    rows, incident = struck_rows(spec, incidents, incidents.length, all_metrics=True)
    restarted = incidents.roll[incident] < 0.5
    true_us = events["ts_us"][rows]
    since_restart_us = (events["tick"][rows] - incidents.tick[incident]) * spec.interval_us
    events["ts_us"][rows] = np.where(restarted, since_restart_us, true_us + FAR_FUTURE_US)
    outcomes = [f"quarantined:{'implausible_timestamp' if back else 'future_timestamp'}" for back in restarted]
    return Struck(rows, outcomes, [f"measured at {stamp}Z" for stamp in true_us.astype("M8[us]").astype("M8[s]")])


def _garbage(spec: FleetSpec, events: Events, incidents: Incidents) -> Struck:
    """Damage payloads: cut them short, or replace them by a log line or by noise."""
    rows, incident = struck_rows(spec, incidents, incidents.length)
    damage = 1 + (incidents.roll[incident] * (len(DAMAGES) - 1)).astype(np.int64)
    events["damage"][rows] = damage
    return Struck(rows, ["quarantined:unparseable_line"] * len(rows), [f"{DAMAGES[index]} payload" for index in damage])


def _signal_entries(spec: FleetSpec, signals: Signals) -> pl.DataFrame:
    """Return the entries of what happened in the signals: no fault strikes those ticks."""
    metric = pl.col("metric").replace_strict(list(spec.metrics), list(range(len(spec.metrics))), return_dtype=pl.Int64)
    row = (pl.col("device") * len(spec.metrics) + metric) * spec.num_ticks + pl.col("tick")
    return signals.changes.select("fault", row=row, outcome=pl.lit("accepted"), detail=pl.col("detail"))


INJECTORS: dict[str, Fault] = {
    "gap": _gap,
    "out_of_order": _out_of_order,
    "late": _late,
    "wrong_unit": _wrong_unit,
    "nan": _nan,
    "clock_jump": _clock_jump,
    "garbage": _garbage,
    "duplicate": _duplicate,
    "corrected": _corrected,
}
