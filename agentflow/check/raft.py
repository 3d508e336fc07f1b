"""All that is promised of Raft, judged in one pass over a trace.

Law: what is judged here follows from the trace alone; no judge is told what the run was meant to do, but
for the instants at which faults were healed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable

from agentflow.check.judge import Judge, Panel
from agentflow.check.raft_disks import DiskKeeps, OneVote, PersistBeforeSpeaking
from agentflow.check.raft_safety import (
    AppliedOnce,
    CommitMonotone,
    CommitStored,
    ElectionSafety,
    LeaderAppendOnly,
    LeaderCompleteness,
    LogMatching,
    StateMachineSafety,
)
from agentflow.check.raft_service import AcknowledgedKept, LivesAfterHealing, ReadsFresh
from agentflow.check.raft_view import RaftView
from agentflow.check.verdict import Verdict
from agentflow.core.record import Record
from agentflow.ids import NodeId

SAFETY: tuple[type[Judge], ...] = (
    ElectionSafety,
    OneVote,
    LeaderAppendOnly,
    LogMatching,
    LeaderCompleteness,
    StateMachineSafety,
    CommitMonotone,
    CommitStored,
    PersistBeforeSpeaking,
    DiskKeeps,
    AcknowledgedKept,
    ReadsFresh,
)
"""The judges that need nothing but the trace; `AppliedOnce` and `LivesAfterHealing` can be told more."""


def raft_panel(
    *,
    voters: Iterable[NodeId] = (),
    healed: Iterable[float] = (),
    within: float = 10.0,
    effects: Callable[[Record], Iterable[Hashable]] | None = None,
) -> Panel:
    """Call all judges of Raft together, to be fed while a run goes on.

    Parameters
    ----------
    voters : iterable of str
        Who votes, where the trace does not tell.
    healed : iterable of float
        Instants from which on nothing is broken; see `LivesAfterHealing`.
    within : float
        Seconds after such an instant by which the cluster must work again.
    effects : callable, optional
        Names the commands that took effect in a record; see `AppliedOnce`.

    Examples
    --------
    >>> from agentflow.core.raft.events import Role, RoleChanged
    >>> panel = raft_panel()
    >>> panel.feed(Record(0, 1.0, "m1", "role", payload=RoleChanged(Role.LEADER, term=2)))
    >>> panel.feed(Record(1, 1.1, "m2", "role", payload=RoleChanged(Role.LEADER, term=2)))
    <Verdict violated: election safety: m1 and m2 both lead term 2 (t=1.1 s)>
    """
    view = RaftView(tuple(voters))
    judges = [judge(view) for judge in SAFETY]
    judges.append(AppliedOnce(view, effects))
    healed = tuple(healed)
    if healed:
        judges.append(LivesAfterHealing(view, healed=healed, within=within))
    return Panel(judges, view)


def judge_raft(
    records: Iterable[Record],
    *,
    voters: Iterable[NodeId] = (),
    healed: Iterable[float] = (),
    within: float = 10.0,
    effects: Callable[[Record], Iterable[Hashable]] | None = None,
    now: float | None = None,
) -> Verdict:
    """Judge a whole trace.

    Parameters
    ----------
    records : iterable of Record
        The trace, complete from its beginning.
    voters, healed, within, effects
        As for `raft_panel`.
    now : float, optional
        When the run ended; by default with its last record.

    Examples
    --------
    >>> judge_raft([])
    <Verdict ok: raft>
    """
    panel = raft_panel(voters=voters, healed=healed, within=within, effects=effects)
    panel.feed_all(records)
    return panel.finish(now)
