"""Which unit a metric is stored in, whatever each device sends: the one that the settings declare, else the first that came.

A reading that names no unit is in the one that the registry of intervals says its device sent then, else in its metric's own.
Called by `intake.py` after validation; a unit that cannot be converted sends the reading to quarantine.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

import polars as pl

from pipeline.schemas import Readings
from pipeline.store.identity import GENERIC_METRIC
from pipeline.store.known_units import UNIT_INTERVALS
from pipeline.store.lake import Lake, read
from pipeline.store.unit_conversion import canonical_name, to_unit

EVERY_DEVICE = "*"


@dataclass(frozen=True)
class UnitRegistry:
    """The canonical unit of each metric, and of each series whose metric is the generic `value`; grows as units are first seen.

    Attributes:
        units: canonical unit by metric or series id.
        intervals: which unit devices send when they name none, in the columns of `UNIT_INTERVALS`.
    """

    units: Mapping[str, str]
    intervals: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=UNIT_INTERVALS))

    @classmethod
    def of(cls, declared: Mapping[str, str | None], series: pl.DataFrame, intervals: pl.DataFrame) -> "UnitRegistry":
        """Start from the settings, then from the series already in the catalog.

        Args:
            declared: unit by metric, as the settings say; these win.
            series: catalog rows with series_id, metric and unit.
            intervals: as `KnownUnits.intervals` returns them.
        """
        seen = _first_units(series.sort("series_id"))
        return cls({**seen, **{metric: canonical_name(unit) for metric, unit in declared.items() if unit is not None}}, intervals)

    def resolve(self, readings: pl.DataFrame) -> pl.DataFrame:
        """Fill in the unit in force at its instant where a reading names none; an interval of its device comes before one of all devices.

        Call it before `learn` and `convert`. A reading that no interval holds stays without a unit.

        Args:
            readings: device_id, metric, ts, unit (null where none is given), and any other columns.
        """
        if self.intervals.is_empty() or not readings["unit"].null_count():
            return readings
        own = _in_force(readings, self.intervals, by=("device_id", "metric"))
        general = _in_force(readings, self.intervals.filter(device_id=EVERY_DEVICE), by=("metric",))
        return readings.with_columns(pl.coalesce("unit", own, general).alias("unit"))

    def learn(self, readings: pl.DataFrame, settle: Callable[[dict[str, str]], Mapping[str, str]] = dict) -> "UnitRegistry":
        """Return a registry that also holds a unit for each metric it did not know.

        Args:
            readings: series_id, metric and unit; the first unit of a metric, in their order, is proposed.
            settle: takes what is proposed by metric, and says what shall hold; asked only when there is something new.
        """
        proposed = {key: unit for key, unit in _first_units(readings).items() if key not in self.units}
        return replace(self, units={**self.units, **settle(proposed)}) if proposed else self

    def convert(self, readings: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Bring values into the canonical unit of their metric; a reading without a unit is in that already, and stays without one.

        What it did not say is not written down: where the canonical unit proves wrong, such a reading was in the right one.

        Args:
            readings: series_id, metric, value and unit (null where none is given), and any other columns.

        Returns:
            The readings in their canonical unit, and those whose unit is incompatible, unchanged, with error_code and
            error_text.
        """
        converted, unknown = to_unit(self.with_canonical(readings), "canonical")
        text = pl.format(
            "The metric {} requires a unit that converts to {}; got {}. Where {} is wrong, declare metrics.{}.unit and run "
            "`tidecast replay-quarantine`, or ingest the file again.",
            *("metric", "canonical", "unit", "canonical", "metric"),
        )
        rejected = unknown.select(*readings.columns, pl.lit("unknown_unit").alias("error_code"), text.alias("error_text"))
        return converted.select(readings.columns), rejected

    def with_canonical(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Add `canonical`, the unit that the series of each row is stored in, null where none is known yet.

        Args:
            frame: series_id, metric, and any other columns.
        """
        return frame.with_columns(_unit_key().replace_strict(dict(self.units), default=None, return_dtype=pl.String).alias("canonical"))


def stored_units(lake: Lake, keys: Collection[str]) -> dict[str, str]:
    """Return the unit that the readings of each metric are stored in, for a catalog that has lost it; the oldest where there are two.

    Args:
        lake: the lake.
        keys: metrics, and series ids where the metric is `value`.

    Raises:
        StoreError: when the table cannot be read.
    """
    has_unit = pl.col("unit").is_not_null() & _unit_key().is_in(list(keys))
    pairs = lake.scan(Readings).filter(has_unit).group_by("series_id", "metric", "unit").agg(pl.col("ingested_at").min())
    return _first_units(read(pairs).sort("ingested_at", "series_id", "unit"))


def _in_force(readings: pl.DataFrame, intervals: pl.DataFrame, by: tuple[str, ...]) -> pl.Series:
    """Return for each reading the unit of the interval that holds its stamp, null where none does."""
    starts = intervals.sort("valid_from").select(*by, pl.col("unit").alias("in_force"), "valid_from", "valid_to")
    found = (
        readings.select(*by, "ts")
        .with_row_index("row")
        .sort("ts")
        .join_asof(starts, left_on="ts", right_on="valid_from", by=by, check_sortedness=False)  # both are sorted: it cannot tell
    )
    has_ended = pl.col("ts") >= pl.col("valid_to")
    return found.sort("row").select(pl.when(has_ended).then(None).otherwise("in_force").alias("in_force")).to_series()


def _unit_key() -> pl.Expr:
    return pl.when(pl.col("metric") == GENERIC_METRIC).then("series_id").otherwise("metric").alias("unit_key")


def _first_units(readings: pl.DataFrame) -> dict[str, str]:
    firsts = readings.filter(pl.col("unit").is_not_null()).with_columns(_unit_key()).unique("unit_key", keep="first", maintain_order=True)
    return {key: canonical_name(unit) for key, unit in firsts.select("unit_key", "unit").rows()}
