"""Tables as files, and back: csv, parquet, xlsx and sqlite.

Law: nothing is written before it is known that everything can be, and a file is whole or not there. What
a table holds comes back with the dtypes that its schema promises. Two things files cannot say: a column
of any objects becomes text, and in csv and xlsx an empty text is a missing one.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agentflow.cluster import tables
from agentflow.errors import InvalidConfig, MissingExtra
from agentflow.rows import ANY, COUNT, FLAG, INSTANT, TEXT, Column, Schema

if TYPE_CHECKING:
    import pandas as pd

FORMATS: Final = ("csv", "parquet", "xlsx", "sqlite")
NEEDS: Final = {"parquet": "pyarrow", "xlsx": "openpyxl"}
BOOK: Final = "agentflow"
"""Name of the one file that holds all tables, where a format can."""
SHEET_ROWS: Final = 1_048_575
CELL_CHARS: Final = 32_767


def schemas_of(frames: Any) -> dict[str, Schema]:
    """The tables that an object has methods for, with their schemas.

    Parameters
    ----------
    frames : ClusterFrames or RunFrames
        Whose tables.
    """
    found = {}
    for name in dir(type(frames)):
        schema = getattr(tables, name.upper(), None)
        if not name.startswith("_") and isinstance(schema, Schema):
            found[name] = schema
    return found


def export(frames: Any, directory: str | os.PathLike[str], format: str) -> list[Path]:  # noqa: A002
    """Write every table that has a method; give the files written."""
    if format not in FORMATS:
        raise InvalidConfig(f"format={format!r} is none of {', '.join(map(repr, FORMATS))}", field="format")
    _require(format)
    folder = Path(directory)
    if folder.exists() and not folder.is_dir():
        raise InvalidConfig(f"{str(folder)!r} is a file; give a directory for the tables", field="dir")
    schemas = schemas_of(frames)
    data = {name: flat(getattr(frames, name)(), schema) for name, schema in schemas.items()}
    if format == "xlsx" and (long := [name for name, frame in data.items() if len(frame) > SHEET_ROWS]):
        raise InvalidConfig(
            f"{', '.join(long)}: a sheet holds {SHEET_ROWS:,} rows; choose 'parquet', 'csv' or 'sqlite'",
            field="format",
        )
    folder.mkdir(parents=True, exist_ok=True)
    if format in ("xlsx", "sqlite"):
        write: Callable[[Path, Mapping[str, pd.DataFrame]], None] = _xlsx if format == "xlsx" else _sqlite
        with _whole(folder / f"{BOOK}.{format}") as part:
            write(part, data)
        return [folder / f"{BOOK}.{format}"]
    for name, frame in data.items():
        with _whole(folder / f"{name}.{format}") as part:
            if format == "csv":
                frame.to_csv(part, index=False)
            else:
                frame.to_parquet(part, index=False, engine="pyarrow")
    return [folder / f"{name}.{format}" for name in data]


def read(directory: str | os.PathLike[str], format: str) -> dict[str, pd.DataFrame]:  # noqa: A002
    """Read tables that were exported, with the dtypes of their schemas.

    Parameters
    ----------
    directory : str or path
        Where they were exported to.
    format : {"csv", "parquet", "xlsx", "sqlite"}
        As they were exported.

    Returns
    -------
    dict
        Table name to DataFrame.
    """
    import pandas as pd

    if format not in FORMATS:
        raise InvalidConfig(f"format={format!r} is none of {', '.join(map(repr, FORMATS))}", field="format")
    _require(format)
    folder = Path(directory)
    found: dict[str, pd.DataFrame] = {}
    if format == "xlsx":
        sheets = pd.read_excel(
            folder / f"{BOOK}.xlsx", sheet_name=None, dtype=object, na_values=[""], keep_default_na=False
        )
        found = {str(name): frame for name, frame in sheets.items()}
    elif format == "sqlite":
        with contextlib.closing(sqlite3.connect(folder / f"{BOOK}.sqlite")) as base:
            names = [row[0] for row in base.execute("select name from sqlite_master where type = 'table'")]
            for name in names:
                cursor = base.execute(f'select * from "{name}"')
                columns = [entry[0] for entry in cursor.description]
                found[name] = pd.DataFrame(cursor.fetchall(), columns=columns, dtype=object)
    else:
        for path in sorted(folder.glob(f"*.{format}")):
            if format == "csv":
                found[path.stem] = pd.read_csv(path, dtype="string", na_values=[""], keep_default_na=False)
            else:
                found[path.stem] = pd.read_parquet(path, engine="pyarrow")
    return {
        name: restored(frame, schema)
        for name, frame in found.items()
        if isinstance(schema := getattr(tables, name.upper(), None), Schema)
    }


def summary(frames: Any) -> pd.DataFrame:
    """A row a table: how many rows and columns it has now, and what a row is."""
    import pandas as pd

    rows = []
    for name, schema in schemas_of(frames).items():
        frame = getattr(frames, name)()
        rows.append(
            (name, len(frame), len(frame.columns), int(frame.memory_usage(deep=False).sum()), schema.doc)
        )
    return pd.DataFrame(rows, columns=["table", "rows", "columns", "bytes", "meaning"]).set_index("table")


# --- what a file can hold ------------------------------------------------------------------------------------


def flat(frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """The frame with its objects as text, and no text that cannot be written."""
    import pandas as pd

    kinds = {column.name: column.kind for column in schema.columns}
    changed = {
        name: pd.Series([_text(value) for value in frame[name]], dtype="string", index=frame.index)
        for name in frame.columns
        if kinds.get(name, ANY) == ANY or (kinds[name] == TEXT and not _categorical(schema, name))
    }
    return frame.assign(**changed)


def _categorical(schema: Schema, name: str) -> bool:
    return any(column.name == name and column.categories for column in schema.columns)


def _text(value: Any) -> str | None:
    """A value in words, safe to be written as UTF-8."""
    import pandas as pd

    if value is None or value is pd.NA:
        return None
    if not isinstance(value, str):
        try:
            value = repr(value)
        except Exception as error:
            value = f"<{type(value).__name__}: no repr, {type(error).__name__}>"
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def restored(frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """What was read, with the dtypes of its schema."""
    known = {column.name: column for column in schema.columns}
    return frame.assign(
        **{name: _restored(frame[name], known[name]) for name in frame.columns if name in known}
    )


def _restored(series: pd.Series[Any], column: Column) -> pd.Series[Any]:
    import pandas as pd

    if column.categories:
        kind = pd.CategoricalDtype(list(column.categories), ordered=column.ordered)
        return series.astype("object").where(series.notna(), None).astype(kind)
    if column.kind == INSTANT:
        return pd.to_datetime(series, utc=True, format="ISO8601").astype("datetime64[us, UTC]")
    if column.kind in (TEXT, ANY):
        return series.astype("string")
    if column.kind == COUNT:
        values = [pd.NA if pd.isna(value) else int(value) for value in series]
        return pd.Series(values, dtype="Int64", index=series.index)
    if column.kind == FLAG:
        values = [pd.NA if pd.isna(value) else str(value) in ("True", "1", "TRUE") for value in series]
        return pd.Series(values, dtype="boolean", index=series.index)
    return pd.Series(
        [float("nan") if pd.isna(v) else float(v) for v in series], dtype="float64", index=series.index
    )


def _cells(frame: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    """Rows of plain values: None, numbers, text; instants as ISO 8601, which keeps their microseconds."""
    import pandas as pd

    def plain(value: Any) -> Any:
        if value is None or value is pd.NA or value is pd.NaT or value != value:
            return None
        if isinstance(value, pd.Timestamp):
            return value.isoformat()
        return value.item() if hasattr(value, "item") else value

    columns = [[plain(value) for value in frame[name].astype(object)] for name in frame.columns]
    yield from zip(*columns, strict=True)


# --- the two formats of one file -----------------------------------------------------------------------------


def _xlsx(path: Path, data: Mapping[str, pd.DataFrame]) -> None:
    openpyxl: Any = importlib.import_module("openpyxl")
    cells: Any = importlib.import_module("openpyxl.cell.cell")
    book = openpyxl.Workbook(write_only=True)
    for name, frame in data.items():
        sheet = book.create_sheet(name)

        def cell(value: Any, sheet: Any = sheet) -> Any:
            if not isinstance(value, str):
                return value
            shown = cells.ILLEGAL_CHARACTERS_RE.sub("\N{REPLACEMENT CHARACTER}", value)
            made = cells.WriteOnlyCell(
                sheet, shown if len(shown) <= CELL_CHARS else shown[: CELL_CHARS - 1] + "…"
            )
            # A name that begins with "=" is a name and not a formula.
            made.data_type = "s"
            return made

        sheet.append(list(frame.columns))
        for row in _cells(frame):
            sheet.append([cell(value) for value in row])
    book.save(path)


def _sqlite(path: Path, data: Mapping[str, pd.DataFrame]) -> None:
    with contextlib.closing(sqlite3.connect(path)) as base:
        for name, frame in data.items():
            columns = ", ".join(f'"{column}"' for column in frame.columns)
            base.execute(f'create table "{name}" ({columns})')
            marks = ", ".join("?" * len(frame.columns))
            base.executemany(f'insert into "{name}" values ({marks})', _cells(frame))
        base.commit()


@contextlib.contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A file beside the target that takes its place once it is complete."""
    part = target.with_name(f".{target.stem}.part{target.suffix}")
    try:
        part.unlink(missing_ok=True)
        yield part
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _require(format: str) -> None:  # noqa: A002
    package = NEEDS.get(format)
    if package is None:
        return
    try:
        importlib.import_module(package)
    except ImportError:
        raise MissingExtra.of(package, "export", f"format={format!r}") from None
