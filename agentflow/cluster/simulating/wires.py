"""One message, one timer, one request at a time: a simulation in a teacher's hands.

Law: nothing here moves time. What is delivered arrives now; what is held arrives when it is released.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agentflow.cluster.simulating.base import Base, by_hand
from agentflow.core.callbacks import CallbackMachine
from agentflow.core.control.commands import ClientCommand, KeyCas, KeyGet, KeySet
from agentflow.core.machine import Machine
from agentflow.core.nodes.client import Client
from agentflow.core.nodes.master import Master
from agentflow.core.nodes.worker import Worker
from agentflow.core.raft import RaftMachine
from agentflow.core.raft.events import Role
from agentflow.errors import InvalidConfig, Refused, TimedOut
from agentflow.ids import NodeId
from agentflow.rows import Column, Rows, Schema

if TYPE_CHECKING:
    import pandas as pd

PENDING = Schema(
    "pending",
    "a row a message that is under way",
    (
        Column("message", "count", "its number: what deliver() and drop() take"),
        Column("source", "text", "who sent it"),
        Column("destination", "text", "to whom"),
        Column("type", "text", "its type"),
        Column("sent_s", "seconds", "when it was sent"),
        Column("arrives_s", "seconds", "when it arrives; none while it is held"),
        Column("held", "flag", "whether it is held"),
        Column("payload", "any", "the message itself"),
    ),
)


class Request:
    """What somebody asked, and the answer once there is one.

    Attributes
    ----------
    done : bool
        Whether it was answered.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._answers: list[Any] = []

    def _take(self, result: Any, final: bool) -> None:
        self._answers.append(result)

    @property
    def done(self) -> bool:
        """Whether it was answered."""
        return bool(self._answers)

    @property
    def result(self) -> Any:
        """The answer; raises if that is an error, or if there is none yet."""
        if not self._answers:
            raise Refused(f"{self._what} has no answer yet; let time pass")
        if isinstance(self._answers[0], BaseException):
            raise self._answers[0]
        return self._answers[0]

    def __repr__(self) -> str:
        return f"<{self._what}: {self._answers[0]!r}>" if self._answers else f"<{self._what}: no answer yet>"


class ByHand(Base):
    """What a teacher does to a simulation, one thing at a time."""

    # --- messages -----------------------------------------------------------------------------------------

    def pending(self) -> pd.DataFrame:
        """List the messages under way, the next to arrive first, then those that are held."""
        rows = [
            (
                *(sent.message, sent.source, sent.destination, sent.type, sent.time),
                *(None if arrives == math.inf else arrives, arrives == math.inf, sent.payload),
            )
            for arrives, sent in self._world.driver.pending()
        ]
        return Rows(PENDING, rows, self.began).to_pandas()

    def deliver(self, message: Any) -> None:
        """Let a message arrive now, before or after its turn.

        Parameters
        ----------
        message : int, row or record
            Its number, or something with a `message`: a row of `pending()`, a record of its sending.
        """
        self._deliver(number_of(message))

    def drop(self, message: Any) -> None:
        """Lose a message that is under way; see `deliver` for how to name it."""
        self._drop(number_of(message))

    def _deliver(self, number: int) -> None:
        self._world.deliver(number)

    def _drop(self, number: int) -> None:
        self._world.drop(number)

    def hold(
        self,
        source: Any = "",
        destination: Any = "",
        type: str = "",  # noqa: A002 - the column's name
    ) -> int:
        """Keep messages of a kind on their wires, those under way and those yet to be sent.

        Parameters
        ----------
        source, destination : str or handle
            From and to whom; anybody if not given.
        type : str
            Of which type, as in the column `type` of `pending()`; any if not given.

        Returns
        -------
        int
            How many of them are held now.
        """
        return self._world.driver.hold(*self._pattern(source, destination, type))

    def release(self, source: Any = "", destination: Any = "", type: str = "") -> int:  # noqa: A002
        """Let held messages of a kind arrive now, in their order; without arguments, all of them.

        Returns
        -------
        int
            How many there were.
        """
        return self._world.driver.release(*self._pattern(source, destination, type))

    def _pattern(self, source: Any, destination: Any, kind: str) -> tuple[NodeId, NodeId, str]:
        return (
            self._node(source) if source != "" else "",
            self._node(destination) if destination != "" else "",
            kind,
        )

    def timeout(self, node: Any, name: str = "") -> None:
        """Let what a node waits for be due now: an election, a heartbeat, a timer of its own.

        Parameters
        ----------
        node : str or handle
            Whose patience ends.
        name : str
            Which timer, of a node with callbacks; by default the next one.
        """
        self._world.timeout(self._node(node), name)

    # --- requests -----------------------------------------------------------------------------------------

    def request(self, client: str, function: str, *args: Any, timeout: float | None = None) -> Request:
        """Have a client ask something and do not wait: time stands still until you move it.

        Parameters
        ----------
        client : str
            The client's name.
        function : str
            `set`, `get` or `cas`.
        *args
            As for the client's method.
        timeout : float, optional
            Virtual seconds after which the client gives up.

        Examples
        --------
        >>> from agentflow import Simulation
        >>> sim = Simulation(masters=3, seed=7)
        >>> _ = sim.run_until(lambda s: s.leader)
        >>> asked = sim.request("c1", "set", "x", 1)
        >>> asked.done, sim.pending().query("source == 'c1'").type.tolist()
        (False, ['Ask'])
        >>> _ = sim.run_for(1)
        >>> asked.done
        True
        """
        command = key_command(function, args)
        self.client(client)
        limit = self._deployment.raft.replication_timeout_ms / 1000 if timeout is None else timeout
        asked = Request(f"{function} of {client}")
        self._world.command(client, command, limit, callback=asked._take)
        self._world.driver.settle()
        return asked

    def tell(self, node: Any, message: Any) -> Request:
        """Tell a node of your own something as its user would: its `on_local` is called now.

        Returns
        -------
        Request
            Where the node's `ctx.reply(...)` will be.
        """
        node_id = self._node(node)
        asked = Request(f"{message!r} to {node_id}")
        self._world.ask(node_id, message, callback=asked._take)
        self._world.driver.settle()
        return asked

    def ask(self, node: Any, message: Any, *, timeout: float = 60.0) -> Any:
        """Tell a node of your own something and let time pass until it replies.

        Parameters
        ----------
        node : str
            Which.
        message : plain data
            What its `on_local` gets.
        timeout : float
            Virtual seconds to wait.

        Raises
        ------
        TimedOut
            If there was no reply by then; it may come yet.
        """
        asked = self.tell(node, message)
        if not self._until(lambda: asked.done, timeout):
            raise TimedOut(f"{self._node(node)} did not reply to {message!r} within {timeout:g} s")
        return asked.result

    # --- nodes of one's own -------------------------------------------------------------------------------

    def add_node(self, node_id: str, make: Callable[[], Any]) -> None:
        """Add a node of your own: a class with callbacks (see `agentflow.core.callbacks`).

        Parameters
        ----------
        node_id : str
            Its name.
        make : callable
            The class, or a function that makes a node; called at every start of the node.

        Examples
        --------
        >>> from agentflow import Simulation
        >>> class Echo:
        ...     def on_local(self, msg, ctx): ctx.send(ctx.peers[0], {"type": "PING", "for": ctx.request})
        ...     def on_PING(self, msg, source, ctx): ctx.reply({"type": "PONG", "for": msg["for"]})
        ...     def on_PONG(self, msg, source, ctx): ctx.reply(f"PONG from {source}", to=msg["for"])
        >>> sim = Simulation(masters=0, seed=7)
        >>> sim.add_node("a", Echo); sim.add_node("b", Echo)
        >>> sim.ask("a", "go")
        'PONG from b'
        """
        if not callable(make):
            raise InvalidConfig(f"{make!r} makes no nodes; give a class with callbacks", field="make")
        self._world.add_node(node_id, make)

    def node(self, node_id: str) -> Any:
        """Return a node of your own, to look at its attributes; None while it is down."""
        machine = self._deployment.host.machine(self._node(node_id))
        return machine.node if isinstance(machine, CallbackMachine) else machine

    _deliver = by_hand(_deliver, lambda number: f"sim.deliver({number})")  # type: ignore[assignment]
    _drop = by_hand(_drop, lambda number: f"sim.drop({number})")  # type: ignore[assignment]
    hold = by_hand(hold)  # type: ignore[assignment]
    release = by_hand(release)  # type: ignore[assignment]
    timeout = by_hand(timeout)  # type: ignore[assignment]
    request = by_hand(request)  # type: ignore[assignment]
    tell = by_hand(tell)  # type: ignore[assignment]
    ask = by_hand(ask)  # type: ignore[assignment]
    add_node = by_hand(add_node)  # type: ignore[assignment]


def number_of(message: Any) -> int:
    """Return the number of a message, however it is named."""
    if isinstance(message, bool):
        raise InvalidConfig(f"{message!r} names no message; give its number", field="message")
    number = getattr(message, "message", message)
    try:
        return int(number)
    except (TypeError, ValueError):
        raise InvalidConfig(
            f"{message!r} names no message; give its number, or a row of pending()", field="message"
        ) from None


def key_command(function: str, args: tuple[Any, ...]) -> ClientCommand:
    """Make the command that a client's method gives."""
    makers: dict[str, tuple[Any, int]] = {"set": (KeySet, 2), "get": (KeyGet, 1), "cas": (KeyCas, 3)}
    if function not in makers:
        raise InvalidConfig(f"a client can set, get and cas; there is no {function!r}", field="function")
    make, count = makers[function]
    if len(args) != count or not isinstance(args[0], str):
        raise InvalidConfig(f"{function} takes a key and {count - 1} values, not {args!r}", field="args")
    command: ClientCommand = make(*args)
    return command


def expire(machine: Machine, now: float, name: str = "") -> None:
    """Make what a machine waits for due now.

    Raises
    ------
    Refused
        If it waits for nothing, or does not let others say when.
    """
    if isinstance(machine, CallbackMachine):
        timers = machine.ctx._timers
        chosen = name or min(timers, key=lambda each: (timers[each], each), default="")
        if chosen not in timers:
            known = ", ".join(sorted(timers)) or "none"
            raise Refused(f"{machine.ctx.id} has no timer {chosen!r} set; set are: {known}")
        timers[chosen] = now
    elif isinstance(machine, Master | RaftMachine):
        raft = machine.raft if isinstance(machine, Master) else machine
        if raft.role is Role.LEADER:
            raft.heartbeat_due = now
        else:
            raft.election_base = now - raft.election_timeout
    elif isinstance(machine, Worker):
        machine._beat_at = now
    elif isinstance(machine, Client):
        for pending in machine._pending.values():
            pending.retry_at = now
    elif hasattr(machine, "expire"):
        machine.expire(now)
    else:
        raise Refused(f"a {type(machine).__name__} does not let others say when its time is up")
