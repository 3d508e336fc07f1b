"""How an object finds its pictures without knowing who draws them.

Law: a display never raises and never imports more than it needs. What is shown when a picture fails is
the text, with a line that says why.

`PROVIDER` is the one upward reference of the package. It is a name, imported on the first display, so
that a cluster in a script never loads the notebook.
"""

from __future__ import annotations

import contextlib
import importlib
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from agentflow.errors import InvalidConfig

PROVIDER: Final = "agentflow.notebook"

View = Callable[[Any], Any]
_V = TypeVar("_V", bound=View)
_registry: dict[tuple[str, type], View] = {}
_farewells: weakref.WeakKeyDictionary[Any, list[Callable[[], None]]] = weakref.WeakKeyDictionary()


def view(kind: str, subject: type) -> Callable[[_V], _V]:
    """Register a function as the view of this kind for objects of a type and its subclasses.

    Parameters
    ----------
    kind : str
        `text` and `html` are what every display carries; `display` shows the live view itself and says whether
        it did; `widget` gives it to be put into a layout. Others are asked for by name.
    subject : type
        What it shows.

    Examples
    --------
    >>> class Thing(Viewable): ...
    >>> @view("html", Thing)
    ... def thing_html(thing):
    ...     return "<b>a thing</b>"
    >>> Thing()._repr_mimebundle_()["text/html"]
    '<b>a thing</b>'
    """

    def register(function: _V) -> _V:
        _registry[kind, subject] = function
        return function

    return register


def find(kind: str, subject: type) -> View | None:
    """Give the view of this kind for a type, importing those who draw if need be."""
    importlib.import_module(PROVIDER)
    for base in subject.__mro__:
        if (found := _registry.get((kind, base))) is not None:
            return found
    return None


def at_end(subject: Any, fn: Callable[[], None]) -> None:
    """Have `fn` called when the object says that it has ended."""
    _farewells.setdefault(subject, []).append(fn)


def ended(subject: Any) -> None:
    """Tell those who show the object that nothing of it will change any more."""
    for fn in _farewells.pop(subject, ()):
        # A view's failure is not the object's.
        with contextlib.suppress(Exception):
            fn()


class Viewable:
    """Mixin of the objects that people leave at the end of a cell. It costs nothing until displayed."""

    __slots__ = ()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Mapping[str, Any]:
        """Give every form in which a front end may show the object."""
        bundle: dict[str, Any] = {}
        failures = []
        for kind, mime in (("text", "text/plain"), ("html", "text/html")):
            try:
                draw = find(kind, type(self))
                if draw is not None:
                    bundle[mime] = draw(self)
            except Exception as error:
                # A picture must never break the experiment: the text says what failed.
                failures.append(f"({kind} view failed: {type(error).__name__}: {error})")
        text = bundle.get("text/plain") or repr(self)
        bundle["text/plain"] = "\n".join([text, *failures])
        return bundle

    def __rich__(self) -> Any:
        """Give what rich prints in a terminal; the text where there is nothing better."""
        with contextlib.suppress(Exception):
            draw = find("rich", type(self))
            if draw is not None:
                return draw(self)
        # A name in brackets is a name and not rich's markup, so the text is wrapped.
        return importlib.import_module("rich.text").Text(self._repr_mimebundle_()["text/plain"])

    def _ipython_display_(self) -> None:
        """Show the live view where a notebook can hold one; raising sends IPython on to the other forms."""
        shown = False
        with contextlib.suppress(Exception):
            show = find("display", type(self))
            shown = show is not None and show(self)
        if not shown:
            raise NotImplementedError


class Watchable(Viewable):
    """Mixin of what has a live view."""

    __slots__ = ()

    def watch(self, part: str = "") -> Any:
        """Give the live view as a widget, to be shown or put into a layout of ipywidgets.

        Parameters
        ----------
        part : str
            Of a cluster or simulation, one part alone: `queue`, `workers`, `locks`, `agents` or `messages`.
        """
        make = find(f"widget {part}".strip(), type(self))
        if make is None:
            raise InvalidConfig(f"{type(self).__name__} has no live view {part!r}", field="part")
        return make(self)
