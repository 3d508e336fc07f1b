"""The door: one Raft node as a machine that takes events and hands out work.

Law: `handle` only changes the node's state; everything that is to happen outside leaves through `ready`,
and nothing that promises leaves before the `Persist` it waits for (thesis 3.8). The protocol choices are
etcd-io/raft's, so that its transcripts can judge ours.

What to do with a message is in `steps`, which sends you on to the rules: `elections` (paper 5.2, 5.4.1;
thesis 4.2.3, 9.6), `replication` and `following` (paper 5.3, 5.4.2), `membership` (thesis 4), `reads`
(thesis 6.4), `proposals`. What the disk answers is in `durability`, what leaves in `handout`.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from typing import Any

from agentflow.core.machine import Persisted, PersistFailed, Stalled, Woken
from agentflow.core.raft import (
    durability,
    elections,
    handout,
    inputs,
    membership,
    proposals,
    reads,
    replication,
    steps,
)
from agentflow.core.raft.config import RaftConfig
from agentflow.core.raft.events import Role, Started
from agentflow.core.raft.inputs import RaftInput
from agentflow.core.raft.log import RaftLog
from agentflow.core.raft.messages import ConfState, EntryKind, HardState, Snapshot, Stored
from agentflow.core.raft.readqueue import ReadQueue
from agentflow.core.raft.ready import Ready, SoftState
from agentflow.core.raft.state import State, comparable, copy_state
from agentflow.core.raft.status import RaftStatus, status_of
from agentflow.core.raft.tracker import Tracker
from agentflow.errors import InvalidConfig, NotLeader
from agentflow.ids import Index, NodeId, Term

_NO_STORED = Stored()


class RaftMachine(State):
    """One member of a Raft cluster.

    Parameters
    ----------
    node_id : str
        Its name.
    config : RaftConfig
        Settings. The voters are `config.peers` unless the stored snapshot names others.
    stored : Stored
        What its disk holds; nothing for a new node.
    seed : int
        Seed of its election time-outs, together with its name.
    now : float
        The time of its start, in seconds on whatever clock `handle` will be given.
    applied : int or None
        How far the user's state has been applied already; by default as far as the stored snapshot.

    Raises
    ------
    InvalidConfig
        If what is stored cannot be started from.

    Examples
    --------
    A cluster of one elects itself as soon as its vote is on disk:

    >>> from agentflow.core.raft import Campaign, Persisted
    >>> node = RaftMachine("a", RaftConfig(peers=["a"], pre_vote=False))
    >>> node.handle(Campaign(), now=0.0)
    >>> write = node.ready().persist
    >>> write.write.hard_state
    HardState(term=1, vote='a', commit=0)
    >>> node.handle(Persisted(write.id), now=0.01)
    >>> node.is_leader, node.term
    (True, 1)
    """

    __slots__ = ()

    def __init__(
        self,
        node_id: NodeId,
        config: RaftConfig,
        *,
        stored: Stored = _NO_STORED,
        seed: int = 0,
        now: float = 0.0,
        applied: Index | None = None,
    ) -> None:
        if not node_id:
            raise InvalidConfig("node_id is empty; use a name", field="node_id")
        hard = stored.hard_state
        log = RaftLog(stored.snapshot, stored.entries, config.max_committed_bytes_per_ready)
        start = log.base if applied is None else applied
        if not log.base <= start <= log.last or hard.commit > log.last:
            raise InvalidConfig(
                f"{node_id} holds entries {log.first} to {log.last}, which do not reach applied={start} and "
                f"commit={hard.commit}; start from a complete disk",
                field="stored",
            )
        log.commit = max(hard.commit, start)
        log.applied = log.applying = start
        self.id, self.config, self.log, self.events = node_id, config, log, log.events
        self.now = self.election_base = now
        self.random = random.Random(f"{seed}/{node_id}")
        self.tracker = Tracker(config.max_inflight_messages, config.max_inflight_bytes)
        self.term, self.vote, self.role, self.leader, self.heir = (
            hard.term,
            hard.vote,
            Role.FOLLOWER,
            None,
            None,
        )
        # After a restart the node may be one on whose silence a lease still rests.
        self.heard_at = now if config.lease_reads and hard.term else -math.inf
        self.heartbeat_due = self.election_timeout = math.inf
        self.pending_config_index = self.uncommitted_bytes = 0
        self.conf_history = []
        self.reads = ReadQueue(config.lease_reads)
        self.lease_forfeited = False
        self.outbox, self.after, self.read_states, self.lost_reads = [], [], [], []
        self.writes, self.next_write = deque(), 1
        self.pending_snapshot = None
        self.failure = None
        self.touched = True
        self._begin(stored.snapshot, start)
        self.handed_hard = (hard.term, hard.vote, log.commit)
        self.handed_soft = SoftState(None, Role.FOLLOWER)

    def _begin(self, snapshot: Snapshot, start: Index) -> None:
        conf = snapshot.conf
        if conf == ConfState():
            names = set(self.config.peers)
            if not self.config.join:
                names.add(self.id)
            conf = ConfState(voters=tuple(sorted(names)))
        membership.restore(self, conf, snapshot.index)
        for entry in self.log.entries(self.log.first, start + 1):
            if entry.kind is not EntryKind.NORMAL:
                membership.apply_entry(self, entry)
        elections.become_follower(self, self.term, None, cause="start")
        log = self.log
        voters = self.tracker.voters
        self.events.append(Started(voters, self.term, log.commit, log.applied, log.last, log.last_term))

    # --- looking ------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """When to call `handle(Woken(), now)` if nothing else happens; `inf` if never."""
        return math.inf if self.failure is not None else elections.deadline(self)

    @property
    def commit(self) -> Index:
        """The commit index, as far as the node knows."""
        return self.log.commit

    @property
    def applied(self) -> Index:
        """The last index that was reported applied."""
        return self.log.applied

    @property
    def last_index(self) -> Index:
        """The end of the log."""
        return self.log.last

    @property
    def last_term(self) -> Term:
        """The term of the last entry."""
        return self.log.last_term

    @property
    def conf(self) -> ConfState:
        """The membership in force at the node."""
        return self.tracker.conf

    @property
    def hard_state(self) -> HardState:
        """Term, vote and commit index as they are now, stored or not."""
        return HardState(self.term, self.vote, self.log.commit)

    def status(self) -> RaftStatus:
        """Return what the node shows of itself."""
        return status_of(self)

    def __repr__(self) -> str:
        return (
            f"<RaftMachine {self.id}: {self.role.value}, term {self.term}, leader {self.leader}, "
            f"commit {self.log.commit} of {self.log.last}>"
        )

    # --- the door in --------------------------------------------------------------------------------------

    def handle(self, event: RaftInput, now: float) -> None:
        """Take one event at one instant.

        Raises
        ------
        Refused
            If a request of the node's own user cannot be taken; then nothing has changed.
        """
        self.now = now
        self.touched = True
        if self.failure is not None:
            _refuse(self, event)
        elif type(event) is inputs.Receive:
            steps.receive(self, event.message)
        else:
            _HANDLERS[type(event)](self, event)

    # --- the door out -------------------------------------------------------------------------------------

    def ready(self) -> Ready | None:
        """Hand out the work of this turn, once; None if there is none."""
        if not self.touched:
            return None
        self.touched = False
        return handout.take_ready(self)

    # --- the whole ----------------------------------------------------------------------------------------

    def copy(self) -> RaftMachine:
        """Return an equal machine of its own; what is frozen is shared."""
        twin = RaftMachine.__new__(RaftMachine)
        copy_state(self, twin)
        return twin

    def __copy__(self) -> RaftMachine:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> RaftMachine:
        return self.copy()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RaftMachine):
            return NotImplemented
        return comparable(self) == comparable(other)

    __hash__ = object.__hash__

    def check_invariants(self) -> None:
        """Assert what must hold between any two events."""
        log, role = self.log, self.role
        log.check_invariants()
        self.tracker.check_invariants()
        assert role is not Role.LEADER or self.leader == self.id, "a leader follows itself"
        assert role is Role.LEADER or self.leader != self.id, "who does not lead does not follow itself"
        assert role is not Role.CANDIDATE or self.vote == self.id, "a candidate voted for itself"
        assert role is Role.LEADER or self.heir is None, "only a leader hands over"
        assert log.last == log.base or log.last_term <= self.term, "no entry is of a later term"
        assert self.handed_hard[0] <= self.term, "the term never goes back"
        assert self.handed_hard[2] <= log.commit, "the commit index never goes back"
        ids = [write.id for write in self.writes]
        assert ids == sorted(ids), "writes keep their order"
        own = self.tracker.progress.get(self.id)
        assert role is not Role.LEADER or own is None or own.match <= log.last, (
            "nobody acks what is not there"
        )


def _refuse(raft: State, event: RaftInput) -> None:
    """Stay silent for the rest of this life, but say so to the node's own user."""
    if isinstance(event, inputs.Propose | inputs.ProposeConfig | inputs.Read | inputs.Transfer):
        raise NotLeader(
            f"{raft.id} stopped because its disk failed ({raft.failure}); ask another node", leader=None
        )


def _wake(raft: State, event: Woken) -> None:
    elections.wake(raft)
    if raft.tracker.conf.auto_leave:
        # A transfer that came to nothing may have kept the leader from this.
        membership.leave_joint_if_due(raft)


def _stall(raft: State, event: Stalled) -> None:
    elections.stall(raft, event.seconds)


def _propose(raft: State, event: inputs.Propose) -> None:
    proposals.propose(raft, event.data, forward=event.forward)


def _propose_config(raft: State, event: inputs.ProposeConfig) -> None:
    proposals.propose_config(raft, event.change, forward=event.forward)


def _campaign(raft: State, event: inputs.Campaign) -> None:
    elections.campaign_on_request(raft)


def _read(raft: State, event: inputs.Read) -> None:
    reads.ask(raft, event.context)


def _transfer(raft: State, event: inputs.Transfer) -> None:
    elections.transfer_on_request(raft, event.to)


def _forget_leader(raft: State, event: inputs.ForgetLeader) -> None:
    elections.forget_leader(raft)


def _unreachable(raft: State, event: inputs.Unreachable) -> None:
    replication.take_unreachable(raft, event.peer)


def _snapshot_reported(raft: State, event: inputs.SnapshotReported) -> None:
    replication.take_snapshot_report(raft, event.peer, event.ok)


_HANDLERS: dict[type, Callable[[State, Any], None]] = {
    Persisted: durability.persisted,
    inputs.Applied: durability.applied,
    Woken: _wake,
    inputs.Propose: _propose,
    inputs.ProposeConfig: _propose_config,
    inputs.Read: _read,
    inputs.Campaign: _campaign,
    inputs.Transfer: _transfer,
    inputs.ForgetLeader: _forget_leader,
    inputs.Unreachable: _unreachable,
    inputs.SnapshotReported: _snapshot_reported,
    inputs.Compact: durability.compact,
    inputs.ApplyConfig: durability.apply_config,
    PersistFailed: durability.persist_failed,
    Stalled: _stall,
}
"""Who takes which event of the node's own."""
