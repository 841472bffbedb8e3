"""A small lake with everything in it, packed as each release left it, and questions whose answers later releases must give too.

python -m tests.upgrades pack      packs tests/data/lakes/<version>.tar.gz, once for each release
python -m tests.upgrades make FILE packs a lake elsewhere, as `tests/faults/upgrade.py` does with another deltalake
python -m tests.upgrades ask FILE  unpacks one and ends with 1 where an answer is another
"""

import argparse
import json
import math
import shutil
import sys
import tarfile
import tempfile
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

from flows import direct
from flows.console import Json, jsonable
from pipeline.clock import ReplayClock
from pipeline.evaluate.maturity import score_matured
from pipeline.forecast.rolling import forecast
from pipeline.ingest.fleet import FaultSpec, FleetSpec
from pipeline.ingest.ingest import IngestOptions, ingest_paths
from pipeline.ingest.known_future import ingest_plans
from pipeline.ingest.simulate import write_fleet
from pipeline.listen.drain import drain
from pipeline.listen.inbox import Inbox
from pipeline.payloads.message import Message
from pipeline.prepare.regularise import regularise
from pipeline.query.frames import query_forecasts
from pipeline.query.quarantined import read_quarantine
from pipeline.query.scores import query_scores
from pipeline.schemas import Observations, Plans
from pipeline.settings import Settings
from pipeline.store.lake import Lake, read
from pipeline.store.series import list_series
from pipeline.tracking.registry import champion_version, register
from pipeline.tracking.saved_model import save_model
from tests.lakes import card_of, random_weights

LAKES = Path(__file__).parent / "data" / "lakes"
ANSWERS = "answers.json"
START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
FLEET = FleetSpec(
    num_devices=1,
    days=6,
    start=START,
    faults=FaultSpec.only("garbage", "nan", "duplicate", "late", "corrected", rate=0.007),
    metrics=("temperature", "humidity"),
)
BY_FILE, DRAINED = 0.8, 0.9  # of the lines; the rest waits in the inbox
AT = START + 118 * HOUR  # an instant that was forecast


def settings_of(folder: Path) -> Settings:
    """Return the settings of a lake that carries its state, registry and models with it."""
    return Settings(lake=str(folder / "lake"))


def make(folder: Path) -> None:
    """Fill a folder: readings by file and by messages, quarantine, plans, a champion, forecasts, scores, snapshots, hashes."""
    settings, clock = settings_of(folder), ReplayClock(START + 120 * HOUR)
    lines = _lines(folder)
    first, second = (int(share * len(lines)) for share in (BY_FILE, DRAINED))
    (folder / "readings.ndjson").write_bytes(b"\n".join(lines[:first]) + b"\n")
    ingest_paths(settings, [folder / "readings.ndjson"], IngestOptions(), clock)
    (folder / "tariffs.csv").write_text(f"device_id,ts,tariff\nsite,{AT.isoformat()},0.3\n")
    ingest_plans(settings, [folder / "tariffs.csv"], IngestOptions(is_plan=True, known_ahead=timedelta(days=7)), clock)
    save_model(folder / "model", random_weights(), card_of(random_weights()))
    register(settings, folder / "model", clock)
    _tick(settings, clock, origins=12)
    _send(settings, lines[first:second], START + 135 * HOUR)
    clock.advance(16 * HOUR)
    drain(settings, clock)
    _tick(settings, clock)
    direct.maintain(settings)
    _send(settings, lines[second:], START + 145 * HOUR)


def ask(folder: Path) -> dict[str, Json]:
    """Return the answers of a lake; the last questions bring it up to its inbox and forecast on."""
    settings, clock = settings_of(folder), ReplayClock(START + 150 * HOUR)
    lake = Lake(settings.lake)
    known = {
        "champion": champion_version(settings),
        "query": query_forecasts(settings.lake).to_dicts(),
        "query --at": query_forecasts(settings.lake, at=AT, as_of=START + 121 * HOUR, with_actuals=True).to_dicts(),
        "scores": query_scores(settings.lake).to_dict(),
        "series": list_series(settings, clock).to_dicts(),
        "quarantine": read_quarantine(lake).to_dict(),
        "plans": read(lake.scan(Plans)).sort(Plans.key).to_dicts(),
        "observations": read(lake.scan(Observations)).sort(Observations.key).tail(48).to_dicts(),
    }
    drained = drain(settings, clock).to_dict()
    _tick(settings, clock)
    new = {
        "drain": drained,
        "next forecast": query_forecasts(settings.lake).to_dicts(),
        "next scores": query_scores(settings.lake).to_dict(),
    }
    answers: dict[str, Json] = json.loads(json.dumps(jsonable(known | new)))
    return answers


def differences(told: Json, expected: Json, place: str = "") -> list[str]:
    """Return where two answers differ; numbers may by a hundred-thousandth part, as processors do, and a later release may say more."""
    if isinstance(told, dict) and isinstance(expected, dict) and told.keys() >= expected.keys():
        return [found for name in expected for found in differences(told[name], expected[name], f"{place}/{name}")]
    if isinstance(told, list) and isinstance(expected, list) and len(told) == len(expected):
        return [found for number in range(len(told)) for found in differences(told[number], expected[number], f"{place}/{number}")]
    if isinstance(told, float) and isinstance(expected, float) and math.isclose(told, expected, rel_tol=1e-5, abs_tol=1e-6):
        return []
    return [] if told == expected else [f"{place}: got {told!r}, and it was {expected!r}"]


def pack(place: Path) -> None:
    """Make a lake, ask a copy of it, and pack it with the answers."""
    with tempfile.TemporaryDirectory(prefix="tidecast-pack-") as scratch:
        made, asked = Path(scratch, "made"), Path(scratch, "asked")
        made.mkdir()
        make(made)
        shutil.copytree(made, asked)
        (made / ANSWERS).write_text(json.dumps(ask(asked), indent=1))
        place.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(place, "w:gz", compresslevel=9) as archive:
            for name in ("lake", ANSWERS):
                archive.add(made / name, name)


def unpack(place: Path, folder: Path) -> dict[str, Json]:
    """Unpack a lake into a folder and return the answers that it was packed with."""
    with tarfile.open(place) as archive:
        archive.extractall(folder, filter="data")
    answers: dict[str, Json] = json.loads((folder / ANSWERS).read_text())
    return answers


def _lines(folder: Path) -> list[bytes]:
    write_fleet(FLEET, folder / "fleet")
    return (folder / "fleet" / "readings.ndjson").read_bytes().splitlines()


def _send(settings: Settings, payloads: list[bytes], received_at: datetime) -> None:
    with closing(Inbox(settings.state_dir)) as inbox:
        inbox.put([Message("mqtt", "site", payload, received_at) for payload in payloads])


def _tick(settings: Settings, clock: ReplayClock, origins: int = 1) -> None:
    regularise(settings, clock)
    forecast(settings, clock, origins=origins)
    score_matured(settings, clock)


def main() -> None:
    """Pack or ask, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("pack", "make", "ask"))
    parser.add_argument("file", type=Path, nargs="?", default=LAKES / f"{version('tidecast')}.tar.gz")
    chosen = parser.parse_args()
    if chosen.verb != "ask":
        pack(chosen.file)
        return
    with tempfile.TemporaryDirectory(prefix="tidecast-ask-") as scratch:
        recorded = unpack(chosen.file, Path(scratch))
        found = differences(ask(Path(scratch)), recorded)
    sys.stdout.write("\n".join(found[:20]) + "\n" if found else "every answer is the same\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
