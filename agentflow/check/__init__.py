"""Judges: pure functions from what happened to a verdict.

They are separate from everything they judge. A run leaves a trace (`core.record`), clients leave a history;
a judge reads them and says `ok`, `violated` with the first bad thing and what shows it, or `unknown`.

- `raft_panel`, `judge_raft`: the safety promises of Raft, what is acknowledged, and liveness after healing.
- `check_linearizable`: one order that explains what clients saw, for registers, keys and models of one's own.
- `judge_scheduling`, `judge_messaging`: the same for task runs and for agents' messages.
- `ddmin`: fewer faults that still fail.

Law: nothing here reads a clock, draws a random number or opens anything. A judge costs time linear in the
trace; the search for an order, which may not be, has a budget.
"""

from agentflow.check.history import Failed, History, Invoked, Operation, Returned, Uncertain
from agentflow.check.judge import Judge, Panel
from agentflow.check.linearizable import check_linearizable
from agentflow.check.messaging import MailFact, MessagingJudge, judge_messaging
from agentflow.check.models import ANY, KeyValue, Model, Register
from agentflow.check.raft import judge_raft, raft_panel
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
from agentflow.check.scheduling import SchedulingJudge, TaskFact, judge_scheduling
from agentflow.check.shrink import ddmin
from agentflow.check.verdict import Outcome, Reproduction, Verdict

__all__ = [
    "ANY",
    "AcknowledgedKept",
    "AppliedOnce",
    "CommitMonotone",
    "CommitStored",
    "DiskKeeps",
    "ElectionSafety",
    "Failed",
    "History",
    "Invoked",
    "Judge",
    "KeyValue",
    "LeaderAppendOnly",
    "LeaderCompleteness",
    "LivesAfterHealing",
    "LogMatching",
    "MailFact",
    "MessagingJudge",
    "Model",
    "OneVote",
    "Operation",
    "Outcome",
    "Panel",
    "PersistBeforeSpeaking",
    "RaftView",
    "ReadsFresh",
    "Register",
    "Reproduction",
    "Returned",
    "SchedulingJudge",
    "StateMachineSafety",
    "TaskFact",
    "Uncertain",
    "Verdict",
    "check_linearizable",
    "ddmin",
    "judge_messaging",
    "judge_raft",
    "judge_scheduling",
    "raft_panel",
]
