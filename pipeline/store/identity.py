"""What a series is called: `device_id/metric`, so that the name of a series says its device and its metric, and no two pairs share one.

The metric is the part after the last slash. Device names may contain slashes, as topics do; a slash in a metric is written `%2F`, and a
literal `%2F` or `%25` in a metric `%252F` or `%2525`. Called by every module that makes or reads such names.
"""

import re

import polars as pl

GENERIC_METRIC = "value"  # the metric of a series whose name has none: says nothing about its quantity
_MARK, _MARKED = r"%(25|2F)", r"%25(25|2F)"
_WHOLE = r"^(.+)/([^/]+)$"


def series_id_of(device_id: str, metric: str) -> str:
    """Return what the series of a device's metric is called.

    >>> series_id_of("hall/d1", "power"), series_id_of("hall", "d1/power")
    ('hall/d1/power', 'hall/d1%2Fpower')
    """
    in_name = re.sub(_MARK, r"%25\1", metric).replace("/", "%2F")
    return f"{device_id}/{in_name}"


def series_id() -> pl.Expr:
    """Return `series_id` from the columns `device_id` and `metric`; null where one of them is."""
    in_name = pl.col("metric").str.replace_all(_MARK, "%25$1").str.replace_all("/", "%2F", literal=True)
    return pl.concat_str("device_id", in_name, separator="/").alias("series_id")


def with_series_id(frame: pl.DataFrame) -> pl.DataFrame:
    """Add `series_id` to a large frame; ten times as fast as `series_id` where no metric needs escaping, which is nearly always."""
    if frame["metric"].str.contains("[/%]").any():
        return frame.with_columns(series_id())
    return frame.with_columns(pl.concat_str("device_id", "metric", separator="/").alias("series_id"))


def device_and_metric(name: str) -> tuple[pl.Expr, pl.Expr]:
    """Return `device_id` and `metric` from the column of full series names; a name without a slash is a device that measures `value`.

    >>> pl.DataFrame({"id": ["hall/d1/power", "hall/d1%2Fpower", "meter"]}).select(device_and_metric("id")).rows()
    [('hall/d1', 'power'), ('hall', 'd1/power'), ('meter', 'value')]
    """
    whole = pl.col(name)
    metric = whole.str.extract(_WHOLE, 2).str.replace_all("%2F", "/", literal=True).str.replace_all(_MARKED, "%$1")
    generic = pl.when(whole.is_not_null()).then(pl.lit(GENERIC_METRIC))
    return whole.str.extract(_WHOLE, 1).fill_null(whole).alias("device_id"), metric.fill_null(generic).alias("metric")
