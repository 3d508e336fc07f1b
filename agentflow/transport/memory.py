"""The wires of a cluster held in one process: how long a message takes, and whether it arrives.

Law: the model only decides. It keeps no message, reads no clock and draws from the generator it is
given, so the simulator and the live cluster share it, and it can be copied with everything else.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection
from typing import Any, TypeAlias

from agentflow.errors import InvalidConfig
from agentflow.transport.base import Plan

__all__ = ["Network"]

Span: TypeAlias = float | tuple[float, float]

_NOW: Plan = ((0.0,), "")
_CUT: Plan = ((), "cut")
_PARTITION: Plan = ((), "partition")
_LOSS: Plan = ((), "loss")


class Network:
    """The wires between the nodes of one cluster, to be broken at will while it runs.

    Every link keeps the order of its messages, as a TCP connection does, unless `reorder` says otherwise.
    What is on a wire when the wire is cut is lost.

    Parameters
    ----------
    latency_ms : float or (float, float)
        How long a message takes: always so long, or drawn uniformly between the two.
    loss : float
        Probability that a message is lost.
    duplicate : float
        Probability that a message arrives a second time; the echo may come after later messages.
    reorder : float
        Probability that a message is held back while later ones overtake it.
    reorder_ms : float
        How long such a message is held back at most.

    Examples
    --------
    >>> import random
    >>> network = Network(latency_ms=(1, 10), loss=0.01)
    >>> network.partition({"a"}, {"b", "c"})
    >>> network.plan("a", "b", 0.0, random.Random(7))
    ((), 'partition')
    >>> network.heal()
    >>> delays, reason = network.plan("a", "b", 0.0, random.Random(7))
    >>> 0.001 <= delays[0] <= 0.010
    True
    """

    def __init__(
        self,
        latency_ms: Span = (0, 0),
        loss: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        *,
        reorder_ms: float = 10.0,
    ) -> None:
        self.version = 0
        self._latency_ms = _span("latency_ms", latency_ms)
        self._loss = _probability("loss", loss)
        self._duplicate = _probability("duplicate", duplicate)
        self._reorder = _probability("reorder", reorder)
        self._reorder_ms = _span("reorder_ms", reorder_ms)[1]
        self._groups: dict[str, int] = {}
        self._cuts: frozenset[tuple[str, str]] = frozenset()
        self._isolated: frozenset[str] = frozenset()
        self._slow: dict[str, float] = {}
        self._links: dict[tuple[str, str], float] = {}
        self._horizon = -math.inf
        self._changed()

    # --- settings -------------------------------------------------------------------------------------

    @property
    def latency_ms(self) -> tuple[float, float]:
        """Bounds of the time a message takes; may be set to one number or two."""
        return self._latency_ms

    @latency_ms.setter
    def latency_ms(self, value: Span) -> None:
        self._latency_ms = _span("latency_ms", value)
        self._changed()

    @property
    def loss(self) -> float:
        """Probability that a message is lost."""
        return self._loss

    @loss.setter
    def loss(self, value: float) -> None:
        self._loss = _probability("loss", value)
        self._changed()

    @property
    def duplicate(self) -> float:
        """Probability that a message arrives twice."""
        return self._duplicate

    @duplicate.setter
    def duplicate(self, value: float) -> None:
        self._duplicate = _probability("duplicate", value)
        self._changed()

    @property
    def reorder(self) -> float:
        """Probability that a message is held back while later ones overtake it."""
        return self._reorder

    @reorder.setter
    def reorder(self, value: float) -> None:
        self._reorder = _probability("reorder", value)
        self._changed()

    @property
    def reorder_ms(self) -> float:
        """How long a reordered message is held back at most."""
        return self._reorder_ms

    @reorder_ms.setter
    def reorder_ms(self, value: float) -> None:
        self._reorder_ms = _span("reorder_ms", value)[1]
        self._changed()

    def slow(self, node: str, ms: float) -> None:
        """Let every message from or to `node` take `ms` longer; 0 ends it."""
        extra = _span("ms", ms)[1]
        slow = {name: value for name, value in self._slow.items() if name != node}
        self._slow = {**slow, node: extra} if extra else slow
        self._changed()

    # --- cuts -----------------------------------------------------------------------------------------

    def partition(self, *groups: Collection[str]) -> None:
        """Let the groups no longer hear one another, in place of any earlier partition.

        A node in no group keeps all its links.

        Parameters
        ----------
        *groups : collection of str
            At least two, with no node in common.

        Raises
        ------
        InvalidConfig
            If there is but one group, or a node is in two of them.
        """
        if len(groups) < 2:
            raise InvalidConfig(
                f"a partition needs at least two groups of nodes, not {len(groups)}; "
                "to part one node from all others use isolate()",
                field="groups",
            )
        side: dict[str, int] = {}
        for number, group in enumerate(groups):
            if isinstance(group, str):
                raise InvalidConfig(
                    f"a group is a set of node ids, not the string {group!r}; write {{{group!r}}}",
                    field="groups",
                )
            for node in group:
                if side.setdefault(node, number) != number:
                    raise InvalidConfig(
                        f"{node!r} is in two groups of the partition; choose one", field="groups"
                    )
        self._groups = side
        self._changed()

    def cut(self, source: str, destination: str) -> None:
        """Let nothing pass from `source` to `destination`; the way back stays open."""
        self._cuts |= {(source, destination)}
        self._changed()

    def isolate(self, node: str) -> None:
        """Let nothing pass from or to `node`."""
        self._isolated |= {node}
        self._changed()

    def heal(self) -> None:
        """End all partitions, cuts and isolation; latency, loss and slowness stay as they are."""
        self._groups, self._cuts, self._isolated = {}, frozenset(), frozenset()
        self._changed()

    def blocked(self, source: str, destination: str) -> str:
        """Return why nothing passes from `source` to `destination` at present; empty if it does."""
        if not self.severed or source == destination:
            return ""
        groups = self._groups
        if source in groups and destination in groups and groups[source] != groups[destination]:
            return "partition"
        if (source, destination) in self._cuts:
            return "cut"
        if source in self._isolated or destination in self._isolated:
            return "partition"
        return ""

    def copy(self) -> Network:
        """Return wires of their own, as these are now."""
        twin = Network()
        twin.restore(self)
        twin._links, twin._horizon = dict(self._links), self._horizon
        return twin

    def restore(self, settings: Network) -> None:
        """Take over the settings of other wires; what is on these stays in its order."""
        kept = {"version", "_links", "_horizon"}
        self.__dict__.update((name, value) for name, value in vars(settings).items() if name not in kept)
        self._changed()

    # --- the decision ---------------------------------------------------------------------------------

    def plan(self, source: str, destination: str, now: float, rng: random.Random) -> Plan:
        """Decide what becomes of a message sent now.

        Parameters
        ----------
        source, destination : str
            The ends; a node reaches itself at once, whatever happens to the wires.
        now : float
            Seconds; needed to keep the order of each link.
        rng : random.Random
            Where chance comes from.

        Returns
        -------
        delays : tuple of float
            Seconds until each copy arrives; empty if the message is lost.
        reason : str
            Why it is lost: `partition`, `cut` or `loss`; else empty.
        """
        if (self._quick and now >= self._horizon) or source == destination:
            return _NOW
        if self.severed:
            reason = self.blocked(source, destination)
            if reason:
                return _CUT if reason == "cut" else _PARTITION
        if self._loss and rng.random() < self._loss:
            return _LOSS
        base = self._base
        spread = self._spread
        delay = base + spread * rng.random() if spread else base
        if self._slow:
            delay += self._slow.get(source, 0.0) / 1000 + self._slow.get(destination, 0.0) / 1000
        link = (source, destination)
        arrival = now + delay
        if self._reorder and rng.random() < self._reorder:
            delay += rng.random() * self._reorder_ms / 1000
        else:
            links = self._links
            last = links.get(link, 0.0)
            if arrival < last:
                arrival = last
                delay = last - now
                if now + delay < last:
                    delay += math.ulp(last)  # the rounding of the sum must not let it overtake
            else:
                links[link] = arrival
            if arrival > self._horizon:
                self._horizon = arrival
        if self._duplicate and rng.random() < self._duplicate:
            return (delay, delay + base + (spread or base or 0.001) * rng.random()), ""
        return (delay,), ""

    def describe(self) -> dict[str, Any]:
        """Return the settings that differ from perfect wires, as plain data.

        Examples
        --------
        >>> Network(loss=0.25).describe()
        {'loss': 0.25}
        """
        groups: dict[int, list[str]] = {}
        for node, number in self._groups.items():
            groups.setdefault(number, []).append(node)
        facts = {
            "latency_ms": self._latency_ms if any(self._latency_ms) else None,
            "loss": self._loss,
            "duplicate": self._duplicate,
            "reorder": self._reorder,
            "slow": dict(sorted(self._slow.items())),
            "partition": [sorted(groups[number]) for number in sorted(groups)],
            "cut": sorted(self._cuts),
            "isolated": sorted(self._isolated),
        }
        return {name: value for name, value in facts.items() if value}

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={value!r}" for name, value in self.describe().items())
        return f"Network({facts})"

    def _changed(self) -> None:
        low, high = self._latency_ms
        self._base = low / 1000
        self._spread = (high - low) / 1000
        self.severed = bool(self._groups or self._cuts or self._isolated)
        chance = self._loss or self._duplicate or self._reorder
        self._quick = not (high or chance or self._slow or self.severed)
        self.version += 1


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _probability(field: str, value: float) -> float:
    if not _number(value) or not 0.0 <= value <= 1.0:
        raise InvalidConfig(f"{field} is a probability from 0 to 1, not {value!r}", field=field)
    return float(value)


def _span(field: str, value: Span) -> tuple[float, float]:
    ends = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(ends) != 2 or not all(_number(end) and 0 <= end < math.inf for end in ends):
        raise InvalidConfig(
            f"{field} is a time in milliseconds, or two for its bounds, not {value!r}", field=field
        )
    low, high = ends
    if low > high:
        raise InvalidConfig(
            f"{field} runs from {low!r} to {high!r}; put the smaller bound first", field=field
        )
    return float(low), float(high)
