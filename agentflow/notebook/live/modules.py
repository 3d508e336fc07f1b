"""The front end's files, as one ES module and one style sheet a view.

Law: what is sent to a browser is what lies in `static`, and it names no address. Modules import one another by
their file names, as in any browser; a widget's module has no address to import from, so here the imported ones
are put in front of it.
"""

from __future__ import annotations

import functools
import re
from importlib import resources
from typing import Final

from agentflow.notebook.pictures.theme import variables

_IMPORT: Final = re.compile(r'^import \{[^}]*\} from "\./([\w-]+\.js)";\n', re.MULTILINE)
_EXPORT: Final = re.compile(r"^export (?=function|const|class)", re.MULTILINE)


def text_of(name: str) -> str:
    """A file of `static`."""
    return (resources.files("agentflow.notebook") / "static" / name).read_text("utf-8")


@functools.cache
def module(name: str) -> str:
    """A module with all it imports, each once, before those who need it.

    Examples
    --------
    >>> "import {" in text_of("cluster.js"), "import {" in module("cluster.js")
    (True, False)
    """
    found: dict[str, str] = {}

    def add(each: str) -> None:
        if each not in found:
            source = text_of(each)
            for needed in _IMPORT.findall(source):
                add(needed)
            found[each] = _EXPORT.sub("", _IMPORT.sub("", source))

    add(name)
    return "\n".join(found.values())


@functools.cache
def style() -> str:
    """The style sheet: the colours of the pictures as variables, for both themes, and the rest."""
    dark = variables(dark=True)
    return "\n".join(
        [
            f".af-live{{{variables(dark=False)}}}",
            f"[data-jp-theme-light='false'] .af-live,.vscode-dark .af-live{{{dark}}}",
            "@media (prefers-color-scheme:dark){body:not([data-jp-theme-light]):not(.vscode-light) "
            f".af-live{{{dark}}}}}",
            text_of("live.css"),
        ]
    )
