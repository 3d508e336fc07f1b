"""Twenty-seven classic mistakes of Raft implementations, each with a schedule that would expose it.

Every one was made by a system that people relied on. `tests/mutants/run.py` puts each mistake into the
core, one at a time, and shows that a test here (or elsewhere) notices.
"""

from __future__ import annotations

import pytest

from agentflow.core.control.commands import Batch, ClientOp, KeyCas, KeySet
from agentflow.core.control.plane import Plane
from agentflow.core.machine import Received, Send
from agentflow.core.nodes.master import Master, MasterConfig
from agentflow.core.nodes.messages import Ask, Redirect, Unsure
from agentflow.core.raft import (
    Applied,
    Campaign,
    ConfState,
    Entry,
    ForgetLeader,
    HardState,
    Message,
    MessageType,
    Persisted,
    Propose,
    RaftConfig,
    Receive,
    Role,
    Snapshot,
    Stored,
    Transfer,
)
from agentflow.errors import NotLeader, Refused

T = MessageType


# 1 --------------------------------------------------------------------------------------------------------


def test_01_an_entry_of_an_old_term_is_not_committed_by_counting_copies(net):
    """Figure 8 of the paper."""
    n = net(5, max_size_per_message=1)
    n.elect("1")
    n.propose("1", b"old")
    n.step("1")
    n.deliver(n.take(to="2"))
    n.step("2")
    n.queue.clear()
    n.crash("1")
    # 5 leads in term 2 and keeps an entry to itself.
    n.isolate("2")
    n.campaign("5").step("5")
    n.step("5")
    for voter in "34":
        n.deliver(n.take(to=voter))
        n.step(voter)
    n.deliver(n.take(to="5"))
    n.step("5")
    assert n["5"].is_leader
    n.crash("5")
    n.queue.clear()
    n.heal()
    # 1 leads in term 3 and brings the old entry to a majority, but nothing of its own term.
    n.restart("1")
    n.campaign("1").step("1")
    n.queue.clear()
    n.campaign("1").step("1")
    n.step("1")

    def brings_own(message: Message) -> bool:
        """Whether this append would be taken, and has the leader's own entry."""
        return message.to in "25" or (message.index == 2 and n[message.to].last_index >= 2)

    for _ in range(12):
        for node in "1234":
            n.step(node)
        n.deliver([m for m in n.take() if m.type is not T.APP or not brings_own(m)])
    match = {node: progress.match for node, progress in n["1"].tracker.progress.items()}
    assert match == {"1": 3, "2": 0, "3": 2, "4": 2, "5": 0}, "a majority acknowledged the old entry"
    assert n["1"].is_leader
    assert n["1"].commit < 2, "and is not committed all the same"
    n.crash("1")
    n.queue.clear()
    # For 5 may still win and overwrite it.
    n.restart("5")
    n.isolate("2")
    n.campaign("5").run()
    n.campaign("5").run()
    assert n["5"].is_leader
    n.heal()
    n.restart("1")
    n.tick("5", times=3)
    n.run()
    n.tick("5", times=3)
    n.run()
    assert b"old" not in n.commands("5")
    assert n.logs()["1"] == n.logs()["5"]


# 2, 3 -----------------------------------------------------------------------------------------------------


def test_02_a_vote_is_on_disk_before_anybody_hears_of_it(net):
    n = net(3)
    n.slow = {"2"}
    n.campaign("1").campaign("3")
    n.step("1")
    n.step("3")
    n.deliver(n.take(to="2", source="1"))
    n.step("2")
    assert not n.take(source="2"), "no vote leaves before its write is done"
    n.crash("2")
    n.slow.clear()
    n.restart("2")
    n.deliver(n.take(to="2", source="3"))
    n.run()
    assert len(n.leaders) == 1
    assert n["3"].is_leader


def test_02_a_whole_cluster_that_restarts_remembers_its_terms(net):
    n = net(3)
    n.elect("1")
    n.elect("2")
    for node in "123":
        n.crash(node)
    n.queue.clear()
    for node in "123":
        assert n.restart(node).term == 2


@pytest.mark.parametrize("done", [0, 1, 2])
def test_03_term_and_vote_reach_the_disk_together(net, done):
    n = net(3)
    n.slow = {"2"}
    n.handle("2", Receive(Message(T.VOTE, "2", "1", 5)))
    while n.step("2"):
        pass
    granted = False
    for _ in range(min(done, len(n.disks["2"].pending))):
        n.sync("2", 1)
        granted = granted or bool(n.take(kind=T.VOTE_RESP))
    n.crash("2")
    stored = n.disks["2"].stored.hard_state
    assert (stored.term, stored.vote) in {(0, None), (5, "1")}
    n.slow.clear()
    n.restart("2")
    n.handle("2", Receive(Message(T.VOTE, "2", "3", 5)))
    n.step("2")
    (answer,) = n.take(kind=T.VOTE_RESP)
    assert not (granted and not answer.reject), "two votes in one term"


# 4, 5, 6, 7 -----------------------------------------------------------------------------------------------


def test_04_stepping_down_within_a_term_keeps_the_vote(solo):
    node = solo(term=2).candidate()
    node.get(T.APP, "2")
    assert (node.role, node.term, node.vote) == (Role.FOLLOWER, 3, "1")
    node.do(ForgetLeader())
    node.take()
    node.get(T.VOTE, "3", log_term=9, index=9)
    (answer,) = node.take()
    assert answer.reject, "it had voted for itself in this term"


def test_05_a_higher_term_is_not_a_vote(solo, make_log):
    node = solo(log=make_log(1, 1, 1), commit=3).lead()
    for _ in range(2):
        node.get(T.VOTE, "3", term=7, log_term=1, index=1)
        (answer,) = node.take(T.VOTE_RESP)
        assert (answer.term, answer.reject) == (7, True), "the candidate lacks committed entries"
    assert node.vote is None


def test_06_each_voter_counts_once(solo):
    node = solo(size=5).candidate()
    node.get(T.VOTE_RESP, "2").get(T.VOTE_RESP, "2").get(T.VOTE_RESP, "2")
    assert node.role is Role.CANDIDATE


def test_06_votes_of_an_earlier_term_do_not_count(solo):
    node = solo(size=3).candidate().candidate()
    node.get(T.VOTE_RESP, "2", term=1)
    assert node.role is Role.CANDIDATE
    node.get(T.VOTE_RESP, "2", term=2)
    assert node.is_leader


def test_06_votes_of_strangers_do_not_count(solo):
    node = solo(size=3).candidate()
    node.get(T.VOTE_RESP, "8").get(T.VOTE_RESP, "9")
    assert node.role is Role.CANDIDATE


def test_07_the_same_candidate_may_ask_again(net):
    n = net(3)
    n.isolate("3")
    n.campaign("1").step("1")
    n.deliver()
    n.step("2")
    assert n.take(source="2", kind=T.VOTE_RESP), "the answer gets lost"
    n.step("1")
    n.deliver([Message(T.VOTE, "2", "1", 1)])
    n.run()
    assert n["1"].is_leader


# 8, 9, 10, 11, 12 -----------------------------------------------------------------------------------------


def test_08_an_acknowledgement_counts_only_in_its_own_term(net):
    """2 acknowledged entries of term 1, which 3 overwrote in term 2; 1 hears of it as leader of term 3."""
    n = net(5)
    n.elect("1")
    n.isolate("1", "2")
    n.propose("1", b"a", b"b", b"c")
    n.step("1")
    n.deliver()
    n.step("2")
    late = n.take(source="2", to="1")
    assert [message.index for message in late] == [4]
    n.queue.clear()
    n.elect("3")
    n.heal()
    n.tick("3", times=2)
    n.run()
    assert {node.last_index for node in n.nodes.values()} == {2}
    n.elect("1")
    assert n["1"].term == 3
    n.isolate("1")
    n.propose("1", b"d", b"e")
    n.run()
    n.heal()
    n.deliver(late)
    for member, progress in n["1"].tracker.progress.items():
        assert progress.match <= n.disks[member].stored.entries[-1].index


def test_09_what_a_follower_has_acknowledged_stays_acknowledged(solo):
    node = solo().lead()
    node.do(Propose((b"a",))).do(Propose((b"b",)))
    node.get(T.APP_RESP, "2", index=3).get(T.APP_RESP, "2", index=2)
    progress = node.tracker.progress["2"]
    assert (progress.match, progress.next) == (3, 4)


def test_10_an_old_append_cuts_off_nothing(solo):
    entries = tuple(Entry(index, 1, b"x") for index in (1, 2, 3, 4))
    node = solo(term=1)
    node.get(T.APP, entries=entries)
    node.get(T.APP, index=1, log_term=1, entries=entries[1:2])
    assert node.last_index == 4
    assert [message.index for message in node.take(T.APP_RESP)] == [4, 2]


def test_11_the_commit_index_covers_only_what_the_message_vouches_for(solo, make_log):
    log = make_log(*[1] * 10)
    node = solo(log=log, term=2)
    node.get(T.APP, index=9, log_term=1, commit=11)
    assert node.commit == 9
    assert Entry(10, 1, b"1.10") not in node.committed


def test_12_the_commit_index_never_goes_back(solo, make_log):
    node = solo(log=make_log(1, 1, 1), commit=3)
    node.get(T.HEARTBEAT, term=2, commit=1)
    assert node.commit == 3
    node.get(T.APP, term=2, index=3, log_term=1, commit=2)
    assert node.commit == 3


def test_12_a_lost_tail_is_never_called_committed(net):
    n = net(3)
    n.elect("1")
    n.slow = {"2"}
    n.propose("1", b"a")
    n.run()
    n.tick("1")
    n.run()
    assert n["2"].commit == 2, "it knows, from 1 and 3"
    assert n.commands("2") == [], "but does not hold it safely"
    n.crash("2")
    n.slow.clear()
    node = n.restart("2")
    assert node.commit <= node.last_index == 1


# 13 -------------------------------------------------------------------------------------------------------


def test_13_an_append_is_acknowledged_only_when_it_is_on_disk(net):
    n = net(3)
    n.elect("1")
    n.slow = {"2", "3"}
    n.propose("1", b"a")
    n.run()
    assert not n.take(to="1", kind=T.APP_RESP)
    assert n["1"].commit == 1
    # Both followers lose what they had not written: nothing that was promised is lost.
    for node in "23":
        n.crash(node)
    n.slow.clear()
    for node in "23":
        n.restart(node)
    n.tick("1", times=2)
    n.run()
    n.tick("1", times=2)
    n.run()
    assert n["1"].commit == 2
    n.check_committed_stored()


def test_13_a_leader_counts_itself_only_when_its_own_disk_has_it(net):
    n = net(3)
    n.elect("1")
    n.slow = {"1"}
    n.isolate("3")
    n.propose("1", b"a")
    n.run()
    assert n["1"].commit == 1, "one disk of three holds it"
    n.sync("1")
    n.run()
    assert n["1"].commit == 2


# 14, 15, 16, 17 -------------------------------------------------------------------------------------------


def test_14_a_new_leader_changes_no_membership_before_it_has_applied_what_it_inherited(net):
    n = net(3)
    n.elect("1")
    n.isolate("3")
    n.change("1", add=["4"])
    n.step("1")
    n.deliver()
    n.step("2")
    n.crash("1")
    n.queue.clear()
    n.heal()
    n.campaign("2").step("2")
    n.deliver(n.take(to="3"))
    n.step("3")
    n.deliver(n.take(to="2"))
    assert n["2"].is_leader
    with pytest.raises(Refused, match="not applied yet"):
        n.change("2", add=["5"])
    n.run()
    assert n["2"].conf.voters == ("1", "2", "3", "4")


def test_14_one_change_at_a_time(net):
    """Otherwise majorities two changes apart need not meet."""
    n = net(3)
    n.elect("1")
    n.change("1", add=["4"])
    with pytest.raises(Refused, match="not applied yet"):
        n.change("1", add=["5"])


def test_15_a_joint_configuration_needs_both_majorities(net):
    n = net(3)
    n.elect("1")
    for node in "45":
        n.join(node)
    n.change("1", add=["4", "5"], remove=["2", "3"])
    # 2 and 3 vanish as soon as the joint configuration is in force at the leader.
    while not n["1"].conf.voters_outgoing:
        for node in "123":
            n.step(node)
        n.deliver()
    n.isolate("2", "3")
    n.queue.clear()
    for _ in range(4):
        n.tick("1", times=2)
        n.run()
    commit = n["1"].commit
    index = n.propose("1", b"only the new majority has it")
    n.run()
    assert n["4"].last_index == n["5"].last_index == index
    assert n["1"].commit == commit < index
    assert n["1"].conf.voters_outgoing, "nor is the joint configuration left"
    n.heal()
    n.tick("1", times=2)
    n.run()
    n.tick("1", times=2)
    n.run()
    assert not n["1"].conf.voters_outgoing
    assert n["1"].conf.voters == ("1", "4", "5")


def test_15_an_election_in_a_joint_configuration_needs_both_majorities(solo):
    conf = ConfState(voters=("1", "4", "5"), voters_outgoing=("1", "2", "3"))
    node = solo(stored=Stored(HardState(1, None, 5), Snapshot(5, 1, conf))).candidate()
    node.get(T.VOTE_RESP, "4").get(T.VOTE_RESP, "5")
    assert node.role is Role.CANDIDATE
    node.get(T.VOTE_RESP, "3")
    assert node.is_leader


def test_16_no_campaign_while_a_committed_change_waits_to_be_applied(net):
    n = net(3)
    n.elect("1")
    n.idle = {"2"}
    n.change("1", add=["4"])
    n.run()
    assert n["2"].commit == 2 > n["2"].applied
    n.campaign("2")
    assert n["2"].role is Role.FOLLOWER
    n.handle("2", Applied(2))
    n.campaign("2")
    assert n["2"].role is Role.CANDIDATE
    assert n["2"].tracker.voters == ("1", "2", "3", "4")


def test_16_a_restart_does_not_forget_that_a_change_waits(net):
    """The commit index that came with an entry is on disk with it."""
    n = net(3)
    n.elect("1")
    n.idle = {"2"}
    n.change("1", add=["4"])
    n.run()
    n.idle.clear()
    n.propose("1", b"after")
    n.run()
    n.crash("2")
    node = n.restart("2")
    assert node.commit >= 2
    n.handle("2", Campaign())
    assert node.role is Role.FOLLOWER


def test_17_a_snapshot_carries_the_membership_of_its_own_index(net):
    n = net(3)
    n.elect("1")
    before = n.propose("1", b"a")
    n.run()
    n.change("1", add=["4"])
    n.run()
    n.compact("1", before)
    assert n["1"].log.snapshot.conf.voters == ("1", "2", "3")
    n.compact("1")
    assert n["1"].log.snapshot.conf.voters == ("1", "2", "3", "4")


def test_17_a_follower_takes_the_membership_of_the_snapshot(solo, make_log):
    node = solo(log=make_log(1, 1, 1))
    conf = ConfState(voters=("1", "2", "4"))
    node.get(T.SNAP, term=2, snapshot=Snapshot(9, 2, conf, b"s"))
    assert node.conf == conf
    assert node.log.snapshot == Snapshot(9, 2, conf, b"s")


def test_17_a_change_that_is_truncated_was_never_in_force(net):
    n = net(3)
    n.elect("1")
    n.isolate("1")
    n.change("1", add=["4"])
    n.run()
    n.elect("2")
    n.heal()
    n.tick("2")
    n.run()
    assert n["1"].conf.voters == ("1", "2", "3")
    assert n.logs()["1"] == n.logs()["2"]


# 18, 19, 20, 21 -------------------------------------------------------------------------------------------


def test_18_a_node_that_was_cut_off_disturbs_nobody_when_it_returns(net):
    n = net(3, pre_vote=True, check_quorum=True)
    n.elect("1")
    term = n["1"].term
    n.isolate("3")
    for _ in range(20 * 15):
        n.tick()
        n.run()
    n.heal()
    for _ in range(30):
        n.tick()
        n.run()
    assert n["1"].is_leader
    assert {node.term for node in n.nodes.values()} == {term}


def test_18_a_removed_node_deposes_nobody(net):
    n = net(4, check_quorum=True)
    n.elect("1")
    n.isolate("4")
    n.change("1", remove=["4"])
    n.run()
    n.heal()
    for _ in range(60):
        n.tick()
        n.run()
    assert n["4"].term > 1, "it does not know, and asks for votes"
    assert n["1"].is_leader
    assert n["1"].term == 1


def test_19_a_pre_candidate_of_a_low_term_learns_the_high_one(solo, make_log, net):
    """The better log is in term 2, the higher term at the worse log; the third is dead: they must agree."""
    n = net(3, pre_vote=True)
    n.add("1", Stored(HardState(2, None, 0), Snapshot(), make_log(1, 2)))
    n.add("2", Stored(HardState(5, None, 0), Snapshot(), make_log(1)))
    n.crash("3")
    for _ in range(6 * 20):
        n.tick()
        n.run()
    assert n["1"].is_leader


def test_19_a_stale_leader_is_freed_from_its_term(net):
    """With votes ignored, a node that is ahead in its term would be stuck for ever."""
    n = net(3, check_quorum=True)
    n.elect("1")
    n.isolate("3")
    for _ in range(40):
        n.tick()
        n.run()
    assert n["3"].term > n["1"].term == 1
    n.heal()
    for _ in range(60):
        n.tick()
        n.run()
    assert len({node.term for node in n.nodes.values()}) == 1
    assert n.leader is not None


def test_20_a_leader_that_is_alive_is_alive_even_if_its_append_is_refused(solo, make_log):
    node = solo(log=make_log(1), term=2)
    for _ in range(60):
        node.tick(5)
        node.get(T.APP, index=9, log_term=2)
        assert node.take(T.APP_RESP)[0].reject
    assert (node.role, node.term) == (Role.FOLLOWER, 2)


def test_20_a_refused_vote_and_a_stale_append_are_no_sign_of_a_leader(solo, make_log):
    node = solo(log=make_log(1, 2, 2), term=3, vote="2")
    due = node.deadline
    node.tick(5)
    node.get(T.VOTE, "3").get(T.APP, "2", term=2)
    assert node.deadline == due
    node.get(T.VOTE, "2", log_term=9, index=9)
    assert node.deadline > due, "but a granted one gives the candidate time"


def test_21_a_leader_without_a_quorum_steps_down(net):
    n = net(3, check_quorum=True)
    n.elect("1")
    n.isolate("1")
    for _ in range(2 * 10):
        n.tick()
        n.run()
    assert n["1"].role is Role.FOLLOWER
    with pytest.raises(NotLeader):
        n.propose("1", b"x")


def test_21_a_leader_without_a_quorum_answers_no_reads(net):
    n = net(3)
    n.elect("1")
    n.isolate("1")
    n.elect("2")
    n.propose("2", b"new")
    n.run()
    n.read("1", b"r1")
    n.run()
    assert n.reads["1"] == []
    n.heal()
    n.tick("2")
    n.run()
    assert n.reads["1"] == []
    assert n.lost["1"] == [b"r1"]


# 22, 23 ---------------------------------------------------------------------------------------------------


def test_22_a_new_leader_answers_reads_only_after_its_first_commit(net):
    n = net(3)
    n.elect("1")
    # 2 holds everything, but does not hear of the last commit.
    n.propose("1", b"a")
    n.step("1")
    n.deliver()
    n.step("2")
    n.deliver()
    n.step("1")
    assert n["1"].commit == 2
    assert n["2"].commit == 1
    n.queue.clear()
    n.campaign("2").step("2")
    n.deliver(n.take(to="3"))
    n.step("3")
    n.deliver(n.take(to="2"))
    assert n["2"].is_leader
    n.read("2", b"r")
    assert n["2"].commit < 2
    n.handle("2", Receive(Message(T.HEARTBEAT_RESP, "2", "3", n["2"].term)))
    assert n["2"].read_states == []
    n.run()
    assert [read.context for read in n.reads["2"]] == [b"r"]
    assert n.reads["2"][0].index >= 2


def test_22_a_lease_runs_from_the_sending_of_the_heartbeat(net):
    """Its acknowledgement may take any time; the followers' patience began when it arrived there."""
    n = net(3, check_quorum=True, lease_reads=True, max_clock_drift=0.1)
    n.elect("1")
    n.tick("1")
    n.step("1")
    n.deliver()
    for node in "23":
        n.step(node)
    late = n.take(to="1")
    n.now += 8.9
    n.deliver(late)
    n.read("1", b"r1")
    n.step("1")
    assert [read.context for read in n.reads["1"]] == [b"r1"], "9 s of 10, less a tenth for drift"
    n.now += 0.2
    n.read("1", b"r2")
    n.step("1")
    assert len(n.reads["1"]) == 1, "a lease is not renewed by late answers"


def test_22_no_lease_outlives_the_beginning_of_a_transfer(net):
    n = net(3, check_quorum=True, lease_reads=True)
    n.elect("1")
    n.tick("1")
    n.run()
    n.read("1", b"r1")
    n.step("1")
    assert len(n.reads["1"]) == 1
    n.handle("1", Transfer("2"))
    n.read("1", b"r2")
    n.step("1")
    assert len(n.reads["1"]) == 1, "the heir may lead already"


def test_23_an_old_snapshot_rolls_nothing_back(net):
    n = net(3)
    n.elect("1")
    n.isolate("3")
    n.propose("1", b"a")
    n.run()
    n.compact("1")
    n.heal()
    n.tick("1", times=2)
    for _ in range(8):
        for node in "123":
            n.step(node)
        if any(m.type is T.SNAP for m in n.queue):
            break
        n.deliver()
    (snap,) = [m for m in n.queue if m.type is T.SNAP]
    n.run()
    n.propose("1", b"b")
    n.run()
    n.tick("1")
    n.run()
    applied = list(n.applied["3"])
    assert applied[-1].data == b"b"
    n.deliver([snap, snap])
    n.run()
    assert n.applied["3"] == applied
    assert n["3"].commit == n["1"].commit


def test_23_a_snapshot_replaces_a_tail_that_contradicts_it(solo, make_log):
    node = solo(log=make_log(1, 1, 1, 1), term=1)
    conf = ConfState(voters=("1", "2", "3"))
    node.get(T.SNAP, term=2, snapshot=Snapshot(3, 2, conf, b"s"))
    assert (node.last_index, node.last_term) == (3, 2)


def test_23_a_snapshot_that_the_log_agrees_with_cuts_nothing_off(solo, make_log):
    node = solo(log=make_log(1, 1, 1, 1), term=1)
    conf = ConfState(voters=("1", "2", "3"))
    node.get(T.SNAP, snapshot=Snapshot(3, 1, conf, b"s"))
    assert (node.last_index, node.commit) == (4, 3)


def test_23_compaction_while_a_snapshot_travels_makes_no_loop(net):
    n = net(3)
    n.elect("1")
    n.isolate("3")
    n.propose("1", b"a")
    n.run()
    n.compact("1")
    n.heal()
    for _ in range(10):
        n.tick("1")
        n.propose("1", b"more")
        n.run()
        n.compact("1")
    n.tick("1")
    n.run()
    assert n["3"].applied == n["1"].applied
    installed = [event for event in n.events["3"] if type(event).__name__ == "SnapshotInstalled"]
    assert len(installed) == 1


# 24, 25, 26, 27 -------------------------------------------------------------------------------------------


def test_24_what_a_deposed_leader_had_appended_is_unknown_not_refused():
    config = MasterConfig(raft=RaftConfig.fast(peers=["m1", "m2", "m3"], pre_vote=False))
    master = Master("m1", config, stored=Stored(), seed=1, now=0.0)

    def work() -> list:
        effects = []
        while batch := list(master.ready()):
            effects += batch
            for effect in batch:
                if type(effect).__name__ == "Persist":
                    master.handle(Persisted(effect.id), 1.0)
        return effects

    master.raft.handle(Campaign(), 0.0)
    work()
    master.handle(Received("m2", Message(T.VOTE_RESP, "m1", "m2", 1)), 0.1)
    work()
    master.handle(Received("m2", Message(T.APP_RESP, "m1", "m2", 1, index=1)), 0.1)
    work()
    assert master.is_serving
    master.handle(Received("c1", Ask(1, 1, KeySet("k", 1))), 0.2)
    work()
    assert master.raft.last_index > 1
    master.handle(Received("m3", Message(T.HEARTBEAT, "m1", "m3", 9)), 0.3)
    answers = [effect.message for effect in work() if isinstance(effect, Send) and effect.to == "c1"]
    assert answers == [Unsure(1)]
    assert not any(isinstance(answer, Redirect) for answer in answers)


def test_25_a_command_that_is_sent_twice_takes_effect_once():
    plane = Plane()
    command = ClientOp("c1", 1, 1, KeyCas("k", None, 1))
    answers = [plane.apply(Batch(0.0, (command,)))[0].result for _ in range(2)]
    assert answers[0] == answers[1], "the second sending gets the first one's answer"
    assert plane.keys["k"] == 1


def test_26_a_member_that_was_removed_and_comes_back_is_taken_at_its_word(net):
    """Its disk is empty: what the node of that name once acknowledged counts for nothing."""
    n = net(3)
    n.elect("1")
    n.propose("1", b"a", b"b")
    n.run()
    n.change("1", remove=["3"])
    n.run()
    n.crash("3")
    n.change("1", add=["3"])
    n.run()
    assert n["1"].conf.voters == ("1", "2", "3")
    assert n["1"].tracker.progress["3"].match == 0
    n.join("3")
    n.tick("1")
    n.run()
    assert n["3"].applied == n["1"].applied


def test_27_a_late_write_of_entries_that_were_replaced_twice_counts_for_nothing(net):
    """The ABA problem: the same entries are put back while the disk is still to write the others."""
    n = net(5, apply_before_durable=False)
    n.slow = {"2"}
    first = Entry(1, 1, b"a")
    node = n["2"]
    n.handle("2", Receive(Message(T.APP, "2", "1", 1, entries=(first,))))
    n.step("2")
    other = Entry(1, 2, b"b")
    n.handle("2", Receive(Message(T.APP, "2", "3", 2, entries=(other,))))
    n.step("2")
    n.handle("2", Receive(Message(T.APP, "2", "1", 3, entries=(first,), commit=1)))
    n.step("2")
    assert len(n.disks["2"].pending) == 3
    n.sync("2", 1)
    n.queue.clear()
    n.step("2")
    assert node.log.stable == 0, "the disk is still to write another entry here"
    assert n.applied["2"] == []
    n.sync("2", 1)
    n.step("2")
    assert n.applied["2"] == []
    n.sync("2", 1)
    n.step("2")
    assert n.applied["2"] == [first]
