"""What a view shows and can be told, without the widget that carries it.

Law: a scene holds its subject weakly, so looking at something keeps nothing alive. Its `snapshot` is plain data
and everything a view needs to be drawn anew; `fixed` is what seldom changes.
"""

from __future__ import annotations

import sys
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

import msgspec

from agentflow.cluster.facade import Facade
from agentflow.cluster.status import parts_of
from agentflow.errors import InvalidConfig
from agentflow.notebook.live.tail import Tail

LONGEST: Final = 200
"""Characters of a name that came from a user."""

NAME_SECS: Final = 2.0
"""How often the notebook's variables are looked through."""


class Deed(msgspec.Struct, frozen=True):
    """What somebody asked for with the pointer: the line of Python that does it, and the doing.

    What `call` returns is sent to the view that asked, if it is a dictionary.
    """

    line: str
    call: Callable[[], Any]


class Frame:
    """One look at a cluster, shared by all scenes that show something of it."""

    def __init__(self, home: Facade, tail: Tail) -> None:
        self.home = home
        self.tail = tail
        self._parts: dict[str, Any] | None = None

    @property
    def parts(self) -> dict[str, Any]:
        """What must agree with one another, read in one turn."""
        if self._parts is None:
            self._parts = self.home.read(lambda: parts_of(self.home))
        return self._parts


class Scene:
    """One kind of view of one object."""

    module: ClassVar[str]
    """The file of `static` that draws it."""

    label: ClassVar[str] = "agentflow"

    share: ClassVar[float] = 0.03
    """Of a core, that it may take; beyond it is looked at less often."""

    variable: ClassVar[str] = "cluster"
    """What the subject is called where no variable of the notebook holds it."""

    def __init__(self, subject: Any) -> None:
        self._subject = weakref.ref(subject)
        self._name = ("", -NAME_SECS)

    @property
    def known_as(self) -> str:
        """The variable that holds the subject, so that a line of Python can be run as it stands."""
        name, found_at = self._name
        now = time.monotonic()
        if now - found_at >= NAME_SECS:
            name = name_of(self.subject, self.variable)
            self._name = (name, now)
        return name

    @property
    def subject(self) -> Any:
        """What is shown; None once nobody else holds it."""
        return self._subject()

    @property
    def home(self) -> Any:
        """The cluster that the subject belongs to."""
        return self.subject

    @property
    def ended(self) -> bool:
        """Whether nothing of it will change any more."""
        subject = self.subject
        return subject is None or bool(getattr(subject, "closed", False))

    def fixed(self, frame: Frame) -> dict[str, Any] | None:
        """What seldom changes, where it has changed since the last call; else None."""
        return None

    def refix(self) -> None:
        """Have `fixed` give everything at the next call."""

    def snapshot(self, frame: Frame) -> dict[str, Any]:
        """Everything else, at one instant."""
        raise NotImplementedError

    def deed(self, name: str, given: Mapping[str, Any]) -> Deed:
        """What a command of the view stands for; refuses what it does not know."""
        raise InvalidConfig(f"this view knows no {name!r}", field="do")

    def rest(self) -> list[dict[str, Any]]:
        """What snapshots only add to, from its beginning and in pieces, for a view that came later."""
        return []


def name_of(subject: Any, default: str) -> str:
    """The variable under which a person knows an object."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    for name, value in list(getattr(shell, "user_ns", {}).items()):
        if value is subject and not name.startswith("_"):
            return str(name)
    return default


def short(text: str) -> str:
    """A user's name, no longer than can be shown."""
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def word(given: Mapping[str, Any], key: str) -> str:
    """A string among a command's arguments."""
    value = given.get(key)
    if not isinstance(value, str):
        raise InvalidConfig(f"{key} is a string, not {value!r}", field=key)
    return value


def words(given: Mapping[str, Any], key: str) -> list[str]:
    """A list of strings among a command's arguments."""
    value = given.get(key)
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise InvalidConfig(f"{key} is a list of strings, not {value!r}", field=key)
    return value


def number(given: Mapping[str, Any], key: str, least: float, most: float) -> float:
    """A number among a command's arguments."""
    value = given.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InvalidConfig(f"{key} is a number from {least:g} to {most:g}, not {value!r}", field=key)
    return value
