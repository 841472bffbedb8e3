"""The options that several verbs share, and how their words are read; typer alone is imported, so that `--help` is quick."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.settings import Settings

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|min|s|m|h|d|w)")
_LONGEST_D = 36_525  # a century; beyond it sums of instants leave the calendar


def parse_duration(text: str) -> timedelta:
    """Read a duration such as `30min`, `1h`, `7d` or `1h30min`.

    >>> parse_duration("1h30min")
    datetime.timedelta(seconds=5400)

    Raises:
        typer.BadParameter: where a part is not a number with a unit, or the sum is over a century.
    """
    parts = _PART.findall(text.strip().lower())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip().lower():
        raise typer.BadParameter(f"A duration requires numbers with units (ms, s, min, h, d, w); got {text!r}. Write 30min, 1h or 7d.")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if seconds > _LONGEST_D * _SECONDS["d"]:
        raise typer.BadParameter(f"A duration requires at most {_LONGEST_D}d, a century; got {text!r}. Write 30min, 1h or 7d.")
    return timedelta(seconds=seconds)


def parse_instant(text: str) -> datetime:
    """Read an ISO 8601 instant with its offset; as for readings, none is guessed.

    >>> parse_instant("2018-02-20T02:00+02:00")
    datetime.datetime(2018, 2, 20, 0, 0, tzinfo=datetime.timezone.utc)

    Raises:
        typer.BadParameter: where it is not ISO 8601, has no offset, or its offset takes it out of the years 1 to 9999.
    """
    try:
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is None:
            raise typer.BadParameter(f"An instant requires an offset or Z, for UTC; got {text!r}. Write {instant.isoformat()}Z.")
        return instant.astimezone(UTC)
    except ValueError:
        raise typer.BadParameter(
            f"An instant requires ISO 8601; got {text!r}. Write 2018-02-20T12:00Z or 2018-02-20T13:00+01:00."
        ) from None
    except OverflowError:
        raise typer.BadParameter(f"An instant requires a year of 1 to 9999 in UTC; got {text!r}. Write 2018-02-20T12:00Z.") from None


Lake = Annotated[str | None, typer.Option("--lake", help="The lake: a folder or an s3:// URI. Wins over TIDECAST_LAKE and tidecast.toml.")]
SettingsFile = Annotated[Path | None, typer.Option("--settings", metavar="FILE", help="Read this file instead of ./tidecast.toml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
NoOrchestrator = Annotated[bool, typer.Option("--no-orchestrator", help="Call the stage directly, without Prefect.")]
Series = Annotated[
    list[str] | None,
    typer.Option("--series", metavar="PATTERN", help="Only series whose id matches, as 'pump-*/flow'; repeatable."),
]


def patterns(series: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the patterns of `--series`; None, which is every series, where none was given."""
    return tuple(series) if series else None


def given(**options: object) -> dict[str, object]:
    """Keep the options that the user gave; the others are left to the settings.

    >>> given(horizon=None, seed=0)
    {'seed': 0}
    """
    return {name: value for name, value in options.items() if value is not None}


def instant_option(name: str, explanation: str) -> object:
    """Make an option that reads an instant."""
    return typer.Option(name, parser=parse_instant, metavar="INSTANT", help=explanation)


def duration_option(name: str, explanation: str) -> object:
    """Make an option that reads a duration."""
    return typer.Option(name, parser=parse_duration, metavar="DURATION", help=explanation)


Horizon = Annotated[int | None, typer.Option("--horizon", min=1, help="Steps to forecast from every origin.")]
TrainEnd = Annotated[datetime | None, instant_option("--train-end", "Targets up to here train.  (default: by the settings' fractions)")]
ValidationEnd = Annotated[
    datetime | None, instant_option("--validation-end", "Origins from there to here choose; no choice sees later ones.")
]
MaxSeconds = Annotated[float | None, typer.Option("--max-seconds", min=1, help="Stop each training after this long.")]


def read_settings(path: Path | None, lake: str | None, **overrides: object) -> "Settings":
    """Read the settings once, with what the command line overrides.

    Raises:
        SettingsError: naming each offending knob.
    """
    from pipeline.settings import load_settings

    return load_settings(path, **given(lake=lake), **overrides)
