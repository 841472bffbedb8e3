"""Messages become readings or quarantined payloads, by the code that files use; no message, whatever is in it, stops the others.

A message that breaks the decoder is found by halving the range in memory, and quarantined whole. Called by
`range_commit.py` and `replay.py`.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import polars as pl
from polars.exceptions import PanicException

from pipeline.errors import TidecastError, first_line
from pipeline.ingest.intake import Intake, rules_at
from pipeline.ingest.raw import BROKEN_SCHEMA, ORIGIN_SCHEMA, RawBatch
from pipeline.ingest.timestamps import StampRules
from pipeline.ingest.validate import Rules, Verdict, validate
from pipeline.listen.inbox import Stored
from pipeline.payloads.decode import MAPPING, decode
from pipeline.payloads.message import CUT_SHORT, Message, arrivals
from pipeline.payloads.sparkplug import needed_births
from pipeline.payloads.sparkplug_session import is_certificate
from pipeline.schemas import UTC_US, Quarantine
from pipeline.settings import Route, Settings

logger = logging.getLogger(__name__)

UNDECODABLE, TOO_LONG = "undecodable", "too_long"
_TOO_LONG_TEXT = "A message requires at most listen.max_message_bytes; got a longer one, of which this is the beginning."
_DESCRIBED = ("connector", "received_at", "content_type", "births")  # of each row of quarantine, by its message
_DESCRIBED_SCHEMA = pl.Schema(
    {"line": pl.Int64(), "digest": pl.String(), **{name: dtype for name, dtype in Quarantine.polars().items() if name in _DESCRIBED}}
)
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


def judge(
    stored: Sequence[Stored],
    intake: Intake,
    settings: Settings,
    now: datetime,
    *,
    births: Sequence[Message] = (),
    accept: tuple[str, ...] = (),
) -> Judged:
    """Decode and validate messages, and bring their values into canonical units.

    The present that stamps are held against is the arrival of the newest message, not the clock's: judged again after a crash, or after
    the clock was set back, the same messages give the same readings. A person who says that our clock was behind has them held against now.

    Args:
        stored: at least one message, by number.
        intake: knows the units.
        settings: the ingest section, and the routes.
        now: when the rejected go to quarantine, UTC.
        births: what `decode` must know of the messages before these.
        accept: reasons, of `validate.ACCEPTABLE`, for which nothing is rejected.

    Raises:
        SettingsError: when a reason cannot be overruled.
        StoreError: when units cannot be agreed on.
    """
    present = now if "future_timestamp" in accept else max(one.message.received_at for one in stored)
    rules = rules_at(settings.ingest, present, "", StampRules(), accept)
    whole = [one for one in stored if one.message.content_type != CUT_SHORT]
    parts = _decide(whole, births, settings.listen.routes, rules) if whole else []
    for one in stored:
        if one.message.content_type == CUT_SHORT:
            parts.append(_refused(one, TOO_LONG, _TOO_LONG_TEXT, rules))
    verdicts = [(batch, intake.convert(batch, verdict)) for batch, verdict in parts]
    accepted = pl.concat([verdict.accepted.hstack(_places(batch, verdict.accepted)) for batch, verdict in verdicts])
    rejected = pl.concat([verdict.rejected for _, verdict in verdicts])
    return Judged(_dated(accepted, stored), _quarantined(rejected, stored, births, now))


def digest(payload: bytes) -> str:
    """Return what the positions of a message's payloads begin with."""
    return hashlib.blake2b(payload, digest_size=16).hexdigest()


def _decide(stored: Sequence[Stored], births: Sequence[Message], routes: Sequence[Route], rules: Rules) -> list[tuple[RawBatch, Verdict]]:
    """Decode and validate; a half that fails is halved again, until what fails is one message."""
    try:
        batches = [_numbered(batch, stored) for batch in decode([one.message for one in stored], routes, births)]
        return [(batch, validate(batch, MAPPING, rules)) for batch in batches]
    except TidecastError:  # the settings or the disk: no fault of a message
        raise
    except (Exception, PanicException) as error:  # noqa: BLE001 (one message must not stop the stream; a panic is no Exception)
        if len(stored) == 1:
            logger.warning("undecodable message seq=%d source=%s: %r", stored[0].seq, stored[0].message.source, error)
            what = f"{type(error).__name__}: {first_line(error)[:200]}"
            return [_refused(stored[0], UNDECODABLE, f"A message requires bytes that can be decoded; got {what}", rules)]
    first, second = stored[: len(stored) // 2], stored[len(stored) // 2 :]
    known = [*births, *(one.message for one in first if is_certificate(one.message.topic))]
    return [*_decide(first, births, routes, rules), *_decide(second, known, routes, rules)]


def _numbered(batch: RawBatch, stored: Sequence[Stored]) -> RawBatch:
    """Count lines by the numbers of the messages, which readings that bring no number of their own then have."""
    numbers = pl.Series([one.seq for one in stored], dtype=pl.Int64)
    places = batch.broken["position"].str.extract_groups(_PLACE).struct.unnest()
    at = [numbers.gather(places["1"].cast(pl.Int64)).cast(pl.String), places["2"].fill_null("")]
    position = pl.select(pl.concat_str(pl.lit(":"), *at)).to_series()
    origins = batch.origins.with_columns(numbers.gather(batch.origins["line"]).alias("line"))
    return replace(batch, origins=origins, broken=batch.broken.with_columns(position.alias("position")))


def _refused(one: Stored, error_code: str, error_text: str, rules: Rules) -> tuple[RawBatch, Verdict]:
    """Return a batch without rows, whose one message is broken."""
    broken = pl.DataFrame([(f":{one.seq}", one.message.payload, error_code, error_text)], schema=BROKEN_SCHEMA, orient="row")
    empty = pl.DataFrame(schema=dict.fromkeys(MAPPING.columns, pl.String))
    batch = RawBatch("", empty, ORIGIN_SCHEMA.to_frame(), broken)
    return batch, validate(batch, MAPPING, rules)


def _places(batch: RawBatch, accepted: pl.DataFrame) -> pl.DataFrame:
    return batch.origins[accepted["row"]].select("line", "item")


def _dated(accepted: pl.DataFrame, stored: Sequence[Stored]) -> pl.DataFrame:
    """Add where readings came from and when; a gateway's stamp of arrival counts unless its clock is ahead of ours."""
    messages = pl.DataFrame(
        {
            "line": [one.seq for one in stored],
            "source": [one.message.source for one in stored],
            "arrived_at": arrivals(one.message for one in stored),
        },
        schema_overrides={"line": pl.Int64},
    )
    return accepted.join(messages, on="line", how="left", maintain_order="left").with_columns(
        pl.min_horizontal("received_at", "arrived_at").alias("received_at"), is_history=pl.lit(value=False)
    )


def _quarantined(rejected: pl.DataFrame, stored: Sequence[Stored], births: Sequence[Message], now: datetime) -> pl.DataFrame:
    """Return rejected rows as rows of `Quarantine`, with all that it takes to read them again without the messages around them."""
    places = rejected["position"].str.extract_groups(_PLACE).struct.unnest()
    lines = places["1"].cast(pl.Int64)
    wanted = set(lines)
    messages = {one.seq: one.message for one in stored if one.seq in wanted}
    needed = needed_births([(one.seq, one.message) for one in stored], births, wanted)
    described = pl.DataFrame(
        [(seq, digest(one.payload), one.source, one.received_at, one.content_type, needed.get(seq)) for seq, one in messages.items()],
        schema=_DESCRIBED_SCHEMA,
        orient="row",
    )
    rows = rejected.with_columns(lines.alias("line"), places["2"].fill_null("").alias("item")).join(
        described, on="line", how="left", maintain_order="left"
    )
    return Quarantine.conform(rows.with_columns(position=pl.concat_str("digest", "item"), ingest_date=pl.lit(now, UTC_US).dt.date()))
