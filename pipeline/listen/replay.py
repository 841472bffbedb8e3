"""Quarantined messages, parsed again with today's routes, rules and units: `tidecast replay-quarantine` below the command line.

A mended route, a registered unit or a person's word makes readings of what could not be used when it came. They count as received when
they were, and stay in quarantine too: a replay may be repeated, and finds what it stored. Called by `flows.cli_replay`.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace

import polars as pl

from pipeline.clock import Clock
from pipeline.errors import SettingsError
from pipeline.ingest.intake import Intake
from pipeline.ingest.validate import ACCEPTABLE
from pipeline.listen.inbox import FILE_NAME, Inbox, Stored
from pipeline.listen.judge import TOO_LONG, Judged, digest, judge
from pipeline.payloads.message import Message
from pipeline.payloads.sparkplug import MISSING_BIRTH, births_for_it_alone, needed_births
from pipeline.payloads.sparkplug_session import is_birth
from pipeline.schemas import Quarantine
from pipeline.settings import Settings
from pipeline.store.catalog import Catalog
from pipeline.store.lake import Lake, read
from pipeline.store.patterns import matches
from pipeline.store.readings import split_duplicates, store_readings

MESSAGE_CONNECTORS = ("mqtt", "http", "kafka")  # all else came from files
BATCH_PAYLOADS = 50_000
NO_READING = "no_reading"  # a payload that is now neither a reading nor refused
_SOURCE = "replay"  # all replays share one fence


@dataclass(frozen=True, kw_only=True)
class ReplayReport:
    """What became of quarantined payloads.

    Attributes:
        payloads: looked at, of messages.
        accepted: readings that are stored now; of a dry run, that would be.
        duplicate: readings that were stored already.
        refused: payloads that still hold no reading.
        reasons: refused payloads by error code.
        files: payloads of files by connector, which no replay can mend: ingest the file again.
        is_dry_run: whether nothing was stored.
    """

    payloads: int
    accepted: int
    duplicate: int
    refused: int
    reasons: Mapping[str, int]
    files: Mapping[str, int]
    is_dry_run: bool

    def to_dict(self) -> dict[str, object]:
        """Return a JSON-ready form."""
        return {**asdict(self), "reasons": dict(self.reasons), "files": dict(self.files)}


def replay_quarantine(
    settings: Settings, clock: Clock, *, connector: str | None = None, accept: tuple[str, ...] = (), is_dry_run: bool = False
) -> ReplayReport:
    """Parse the payloads of messages in quarantine again, and store the readings that they hold now.

    Args:
        settings: lake, state folder, and the sections ingest, listen and metrics.
        clock: says when the readings are committed.
        connector: only what came in by connectors that match; `*` stands for any text, `?` for one letter.
        accept: reasons, of `validate.ACCEPTABLE`, that a person has overruled; and `missing_birth`, by which a person says that the
            nodes of Sparkplug B name their metrics now, in the newest births of the inbox, as they did then.
        is_dry_run: report alone; nothing is written.

    Assumes: the payloads of one day fit into memory.

    Raises:
        SettingsError: when a reason cannot be overruled.
        StoreError: when the lake, the catalog or the inbox cannot be read or written.
    """
    others = sorted(set(accept) - {*ACCEPTABLE, MISSING_BIRTH})
    if others:
        wanted = ", ".join((*ACCEPTABLE, MISSING_BIRTH))
        raise SettingsError(f"--accept requires one of {wanted}; got {', '.join(others)}. The others cannot be stored.")
    lake, catalog = Lake(settings.lake), Catalog(settings.state_dir)
    rows = lake.scan(Quarantine).filter(matches("connector", ["*" if connector is None else connector]))
    places = read(rows.group_by("connector", "ingest_date").agg(pl.len().alias("payloads")))
    is_message = pl.col("connector").str.extract(r"^(\w+):").is_in(MESSAGE_CONNECTORS).fill_null(value=False)
    files = places.filter(~is_message).group_by("connector").agg(pl.col("payloads").sum()).sort("connector")
    run = _Replay(settings, clock, lake, replace(Intake.start(settings, catalog.series()), is_trial=is_dry_run), accept)
    for date in places.filter(is_message)["ingest_date"].unique().sort():
        day = read(rows.filter(is_message, pl.col("ingest_date") == date).sort("received_at", "connector", "position"))
        for batch in day.iter_slices(BATCH_PAYLOADS):
            run.take(Quarantine.conform(batch))
    if not is_dry_run:
        catalog.upsert_series(run.intake.reached(run.intake.spans))
    return run.report(dict(files.iter_rows()))


class _Replay:
    """One replay: what it has found."""

    def __init__(self, settings: Settings, clock: Clock, lake: Lake, intake: Intake, accept: tuple[str, ...]) -> None:
        self.settings, self.clock, self.lake, self.intake = settings, clock, lake, intake
        self.accept = tuple(code for code in accept if code != MISSING_BIRTH)
        self.births = _newest_births(settings) if MISSING_BIRTH in accept else []
        self.payloads, self.accepted, self.duplicate = 0, 0, 0
        self.reasons = Counter[str]()

    def take(self, batch: pl.DataFrame) -> None:
        """Parse rows of `Quarantine` again, and store what they hold."""
        self.payloads += len(batch)
        self.reasons[TOO_LONG] += len(batch.filter(pl.col("error_code") == TOO_LONG))  # half a message is none
        rows = batch.filter(pl.col("error_code") != TOO_LONG).rows(named=True)
        if not rows:
            return
        now = self.clock.now()
        stored = [Stored(number, _message(row)) for number, row in enumerate(rows)]
        items = [_item(row) for row in rows]
        judged = judge(self._with_births(rows, stored), self.intake, self.settings, now, accept=self.accept)
        wanted = pl.DataFrame({"line": range(len(items)), "wanted": items}, schema={"line": pl.Int64, "wanted": pl.Int64})
        accepted = judged.accepted.join(wanted, on="line", maintain_order="left").filter(
            pl.col("wanted").is_null() | (pl.col("wanted") == pl.col("item"))
        )
        self._store(self.intake.mark(accepted, now))
        good = set(accepted["line"])
        refused = [(one.message.payload, item) for one, item in zip(stored, items, strict=True) if one.seq not in good]
        self.reasons.update(_reasons(judged, refused))

    def report(self, files: Mapping[str, int]) -> ReplayReport:
        """Return the counts."""
        return ReplayReport(
            payloads=self.payloads,
            accepted=self.accepted,
            duplicate=self.duplicate,
            refused=self.reasons.total(),
            reasons=dict((+self.reasons).most_common()),
            files=files,
            is_dry_run=self.intake.is_trial,
        )

    def _with_births(self, rows: Sequence[Mapping[str, object]], stored: Sequence[Stored]) -> list[Stored]:
        """Return messages, each behind the births it needs: the ones from when it came, or the newest ones if a person says so."""
        missed = {one.seq: one.message for one, row in zip(stored, rows, strict=True) if row["error_code"] == MISSING_BIRTH}
        newest = needed_births(list(missed.items()), self.births, missed)
        found: list[Stored] = []
        for one, row in zip(stored, rows, strict=True):
            births = births_for_it_alone(one.message, newest.get(one.seq) or row["births"])  # type: ignore[arg-type]
            found += [Stored(len(rows) + len(found) + number, birth) for number, birth in enumerate(births)]
            found.append(one)
        return found

    def _store(self, readings: pl.DataFrame) -> None:
        if self.intake.is_trial:
            fresh, _duplicate = split_duplicates(self.lake, readings)
        else:
            self.intake.register(readings)
            fresh = store_readings(self.lake, readings, source=_SOURCE)
        self.accepted += len(fresh)
        self.duplicate += len(readings) - len(fresh)


def _newest_births(settings: Settings) -> list[Message]:
    """Return what nodes have said of their metrics last, also where they have died since."""
    if not (settings.state_dir / FILE_NAME).exists():
        return []
    with closing(Inbox(settings.state_dir)) as inbox:
        return [message for message in inbox.births(inbox.last_seq()) if is_birth(message.topic)]


def _message(row: Mapping[str, object]) -> Message:
    """Return a quarantined payload as the message it was, or as one that holds it alone: what was cut out of a text is UTF-8."""
    kind, _, topic = str(row["connector"]).partition(":")
    said, payload = row["content_type"], row["payload"]
    is_cut = str(row["position"]).partition("[")[0] != digest(payload)  # type: ignore[arg-type]
    content_type = said if said is None or not is_cut else str(said).partition(";")[0]
    return Message(kind, topic, payload, row["received_at"], content_type)  # type: ignore[arg-type]


def _item(row: Mapping[str, object]) -> int | None:
    """Return which reading of the payload was quarantined, where the payload is the whole message; None: all that it holds."""
    found = re.fullmatch(r"([0-9a-f]+)\[(\d+)\]", str(row["position"]))
    is_whole = found is not None and found[1] == digest(row["payload"])  # type: ignore[arg-type]
    return int(found[2]) if found is not None and is_whole else None


def _reasons(judged: Judged, refused: list[tuple[bytes, int | None]]) -> list[str]:
    """Return why payloads are refused now, one code for each."""
    codes: dict[str, str] = {}
    for position, code in judged.rejected.select("position", "error_code").iter_rows():
        codes.setdefault(position, code)
        codes.setdefault(position.partition("[")[0], code)
    places = ((digest(payload), "" if item is None else f"[{item}]") for payload, item in refused)
    return [codes.get(whole + item, codes.get(whole, NO_READING)) for whole, item in places]
