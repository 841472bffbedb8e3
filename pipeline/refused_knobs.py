"""What pydantic refused of the settings, as one sentence that names each knob and, for a misspelt one, those that there are.

Called by `pipeline.settings`.
"""

from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, get_args

from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

NUM_SHOWN = 5
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")  # of a model, of a dataclass


def refused_knobs(error: ValidationError, tree: type[BaseModel]) -> str:
    """Return the first of what was refused, as `knob: why; knob: why`.

    Args:
        error: what pydantic raised.
        tree: the model that it raised it of.
    """
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {_why(one, tree)}" for one in error.errors()[:NUM_SHOWN])


def _why(refused: "ErrorDetails", tree: type[BaseModel]) -> str:
    *section, name = refused["loc"]
    if refused["type"] not in _UNKNOWN:
        return refused["msg"].removeprefix("Value error, ")
    known = _names(_kind_at(section, tree))
    near = get_close_matches(str(name), known, n=1)
    return f"no such knob. Did you mean {near[0]}?" if near else f"no such knob; there are {', '.join(known)}"


def _kind_at(path: list[int | str], tree: object) -> object:
    """Return the model or dataclass that a place in the settings is of: a field by its name, an item by what its list or table holds."""
    for part in path:
        if isinstance(tree, type) and issubclass(tree, BaseModel):
            tree = tree.model_fields[str(part)].annotation
        else:
            tree = next(kind for kind in get_args(tree) if _names(kind))
    return tree


def _names(kind: object) -> list[str]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return list(kind.model_fields)
    return [field.name for field in fields(kind)] if isinstance(kind, type) and is_dataclass(kind) else []
