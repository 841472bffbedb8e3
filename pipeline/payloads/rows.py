"""What the decoders of all formats take and give: messages as a frame, readings as text with the place each came from.

Called by every decoder, and by `decode.py`, which puts their results together.
"""

from dataclasses import dataclass, field

import polars as pl

FIELDS = ("ts", "series_id", "device_id", "metric", "value", "unit", "quality", "seq", "received_at")
MESSAGES_SCHEMA = pl.Schema({"line": pl.Int64, "payload": pl.Binary, "text": pl.String})  # text: null where it is not UTF-8
PLACE_SCHEMA = pl.Schema({"line": pl.Int64, "item": pl.Int64, "payload": pl.Binary})
ROWS_SCHEMA = pl.Schema([*PLACE_SCHEMA.items(), *((name, pl.String()) for name in FIELDS)])
BROKEN_SCHEMA = pl.Schema([*PLACE_SCHEMA.items(), ("error_code", pl.String()), ("error_text", pl.String())])
WHOLE = pl.lit(None, pl.Int64).alias("item")  # of what is a message as a whole


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reading is: its message, its number in it (None: it is the whole message), and its own bytes."""

    line: int
    item: int | None
    payload: bytes


@dataclass(frozen=True)
class Decoded:
    """What a decoder made of some messages; each message is in one of the two, or says no reading.

    Attributes:
        rows: as `ROWS_SCHEMA`, in any order.
        broken: as `BROKEN_SCHEMA`.
    """

    rows: pl.DataFrame
    broken: pl.DataFrame


def combine(parts: list[Decoded]) -> Decoded:
    """Put parts together, in their order."""
    return Decoded(
        pl.concat([ROWS_SCHEMA.to_frame(), *(part.rows for part in parts)]),
        pl.concat([BROKEN_SCHEMA.to_frame(), *(part.broken for part in parts)]),
    )


def refused(places: pl.DataFrame, reason: tuple[str, str]) -> pl.DataFrame:
    """Return places without a reading as `BROKEN_SCHEMA`, all for one reason.

    Args:
        places: as `PLACE_SCHEMA`.
        reason: error_code, and error_text as a sentence.
    """
    code, text = reason
    return places.select(*PLACE_SCHEMA.names(), error_code=pl.lit(code), error_text=pl.lit(text))


@dataclass
class Found:
    """Readings and refusals, collected one by one; the bytes that many readings share are kept once."""

    _rows: list[tuple[int | str | None, ...]] = field(default_factory=list)
    _broken: list[tuple[int | str | None, ...]] = field(default_factory=list)
    _payloads: list[bytes] = field(default_factory=list)

    def add(self, place: Place, **said: str | None) -> None:
        """Add a reading; what `FIELDS` it does not say is null."""
        self._rows.append((place.line, place.item, self._number(place.payload), *map(said.get, FIELDS)))

    def refuse(self, place: Place, error_code: str, error_text: str) -> None:
        """Add what could not become a reading, with the reason."""
        self._broken.append((place.line, place.item, self._number(place.payload), error_code, error_text))

    def decoded(self) -> Decoded:
        """Return all that was added."""
        payloads = pl.Series("payload", self._payloads, dtype=pl.Binary)
        rows, broken = (
            pl.DataFrame(found, schema=pl.Schema({**schema, "payload": pl.Int64()}), orient="row")
            for found, schema in ((self._rows, ROWS_SCHEMA), (self._broken, BROKEN_SCHEMA))
        )
        return Decoded(rows.with_columns(payloads[rows["payload"]]), broken.with_columns(payloads[broken["payload"]]))

    def _number(self, payload: bytes) -> int:
        if not self._payloads or self._payloads[-1] is not payload:
            self._payloads.append(payload)
        return len(self._payloads) - 1
