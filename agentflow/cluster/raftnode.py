"""One Raft node in your own hands: start it, stop it, ask it for its vote, propose to it.

`RaftNode` is the machine of `agentflow.core.raft` on agentflow's loop, with a network and a disk. A cluster
uses the same machine without this wrapper.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

import msgspec

from agentflow.core.machine import Answer, Effect, Event, Local, Note, Received, Send, Unreachable, Woken
from agentflow.core.raft import (
    Applied,
    Campaign,
    EntryKind,
    Message,
    MessageType,
    Propose,
    RaftConfig,
    RaftMachine,
    RaftStatus,
    Ready,
    Receive,
    Stored,
)
from agentflow.core.raft import Unreachable as PeerUnreachable
from agentflow.errors import Closed, InvalidConfig, NotLeader, Refused, TimedOut
from agentflow.ids import Index, NodeId, Term
from agentflow.runtime.host import Host
from agentflow.runtime.realtime import RealtimeDriver
from agentflow.runtime.trace import Trace
from agentflow.storage.base import Disk
from agentflow.storage.memory import MemoryDisk
from agentflow.transport.memory import Network
from agentflow.views import Viewable


class VoteRequest(msgspec.Struct, frozen=True):
    """A candidate asks for a vote (paper, section 5.2; `pre_vote`: thesis 9.6)."""

    term: Term
    candidate_id: NodeId
    last_log_index: Index
    last_log_term: Term
    pre_vote: bool = False


class VoteResponse(msgspec.Struct, frozen=True):
    """The answer to a `VoteRequest`."""

    term: Term
    vote_granted: bool


class Committed(msgspec.Struct, frozen=True):
    """A command that a majority holds: it is at `index`, proposed in `term`."""

    index: Index
    term: Term


class _Proposal(msgspec.Struct, frozen=True):
    """Commands of one client; the answer is a tuple with what became of each, in their order."""

    data: tuple[bytes, ...]


class _Nudge(msgspec.Struct, frozen=True):
    """Ask the machine something that has no answer: an election, or heartbeats."""

    event: Any


class _Vote(msgspec.Struct, frozen=True):
    request: VoteRequest


class _Member:
    """The machine that the host runs: Raft, and whoever waits for what it decides."""

    def __init__(self, raft: RaftMachine, apply: Callable[[bytes], Any] | None) -> None:
        self.raft = raft
        self._apply = apply
        self._now = 0.0
        self._proposals: list[tuple[int, tuple[bytes, ...]]] = []
        self._waiting: deque[tuple[int, Index, Index, Term]] = deque()
        """Token, first and last index, and term of what was appended and is not decided."""
        self._asked: dict[NodeId, int] = {}
        self._effects: list[Effect] = []

    @property
    def deadline(self) -> float:
        return self.raft.deadline

    def handle(self, event: Event, now: float) -> None:
        self._now = now
        if isinstance(event, Received):
            if isinstance(event.message, Message):
                self.raft.handle(Receive(event.message), now)
        elif isinstance(event, Local):
            self._local(event, now)
        elif isinstance(event, Unreachable):
            self.raft.handle(PeerUnreachable(event.peer), now)
        else:
            self.raft.handle(event, now)  # type: ignore[arg-type]

    def _local(self, event: Local, now: float) -> None:
        request = event.request
        try:
            if isinstance(request, _Proposal):
                self._proposals.append((event.token, request.data))
                return
            if isinstance(request, _Vote):
                self._vote(event.token, request.request, now)
                return
            assert isinstance(request, _Nudge)
            self.raft.handle(request.event, now)
        except Refused as error:
            self._effects.append(Answer(event.token, error))
            return
        self._effects.append(Answer(event.token, None))

    def _propose(self) -> None:
        """Append what was proposed in this turn, in one step."""
        proposals, self._proposals = self._proposals, []
        try:
            self.raft.handle(Propose(tuple(each for _, data in proposals for each in data)), self._now)
        except Refused as error:
            self._effects += [Answer(token, error) for token, _ in proposals]
            return
        term = self.raft.term
        first = self.raft.last_index + 1 - sum(len(data) for _, data in proposals)
        for token, data in proposals:
            self._waiting.append((token, first, first + len(data) - 1, term))
            first += len(data)

    def _vote(self, token: int, request: VoteRequest, now: float) -> None:
        kind = MessageType.PRE_VOTE if request.pre_vote else MessageType.VOTE
        self._asked[request.candidate_id] = token
        self.raft.handle(
            Receive(
                Message(
                    kind,
                    self.raft.id,
                    request.candidate_id,
                    request.term,
                    log_term=request.last_log_term,
                    index=request.last_log_index,
                )
            ),
            now,
        )

    def ready(self) -> list[Effect]:
        if self._proposals:
            self._propose()
        while (ready := self.raft.ready()) is not None:
            self._perform(ready)
        for token in self._asked.values():
            # No answer is an answer: the vote was not even considered, for a leader is alive.
            self._effects.append(Answer(token, VoteResponse(self.raft.term, False)))
        self._asked.clear()
        effects, self._effects = self._effects, []
        return effects

    def _perform(self, ready: Ready) -> None:
        after = None
        if ready.persist is not None:
            self._effects.append(ready.persist)
            after = ready.persist.id
        for message in ready.messages:
            self._send(message, None)
        for message in ready.messages_after:
            self._send(message, after)
        for event in ready.events:
            self._effects.append(Note(str(event.__struct_config__.tag), event))
        if ready.committed:
            for entry in ready.committed:
                if entry.data and entry.kind is EntryKind.NORMAL and self._apply is not None:
                    self._apply(entry.data)
            self._settle(ready.committed[-1].index)
            self.raft.handle(Applied(ready.committed[-1].index), self._now)

    def _send(self, message: Message, after: int | None) -> None:
        self._effects.append(Send(message.to, message, after))
        if message.type in (MessageType.VOTE_RESP, MessageType.PRE_VOTE_RESP) and message.to in self._asked:
            token = self._asked.pop(message.to)
            self._effects.append(Answer(token, VoteResponse(message.term, not message.reject)))

    def _settle(self, applied: Index) -> None:
        """Answer the proposals whose places in the log are decided."""
        while self._waiting and self._waiting[0][2] <= applied:
            token, first, last, term = self._waiting.popleft()
            outcome: tuple[Committed | NotLeader, ...]
            if self.raft.log.term(last) == term:
                # A leader of that term appended all of them, one after the other.
                outcome = tuple([Committed(index, term) for index in range(first, last + 1)])
            else:
                outcome = tuple([self._fate(index, term) for index in range(first, last + 1)])
            self._effects.append(Answer(token, outcome))

    def _fate(self, index: Index, term: Term) -> Committed | NotLeader:
        if self.raft.log.term(index) == term:
            return Committed(index, term)
        return NotLeader(
            f"another leader's entry took place {index}; propose again at {self.raft.leader}",
            leader=self.raft.leader,
        )


class Proposer:
    """For a client that keeps many commands open: those of one moment go to the node together.

    It is used on agentflow's loop alone. What becomes of a command is told to its callback there: `Committed`,
    or the error that `RaftNode.propose` would raise. Nothing limits the time that takes.

    Parameters
    ----------
    node : RaftNode
        A node that runs.
    """

    def __init__(self, node: RaftNode) -> None:
        self._node = node.id
        self._driver = node._running().driver
        self._data: list[bytes] = []
        self._callbacks: list[Callable[[Any], None]] = []

    def propose(self, command: bytes, callback: Callable[[Any], None]) -> None:
        """Propose a command."""
        if not self._data:
            asyncio.get_running_loop().call_soon(self._send)
        self._data.append(command)
        self._callbacks.append(callback)

    def _send(self) -> None:
        data, callbacks = tuple(self._data), self._callbacks
        self._data, self._callbacks = [], []

        def told(outcome: Any, final: bool) -> None:
            outcomes = outcome if isinstance(outcome, tuple) else [outcome] * len(callbacks)
            for callback, each in zip(callbacks, outcomes, strict=True):
                callback(each)

        self._driver.ask(self._node, _Proposal(data), told)


class _Bus:
    """A host for all nodes on one `Network`; it ends with the last of them."""

    _of: ClassVar[weakref.WeakKeyDictionary[Network, _Bus]] = weakref.WeakKeyDictionary()
    _lock = threading.Lock()
    default = Network()

    def __init__(self, network: Network) -> None:
        self.host = Host(trace=Trace(100_000), network=network)
        self.driver = RealtimeDriver(self.host)
        self.users = 0

    @classmethod
    def acquire(cls, network: Network) -> _Bus:
        with cls._lock:
            bus = cls._of.get(network)
            if bus is None:
                bus = cls._of[network] = cls(network)
            bus.users += 1
            return bus

    def release(self, network: Network) -> None:
        with self._lock:
            self.users -= 1
            if self.users:
                return
            self._of.pop(network, None)
        self.driver.close()


class RaftNode(Viewable):
    """One member of a Raft cluster, started and stopped by hand.

    Parameters
    ----------
    node_id : str
        Its name; one of `config.peers`, or added to them.
    config : RaftConfig
        Settings; by default elections within 5 s.
    network : Network, optional
        The wires; nodes on the same one hear each other. By default the kernel's own.
    storage : Disk, optional
        What it keeps term, vote and log on; by default memory that outlives `stop`.
    apply : callable, optional
        Called with each committed command's bytes, in order, on agentflow's loop.

    Examples
    --------
    >>> import agentflow as af
    >>> async def elect():
    ...     net = af.Network()
    ...     config = af.RaftConfig.fast(peers=["a", "b", "c"])
    ...     nodes = [RaftNode(name, config, network=net) for name in config.peers]
    ...     for node in nodes:
    ...         await node.start()
    ...     await nodes[0].start_election()
    ...     while not any(node.is_leader() for node in nodes):
    ...         await asyncio.sleep(0.01)
    ...     leader = next(node for node in nodes if node.is_leader())
    ...     done = await leader.propose(b"x = 1")
    ...     for node in nodes:
    ...         await node.stop()
    ...     return done.index > 0
    >>> af.run_sync(elect())
    True
    """

    def __init__(
        self,
        node_id: NodeId,
        config: RaftConfig | None = None,
        *,
        network: Network | None = None,
        storage: Disk | None = None,
        apply: Callable[[bytes], Any] | None = None,
    ) -> None:
        if not isinstance(node_id, str) or not node_id:
            raise InvalidConfig(
                f"a node's id is a string with something in it, not {node_id!r}", field="node_id"
            )
        self.id = node_id
        self.config = config if config is not None else RaftConfig()
        self.network = network if network is not None else _Bus.default
        self.storage = storage if storage is not None else MemoryDisk(node_id)
        self._apply = apply
        self._bus: _Bus | None = None

    async def start(self) -> None:
        """Come to life from what its disk holds.

        Raises
        ------
        Refused
            If a node of this name is on the network already.
        """
        if self._bus is not None:
            raise Refused(f"{self.id} is running; stop it before it is started again")
        bus = await asyncio.to_thread(_Bus.acquire, self.network)
        try:
            bus.driver.call(bus.host.add, self.id, self._make, self.storage)
        except BaseException:
            bus.release(self.network)
            raise
        self._bus = bus

    def _make(self, node_id: NodeId, stored: Stored | None, incarnation: int, now: float) -> _Member:
        raft = RaftMachine(node_id, self.config, stored=stored or Stored(), seed=incarnation, now=now)
        return _Member(raft, self._apply)

    async def stop(self) -> None:
        """Go down; the disk is kept. A second time does nothing."""
        bus, self._bus = self._bus, None
        if bus is not None:
            bus.driver.call(bus.host.remove, self.id)
            await asyncio.to_thread(bus.release, self.network)

    async def start_election(self) -> None:
        """Stand for election now, as if the time-out had come."""
        await self._ask(_Nudge(Campaign()))

    async def send_heartbeats(self) -> None:
        """Have the leader tell its followers at once that it is alive.

        Raises
        ------
        NotLeader
            If it does not lead.
        """
        if not self.is_leader():
            raise NotLeader(
                f"{self.id} does not lead; its followers would not listen", leader=self.get_leader()
            )
        bus = self._running()
        bus.driver.call(self._beat)

    def _beat(self) -> None:
        member = self._member()
        member.raft.heartbeat_due = member._now
        self._running().host.post(self.id, Woken())

    async def handle_vote_request(self, request: VoteRequest) -> VoteResponse:
        """Answer a candidate as Raft's rules say: at most one vote a term, to a log at least as good."""
        answer: VoteResponse = await self._ask(_Vote(request))
        return answer

    def is_leader(self) -> bool:
        """Whether it leads, as far as it knows."""
        return bool(self._read(lambda member: member.raft.is_leader))

    def get_leader(self) -> NodeId | None:
        """Whom it follows."""
        leader: NodeId | None = self._read(lambda member: member.raft.leader)
        return leader

    def status(self) -> RaftStatus:
        """What it shows of itself."""
        status: RaftStatus = self._read(lambda member: member.raft.status())
        return status

    async def propose(self, command: bytes | str, forward: bool = False) -> Committed:
        """Have a command committed.

        Parameters
        ----------
        command : bytes or str
            What to append; text is encoded as UTF-8.
        forward : bool
            Pass it to the leader if this node is not it.

        Raises
        ------
        NotLeader
            If this node does not lead and is not to forward; or if the command lost its place to another's.
        TimedOut
            If a majority did not answer within `replication_timeout_ms`: it may have taken effect.
        """
        data = command.encode() if isinstance(command, str) else command
        if not isinstance(data, bytes) or not data:
            raise InvalidConfig(
                f"a command is bytes or text with something in it, not {command!r}", field="command"
            )
        if forward and not self.is_leader() and (leader := self.get_leader()) is not None:
            (result,) = await self._ask(_Proposal((data,)), at=leader)
        else:
            (result,) = await self._ask(_Proposal((data,)))
        if isinstance(result, NotLeader):
            raise result
        assert isinstance(result, Committed)
        return result

    # --- on the loop --------------------------------------------------------------------------------------

    def _running(self) -> _Bus:
        if self._bus is None:
            raise Closed(f"{self.id} is not running; await node.start() first")
        return self._bus

    def _member(self) -> _Member:
        machine = self._running().host.machine(self.id)
        if machine is None:
            raise Closed(f"{self.id} is down: its disk or its `apply` failed; see the trace")
        assert isinstance(machine, _Member)
        return machine

    def _read(self, look: Callable[[_Member], Any]) -> Any:
        return self._running().driver.call(lambda: look(self._member()))

    async def _ask(self, request: Any, at: NodeId | None = None) -> Any:
        bus = self._running()
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def take(result: Any, final: bool) -> None:
            if future.set_running_or_notify_cancel():
                future.set_result(result)

        bus.driver.ask(at or self.id, request, take)
        limit = self.config.replication_timeout_ms / 1000
        try:
            result = await asyncio.wait_for(asyncio.wrap_future(future), limit)
        except TimeoutError:
            raise TimedOut(
                f"{self.id}: no majority answered within {limit:g} s; the command may have taken effect, or may yet"
            ) from None
        if isinstance(result, BaseException):
            raise result
        return result

    def __repr__(self) -> str:
        if self._bus is None:
            return f"<RaftNode {self.id} stopped>"
        status = self.status()
        return f"<RaftNode {self.id} {status.role} term {status.term}>"
