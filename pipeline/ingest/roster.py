"""Which series a reading may belong to: those that are registered, and new ones as long as there is room for them.

A registered series keeps the name that it has, whatever names look like today. Called by `intake.py`.
"""

from dataclasses import dataclass, replace

import polars as pl

from pipeline.store.identity import series_id

_PAIR = ("device_id", "metric")


@dataclass(frozen=True)
class Roster:
    """The series that are registered.

    Attributes:
        known: series_id of each.
        old_names: series_id, device_id, metric of those that were named before a slash in a metric was written out.
        max_series: how many there may be.
    """

    known: pl.DataFrame
    old_names: pl.DataFrame
    max_series: int

    @classmethod
    def of(cls, series: pl.DataFrame, max_series: int) -> "Roster":
        """Start from the series in the catalog: series_id, device_id, metric."""
        marked = series.filter(pl.col("metric").str.contains("[/%]"))
        old = marked.select("series_id", *_PAIR).filter(pl.col("series_id") != marked.select(series_id()).to_series())
        return cls(series.select("series_id"), old, max_series)

    def admit(self, readings: pl.DataFrame) -> tuple["Roster", pl.DataFrame, pl.DataFrame]:
        """Split readings into those whose series is registered or may be, and those for which there is no room, or no name.

        Args:
            readings: series_id, device_id, metric, and any other columns.

        Returns:
            The roster with the new series; the readings of series on it, in their order and under the names they are registered by; the
            others, with error_code and error_text.
        """
        named, nameless = self._named(readings)
        new = named.select("series_id").unique(maintain_order=True).join(self.known, on="series_id", how="anti", maintain_order="left")
        room = max(0, self.max_series - len(self.known))
        if len(new) <= room and nameless.is_empty():
            return replace(self, known=pl.concat([self.known, new])), named, nameless
        is_surplus = pl.col("series_id").is_in(new["series_id"][room:].implode())
        text = pl.format(
            "A new series requires room in the registry; got {}, with ingest.max_series = {} there. If it shall be one, raise the limit "
            "and run `tidecast replay-quarantine`, or ingest the file again; else mend the device, which names itself anew.",
            _shown("series_id"),
            pl.lit(self.max_series),
        )
        surplus = named.filter(is_surplus).with_columns(error_code=pl.lit("too_many_series"), error_text=text)
        return replace(self, known=pl.concat([self.known, new.head(room)])), named.filter(~is_surplus), pl.concat([nameless, surplus])

    def _named(self, readings: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Give the readings of series with an old name that name; whoever would be called the same now has none."""
        nameless = readings.clear().with_columns(error_code=pl.lit("", pl.String), error_text=pl.lit("", pl.String))
        if self.old_names.is_empty():
            return readings, nameless
        owner = self.old_names.rename({"device_id": "owner", "metric": "its_metric"})
        renamed = (
            readings.join(self.old_names.rename({"series_id": "old"}), on=_PAIR, how="left", maintain_order="left")
            .with_columns(pl.coalesce("old", "series_id").alias("series_id"))
            .join(owner, on="series_id", how="left", maintain_order="left")
        )
        is_taken = pl.col("old").is_null() & pl.col("owner").is_not_null()
        text = pl.format(
            "A series requires a name of its own; got {}, which is the metric {} of {} since before names were made to differ. "
            "Name the device or the metric otherwise.",
            *(_shown(name) for name in ("series_id", "its_metric", "owner")),
        )
        taken = renamed.filter(is_taken).with_columns(error_code=pl.lit("series_name_taken"), error_text=text)
        return renamed.filter(~is_taken).select(readings.columns), taken.select(nameless.columns)


def _shown(name: str) -> pl.Expr:
    return pl.col(name).str.slice(0, 80)
