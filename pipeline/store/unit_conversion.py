"""Linear conversions between the units of one quantity, and whole columns of values brought into another unit.

Called by ingest, for what comes in, and by prepare, for what was stored when its metric had another unit.
"""

from dataclasses import dataclass

import polars as pl


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
    """Return the spelling of a unit that we store; an unknown unit is unchanged.

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


def to_unit(readings: pl.DataFrame, wanted: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Convert values to the unit that a column names; a reading without a unit, or with null in that column, is unchanged.

    Args:
        readings: value, unit, the column `wanted`, and any others.
        wanted: the column of units to convert to.

    Returns:
        The converted readings, in their order, and, unchanged, the readings whose unit does not convert.
    """
    is_other = (pl.col("unit") != pl.col(wanted)).fill_null(value=False)
    pairs = readings.filter(is_other).select("unit", wanted).unique()
    if pairs.is_empty():
        return readings, readings.clear()
    maps = [conversion(unit, to) or (None, None) for unit, to in pairs.rows()]
    table = pairs.hstack(pl.DataFrame(maps, schema={"scale": pl.Float64, "offset": pl.Float64}, orient="row"))
    joined = readings.join(table, on=["unit", wanted], how="left", maintain_order="left").with_columns(is_other=is_other)
    converts = pl.col("scale").is_not_null()
    converted = joined.filter(converts | ~pl.col("is_other")).with_columns(
        pl.when(converts).then(pl.col("value") * pl.col("scale") + pl.col("offset")).otherwise("value").alias("value"),
        pl.when(converts).then(wanted).otherwise("unit").alias("unit"),
    )
    return converted.select(readings.columns), joined.filter(~converts & pl.col("is_other")).select(readings.columns)
