"""A row of a sorted frame against the one beside it. Called by `pipeline.store` and `pipeline.prepare.aggregate`."""

import polars as pl


def same_as_previous(*columns: str) -> pl.Expr:
    """Whether a row equals the one above it in these columns; null equals null, the first row equals none."""
    return _same_at(1, columns) & (pl.int_range(pl.len()) > 0)


def same_as_next(*columns: str) -> pl.Expr:
    """Whether a row equals the one below it in these columns; null equals null, the last row equals none."""
    return _same_at(-1, columns) & (pl.int_range(pl.len()) < pl.len() - 1)


def _same_at(offset: int, columns: tuple[str, ...]) -> pl.Expr:
    return pl.all_horizontal(pl.col(name).eq_missing(pl.col(name).shift(offset)) for name in columns)
