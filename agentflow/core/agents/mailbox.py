"""A mailbox: bounded, in order, with one reader.

Law: what is taken out comes in the order it was put in, and no more than `capacity` wait. When it is full,
a message makes room among its own kind or not at all: a request that was accepted is never pushed out.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import Final, TypeAlias

import msgspec

from agentflow.core.agents.letters import Reason
from agentflow.core.agents.messages import AgentMessage, MessageType

__all__ = ["POLICY", "Item", "Mailbox", "Policy"]


class Policy(Enum):
    """What becomes of a message that comes to a full mailbox."""

    REJECT = "reject"
    """It is turned away; a caller hears `MailboxFull`."""
    KEEP_LATEST = "keep latest"
    """It takes the place of an earlier one of the same sender, type, subject and conversation."""
    DROP_OLDEST = "drop oldest"
    """The oldest of this policy makes room."""


POLICY: Final = {
    MessageType.HEARTBEAT: Policy.KEEP_LATEST,
    MessageType.STATUS_UPDATE: Policy.KEEP_LATEST,
    MessageType.NOTIFICATION: Policy.DROP_OLDEST,
}
"""The policy of each type; `REJECT` for all others, and for whatever wants an answer."""


class Item(msgspec.Struct, gc=False):
    """A message that waits, the instant at which it is worth nothing any more, and who waits for its outcome."""

    message: AgentMessage
    expires: float = math.inf
    token: int = -1


Lost: TypeAlias = tuple[Reason, Item]


class Mailbox:
    """A bounded queue of messages.

    Parameters
    ----------
    capacity : int
        How many may wait.

    Examples
    --------
    >>> box = Mailbox(1)
    >>> box.put(Item(AgentMessage("task_request", 1)), 0.0)
    ()
    >>> box.put(Item(AgentMessage("task_request", 2)), 0.0)[0][0]
    <Reason.MAILBOX_FULL: 'mailbox full'>
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._items: dict[int, Item] = {}
        self._next = 0
        self._droppable: deque[int] = deque()
        self._latest: dict[tuple[str, ...], int] = {}
        self._first_expiry = math.inf

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Item, now: float, in_hand: int = 0) -> Sequence[Lost]:
        """Add a message; return what was lost for it, or itself.

        Parameters
        ----------
        item : Item
            The message.
        now : float
            Only what has expired makes room without regard to its kind.
        in_hand : int
            How many were taken and not started on; they count as waiting.
        """
        if len(self._items) + in_hand < self.capacity:
            self._add(item)
            return ()
        lost = self._expire(now)
        if len(self._items) + in_hand < self.capacity:
            self._add(item)
            return lost
        message = item.message
        policy = policy_of(message)
        victim = None
        if policy is Policy.KEEP_LATEST:
            victim = self._latest.get(_key(message))
            reason = Reason.SUPERSEDED
        elif policy is Policy.DROP_OLDEST:
            victim = self._oldest()
            reason = Reason.DISPLACED
        if victim is None:
            lost.append((Reason.MAILBOX_FULL, item))
            return lost
        lost.append((reason, self._items.pop(victim)))
        self._add(item)
        return lost

    def take(self, limit: int) -> list[Item]:
        """Remove and return up to `limit` messages, the oldest first."""
        items = self._items
        if len(items) <= limit:
            taken = list(items.values())
            items.clear()
            self._droppable.clear()
            self._latest.clear()
            self._first_expiry = math.inf
            return taken
        taken = [self._remove(number) for number in itertools.islice(list(items), limit)]
        while self._droppable and self._droppable[0] not in items:
            self._droppable.popleft()
        return taken

    def put_back(self, taken: list[Item]) -> None:
        """Put what was taken last and not started on in front again."""
        waiting = list(self._items.values())
        self.take(len(waiting))
        for item in (*taken, *waiting):
            self._add(item)

    # --- helpers ----------------------------------------------------------------------------------------

    def _add(self, item: Item) -> None:
        number = self._next
        self._next = number + 1
        self._items[number] = item
        message = item.message
        if item.expires < self._first_expiry:
            self._first_expiry = item.expires
        policy = POLICY.get(message.msg_type)
        if policy is not None and not message.requires_response:
            if policy is Policy.KEEP_LATEST:
                self._latest[_key(message)] = number
            else:
                self._droppable.append(number)

    def _remove(self, number: int) -> Item:
        item = self._items.pop(number)
        if policy_of(item.message) is Policy.KEEP_LATEST:
            key = _key(item.message)
            if self._latest.get(key) == number:
                del self._latest[key]
        return item

    def _oldest(self) -> int | None:
        while self._droppable:
            number = self._droppable.popleft()
            if number in self._items:
                return number
        return None

    def _expire(self, now: float) -> list[Lost]:
        if self._first_expiry > now:
            return []
        gone = [number for number, item in self._items.items() if item.expires <= now]
        lost = [(Reason.EXPIRED, self._items.pop(number)) for number in gone]
        self._latest = {
            _key(item.message): number
            for number, item in self._items.items()
            if policy_of(item.message) is Policy.KEEP_LATEST
        }
        self._first_expiry = min((item.expires for item in self._items.values()), default=math.inf)
        return lost


def policy_of(message: AgentMessage) -> Policy:
    """Return the policy for a message."""
    if message.requires_response:
        return Policy.REJECT
    return POLICY.get(message.msg_type, Policy.REJECT)


def _key(message: AgentMessage) -> tuple[str, ...]:
    return (message.from_, message.msg_type, message.subject, message.correlation_id or "")
