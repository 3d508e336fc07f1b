"""Each judge of Raft is shown a run that keeps its promise and one that breaks exactly that."""

import pytest

from agentflow.check import (
    AppliedOnce,
    CommitMonotone,
    CommitStored,
    DiskKeeps,
    ElectionSafety,
    LeaderAppendOnly,
    LeaderCompleteness,
    LogMatching,
    OneVote,
    PersistBeforeSpeaking,
    StateMachineSafety,
    judge_raft,
    raft_panel,
)
from agentflow.core.raft.events import ConfigChanged
from agentflow.core.raft.messages import ConfState, HardState, Snapshot, Stored

ABC = ("a", "b", "c")


def kept(tape):
    verdict = judge_raft(tape.records)
    assert verdict, verdict.explanation


def broken(tape, promise, *words):
    """Exactly this promise is broken, by the last record; the judge alone says so too."""
    verdict = judge_raft(tape.records)
    assert {part.promise for part in verdict.violations()} == {promise.promise}
    assert verdict.is_violated
    assert verdict.first_bad is verdict.evidence[-1]
    for word in words:
        assert word in verdict.explanation
    judge = promise()
    for record in tape.records:
        judge.feed(record)
    assert judge.verdict.is_violated
    assert judge.verdict.first_bad is verdict.first_bad
    return verdict


@pytest.fixture
def elected(tape, entry):
    """Let a lead term 1 with one committed and applied entry, known to b as well."""
    tape.members(*ABC)
    for node in ABC:
        tape.write(node, term=1, vote="a")
    tape.lead("a", 1)
    tape.now = 1.0
    for node in ABC:
        tape.write(node, entry(1, 1))
    for node in "ab":
        tape.commit(node, 1)
        tape.apply(node, entry(1, 1))
    tape.now = 2.0
    return tape


def test_a_plain_run_breaks_nothing(elected):
    kept(elected)


# --- election safety ----------------------------------------------------------------------------------


def test_one_leader_a_term_is_fine_also_when_it_is_elected_again_later(elected, entry):
    elected.role("a", "follower", 2)
    elected.lead("b", 2)
    kept(elected)


def test_two_leaders_in_one_term_break_election_safety(elected):
    elected.lead("c", 1)
    verdict = broken(elected, ElectionSafety, "a and c both lead term 1")
    assert [record.node for record in verdict.evidence] == ["a", "c"]


# --- leader append-only -------------------------------------------------------------------------------


def test_a_follower_may_overwrite_what_is_not_committed(elected, entry):
    elected.write("c", entry(2, 1), entry(3, 1))
    elected.write("c", entry(2, 2), term=2)
    kept(elected)


def test_a_leader_that_learns_of_a_higher_term_may_overwrite_in_the_same_turn(elected, entry):
    elected.write("a", entry(2, 1))
    elected.write("a", entry(2, 2), term=2)
    elected.role("a", "follower", 2)
    kept(elected)


def test_a_leader_may_write_the_same_entries_again(elected, entry):
    elected.write("a", entry(2, 1))
    elected.write("a", entry(2, 1), entry(3, 1))
    kept(elected)


def test_a_leader_that_shortens_its_log_breaks_append_only(elected, entry):
    elected.write("a", entry(2, 1), entry(3, 1))
    elected.write("a", entry(2, 1))
    elected.records.pop()
    broken(elected, LeaderAppendOnly, "entry 3 of term 1 was deleted")


# --- log matching -------------------------------------------------------------------------------------


def test_logs_may_differ_where_their_terms_do(elected, entry):
    elected.write("b", entry(2, 1))
    elected.write("c", entry(2, 2), term=2)
    kept(elected)


def test_different_entries_of_one_index_and_term_break_log_matching(elected, entry):
    elected.write("b", entry(2, 1, b"this"))
    elected.write("c", entry(2, 1, b"that"), durable=False)
    broken(elected, LogMatching, "b and c hold different entries 2 of term 1")


def test_equal_entries_after_different_ones_break_log_matching(elected, entry):
    elected.write("b", entry(2, 1), entry(3, 3), term=3)
    elected.write("c", entry(2, 2), entry(3, 3), term=3, durable=False)
    broken(elected, LogMatching, "before it b has one of term 1 and c one of term 2")


def test_a_gap_breaks_log_matching(elected, entry):
    elected.write("b", entry(4, 1), durable=False)
    broken(elected, LogMatching, "ended at 1", "next entry is 4")


def test_the_disk_of_a_node_that_starts_is_compared_too(elected, entry):
    elected.crash("c")
    elected.restart("c", Stored(HardState(1, "a"), entries=(entry(1, 1, b"other"),)))
    broken(elected, LogMatching, "hold different entries 1 of term 1")


# --- leader completeness ------------------------------------------------------------------------------


def test_a_new_leader_may_know_of_commits_by_a_snapshot_only(elected, entry):
    elected.write("c", term=2, vote="c", snapshot=Snapshot(1, 1))
    elected.lead("c", 2)
    kept(elected)


def test_a_leader_of_an_old_term_need_not_have_what_was_committed_later(elected, entry):
    for node in "bc":
        elected.write(node, entry(2, 3), term=3)
    elected.lead("b", 3)
    elected.commit("b", 2, term=3)
    elected.write("a", term=2, vote="a")
    elected.lead("a", 2)
    kept(elected)


def test_a_leader_without_a_committed_entry_breaks_leader_completeness(tape, entry):
    tape.members(*ABC)
    tape.write("a", entry(1, 1), term=1, vote="a")
    tape.write("b", entry(1, 1), term=1, vote="a")
    tape.lead("a", 1)
    tape.commit("a", 1)
    tape.write("c", term=2, vote="c")
    tape.lead("c", 2)
    broken(tape, LeaderCompleteness, "c leads term 2 without entry 1 of term 1", "ends at 0")


def test_a_leader_with_another_entry_there_breaks_leader_completeness(tape, entry):
    tape.members(*ABC)
    tape.write("c", entry(1, 2), term=2, vote="c")
    for node in "ab":
        tape.write(node, entry(1, 3), term=3, vote="a")
    tape.lead("a", 3)
    tape.commit("a", 1, term=3)
    tape.write("c", term=4, vote="c")
    tape.lead("c", 4)
    broken(tape, LeaderCompleteness, "its log has one of term 2 there")


# --- state machine safety -----------------------------------------------------------------------------


def test_a_restarted_state_machine_applies_again_from_its_snapshot(elected, entry):
    elected.crash("b")
    elected.restart("b", Stored(HardState(1, "a", 1), entries=(entry(1, 1),)))
    elected.apply("b", entry(1, 1))
    kept(elected)


def test_a_snapshot_takes_the_place_of_what_it_covers(elected, entry):
    for node in "ab":
        elected.write(node, entry(2, 1), entry(3, 1))
    elected.commit("a", 3)
    elected.apply("a", entry(2, 1), entry(3, 1))
    elected.install("c", 2, 1)
    elected.write("c", entry(3, 1))
    elected.commit("c", 3)
    elected.apply("c", entry(3, 1))
    kept(elected)


def test_different_commands_at_one_index_break_state_machine_safety(elected, entry):
    elected.commit("c", 1)
    elected.apply("c", entry(1, 1, b"other"))
    broken(elected, StateMachineSafety, "a and c applied different commands at 1")


def test_applying_what_is_not_committed_breaks_state_machine_safety(elected, entry):
    elected.write("b", entry(2, 1))
    elected.apply("b", entry(2, 1))
    broken(elected, StateMachineSafety, "b applied 2", "commits up to 1 only")


def test_leaving_out_an_index_breaks_state_machine_safety(elected, entry):
    for node in "ab":
        elected.write(node, entry(2, 1), entry(3, 1))
    elected.commit("a", 3)
    elected.apply("a", entry(3, 1))
    broken(elected, StateMachineSafety, "a applied 3 after 1")


def test_going_back_to_an_old_snapshot_breaks_state_machine_safety(elected, entry):
    for node in "ab":
        elected.write(node, entry(2, 1))
    elected.commit("a", 2)
    elected.apply("a", entry(2, 1))
    elected.install("a", 1, 1)
    broken(elected, StateMachineSafety, "had applied 2 and went back to a snapshot at 1")


# --- no command applied twice -------------------------------------------------------------------------


def test_applying_an_index_again_is_found(elected, entry):
    elected.apply("a", entry(1, 1))
    broken(elected, AppliedOnce, "a applied 1 again")


def test_a_retried_command_that_takes_effect_twice_is_found(elected, entry):
    def effects(record):
        return [each.data for each in record.payload.entries]

    for node in "ab":
        elected.write(node, entry(2, 1, b"1.1"))
    elected.commit("a", 2)
    elected.apply("a", entry(2, 1, b"1.1"))
    assert judge_raft(elected.records)
    verdict = judge_raft(elected.records, effects=effects)
    assert [part.promise for part in verdict.violations()] == ["no command applied twice"]
    assert "took effect twice on a" in verdict.explanation


# --- commits ------------------------------------------------------------------------------------------


def test_a_commit_index_may_begin_lower_in_a_new_life(elected, entry):
    for node in "ab":
        elected.write(node, entry(2, 1))
    elected.commit("a", 2)
    elected.crash("a")
    elected.restart("a", Stored(HardState(1, "a", 0), entries=(entry(1, 1), entry(2, 1))))
    elected.commit("a", 1)
    kept(elected)


def test_a_commit_index_that_goes_back_is_found(elected, entry):
    for node in "ab":
        elected.write(node, entry(2, 1))
    elected.commit("a", 2)
    elected.commit("a", 1)
    broken(elected, CommitMonotone, "a went from commit index 2 to 1")


def test_a_stored_commit_index_that_goes_back_is_found(elected, entry):
    elected.write("b", term=1, vote="a", commit=1)
    elected.write("b", term=1, vote="a", commit=0, durable=False)
    broken(elected, CommitMonotone, "stores commit index 0 after 1")


def test_a_commit_index_beyond_the_log_is_found(elected):
    elected.commit("c", 2)
    broken(elected, CommitMonotone, "its log ends at 1")


def test_a_commit_that_is_not_yet_durable_on_a_majority_is_found(elected, entry):
    elected.write("a", entry(2, 1))
    elected.write("b", entry(2, 1), durable=False)
    elected.commit("a", 2)
    broken(elected, CommitStored, "on the disks of a and not of a majority of a, b, c")


def test_a_commit_counts_the_disks_of_nodes_that_are_down(elected, entry):
    for node in "ab":
        elected.write(node, entry(2, 1))
    elected.crash("b")
    elected.commit("a", 2)
    kept(elected)


def test_while_the_membership_changes_both_majorities_are_needed(elected, entry):
    joint = ConfState(voters=("a", "d", "e"), voters_outgoing=ABC)
    elected.add("a", "config", ConfigChanged(1, joint))
    for node in "ab":
        elected.write(node, entry(2, 1))
    elected.commit("a", 2)
    broken(elected, CommitStored, "not of a majority of a, d, e")


def test_two_nodes_that_commit_different_entries_are_found(elected, entry):
    elected.write("c", entry(1, 2, b"other"), term=2)
    elected.commit("c", 1, term=2)
    broken(elected, CommitStored, "c takes entry 1 of term 2 for committed, and a one of term 1")


# --- votes and disks ----------------------------------------------------------------------------------


def test_a_vote_that_was_neither_durable_nor_sent_may_be_cast_again(elected):
    elected.vote("c", "a", 2)
    elected.write("c", term=2, vote="a", durable=False)
    elected.crash("c")
    elected.restart("c", Stored(HardState(1, "a"), entries=()))
    elected.vote("c", "b", 2)
    elected.write("c", term=2, vote="b")
    assert judge_of(OneVote, elected)


def judge_of(judge, tape):
    judge = judge()
    for record in tape.records:
        judge.feed(record)
    return judge.verdict


def test_two_votes_in_one_life_are_found(elected):
    elected.vote("c", "b", 2)
    elected.vote("c", "a", 2)
    broken(elected, OneVote, "c voted for b and for a in term 2")


def test_a_durable_vote_cast_again_after_a_crash_is_found(elected):
    elected.write("c", term=2, vote="b")
    elected.crash("c")
    elected.restart("c")
    elected.vote("c", "a", 2)
    broken(elected, OneVote, "c voted for b and for a in term 2")


def test_refusals_and_pre_votes_are_no_votes(elected):
    elected.vote("c", "b", 2)
    elected.vote("c", "a", 2, granted=False)
    elected.add("c", "vote", elected.records[-1].payload.__class__(2, "a", True, pre_vote=True))
    kept(elected)


def test_a_term_that_goes_back_is_found(elected):
    elected.write("b", term=3)
    elected.write("b", term=2, durable=False)
    broken(elected, OneVote, "stores term 2 after term 3")


def test_a_vote_sent_after_it_is_durable_is_fine(elected):
    elected.write("c", term=2, vote="b")
    elected.send("c", "b", "MsgVoteResp", term=2)
    kept(elected)


def test_a_vote_sent_before_it_is_durable_is_found(elected):
    elected.write("c", term=2, vote="b", durable=False)
    elected.send("c", "b", "MsgVoteResp", term=2)
    broken(elected, PersistBeforeSpeaking, "c granted b in term 2 while its disk holds term 1")


def test_an_acknowledgement_of_entries_that_are_not_durable_is_found(elected, entry):
    number = elected.write("c", entry(2, 1), durable=False)
    elected.send("c", "a", "MsgAppResp", term=1, index=1)
    elected.send("c", "a", "MsgAppResp", term=1, index=2, reject=True)
    kept(elected)
    elected.send("c", "a", "MsgAppResp", term=1, index=2)
    broken(elected, PersistBeforeSpeaking, "entries to 2 while its disk holds them to 1")
    elected.durable("c", number)


def test_a_disk_that_lost_confirmed_entries_is_found(elected, entry):
    elected.crash("b")
    elected.restart("b", Stored(HardState(1, "a", 1), entries=()))
    broken(elected, DiskKeeps, "had confirmed entries to 1 and holds them to 0")


def test_a_disk_that_lost_a_confirmed_vote_is_found(elected):
    elected.crash("b")
    elected.restart("b", Stored(HardState(1, None)))
    broken(elected, DiskKeeps, "had confirmed a vote for a in term 1 and holds None")


def test_what_a_restart_found_is_matched_when_the_trace_does_not_carry_the_disk(elected, entry):
    elected.write("b", entry(2, 1), durable=False)
    elected.write("b", entry(3, 1), durable=False)
    elected.crash("b")
    elected.restart("b")
    elected.started("b", term=1, last=2, last_term=1)
    elected.write("b", entry(3, 1))
    kept(elected)
    panel = raft_panel()
    panel.feed_all(elected.records)
    assert panel.view.node("b").durable.last == 3


def test_a_restart_that_finds_less_than_was_confirmed_is_found_without_the_disk(elected):
    elected.crash("b")
    elected.restart("b")
    elected.started("b", term=1, last=0, last_term=0)
    broken(elected, DiskKeeps, "had confirmed term 1, entries to 1 of term 1")


def test_a_name_given_to_a_new_node_owes_nothing_to_the_old_one(elected):
    elected.add("c", "remove")
    elected.add("c", "start")
    elected.started("c", term=0, last=0, last_term=0)
    elected.vote("c", "b", 1)
    kept(elected)


# --- all together -------------------------------------------------------------------------------------


def test_the_panel_speaks_as_soon_as_a_promise_is_broken(elected):
    panel = raft_panel()
    assert panel.feed_all(elected.records) is None
    bad = elected.lead("c", 1)
    assert panel.feed(bad).first_bad is bad
    assert panel.feed(elected.role("c", "follower", 1)).first_bad is bad


def test_records_of_other_nodes_and_kinds_are_passed_over(elected):
    elected.add("worker-1", "start")
    elected.add("worker-1", "persist", {"stable": 1}, type="1")
    elected.add("worker-1", "persisted", type="1")
    elected.add("worker-1", "crash")
    elected.add("worker-1", "commit", "to a marriage")
    elected.add("", "drop", type="MsgVoteResp")
    kept(elected)


def test_a_commit_index_that_reached_the_disk_unconfirmed_counts_after_the_restart(elected, entry):
    first, second = entry(1, 1), entry(2, 1)
    for node in ("a", "b"):
        elected.write(node, first, second, term=1, vote="a", commit=1)
    elected.write("b", term=1, vote="a", commit=2, durable=False)
    elected.commit("a", 2)
    elected.restart("b")
    elected.started("b", 1, 2, 1, commit=2)
    elected.apply("b", first, second)
    assert judge_raft(elected.records, voters="abc")


def test_a_life_too_short_to_tell_what_it_found_leaves_the_question_open(elected, entry):
    elected.write("b", entry(2, 1), durable=False)
    elected.crash("b")
    elected.restart("b")
    elected.crash("b")
    elected.restart("b")
    elected.started("b", term=1, last=2, last_term=1)
    kept(elected)
