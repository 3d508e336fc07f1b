"""The classic mistakes, as small edits of the core.

Each mutant has a name that can be said in a lesson ("what if we left out `current_term_commit`?"), the
number of the mistake in `tests/core/raft/test_mistakes.py`, its edits, and who kills it. An edit replaces
a text that must occur exactly once in its module, so that a mutant cannot silently become the original.

A killer is a pytest node id, or `run:MODULE ARGUMENTS` for a program that must exit with a failure, such as
a fuzz seed.
"""

from __future__ import annotations

from dataclasses import dataclass

MISTAKES = "tests/core/raft/test_mistakes.py::"


@dataclass(frozen=True)
class Edit:
    module: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    name: str
    mistake: int
    what: str
    edits: tuple[Edit, ...]
    killers: tuple[str, ...]

    @property
    def modules(self) -> frozenset[str]:
        return frozenset(edit.module for edit in self.edits)

    def mutate(self, module: str, source: str) -> str:
        """Return the module's source with this mistake in it."""
        for edit in self.edits:
            if edit.module == module:
                count = source.count(edit.old)
                if count != 1:
                    raise LookupError(f"{self.name}: {edit.old!r} occurs {count} times in {module}")
                source = source.replace(edit.old, edit.new)
        return source


MUTANTS: dict[str, Mutant] = {}


def mutant(mistake: int, name: str, what: str, *edits: tuple[str, str, str], killers: list[str]) -> None:
    """Enter a mutant; modules are named within `agentflow.core`."""
    made = tuple(Edit(f"agentflow.core.{module}", old, new) for module, old, new in edits)
    MUTANTS[name] = Mutant(name, mistake, what, made, tuple(killers))


mutant(
    1,
    "current_term_commit",
    "commits entries of earlier terms by counting copies",
    ("raft.replication", "if index > log.commit and log.term(index) == raft.term:", "if index > log.commit:"),
    killers=[
        MISTAKES + "test_01_an_entry_of_an_old_term_is_not_committed_by_counting_copies",
        "tests/core/raft/test_paper.py::test_a_leader_counts_copies_only_of_entries_of_its_own_term",
    ],
)
mutant(
    2,
    "durable_vote",
    "sends a vote before it is on disk",
    (
        "raft.state",
        "frozenset({MessageType.APP_RESP, MessageType.VOTE_RESP, MessageType.PRE_VOTE_RESP})",
        "frozenset({MessageType.APP_RESP})",
    ),
    (
        "raft.state",
        "        if message.type in PROMISES:\n",
        "        if message.type in PROMISES or message.to == self.id:\n",
    ),
    killers=[MISTAKES + "test_02_a_vote_is_on_disk_before_anybody_hears_of_it"],
)
mutant(
    2,
    "durable_term",
    "writes no term and no vote at all",
    ("raft.handout", "        hard = HardState(*state)\n", "        hard = None\n"),
    killers=[MISTAKES + "test_02_a_whole_cluster_that_restarts_remembers_its_terms"],
)
mutant(
    3,
    "term_with_vote",
    "writes the term first and the vote with the next write",
    (
        "raft.handout",
        "    state = (raft.term, raft.vote, log.commit)\n",
        "    vote = raft.vote if raft.term == raft.handed_hard[0] else None\n"
        "    state = (raft.term, vote, log.commit)\n",
    ),
    killers=[MISTAKES + "test_03_term_and_vote_reach_the_disk_together"],
)
mutant(
    4,
    "vote_kept_within_a_term",
    "forgets its vote when it steps down within a term",
    (
        "raft.elections",
        "        raft.term = term\n        raft.vote = None\n",
        "        raft.term = term\n    raft.vote = None\n",
    ),
    killers=[MISTAKES + "test_04_stepping_down_within_a_term_keeps_the_vote"],
)
mutant(
    5,
    "a_higher_term_is_no_vote",
    "takes the sender of a higher term for one it has voted for, and does not compare logs again",
    (
        "raft.steps",
        '    elections.become_follower(raft, message.term, leader, cause="higher-term")\n',
        '    elections.become_follower(raft, message.term, leader, cause="higher-term")\n'
        "    raft.vote = message.source\n",
    ),
    (
        "raft.elections",
        "    granted = may_vote and raft.log.is_up_to_date(message.index, message.log_term)\n",
        "    granted = raft.vote == message.source or (\n"
        "        may_vote and raft.log.is_up_to_date(message.index, message.log_term)\n"
        "    )\n",
    ),
    killers=[MISTAKES + "test_05_a_higher_term_is_not_a_vote"],
)
mutant(
    6,
    "one_voice_a_voter",
    "counts answers instead of voters",
    (
        "raft.tracker",
        "        self.votes.setdefault(voter, granted)\n",
        "        free = [one for one in self._all_voters if one not in self.votes]\n"
        "        self.votes[free[0] if voter in self.votes and free else voter] = granted\n",
    ),
    killers=[MISTAKES + "test_06_each_voter_counts_once"],
)
mutant(
    6,
    "votes_of_this_term",
    "counts votes of an earlier term",
    (
        "raft.steps",
        "        if term < raft.term:\n            _take_lower(raft, message)\n            return\n",
        "        if term < raft.term and kind is not _T.VOTE_RESP:\n"
        "            _take_lower(raft, message)\n            return\n",
    ),
    (
        "raft.steps",
        "        if not _take_higher(raft, message):\n",
        "        if term > raft.term and not _take_higher(raft, message):\n",
    ),
    killers=[MISTAKES + "test_06_votes_of_an_earlier_term_do_not_count"],
)
mutant(
    6,
    "votes_of_members",
    "counts votes of strangers",
    (
        "raft.steps",
        "    if message.type in RESPONSES and message.source not in raft.tracker.progress:\n",
        "    if False:\n",
    ),
    (
        "raft.quorum",
        "    needed = majority(voters)\n    if granted >= needed:\n",
        "    needed = majority(voters)\n    if sum(votes.values()) >= needed:\n",
    ),
    killers=[MISTAKES + "test_06_votes_of_strangers_do_not_count"],
)
mutant(
    7,
    "a_vote_may_be_asked_twice",
    "refuses the same candidate when it asks again",
    (
        "raft.elections",
        "        raft.vote == message.source\n        or (raft.vote is None and raft.leader is None)\n",
        "        (raft.vote is None and raft.leader is None)\n",
    ),
    killers=[MISTAKES + "test_07_the_same_candidate_may_ask_again"],
)
mutant(
    8,
    "acks_of_this_term",
    "believes acknowledgements of an earlier term",
    (
        "raft.steps",
        "        if term < raft.term:\n            _take_lower(raft, message)\n            return\n",
        "        if term < raft.term and kind is not APP_RESP:\n"
        "            _take_lower(raft, message)\n            return\n",
    ),
    (
        "raft.steps",
        "        if not _take_higher(raft, message):\n",
        "        if term > raft.term and not _take_higher(raft, message):\n",
    ),
    killers=[MISTAKES + "test_08_an_acknowledgement_counts_only_in_its_own_term"],
)
mutant(
    9,
    "match_never_goes_back",
    "takes a late acknowledgement for the newest",
    (
        "raft.progress",
        "        if index <= self.match:\n            return False\n        self.match = index\n",
        "        self.match = index\n",
    ),
    killers=[MISTAKES + "test_09_what_a_follower_has_acknowledged_stays_acknowledged"],
)
mutant(
    10,
    "truncate_only_on_conflict",
    "cuts the log off behind every append",
    (
        "raft.log",
        "                fresh = self._find_conflict(entries)\n",
        "                fresh = 0 if prev >= self.commit else self._find_conflict(entries)\n",
    ),
    killers=[MISTAKES + "test_10_an_old_append_cuts_off_nothing"],
)
mutant(
    11,
    "commit_what_was_vouched_for",
    "takes the leader's commit index as it is",
    (
        "raft.log",
        "        if commit > agreed:\n            commit = agreed\n",
        "        commit = min(commit, self.last)\n",
    ),
    killers=[MISTAKES + "test_11_the_commit_index_covers_only_what_the_message_vouches_for"],
)
mutant(
    12,
    "commit_never_goes_back",
    "lets a heartbeat lower the commit index",
    (
        "raft.following",
        "    if message.commit > raft.log.commit:\n        raft.log.commit_to(message.commit)\n",
        "    if message.commit != raft.log.commit:\n        raft.log.commit = message.commit\n",
    ),
    killers=[MISTAKES + "test_12_the_commit_index_never_goes_back"],
)
mutant(
    13,
    "ack_what_is_on_disk",
    "acknowledges entries before they are on disk",
    (
        "raft.handout",
        "        persist = _write(raft, own, snapshot)\n",
        "        persist = _write(raft, own, snapshot)\n        direct, others = direct + others, ()\n",
    ),
    killers=[MISTAKES + "test_13_an_append_is_acknowledged_only_when_it_is_on_disk"],
)
mutant(
    13,
    "count_the_own_disk",
    "a leader counts itself before its own write is done",
    (
        "raft.replication",
        "    raft.after.append(Message(APP_RESP, raft.id, raft.id, term, index=log.last))\n",
        "    raft.tracker.progress[raft.id].acked(log.last)\n",
    ),
    killers=[MISTAKES + "test_13_a_leader_counts_itself_only_when_its_own_disk_has_it"],
)
mutant(
    14,
    "one_change_at_a_time",
    "proposes a membership change while another waits",
    ("raft.membership", "    if raft.pending_config_index > raft.log.applied:\n", "    if False:\n"),
    killers=[MISTAKES + "test_14_one_change_at_a_time"],
)
mutant(
    14,
    "inherited_changes_first",
    "a new leader changes the membership before it has applied what it inherited",
    (
        "raft.elections",
        "    raft.pending_config_index = raft.log.last\n",
        "    raft.pending_config_index = 0\n",
    ),
    killers=[MISTAKES + "test_14_a_new_leader_changes_no_membership_before_it_has_applied_what_it_inherited"],
)
mutant(
    15,
    "both_majorities_commit",
    "commits with the new majority alone while the configuration is joint",
    (
        "raft.tracker",
        "        if conf.voters_outgoing:\n            index = min(",
        "        if False:\n            index = min(",
    ),
    killers=[MISTAKES + "test_15_a_joint_configuration_needs_both_majorities"],
)
mutant(
    15,
    "both_majorities_elect",
    "is elected by the new majority alone while the configuration is joint",
    (
        "raft.quorum",
        "    first = vote_result(incoming, votes)\n    if not outgoing:\n        return first\n",
        "    first = vote_result(incoming, votes)\n    if outgoing is not None:\n        return first\n",
    ),
    killers=[MISTAKES + "test_15_an_election_in_a_joint_configuration_needs_both_majorities"],
)
mutant(
    16,
    "apply_before_campaign",
    "campaigns while a committed membership change waits to be applied",
    ("raft.elections", "    elif raft.log.has_unapplied_change():\n", "    elif False:\n"),
    killers=[MISTAKES + "test_16_no_campaign_while_a_committed_change_waits_to_be_applied"],
)
mutant(
    16,
    "commit_index_on_disk",
    "leaves the commit index out of its writes",
    (
        "raft.handout",
        "    state = (raft.term, raft.vote, log.commit)\n",
        "    state = (raft.term, raft.vote, 0)\n",
    ),
    killers=[MISTAKES + "test_16_a_restart_does_not_forget_that_a_change_waits"],
)
mutant(
    17,
    "membership_of_the_snapshots_index",
    "puts today's membership into a snapshot of yesterday",
    (
        "raft.membership",
        "        if since <= index:\n            return conf\n",
        "        if since:\n            return raft.tracker.conf\n        return conf\n",
    ),
    killers=[MISTAKES + "test_17_a_snapshot_carries_the_membership_of_its_own_index"],
)
mutant(
    17,
    "membership_from_the_snapshot",
    "keeps its own membership when it installs a snapshot",
    (
        "raft.following",
        "    membership.restore(raft, snapshot.conf, snapshot.index)\n",
        "    membership.restore(raft, raft.tracker.conf, snapshot.index)\n",
    ),
    killers=[MISTAKES + "test_17_a_follower_takes_the_membership_of_the_snapshot"],
)
mutant(
    18,
    "pre_vote",
    "raises its term without asking whether it could win",
    (
        "raft.elections",
        'pre_vote=raft.config.pre_vote and cause != "transfer")',
        "pre_vote=False)",
    ),
    killers=[MISTAKES + "test_18_a_node_that_was_cut_off_disturbs_nobody_when_it_returns"],
)
mutant(
    18,
    "stick_to_the_leader",
    "answers candidates although its leader is alive",
    (
        "raft.elections",
        "    if message.context == TRANSFER_CONTEXT or not sticks_to_leader(raft):\n",
        "    if True:\n",
    ),
    killers=[MISTAKES + "test_18_a_removed_node_deposes_nobody"],
)
mutant(
    19,
    "late_pre_votes_get_an_answer",
    "says nothing to a pre-candidate of a lower term",
    ("raft.steps", "        elections.refuse_late_pre_vote(raft, message)\n", "        pass\n"),
    killers=[MISTAKES + "test_19_a_pre_candidate_of_a_low_term_learns_the_high_one"],
)
mutant(
    19,
    "late_leaders_get_an_answer",
    "says nothing to a leader of a lower term",
    (
        "raft.steps",
        "        raft.post(Message(APP_RESP, message.source, raft.id, raft.term))\n",
        "        pass\n",
    ),
    killers=[MISTAKES + "test_19_a_stale_leader_is_freed_from_its_term"],
)
mutant(
    20,
    "any_append_is_a_sign_of_life",
    "sets its election clock back only at heartbeats",
    (
        "raft.steps",
        "    raft.election_base = raft.heard_at = raft.now\n    raft.leader = message.source\n",
        "    if message.type is HEARTBEAT:\n        raft.election_base = raft.heard_at = raft.now\n"
        "    raft.leader = message.source\n",
    ),
    killers=[MISTAKES + "test_20_a_leader_that_is_alive_is_alive_even_if_its_append_is_refused"],
)
mutant(
    20,
    "a_refused_vote_is_no_sign_of_life",
    "sets its election clock back for candidates it refuses",
    (
        "raft.elections",
        "    if granted and not pre_vote:\n        raft.election_base = raft.now\n        raft.vote = message.source\n",
        "    raft.election_base = raft.now\n    if granted and not pre_vote:\n        raft.vote = message.source\n",
    ),
    killers=[MISTAKES + "test_20_a_refused_vote_and_a_stale_append_are_no_sign_of_a_leader"],
)
mutant(
    21,
    "check_quorum",
    "leads on without a quorum",
    ("raft.elections", "    active = raft.tracker.is_quorum_active()\n", "    active = True\n"),
    killers=[MISTAKES + "test_21_a_leader_without_a_quorum_steps_down"],
)
mutant(
    21,
    "reads_ask_a_quorum",
    "answers reads without asking anybody",
    (
        "raft.reads",
        "    if has_lease(raft):\n",
        "    if True:\n",
    ),
    killers=[MISTAKES + "test_21_a_leader_without_a_quorum_answers_no_reads"],
)
mutant(
    22,
    "own_commit_before_reads",
    "answers reads before it has committed anything itself",
    (
        "raft.reads",
        "    return raft.log.term(raft.log.commit) == raft.term\n",
        "    return True\n",
    ),
    killers=[MISTAKES + "test_22_a_new_leader_answers_reads_only_after_its_first_commit"],
)
mutant(
    22,
    "lease_from_the_sending",
    "counts its lease from when acknowledgements arrive",
    (
        "raft.reads",
        "    heard = {**raft.reads.heard, raft.id: raft.now}\n",
        "    heard = {**{node: raft.now for node, p in raft.tracker.progress.items() if p.is_active}}\n",
    ),
    killers=[MISTAKES + "test_22_a_lease_runs_from_the_sending_of_the_heartbeat"],
)
mutant(
    22,
    "no_lease_after_transfer",
    "keeps its lease although it told another to campaign",
    ("raft.replication", "    raft.lease_forfeited = True\n", ""),
    killers=[MISTAKES + "test_22_no_lease_outlives_the_beginning_of_a_transfer"],
)
mutant(
    23,
    "old_snapshots_are_ignored",
    "installs a snapshot older than its own state",
    (
        "raft.following",
        '    if snapshot.index <= log.commit:\n        reason = "old"\n    elif',
        "    if",
    ),
    (
        "raft.following",
        "log.matches(snapshot.index, snapshot.term):",
        "False:",
    ),
    killers=[MISTAKES + "test_23_an_old_snapshot_rolls_nothing_back"],
)
mutant(
    23,
    "a_known_snapshot_cuts_nothing_off",
    "throws its tail away for a snapshot that it agrees with",
    ("raft.following", "    elif log.matches(snapshot.index, snapshot.term):\n", "    elif False:\n"),
    killers=[MISTAKES + "test_23_a_snapshot_that_the_log_agrees_with_cuts_nothing_off"],
)
mutant(
    24,
    "lost_leadership_is_unknown",
    "calls what it had appended refused when it is deposed",
    (
        "nodes.master",
        "            self._effects.append(Send(client, Unsure(number)))\n        for op in self._ops:\n",
        "            self._effects.append(Send(client, Redirect(number, self.raft.leader)))\n"
        "        for op in self._ops:\n",
    ),
    killers=[MISTAKES + "test_24_what_a_deposed_leader_had_appended_is_unknown_not_refused"],
)
mutant(
    25,
    "sessions",
    "forgets which commands of a client it has applied",
    ("control.sessions", "        if number in session.answers:\n", "        if False:\n"),
    killers=[MISTAKES + "test_25_a_command_that_is_sent_twice_takes_effect_once"],
)
mutant(
    26,
    "no_amnesia_on_return",
    "remembers of a member that was removed what it had acknowledged",
    ("raft.tracker", "class Tracker:\n", "_GONE: dict = {}\n\n\nclass Tracker:\n"),
    (
        "raft.tracker",
        "            known = self.progress.get(node)\n            if known is None or node in outcome.fresh:\n",
        "            known = self.progress.get(node) or _GONE.get((id(self), node))\n"
        "            if known is None:\n",
    ),
    (
        "raft.tracker",
        "        self.conf = conf\n        self.progress = progress\n",
        "        self.conf = conf\n"
        "        _GONE.update({(id(self), node): known for node, known in self.progress.items()})\n"
        "        self.progress = progress\n",
    ),
    killers=[MISTAKES + "test_26_a_member_that_was_removed_and_comes_back_is_taken_at_its_word"],
)
mutant(
    27,
    "writes_of_this_term",
    "believes a late write although its entries were replaced twice since",
    ("raft.durability", "        if write.term == raft.term:\n", "        if True:\n"),
    killers=[MISTAKES + "test_27_a_late_write_of_entries_that_were_replaced_twice_counts_for_nothing"],
)
