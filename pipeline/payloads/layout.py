"""Where the parts of a reading are in JSON objects of one shape: by the pointers of a route, else by usual names, as in files.

Called by `json_decoder.py` and `uniform.py`, which therefore read an object in the same way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import cast

from pipeline.errors import CausalityError
from pipeline.ingest.mapping import KNOWN, OPTIONAL_ROLES, ColumnMapping, NoReadingsError, infer_mapping
from pipeline.payloads.json_values import JsonValue, Path, parse_pointer
from pipeline.settings import Route

METRICS_NAMES = ("metrics", "values", "fields", "measurements")  # usual names of an object whose members are metric: value
DEPTH = 16  # of objects that are looked into
_POINTERS = ("ts", "device_id", "metric", "value", "unit", "quality", "seq", "received_at")
_ELSEWHERE = "\0"  # begins the stand-in for a part whose place is known already: no member is called so
_NO_READING = "A JSON reading requires a stamp and values under usual names, or a route that points at them; got the members {}."
_NO_METRICS = "A JSON reading requires metrics where its route or usual names say; got none there."


@dataclass(frozen=True)
class Layout:
    """Which member plays which part.

    Attributes:
        fields: column of a row and path of its text; `ts` comes twice where a date and a time make it up.
        metrics: name and path of each quantity where an object holds several; empty where `fields` names one value.
        is_unnamed: whether the one quantity has no name.
    """

    fields: tuple[tuple[str, Path], ...]
    metrics: tuple[tuple[str, Path], ...]
    is_unnamed: bool

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every path that is read, once."""
        return tuple(dict.fromkeys(path for _, path in (*self.fields, *self.metrics)))


@dataclass(frozen=True)
class Rule:
    """How the objects of one route are laid out.

    Attributes:
        pointers: role and path of what the route maps.
        metrics: path of the object of metrics, where the route maps it.
        in_topic: roles that the topic names: device_id, metric.
    """

    pointers: tuple[tuple[str, Path], ...]
    metrics: Path | None
    in_topic: tuple[str, ...]

    @classmethod
    def of(cls, route: Route) -> "Rule":
        """Read a route's pointers, and what its topic names."""
        given = ((role, getattr(route, role)) for role in _POINTERS)
        pointers = tuple((role, parse_pointer(pointer)) for role, pointer in given if pointer is not None)
        in_topic = tuple(role for role in ("device_id", "metric") if f"{{{role}}}" in route.topic)
        return cls(pointers, None if route.metrics is None else parse_pointer(route.metrics), in_topic)


def shape_of(document: dict[str, JsonValue], depth: int = DEPTH) -> tuple[Path, ...]:
    """Return the path of each member that is no object itself, in the order of the document; an empty or a very deep one counts as none."""
    found: list[Path] = []
    for name, value in document.items():
        is_open = isinstance(value, dict) and bool(value) and depth > 1
        found += [(name, *path) for path in shape_of(cast(dict[str, JsonValue], value), depth - 1)] if is_open else [(name,)]
    return tuple(found)


@lru_cache(maxsize=4096)
def lay_out(rule: Rule, shape: tuple[Path, ...]) -> Layout | str:
    """Lay out the objects of one shape; a sentence says why where they hold no reading."""
    known = dict(rule.pointers)
    metrics = rule.metrics
    names_one = "value" in known or "metric" in known or "metric" in rule.in_topic
    if metrics is None and not names_one:
        metrics = next((path[:1] for path in shape if len(path) > 1 and path[0].lower() in METRICS_NAMES), None)
    top = [path[0] for path in shape if len(path) == 1 and path not in known.values()]
    if metrics is not None:
        top = [name for name in top if name.lower() not in (*KNOWN["metric"], *KNOWN["series_id"])]
    try:
        mapping = _infer(top, _given(known, rule.in_topic, has_metrics=metrics is not None))
    except NoReadingsError:
        return _NO_READING.format(", ".join("/".join(path) for path in shape[:8]) or "of no object")
    except CausalityError as error:
        return str(error)
    return _as_layout(mapping, known, _members(shape, metrics) if metrics is not None else None)


def _given(known: dict[str, Path], in_topic: Sequence[str], *, has_metrics: bool) -> ColumnMapping:
    """Return the roles whose place is known, by their stand-ins."""
    names = {role: _ELSEWHERE + role for role in (*known, *in_topic)}
    has_value = has_metrics or "value" in known
    return ColumnMapping(
        ts=(names["ts"],) if "ts" in names else (),
        value=(_ELSEWHERE + "value",) if has_value else (),
        **{role: names.get(role) for role in OPTIONAL_ROLES},
        layout="wide" if has_metrics else "long" if has_value else None,
    )


def _infer(names: Sequence[str], given: ColumnMapping) -> ColumnMapping:
    """Complete a mapping by usual names; an object that says no time has a stamp that is missing."""
    try:
        return infer_mapping([*names, *given.columns], given, source="a message")
    except NoReadingsError:
        if given.ts:
            raise
        timeless = replace(given, ts=(_ELSEWHERE + "none",))
        return infer_mapping([*names, *timeless.columns], timeless, source="a message")


def _members(shape: tuple[Path, ...], metrics: Path) -> list[Path]:
    return [path for path in shape if path[:-1] == metrics]


def _as_layout(mapping: ColumnMapping, known: dict[str, Path], members: list[Path] | None) -> Layout | str:
    """Turn columns back into paths."""

    def path_of(column: str) -> Path | None:
        return known.get(column[1:]) if column.startswith(_ELSEWHERE) else (column,)

    if len(mapping.ts) > 2:
        return "A JSON reading requires its stamp in one member, or in a date and a time; got it in more. Send it in ISO 8601."
    is_unnamed = mapping.layout == "long" and mapping.metric is None and not _is_whole_id(mapping.series_id)
    columns = [("ts", name) for name in mapping.ts]
    columns += [(role, name) for role in OPTIONAL_ROLES if (name := getattr(mapping, role)) is not None]
    if is_unnamed:
        columns = [("device_id" if role == "series_id" else role, name) for role, name in columns]
    if mapping.layout == "long":
        columns.append(("value", mapping.value[0]))
    fields = tuple((role, path) for role, name in columns if (path := path_of(name)) is not None)
    if mapping.layout == "long":
        return Layout(fields, (), is_unnamed)
    taken = {path for _, path in fields}
    quantities = members if members is not None else [(name,) for name in mapping.value]
    metrics = tuple((path[-1].strip(), path) for path in quantities if path not in taken)
    return Layout(fields, metrics, is_unnamed=False) if metrics else _NO_METRICS


def _is_whole_id(series_id: str | None) -> bool:
    return series_id is not None and series_id.strip().lower() in KNOWN["series_id"]
