"""What the expressions for plain JSON take: JSON, which Polars reads as Python does."""

import json
import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.payloads.json_values import as_text
from pipeline.payloads.plain_json import BLANKS, NUMBER, SCALAR


@given(st.lists(st.from_regex(re.compile(NUMBER, re.ASCII), fullmatch=True), min_size=1, max_size=50))
def test_numbers_are_the_same_to_the_last_bit(texts: list[str]) -> None:
    read = pl.Series(texts).str.json_decode(pl.Float64)
    assert read.to_list() == [float(json.loads(text)) for text in texts]


@given(st.lists(st.from_regex(re.compile(BLANKS + SCALAR + BLANKS), fullmatch=True), min_size=1, max_size=50))
def test_scalars_are_the_same_text(texts: list[str]) -> None:
    objects = pl.Series([f'{{"a":{text}}}' for text in texts])
    read = objects.str.json_decode(pl.Struct({"a": pl.String})).struct.field("a")
    assert read.to_list() == [as_text(json.loads(text)) for text in texts]


@pytest.mark.parametrize("text", ["", "01", ".5", "1.", "+1", "1e", "NaN", "'a'", '"a', '"\n"', '"\x00"', "True", "[]", "{}"])
def test_what_json_does_not_have_is_left_out(text: str) -> None:
    assert re.fullmatch(SCALAR, text) is None


@pytest.mark.parametrize("text", ['"\\n"', "1" * 18, "1." + "1" * 18, "1e100"])
def test_escapes_and_numbers_of_more_digits_are_left_to_python(text: str) -> None:
    json.loads(text)
    assert re.fullmatch(SCALAR, text) is None
