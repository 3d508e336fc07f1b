"""A disk that breaks its promises on request, over one that keeps them.

Law: without a fault it is the disk below it. Every fault is chosen by a plan, by hand or by a seeded
generator, so that a run that met it can be repeated.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, TypeAlias

import msgspec

from agentflow.core.raft.messages import Stored, Write
from agentflow.errors import InvalidConfig, InvariantViolated
from agentflow.storage.base import Disk, damaged, failed, pack, unpack
from agentflow.storage.memory import MemoryDisk


class Fault(StrEnum):
    """What can happen to one write."""

    FAIL = "fail"
    """It raises and nothing is kept; the next write may work."""
    FULL = "full"
    """It raises and nothing is kept, nor by any later write until `make_room`."""
    TORN = "torn"
    """Power is lost within it: it and all later ones raise until `crash`, which shows what is left of it."""
    LOST = "lost"
    """It is acknowledged but not synced: the next honest write brings it to the disk, a `crash` loses it."""
    STALL = "stall"
    """It takes long; `stalled_s` says how long."""


class DiskFaults(msgspec.Struct, frozen=True, kw_only=True):
    """How likely each fault is to meet a write; `stall_s` bounds the length of a stall."""

    fail: float = 0.0
    full: float = 0.0
    torn: float = 0.0
    lost: float = 0.0
    stall: float = 0.0
    stall_s: tuple[float, float] = (0.05, 0.5)


_Op: TypeAlias = Write | dict[str, Any]


class FaultyDisk:
    """A disk with faults.

    Parameters
    ----------
    inner : Disk
        Holds what is really durable.
    plan : mapping of int to Fault, optional
        Which fault meets which write, counted from 1.
    chances : DiskFaults, optional
        How likely the faults are for writes that the plan does not name.
    rng : random.Random, optional
        Where chance comes from; required with `chances`.
    atomic : bool
        Whether a torn write leaves all or nothing, as a sound disk does. Otherwise part of it may stay,
        and `load` raises where that can be seen.
    wait : callable, optional
        Called with the seconds of a stall, to make it a real one; a virtual host reads `stalled_s`.

    Examples
    --------
    >>> from agentflow.core.raft.messages import HardState
    >>> disk = FaultyDisk(MemoryDisk(), plan={2: Fault.LOST})
    >>> for term in (1, 2):
    ...     disk.save(Write(hard_state=HardState(term=term)))
    >>> disk.load().hard_state.term
    2
    >>> disk.crash()
    >>> disk.load().hard_state.term
    1
    """

    def __init__(
        self,
        inner: Disk,
        *,
        plan: Mapping[int, Fault] | None = None,
        chances: DiskFaults | None = None,
        rng: random.Random | None = None,
        atomic: bool = True,
        wait: Callable[[float], None] | None = None,
    ) -> None:
        if chances is not None and rng is None:
            raise InvalidConfig(
                "chances need rng=: a seeded random.Random, or the run cannot be repeated", field="rng"
            )
        self.inner = inner
        self.blocking = inner.blocking
        self.plan = dict(plan or {})
        self.chances = chances
        self.atomic = atomic
        self.stalled_s = 0.0
        """Seconds that the last write took beyond its usual time."""
        self.writes = 0
        """Writes tried so far."""
        self.landed: dict[Fault, int] = {}
        """How often each fault took place."""
        self._rng = rng or random.Random(0)
        self._wait = wait
        self._is_full = False
        self._torn: _Op | None = None
        self._unsynced: list[_Op] = []
        self._damage = ""

    def __repr__(self) -> str:
        return f"<FaultyDisk over {self.inner!r}>"

    def load(self) -> Stored:
        """Return everything stored, what is not synced included."""
        self._check_readable()
        return self._view().load()

    def save(self, write: Write) -> None:
        """Make one write durable, or meet a fault."""
        self._write(write)

    def load_stable(self) -> dict[str, Any]:
        """Return the values kept last."""
        self._check_readable()
        return self._view().load_stable()

    def save_stable(self, values: Mapping[str, Any]) -> None:
        """Keep these values, or meet a fault."""
        self._write(unpack(pack(values)))

    def close(self) -> None:
        """Close the disk below."""
        self.inner.close()

    # --- what a test or a nemesis does ----------------------------------------------------------------

    def inject(self, fault: Fault) -> None:
        """Let the next write meet this fault."""
        self.plan[self.writes + 1] = fault

    def make_room(self) -> None:
        """End a `FULL`."""
        self._is_full = False

    def crash(self) -> None:
        """Lose power: what was not synced is gone, and a torn write shows what is left of it."""
        torn, self._torn = self._torn, None
        lost, self._unsynced = self._unsynced, []
        if torn is None or lost:
            return
        if not self.atomic:
            part = self._part(torn)
            try:
                _apply(self.inner, part)
            except InvariantViolated as broken:
                self._damage = f"holds part of a torn write ({broken})"
        elif self._rng.random() < 0.5:
            _apply(self.inner, torn)

    def copy(self) -> FaultyDisk:
        """Return a disk of its own that will behave the same; the disk below must be a `MemoryDisk`."""
        assert isinstance(self.inner, MemoryDisk)
        rng = random.Random()
        rng.setstate(self._rng.getstate())
        twin = FaultyDisk(
            self.inner.copy(),
            plan=self.plan,
            chances=self.chances,
            rng=rng,
            atomic=self.atomic,
            wait=self._wait,
        )
        twin.stalled_s, twin.writes, twin.landed = self.stalled_s, self.writes, self.landed.copy()
        twin._is_full, twin._torn, twin._damage = self._is_full, self._torn, self._damage
        twin._unsynced = self._unsynced.copy()
        return twin

    # --- how --------------------------------------------------------------------------------------------

    def _write(self, op: _Op) -> None:
        self.writes += 1
        self.stalled_s = 0.0
        self._check_readable()
        if self._is_full:
            raise failed(self._name, "no space left on device")
        fault = self._next_fault()
        if fault is not None:
            self.landed[fault] = self.landed.get(fault, 0) + 1
        if fault is Fault.FAIL:
            raise failed(self._name, "input/output error")
        if fault is Fault.FULL:
            self._is_full = True
            raise failed(self._name, "no space left on device")
        if fault is Fault.TORN:
            self._torn = op
            raise failed(self._name, "power was lost within a write")
        if fault is Fault.LOST:
            # Tried on a copy, so that what would be refused is refused now and not when it is synced.
            _apply(self._cached(), op)
            self._unsynced.append(op)
            return
        if fault is Fault.STALL:
            low, high = (self.chances or DiskFaults()).stall_s
            self.stalled_s = self._rng.uniform(low, high)
            if self._wait is not None:
                self._wait(self.stalled_s)
        while self._unsynced:
            _apply(self.inner, self._unsynced.pop(0))
        _apply(self.inner, op)

    def _next_fault(self) -> Fault | None:
        planned = self.plan.get(self.writes)
        if planned is not None or self.chances is None:
            return planned
        point = self._rng.random()
        for fault in Fault:
            point -= getattr(self.chances, fault.value)
            if point < 0:
                return fault
        return None

    def _part(self, op: _Op) -> _Op:
        if isinstance(op, Write):
            kept = self._rng.randrange(len(op.entries)) if op.entries else 0
            return Write(hard_state=op.hard_state, entries=op.entries[:kept])
        kept = self._rng.randrange(len(op)) if op else 0
        return dict(list(op.items())[:kept])

    def _view(self) -> Disk:
        """Return the disk as a process sees it whose writes still sit in the system's cache."""
        return self._cached() if self._unsynced else self.inner

    def _cached(self) -> MemoryDisk:
        stored = self.inner.load()
        view = MemoryDisk(self._name)
        view.save(Write(stored.hard_state, stored.entries, stored.snapshot))
        view.save_stable(self.inner.load_stable())
        for op in self._unsynced:
            _apply(view, op)
        return view

    def _check_readable(self) -> None:
        if self._damage:
            raise damaged(self._name, self._damage)
        if self._torn is not None:
            raise failed(self._name, "power was lost")

    @property
    def _name(self) -> str:
        return str(getattr(self.inner, "path", None) or getattr(self.inner, "name", "disk"))


def _apply(disk: Disk, op: _Op) -> None:
    if isinstance(op, Write):
        disk.save(op)
    else:
        disk.save_stable(op)
