"""What happened where and when: lines of nodes, ways of messages, faults; ready to be drawn.

Law: read from the trace and nothing else, so the simulator, the live cluster and a counterexample of a model
checker are told alike.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from agentflow.cluster.sayings import FAMILIES, Saying, saying
from agentflow.core.raft.events import RoleChanged
from agentflow.core.record import Record
from agentflow.errors import InvalidConfig, NoSuchNode
from agentflow.ids import NodeId

HOPS_AT_MOST: Final = 400
"""Messages that one diagram shows; the least telling are left out first, and it says so."""

_CUTS: Final = ("partition", "cut", "isolated")
_ENDS: Final = {"crash": "down", "stop": "down", "remove": "gone", "pause": "paused"}


class Hop(msgspec.Struct, frozen=True):
    """One message on its way; `ended` is None while it is still under way."""

    number: int
    source: NodeId
    destination: NodeId
    sent: float
    ended: float | None
    lost: str
    type: str
    saying: Saying


class Stretch(msgspec.Struct, frozen=True):
    """A time during which a node was one thing: up as `role` in `term`, `down` or `paused`."""

    node: NodeId
    start: float
    end: float
    state: str = "up"
    role: str = ""
    term: int = 0


class Mark(msgspec.Struct, frozen=True):
    """Something that happened at an instant; `node` is empty if it happened to the network."""

    node: NodeId
    time: float
    kind: str
    said: str


class Cut(msgspec.Struct, frozen=True):
    """A time during which the network was cut; `apart` are those that the fewest can hear."""

    start: float
    end: float | None
    apart: tuple[NodeId, ...]
    said: str


class SpaceTime(msgspec.Struct, frozen=True):
    """A stretch of a run; `hidden` counts messages that are not shown, by family."""

    title: str
    start: float
    end: float
    nodes: tuple[NodeId, ...] = ()
    stretches: tuple[Stretch, ...] = ()
    hops: tuple[Hop, ...] = ()
    marks: tuple[Mark, ...] = ()
    cuts: tuple[Cut, ...] = ()
    hidden: tuple[tuple[str, int], ...] = ()
    thinned: bool = False

    @property
    def lost(self) -> int:
        """How many of the messages shown were lost."""
        return sum(1 for hop in self.hops if hop.lost)


def spacetime(
    records: Iterable[Record],
    now: float,
    title: str = "",
    start: float | None = None,
    end: float | None = None,
    nodes: Iterable[NodeId] | None = None,
    kinds: str | Iterable[str] | None = None,
    wires: Mapping[str, Any] | None = None,
) -> SpaceTime:
    """Tell a stretch of a run from its trace.

    Parameters
    ----------
    records : iterable of Record
        In the order of the trace.
    now : float
        When it was last looked at.
    title : str
        What it is a diagram of.
    start, end : float, optional
        Seconds; by default all of it.
    nodes : iterable of str, optional
        Whose lines, in which order; by default everybody's who said or heard something.
    kinds : str or iterable of str, optional
        Which messages: families or types; by default all but heartbeats. `"all"` for these too.

    wires : mapping, optional
        What the wires were like at the beginning, as `Network.describe` says it.

    Examples
    --------
    >>> sent = Record(0, 1.0, "a", "send", message=0, source="a", destination="b", type="ADD")
    >>> came = Record(1, 1.5, "b", "deliver", cause=0, message=0, source="a", destination="b", type="ADD")
    >>> told = spacetime([sent, came], 2.0)
    >>> told.nodes, told.hops[0].sent, told.hops[0].ended
    (('a', 'b'), 1.0, 1.5)
    """
    begin, finish = _limits(start, end, now)
    kept = [record for record in records if record.time <= finish]
    lines = _Lines(finish, wires)
    ways = _Ways(begin)
    for record in kept:
        lines.take(record)
        ways.take(record)
    wanted = _wanted(kinds, {hop.type for hop in ways.found.values()})
    only = None if nodes is None else _known(nodes, lines.order)
    hops = [hop for hop in ways.found.values() if begin <= hop.sent or (hop.ended or finish) >= begin]
    if only is not None:
        hops = [hop for hop in hops if hop.source in only and hop.destination in only]
    shown, hidden, thinned = _chosen(hops, wanted)
    rows = only if only is not None else _rows(lines, shown)
    inside = frozenset(rows)
    return SpaceTime(
        title=title,
        start=begin,
        end=finish,
        nodes=tuple(rows),
        stretches=tuple(s for s in lines.ended() if s.node in inside and s.end >= begin),
        hops=tuple(hop for hop in shown if hop.source in inside and hop.destination in inside),
        marks=tuple(m for m in lines.marks if m.time >= begin and (not m.node or m.node in inside)),
        cuts=tuple(c for c in lines.cuts if c.end is None or c.end >= begin),
        hidden=tuple(sorted(hidden.items())),
        thinned=thinned,
    )


def _limits(start: float | None, end: float | None, now: float) -> tuple[float, float]:
    for field, value in (("start", start), ("end", end)):
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if value is not None and not number:
            raise InvalidConfig(f"{field}={value!r} is no instant; give seconds", field=field)
    begin, finish = start or 0.0, now if end is None else min(end, now)
    if begin >= finish and (start is not None or end is not None):
        raise InvalidConfig(
            f"between start={begin:g} s and end={finish:g} s there is nothing (it is {now:g} s); "
            "give a start before the end",
            field="start",
        )
    return begin, finish


def _known(nodes: Iterable[NodeId], order: Sequence[NodeId]) -> list[NodeId]:
    names = [nodes] if isinstance(nodes, str) else [getattr(node, "id", node) for node in nodes]
    for name in names:
        if name not in order:
            raise NoSuchNode(
                f"the trace knows no {name!r}; it knows {', '.join(order) or 'nobody'}", node=name
            )
    return list(dict.fromkeys(names))


def _wanted(kinds: str | Iterable[str] | None, types: Iterable[str]) -> frozenset[str]:
    """What is shown, as families and types in small letters."""
    if kinds is None:
        return frozenset(FAMILIES) - {"heartbeat"}
    given = {str(kind).lower() for kind in ([kinds] if isinstance(kinds, str) else kinds)}
    if "all" in given:
        return frozenset(FAMILIES)
    seen = sorted(set(types))
    odd = given - {*FAMILIES, *(name.lower() for name in seen)}
    if odd:
        raise InvalidConfig(
            f"no message is of kind {', '.join(sorted(odd))}; there are families ({', '.join(FAMILIES)}, all) "
            f"and types ({', '.join(seen) or 'none yet'})",
            field="kinds",
        )
    return frozenset(given)


def _chosen(hops: list[Hop], wanted: frozenset[str]) -> tuple[list[Hop], dict[str, int], bool]:
    """The messages to show, how many of which family are not, and whether there was no room for some."""
    shown = [hop for hop in hops if hop.saying.family in wanted or hop.type.lower() in wanted]
    hidden = collections.Counter(
        hop.saying.family
        for hop in hops
        if hop.saying.family not in wanted and hop.type.lower() not in wanted
    )
    thinned = False
    while len(shown) > HOPS_AT_MOST:
        thinned = True
        worst = max(hop.saying.weight for hop in shown)
        rest = [hop for hop in shown if hop.saying.weight < worst]
        if not rest:
            rest = shown[:HOPS_AT_MOST]
        kept = {hop.number for hop in rest}
        hidden.update(hop.saying.family for hop in shown if hop.number not in kept)
        shown = rest
    return shown, dict(hidden), thinned


def _rows(lines: _Lines, hops: Sequence[Hop]) -> list[NodeId]:
    """Clients above, those with roles next, the rest below; each in the order of their start."""
    busy = {hop.source for hop in hops} | {hop.destination for hop in hops}
    busy |= {mark.node for mark in lines.marks}
    asking = {hop.source for hop in hops if hop.saying.family == "client" and not hop.saying.answer}
    # Masters belong to what is told of them; among agents of theirs they would be empty lines.
    theirs = not hops or any(hop.saying.family not in ("agent", "other") for hop in hops)
    rows = [node for node in lines.order if node in busy or (theirs and node in lines.roles)]

    def place(node: NodeId) -> int:
        return 1 if node in lines.roles else 0 if node in asking else 2

    return sorted(rows, key=place)


class _Ways:
    """Messages, from where they were sent to where they ended."""

    def __init__(self, begin: float) -> None:
        self.begin = begin
        self.found: dict[int, Hop] = {}

    def take(self, record: Record) -> None:
        if record.kind == "send":
            self.found[record.message] = Hop(
                record.message,
                record.source,
                record.destination,
                record.time,
                None,
                "",
                str(record.type),
                saying(record),
            )
        elif record.kind in ("deliver", "drop"):
            self._end(record)

    def _end(self, record: Record) -> None:
        hop = self.found.get(record.message)
        if hop is None:
            return
        if record.time < self.begin:
            del self.found[record.message]
            return
        lost = str(record.payload) if record.kind == "drop" else ""
        if hop.ended is None:
            self.found[record.message] = msgspec.structs.replace(hop, ended=record.time, lost=lost)
        elif record.kind == "deliver":
            # A second copy has a way of its own; negative numbers are not given to messages.
            number = -len(self.found) - 1
            self.found[number] = msgspec.structs.replace(hop, number=number, ended=record.time, lost="")


class _Lines:
    """What each node is, and since when; and what was done to it."""

    def __init__(self, finish: float, wires: Mapping[str, Any] | None) -> None:
        self.finish = finish
        self._wires = None if wires is None else dict(wires)
        self.order: list[NodeId] = []
        self.roles: set[NodeId] = set()
        self.marks: list[Mark] = []
        self.cuts: list[Cut] = []
        self._seen: set[NodeId] = set()
        self._now: dict[NodeId, Stretch] = {}
        self._done: list[Stretch] = []

    def take(self, record: Record) -> None:
        node, kind = record.node, record.kind
        if node and node not in self._seen:
            self._seen.add(node)
            self.order.append(node)
            self._now[node] = Stretch(node, record.time if record.seq else 0.0, self.finish)
        fact = record.payload
        if isinstance(fact, RoleChanged):
            self.roles.add(node)
            self._become(node, record.time, "up", str(fact.role), fact.term)
        elif kind in _ENDS:
            self._become(node, record.time, _ENDS[kind])
            word = f"{kind}: {record.type}" if record.type and record.type != "kill" else kind
            self.marks.append(Mark(node, record.time, kind, word))
        elif kind in ("restart", "resume"):
            self._become(node, record.time, "up")
            self.marks.append(Mark(node, record.time, kind, kind))
        elif kind == "error":
            self.marks.append(Mark(node, record.time, kind, _error(fact)))
        elif kind == "fault":
            self._fault(record)

    def _become(
        self, node: NodeId, at: float, state: str, role: str | None = None, term: int | None = None
    ) -> None:
        before = self._now[node]
        after = Stretch(
            node,
            at,
            self.finish,
            state,
            before.role if role is None else role,
            before.term if term is None else term,
        )
        if (after.state, after.role, after.term) == (before.state, before.role, before.term):
            return
        if at > before.start:
            self._done.append(msgspec.structs.replace(before, end=at))
        self._now[node] = after

    def ended(self) -> list[Stretch]:
        """All stretches, the last of each node reaching to the end."""
        return [*self._done, *(each for each in self._now.values() if each.state != "gone")]

    def _fault(self, record: Record) -> None:
        if record.type != "network":
            self.marks.append(Mark(record.node, record.time, "fault", _fault_words(record)))
            return
        after = dict(record.payload or {})
        # Who does not know what they were like before says nothing but what is cut.
        before = {**after, **dict.fromkeys(_CUTS)} if self._wires is None else self._wires
        self._wires = after
        cut = {name: after[name] for name in _CUTS if name in after}
        if cut != {name: before[name] for name in _CUTS if before.get(name)}:
            if self.cuts and self.cuts[-1].end is None:
                self.cuts[-1] = msgspec.structs.replace(self.cuts[-1], end=record.time)
            if cut:
                self.cuts.append(Cut(record.time, None, _apart(cut), _cut_words(cut)))
        news = [
            f"{name}={after.get(name, 0)!r}"
            for name in sorted({*before, *after} - set(_CUTS))
            if before.get(name) != after.get(name)
        ]
        if news and record.time > 0:
            self.marks.append(Mark("", record.time, "fault", ", ".join(news)))


def _apart(cut: dict[str, Any]) -> tuple[NodeId, ...]:
    """All but the largest group."""
    groups = sorted(cut.get("partition", ()), key=len, reverse=True)
    return (*(node for group in groups[1:] for node in group), *cut.get("isolated", ()))


def _cut_words(cut: dict[str, Any]) -> str:
    parts = []
    if groups := cut.get("partition"):
        parts.append(" | ".join(", ".join(group) for group in groups))
    if alone := cut.get("isolated"):
        parts.append(f"{', '.join(alone)} alone")
    if ways := cut.get("cut"):
        parts.append(", ".join(f"{a} ⇸ {b}" for a, b in ways))
    return "cut: " + "; ".join(parts)


def _fault_words(record: Record) -> str:
    facts = record.payload if isinstance(record.payload, dict) else {}
    return f"{record.type} " + ", ".join(f"{name}={value!r}" for name, value in facts.items())


def _error(fact: Any) -> str:
    return str(fact.get("error", "error")) if isinstance(fact, dict) else "error"


__all__ = ["Cut", "Hop", "Mark", "SpaceTime", "Stretch", "spacetime"]
