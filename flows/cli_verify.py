"""The verb `verify`: which laws hold for the champion, for a saved model, or for anybody's forecaster."""

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_options import AsJson, Lake, NoOrchestrator, SettingsFile, read_settings

if TYPE_CHECKING:
    from pipeline.verify.verify import VerifyReport

BROKEN, WRONG_USE = 1, 2
TRAIN_SECONDS = 60.0  # a limit: an idle core needs a quarter of it


def verify(
    subject: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL|MODULE]",
            help="A version, a saved model's folder, or an nn.Module as package.module:name or file.py:name.  (default: the champion)",
        ),
    ] = None,
    max_seconds: Annotated[float, typer.Option(min=1, help="Time for the short trainings that two of the laws need.")] = TRAIN_SECONDS,
    lake: Lake = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,  # noqa: ARG001 (asking never uses Prefect)
) -> None:
    """Ask the laws of causality of a forecaster. Exit code 0: none is broken; 1: one is; 2: it could not be asked."""
    from flows.console import busy, fail, write_json
    from pipeline.errors import TidecastError
    from pipeline.verify.verify import verify as ask

    try:
        with busy("asking the laws"):
            report = ask(read_settings(settings_file, lake), subject, max_seconds=max_seconds)
    except TidecastError as error:  # 1 is for a broken law alone
        fail(str(error))
        raise typer.Exit(WRONG_USE) from error
    if as_json:
        write_json(report.to_dict())
    else:
        _show(report)
    if not report.holds:
        raise typer.Exit(BROKEN)


def _show(report: "VerifyReport") -> None:
    """Draw one row for each law, then what to do about the broken ones."""
    from flows.console import stdout, table
    from pipeline.verify.laws import LAWS

    rows = [
        {"law": f"{finding.law}", "verdict": finding.verdict, "meaning": LAWS[finding.law].meaning, "seen": finding.seen}
        for finding in report.findings
    ]
    out = stdout()
    out.print(table(rows, title=report.subject))
    for finding in report.broken:
        law = LAWS[finding.law]
        out.print(f"Law {finding.law} ({law.name}) is broken: {finding.seen}. {law.remedy}", highlight=False, markup=False)
    asked = sum(finding.verdict != "not applicable" for finding in report.findings)
    verdict = f"{len(report.broken)} of {asked} laws broken" if report.broken else f"{asked} laws hold"
    out.print(f"{verdict}; {len(report.findings) - asked} not applicable.", highlight=False)
