"""The flags that say what the task is: the same for `benchmarks.accuracy` and `benchmarks.peers`."""

import argparse
from pathlib import Path

from benchmarks.accuracy.task import Task, load_last_window, load_ltsf
from pipeline.errors import SettingsError


def task_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `load_task` reads."""
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="FILE", help="CSV, or Parquet by its suffix")
    add("--protocol", choices=("ltsf", "last-window"), required=True)
    add("--horizon", type=int, required=True, metavar="H", help="steps of every forecast")
    add("--season", type=int, metavar="S", help="ticks, of MASE and of the model; by default the day, the week or the year of the data")
    wide = parser.add_argument_group("ltsf only")
    wide.add_argument(
        "--borders",
        default="0,8640,11520,14400",
        help="rows at which training, validation and test begin and the test ends, or fractions, as 0,0.6,0.8,1 (default %(default)s)",
    )
    wide.add_argument("--columns", default="", help="the series, as a,b; by default all but time and covariates")
    wide.add_argument("--time-column", default="date", help="the timestamp, or its parts, as year,month,day,hour (default date)")
    wide.add_argument("--past-covariates", default="", help="columns known up to the forecast's origin only, as a,b")


def load_task(arguments: argparse.Namespace) -> Task:
    """Read the task that the flags describe.

    Raises:
        SettingsError: for flags that make no sense.
        DataError: when the file does not hold what they ask for.
    """
    if arguments.horizon < 1 or (arguments.season is not None and arguments.season < 1):
        raise SettingsError(
            f"--horizon and --season require numbers of at least 1; got {arguments.horizon} and {arguments.season}. Correct them."
        )
    if arguments.protocol == "last-window":
        return load_last_window(arguments.data, arguments.horizon, arguments.season)
    try:
        borders = [float(border) for border in arguments.borders.split(",")]
    except ValueError as error:
        raise SettingsError(f"--borders requires four numbers, as 0,0.6,0.8,1; got {arguments.borders!r}. Correct it.") from error
    return load_ltsf(
        arguments.data,
        arguments.horizon,
        borders=borders,
        columns=_names(arguments.columns),
        time_columns=_names(arguments.time_column),
        past_covariates=_names(arguments.past_covariates),
        season=arguments.season,
    )


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
