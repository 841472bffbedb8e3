"""Linear conversions between the units of one quantity, so that a metric is stored in one unit whatever each device sends.

A reading that names no unit is in the one that the registry of intervals says its device sent then, else in its metric's own.
Called by `ingest.py` after validation; a unit that cannot be converted sends the reading to quarantine.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

import polars as pl

from pipeline.schemas import Readings
from pipeline.store.known_units import UNIT_INTERVALS
from pipeline.store.lake import Lake, read

EVERY_DEVICE = "*"
GENERIC_METRIC = "value"  # the metric of a series that has none: says nothing about its quantity


@dataclass(frozen=True)
class Unit:
    """A unit as a linear map to the base of its dimension: base = scale · value + offset."""

    dimension: str
    scale: float
    offset: float = 0.0


def _scaled(dimension: str, **scales: float) -> dict[str, Unit]:
    return {name.replace("_per_", "/"): Unit(dimension, scale) for name, scale in scales.items()}


UNITS: dict[str, Unit] = {
    "degC": Unit("temperature", 1.0),
    "degF": Unit("temperature", 5 / 9, -160 / 9),
    "K": Unit("temperature", 1.0, -273.15),
    "%": Unit("fraction", 0.01),
    "ratio": Unit("fraction", 1.0),
    **_scaled("power", mW=1e-3, W=1.0, kW=1e3, MW=1e6, GW=1e9),
    **_scaled("energy", J=1.0, kJ=1e3, MJ=1e6, GJ=1e9, Wh=3.6e3, kWh=3.6e6, MWh=3.6e9, GWh=3.6e12),
    **_scaled("pressure", Pa=1.0, hPa=1e2, mbar=1e2, kPa=1e3, bar=1e5, MPa=1e6, psi=6894.757293168),
    **_scaled("speed", m_per_s=1.0, km_per_h=1 / 3.6, mph=0.44704, kn=1852 / 3600),
    **_scaled("length", um=1e-6, mm=1e-3, cm=1e-2, m=1.0, km=1e3, ft=0.3048),
    **_scaled("mass", mg=1e-6, g=1e-3, kg=1.0, t=1e3),
    **_scaled("volume", mL=1e-3, L=1.0, m3=1e3),
    **_scaled("flow", L_per_min=1 / 60, L_per_s=1.0, m3_per_h=1 / 3.6, m3_per_s=1e3),
    **_scaled("voltage", mV=1e-3, V=1.0, kV=1e3),
    **_scaled("current", mA=1e-3, A=1.0, kA=1e3),
    **_scaled("duration", ms=1e-3, s=1.0, min=60.0, h=3600.0),
    **_scaled("frequency", Hz=1.0, kHz=1e3, MHz=1e6),
    **_scaled("concentration", ug_per_m3=1e-6, mg_per_m3=1e-3, g_per_m3=1.0),
}

# Other spellings, compared without regard to case; the names above are compared with it (mW is not MW).
ALIASES: dict[str, str] = {
    "c": "degC", "°c": "degC", "℃": "degC", "celsius": "degC", "degc": "degC", "deg_c": "degC", "cel": "degC",
    "f": "degF", "°f": "degF", "℉": "degF", "fahrenheit": "degF", "degf": "degF", "deg_f": "degF",
    "°k": "K", "kelvin": "K", "k": "K", "percent": "%", "pct": "%", "fraction": "ratio", "1": "ratio",
    "watt": "W", "watts": "W", "kwh": "kWh", "mwh": "MWh", "wh": "Wh", "kw": "kW",
    "hpa": "hPa", "kpa": "kPa", "pascal": "Pa", "millibar": "mbar", "mps": "m/s", "km/hr": "km/h", "kmh": "km/h", "kph": "km/h",
    "knots": "kn", "l": "L", "m³": "m3", "m^3": "m3", "m³/h": "m3/h", "l/min": "L/min", "l/s": "L/s", "volt": "V", "amp": "A",
    "µm": "um", "µg/m3": "ug/m3", "µg/m³": "ug/m3", "ug/m³": "ug/m3", "μg/m³": "ug/m3", "μg/m3": "ug/m3", "sec": "s", "hz": "Hz",
}  # fmt: skip


def canonical_name(unit: str) -> str:
    """Return the one spelling we store of a unit; an unknown one stays as it is.

    >>> canonical_name("°C"), canonical_name("MW"), canonical_name("widgets")
    ('degC', 'MW', 'widgets')
    """
    text = unit.strip()
    return text if text in UNITS else ALIASES.get(text.lower(), text)


def conversion(unit: str, to: str) -> tuple[float, float] | None:
    """Return (scale, offset) with `value_in_to = scale · value_in_unit + offset`, or None where there is no such map.

    >>> conversion("kW", "W")
    (1000.0, 0.0)
    >>> conversion("kW", "degC") is None
    True
    """
    source, target = canonical_name(unit), canonical_name(to)
    if source == target:
        return 1.0, 0.0
    known, wanted = UNITS.get(source), UNITS.get(target)
    if known is None or wanted is None or known.dimension != wanted.dimension:
        return None
    return known.scale / wanted.scale, (known.offset - wanted.offset) / wanted.scale


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
            intervals: as `Catalog.unit_intervals` returns them.
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
        """Bring values into the canonical unit of their metric; a reading without a unit is taken to be in it already.

        Args:
            readings: series_id, metric, value and unit (null where none is given), and any other columns.

        Returns:
            The converted readings with their canonical unit, and those whose unit is incompatible, unchanged, with error_code and
            error_text.
        """
        keyed = readings.with_columns(_unit_key())
        canonical = pl.col("unit_key").replace_strict(dict(self.units), default=None, return_dtype=pl.String).alias("canonical")
        pairs = keyed.select("unit_key", "unit").unique().with_columns(canonical)
        maps = [(1.0, 0.0) if unit is None else conversion(unit, to) for unit, to in pairs.select("unit", "canonical").rows()]
        scales = pl.DataFrame([found or (None, None) for found in maps], schema={"scale": pl.Float64, "offset": pl.Float64}, orient="row")
        table = pl.concat([pairs, scales], how="horizontal")
        joined = keyed.join(table, on=["unit_key", "unit"], how="left", nulls_equal=True, maintain_order="left")
        is_known = pl.col("scale").is_not_null()
        in_canonical = pl.col("value") * pl.col("scale") + pl.col("offset")
        converted = joined.filter(is_known).with_columns(in_canonical.alias("value"), pl.col("canonical").alias("unit"))
        text = pl.format("The metric {} requires a unit that converts to {}; got {}.", "metric", "canonical", "unit")
        unknown = joined.filter(~is_known).select(*readings.columns, pl.lit("unknown_unit").alias("error_code"), text.alias("error_text"))
        return converted.select(readings.columns), unknown


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
