"""Everything the leader knows of everyone: the configuration, each member's progress, and the votes.

Law: progress exists for the members and for nobody else, and is visited in the order of their names.
"""

from __future__ import annotations

from typing import Any

from agentflow.core.raft import quorum
from agentflow.core.raft.confchange import Outcome, members
from agentflow.core.raft.messages import ConfState
from agentflow.core.raft.progress import Inflights, Progress
from agentflow.core.raft.quorum import VoteResult
from agentflow.ids import Index, NodeId


class Tracker:
    """The configuration in force, and what is known of its members.

    Parameters
    ----------
    max_messages, max_bytes
        Limits of each member's window.
    """

    __slots__ = ("_all_voters", "conf", "max_bytes", "max_messages", "progress", "votes")

    def __init__(self, max_messages: int, max_bytes: int | None) -> None:
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.conf = ConfState()
        self.progress: dict[NodeId, Progress] = {}
        self.votes: dict[NodeId, bool] = {}
        self._all_voters: tuple[NodeId, ...] = ()

    @property
    def voters(self) -> tuple[NodeId, ...]:
        """Every voter of either half, sorted."""
        return self._all_voters

    @property
    def is_singleton(self) -> bool:
        """Whether one voter decides alone."""
        return len(self.conf.voters) == 1 and not self.conf.voters_outgoing

    def switch(self, outcome: Outcome, last: Index) -> None:
        """Put a configuration in force; unknown members are probed from the end of the log."""
        conf = outcome.conf
        learners = set(conf.learners)
        progress: dict[NodeId, Progress] = {}
        for node in members(conf):
            known = self.progress.get(node)
            if known is None or node in outcome.fresh:
                # Active at first, lest a look at the quorum depose the leader before it could answer.
                known = Progress(match=0, next=max(last, 1), inflights=self._window(), is_active=True)
            known.is_learner = node in learners
            progress[node] = known
        self.conf = conf
        self.progress = progress
        self._all_voters = tuple(sorted({*conf.voters, *conf.voters_outgoing}))

    def restart(self, me: NodeId, last: Index) -> None:
        """Forget what was known of everyone's log: a new term begins."""
        self.votes = {}
        for node, known in self.progress.items():
            self.progress[node] = Progress(
                match=last if node == me else 0,
                next=last + 1,
                inflights=self._window(),
                is_learner=known.is_learner,
            )

    def _window(self) -> Inflights:
        return Inflights(self.max_messages, self.max_bytes)

    # --- agreement ----------------------------------------------------------------------------------------

    def committed(self) -> Index:
        """Return the highest index that the configuration in force has stored durably."""
        progress, conf = self.progress, self.conf
        index = quorum.majority_index([progress[voter].match for voter in conf.voters])
        if conf.voters_outgoing:
            index = min(index, quorum.majority_index([progress[v].match for v in conf.voters_outgoing]))
        return index

    def heard_since(self, times: dict[NodeId, float]) -> float:
        """Return the latest instant at or after which a quorum was heard of."""
        since = quorum.agreed_since(self.conf.voters, times)
        outgoing = self.conf.voters_outgoing
        return min(since, quorum.agreed_since(outgoing, times)) if outgoing else since

    def is_quorum_active(self) -> bool:
        """Whether a quorum was heard from since the last look."""
        active = {node: p.is_active for node, p in self.progress.items() if not p.is_learner}
        return self.decides(active) is VoteResult.WON

    def decides(self, votes: dict[NodeId, bool]) -> VoteResult:
        """Return where a vote stands in the configuration in force."""
        return quorum.joint_vote_result(self.conf.voters, self.conf.voters_outgoing, votes)

    def record_vote(self, voter: NodeId, granted: bool) -> None:
        """Count a voter's first answer; what it says later changes nothing."""
        self.votes.setdefault(voter, granted)

    def tally(self) -> tuple[int, int, VoteResult]:
        """Return how many members granted, how many rejected, and what that decides."""
        granted = rejected = 0
        for node, progress in self.progress.items():
            if progress.is_learner or node not in self.votes:
                continue
            if self.votes[node]:
                granted += 1
            else:
                rejected += 1
        return granted, rejected, self.decides(self.votes)

    def copy(self) -> Tracker:
        """Return an equal tracker of its own."""
        twin = Tracker(self.max_messages, self.max_bytes)
        twin.conf, twin._all_voters, twin.votes = self.conf, self._all_voters, self.votes.copy()
        twin.progress = {node: progress.copy() for node, progress in self.progress.items()}
        return twin

    def state(self) -> tuple[Any, ...]:
        """Return everything that makes two trackers equal."""
        progress = {node: progress.state_tuple() for node, progress in self.progress.items()}
        return self.conf, self.votes, self.max_messages, self.max_bytes, progress

    def check_invariants(self) -> None:
        """Assert the laws of this module and of `Progress`."""
        assert tuple(self.progress) == members(self.conf), "progress of the members and of nobody else"
        for node, progress in self.progress.items():
            assert 0 <= progress.match < progress.next, f"match < next, of {node}"
            assert progress.is_learner == (node in self.conf.learners), f"learner or not, of {node}"
