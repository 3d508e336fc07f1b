"""What the runtime needs of whatever carries messages between nodes.

Law: a transport stamps the sender itself and delivers what it was given, or says why it did not; it
never answers for a node.
"""

from __future__ import annotations

import random
from typing import Any, Protocol, TypeAlias

__all__ = ["Codec", "Plan", "Wires"]

Plan: TypeAlias = tuple[tuple[float, ...], str]
"""When the copies of a message arrive, in seconds from now (none: it is lost), and why it is lost."""


class Wires(Protocol):
    """A model of the wires between nodes that share a host."""

    version: int
    """Grows with every change of the model, so that the host can record it."""

    severed: bool
    """Whether `blocked` may return a reason at all."""

    def plan(self, source: str, destination: str, now: float, rng: random.Random) -> Plan:
        """Decide what becomes of a message sent now."""
        ...

    def blocked(self, source: str, destination: str) -> str:
        """Why nothing passes from `source` to `destination` at present; empty if it does."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return the settings that differ from perfect wires, as plain data."""
        ...


class Codec(Protocol):
    """What turns messages into bytes and back."""

    def encode(self, message: Any) -> bytes:
        """Turn a message into bytes."""
        ...

    def decode(self, data: bytes) -> Any:
        """Turn bytes into a message."""
        ...
