"""Faults as values, planned from a seed: what breaks, when, for how long.

Law: a plan is fixed by its seed and the names of the nodes, before the run begins; what a fault did is undone
when it ends, and only that. So a plan can be printed, cut down and played again.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from agentflow.errors import InvalidConfig
from agentflow.ids import NodeId

if TYPE_CHECKING:
    from agentflow.core.record import Record

__all__ = ["KINDS", "LEADER", "Fault", "Nemesis", "landed"]

LEADER: Final = "@leader"
"""Stands in a fault for whoever leads when it strikes."""

_AMOUNT: Final[dict[str, tuple[float, float]]] = {
    "crash": (0, 0),
    "partition": (0, 0),
    "one_way": (0, 0),
    "loss": (0.05, 0.6),
    "delay": (20, 400),
    "duplicate": (0.05, 0.5),
    "reorder": (0.05, 0.5),
    "pause": (0, 0),
    "skew": (-1, 1),
    "slow_disk": (5, 300),
    "fail_disk": (0, 3),
    "worker_crash": (0, 0),
}
KINDS: Final = tuple(_AMOUNT)
"""Every kind of fault there is."""


class Fault(msgspec.Struct, frozen=True):
    """One thing that breaks, and when it is mended.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    at : float
        When it strikes.
    seconds : float
        How long it lasts; infinite: until somebody mends it.
    nodes : tuple of str
        Whom it strikes. Of a `partition`, one of its sides; of a `one_way` cut, the sender and then those it
        cannot reach; for faults of the network none means all. `LEADER` stands for whoever leads then.
    amount : float
        `loss`, `duplicate`, `reorder`: a probability. `delay`, `slow_disk`: milliseconds. `skew`: how fast
        the clock runs. `fail_disk`: 0 a failing write, 1 a full disk, 2 power lost within a write.

    Examples
    --------
    >>> Fault("crash", at=3.0, seconds=2.0, nodes=("master-1",))
    Fault(kind='crash', at=3.0, seconds=2.0, nodes=('master-1',), amount=0.0)
    """

    kind: str
    at: float = 0.0
    seconds: float = math.inf
    nodes: tuple[NodeId, ...] = ()
    amount: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in _AMOUNT:
            raise InvalidConfig(
                f"there is no fault {self.kind!r}; take one of {', '.join(KINDS)}", field="kind"
            )
        if not 0 <= self.at < math.inf or not self.seconds >= 0:
            raise InvalidConfig(
                f"{self.kind} at {self.at!r} for {self.seconds!r} s is no time; give seconds from 0 up",
                field="at",
            )
        if self.kind in ("loss", "duplicate", "reorder") and not 0 <= self.amount <= 1:
            raise InvalidConfig(
                f"{self.kind} takes a probability from 0 to 1, not {self.amount!r}", field="amount"
            )
        if self.kind == "skew" and not 0 < self.amount < math.inf:
            raise InvalidConfig(
                f"skew takes how fast the clock runs, 1 for right, not {self.amount!r}", field="amount"
            )
        if not self.nodes and self.kind in _NEEDS_NODES:
            raise InvalidConfig(f"{self.kind} needs to know which nodes; give nodes=", field="nodes")


_NEEDS_NODES: Final = frozenset(KINDS) - {"loss", "delay", "duplicate", "reorder"}


class _Part(msgspec.Struct, frozen=True):
    """One stream of faults: kinds to choose from, how often, how long."""

    kinds: tuple[str, ...]
    every: tuple[float, float]
    seconds: tuple[float, float]


class Nemesis:
    """What breaks, how often and for how long; its plan comes from the seed of the run.

    Parameters
    ----------
    *kinds : str
        Kinds of fault to choose from; none, or `all`, for every kind.
    every : (float, float)
        Bounds of the seconds from one fault to the next.
    seconds : (float, float)
        Bounds of how long each lasts; faults may overlap.

    Examples
    --------
    >>> nemesis = Nemesis("crash", every=(1, 3)) | Nemesis("loss", "delay")
    >>> nemesis
    Nemesis('crash', every=(1, 3), seconds=(0.2, 4)) | Nemesis('loss', 'delay', every=(0.5, 2), seconds=(0.2, 4))
    >>> faults = nemesis.plan(seed=7, masters=["m1", "m2", "m3"], until=20)
    >>> faults == nemesis.plan(seed=7, masters=["m1", "m2", "m3"], until=20)
    True
    >>> sorted({fault.kind for fault in faults})
    ['crash', 'delay', 'loss']
    """

    def __init__(
        self,
        *kinds: str,
        every: tuple[float, float] = (0.5, 2),
        seconds: tuple[float, float] = (0.2, 4),
    ) -> None:
        if not kinds or "all" in kinds:
            kinds = KINDS
        for kind in kinds:
            if kind not in _AMOUNT:
                raise InvalidConfig(
                    f"there is no fault {kind!r}; take some of {', '.join(KINDS)}, or all", field="kinds"
                )
        self.parts: tuple[_Part, ...] = (
            _Part(tuple(dict.fromkeys(kinds)), _bounds("every", every), _bounds("seconds", seconds, 0.0)),
        )

    def __or__(self, other: Nemesis) -> Nemesis:
        both = Nemesis()
        both.parts = self.parts + other.parts
        return both

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Nemesis) and other.parts == self.parts

    def __hash__(self) -> int:
        return hash(self.parts)

    def __repr__(self) -> str:
        shown = []
        for part in self.parts:
            kinds = ["'all'"] if part.kinds == KINDS else [repr(kind) for kind in part.kinds]
            shown.append(f"Nemesis({', '.join(kinds)}, every={part.every}, seconds={part.seconds})")
        return " | ".join(shown)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds it chooses from."""
        return tuple(dict.fromkeys(kind for part in self.parts for kind in part.kinds))

    def plan(
        self,
        seed: int | str,
        masters: Sequence[NodeId],
        workers: Sequence[NodeId] = (),
        *,
        start: float = 0.0,
        until: float,
    ) -> list[Fault]:
        """Draw the faults of one run, in the order they strike.

        Parameters
        ----------
        seed : int or str
            Fixes every choice.
        masters, workers : sequence of str
            Whom to strike; workers are struck by `worker_crash` only, and parted from masters.
        start, until : float
            Nothing is broken before the one and after the other.
        """
        faults = []
        for number, part in enumerate(self.parts):
            rng = random.Random(f"{seed}/nemesis/{number}")
            kinds = [kind for kind in part.kinds if workers or kind != "worker_crash"]
            kinds = [kind for kind in kinds if len(masters) > 1 or kind not in ("partition", "one_way")]
            at = start + rng.uniform(*part.every)
            while at < until and kinds:
                seconds = min(rng.uniform(*part.seconds), until - at)
                faults.append(_draw(rng, rng.choice(kinds), at, seconds, list(masters), list(workers)))
                at += rng.uniform(*part.every)
        return sorted(faults, key=lambda fault: fault.at)


def _draw(
    rng: random.Random, kind: str, at: float, seconds: float, masters: list[NodeId], workers: list[NodeId]
) -> Fault:
    """Choose whom a fault strikes and how hard."""
    low, high = _AMOUNT[kind]
    amount = rng.uniform(low, high)
    nodes: Iterable[NodeId] = ()
    if kind == "worker_crash":
        nodes = [rng.choice(workers)]
    elif kind == "partition":
        side = rng.sample(masters, rng.randint(1, len(masters) - 1))
        # Half of the time workers find themselves on a side as well, else they reach both.
        nodes = side + (rng.sample(workers, rng.randint(0, len(workers))) if rng.random() < 0.5 else [])
        if rng.random() < 0.3:
            nodes = [LEADER, *nodes][: max(1, len(side))]
    elif kind == "one_way":
        source, *others = rng.sample(masters, len(masters))
        nodes = [source, *others[: rng.randint(1, len(others))]]
    elif kind == "crash" and rng.random() < 0.2:
        nodes = rng.sample(masters, rng.randint(1, len(masters)))
    elif kind in ("loss", "duplicate", "reorder") or (kind == "delay" and rng.random() < 0.3):
        pass
    else:
        nodes = [LEADER] if rng.random() < 0.4 else [rng.choice(masters)]
    if kind == "skew":
        amount = 2.0**amount
    elif kind == "fail_disk":
        amount = float(int(amount))
    return Fault(kind, round(at, 6), round(seconds, 6), tuple(nodes), round(amount, 6))


def _bounds(field: str, value: tuple[float, float], least: float = 1e-3) -> tuple[float, float]:
    ends = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(ends) != 2 or not all(isinstance(end, int | float) for end in ends):
        raise InvalidConfig(f"{field} is a pair of seconds, not {value!r}", field=field)
    low, high = ends
    if not least <= low <= high < math.inf:
        raise InvalidConfig(
            f"{field} runs from {low!r} to {high!r} s; give two numbers of at least {least:g}, the smaller first",
            field=field,
        )
    return (low, high)


# --- what came of a plan ----------------------------------------------------------------------------------

_REASONS: Final = {"partition": ("partition", "cut"), "one_way": ("cut", "partition"), "loss": ("loss",)}
_TOUCHES: Final[dict[str, Callable[[Record], bool]]] = {
    "delay": lambda record: record.kind == "deliver",
    "skew": lambda record: record.kind == "timer",
    "slow_disk": lambda record: record.kind == "persisted",
    "fail_disk": lambda record: record.kind == "persist_failed",
}


def landed(records: Iterable[Record]) -> dict[str, int]:
    """Count, by kind, the faults that had an effect on the run that the trace tells of.

    A partition that parted nobody who spoke, a loss that lost nothing, a crash of a node that was down:
    those struck and did not land.

    Examples
    --------
    >>> landed([])
    {}
    """
    open_faults: dict[int, tuple[str, frozenset[NodeId]]] = {}
    done: dict[int, str] = {}
    arrived: set[int] = set()
    latest: dict[tuple[NodeId, NodeId], int] = {}
    for record in records:
        kind = record.kind
        if kind == "nemesis":
            number, phase, nodes = record.payload
            if phase == "begin":
                open_faults[number] = (record.type, frozenset(nodes))
                if record.type in ("crash", "pause", "worker_crash") and nodes:
                    done[number] = record.type
            else:
                open_faults.pop(number, None)
        elif kind == "deliver":
            link = (record.source, record.destination)
            if open_faults:
                again, overtaken = record.message in arrived, record.message < latest.get(link, -1)
                for number, (fault, nodes) in open_faults.items():
                    if number in done:
                        continue
                    if (
                        (fault == "duplicate" and again)
                        or (fault == "reorder" and overtaken and not again)
                        or (
                            fault == "delay" and (not nodes or record.source in nodes or record.node in nodes)
                        )
                    ):
                        done[number] = fault
            arrived.add(record.message)
            latest[link] = max(record.message, latest.get(link, -1))
        elif open_faults and kind in ("drop", "timer", "persisted", "persist_failed"):
            for number, (fault, nodes) in open_faults.items():
                if number in done:
                    continue
                if kind == "drop":
                    if record.payload in _REASONS.get(fault, ()):
                        done[number] = fault
                elif fault in _TOUCHES and record.node in nodes and _TOUCHES[fault](record):
                    done[number] = fault
    counts: dict[str, int] = {}
    for fault in done.values():
        counts[fault] = counts.get(fault, 0) + 1
    return {kind: counts[kind] for kind in KINDS if kind in counts}
