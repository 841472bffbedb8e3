"""Which files are read, and that every format gives its rows in order, with the place and the bytes each came from."""

import gzip
import json
from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import DataError, SettingsError
from pipeline.ingest.formats import discover, open_source

CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0\r\n")
ROWS = st.lists(st.lists(st.text(CHARACTERS, max_size=8), min_size=2, max_size=2), max_size=9)
DEEP = b"[" * 20_000
JUNK = [b"{", b'{"ts": 1', b"[1, 2", b"\xff\xfe", b"null", b"3", b'"x"', b"WARN \x00", b'{"ts":1}}', DEEP, b'{"ts":' + b"9" * 5_000 + b"}"]


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def batches(path, file_format, columns=None, num_rows=100):
    source = open_source(path, file_format)
    return list(source.batches(columns or source.columns, num_rows))


def rows(found):
    return [row for batch in found for row in batch.rows.rows()]


def broken(found):
    return pl.concat([batch.broken for batch in found]).select("position", "payload").rows()


def test_a_folder_gives_its_readings_sorted_and_names_the_rest(tmp_path):
    for name in ("b/x.csv.gz", "a.ndjson", "b/c.PARQUET", "README.md", ".hidden.csv", ".cache/y.csv"):
        write(tmp_path, name, "")
    files, ignored = discover([tmp_path])
    assert [str(file.path.relative_to(tmp_path)) for file in files] == ["a.ndjson", "b/c.PARQUET", "b/x.csv.gz"]
    assert [(file.format, file.stem) for file in files] == [("ndjson", "a"), ("parquet", "c"), ("csv", "x")]
    assert [path.name for path in ignored] == ["README.md"]


def test_a_file_met_twice_is_read_once(tmp_path):
    path = write(tmp_path, "a.csv", "")
    files, _ = discover([path, tmp_path, tmp_path / "*.csv"])
    assert [file.path for file in files] == [path]


def test_a_named_format_wins_over_the_suffix(tmp_path):
    files, _ = discover([write(tmp_path, "a.log", "")], "ndjson")
    assert (files[0].format, files[0].stem) == ("ndjson", "a.log")


def test_paths_that_hold_nothing_are_refused(tmp_path):
    for path, message in [(tmp_path / "no.csv", "does not"), (tmp_path, "holds none"), (write(tmp_path, "a.xlsx", ""), "ends in .csv")]:
        with pytest.raises(DataError, match=message):
            discover([path])
    with pytest.raises(SettingsError, match="csv, ndjson, parquet; got 'xml'"):
        discover([tmp_path], "xml")


@pytest.mark.parametrize(
    ("file_format", "content", "message"),
    [
        ("csv", b"", "at least one line"),
        ("csv", b" \n\n", "at least one line"),
        ("csv", bytes(range(256)) * 9, "text in UTF-8; got binary"),
        ("csv", "ts,a,a\n", "distinct column names; got 'a'"),
        ("csv", "ts,a\r1,2\r", "end in LF or CR LF"),
        ("csv", b"ts,Gr\xf6\xdfe\nx,1\nx,2", "a header in UTF-8"),
        ("ndjson", b"\x1f\x8b\x08\x00\x00" * 50, "got binary"),
        ("ndjson", "[\n{}\n]", "one document over many"),
        ("parquet", b"PAR1 or not", "a whole Parquet file"),
    ],
)
def test_a_file_that_is_not_its_format_is_refused(tmp_path, file_format, content, message):
    with pytest.raises(DataError, match=message):
        open_source(write(tmp_path, "x", content), file_format)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_csv_finds_its_separator(tmp_path, separator):
    text = "\ufeffts,a,b\r\n1,2,\r\n\r\n3,,4".replace(",", separator)
    (batch,) = batches(write(tmp_path, "x.csv", text), "csv")
    assert batch.rows.columns == ["ts", "a", "b"]
    assert batch.rows.rows() == [("1", "2", ""), ("3", "", "4")]
    assert batch.origins["line"].to_list() == [2, 4]


def test_csv_keeps_quoted_separators_and_reports_what_does_not_fit(tmp_path):
    lines = ["ts,a,b", '1,"x,""y""",2', "1,2", "1,2,3,4", '1,"open,2', "5,6,7"]
    found = batches(write(tmp_path, "x.csv", "\n".join(lines)), "csv", ["b", "a"])
    assert rows(found) == [("2", 'x,"y"'), ("7", "6")]
    assert broken(found) == [("x.csv:3", b"1,2"), ("x.csv:4", b"1,2,3,4"), ("x.csv:5", b'1,"open,2')]


@settings(deadline=None)  # a busy machine is no failure
@given(ROWS, st.integers(1, 4))
def test_csv_returns_what_was_written_whatever_the_batches(tmp_path_factory, written, num_rows):
    written = [[str(index), *row] for index, row in enumerate(written)]  # else a row of blanks is a blank line
    quoted = [",".join(f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in row) for row in written]
    path = write(tmp_path_factory.mktemp("csv"), "x.csv", "\n".join(["a,b,c", *quoted]))
    assert [list(row) for row in rows(batches(path, "csv", num_rows=num_rows))] == written


@pytest.mark.parametrize("num_rows", [1, 2, 100])
def test_ndjson_gives_text_for_every_kind_of_value(tmp_path, num_rows):
    lines = ['{"ts":1,"value":2.5,"x":[1]}', '{"value":"abc","ts":null}', "", '{"value":true}', '{"value":[1,{"a":2}]}', '{"value":NaN}']
    found = batches(write(tmp_path, "x.ndjson", "\n".join(lines)), "ndjson", ["ts", "value"], num_rows)
    assert rows(found) == [("1", "2.5"), (None, "abc"), (None, "true"), (None, '[1, {"a": 2}]'), (None, "nan")]
    assert broken(found) == []


def test_ndjson_gives_each_object_of_an_array_its_place(tmp_path):
    content = '{"ts":1,"value":1}\n[{"ts":2,"value":2},7,{"ts":3,"value":3}]\n'
    found = batches(write(tmp_path, "x.jsonl", content), "ndjson", ["ts", "value"])
    evidence = found[0].evidence(pl.Series([0, 1, 2]))
    assert rows(found) == [("1", "1"), ("2", "2"), ("3", "3")]
    assert evidence["position"].to_list() == ["x.jsonl:1", "x.jsonl:2[0]", "x.jsonl:2[2]"]
    assert json.loads(evidence["payload"][2]) == {"ts": 3, "value": 3}
    assert broken(found) == [("x.jsonl:2[1]", b"7")]


@settings(deadline=None)
@given(st.lists(st.sampled_from([*JUNK, b""]), max_size=9), st.integers(1, 5))
def test_ndjson_loses_no_line_and_keeps_the_bad_ones_whole(tmp_path_factory, junk, num_rows):
    lines = [b'{"ts":1,"value":1}'] * 12 + [line or b'{"ts":2,"value":2}' for line in junk]
    found = batches(write(tmp_path_factory.mktemp("junk"), "x.ndjson", b"\n".join(lines)), "ndjson", ["ts", "value"], num_rows)
    assert rows(found) == [("1", "1")] * 12 + [("2", "2")] * junk.count(b"")
    assert sorted(broken(found)) == sorted((f"x.ndjson:{index}", line) for index, line in enumerate(lines, start=1) if line in JUNK)


def test_a_wide_ndjson_file_shows_keys_that_come_late(tmp_path):
    path = write(tmp_path, "x.ndjson", '{"ts":1,"temp":2}\n' * 9_000 + '{"ts":1,"hum":3}\n')
    assert {"ts", "temp", "hum"} <= set(open_source(path, "ndjson").columns)


@pytest.mark.parametrize("num_rows", [1, 2, 9])
def test_parquet_keeps_its_types_and_shows_a_row_as_json(tmp_path, num_rows):
    table = pl.DataFrame({"ts": [1, 2, 3], "value": [0.5, None, 2.0], "tags": [["a"], [], None], "lag": [timedelta(1)] * 3})
    table.write_parquet(tmp_path / "x.parquet")
    found = batches(tmp_path / "x.parquet", "parquet", num_rows=num_rows)
    assert pl.concat([batch.rows for batch in found]).equals(table.drop("tags", "lag"))
    evidence = found[-1].evidence(pl.Series([len(found[-1].rows) - 1]))
    assert evidence.row(0) == ("x.parquet:3", b'{"ts":3,"value":2.0}')


def test_gzip_is_read_as_what_it_holds_and_a_torn_one_is_refused(tmp_path):
    packed = gzip.compress(b"ts,a\n" + b"1,2\n" * 50_000)
    assert len(rows(batches(write(tmp_path, "x.csv.gz", packed), "csv", num_rows=9_000))) == 50_000
    with pytest.raises(DataError, match="requires a whole gzip file"):
        batches(write(tmp_path, "y.csv.gz", packed[:-20]), "csv", num_rows=9_000)
    with pytest.raises(DataError, match="gzip data, as its name says"):
        open_source(write(tmp_path, "z.csv.gz", b"ts,a\n1,2\n"), "csv")
