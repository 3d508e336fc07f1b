"""One door in, one door out: what a machine is, and the values that pass through its doors.

Law: nothing an effect names may happen before the persist it waits for is durable, and a machine learns
of durability, of time and of finished work only through `handle`.

A machine is plain data. It reads no clock and draws no number that its seed did not fix, so it can be
copied, compared and stored, and the simulator runs exactly the code that runs for real.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import msgspec

from agentflow.ids import AttemptId, NodeId

# --- events: what goes in -----------------------------------------------------------------------------


class Received(msgspec.Struct, frozen=True, gc=False):
    """A message arrived. `source` was stamped by the transport, not by the sender."""

    source: NodeId
    message: Any


class Woken(msgspec.Struct, frozen=True):
    """The machine's `deadline` has come."""


class Local(msgspec.Struct, frozen=True, gc=False):
    """Something the node's own user asks; answered by an `Answer` with the same token."""

    token: int
    request: Any


class Persisted(msgspec.Struct, frozen=True, gc=False):
    """The write with this id is durable."""

    id: int


class PersistFailed(msgspec.Struct, frozen=True):
    """The write with this id is not durable and will not be; `reason` is the disk's word."""

    id: int
    reason: str


class Finished(msgspec.Struct, frozen=True, gc=False):
    """Work started by an `Execute` ended; `outcome` is the executor's report."""

    attempt: AttemptId
    outcome: Any


class Stalled(msgspec.Struct, frozen=True):
    """The host itself stood still for `seconds`: silence during that time proves nothing about peers."""

    seconds: float


class Unreachable(msgspec.Struct, frozen=True, gc=False):
    """The transport knows that `message` was never delivered: nobody listens at `peer`."""

    peer: NodeId
    message: Any


Event: TypeAlias = Unreachable | Received | Woken | Local | Persisted | PersistFailed | Finished | Stalled

# --- effects: what comes out --------------------------------------------------------------------------


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send `message` to `to`, once the write `after` is durable (at once if None)."""

    to: NodeId
    message: Any
    after: int | None = None


class Persist(msgspec.Struct, frozen=True, gc=False):
    """Make `write` durable, then say so with `Persisted(id)`. Ids grow; writes keep their order."""

    id: int
    write: Any


class Execute(msgspec.Struct, frozen=True, gc=False):
    """Start the attempt's work; its end comes back as `Finished(attempt, outcome)`."""

    attempt: AttemptId
    work: Any


class Abandon(msgspec.Struct, frozen=True, gc=False):
    """Stop the attempt's work if the executor can; its result is wanted no more."""

    attempt: AttemptId


class Answer(msgspec.Struct, frozen=True, gc=False):
    """The answer to a `Local` request: a value, or an exception to raise at the caller's.

    A subscription is answered many times; only the last of its answers is `final`.
    """

    token: int
    result: Any
    final: bool = True


class Note(msgspec.Struct, frozen=True, gc=False):
    """Something worth a line in the trace: `kind` is a short word, `payload` plain data."""

    kind: str
    payload: Any = None


Effect: TypeAlias = Send | Persist | Execute | Abandon | Answer | Note


@runtime_checkable
class Machine(Protocol):
    """What the host can run: masters, workers, clients, agents, and a student's own algorithm."""

    @property
    def deadline(self) -> float:
        """When to call `handle(Woken(), now)` if nothing else happens; `inf` if never."""
        ...

    def handle(self, event: Event, now: float) -> None:
        """Take one event at one instant."""
        ...

    def ready(self) -> Sequence[Effect]:
        """Hand out, once per turn, everything that must now be done, in order."""
        ...
