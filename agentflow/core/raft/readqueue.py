"""Reads that wait for proof that this leader still leads.

Law: a read is answered with an index that was committed when it was asked, and only after a quorum has
acknowledged a heartbeat sent after it was asked (thesis 6.4), or while a lease holds (6.4.1).

A lease is counted from when the heartbeats that a quorum acknowledged were *sent*: whoever acknowledged
them took no other leader for a time-out after receiving them, and that was later. Heartbeats carry the
number of their round, so that an answer says which sending it answers.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from agentflow.ids import Index, NodeId

ROUND_BYTES = 8


class PendingRead(msgspec.Struct, frozen=True):
    """A read that waits for a quorum: who asked, with which context, and the index it will be given."""

    source: NodeId
    context: bytes
    index: Index


class ReadQueue:
    """One leadership's reads, or the reads a follower has passed on.

    Parameters
    ----------
    uses_lease : bool
        Whether heartbeats carry round numbers.
    """

    __slots__ = ("_acks", "_heard", "_pending", "_round", "_sent", "early", "forwarded", "uses_lease")

    def __init__(self, uses_lease: bool) -> None:
        self.uses_lease = uses_lease
        self._pending: dict[bytes, PendingRead] = {}
        self._acks: dict[bytes, dict[NodeId, bool]] = {}
        self.early: list[tuple[NodeId, bytes]] = []
        """Reads asked before the leader has committed an entry of its own term."""
        self.forwarded: dict[bytes, None] = {}
        """Contexts a follower has passed to its leader."""
        self._round = 0
        self._sent: deque[tuple[int, float]] = deque()
        self._heard: dict[NodeId, float] = {}

    # --- reads that ask a quorum --------------------------------------------------------------------------

    @staticmethod
    def key(source: NodeId, context: bytes) -> bytes:
        """Return what tells a read from those of other members that chose the same context."""
        return source.encode() + b"/" + context

    def add(self, source: NodeId, context: bytes, index: Index) -> bytes:
        """Queue a read; return its key. The same read again changes nothing."""
        key = self.key(source, context)
        if key not in self._pending:
            self._pending[key] = PendingRead(source, context, index)
            self._acks[key] = {}
        return key

    @property
    def newest(self) -> bytes:
        """The key of the newest read, empty if none waits."""
        return next(reversed(self._pending)) if self._pending else b""

    def ack(self, node: NodeId, key: bytes) -> dict[NodeId, bool] | None:
        """Note that `node` acknowledged the heartbeat sent for `key`; return who has so far."""
        acks = self._acks.get(key)
        if acks is not None:
            acks[node] = True
        return acks

    def release(self, key: bytes) -> list[PendingRead]:
        """Return the read and all that were asked before it: what proves one proves those."""
        released = []
        for older in list(self._pending):
            released.append(self._pending.pop(older))
            del self._acks[older]
            if older == key:
                break
        return released

    def lost(self, me: NodeId) -> list[bytes]:
        """Return the contexts of this node's own reads that will not be answered any more."""
        own = [read.context for read in self._pending.values() if read.source == me]
        return own + [context for source, context in self.early if source == me] + list(self.forwarded)

    # --- the lease ----------------------------------------------------------------------------------------

    def begin_round(self, now: float, horizon: float) -> None:
        """Note that heartbeats leave now; rounds sent before `horizon` prove nothing any more."""
        self._round += 1
        self._sent.append((self._round, now))
        while self._sent[0][1] < horizon:
            self._sent.popleft()

    def stamp(self, key: bytes) -> bytes:
        """Return the context of this round's heartbeats."""
        return self._round.to_bytes(ROUND_BYTES, "big") + key if self.uses_lease else key

    def unstamp(self, node: NodeId, context: bytes) -> bytes:
        """Return the key that an acknowledgement echoes, and note which round it answers."""
        if not self.uses_lease:
            return context
        answered = int.from_bytes(context[:ROUND_BYTES], "big")
        for number, sent in self._sent:
            if number == answered:
                self._heard[node] = max(sent, self._heard.get(node, sent))
                break
        return context[ROUND_BYTES:]

    @property
    def heard(self) -> dict[NodeId, float]:
        """When the newest heartbeat that each member acknowledged was sent."""
        return self._heard

    # --- the whole ----------------------------------------------------------------------------------------

    def copy(self) -> ReadQueue:
        """Return an equal queue of its own."""
        twin = ReadQueue(self.uses_lease)
        twin._pending = self._pending.copy()
        twin._acks = {key: acks.copy() for key, acks in self._acks.items()}
        twin.early, twin.forwarded = self.early.copy(), self.forwarded.copy()
        twin._round, twin._sent, twin._heard = self._round, self._sent.copy(), self._heard.copy()
        return twin

    def state(self) -> tuple[Any, ...]:
        """Return everything that makes two queues equal."""
        return tuple(getattr(self, name) for name in ReadQueue.__slots__)
