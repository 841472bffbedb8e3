"""Names by pattern, in every verb alike: `*` stands for any text and `?` for one letter; nothing else is special.

Called by every module that takes patterns of series, devices, metrics or connectors.
"""

import re
from collections.abc import Iterable

import polars as pl


def matches(column: str, patterns: Iterable[str]) -> pl.Expr:
    """Whether a text column matches any of the patterns, as a whole."""
    globs = (re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".") for pattern in patterns)
    return pl.col(column).str.contains(f"^(?s:{'|'.join(globs)})$")
