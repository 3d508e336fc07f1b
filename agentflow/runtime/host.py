"""The one place where the effects of machines are performed, and where nodes are broken on request.

The host moves no time. A driver does, and gives it three things: how a message travels, how a write
becomes durable, and now. Under virtual time the host is therefore as deterministic as the machines.

Its turns are in `turns`; here is what people, nemeses and drivers call. Law: a node that is down does
nothing and hears nothing, whatever was under way for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from agentflow.core.machine import Event, Local, Machine, Persisted, PersistFailed, Stalled, Woken
from agentflow.core.record import Record
from agentflow.errors import Closed, InvalidConfig
from agentflow.ids import NodeId
from agentflow.runtime.ports import Disk, Factory, save
from agentflow.runtime.seats import Seat, down, no_such_node
from agentflow.runtime.turns import Turns

__all__ = ["Host"]

_WOKEN = Woken()


class Host(Turns):
    """Runs machines: gives them events, performs their effects, breaks them on request.

    One thread at a time may use it; only `post`, `deliver`, `write`, `saved` and `finished` may be called from others.

    Parameters
    ----------
    trace : Trace
        Where everything is recorded.
    network : Wires
        The wires between the nodes.
    launcher : Launcher, optional
        What runs the work of tasks; a driver may bring its own.
    codec : Codec, optional
        If given, every message goes through bytes and back on its way.
    strict : bool
        Whether an exception inside a machine, after it is recorded, is raised out of `turn`. The node is
        crashed in any case, and no other.
    """

    # --- nodes ----------------------------------------------------------------------------------------

    @property
    def nodes(self) -> tuple[NodeId, ...]:
        """The ids of all nodes, alive or not, in the order they were added."""
        return tuple(self._seats)

    def machine(self, node_id: NodeId) -> Machine | None:
        """Return the node's machine; None while it is down."""
        return self._seat(node_id).machine

    def incarnation(self, node_id: NodeId) -> int:
        """Return how often the node was started."""
        return self._seat(node_id).incarnation

    def state(self, node_id: NodeId) -> str:
        """Return `up`, `paused`, `starting` (its disk is being read) or `down`."""
        return self._seat(node_id).state

    def disk(self, node_id: NodeId) -> Disk | None:
        """Return what the node persists on; None if it has nothing."""
        return self._seat(node_id).disk

    def replace_disk(self, node_id: NodeId, disk: Disk) -> None:
        """Let the node persist elsewhere from its next write on; what it has stored must be there."""
        self._seat(node_id).disk = disk

    def add(self, node_id: NodeId, factory: Factory, disk: Disk | None = None, start: bool = True) -> None:
        """Add a node, and start it unless told otherwise.

        Parameters
        ----------
        node_id : str
            Its name on the network.
        factory : callable
            `factory(node_id, stored, incarnation, now)` makes its machine at every start.
        disk : Disk, optional
            What it persists on; without one it must not ask for a `Persist`, and `stored` is None.
        start : bool
            Whether to start it now.

        Raises
        ------
        InvalidConfig
            If a node of that name is there.
        """
        if type(node_id) is not str or not node_id:
            raise InvalidConfig(
                f"a node's id is a string with something in it, not {node_id!r}", field="node_id"
            )
        if node_id in self._seats:
            raise InvalidConfig(f"there is a node {node_id!r} already; remove it first", field="node_id")
        if self._closed:
            raise Closed("the cluster is closed; make a new one")
        self._seats[node_id] = Seat(node_id, factory, disk, self._order)
        self._order += 1
        if start:
            self._start(self._seats[node_id], "start")

    def remove(self, node_id: NodeId) -> None:
        """Crash the node and forget it; its disk is no longer the host's."""
        self._stop(self._seat(node_id), "remove")
        del self._seats[node_id]

    def crash(self, node_id: NodeId, reason: str = "") -> None:
        """Take the node down: what was not durable is lost. A node that is down stays so."""
        self._stop(self._seat(node_id), "crash", reason)

    def restart(self, node_id: NodeId) -> None:
        """Start the node from what its disk holds, crashing it first if it is up."""
        seat = self._seat(node_id)
        self._stop(seat, "crash", "restart")
        self._start(seat, "restart" if seat.incarnation else "start")

    def pause(self, node_id: NodeId) -> None:
        """Let the node stand still, as a stopped process does: what reaches it waits."""
        seat = self._seat(node_id)
        if seat.machine is not None and not seat.paused:
            seat.paused = True
            self.trace.append(self.driver.now, node_id, "pause")

    def resume(self, node_id: NodeId) -> None:
        """Let a paused node go on; it first hears what waited for it."""
        seat = self._seat(node_id)
        if seat.paused:
            seat.paused = False
            cause = self.trace.append(self.driver.now, node_id, "resume").seq
            self._hand_over(seat)
            self._alarms.set(seat)
            self._touch(seat, cause)

    def skew(self, node_id: NodeId, *, offset: float | None = None, rate: float | None = None) -> None:
        """Make the node's clock wrong.

        Parameters
        ----------
        node_id : str
            Whose clock.
        offset : float, optional
            Seconds by which it is ahead of the host's at this instant. It never goes back: set to less than
            it shows, it stands still for a while.
        rate : float, optional
            Seconds that pass on it in one of the host's, from now on; 1 is right.
        """
        seat = self._seat(node_id)
        if rate is not None and not 0 < rate < math.inf:
            raise InvalidConfig(f"a clock's rate is a positive number, not {rate!r}", field="rate")
        if offset is not None and not math.isfinite(offset):
            raise InvalidConfig(f"a clock's offset is a number of seconds, not {offset!r}", field="offset")
        now = self.driver.now
        ahead = seat.skew(now, offset, rate)
        self.trace.append(now, node_id, "fault", type="skew", payload={"offset": ahead, "rate": seat.rate})
        self._touch(seat, -1)

    def stall(self, seconds: float) -> None:
        """Tell every node, before anything else, that the host itself stood still."""
        cause = self.trace.append(self.driver.now, "", "stall", payload=seconds).seq
        for seat in reversed(self._seats.values()):
            if seat.machine is not None and not seat.paused:
                self.queue.appendleft((seat.id, seat.incarnation, Stalled(seconds * seat.rate), cause))
        self.driver.wake()

    def fault(self, type: str, payload: Any = None, node_id: NodeId = "") -> None:  # noqa: A002
        """Record a fault that somebody made by other means; those of the network are recorded anyway."""
        self.trace.append(self.driver.now, node_id, "fault", type=type, payload=payload)

    def close(self) -> None:
        """Stop every node and answer what is still open with `Closed`."""
        self._closed = True
        self._answer_all(None)
        for seat in list(self._seats.values()):
            self._stop(seat, "stop")
        self.queue.clear()
        self._fresh.clear()

    # --- what comes in --------------------------------------------------------------------------------

    def post(self, node_id: NodeId, event: Event) -> None:
        """Give the node an event in the next turn; if it is down then, the event is lost."""
        self.queue.append((node_id, -1, event, -1))
        self.driver.wake()

    def deliver(self, message: Record) -> None:
        """Hand over a message, as the record of its sending, that has come to the end of its wire."""
        self.queue.append(message)
        self.driver.wake()

    def lose(self, message: Record, reason: str) -> None:
        """Record that a message, as the record of its sending, was taken off its wire."""
        self._drop(message, self.driver.now, reason)

    def token(self) -> int:
        """Return a token for a request, for who must know it before it is asked."""
        return self._questions.token()

    def ask(
        self,
        node_id: NodeId,
        request: Any,
        callback: Callable[[Any, bool], None],
        token: int | None = None,
    ) -> int:
        """Ask a node something; `callback(result, final)` gets the answers, an exception for a failure.

        A node that is down or not there answers at once, before this returns. An answer may be `PeerDown`
        later too: then the node may have done what it was asked.

        Returns
        -------
        int
            The token of the request.
        """
        token = self._questions.token() if token is None else token
        self._questions.add(token, node_id, callback)
        seat = self._seats.get(node_id)
        if self._closed:
            self._answer(token, Closed("the cluster is closed; make a new one"))
        elif seat is None:
            self._answer(token, no_such_node(node_id, self._seats))
        elif seat.state == "down":
            self._answer(token, down(node_id))
        else:
            self.queue.append((node_id, seat.incarnation, Local(token, request), -1))
            self.driver.wake()
        return token

    def forget(self, token: int) -> None:
        """Want no more answers to a request."""
        self._questions.forget(token)

    def loaded(self, node_id: NodeId, incarnation: int, stored: Any) -> None:
        """Start the machine from what its disk held; an exception is a disk that cannot be read."""
        seat = self._seats.get(node_id)
        if seat is None or seat.incarnation != incarnation or not seat.starting:
            return
        now = self.driver.now
        cause = self.trace.append(now, node_id, seat.starting, type=str(incarnation)).seq
        try:
            if isinstance(stored, Exception):
                raise stored
            seat.machine = seat.factory(node_id, stored, incarnation, seat.local(now))
        except Exception as error:
            self._failed(seat, error, cause)
            return
        seat.starting = ""
        self._hand_over(seat)
        self._touch(seat, cause)

    def write(self, node_id: NodeId, incarnation: int, number: int, disk: Disk, write: Any) -> None:
        """Write to a disk now and report it, unless the incarnation is gone; from any thread.

        When a write has failed, those behind it fail too: they were made in the belief that it would be
        there, and what waits for them speaks for it.
        """
        seat = self._seats.get(node_id)
        if seat is None or seat.machine is None or seat.incarnation != incarnation:
            return
        reason = "a write before it failed" if seat.broken == incarnation else save(disk, write)
        if reason:
            seat.broken = incarnation
        self.saved(node_id, incarnation, number, reason)

    def saved(self, node_id: NodeId, incarnation: int, number: int, reason: str = "") -> None:
        """Report that a write is durable, or why it failed."""
        event = PersistFailed(number, reason) if reason else Persisted(number)
        self.queue.append((node_id, incarnation, event, -1))
        self.driver.wake()

    # --- time -----------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """When the next node wants to be woken; `inf` if none does."""
        return self._alarms.next

    def wake(self, node_id: NodeId) -> None:
        """Queue a wake-up of one node, whatever its deadline."""
        self.post(node_id, _WOKEN)

    def ring(self, now: float) -> bool:
        """Queue the wake-up of one node whose deadline has come; False if there is none."""
        seat = self._alarms.take(now)
        if seat is None:
            return False
        self.queue.append((seat.id, seat.incarnation, _WOKEN, -1))
        return True

    # --- starting -------------------------------------------------------------------------------------

    def _seat(self, node_id: NodeId) -> Seat:
        seat = self._seats.get(node_id)
        if seat is None:
            raise no_such_node(node_id, self._seats)
        return seat

    def _hand_over(self, seat: Seat) -> None:
        waiting, seat.inbox = seat.inbox, []
        self.queue.extendleft(reversed(waiting))

    def _start(self, seat: Seat, kind: str) -> None:
        if self._closed:
            raise Closed("the cluster is closed; make a new one")
        seat.incarnation += 1
        seat.starting = kind
        if seat.disk is None:
            self.loaded(seat.id, seat.incarnation, None)
        else:
            self.driver.load(seat.id, seat.incarnation, seat.disk)
