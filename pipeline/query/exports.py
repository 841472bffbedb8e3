"""Hand queried forecasts on: to a terminal, as JSON, CSV and Parquet, and in the frames that Nixtla's and AutoGluon's tools expect.

Called by the command line and by notebooks with what `pipeline.query.frames.query_forecasts` returned. Instants are written as
ISO 8601 with a Z; a value that is not finite is written as null or as an empty field, never as NaN.
"""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import polars.selectors as cs

from pipeline.errors import DataError, SettingsError
from pipeline.query.printable import printable

if TYPE_CHECKING:
    from rich.table import Table

ISO_INSTANT = "%Y-%m-%dT%H:%M:%S%.fZ"
FORECAST_KEY = ("series_id", "origin", "step")
MEDIAN = "q0.5"
FORMATS = (".json", ".csv", ".parquet")


def to_json(frame: pl.DataFrame) -> str:
    """Return a JSON array with one object for each row.

    >>> to_json(pl.DataFrame({"series_id": ["a/b"], "q0.5": [float("nan")]}))
    '[{"series_id":"a/b","q0.5":null}]'
    """
    return _written(frame).write_json()


def to_csv(frame: pl.DataFrame) -> str:
    """Return CSV with a header.

    >>> to_csv(pl.DataFrame({"series_id": ["a/b"], "q0.5": [1.5]})).splitlines()
    ['series_id,q0.5', 'a/b,1.5']
    """
    return _written(frame).write_csv()


def require_place(path: Path) -> None:
    """Look, before the work that makes a frame, whether `write_frame` could write it there.

    Raises:
        SettingsError: for a suffix that is no format, or a folder that is not there.
    """
    if path.suffix not in FORMATS:
        raise SettingsError(f"An export requires a file that ends in .json, .csv or .parquet; got {path}. Choose one of these.")
    if path.is_dir() or not path.parent.is_dir():
        raise SettingsError(f"An export requires a place that can be written; got {path}. Check the path and its folder.")


def write_frame(frame: pl.DataFrame, path: Path) -> Path:
    """Write a frame to a file, in the format of the file's suffix.

    Args:
        frame: any frame of this module.
        path: ends in `.json`, `.csv` or `.parquet`; its folder exists.

    Returns:
        The path.

    Raises:
        SettingsError: for another suffix, or where the file cannot be written.
    """
    require_place(path)
    try:
        if path.suffix == ".json":
            path.write_text(to_json(frame) + "\n", encoding="utf-8")
        elif path.suffix == ".csv":
            path.write_text(to_csv(frame), encoding="utf-8")
        else:
            frame.write_parquet(path)
    except OSError as error:
        raise SettingsError(
            f"An export requires a place that can be written; got {path}: {error}. Check the path and its folder."
        ) from error
    return path


def to_table(frame: pl.DataFrame, *, max_rows: int = 48, provenance: bool = False) -> "Table":
    """Return a table for the terminal: the median, the 80 % interval and what came true, of the first `max_rows` rows.

    Args:
        frame: as `query_forecasts` returns it.
        max_rows: further rows are not drawn; the caption says how many there are.
        provenance: say of each row which model made it, when and from which version of the observations.
    """
    from rich.markup import escape
    from rich.table import Table

    shown = frame.head(max_rows)
    values = [name for name in ("q0.1", MEDIAN, "q0.9", "actual") if name in frame.columns]
    titles = {
        MEDIAN: "median",
        "q0.1": "10 %",
        "q0.9": "90 %",
        "series_id": "series",
        "ts": "target time (UTC)",
        "created_at": "made (UTC)",
    }
    titles |= {"model_version": "model", "input_version": "inputs"}
    columns = ["series_id", "origin", "step", "ts", *values, "status"]
    columns += ["model_version", "input_version", "created_at"] if provenance else []
    left_out = frame.height - shown.height
    table = Table(box=None, header_style="bold", caption=f"{left_out:,} more rows" if left_out else None)
    for name in columns:
        is_number = name in (*values, "step", "input_version")
        table.add_column(titles.get(name, name), justify="right" if is_number else "left", style="bold" if name == MEDIAN else "")
    for row in shown.iter_rows(named=True):
        table.add_row(*(escape(printable(_cell(row[name]))) for name in columns))
    return table


def to_inputs_table(frame: pl.DataFrame, *, max_rows: int = 48) -> "Table":
    """Return a table for the terminal: the last `max_rows` observations that forecasts could see, a gap without a value.

    Args:
        frame: as `query_inputs` returns it.
        max_rows: earlier rows are not drawn; the caption says how many there are.
    """
    from rich.markup import escape
    from rich.table import Table

    titles = {"series_id": "series", "ts": "tick (UTC)", "value": "value", "revision": "revision", "available_at": "known since (UTC)"}
    left_out = max(0, frame.height - max_rows)
    table = Table(box=None, header_style="bold", caption=f"{left_out:,} earlier rows are not shown" if left_out else None)
    for name, title in {"series_id": titles.pop("series_id"), "origin": "origin", **titles}.items():
        table.add_column(title, justify="right" if name in ("value", "revision") else "left")
    for row in frame.tail(max_rows).iter_rows(named=True):
        table.add_row(*(escape(printable(_cell(row[name]))) for name in ("series_id", "origin", *titles)))
    return table


def to_nixtla(frame: pl.DataFrame, *, model: str = "tidecast") -> pl.DataFrame:
    """Return the frame of Nixtla's `cross_validation`, ready for `utilsforecast.evaluation.evaluate`.

    Args:
        frame: as `query_forecasts` returns it, from one model version, with every step wanted.
        model: name of the forecast's columns.

    Returns:
        `unique_id, ds, cutoff, [y,] tidecast, tidecast-lo-80, tidecast-hi-80 … tidecast-hi-20`; `tidecast` is the median, `cutoff` our
        `origin`, `y` is there when the frame has actuals; instants are UTC without a time zone, as in Nixtla's own frames.

    Raises:
        DataError: when a series and origin has several forecasts, or the median was not forecast.
    """
    _require_one_forecast(frame)
    levels = sorted(float(name[1:]) for name in _quantiles(frame))
    intervals = [
        pl.col(f"q{level:.6g}").cast(pl.Float64).alias(f"{model}-{side}-{_percent(level)}")
        for lower in levels
        if lower < 0.5 and round(1 - lower, 6) in levels
        for side, level in (("lo", lower), ("hi", round(1 - lower, 6)))
    ]
    actual = [pl.col("actual").alias("y")] if "actual" in frame.columns else []
    instants = {"ds": pl.col("ts").dt.replace_time_zone(None), "cutoff": pl.col("origin").dt.replace_time_zone(None)}
    return frame.select(
        pl.col("series_id").alias("unique_id"),
        *(column.alias(name) for name, column in instants.items()),
        *actual,
        pl.col(MEDIAN).cast(pl.Float64).alias(model),
        *intervals,
    ).sort("unique_id", "cutoff", "ds")


def to_autogluon(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame of AutoGluon's and Chronos' `predict`: `item_id, timestamp, mean, 0.1 … 0.9`, one origin for each series.

    Args:
        frame: as `query_forecasts` returns it with `latest=True`.

    Raises:
        DataError: when a target time of a series has several forecasts, or the median was not forecast.
    """
    _require_one_forecast(frame, key=("series_id", "ts"))
    return frame.select(
        pl.col("series_id").alias("item_id"),
        pl.col("ts").dt.replace_time_zone(None).alias("timestamp"),
        pl.col(MEDIAN).alias("mean"),  # AutoGluon calls its point forecast the mean, also where it is the median
        *(pl.col(name).alias(name[1:]) for name in _quantiles(frame)),
    ).sort("item_id", "timestamp")


def _cell(value: object) -> str:
    """Return what a table says of a value; seconds only where an instant has some."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}" if not value.second else f"{value:%Y-%m-%d %H:%M:%S}"
    return short_number(value) if isinstance(value, float) else "" if value is None else str(value)


def short_number(value: float) -> str:
    """Return four significant digits, without an exponent where thousands separators read better."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


def _percent(level: float) -> str:
    """Return the coverage in percent of the interval that a quantile bounds, as Nixtla writes it: 80, 95, 99.5."""
    return f"{100 * abs(1 - 2 * level):.6g}"


def _quantiles(frame: pl.DataFrame) -> list[str]:
    return [name for name in frame.columns if name.startswith("q") and name[1:2].isdigit()]


def _require_one_forecast(frame: pl.DataFrame, key: tuple[str, ...] = FORECAST_KEY) -> None:
    """Refuse frames that another tool would misread."""
    if MEDIAN not in frame.columns:
        raise DataError(f"This export requires the median {MEDIAN}; got the columns {', '.join(frame.columns)}. Forecast the level 0.5.")
    twice = frame.filter(frame.select(key).is_duplicated()).select(key).unique(maintain_order=True)
    if twice.height:
        raise DataError(
            f"This export requires one forecast for each {', '.join(key)}; got {twice.height} with several, first {twice.row(0)}. "
            "Choose one with model_version (--model-version), or the newest with latest (--latest)."
        )


def _written(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame as it is written: instants as ISO 8601, numbers finite or null."""
    floats = cs.float()
    return frame.with_columns(
        cs.datetime().dt.to_string(ISO_INSTANT),
        pl.when(floats.is_finite()).then(floats).otherwise(None).name.keep(),
    )
