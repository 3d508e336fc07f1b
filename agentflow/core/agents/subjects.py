"""Subjects and the patterns that match them, as in NATS.

Law: a subject is tokens between dots. In a pattern the token `*` matches any one token, and `>`, only at
the end, matches one or more. A `*` or `>` beside other characters is an ordinary character.

The index is a trie that is never changed: adding to it makes a new one that shares all other branches, so
that any thread may read the one it has (nats-server keeps the same tree behind a lock, `sublist.go`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Final

import msgspec

from agentflow.errors import InvalidConfig
from agentflow.ids import NodeId

__all__ = ["EMPTY", "Branch", "as_pattern", "as_subject", "matches"]

_BLANK: Final = frozenset(" \t\r\n\f\v\0")


def as_subject(value: str) -> str:
    """Check a subject to publish on.

    Examples
    --------
    >>> as_subject("sensors.room1")
    'sensors.room1'
    >>> as_subject("sensors.*")
    Traceback (most recent call last):
        ...
    agentflow.errors.InvalidConfig: 'sensors.*' has a wildcard; one publishes on a subject, and subscribes to a pattern
    """
    tokens = _tokens(value, "a subject")
    if "*" in tokens or ">" in tokens:
        raise InvalidConfig(
            f"{value!r} has a wildcard; one publishes on a subject, and subscribes to a pattern",
            field="subject",
        )
    return value


def as_pattern(value: str) -> str:
    """Check a pattern to subscribe to.

    Examples
    --------
    >>> as_pattern("sensors.>")
    'sensors.>'
    """
    tokens = _tokens(value, "a pattern")
    if ">" in tokens[:-1]:
        raise InvalidConfig(
            f"{value!r}: '>' stands for the rest of a subject, so it comes last", field="subject"
        )
    return value


def _tokens(value: str, what: str) -> list[str]:
    if not isinstance(value, str) or not value:
        raise InvalidConfig(f"{what} is a string with something in it, not {value!r}", field="subject")
    tokens = value.split(".")
    if "" in tokens or not _BLANK.isdisjoint(value):
        raise InvalidConfig(
            f"{value!r} is not {what}: words between dots, none empty and none with blanks", field="subject"
        )
    return tokens


def matches(pattern: str, subject: str) -> bool:
    """Whether a pattern matches a subject; both have been checked.

    Examples
    --------
    >>> matches("sensors.*", "sensors.room1"), matches("sensors.*", "sensors.room1.door")
    (True, False)
    >>> matches("sensors.>", "sensors.room1.door"), matches("sensors.>", "sensors")
    (True, False)
    """
    return _matches(pattern, subject)


@functools.lru_cache(4096)
def _matches(pattern: str, subject: str) -> bool:
    wanted, found = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(found) <= len(wanted):
            return False
        found = found[: len(wanted)]
    return len(wanted) == len(found) and all(
        token in ("*", word) for token, word in zip(wanted, found, strict=True)
    )


class Branch(msgspec.Struct, frozen=True):
    """A node of the tree: who wants what ends here, who wants all below, and the branches.

    Examples
    --------
    >>> tree = EMPTY.add("sensors.*", "a").add("sensors.>", "b")
    >>> sorted(tree.find("sensors.room1")), sorted(tree.find("sensors.room1.door"))
    (['a', 'b'], ['b'])
    """

    here: tuple[NodeId, ...] = ()
    below: tuple[NodeId, ...] = ()
    branches: dict[str, Branch] = {}

    def add(self, pattern: str, who: NodeId) -> Branch:
        """Return the tree with one more subscription; a second one of the same is the first."""
        return self._set(pattern.split("."), 0, who, present=True)

    def remove(self, pattern: str, who: NodeId) -> Branch:
        """Return the tree without a subscription."""
        return self._set(pattern.split("."), 0, who, present=False)

    def find(self, subject: str) -> set[NodeId]:
        """Return who wants a message on this subject, each once."""
        found: set[NodeId] = set()
        tokens = subject.split(".")
        for branch in self._walk(tokens, 0):
            found.update(branch)
        return found

    def _walk(self, tokens: list[str], depth: int) -> Iterator[tuple[NodeId, ...]]:
        if depth == len(tokens):
            yield self.here
            return
        yield self.below
        for token in (tokens[depth], "*"):
            branch = self.branches.get(token)
            if branch is not None:
                yield from branch._walk(tokens, depth + 1)

    def _set(self, tokens: list[str], depth: int, who: NodeId, *, present: bool) -> Branch:
        if depth == len(tokens):
            return msgspec.structs.replace(self, here=_with(self.here, who, present))
        token = tokens[depth]
        if token == ">":
            return msgspec.structs.replace(self, below=_with(self.below, who, present))
        branches = dict(self.branches)
        grown = branches.get(token, EMPTY)._set(tokens, depth + 1, who, present=present)
        if grown == EMPTY:
            branches.pop(token, None)
        else:
            branches[token] = grown
        return msgspec.structs.replace(self, branches=branches)


def _with(names: tuple[NodeId, ...], who: NodeId, present: bool) -> tuple[NodeId, ...]:
    others = tuple(name for name in names if name != who)
    return (*others, who) if present else others


EMPTY: Final = Branch()
