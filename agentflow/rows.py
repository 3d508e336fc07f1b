"""Listings: what every table of agentflow is before pandas is asked for.

Law: a listing has the same columns and dtypes whether it has rows or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    import pandas as pd

SECONDS: Final = "seconds"
INSTANT: Final = "instant"
COUNT: Final = "count"
NUMBER: Final = "number"
TEXT: Final = "text"
FLAG: Final = "flag"
ANY: Final = "any"


class Column(msgspec.Struct, frozen=True):
    """A column: its name, what kind of values it has, and what they mean.

    Kinds: `seconds` and `number` are float64 (missing: NaN), `count` is Int64, `instant` is
    datetime64[us, UTC], `text` is string, `flag` is boolean, `any` is object. `categories` makes it a
    category with those values, ordered if `ordered`.
    """

    name: str
    kind: str
    doc: str
    categories: tuple[str, ...] = ()
    ordered: bool = False


class Schema(msgspec.Struct, frozen=True):
    """A table's name, what a row is, and its columns."""

    name: str
    doc: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in order."""
        return tuple(column.name for column in self.columns)


class Rows:
    """Rows of one schema.

    Parameters
    ----------
    schema : Schema
        The columns.
    data : iterable of sequences
        A value a column; None where there is none.
    began : float
        Unix time of the run's beginning, which turns seconds into instants.

    Examples
    --------
    >>> schema = Schema("pets", "a row a pet", (Column("name", TEXT, ""), Column("age_s", SECONDS, "")))
    >>> rows = Rows(schema, [("rex", 3.5)])
    >>> rows.to_dicts()
    [{'name': 'rex', 'age_s': 3.5}]
    >>> rows.to_pandas().dtypes["age_s"]
    dtype('float64')
    """

    __slots__ = ("began", "data", "schema")

    def __init__(self, schema: Schema, data: Iterable[Sequence[Any]], began: float = 0.0) -> None:
        self.schema = schema
        self.data = [tuple(row) for row in data]
        self.began = began

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.data)

    def __repr__(self) -> str:
        return f"Rows({self.schema.name}, {len(self.data)} rows)"

    def to_dicts(self) -> list[dict[str, Any]]:
        """Give a dictionary a row."""
        names = self.schema.names
        return [dict(zip(names, row, strict=True)) for row in self.data]

    def to_pandas(self) -> pd.DataFrame:
        """Give a DataFrame; an instant column beside each column of seconds since the start."""
        import pandas as pd

        frame: dict[str, Any] = {}
        for at, column in enumerate(self.schema.columns):
            values = [row[at] for row in self.data]
            frame[column.name] = _series(column, values, self.began)
        return pd.DataFrame(frame, columns=list(self.schema.names))


def _series(column: Column, values: list[Any], began: float) -> pd.Series[Any]:
    import pandas as pd

    if column.categories:
        kind = pd.CategoricalDtype(list(column.categories), ordered=column.ordered)
        return pd.Series(pd.Categorical(values, dtype=kind))
    if column.kind in (SECONDS, NUMBER):
        return pd.Series([float("nan") if value is None else value for value in values], dtype="float64")
    if column.kind == COUNT:
        return pd.Series([pd.NA if value is None else value for value in values], dtype="Int64")
    if column.kind == INSTANT:
        micros = [None if value is None else round((began + value) * 1e6) for value in values]
        naive: pd.Series[Any] = pd.Series(pd.array(micros, dtype="Int64").astype("datetime64[us]"))
        instants: pd.Series[Any] = naive.dt.tz_localize("UTC")
        return instants
    if column.kind == TEXT:
        return pd.Series(values, dtype="string")
    if column.kind == FLAG:
        return pd.Series(values, dtype="boolean")
    return pd.Series(values, dtype="object")
