"""Where displays go, and what becomes of them: the live view, then the still.

Law: what is shown is frozen once its subject has ended, and at the latest when the kernel ends in order; the
saved notebook then holds a picture and needs no kernel. Whoever executes a notebook without anybody looking on
gets stills from the beginning, brought up to date at the end of each cell.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import uuid
import weakref
from typing import TYPE_CHECKING, Any, Final

from agentflow.errors import AgentflowError
from agentflow.views import Viewable

if TYPE_CHECKING:
    from agentflow.notebook.live.widget import LiveView

MOST: Final = 400
"""Displays that are kept up to date; of more, the oldest are let go."""

MODE: Final = "AGENTFLOW_VIEWS"
"""An environment variable: `live` or `still` where the guess is wrong."""


class Display:
    """One place in a notebook where an object is shown."""

    def __init__(self, subject: Any, view: LiveView | None) -> None:
        self.id = f"agentflow-{uuid.uuid4().hex}"
        self._subject = weakref.ref(subject)
        self.view = view
        self._said = ""

    @property
    def subject(self) -> Any:
        """What is shown; None once nobody holds it."""
        return self._subject()

    @property
    def over(self) -> bool:
        """Whether what it shows will not change any more."""
        subject = self.subject
        return subject is None or bool(getattr(subject, "closed", False) or getattr(subject, "done", False))

    def publish(self, bundle: dict[str, Any], *, update: bool) -> None:
        """Send a bundle to the front end; nothing is sent twice."""
        from IPython.display import publish_display_data

        said = bundle["text/plain"] + bundle.get("text/html", "")
        if update and self.view is None and said == self._said:
            return
        self._said = said
        publish_display_data(bundle, transient={"display_id": self.id}, update=update)  # type: ignore[no-untyped-call]

    def freeze(self) -> None:
        """Put the still into its place."""
        if (subject := self.subject) is not None:
            self.publish(bundle_of(subject), update=True)


_lock = threading.Lock()
_displays: list[Display] = []
_hooked: list[Any] = []


def bundle_of(subject: Any) -> dict[str, Any]:
    """The still of an object, in every form."""
    return {"text/plain": "gone"} if subject is None else dict(Viewable._repr_mimebundle_(subject))


def shell() -> Any:
    """IPython's shell where it is a notebook's kernel; else None."""
    module = sys.modules.get("IPython")
    found = module.get_ipython() if module is not None else None
    return found if getattr(found, "kernel", None) is not None else None


def attended() -> bool:
    """Whether somebody is likely to look on: a front end that can ask a person for input."""
    said = os.environ.get(MODE)
    if said in ("live", "still"):
        return said == "live"
    if os.environ.get("SERVER_SOFTWARE", "").startswith("voila"):
        return True
    kernel = getattr(shell(), "kernel", None)
    return bool(getattr(kernel, "_allow_stdin", False))


def show(subject: Any, view: LiveView | None) -> bool:
    """Show an object in the notebook; False where there is none."""
    if subject is None or shell() is None:
        return False
    _hook()
    display = Display(subject, view if attended() else None)
    bundle = bundle_of(subject) if display.view is None else display.view.bundle()
    with _lock:
        _displays.append(display)
        del _displays[:-MOST]
    display.publish(bundle, update=False)
    return True


def freeze(subject: Any) -> None:
    """Freeze every display of an object, for good."""
    with _lock:
        mine = [each for each in _displays if each.subject is subject]
        _displays[:] = [each for each in _displays if each.subject is not None and each not in mine]
    for display in mine:
        # The front end may be gone, or the picture fail: neither is the cluster's business.
        with contextlib.suppress(Exception):
            display.freeze()


def freeze_all() -> None:
    """At the kernel's end: leave pictures behind."""
    with _lock:
        left, _displays[:] = list(_displays), []
    for display in left:
        with contextlib.suppress(Exception):
            display.freeze()


def _hook() -> None:
    """Be told of the ends of cells and of the kernel's."""
    found = shell()
    if found in _hooked:
        return
    _hooked.append(found)
    found.events.register("post_run_cell", _after_cell)
    atexit.register(freeze_all)


def _after_cell(_: Any) -> None:
    """Bring stills up to date before the cell counts as done: who executes notebooks reads no further."""
    with _lock:
        stills = [each for each in _displays if each.view is None]
    for display in stills:
        with contextlib.suppress(AgentflowError):
            display.freeze()
        if display.over:
            with _lock, contextlib.suppress(ValueError):
                _displays.remove(display)
