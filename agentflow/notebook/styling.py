"""Tables in colour: the same colours as in the pictures, for those columns where they help.

Law: a style adds to what a cell says and never replaces it; the words and numbers stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from agentflow.errors import InvalidConfig
from agentflow.notebook.html import escape
from agentflow.notebook.pictures.theme import TERMS, term_class

if TYPE_CHECKING:
    import pandas as pd
    from pandas.io.formats.style import Styler

ROWS_AT_MOST: Final = 1000
"""A styled cell costs a line of style sheet: longer tables are shown by their first rows."""

CHARS_AT_MOST: Final = 200
INK: Final = "#1b2430"
STATES: Final = {
    "READY": "#edf3fb",
    "RUNNING": "#d9e9fc",
    "COMPLETED": "#dcf2e5",
    "FAILED": "#fbe0db",
    "LOST": "#fbe0db",
    "TIMED_OUT": "#fbe0db",
    "RETRYING": "#fdefd2",
    "CANCELLED": "#eceef0",
    "SKIPPED": "#f4f5f6",
    "ACTIVE": "#dcf2e5",
    "BUSY": "#fdefd2",
    "OFFLINE": "#fbe0db",
    "DRAINING": "#eceef0",
    "won": "#dcf2e5",
    "lost": "#fbe0db",
    "delivered": "#dcf2e5",
    "dropped": "#fbe0db",
}
BARS: Final = ("run_s", "wait_s", "duration_s", "depth", "load")


def of_state(value: Any) -> str:
    """The style of a state.

    Examples
    --------
    >>> of_state("FAILED")
    'background-color: #fbe0db; color: #1b2430'
    """
    fill = STATES.get(str(value))
    return f"background-color: {fill}; color: {INK}" if fill else ""


def of_term(value: Any) -> str:
    """The style of a term: the colour that everything of it wears."""
    try:
        fill, ink = TERMS[term_class(int(value))]
    except (TypeError, ValueError):
        return ""
    return f"background-color: {fill}; color: {ink}"


def said(value: Any) -> str:
    """Any object as text that is safe in a page.

    Examples
    --------
    >>> said(["<b>"])
    '[&#x27;&lt;b&gt;&#x27;]'
    """
    text = "–" if value is None else repr(value)
    return escape(text if len(text) <= CHARS_AT_MOST else text[: CHARS_AT_MOST - 1] + "…")


CELLS: Final[dict[str, Callable[[Any], str]]] = {
    "state": of_state,
    "status": of_state,
    "outcome": of_state,
    "term": of_term,
}


def styled(frames: Any, table: str) -> Styler:
    """One table of `frames`, in colour.

    Parameters
    ----------
    frames : ClusterFrames or RunFrames
        Whose.
    table : str
        The name of its method.
    """
    names = [name for name in dir(type(frames)) if not name.startswith("_")]
    if table not in names:
        raise InvalidConfig(f"there is no table {table!r} here", field="table")
    frame: pd.DataFrame = getattr(frames, table)()
    shown = frame.head(ROWS_AT_MOST)
    style = shown.style.format(precision=3, na_rep="–", escape="html").hide(axis="index")
    anything: list[Any] = [name for name in shown.columns if shown[name].dtype == "object"]
    # What is no string the Styler does not escape.
    style = style.format(said, subset=anything) if anything else style
    for column, look in CELLS.items():
        if column in shown.columns:
            style = style.map(look, subset=[column])
    for column in BARS:
        if column in shown.columns and bool((shown[column] > 0).any()):
            style = style.bar(subset=[column], color="#8fb0d8", vmin=0)
    left = len(frame) - len(shown)
    return style.set_caption(table + (f": the first {len(shown):,} rows of {len(frame):,}" if left else ""))
