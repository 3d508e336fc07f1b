"""What the parts of a cluster show of themselves at one instant: a queue, mailboxes, leases, a registry, a Raft node.

Law: as in `agentflow.cluster.status`: plain data, read once, and drawn by those who ask nobody anything.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from agentflow.cluster.status import MasterStatus, QueuePoint, WorkerStatus, within
from agentflow.core.scheduling import WorkerRegistry
from agentflow.core.scheduling.lanes import AGEING_PER_SECOND, RETRY_PENALTY
from agentflow.core.scheduling.queue import PriorityTaskQueue
from agentflow.core.scheduling.tasks import BASE_SCORE
from agentflow.errors import AgentflowError

HISTORY: Final = 8
"""Messages of an agent that its card lists."""


class WaitingStatus(msgspec.Struct, frozen=True):
    """Who waits in a queue: (priority, score, seconds waited) of each task, and the counts beside."""

    title: str
    tasks: tuple[tuple[int, float, float], ...] = ()
    first: tuple[str, ...] = ()
    delayed: int = 0
    dead: int = 0

    @property
    def depths(self) -> QueuePoint:
        """How many wait, by priority."""
        counts = [0] * 5
        for priority, _, _ in self.tasks:
            counts[priority] += 1
        oldest = max((waited for _, _, waited in self.tasks), default=None)
        return QueuePoint(0.0, counts[1], counts[2], counts[3], counts[4], oldest)


class MailStatus(msgspec.Struct, frozen=True):
    """One agent; `last` lists (direction, type, other, what) of its last messages."""

    id: str
    state: str = "up"
    waiting: int = 0
    capacity: int = 1
    sent: int = 0
    received: int = 0
    handled: int = 0
    failed: int = 0
    pending: int = 0
    dead: tuple[tuple[str, int], ...] = ()
    topics: tuple[str, ...] = ()
    last: tuple[tuple[str, str, str, str], ...] = ()


class LeaseStatus(msgspec.Struct, frozen=True):
    """One lock; `left_s` seconds of `ttl_s` are left, none of a lease that has expired."""

    key: str
    owner: str
    token: int
    ttl_s: float
    left_s: float
    note: str = ""


# --- queues --------------------------------------------------------------------------------------------------


def waiting_in_cluster(cluster: Any) -> WaitingStatus:
    """Everybody in the cluster's queue."""

    def look() -> tuple[float, list[tuple[int, int, float]]]:
        entries = [
            (priority, retries, entry.at) for entry, priority, retries in cluster.plane().queue.waiting()
        ]
        return cluster.now, entries

    now, entries = cluster.read(look)
    return WaitingStatus(getattr(cluster, "name", None) or type(cluster).__name__, _scored(entries, now))


def waiting_in_queue(queue: PriorityTaskQueue) -> WaitingStatus:
    """Everybody in a queue of one's own."""
    stats = queue.stats()  # what has fallen due enters now
    entries = [(int(e.priority), e.retries, e.at) for e in list(queue._entries.values())]
    return WaitingStatus(
        "queue",
        _scored(entries, queue._clock()),
        tuple(task.id for task in queue.tasks()[:10]),
        stats.delayed,
        stats.dead_letters,
    )


def _scored(entries: Iterable[tuple[int, int, float]], now: float) -> tuple[tuple[int, float, float], ...]:
    """The score that serves, unrounded."""
    found = []
    for priority, retries, at in entries:
        waited = max(0.0, now - at)
        score = BASE_SCORE[priority] + AGEING_PER_SECOND * waited - RETRY_PENALTY * retries
        found.append((priority, score, waited))
    return tuple(found)


# --- agents --------------------------------------------------------------------------------------------------


def mailbox(agent: Any) -> MailStatus:
    """One agent; one whose loop does not answer in time, or that is closed, shows its name."""
    if agent.closed:
        return MailStatus(agent.id, "closed")
    found = within(1.0, lambda: _mailbox(agent)) if not agent._bus.virtual else _mailbox(agent)
    return found or MailStatus(agent.id, "busy")


def _mailbox(agent: Any) -> MailStatus:
    stats = agent.stats()
    up = agent._machine is not None and not agent._machine.over
    return MailStatus(
        agent.id,
        "up" if up else "down",
        stats.mailbox,
        agent._config.capacity,
        stats.sent,
        stats.received,
        stats.handled,
        stats.failed,
        stats.pending_requests,
        tuple(sorted(stats.dead_letters.items())),
        (*agent._handlers.topics(), *agent.subscriptions),
        tuple(
            (
                "to" if message.from_ == agent.id else "from",
                message.type,
                message.to if message.from_ == agent.id else message.from_,
                f"{message.subject} {_short(message.content)}".strip(),
            )
            for message in agent.get_history(HISTORY)
        ),
    )


def mailboxes(cluster: Any) -> tuple[MailStatus, ...]:
    """Every agent that is open on a cluster's bus."""
    if cluster.closed:
        return ()
    return tuple(mailbox(agent) for agent in list(cluster._lay_bus().agents.values()))


def _short(value: Any) -> str:
    try:
        return repr(value)[:80]
    except Exception:  # a repr of somebody's own may do anything
        return type(value).__name__


# --- locks ---------------------------------------------------------------------------------------------------


def leases(infos: Iterable[Any]) -> tuple[LeaseStatus, ...]:
    """Leases as `check_lock` and `list_locks` gave them."""
    found = []
    for info in infos:
        ttl = (info.expires_at - info.acquired_at) / datetime.timedelta(seconds=1)
        note = "" if info.metadata is None else _short(info.metadata)
        found.append(
            LeaseStatus(info.key, info.owner, info.token, max(0.0, ttl), max(0.0, info.remaining_s), note)
        )
    return tuple(found)


def held(lock: Any) -> tuple[LeaseStatus, ...]:
    """The leases that an object of `DistributedLock` believes in; the database is not asked."""
    mine: Mapping[str, Any] = dict(lock._held)
    known = leases(grant.info for grant in mine.values())
    return tuple(
        msgspec.structs.replace(lease, left_s=lock.remaining(lease.key), ttl_s=lock.ttl_s) for lease in known
    )


# --- workers and nodes ---------------------------------------------------------------------------------------


def registered(registry: WorkerRegistry) -> tuple[WorkerStatus, ...]:
    """Everybody in a registry of one's own."""
    return tuple(
        WorkerStatus(
            info.id,
            info.group_name,
            info.status.value,
            info.resources.concurrent_tasks,
            info.resources.max_tasks,
            info.load,
            registry.heartbeat_age(info.id),
            info.error,
        )
        for info in registry.get_workers()
    )


def member(node: Any) -> MasterStatus:
    """One `RaftNode`; one that is stopped, or whose loop does not answer in time, counts as down."""

    def look() -> MasterStatus | None:
        try:
            status = node.status()
        except AgentflowError:
            return None
        return MasterStatus(
            node.id,
            "up",
            str(status.role),
            status.term,
            status.leader,
            status.commit_index,
            status.applied_index,
            status.last_index,
        )

    return within(1.0, look) or MasterStatus(node.id, "down")


__all__ = [
    "LeaseStatus",
    "MailStatus",
    "WaitingStatus",
    "held",
    "leases",
    "mailbox",
    "mailboxes",
    "member",
    "registered",
    "waiting_in_cluster",
    "waiting_in_queue",
]
