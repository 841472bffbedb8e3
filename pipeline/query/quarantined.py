"""What lies in quarantine: how much of it, why, from where, and the newest payloads in a form that is safe to show.

Called by `tidecast quarantine`.
"""

from dataclasses import dataclass

import polars as pl

from pipeline.query.printable import printable
from pipeline.schemas import Quarantine
from pipeline.store.lake import Lake, read
from pipeline.store.patterns import matches

SHOWN_CHARACTERS = 120  # of a payload


@dataclass(frozen=True)
class QuarantineReport:
    """What matches; names and texts are as they are stored, so show them through `printable`.

    Attributes:
        total: payloads.
        counts: error_code, connector and payloads, the most first.
        codes: every error code that lies in quarantine, whatever was asked for, in order.
        newest: received_at, connector, position, error_code, error_text, num_bytes and payload (as `shown`), the newest first.
    """

    total: int
    counts: pl.DataFrame
    codes: list[str]
    newest: pl.DataFrame

    def to_dict(self) -> dict[str, object]:
        """Return a JSON-ready form."""
        return {"total": self.total, "codes": self.codes, "counts": self.counts.to_dicts(), "newest": self.newest.to_dicts()}


def read_quarantine(lake: Lake, *, connector: str | None = None, code: str | None = None, limit: int = 20) -> QuarantineReport:
    """Count what lies in quarantine and show the newest of it.

    Args:
        lake: the lake.
        connector: only of connectors that match; `*` stands for any text, `?` for one letter.
        code: only with this error code.
        limit: payloads to show.

    Raises:
        StoreError: when there is no such table, or it cannot be read.
    """
    rows = lake.scan(Quarantine)
    codes = read(rows.select(pl.col("error_code").unique().sort()))["error_code"].to_list()
    if connector is not None:
        rows = rows.filter(matches("connector", [connector]))
    if code is not None:
        rows = rows.filter(pl.col("error_code") == code)
    counts = read(rows.group_by("error_code", "connector").agg(pl.len().alias("payloads")))
    order = ("received_at", "connector", "position")
    newest = read(rows.sort(order, descending=[True, False, False]).head(limit))
    return QuarantineReport(
        int(counts["payloads"].sum()),
        counts.sort("payloads", "error_code", "connector", descending=[True, False, False]),
        codes,
        newest.select(
            *("received_at", "connector", "position", "error_code", "error_text"),
            pl.col("payload").bin.size().alias("num_bytes"),
            pl.Series("payload", [shown(payload) for payload in newest["payload"]], dtype=pl.String),
        ),
    )


def shown(payload: bytes) -> str:
    r"""Return the start of a payload as text that moves no cursor and changes no colour.

    >>> shown(b'{"a": 1}\n\x1b[31m\xff')
    '{"a": 1}\\n\\x1b[31m\\xff'
    """
    text = payload[: 4 * SHOWN_CHARACTERS].decode("utf-8", errors="backslashreplace")
    safe = printable(text)
    return safe if len(safe) <= SHOWN_CHARACTERS and len(payload) <= 4 * SHOWN_CHARACTERS else safe[:SHOWN_CHARACTERS] + "…"
