"""Pieces of HTML: escaped, readable without scripts, in both themes.

Law: everything that came from a user is escaped here and nowhere else, so nothing else may build markup
from text.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

STYLE = (
    "<style>"
    ".agentflow{font-family:var(--jp-content-font-family,system-ui,sans-serif);font-size:13px;"
    "color:var(--jp-content-font-color1,inherit);line-height:1.45;max-width:960px}"
    ".agentflow h4{margin:0 0 2px;font-size:14px;font-weight:600}"
    ".agentflow .sub{color:var(--jp-content-font-color2,inherit);margin:0 0 6px}"
    ".agentflow table{border-collapse:collapse;margin:4px 0 8px;font-variant-numeric:tabular-nums}"
    ".agentflow caption{text-align:left;font-variant:small-caps;color:var(--jp-content-font-color2,inherit)}"
    ".agentflow th,.agentflow td{text-align:left;padding:2px 12px 2px 0;border:0;"
    "border-bottom:1px solid var(--jp-border-color2,#8884);background:none}"
    ".agentflow th{font-weight:600}"
    ".agentflow summary{cursor:pointer;color:var(--jp-content-font-color2,inherit)}"
    ".agentflow img{max-width:100%;height:auto;display:block;margin:4px 0}"
    # An SVG in an <img> follows the colour scheme of the image element, not of the page it cannot see:
    # so the notebook's theme, which is no colour scheme either, is handed on here.
    "[data-jp-theme-light='true'] .agentflow img,.vscode-light .agentflow img{color-scheme:light}"
    "[data-jp-theme-light='false'] .agentflow img,.vscode-dark .agentflow img{color-scheme:dark}"
    "</style>"
)

_UNPRINTABLE: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
"""What XML forbids, lone surrogates, and marks that turn the direction of the text around them."""


def clean(value: Any) -> str:
    """Text without what would break a document or hide what it says.

    Examples
    --------
    >>> clean("a" + chr(0) + "b")
    'a�b'
    """
    return _UNPRINTABLE.sub("�", str(value))


def escape(value: Any) -> str:
    """Text as HTML text, and as XML text.

    Examples
    --------
    >>> escape("<script>")
    '&lt;script&gt;'
    """
    return html.escape(clean(value))


def card(title: str, subtitle: str, *parts: str) -> str:
    """A titled block."""
    head = f"<h4>{escape(title)}</h4><p class='sub'>{escape(subtitle)}</p>"
    return f"{STYLE}<div class='agentflow'>{head}{''.join(parts)}</div>"


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], limit: int = 20) -> str:
    """A table that a screen reader can read; past `limit` rows it says how many more there are."""
    head = "".join(f"<th scope='col'>{escape(column)}</th>" for column in columns)
    lines: list[str] = []
    left = 0
    for row in rows:
        if len(lines) < limit:
            lines.append(f"<tr>{''.join(f'<td>{escape(_shown(cell))}</td>' for cell in row)}</tr>")
        else:
            left += 1
    if left:
        lines.append(f"<tr><td colspan='{len(columns)}'>and {left:,} more</td></tr>")
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def folded(summary: str, *parts: str) -> str:
    """What opens on a click; without scripts too."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(parts)}</details>"


def data_uri(svg: str) -> str:
    """An SVG as an address that holds all of it."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode('utf-8', 'replace')).decode()}"


def image(svg: str, description: str) -> str:
    """An SVG as an image: it survives an untrusted notebook, where inline SVG does not."""
    return f"<img alt='{escape(description)}' src='{data_uri(svg)}'>"


def _shown(cell: Any) -> Any:
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:.3g}"
    text = clean(cell)
    return text if len(text) <= 200 else text[:199] + "…"
