"""etcd's quorum and configuration-change cases, run on our pure modules."""

from __future__ import annotations

from collections.abc import Collection

from etcd_adapter.datadriven import Case
from etcd_adapter.describe import config_text, progress_text

from agentflow.core.raft.confchange import (
    Change,
    ChangeKind,
    Objection,
    Outcome,
    enter_joint,
    leave_joint,
    simple,
)
from agentflow.core.raft.quorum import (
    EVERYTHING,
    VoteResult,
    committed_index,
    joint_committed_index,
    joint_vote_result,
    vote_result,
)
from agentflow.core.raft.state import peer_status
from agentflow.core.raft.tracker import Tracker
from agentflow.errors import InvalidConfig

_KINDS = {"v": ChangeKind.VOTER, "l": ChangeKind.LEARNER, "r": ChangeKind.REMOVE, "u": ChangeKind.UPDATE}
_RESULTS = {
    VoteResult.PENDING: "VotePending",
    VoteResult.LOST: "VoteLost",
    VoteResult.WON: "VoteWon",
}
_OBJECTIONS = {
    Objection.ALREADY_JOINT: "config is already joint",
    Objection.NO_VOTERS: "can't make a zero-voter config joint",
    Objection.NOT_JOINT: "can't leave a non-joint config",
    Objection.SIMPLE_IN_JOINT: "can't apply simple config change in joint config",
    Objection.REMOVED_ALL: "removed all voters",
    Objection.TOO_MANY: "more than one voter changed without entering joint config",
}


class QuorumCases:
    """Each case stands alone."""

    def handle(self, case: Case) -> str:
        voters: list[str] = []
        outgoing: list[str] = []
        joint = False
        given: list[str] = []
        for argument in case.arguments:
            if argument.key == "cfg":
                voters = argument.values
            elif argument.key == "cfgj":
                joint = True
                outgoing = [] if argument.values == ["zero"] else argument.values
            else:
                given = argument.values
        everyone = list(dict.fromkeys(voters + outgoing))
        if len(everyone) != len(given):
            return f"error: mismatched input (explicit or _) for voters {everyone}: {given}\n"
        said = {node: value for node, value in zip(everyone, given, strict=True) if value != "_"}
        if case.command == "vote":
            return self.vote(voters, outgoing, joint, {node: value == "y" for node, value in said.items()})
        return self.committed(voters, outgoing, joint, {node: int(value) for node, value in said.items()})

    def vote(self, voters: list[str], outgoing: list[str], joint: bool, votes: dict[str, bool]) -> str:
        if not joint:
            return _RESULTS[vote_result(voters, votes)] + "\n"
        result = joint_vote_result(voters, outgoing, votes)
        other = joint_vote_result(outgoing, voters, votes)
        text = "" if other is result else f"{_RESULTS[other]} <-- via symmetry\n"
        return text + _RESULTS[result] + "\n"

    def committed(self, voters: list[str], outgoing: list[str], joint: bool, acked: dict[str, int]) -> str:
        if joint:
            index = joint_committed_index(voters, outgoing, acked)
            text = describe({*voters, *outgoing}, acked)
            other = joint_committed_index(outgoing, voters, acked)
            if other != index:
                text += f"{shown(other)} <-- via symmetry\n"
            return text + shown(index) + "\n"
        index = committed_index(voters, acked)
        text = describe(voters, acked)
        alternatives = {
            "alternative computation": counted_index(voters, acked),
            "zero-joint quorum": joint_committed_index(voters, [], acked),
            "self-joint quorum": joint_committed_index(voters, voters, acked),
        }
        for name, other in alternatives.items():
            if other != index:
                text += f"{shown(other)} <-- via {name}\n"
        for node in voters:
            own = acked.get(node, 0)
            if index > own > 0:
                for lower in (own - 1, 0):
                    other = committed_index(voters, {**acked, node: lower})
                    if other != index:
                        text += f"{shown(other)} <-- overlaying {node}->{lower}"
        return text + shown(index) + "\n"


def shown(index: int) -> str:
    return "∞" if index == EVERYTHING else str(index)


def counted_index(voters: Collection[str], acked: dict[str, int]) -> int:
    """Return the committed index the slow way: the highest acknowledged by more than half."""
    if not voters:
        return EVERYTHING
    reached = [
        index
        for index in acked.values()
        if sum(acked.get(voter, 0) >= index for voter in voters) > len(voters) // 2
    ]
    return max(reached, default=0)


def describe(voters: Collection[str], acked: dict[str, int]) -> str:
    """Draw the acknowledged indexes as bars, the voters in order of their ids."""
    if not voters:
        return "<empty majority quorum>"
    indexes = [acked.get(node, 0) for node in voters]
    bars = {node: sum(index < acked.get(node, 0) for index in indexes) for node in voters}
    width = len(voters)
    text = " " * width + "    idx\n"
    for node in sorted(voters, key=int):
        if node in acked:
            length = bars[node]
            text += "x" * length + ">" + " " * (width - length)
        else:
            text += "?" + " " * width
        text += f" {acked.get(node, 0):5d}    (id={node})\n"
    return text


class ConfigChangeCases:
    """One configuration a file, changed by case after case."""

    def __init__(self) -> None:
        self.tracker = Tracker(10, None)
        self.last = 0

    def handle(self, case: Case) -> str:
        try:
            return self.run(case)
        finally:
            self.last += 1

    def run(self, case: Case) -> str:
        changes = []
        for token in case.input.split():
            if len(token) < 2:
                return f"unknown token {token}\n"
            if token[0] not in _KINDS:
                return f"unknown input: {token}\n"
            changes.append(Change(_KINDS[token[0]], "" if token[1:] == "0" else token[1:]))
        try:
            outcome = self.change(case, changes)
        except InvalidConfig as refused:
            return _OBJECTIONS[refused.objection] + "\n"
        self.tracker.switch(outcome, self.last)
        progress = self.tracker.progress
        lines = [
            f"{node}: {progress_text(peer_status(progress[node]))}" for node in sorted(progress, key=int)
        ]
        return "\n".join([config_text(self.tracker.conf), *lines]) + "\n"

    def change(self, case: Case, changes: list[Change]) -> Outcome:
        conf = self.tracker.conf
        if case.command == "simple":
            return simple(conf, changes)
        if case.command == "enter-joint":
            wish = [argument.values[0] for argument in case.arguments if argument.key == "autoleave"]
            return enter_joint(conf, changes, auto_leave=wish == ["true"])
        return leave_joint(conf)
