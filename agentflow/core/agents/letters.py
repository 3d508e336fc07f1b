"""Messages that reached nobody: the last of them kept, all of them counted by reason.

Law: no message that was accepted to be sent or came in is lost by an agent without a line here.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

import msgspec

from agentflow.core.agents.messages import AgentMessage

__all__ = ["DeadLetter", "DeadLetters", "Reason"]


class Reason(StrEnum):
    """Why a message ended as a dead letter."""

    NO_RESPONDERS = "no responders"
    UNREACHABLE = "unreachable"
    MAILBOX_FULL = "mailbox full"
    DISPLACED = "displaced"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    UNHANDLED = "unhandled"
    LATE_REPLY = "late reply"
    FORGED = "forged"
    STALE = "stale"


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that reached nobody.

    Parameters
    ----------
    time : float
        Seconds since the run began.
    reason : Reason
        `no responders`: no such agent. `unreachable`: the agent was down. `mailbox full`: refused.
        `displaced`, `superseded`: a newer one took its place in a full mailbox. `expired`: its time to live
        was over. `unhandled`: the agent has no handler for it. `late reply`: nobody waits for it any more.
        `forged`: the sender is somebody else. `stale`: a second copy, or overtaken by a later message.
    message : AgentMessage
        The message.
    """

    time: float
    reason: Reason
    message: AgentMessage


class DeadLetters:
    """A ring of dead letters.

    Examples
    --------
    >>> letters = DeadLetters(1)
    >>> for word in ("one", "two"):
    ...     letters.add(DeadLetter(0.0, Reason.EXPIRED, AgentMessage("notification", word)))
    >>> [letter.message.content for letter in letters.kept], letters.counts
    (['two'], {'expired': 2})
    """

    def __init__(self, limit: int) -> None:
        self.kept: deque[DeadLetter] = deque(maxlen=limit)
        self.counts: dict[str, int] = {}

    def add(self, letter: DeadLetter) -> None:
        """Keep one more."""
        reason = str(letter.reason)
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.kept.append(letter)
