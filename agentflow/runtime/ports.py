"""What the host asks of the world: a driver, a disk, a launcher; each has a fake in the package.

Law: whatever these report comes back to the host as an event of the node's incarnation that asked; what
an incarnation that is gone asked for is dropped.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

from agentflow.core.machine import Machine
from agentflow.core.record import Record
from agentflow.errors import Refused
from agentflow.ids import AttemptId, NodeId

__all__ = ["Disk", "Driver", "Factory", "Launcher", "NoDriver", "StableDisk", "load", "save"]

Factory: TypeAlias = Callable[[NodeId, Any, int, float], Machine]
"""Makes a node's machine from (node id, what its disk holds or None, incarnation from 1, now)."""


class Disk(Protocol):
    """What a node keeps its writes on; it outlives the node's crashes."""

    @property
    def blocking(self) -> bool:
        """Whether `save` waits for a device, and so must not run on the loop."""
        ...

    def load(self) -> Any:
        """Return everything stored."""
        ...

    def save(self, write: Any) -> None:
        """Make one write durable, or raise."""
        ...


class Launcher(Protocol):
    """What runs the work of an `Execute`."""

    def launch(
        self, node_id: NodeId, incarnation: int, attempt: AttemptId, work: Any, done: Callable[[Any], None]
    ) -> None:
        """Start the work; call `done(outcome)` once, from any thread."""
        ...

    def abandon(self, node_id: NodeId, incarnation: int, attempt: AttemptId) -> None:
        """Stop the work if that can be done; `done` may still be called."""
        ...


class Driver(Protocol):
    """What moves time for a host."""

    rng: random.Random
    """Where the wires' chance comes from."""

    @property
    def now(self) -> float:
        """Seconds since the run began."""
        ...

    def carry(self, message: Record, delay: float) -> None:
        """Call `host.deliver(message)` after `delay` seconds."""
        ...

    def load(self, node_id: NodeId, incarnation: int, disk: Disk) -> None:
        """Call `host.loaded(node_id, incarnation, load(disk))` when all writes under way have ended."""
        ...

    def save(self, node_id: NodeId, incarnation: int, number: int, disk: Disk, write: Any) -> None:
        """Call `host.write` with the same arguments when its turn comes; writes of one node keep their order."""
        ...

    def wake(self) -> None:
        """Something was posted: a turn is due."""
        ...

    def pending(self) -> list[tuple[float, Record]]:
        """List the messages on the wires with their times of arrival, the next one first."""
        ...


class NoDriver:
    """Stands in until a driver takes the host; nodes without a disk may be added before that."""

    rng = random.Random(0)
    now = 0.0

    def pending(self) -> list[tuple[float, Record]]:
        """Nothing is under way."""
        return []

    def carry(self, message: Record, delay: float) -> None:
        """Refuse."""
        raise Refused("the host has no driver yet; give it to one before the first turn")

    def load(self, node_id: NodeId, incarnation: int, disk: Disk) -> None:
        """Refuse."""
        raise Refused("the host has no driver yet; give it to one before adding nodes with a disk")

    def save(self, node_id: NodeId, incarnation: int, number: int, disk: Disk, write: Any) -> None:
        """Refuse."""
        raise Refused("the host has no driver yet; give it to one before the first turn")

    def wake(self) -> None:
        """Wait for the driver to look."""


class _Stable(Protocol):
    @property
    def blocking(self) -> bool: ...

    def load_stable(self) -> dict[str, Any]: ...

    def save_stable(self, values: Mapping[str, Any]) -> None: ...


class StableDisk:
    """The part of a disk that keeps the `stable` values of a node with callbacks.

    Parameters
    ----------
    disk : agentflow.storage.Disk
        The disk; it is used through `load_stable` and `save_stable`.
    """

    def __init__(self, disk: _Stable) -> None:
        self.disk = disk

    @property
    def blocking(self) -> bool:
        """Whether `save` waits for a device."""
        return self.disk.blocking

    def load(self) -> dict[str, Any]:
        """Return the values kept."""
        return self.disk.load_stable()

    def save(self, write: Mapping[str, Any]) -> None:
        """Keep these values in place of the former."""
        self.disk.save_stable(write)


def load(disk: Disk) -> Any:
    """Read a disk; an exception is what was read."""
    try:
        return disk.load()
    except Exception as error:
        return error


def save(disk: Disk, write: Any) -> str:
    """Write to a disk and return why that failed; empty if it did not."""
    try:
        disk.save(write)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
