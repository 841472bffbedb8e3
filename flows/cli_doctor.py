"""The verb `doctor`: what is damaged in the lake and the state folder, and, where asked, its repair."""

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_options import AsJson, Lake, NoOrchestrator, SettingsFile, read_settings

if TYPE_CHECKING:
    from pipeline.doctor.findings import DoctorReport

DAMAGED = 1


def doctor(
    *,
    repair: Annotated[bool, typer.Option("--repair", help="Mend it. Nothing is deleted: what is taken out goes to LAKE/_doctor.")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Read every data file and hold it against its content hash.")] = False,
    lake: Lake = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,  # noqa: ARG001 (never uses Prefect)
) -> None:
    """Examine the lake for damage: torn logs, missing and rotten files, lost messages. Exit code 0: healthy, or mended; 1: damaged."""
    from flows.console import busy, write_json
    from pipeline.clock import SystemClock
    from pipeline.doctor.doctor import examine
    from pipeline.doctor.doctor import repair as mend

    settings = read_settings(settings_file, lake)
    with busy("examining the lake"):
        report = (mend if repair else examine)(settings, SystemClock(), deep=deep)
    if as_json:
        write_json(report.to_dict())
    else:
        _show(report)
    if not report.is_healthy:
        raise typer.Exit(DAMAGED)


def _show(report: "DoctorReport") -> None:
    """Write one line for each finding and each thing done, then the verdict."""
    from flows.console import stdout

    out = stdout()
    for finding in report.repaired:
        out.print(f"mended: {finding.place}: {finding.seen}.", markup=False, highlight=False, soft_wrap=True)
    for action in report.actions:
        out.print(f"done: {action}.", markup=False, highlight=False, soft_wrap=True)
    for finding in report.findings:
        out.print(str(finding), markup=False, highlight=False, soft_wrap=True)
    looked_at = f"{report.files:,} data files looked at, {report.hashed:,} held against their hash"
    verdict = "The lake is healthy" if report.is_healthy else f"{len(report.findings)} findings"
    out.print(f"{verdict}: {looked_at}.", markup=False, highlight=False)
