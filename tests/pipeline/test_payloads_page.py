"""The examples of docs/payloads.md, run: each payload gives the readings of the table below it."""

import base64
import re
import tomllib
from pathlib import Path

import polars as pl
import pytest

from pipeline.ingest.validate import STAMP_REQUIRES
from pipeline.listen.judge import TOO_LONG, UNDECODABLE
from pipeline.payloads.choose import UNKNOWN_FORMAT
from pipeline.payloads.cloud_events import structured
from pipeline.payloads.message import Message
from pipeline.payloads.sparkplug import MISSING_BIRTH
from pipeline.settings import ListenSettings, Route
from tests.messages import message, rows

PAGE = (Path(__file__).parents[2] / "docs" / "payloads.md").read_text(encoding="utf-8")
GIVES_A_CODE = (  # a check, a pair with its sentence, what is refused one by one, a column, a line of a file
    r'Check\(\s*"(\w+)"',
    r'(?:= \(|return )"(\w+)", f?"A ',
    r'refuse\([^"]+, "(\w+)"',
    r'pl\.lit\("(\w+)"\)(?:\.alias\("error_code|, error_text)',
    r'broken_rows\([^"]+, "(\w+)"',
)
SECTIONS = [section for section in PAGE.split("\n## ") if re.search(r"^```(json|text|base64|http)$", section, flags=re.MULTILINE)]


def block(section: str, language: str) -> str | None:
    """Return the code of a language in a section."""
    found = re.search(rf"^```{language}\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    return None if found is None else found[1]


def table(section: str) -> list[dict[str, str]]:
    """Return the rows of the table behind the last code."""
    lines = [line.strip("| ").split(" | ") for line in section.rpartition("```")[2].splitlines() if line.startswith("| ")]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


def routes(section: str) -> tuple[Route, ...]:
    """Return the routes that a section configures."""
    return ListenSettings(**tomllib.loads(block(section, "toml") or "").get("listen", {})).routes


def sent(section: str) -> Message:
    """Return the message of a section."""
    topic, request = re.search(r"^Topic `(.+)`$", section, flags=re.MULTILINE), block(section, "http")
    if request is None:
        payload = block(section, "json") or block(section, "text") or base64.b64decode(block(section, "base64") or "")
        return message(payload, topic="any" if topic is None else topic[1])
    head, _, body = request.partition("\n\n")
    headers = dict(line.split(": ", 1) for line in head.splitlines()[1:])
    attributes = {name.removeprefix("ce-"): value for name, value in headers.items()}
    content_type, payload = structured(attributes, headers["Content-Type"], body.encode())
    return message(payload, content_type=content_type)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.splitlines()[0])
def test_an_example_gives_the_readings_of_its_table(section):
    """Shown to fail by another number in a table, and by a route without its pointers."""
    found = rows([sent(section)], *routes(section))
    expected = pl.DataFrame(table(section)).with_columns(pl.col("ts").str.to_datetime(time_unit="us", time_zone="UTC"))
    assert found.select(expected.columns).rows() == expected.rows()


def test_every_format_has_an_example():
    assert len(SECTIONS) == 12


def test_every_block_of_settings_is_one():
    blocks = re.findall(r"^```toml\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert [len(ListenSettings(**tomllib.loads(text)["listen"]).routes) for text in blocks] == [1, 1, 1, 1]


def test_every_reason_is_on_the_page():
    """Shown to fail by a code that one decoder gives and the page does not name, and by a row of a code that nothing gives."""
    parts = (Path(__file__).parents[2] / "pipeline" / part for part in ("ingest", "listen", "payloads"))
    sources = "".join(path.read_text() for part in parts for path in sorted(part.glob("*.py")))
    given = {code for pattern in GIVES_A_CODE for code in re.findall(pattern, sources)}
    given |= {*STAMP_REQUIRES, UNKNOWN_FORMAT[0], MISSING_BIRTH, TOO_LONG, UNDECODABLE}
    assert given == set(re.findall(r"^\| `(\w+)` \|", PAGE.partition("## What is quarantined")[2], flags=re.MULTILINE))
