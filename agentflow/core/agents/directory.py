"""Who is on the bus, and who subscribed to what: the switchboard that all agents of a bus share.

Law: what is read is one state. Every change makes new tables and puts them in place at one stroke, so any
thread may read while another subscribes.

It plays the part of the interest graph in nats-server. Faults apply to messages, not to it: an agent that
is down or cut off is still listed, and what is sent to it is lost on the way, where the trace shows it.
"""

from __future__ import annotations

from agentflow.core.agents.messages import MessageType
from agentflow.core.agents.subjects import EMPTY, Branch
from agentflow.ids import NodeId

__all__ = ["Directory"]


class Directory:
    """The agents of a bus and their subscriptions.

    Examples
    --------
    >>> directory = Directory()
    >>> directory.join("a"), directory.join("b")
    (1, 1)
    >>> directory.subscribe("b", ("sensors.*",))
    >>> directory.route("sensors.room1", MessageType.NOTIFICATION)
    ('b',)
    >>> directory.others("a")
    ('b',)
    """

    def __init__(self) -> None:
        self.agents: tuple[NodeId, ...] = ()
        self.present: frozenset[NodeId] = frozenset()
        self._tree: Branch = EMPTY
        self._patterns: dict[NodeId, tuple[str, ...]] = {}
        self._lives: dict[NodeId, int] = {}
        self._heard: dict[NodeId, dict[NodeId, int]] = {}

    # --- members ----------------------------------------------------------------------------------------

    def join(self, who: NodeId) -> int:
        """Take note that an agent starts, and return how many lives of this name there were with it."""
        if who not in self.present:
            self.agents = (*self.agents, who)
            self.present = self.present | {who}
        self._lives[who] = life = self._lives.get(who, 0) + 1
        return life

    def leave(self, who: NodeId) -> None:
        """Forget an agent and its subscriptions, though not which messages its name has seen."""
        self.unsubscribe(who)
        self.agents = tuple(name for name in self.agents if name != who)
        self.present = self.present - {who}

    def others(self, who: NodeId) -> tuple[NodeId, ...]:
        """Return every agent but one."""
        return tuple(name for name in self.agents if name != who)

    def heard_by(self, who: NodeId) -> dict[NodeId, int]:
        """Return the highest number heard of each sender; it outlives the agent's crashes, as a socket would."""
        return self._heard.setdefault(who, {})

    # --- subscriptions ------------------------------------------------------------------------------------

    def subscribe(self, who: NodeId, patterns: tuple[str, ...]) -> None:
        """Subscribe an agent to patterns, message types among them."""
        tree = self._tree
        for pattern in patterns:
            tree = tree.add(pattern, who)
        self._tree = tree
        known = self._patterns.get(who, ())
        self._patterns = {**self._patterns, who: tuple(dict.fromkeys((*known, *patterns)))}

    def unsubscribe(self, who: NodeId, patterns: tuple[str, ...] | None = None) -> None:
        """End subscriptions; all of the agent's if none are named."""
        known = self._patterns.get(who, ())
        gone = known if patterns is None else patterns
        tree = self._tree
        for pattern in gone:
            tree = tree.remove(pattern, who)
        self._tree = tree
        kept = tuple(pattern for pattern in known if pattern not in gone)
        rest = {name: value for name, value in self._patterns.items() if name != who}
        self._patterns = {**rest, who: kept} if kept else rest

    def subscriptions(self, who: NodeId) -> tuple[str, ...]:
        """Return what an agent is subscribed to, in the order it subscribed."""
        return self._patterns.get(who, ())

    def route(self, subject: str, msg_type: MessageType) -> tuple[NodeId, ...]:
        """Return who gets a message published on a subject: one copy each, however many patterns match.

        Subscribed are those whose pattern matches the subject, and those who want this type by its name.
        """
        tree = self._tree
        found = tree.find(subject)
        by_type = tree.branches.get(msg_type)
        if by_type is not None:
            found.update(by_type.here)
        return tuple(sorted(found))
