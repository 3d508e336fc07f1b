"""etcd's interaction environment (rafttest), driving our machines.

One environment a file: nodes, a queue of messages in flight, and an output in which directives and the
nodes' log lines meet. Time is etcd's: a tick is one second of the node's own clock.

Two habits of etcd's harness shape this file. A node without asynchronous writes stores, applies and
acknowledges in one go (Ready and Advance); with them, each step is a message to a storage thread that the
test delivers by hand. And the snapshot that a node sends is whatever state it has applied last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from etcd_adapter.datadriven import Argument, Case, parse_line
from etcd_adapter.describe import (
    APPEND_THREAD,
    APPLY_THREAD,
    ROLES,
    entries_text,
    hard_state_text,
    message_text,
    progress_text,
    snapshot_text,
)
from etcd_adapter.english import LEVELS, lines

from agentflow.core.machine import Persisted, Woken
from agentflow.core.raft import RaftConfig, RaftMachine, elections
from agentflow.core.raft.confchange import Change, ChangeKind, ConfigChange, Transition, encode_change
from agentflow.core.raft.durability import settle
from agentflow.core.raft.inputs import (
    Applied,
    ApplyConfig,
    ForgetLeader,
    Receive,
    Unreachable,
)
from agentflow.core.raft.messages import (
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Message,
    MessageType,
    Snapshot,
    Stored,
)
from agentflow.core.raft.ready import Ready, SoftState
from agentflow.core.raft.state import PROMISES, PendingWrite, peer_status
from agentflow.errors import Refused

ELECTION_TICKS = 3
UNLIMITED = 1 << 62
_T = MessageType
_RESPONSES = {
    _T.APP_RESP,
    _T.VOTE_RESP,
    _T.HEARTBEAT_RESP,
    _T.UNREACHABLE,
    _T.READ_INDEX_RESP,
    _T.PRE_VOTE_RESP,
    _T.STORAGE_APPEND_RESP,
    _T.STORAGE_APPLY_RESP,
}
_KINDS = {
    "v": ChangeKind.VOTER,
    "l": ChangeKind.LEARNER,
    "r": ChangeKind.REMOVE,
    "u": ChangeKind.UPDATE,
}
_TRANSITIONS = {
    "auto": Transition.AUTO,
    "implicit": Transition.IMPLICIT,
    "explicit": Transition.EXPLICIT,
}


class DirectiveError(Exception):
    """What a directive answers instead of doing its work."""


DROPPED = "raft proposal dropped"
NOT_FOUND = "raft: cannot step as peer not found"


class Output:
    """Text with a log level; at the highest level nothing is written at all."""

    def __init__(self) -> None:
        self.text = ""
        self.level = 0

    @property
    def is_quiet(self) -> bool:
        return self.level == len(LEVELS) - 1

    def write(self, text: str) -> None:
        if not self.is_quiet:
            self.text += text

    def log(self, level: int, text: str) -> None:
        if self.level <= level:
            self.write(f"{LEVELS[level]} {text}\n")

    @contextmanager
    def indented(self) -> Iterator[None]:
        before, self.text = self.text, ""
        try:
            yield
        finally:
            self.text = before + "".join(f"  {line}\n" for line in self.text.splitlines())


@dataclass
class MemoryStorage:
    """What is on a node's disk: entries after `base`."""

    base: int = 0
    entries: list[Entry] = field(default_factory=list)

    @property
    def last(self) -> int:
        return self.base + len(self.entries)

    def append(self, entries: tuple[Entry, ...]) -> None:
        entries = tuple(entry for entry in entries if entry.index > self.base)
        if entries:
            self.entries[entries[0].index - self.base - 1 :] = entries

    def restore(self, snapshot: Snapshot) -> None:
        self.base, self.entries = snapshot.index, []

    def compact(self, index: int) -> None:
        if index <= self.base:
            raise DirectiveError("requested index is unavailable due to compaction")
        assert index <= self.last, f"compact {index} is out of bound lastindex({self.last})"
        self.entries, self.base = self.entries[index - self.base :], index


class Node:
    """One member: our machine, its disk, its storage threads, and everything it has applied."""

    def __init__(self, env: Environment, machine: RaftMachine, snapshot: Snapshot, is_async: bool) -> None:
        self.env = env
        self.machine = machine
        self.is_async = is_async
        self.now = machine.now
        self.storage = MemoryStorage(snapshot.index)
        self.append_work: list[Message] = []
        self.apply_work: list[Message] = []
        self.history = [snapshot]
        self.prev_soft = SoftState(machine.leader, machine.role)
        self.prev_hard = machine.hard_state
        self.note()

    @property
    def id(self) -> str:
        return self.machine.id

    def handle(self, event: object) -> None:
        """Give the machine an event and write down what it says about it."""
        try:
            self.machine.handle(event, self.now)  # type: ignore[arg-type]
        finally:
            self.note()
        self.machine.check_invariants()

    def note(self) -> None:
        events = list(self.machine.events)
        self.machine.events.clear()
        for event in events:
            for level, text in lines(self.id, event):
                self.env.output.log(level, text)

    # --- Ready --------------------------------------------------------------------------------------------

    @property
    def soft(self) -> SoftState:
        return SoftState(self.machine.leader, self.machine.role)

    @property
    def has_ready(self) -> bool:
        machine, log = self.machine, self.machine.log
        hard = machine.hard_state
        return bool(
            self.soft != self.prev_soft
            or (hard != HardState() and hard != self.prev_hard)
            or (log.incoming is not None and not log.incoming_handed)
            or machine.outbox
            or machine.after
            or log.handed < log.last
            or log.has_appliable(machine.config.apply_before_durable)
            or machine.read_states
        )

    def process_ready(self) -> None:
        """Take one Ready, show it, and do what it asks, at once or by way of the storage threads."""
        machine = self.machine
        soft, hard, promises = self.soft, machine.hard_state, tuple(machine.after)
        machine.touched = True
        ready = machine.ready() or Ready()
        write = ready.persist.write if ready.persist else None
        entries = write.entries if write else ()
        messages = [message for message in ready.messages if message.type not in PROMISES]
        synced = (hard.term, hard.vote) != (self.prev_hard.term, self.prev_hard.vote) or bool(entries)
        shown_soft = soft if soft != self.prev_soft else None
        shown_hard = hard if hard != self.prev_hard else None
        if self.is_async:
            messages += self.storage_messages(shown_hard, entries, ready, promises)
        else:
            messages += [message for message in promises if message.to != self.id]
        self.show(synced, shown_soft, shown_hard, ready, entries, messages)
        self.prev_soft, self.prev_hard = soft, hard
        if not self.is_async:
            self.store(entries, ready.snapshot)
            self.apply(ready.committed)
        for message in messages:
            if message.to == APPEND_THREAD:
                self.append_work.append(message)
            elif message.to == APPLY_THREAD:
                self.apply_work.append(message)
            else:
                self.env.messages.append(message)
        if not self.is_async:
            self.advance(ready)

    def show(
        self,
        synced: bool,
        soft: SoftState | None,
        hard: HardState | None,
        ready: Ready,
        entries: tuple[Entry, ...],
        messages: list[Message],
    ) -> None:
        text = ""
        if soft is not None:
            text += f"Lead:{soft.leader or 0} State:{ROLES[soft.role]}\n"
        if hard is not None and hard != HardState():
            text += f"HardState {hard_state_text(hard)}\n"
        if ready.reads:
            shown = " ".join(f"{{{read.index} {list(read.context)}}}" for read in ready.reads)
            text += f"ReadStates [{shown}]\n"
        if entries:
            text += "Entries:\n" + entries_text(entries)
        if ready.snapshot is not None:
            text += f"Snapshot {snapshot_text(ready.snapshot)}\n"
        if ready.committed:
            text += "CommittedEntries:\n" + entries_text(ready.committed)
        if messages:
            text += "Messages:\n" + "".join(message_text(message) + "\n" for message in messages)
        must = str(synced).lower()
        self.env.output.write(f"Ready MustSync={must}:\n{text}" if text else "<empty Ready>")

    def advance(self, ready: Ready) -> None:
        if ready.persist is not None:
            self.handle(Persisted(ready.persist.id))
            self.keep_newest_snapshot()
        if ready.committed:
            self.handle(Applied(ready.committed[-1].index))

    # --- storage ------------------------------------------------------------------------------------------

    def storage_messages(
        self,
        hard: HardState | None,
        entries: tuple[Entry, ...],
        ready: Ready,
        promises: tuple[Message, ...],
    ) -> Iterator[Message]:
        """Return the messages to the storage threads; from here on they settle the machine's writes."""
        self.machine.writes.clear()
        me, log = self.id, self.machine.log
        if hard is not None or entries or ready.snapshot is not None or promises:
            responses = promises
            if log.has_unstable or ready.snapshot is not None:
                last, last_term = (log.last, log.last_term) if log.has_unstable else (0, 0)
                responses += (
                    Message(
                        _T.STORAGE_APPEND_RESP,
                        me,
                        APPEND_THREAD,
                        self.machine.term,
                        last_term,
                        last,
                        snapshot=ready.snapshot,
                    ),
                )
            state = hard or HardState()
            yield Message(
                _T.STORAGE_APPEND,
                APPEND_THREAD,
                me,
                state.term,
                entries=entries,
                commit=state.commit,
                vote=state.vote,
                snapshot=ready.snapshot,
                responses=responses,
            )
        if ready.committed:
            response = Message(_T.STORAGE_APPLY_RESP, me, APPLY_THREAD, entries=ready.committed)
            yield Message(_T.STORAGE_APPLY, APPLY_THREAD, me, entries=ready.committed, responses=(response,))

    def process_append(self) -> None:
        self._process(self.append_work, lambda work: self.store(work.entries, work.snapshot))

    def process_apply(self) -> None:
        self._process(self.apply_work, lambda work: self.apply(work.entries))

    def _process(self, queue: list[Message], perform: Callable[[Message], None]) -> None:
        output = self.env.output
        if not queue:
            kind = "append" if queue is self.append_work else "apply"
            output.write(f"no {kind} work to perform")
            return
        work = queue.pop(0)
        bare = Message(
            work.type,
            work.to,
            work.source,
            work.term,
            entries=work.entries,
            commit=work.commit,
            vote=work.vote,
            snapshot=work.snapshot,
        )
        output.write(f"Processing:\n{message_text(bare)}\n")
        perform(work)
        output.write("Responses:\n" + "".join(message_text(m) + "\n" for m in work.responses))
        self.env.messages += work.responses

    def store(self, entries: tuple[Entry, ...], snapshot: Snapshot | None) -> None:
        if snapshot is not None:
            self.storage.restore(snapshot)
        self.storage.append(entries)

    def apply(self, entries: tuple[Entry, ...]) -> None:
        for entry in entries:
            newest = self.history[-1]
            conf, update = newest.conf, entry.data
            if entry.kind is not EntryKind.NORMAL:
                self.handle(ApplyConfig(entry.index))
                conf, update = self.machine.conf, b""
            self.history.append(Snapshot(entry.index, entry.term, conf, newest.data + update))
        if entries:
            self.keep_newest_snapshot()

    def keep_newest_snapshot(self) -> None:
        self.machine.log.snapshot = self.history[-1]

    # --- messages -----------------------------------------------------------------------------------------

    def step(self, message: Message) -> None:
        """Give the machine a message, or what a storage thread answered."""
        if message.source == APPEND_THREAD:
            index = message.snapshot.index if message.snapshot else 0
            done = PendingWrite(0, (), message.term, message.index, message.log_term, index)
            settle(self.machine, done)
            self.note()
            if index:
                self.keep_newest_snapshot()
        elif message.source == APPLY_THREAD:
            self.handle(Applied(message.entries[-1].index))
        elif message.type in _RESPONSES and message.source not in self.machine.tracker.progress:
            raise DirectiveError(NOT_FOUND)
        else:
            try:
                self.handle(Receive(message))
            except Refused:
                raise DirectiveError(DROPPED) from None

    def propose(self, data: bytes, kind: EntryKind = EntryKind.NORMAL) -> None:
        """Propose as etcd does: what comes at the wrong time is dropped, or emptied."""
        self.step(Message(_T.PROP, self.id, self.id, entries=(Entry(0, 0, data, kind),)))


class Environment:
    """The nodes of one file, and the messages between them."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.messages: list[Message] = []
        self.output = Output()

    # --- directives ---------------------------------------------------------------------------------------

    def handle(self, case: Case) -> str:
        """Run one case; return its output as the file should show it."""
        self.output.text = ""
        error = ""
        try:
            if case.command == "propose-conf-change":
                self.do_propose_conf_change(case)
            else:
                self.run(case.command, case.arguments)
                for line in case.input.splitlines():
                    self.run(*parse_line(line))
        except DirectiveError as refused:
            error = str(refused)
        text = error if error and self.output.is_quiet else self.output.text + error
        text = text or "ok"
        return text if text.endswith("\n") else text + "\n"

    def run(self, command: str, arguments: list[Argument]) -> None:
        directive = getattr(self, "do_" + command.strip("_").replace("-", "_"), None)
        if directive is None:
            raise DirectiveError("unknown command")
        directive(arguments)

    def do_breakpoint(self, arguments: list[Argument]) -> None:
        """Nothing: a place to stop a debugger at."""

    def do_add_nodes(self, arguments: list[Argument]) -> None:
        options = {argument.key: argument.values for argument in arguments[1:]}
        bootstrap = any(key in options for key in ("voters", "learners", "index", "content"))
        index = int(options.get("index", ["0"])[0])
        if bootstrap and index <= 1:
            raise DirectiveError("index must be specified as > 1 due to bootstrap")
        conf = ConfState(tuple(options.get("voters", ())), tuple(options.get("learners", ())))
        content = " ".join(options.get("content", ())).encode()
        snapshot = Snapshot(index, 1, conf, content) if bootstrap else Snapshot()
        is_async = self.flag(options, "async-storage-writes")
        config = self.config(options, is_async)
        for _ in range(int(arguments[0].key)):
            node = str(len(self.nodes) + 1)
            machine = RaftMachine(node, config, stored=Stored(snapshot=snapshot))
            self.nodes.append(Node(self, machine, snapshot, is_async))

    def flag(self, options: dict[str, list[str]], name: str) -> bool:
        return options.get(name, ["false"])[0] == "true"

    def config(self, options: dict[str, list[str]], is_async: bool) -> RaftConfig:
        limit = options.get("max-committed-size-per-ready")
        read_only = options.get("read-only", ["safe"])[0]
        if read_only not in ("safe", "lease-based"):
            raise DirectiveError(f'invalid read-only option "{read_only}"')
        return RaftConfig(
            election_timeout_ms=1000 * ELECTION_TICKS,
            heartbeat_interval_ms=1000,
            election_spread=(1.0, 2.0),
            snapshot_timeout_ms=UNLIMITED,
            join=True,
            pre_vote=self.flag(options, "prevote"),
            check_quorum=self.flag(options, "checkquorum"),
            lease_reads=read_only == "lease-based",
            max_size_per_message=UNLIMITED,
            max_inflight_messages=int(options.get("inflight", [str(UNLIMITED)])[0]),
            max_committed_bytes_per_ready=int(limit[0]) if limit else None,
            disable_config_validation=self.flag(options, "disable-conf-change-validation"),
            step_down_on_removal=self.flag(options, "step-down-on-removal"),
            apply_before_durable=not is_async,
        )

    def do_log_level(self, arguments: list[Argument]) -> None:
        self.set_level(arguments[0].key)

    def set_level(self, name: str) -> None:
        if name.upper() not in LEVELS:
            raise DirectiveError(f"log levels must be either of {list(LEVELS)}")
        self.output.level = LEVELS.index(name.upper())

    def do_campaign(self, arguments: list[Argument]) -> None:
        node = self.node(arguments)
        node.machine.now = node.now
        # By way of the rule itself: through the door, a node that a lease may rest on would not campaign.
        elections.campaign_if_allowed(node.machine, cause="campaign")
        node.note()

    def do_propose(self, arguments: list[Argument]) -> None:
        self.node(arguments).propose(arguments[1].key.encode())

    def do_propose_conf_change(self, case: Case) -> None:
        node = self.node(case.arguments)
        single, transition = False, Transition.AUTO
        for argument in case.arguments[1:]:
            value = argument.values[0]
            if argument.key == "v1":
                single = value == "true"
            elif argument.key != "transition":
                raise DirectiveError(f"unknown command {argument.key}")
            elif value not in _TRANSITIONS:
                raise DirectiveError(f"unknown transition {value}")
            else:
                transition = _TRANSITIONS[value]
        changes = tuple(Change(_KINDS[token[0]], token[1:]) for token in case.input.split())
        if single and (len(changes) > 1 or transition is not Transition.AUTO):
            raise DirectiveError("v1 conf change can only have one operation and no transition")
        kind = EntryKind.CONF_CHANGE if single else EntryKind.CONF_CHANGE_V2
        node.propose(encode_change(ConfigChange(changes, transition)), kind)

    def do_tick_election(self, arguments: list[Argument]) -> None:
        self.tick(arguments, ELECTION_TICKS)

    def do_tick_heartbeat(self, arguments: list[Argument]) -> None:
        self.tick(arguments, 1)

    def tick(self, arguments: list[Argument], ticks: int) -> None:
        node = self.node(arguments)
        for _ in range(ticks):
            node.now += 1
            node.handle(Woken())

    def do_set_randomized_election_timeout(self, arguments: list[Argument]) -> None:
        timeout = next(argument for argument in arguments if argument.key == "timeout")
        self.node(arguments).machine.election_timeout = float(timeout.values[0])

    def do_transfer_leadership(self, arguments: list[Argument]) -> None:
        ends = {argument.key: argument.values[0] for argument in arguments}
        node = self.nodes[int(ends["from"]) - 1]
        machine, to = node.machine, ends["to"]
        machine.now = node.now
        if machine.is_leader:
            # By way of the rule itself: through the door, who is no voter would be refused aloud.
            elections.transfer(machine, to)
        elif machine.leader is None:
            self.output.log(1, f"{node.id} no leader at term {machine.term}; dropping leader transfer msg")
        else:
            machine.post(Message(_T.TRANSFER_LEADER, machine.leader, node.id, machine.term, vote=to))
        node.note()

    def do_forget_leader(self, arguments: list[Argument]) -> None:
        self.node(arguments).handle(ForgetLeader())

    def do_report_unreachable(self, arguments: list[Argument]) -> None:
        if len(arguments) != 2:
            raise DirectiveError(
                "must specify exactly two node indexes: node on which to report, and reported node"
            )
        self.node(arguments).handle(Unreachable(arguments[1].key))

    def do_send_snapshot(self, arguments: list[Argument]) -> None:
        node = self.node(arguments)
        message = Message(_T.SNAP, arguments[1].key, node.id, node.machine.term, snapshot=node.history[-1])
        self.messages.append(message)
        self.output.write(message_text(message))

    def do_compact(self, arguments: list[Argument]) -> None:
        node = self.node(arguments)
        index = int(arguments[1].key)
        node.storage.compact(index)
        node.machine.log.compact(index)
        self.do_raft_log(arguments)

    def do_raft_log(self, arguments: list[Argument]) -> None:
        storage = self.node(arguments).storage
        if storage.entries:
            self.output.write(entries_text(tuple(storage.entries)))
        else:
            first, last = storage.base + 1, storage.last
            self.output.write(f"log is empty: first index={first}, last index={last}")

    def do_raft_state(self, arguments: list[Argument]) -> None:
        for node in self.nodes:
            machine = node.machine
            voter = "(Voter)" if node.id in machine.tracker.voters else "(Non-Voter)"
            self.output.write(
                f"{node.id}: {ROLES[machine.role]} {voter} Term:{machine.term} Lead:{machine.leader or 0}\n"
            )

    def do_status(self, arguments: list[Argument]) -> None:
        machine = self.node(arguments).machine
        if machine.is_leader:
            progress = machine.tracker.progress
            for peer in sorted(progress, key=int):
                self.output.write(f"{peer}: {progress_text(peer_status(progress[peer]))}\n")

    def do_process_ready(self, arguments: list[Argument]) -> None:
        self.each(arguments, "handling Ready", Node.process_ready)

    def do_process_append_thread(self, arguments: list[Argument]) -> None:
        self.each(arguments, "processing append thread", Node.process_append)

    def do_process_apply_thread(self, arguments: list[Argument]) -> None:
        self.each(arguments, "processing apply thread", Node.process_apply)

    def each(self, arguments: list[Argument], what: str, perform: Callable[[Node], None]) -> None:
        nodes = self.chosen(arguments)
        for node in nodes:
            if len(nodes) == 1:
                perform(node)
                continue
            self.output.write(f"> {node.id} {what}\n")
            with self.output.indented():
                perform(node)

    def do_deliver_msgs(self, arguments: list[Argument]) -> None:
        kind: MessageType | None = None
        recipients: list[tuple[str, bool]] = []
        for argument in arguments:
            if not argument.values:
                recipients.append((argument.key, False))
            elif argument.key == "drop":
                recipients += [(value, True) for value in argument.values]
            elif argument.key == "type":
                kind = MessageType(argument.values[0])
        count = sum(self.deliver(node, kind, drop) for node, drop in recipients)
        if count == 0:
            self.output.write("no messages\n")

    def do_stabilize(self, arguments: list[Argument]) -> None:
        before = self.output.level
        for argument in arguments:
            if argument.key == "log-level":
                self.set_level(argument.values[0])
        try:
            self.stabilize(self.chosen(arguments) or self.nodes)
        finally:
            self.output.level = before

    # --- the work -----------------------------------------------------------------------------------------

    def node(self, arguments: list[Argument]) -> Node:
        return self.nodes[int(arguments[0].key) - 1]

    def chosen(self, arguments: list[Argument]) -> list[Node]:
        return [self.nodes[int(argument.key) - 1] for argument in arguments if not argument.values]

    def take(self, to: str, kind: MessageType | None, drop: bool) -> list[Message]:
        """Take the messages for one node out of the queue; what is local cannot be dropped."""
        taken, left = [], []
        for message in self.messages:
            local = message.source in (to, APPEND_THREAD, APPLY_THREAD)
            wanted = message.to == to and not (drop and local) and kind in (None, message.type)
            (taken if wanted else left).append(message)
        self.messages = left
        return taken

    def deliver(self, to: str, kind: MessageType | None = None, drop: bool = False) -> int:
        messages = self.take(to, kind, drop)
        for message in messages:
            self.output.write(("dropped: " if drop else "") + message_text(message) + "\n")
            if drop:
                continue
            try:
                self.nodes[int(to) - 1].step(message)
            except DirectiveError as refused:
                self.output.write(f"{refused}\n")
        return len(messages)

    def stabilize(self, nodes: list[Node]) -> None:
        """Work on these nodes in turns, until nothing is left to do."""
        busy = True
        while busy:
            busy = False
            for node in nodes:
                if node.has_ready:
                    busy = True
                    self.section(node, "handling Ready", node.process_ready)
            for node in nodes:
                if any(message.to == node.id for message in self.messages):
                    busy = True
                    self.section(node, "receiving messages", lambda to=node.id: self.deliver(to))
            for node in nodes:
                if node.append_work:
                    busy = True
                    self.output.write(f"> {node.id} processing append thread\n")
                    while node.append_work:
                        with self.output.indented():
                            node.process_append()
            for node in nodes:
                if node.apply_work:
                    busy = True
                    self.output.write(f"> {node.id} processing apply thread\n")
                    while node.apply_work:
                        with self.output.indented():
                            node.process_apply()

    def section(self, node: Node, what: str, perform: Callable[[], object]) -> None:
        self.output.write(f"> {node.id} {what}\n")
        with self.output.indented():
            perform()
