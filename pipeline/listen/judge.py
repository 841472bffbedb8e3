"""Messages become readings or quarantined payloads, by the code that files use; no message, whatever is in it, stops the others.

A message that breaks the decoder is found by halving the range in memory, and quarantined whole. Called by `drain.py` and `replay.py`.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import polars as pl
from polars.exceptions import PanicException

from pipeline.errors import TidecastError
from pipeline.ingest.intake import Intake, rules_at
from pipeline.ingest.raw import BROKEN_SCHEMA, ORIGIN_SCHEMA, RawBatch
from pipeline.ingest.timestamps import StampRules
from pipeline.ingest.validate import Rules, Verdict, validate
from pipeline.listen.inbox import Stored
from pipeline.payloads.decode import MAPPING, decode
from pipeline.payloads.message import Message
from pipeline.schemas import UTC_US, Quarantine
from pipeline.settings import Route, Settings

logger = logging.getLogger(__name__)

UNDECODABLE = "undecodable"
_PLACE = r":(\d+)(\[\d+\])?$"  # the end of a position: "message:17[3]"


@dataclass(frozen=True)
class Judged:
    """What a range of messages holds.

    Attributes:
        accepted: readings in canonical units, as `Intake.mark` takes them, with the `line` and `item` they came from: the number of
            their message, and theirs in it (null where the message is one reading).
        rejected: rows of `Quarantine`. A position is a digest of the message and the item, so that the same payload has the same
            position however often it is delivered.
    """

    accepted: pl.DataFrame
    rejected: pl.DataFrame


def judge(stored: Sequence[Stored], intake: Intake, settings: Settings, now: datetime) -> Judged:
    """Decode and validate messages, and bring their values into canonical units.

    The present that stamps are held against is the arrival of the newest message, not the clock's: judged again after a crash, or after
    the clock was set back, the same messages give the same readings.

    Args:
        stored: at least one message, by number.
        intake: knows the units.
        settings: the ingest section, and the routes.
        now: when the rejected go to quarantine, UTC.

    Raises:
        StoreError: when units cannot be agreed on.
    """
    rules = rules_at(settings.ingest, max(one.message.received_at for one in stored), "", StampRules())
    parts = _decide(stored, settings.listen.routes, rules)
    verdicts = [(batch, intake.convert(batch, verdict)) for batch, verdict in parts]
    accepted = pl.concat([verdict.accepted.hstack(_places(batch, verdict.accepted)) for batch, verdict in verdicts])
    rejected = pl.concat([verdict.rejected for _, verdict in verdicts])
    return Judged(_dated(accepted, stored), _quarantined(rejected, stored, now))


def digest(payload: bytes) -> str:
    """Return what the positions of a message's payloads begin with."""
    return hashlib.blake2b(payload, digest_size=16).hexdigest()


def _decide(stored: Sequence[Stored], routes: Sequence[Route], rules: Rules) -> list[tuple[RawBatch, Verdict]]:
    """Decode and validate; a half that fails is halved again, until what fails is one message."""
    try:
        batches = [_numbered(batch, stored) for batch in decode([one.message for one in stored], routes)]
        return [(batch, validate(batch, MAPPING, rules)) for batch in batches]
    except TidecastError:  # the settings or the disk: no fault of a message
        raise
    except (Exception, PanicException) as error:  # noqa: BLE001 (one message must not stop the stream; a panic is no Exception)
        if len(stored) == 1:
            logger.warning("undecodable message seq=%d source=%s: %r", stored[0].seq, stored[0].message.source, error)
            batch = _undecodable(stored[0], error)
            return [(batch, validate(batch, MAPPING, rules))]
    half = len(stored) // 2
    return [*_decide(stored[:half], routes, rules), *_decide(stored[half:], routes, rules)]


def _numbered(batch: RawBatch, stored: Sequence[Stored]) -> RawBatch:
    """Count lines by the numbers of the messages, which readings that bring no number of their own then have."""
    numbers = pl.Series([one.seq for one in stored], dtype=pl.Int64)
    places = batch.broken["position"].str.extract_groups(_PLACE).struct.unnest()
    at = [numbers.gather(places["1"].cast(pl.Int64)).cast(pl.String), places["2"].fill_null("")]
    position = pl.select(pl.concat_str(pl.lit(":"), *at)).to_series()
    origins = batch.origins.with_columns(numbers.gather(batch.origins["line"]).alias("line"))
    return replace(batch, origins=origins, broken=batch.broken.with_columns(position.alias("position")))


def _undecodable(one: Stored, error: BaseException) -> RawBatch:
    """Return a batch without rows, whose one message is broken."""
    text = f"A message requires bytes that can be decoded; got {type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
    row = (f":{one.seq}", one.message.payload, UNDECODABLE, text)
    empty = pl.DataFrame(schema=dict.fromkeys(MAPPING.columns, pl.String))
    return RawBatch("", empty, ORIGIN_SCHEMA.to_frame(), pl.DataFrame([row], schema=BROKEN_SCHEMA, orient="row"))


def _places(batch: RawBatch, accepted: pl.DataFrame) -> pl.DataFrame:
    return batch.origins[accepted["row"]].select("line", "item")


def _dated(accepted: pl.DataFrame, stored: Sequence[Stored]) -> pl.DataFrame:
    """Add where readings came from and when; a gateway's stamp of arrival counts unless its clock is ahead of ours."""
    messages = pl.DataFrame(
        [(one.seq, one.message.source, one.message.received_at) for one in stored],
        schema={"line": pl.Int64, "source": pl.String, "arrived_at": UTC_US},
        orient="row",
    )
    return accepted.join(messages, on="line", how="left", maintain_order="left").with_columns(
        pl.min_horizontal("received_at", "arrived_at").alias("received_at"), is_history=pl.lit(value=False)
    )


def _quarantined(rejected: pl.DataFrame, stored: Sequence[Stored], now: datetime) -> pl.DataFrame:
    """Return rejected rows as rows of `Quarantine`."""
    places = rejected["position"].str.extract_groups(_PLACE).struct.unnest()
    lines = places["1"].cast(pl.Int64)
    wanted = set(lines)
    of: dict[int, Message] = {one.seq: one.message for one in stored if one.seq in wanted}
    described = pl.DataFrame(
        [(seq, message.source, message.received_at, digest(message.payload)) for seq, message in of.items()],
        schema={"line": pl.Int64, "connector": pl.String, "received_at": UTC_US, "digest": pl.String},
        orient="row",
    )
    rows = rejected.with_columns(lines.alias("line"), places["2"].fill_null("").alias("item")).join(
        described, on="line", how="left", maintain_order="left"
    )
    return Quarantine.conform(rows.with_columns(position=pl.concat_str("digest", "item"), ingest_date=pl.lit(now, UTC_US).dt.date()))
