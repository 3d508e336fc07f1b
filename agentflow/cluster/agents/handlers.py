"""Which function handles which message.

Law: one function handles a message: the newest one registered for a subject that matches, else the one for
its type, else the one for everything. Registering again for the same word replaces, so that a notebook
cell can be run again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from agentflow.core.agents.messages import AgentMessage, MessageType
from agentflow.core.agents.subjects import as_pattern, matches

__all__ = ["Handler", "Handlers", "as_topic"]

Handler = Callable[[AgentMessage], Any]

_TYPES: Final = frozenset(MessageType)


def as_topic(word: Any) -> str:
    """Check a message type or a pattern of subjects; both are plain strings from here on.

    Examples
    --------
    >>> as_topic(MessageType.HEARTBEAT), as_topic("sensors.*")
    ('heartbeat', 'sensors.*')
    """
    return str(MessageType(word)) if isinstance(word, str) and word in _TYPES else as_pattern(word)


class Handlers:
    """An agent's handlers."""

    def __init__(self) -> None:
        self._by_type: dict[str, tuple[Handler, bool]] = {}
        self._by_pattern: dict[str, tuple[Handler, bool]] = {}
        self._default: tuple[Handler, bool] | None = None

    def add(self, fn: Handler, topics: tuple[str, ...]) -> tuple[str, ...]:
        """Register a function; return the patterns of subjects among its topics."""
        entry = (fn, not _is_async(fn))
        if not topics:
            self._default = entry
        patterns = []
        for topic in topics:
            if topic in _TYPES:
                self._by_type[topic] = entry
            else:
                patterns.append(topic)
                others = {key: value for key, value in self._by_pattern.items() if key != topic}
                self._by_pattern = {topic: entry, **others}
        return tuple(patterns)

    def find(self, message: AgentMessage) -> tuple[Handler, bool] | None:
        """Return the function for a message and whether it is a plain one."""
        if message.subject:
            for pattern, entry in self._by_pattern.items():
                if matches(pattern, message.subject):
                    return entry
        return self._by_type.get(message.msg_type, self._default)

    def topics(self) -> tuple[str, ...]:
        """Return every word for which there is a handler."""
        return (*self._by_pattern, *self._by_type, *(("everything else",) if self._default else ()))


def _is_async(fn: Any) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004
