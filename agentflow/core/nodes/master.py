"""A master: Raft below, the control plane on top, and the leader's soft state between them.

Law: what the plane decided is told to nobody before the entry that decided it is committed; only the
leader that has applied an entry of its own term tells it.

Soft state (who was heard when, who follows which run, which orders were sent) belongs to one leadership
and is never replicated: a new leader begins with every worker's heartbeat fresh and asks each what it runs.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import msgspec

from agentflow.core.control.commands import (
    Batch,
    ClientOp,
    Denied,
    KeyGet,
    Op,
    Report,
    TaskKind,
    WorkerLost,
    decode,
    encode,
)
from agentflow.core.control.growing import origin_of
from agentflow.core.control.image import load, save
from agentflow.core.control.ledger import Start
from agentflow.core.control.plane import Plane
from agentflow.core.control.runs import RunState
from agentflow.core.machine import (
    Answer,
    Effect,
    Event,
    Local,
    Note,
    Persisted,
    PersistFailed,
    Received,
    Send,
    Stalled,
    Unreachable,
    Woken,
)
from agentflow.core.nodes.followers import Followers
from agentflow.core.nodes.messages import (
    Ask,
    Enrol,
    Follow,
    Greet,
    Order,
    Orders,
    Pulse,
    Redirect,
    Stranger,
    Tell,
    Unfollow,
    Unsure,
    growth_of,
    sendable,
)
from agentflow.core.nodes.reading import Reading
from agentflow.core.raft import (
    Applied,
    Compact,
    ConfigChange,
    EntriesApplied,
    Entry,
    Message,
    Propose,
    ProposeConfig,
    RaftConfig,
    RaftMachine,
    Receive,
    Snapshot,
    Stored,
    Transfer,
)
from agentflow.core.raft import Unreachable as PeerUnreachable
from agentflow.errors import Refused
from agentflow.ids import AttemptId, NodeId

QUEUE_SAMPLE_SECS = 0.02
"""The trace gets a sample of the queue no more often than this."""

UNFIT = (TypeError, ValueError, OverflowError, RecursionError)
"""What the encoder raises for what cannot be written: a lone surrogate, a number past 64 bits, an object."""

COMPACT_AFTER = 5_000
"""Applied entries after which a master saves its tables, unless it is told otherwise."""

MAX_BATCHES = 2
"""Batches proposed and not yet applied. What arrives meanwhile waits and goes out together."""


class MasterConfig(msgspec.Struct, frozen=True):
    """What a master needs to know beside Raft's own settings.

    Parameters
    ----------
    raft : RaftConfig
        Elections and replication.
    offline_after : float
        Seconds of silence after which a worker is declared dead.
    reorder_after : float
        Seconds after which an order that the worker does not report is sent again.
    compact_after : int
        Applied entries after which the plane is saved and the log before it dropped.
    """

    raft: RaftConfig
    offline_after: float = 1.5
    reorder_after: float = 0.5
    compact_after: int = COMPACT_AFTER


class Leadership:
    """The soft state of one leadership; thrown away with it."""

    __slots__ = ("acknowledge", "followers", "heard", "orders", "queue_seen_at", "sent", "serving", "stop")

    def __init__(self) -> None:
        self.queue_seen_at = -math.inf
        self.serving = False
        self.heard: dict[NodeId, float] = {}
        self.sent: dict[AttemptId, float] = {}
        self.followers = Followers()
        self.orders: dict[NodeId, list[Order]] = {}
        self.stop: dict[NodeId, list[AttemptId]] = {}
        self.acknowledge: dict[NodeId, list[AttemptId]] = {}


class Master:
    """The master's machine.

    Parameters
    ----------
    node_id : str
        Its name; one of the configuration's peers.
    config : MasterConfig
        Settings.
    stored : Stored
        What its disk held.
    seed : int
        Seed of its election time-outs.
    now : float
        The instant it comes to life.
    """

    def __init__(
        self, node_id: NodeId, config: MasterConfig, *, stored: Stored, seed: int, now: float
    ) -> None:
        self.id = node_id
        self.config = config
        self.raft = RaftMachine(node_id, config.raft, stored=stored, seed=seed, now=now)
        self.plane = self._install(stored.snapshot)
        self.lead: Leadership | None = None
        self._now = now
        self._ops: list[Op] = []
        self._batches: deque[tuple[int, int]] = deque()
        self._waiting: dict[tuple[NodeId, int], float] = {}
        self._check_at = math.inf
        self._hold_until = -math.inf
        self._effects: list[Effect] = []
        self._reading = Reading()

    # --- the doors ----------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """The earliest of Raft's, the plane's and the watch over workers and pending commands."""
        if self.lead is None:
            return self.raft.deadline
        return min(self.raft.deadline, self._check_at, self._plane_due)

    @property
    def _plane_due(self) -> float:
        """When to let the plane know the time: a batch that is under way tells it by itself."""
        if not self.is_serving or self._ops or self._batches:
            return math.inf
        return max(self.plane.deadline, self._hold_until)

    @property
    def is_serving(self) -> bool:
        """Whether it leads and has applied an entry of its own term."""
        return self.lead is not None and self.lead.serving

    def handle(self, event: Event, now: float) -> None:
        """Take one event."""
        self._now = now
        if isinstance(event, Received):
            message = event.message
            if isinstance(message, Message):
                self.raft.handle(Receive(message), now)
            else:
                self._receive(event.source, message)
        elif isinstance(event, Persisted | PersistFailed):
            self.raft.handle(event, now)
        elif isinstance(event, Woken):
            if now >= self.raft.deadline:
                self.raft.handle(event, now)
            if now >= self._check_at:
                self._check()
            if now >= self._plane_due:
                self._propose(())
        elif isinstance(event, Unreachable):
            if isinstance(event.message, Message):
                self.raft.handle(PeerUnreachable(event.peer), now)
        elif isinstance(event, Local):
            self._manage(event)
        elif isinstance(event, Stalled):
            self.raft.handle(event, now)
            if self.lead is not None:
                self.lead.heard = {worker: at + event.seconds for worker, at in self.lead.heard.items()}

    def _manage(self, event: Local) -> None:
        """Do what an operator asks: hand leadership over, or change who the masters are."""
        request = event.request
        try:
            if isinstance(request, ConfigChange):
                self.raft.handle(ProposeConfig(request), self._now)
            else:
                assert isinstance(request, Transfer)
                self.raft.handle(request, self._now)
        except Refused as error:
            # A traceback would keep the host, and all it holds, alive for as long as the trace has the answer.
            self._effects.append(Answer(event.token, error.with_traceback(None)))
        else:
            self._effects.append(Answer(event.token, None))

    def ready(self) -> list[Effect]:
        """Hand out what must be done: Raft's effects, then what was newly applied asks for."""
        if self._ops and len(self._batches) < MAX_BATCHES and self.raft.is_leader:
            self._propose(tuple(self._ops))
        while (ready := self.raft.ready()) is not None:
            self._perform(ready)
        if self.lead is not None and self.lead.serving:
            self._direct(self.lead)
        effects, self._effects = self._effects, []
        return effects

    # --- Raft below ---------------------------------------------------------------------------------------

    def _propose(self, ops: tuple[Op, ...]) -> None:
        at = max(self._now, self.plane.at)
        try:
            data = encode(Batch(at, ops))
        except UNFIT:
            ops = tuple(op for op in ops if self._is_fit(op))
            self._ops = list(ops)
            data = encode(Batch(at, ops))
        try:
            self.raft.handle(Propose((data,)), self._now)
        except Refused:
            # The uncommitted tail is full, or leadership is being handed over: the commands wait here.
            self._hold_until = self._now + self.config.raft.heartbeat_interval_ms / 1000
            return
        self._batches.append((self.raft.term, self.raft.last_index))
        self._ops = []

    def _is_fit(self, op: Op) -> bool:
        """Whether an op can be put into the log; who sent one that cannot is told, and nobody else suffers."""
        try:
            encode(Batch(0.0, (op,)))
        except UNFIT as error:
            if isinstance(op, ClientOp):
                self._waiting.pop((op.client, op.number), None)
                denied = Denied(
                    "InvalidConfig", f"the command cannot be kept in a log: {sendable(str(error))}"
                )
                self._effects.append(Send(op.client, tell(op.number, denied)))
            else:
                self._effects.append(Note("unfit", (op.worker, type(op).__name__)))
            return False
        return True

    def _perform(self, ready: Any) -> None:
        effects = self._effects
        after: int | None = None
        if ready.persist is not None:
            effects.append(ready.persist)
            after = ready.persist.id
        for message in ready.messages:
            effects.append(Send(message.to, message))
        for message in ready.messages_after:
            effects.append(Send(message.to, message, after))
        for event in ready.events:
            effects.append(Note(event.__struct_config__.tag, event))
        if self.raft.is_leader != (self.lead is not None):
            self._change_leadership()
        if ready.snapshot is not None:
            self.plane = self._install(ready.snapshot)
        if ready.committed:
            self._apply(ready.committed)
        if ready.reads:
            self._reading.proved(ready.reads)
        if self._reading:
            self._reading.answer(self.plane, self.raft.applied, effects)

    def _install(self, snapshot: Snapshot) -> Plane:
        """Give the plane that a snapshot holds; an empty one holds a new plane."""
        plane = load(snapshot.data) if snapshot.data else Plane()
        plane.directing = False
        self._entries_kept, self._bytes_kept, self._image_bytes = 0, 0, len(snapshot.data)
        return plane

    def _compact(self, entries: tuple[Entry, ...]) -> None:
        """Save the plane when the log behind it has grown long, and longer than twice the last image.

        The second bound keeps the cost of saving a large plane in proportion to what it saves.
        """
        self._entries_kept += len(entries)
        self._bytes_kept += sum(len(entry.data) for entry in entries)
        if self._entries_kept >= self.config.compact_after and self._bytes_kept >= 2 * self._image_bytes:
            image = save(self.plane)
            keep = self.config.compact_after // 10
            self.raft.handle(Compact(entries[-1].index, image, keep), self._now)
            self._entries_kept, self._bytes_kept, self._image_bytes = 0, 0, len(image)
            self._effects.append(Note("compact", (entries[-1].index, len(image))))

    def _apply(self, entries: tuple[Any, ...]) -> None:
        plane, lead = self.plane, self.lead
        for entry in entries:
            if entry.data and not entry.kind:
                batch = decode(entry.data)
                if lead is not None and lead.serving:
                    self._note_losses(batch)
                for client, number, result in plane.apply(batch):
                    if self._waiting.pop((client, number), None) is not None:
                        self._effects.append(Send(client, tell(number, result)))
                if lead is not None and lead.serving:
                    self._acknowledge(lead, batch)
            if lead is not None and not lead.serving and entry.term == self.raft.term:
                self._serve(lead)
        last = entries[-1].index
        while self._batches and self._batches[0][1] <= last:
            self._batches.popleft()
        self._effects.append(Note("apply", EntriesApplied(entries)))
        self.raft.handle(Applied(last), self._now)
        self._compact(entries)

    def _note_losses(self, batch: Batch) -> None:
        """Tell the trace which workers this batch buries, and how much they ran."""
        for op in batch.ops:
            worker = self.plane.workers.get(op.worker) if isinstance(op, WorkerLost) else None
            if worker is not None and worker.alive:
                self._effects.append(Note("lost", (worker.id, len(worker.running))))

    def _change_leadership(self) -> None:
        """Begin a leadership, or answer for what the old one left undecided."""
        if self.raft.is_leader:
            self.lead = Leadership()
            self._check_at = self._now
            return
        self.lead = None
        self.plane.directing = False
        self.plane.take_effects()
        self._check_at = math.inf
        for client, number in self._waiting:
            self._effects.append(Send(client, Unsure(number)))
        for op in self._ops:
            if isinstance(op, ClientOp):
                self._effects.append(Send(op.client, Redirect(op.number, self.raft.leader)))
        self._reading.give_up(self.raft.leader, self._effects)
        self._waiting.clear()
        self._ops.clear()
        self._batches.clear()

    def _serve(self, lead: Leadership) -> None:
        """Begin to direct the workers: everything that earlier leaders committed is applied now."""
        lead.serving = True
        self.plane.directing = True
        for worker in self.plane.workers.values():
            if worker.alive:
                lead.heard[worker.id] = self._now
                self._effects.append(Send(worker.id, Greet(self.raft.term)))
        # Clients with work under way need not find out by waiting in vain.
        for client in {run.client: None for run in self.plane.runs.values() if not run.done}:
            self._effects.append(Send(client, Greet(self.raft.term)))
        self._effects.append(Note("serve", self.raft.term))

    # --- what others say ----------------------------------------------------------------------------------

    def _receive(self, source: NodeId, message: Any) -> None:
        lead = self.lead
        if isinstance(message, Ask):
            self._ask(source, message)
        elif isinstance(message, Enrol):
            self._enrol(source, message)
        elif isinstance(message, Follow):
            if lead is None or not lead.serving:
                self._effects.append(Send(source, Redirect(-1, self.raft.leader)))
            elif (run := self.plane.runs.get(message.run)) is None:
                lead.followers.gone(source, message.run, self._effects)
            else:
                lead.followers.follow(source, run, message, self._effects)
        elif isinstance(message, Unfollow):
            if lead is not None:
                lead.followers.unfollow(source, message.run)
        elif lead is None or not lead.serving:
            return
        elif isinstance(message, Report):
            if message.worker != source:
                self._effects.append(Note("forged", (source, message.worker)))
            elif self._known(lead, source, message.epoch):
                self._ops.append(message)
        elif isinstance(message, Pulse) and self._known(lead, source, message.epoch):
            self._reconcile(lead, source, message)

    def _ask(self, source: NodeId, message: Ask) -> None:
        if self.lead is None or not self.raft.is_leader:
            self._effects.append(Send(source, Redirect(message.number, self.raft.leader)))
            return
        if isinstance(message.command, KeyGet):
            self._reading.ask(self.raft, source, message.number, message.command.key, self._now)
            return
        if (source, message.number) in self._waiting:
            return
        known, answer = self.plane.sessions.lookup(source, message.number)
        if known and self.lead.serving:
            self._effects.append(Send(source, tell(message.number, answer)))
            return
        self._waiting[source, message.number] = limit = (
            self._now + self.config.raft.replication_timeout_ms / 1000
        )
        self._check_at = min(self._check_at, limit)
        self._ops.append(ClientOp(source, message.number, message.floor, message.command))

    def _enrol(self, source: NodeId, message: Enrol) -> None:
        registration = message.registration
        if registration.worker != source:
            self._effects.append(Note("forged", (source, registration.worker)))
            return
        lead = self.lead
        if lead is None:
            self._effects.append(Send(source, Redirect(-1, self.raft.leader)))
            return
        if not lead.serving:
            return
        lead.heard[source] = self._now
        worker = self.plane.workers.get(source)
        if worker is not None and worker.epoch == registration.epoch and worker.alive:
            self._effects.append(Send(source, Greet(self.raft.term)))
        elif worker is not None and worker.epoch >= registration.epoch:
            self._effects.append(Send(source, Stranger(self.raft.term, registration.epoch)))
        elif registration not in self._ops:
            self._ops.append(registration)

    def _known(self, lead: Leadership, source: NodeId, epoch: int) -> bool:
        """Whether the worker is registered in this life; if it is, it was heard now."""
        worker = self.plane.workers.get(source)
        if worker is None or not worker.alive or worker.epoch != epoch:
            self._effects.append(Send(source, Stranger(self.raft.term, epoch)))
            return False
        lead.heard[source] = self._now
        return True

    def _reconcile(self, lead: Leadership, source: NodeId, pulse: Pulse) -> None:
        """Compare what the worker says it has with what it should have, and set it right."""
        self._effects.append(Send(source, Orders(self.raft.term, pulse.epoch)))
        worker = self.plane.workers[source]
        has = set(pulse.attempts)
        for attempt in worker.running:
            if (
                attempt not in has
                and lead.sent.get(attempt, -math.inf) <= self._now - self.config.reorder_after
            ):
                live = self.plane.live[attempt]
                self._order(lead, Start(source, attempt, live.run, live.task))
        for attempt in pulse.attempts:
            if attempt not in worker.running:
                lead.stop.setdefault(source, []).append(attempt)

    # --- what the leader says -----------------------------------------------------------------------------

    def _direct(self, lead: Leadership) -> None:
        """Tell the workers and the followers what the newly applied entries decided."""
        starts, stops, changed = self.plane.take_effects()
        for start in starts:
            if start.attempt in self.plane.live:
                self._order(lead, start)
        if (starts or changed) and self._now >= lead.queue_seen_at + QUEUE_SAMPLE_SECS:
            lead.queue_seen_at = self._now
            self._effects.append(Note("queue", sample(self.plane)))
        if starts:
            placed = [(s.attempt, s.run.id, s.run.ids[s.task], s.worker) for s in starts]
            self._effects.append(Note("assign", placed))
        for stop in stops:
            lead.stop.setdefault(stop.worker, []).append(stop.attempt)
        if lead.orders or lead.stop or lead.acknowledge:
            self._send_orders(lead)
        if changed:
            lead.followers.tell(changed.values(), self._effects)

    def _order(self, lead: Leadership, start: Start) -> None:
        lead.sent[start.attempt] = self._now
        lead.orders.setdefault(start.worker, []).append(order_for(start))

    def _send_orders(self, lead: Leadership) -> None:
        term = self.raft.term
        for worker in {**lead.orders, **lead.stop, **lead.acknowledge}:
            orders = Orders(
                term,
                self.plane.workers[worker].epoch,
                tuple(lead.orders.get(worker, ())),
                tuple(lead.stop.get(worker, ())),
                tuple(lead.acknowledge.get(worker, ())),
            )
            self._effects.append(Send(worker, orders))
        lead.orders, lead.stop, lead.acknowledge = {}, {}, {}

    def _acknowledge(self, lead: Leadership, batch: Batch) -> None:
        for op in batch.ops:
            if isinstance(op, Report):
                attempts = [completion.attempt for completion in op.completions]
                lead.acknowledge.setdefault(op.worker, []).extend(attempts)
                for attempt in attempts:
                    lead.sent.pop(attempt, None)
            elif not isinstance(op, ClientOp | WorkerLost):
                self._effects.append(Send(op.worker, Greet(self.raft.term)))

    def _check(self) -> None:
        """Look for silent workers and for commands that could not be committed in time."""
        lead = self.lead
        assert lead is not None
        now = self._now
        patience = self.config.offline_after
        due = now + patience / 3
        if lead.serving:
            for worker in self.plane.workers.values():
                if not worker.alive:
                    continue
                silent = now - lead.heard.setdefault(worker.id, now)
                buried = any(isinstance(op, WorkerLost) and op.worker == worker.id for op in self._ops)
                if silent >= patience and not buried:
                    self._ops.append(WorkerLost(worker.id, worker.epoch, f"no heartbeat for {silent:.2f} s"))
        for (client, number), limit in list(self._waiting.items()):
            if now >= limit:
                del self._waiting[client, number]
                self._effects.append(Send(client, Unsure(number)))
            else:
                due = min(due, limit)
        self._check_at = due

    def check_invariants(self) -> None:
        """Assert what must hold between any two events."""
        self.raft.check_invariants()
        self.plane.check_invariants()
        assert (self.lead is not None) == self.raft.is_leader or self._effects is not None


class QueueSample(msgspec.Struct, frozen=True):
    """The queue at one moment: waiting tasks by priority, when the oldest entered, how many ever did."""

    low: int
    medium: int
    high: int
    urgent: int
    oldest_at: float | None
    entered: int


def sample(plane: Plane) -> QueueSample:
    """Look at the queue."""
    oldest = plane.queue.oldest()
    _, low, medium, high, urgent = plane.queue.depth
    oldest_at = None if math.isinf(oldest) else oldest
    return QueueSample(low, medium, high, urgent, oldest_at, plane.queue.entered)


def tell(number: int, answer: Any) -> Tell:
    """Put the plane's answer into a message."""
    return Tell(number, denied=answer) if isinstance(answer, Denied) else Tell(number, answer)


def order_for(start: Start) -> Order:
    """What a worker must know to start this attempt.

    Positions are those of the workflow that the task came with: a task may have returned it.
    """
    run, task = start.run, start.task
    kind = run.kind(task)
    base, maker = origin_of(run, task) if run.within else (0, -1)
    needs = run.dependencies[task]
    if kind is TaskKind.JOIN:
        base, maker, needs = (grafted := run.grafts[task]).base, grafted.attempt, grafted.ends
    value = run.value
    # A value that is being made again has no attempt: the worker finds nothing there, and says so.
    strict = task not in run.tallies
    return Order(
        attempt=start.attempt,
        run=run.id,
        task=task,
        id=run.ids[task],
        number=run.tries[task],
        payload=run.payload if maker < 0 else growth_of(maker),
        kind=kind,
        call=(run.item_of[task][0] if kind is TaskKind.ITEM else task) - base,
        item=run.item_of[task][1] if kind is TaskKind.ITEM else -1,
        duration=run.option(task).duration,
        inputs=tuple([(each - base, value[each]) for each in needs if strict or value[each] >= 0]),
        missing=missing_of(run, task, base) if not strict else (),
        base=base,
        locks=run.option(task).locks,
    )


def missing_of(run: RunState, task: int, base: int) -> tuple[tuple[int, int], ...]:
    """The states of the dependencies that have no value, of a task that runs all the same."""
    return tuple((each - base, run.state[each]) for each in run.dependencies[task] if run.value[each] < 0)
