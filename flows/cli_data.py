"""The verbs that get data: `simulate`, `data list`, `data get` and `maintain`, which keeps the tables small."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from flows.cli_options import AsJson, Lake, NoOrchestrator, SettingsFile, duration_option, instant_option, read_settings

data_app = typer.Typer(help="Known public data sets: list them, fetch one.", no_args_is_help=True)


def simulate(  # noqa: PLR0913 (a verb's options are its signature)
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Gets readings, a ledger of the faults, and tidecast.toml.")],
    *,
    devices: Annotated[int, typer.Option(min=1, help="Devices of the fleet; each measures four metrics.")] = 4,
    days: Annotated[int, typer.Option(min=1, help="Length of the history.")] = 90,
    interval: Annotated[timedelta | None, duration_option("--interval", "Spacing of the readings.  (default: 1h)")] = None,
    start: Annotated[datetime | None, instant_option("--start", "Stamp of the first reading.  (default: 2026-01-01T00:00Z)")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same files.")] = 7,
    fault: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Inject only this fault (repeatable; `none` for a clean fleet; docs/event_time.md has all)."),
    ] = None,
    fault_rate: Annotated[float, typer.Option(min=0, max=1, help="Incidents per device and tick, of each fault.")] = 0.002,
    compress: Annotated[bool, typer.Option("--compress", help="Write readings.ndjson.gz.")] = False,
    lake: Lake = None,  # noqa: ARG001 (every verb takes it; this one writes to FOLDER)
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,  # noqa: ARG001 (never uses Prefect)
) -> None:
    """Make a fleet's readings with the faults of the real world, and a ledger of every fault."""
    from flows.console import stdout, write_json
    from pipeline.ingest.fleet import FaultSpec, FleetSpec
    from pipeline.ingest.simulate import write_fleet

    faults = FaultSpec.all(fault_rate) if not fault else FaultSpec.only(*(name for name in fault if name != "none"), rate=fault_rate)
    limits = read_settings(settings_file, None).ingest
    spec = FleetSpec(
        num_devices=devices,
        days=days,
        seed=seed,
        faults=faults,
        allowed_lateness=limits.allowed_lateness,
        idle_timeout=limits.idle_timeout,
        sample_interval=interval if interval is not None else FleetSpec.sample_interval,
        start=start or FleetSpec.start,
    )
    report = write_fleet(spec, folder, "ndjson.gz" if compress else "ndjson")
    if as_json:
        write_json(report.to_dict())
        return
    injected = ", ".join(f"{name} {count}" for name, count in report.faults.items()) or "none"
    stdout().print(f"{report.lines:,} readings of {report.series} series in {folder}. Faults injected: {injected}.")


@data_app.command("list")
def list_datasets(as_json: AsJson = False, no_orchestrator: NoOrchestrator = False) -> None:  # noqa: ARG001 (never uses Prefect)
    """List the data sets that `tidecast data get` knows."""
    from flows.console import stdout, table, write_json
    from pipeline.ingest.download import DATASETS

    if as_json:
        write_json([vars(dataset) for dataset in DATASETS])
        return
    stdout().print(table([{"name": d.name, "about": d.about, "licence": d.licence, "MB": round(d.num_bytes / 1e6, 2)} for d in DATASETS]))


@data_app.command("get")
def get_dataset(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `tidecast data list` shows it.")],
    folder: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the file goes.")] = Path("data/downloads"),
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,  # noqa: ARG001 (never uses Prefect)
) -> None:
    """Fetch a data set by its URL and check it against its SHA-256."""
    from flows.console import downloading, stdout, write_json
    from pipeline.ingest.download import CATALOGUE, get

    with downloading(name) as progress:
        path = get(name, folder, progress=progress)
    if as_json:
        write_json({"name": name, "path": path, "ingest": f"tidecast ingest {path} {CATALOGUE[name].ingest}"})
        return
    stdout().print(f"{path}\nIngest it: tidecast ingest {path} {CATALOGUE[name].ingest}", soft_wrap=True)


def maintain(
    lake: Lake = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,  # noqa: ARG001 (never uses Prefect)
) -> None:
    """Merge the lake's small files, delete those that nothing refers to any more, and record content hashes for `doctor --deep`."""
    from flows import direct
    from flows.console import busy, stdout, table, write_json

    settings = read_settings(settings_file, lake)
    with busy("compacting, vacuuming and hashing"):
        done = direct.maintain(settings)
    if as_json:
        write_json({step: report.to_dict() for step, report in done.items()})
        return
    stdout().print(table([{"step": step, "result": str(result)} for step, result in done.items()]))
