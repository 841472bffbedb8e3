"""Laws of `pipeline.ingest.download`, against a real HTTP server on loopback."""

import hashlib
import re
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.ingest.download import CATALOGUE, DATASETS, Dataset, Patience, get

CONTENT = b"ts,value\n" + b"2026-01-01T00:00:00Z,1.5\n" * 9_000  # several chunks
QUICK = Patience(attempts=2, timeout=timedelta(seconds=0.3), pause=timedelta(0))


@dataclass(frozen=True)
class Answer:
    """What the server says to one request: it may promise more than it sends, reset the connection, redirect or hang."""

    body: bytes = CONTENT
    status: int = 200
    promised: int | None = None
    location: str = ""
    resets: bool = False
    hangs: bool = False


class Site(ThreadingHTTPServer):
    """Serves the answers in turn and repeats the last."""

    def __init__(self, *answers: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.num_asked, self.released = answers, 0, threading.Event()

    @property
    def url(self) -> str:
        """Where the file is."""
        return f"http://127.0.0.1:{self.server_port}/river.csv"


class Handler(BaseHTTPRequestHandler):
    """Gives the site's next answer, and logs nothing."""

    def do_GET(self) -> None:
        """Answer as told."""
        answer = self.server.answers[min(self.server.num_asked, len(self.server.answers) - 1)]
        self.server.num_asked += 1
        if answer.hangs:
            self.server.released.wait()
        self.send_response(answer.status)
        self.send_header("Content-Length", str(answer.promised or len(answer.body)))
        if answer.location:
            self.send_header("Location", answer.location)
        self.end_headers()
        self.wfile.write(answer.body)
        if answer.resets:
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        """Log nothing."""


@contextmanager
def serving(*answers: Answer) -> Iterator[Site]:
    with Site(*answers) as site:
        thread = threading.Thread(target=partial(site.serve_forever, poll_interval=0.01))
        thread.start()
        try:
            yield site
        finally:
            site.released.set()
            site.shutdown()
            thread.join()


def catalogue(url: str, content: bytes = CONTENT) -> Mapping[str, Dataset]:
    digest = hashlib.sha256(content).hexdigest()
    river = Dataset(
        name="river", url=url, sha256=digest, num_bytes=len(content), file_name="river.csv", licence="", source="", about="", ingest=""
    )
    return {"river": river}


def test_a_download_is_the_very_file(tmp_path: Path) -> None:
    with serving(Answer()) as site:
        path = get("river", tmp_path / "new", catalogue=catalogue(site.url), patience=QUICK)
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["river.csv"]


def test_a_file_that_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    with serving(Answer()) as site:
        first = get("river", tmp_path, catalogue=catalogue(site.url), patience=QUICK)
        assert get("river", tmp_path, catalogue=catalogue(site.url), patience=QUICK) == first
        assert site.num_asked == 1


def test_a_file_that_was_tampered_with_is_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "river.csv").write_bytes(CONTENT.replace(b"1.5", b"1.6"))
    with serving(Answer()) as site:
        assert get("river", tmp_path, catalogue=catalogue(site.url), patience=QUICK).read_bytes() == CONTENT


OTHERS = {"other": CONTENT.replace(b"1.5", b"1.6"), "shorter": CONTENT[:-9], "longer": CONTENT + b"x", "empty": b""}


@pytest.mark.parametrize("sent", OTHERS.values(), ids=OTHERS)
def test_another_file_is_refused_at_once_and_leaves_nothing_behind(tmp_path: Path, sent: bytes) -> None:
    with serving(Answer(sent)) as site, pytest.raises(DataError, match=r"river requires the file with sha256 .* nothing was kept"):
        get("river", tmp_path, catalogue=catalogue(site.url), patience=QUICK)
    assert site.num_asked == 1
    assert list(tmp_path.iterdir()) == []


def test_a_failed_download_leaves_an_older_file_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "river.csv").write_bytes(b"older")
    with serving(Answer(b"other")) as site, pytest.raises(DataError):
        get("river", tmp_path, catalogue=catalogue(site.url), patience=QUICK)
    assert (tmp_path / "river.csv").read_bytes() == b"older"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(CONTENT[:100_000], promised=len(CONTENT)),
        Answer(CONTENT[:100_000], promised=len(CONTENT), resets=True),
        Answer(b"busy", status=503),
        Answer(hangs=True),
    ],
    ids=["truncated", "reset", "busy", "silent"],
)
def test_a_broken_answer_is_never_kept_and_another_try_mends_it(tmp_path: Path, answer: Answer) -> None:
    with serving(answer) as site, pytest.raises(DataError, match=r"to answer in full; got .* in 2 tries"):
        get("river", tmp_path, catalogue=catalogue(site.url), patience=QUICK)
    assert (site.num_asked, list(tmp_path.iterdir())) == (2, [])
    with serving(answer, Answer()) as site:
        assert get("river", tmp_path, catalogue=catalogue(site.url), patience=QUICK).read_bytes() == CONTENT


def test_a_file_that_is_gone_is_asked_for_once(tmp_path: Path) -> None:
    with serving(Answer(b"gone", status=404)) as site, pytest.raises(DataError, match="HTTP status 404"):
        get("river", tmp_path, catalogue=catalogue(site.url), patience=QUICK)
    assert (site.num_asked, list(tmp_path.iterdir())) == (1, [])


def test_a_redirect_is_followed_over_http_only(tmp_path: Path) -> None:
    with serving(Answer()) as site, serving(Answer(b"", status=302, location=site.url)) as door:
        assert get("river", tmp_path, catalogue=catalogue(door.url), patience=QUICK).read_bytes() == CONTENT
    with serving(Answer(b"", status=302, location="ftp://127.0.0.1/river.csv")) as door, pytest.raises(DataError, match="ftp"):
        get("river", tmp_path / "again", catalogue=catalogue(door.url), patience=QUICK)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/river.csv", "river.csv"])
def test_only_http_urls_are_opened(tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match="requires an http or https URL"):
        get("river", tmp_path, catalogue=catalogue(url))


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"requires one of etth1, beijing-pm25, .*; got 'etth7'"):
        get("etth7", tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with serving(Answer()) as site, pytest.raises(DataError, match="requires a folder that can be written"):
        get("river", tmp_path / "file", catalogue=catalogue(site.url), patience=QUICK)


def test_progress_grows_to_the_whole(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with serving(Answer()) as site:
        get("river", tmp_path, catalogue=catalogue(site.url), patience=QUICK, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert len(seen) > 2
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_the_catalogue_names_each_set_once_and_whole() -> None:
    assert len(CATALOGUE) == len(DATASETS) == len({dataset.file_name for dataset in DATASETS}) == 6
    assert all(re.fullmatch(r"[0-9a-f]{64}", dataset.sha256) and dataset.num_bytes > 10_000 for dataset in DATASETS)
    assert all(dataset.url.startswith("https://") and dataset.licence and dataset.source and dataset.about for dataset in DATASETS)
