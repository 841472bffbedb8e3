"""Make a fleet's raw readings, faults included, with a ledger of every fault: what `tidecast simulate` does.

fleet (what it is) -> signals (the truth) -> faults (what goes wrong) -> simulate (lines, ledger, settings). The ledger says for each
fault what ingest must make of it, so that tests can check every one.
"""

import gzip
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from pipeline.errors import DataError, SettingsError
from pipeline.ingest.faults import inject_faults
from pipeline.ingest.fleet import METRICS, FleetSpec
from pipeline.ingest.incidents import DAMAGES, SPELLINGS, UNITS, Events
from pipeline.ingest.signals import Ints, simulate_signals
from pipeline.schemas import UTC_US

FileFormat = Literal["ndjson", "ndjson.gz"]
READINGS_FILE, LEDGER_FILE, SETTINGS_FILE, UNITS_FILE = "readings", "ledger.txt", "tidecast.toml", "units.csv"
OUR_SETTINGS = "# Made by `tidecast simulate`"  # how a settings file begins that may be replaced


@dataclass(frozen=True)
class SimulationReport:
    """What was written.

    Attributes:
        folder: where.
        lines: events in the file, garbage and duplicates included.
        devices: devices of the fleet.
        series: device and metric pairs.
        faults: entries of the ledger by fault.
        outcomes: entries of the ledger by what ingest must make of them.
    """

    folder: Path
    lines: int
    devices: int
    series: int
    faults: dict[str, int]
    outcomes: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return {**asdict(self), "folder": str(self.folder)}


def simulate(spec: FleetSpec) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Simulate a fleet; the same specification gives the same frames, always.

    Returns:
        The events in order of arrival: device_id, metric, ts, value, unit, seq, received_at, as sent (value is null where no number
        was sent), and payload, the line itself. And the ledger of the faults: fault, device_id, metric, ts (as sent), seq, position (line
        number from 1; null for what never arrived), outcome (accepted, converted, revision, late, duplicate, missing or
        quarantined:<error code>), detail.
    """
    events, struck = inject_faults(spec, simulate_signals(spec))
    arrived = events[~events["lost"]]
    frame = _as_sent(spec, arrived)
    lines = _damage(spec, arrived, _lines(frame, arrived))
    ledger = _ledger(spec, events, struck)
    return frame.with_columns(pl.Series("payload", lines, dtype=pl.Binary)), ledger


def unit_registry(spec: FleetSpec, ledger: pl.DataFrame) -> pl.DataFrame:
    """Return the registry that names the units which lines leave out: device_id, metric, unit, valid_from and valid_to.

    Args:
        spec: the fleet.
        ledger: its ledger; each run of ticks that the fault unit_change struck is one interval.
    """
    struck = ledger.filter(fault="unit_change").sort("device_id", "ts")
    begins = (pl.col("ts").diff() != spec.sample_interval).fill_null(value=True)
    spells = struck.with_columns(begins.cum_sum().over("device_id").alias("spell")).group_by("device_id", "metric", "spell")
    interval = spells.agg(pl.col("ts").min().alias("valid_from"), (pl.col("ts").max() + spec.sample_interval).alias("valid_to"))
    registry = interval.with_columns(pl.lit("degF").alias("unit")).sort("device_id", "valid_from")
    return registry.select("device_id", "metric", "unit", "valid_from", "valid_to")


def write_fleet(spec: FleetSpec, folder: Path, format: FileFormat = "ndjson") -> SimulationReport:  # noqa: A002 (the flag's name)
    """Write a fleet's readings, its ledger and the settings that declare its metrics into a folder.

    Args:
        spec: the fleet.
        folder: gets `readings.<format>`, `ledger.txt` (comma-separated; named so that `tidecast ingest FOLDER` passes over it) and
            `tidecast.toml`, and with the fault unit_change `units.csv` for `tidecast ingest --units`; made where missing, files of these
            names that it made are replaced.
        format: plain or compressed lines of JSON.

    Raises:
        SettingsError: if the format is not known or the folder cannot be written.
        DataError: if the folder has a `tidecast.toml` that somebody else wrote; nothing is written then.
    """
    if format not in ("ndjson", "ndjson.gz"):
        raise SettingsError(f"A simulated fleet requires the format ndjson or ndjson.gz; got {format!r}. Name one of the two.")
    settings = folder / SETTINGS_FILE
    if settings.is_file() and not settings.read_bytes().startswith(OUR_SETTINGS.encode()):
        raise DataError(f"A simulated fleet requires a folder without settings of your own; got {settings}. Choose another folder.")
    events, ledger = simulate(spec)
    content = b"\n".join(events["payload"].to_list()) + b"\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{READINGS_FILE}.{format}").write_bytes(gzip.compress(content, mtime=0) if format == "ndjson.gz" else content)
        ledger.write_csv(folder / LEDGER_FILE, datetime_format="%Y-%m-%dT%H:%M:%SZ")
        if spec.faults.unit_change:
            unit_registry(spec, ledger).write_csv(folder / UNITS_FILE, datetime_format="%Y-%m-%dT%H:%M:%SZ")
        settings.write_text(_settings(spec), encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"A simulated fleet requires a folder that can be written; got {folder} ({error}). Choose another.") from error
    return SimulationReport(
        folder, len(events), spec.num_devices, spec.num_devices * len(spec.metrics), _counts(ledger["fault"]), _counts(ledger["outcome"])
    )


def _counts(column: pl.Series) -> dict[str, int]:
    return dict(column.value_counts(name="count").sort(column.name).iter_rows())


def _names(values: Iterable[str | None], index: Ints) -> pl.Series:
    return pl.Series(list(values), dtype=pl.String).gather(index)


def _identity(spec: FleetSpec, events: Events) -> dict[str, pl.Series]:
    """Return the columns that name an event: device_id, metric, ts, seq."""
    return {
        "device_id": _names(map(spec.device_id, range(spec.num_devices)), events["device"]),
        "metric": _names(spec.metrics, events["metric"]),
        "ts": pl.Series(events["ts_us"]).cast(UTC_US),
        "seq": pl.Series(events["seq"]),
    }


def _as_sent(spec: FleetSpec, events: Events) -> pl.DataFrame:
    """Return the events as the devices sent them, one column for each key of the line."""
    canonical = _names((METRICS[name].unit for name in spec.metrics), events["metric"])
    frame = pl.DataFrame(
        {
            **_identity(spec, events),
            "value": pl.Series(events["value"]).set(pl.Series(events["spelling"] > 0), None),
            "unit": _names(UNITS, events["unit"]).fill_null(canonical).set(pl.Series(events["unstated"]), None),
            "received_at": pl.Series(events["received_us"]).cast(UTC_US),
        }
    )
    return frame.select("device_id", "metric", "ts", "value", "unit", "seq", "received_at")


def _lines(frame: pl.DataFrame, events: Events) -> list[bytes]:
    """Return the events as JSON; stamps are ISO 8601 in UTC, the receiver's with milliseconds."""
    value = pl.col("value").cast(pl.String).fill_null(_names(SPELLINGS, events["spelling"]))
    line = pl.concat_str(
        pl.lit('{"device_id":"'),
        "device_id",
        pl.lit('","metric":"'),
        "metric",
        pl.lit('","ts":"'),
        pl.col("ts").dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        pl.lit('","value":'),
        value,
        pl.lit(',"unit":'),
        pl.format('"{}"', "unit").fill_null("null"),
        pl.lit(',"seq":'),
        "seq",
        pl.lit(',"received_at":"'),
        pl.col("received_at").dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ"),
        pl.lit('"}'),
    )
    return frame.select(line=line.cast(pl.Binary))["line"].to_list()


def _damage(spec: FleetSpec, events: Events, lines: list[bytes]) -> list[bytes]:
    """Break the payloads that a fault has marked, each by random numbers of its own."""
    for row in np.flatnonzero(events["damage"]):
        event = events[row]
        rng = np.random.default_rng([spec.seed, int(event["device"]), int(event["metric"]), int(event["tick"])])
        lines[row] = _garble(lines[row], DAMAGES[event["damage"]], rng)
    return lines


def _garble(line: bytes, damage: str | None, rng: np.random.Generator) -> bytes:
    """Return a damaged line that is no JSON and holds no line break."""
    if damage == "truncated":
        return line[: int(rng.integers(5, len(line) - 5))]
    if damage == "text":
        return b"WARN modem restarted, rssi=-%d dBm" % rng.integers(60, 120)
    noise = b"\xff\x00" + rng.bytes(int(rng.integers(8, 40)))  # no UTF-8 begins with 0xff
    return noise.translate(None, delete=b"\r\n")


def _ledger(spec: FleetSpec, events: Events, struck: pl.DataFrame) -> pl.DataFrame:
    """Return the faults with the names of the events they struck, in the order in which these were measured."""
    row = struck["row"].to_numpy()
    hit = events[row]
    entries = pl.DataFrame(
        {
            "fault": struck["fault"],
            **_identity(spec, hit),
            "position": pl.Series(row + 1, dtype=pl.Int64).set(pl.Series(hit["lost"]), None),
            "outcome": struck["outcome"],
            "detail": struck["detail"],
            "measured": hit["tick"],
        }
    )
    ordered = entries.sort("measured", "device_id", "metric", "seq", "fault")
    return ordered.select("fault", "device_id", "metric", "ts", "seq", "position", "outcome", "detail")


def _settings(spec: FleetSpec) -> str:
    """Return the settings file that declares the fleet's metrics."""
    lines = [
        f"{OUR_SETTINGS}: what the readings in this folder mean.",
        "[ingest]",
        f'allowed_lateness = "PT{spec.allowed_lateness.total_seconds():.0f}S"',
    ]
    if spec.faults.outage:
        lines.append(f'idle_timeout = "PT{spec.idle_timeout.total_seconds():.0f}S"')
    for name in spec.metrics:
        lines += ["", f"[metrics.{name}]", f'aggregation = "{METRICS[name].aggregation}"', f'unit = "{METRICS[name].unit}"']
    return "\n".join(lines) + "\n"
