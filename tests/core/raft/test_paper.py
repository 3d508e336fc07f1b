"""The Raft paper, claim by claim: the checklist of etcd's raft_paper_test, one test a claim."""

from __future__ import annotations

import pytest

from agentflow.core.raft import (
    Campaign,
    Entry,
    HardState,
    Message,
    MessageType,
    Propose,
    RaftMachine,
    Role,
    Snapshot,
    Stored,
    Woken,
)

T = MessageType
ELECTION = 10


def messages(found: list[Message]) -> list[tuple[str, int, int, int]]:
    return [(message.to, message.term, message.log_term, message.index) for message in found]


def become(node, role: Role):
    if role is Role.CANDIDATE:
        node.candidate()
    elif role is Role.LEADER:
        node.lead()
    return node


# --- 5.1: terms -------------------------------------------------------------------------------------------


def test_a_follower_takes_over_a_higher_term(solo):
    node = solo(term=1).get(T.APP, term=2)
    assert (node.term, node.role) == (2, Role.FOLLOWER)


def test_a_candidate_takes_over_a_higher_term(solo):
    node = solo(term=1).candidate().get(T.APP, term=3)
    assert (node.term, node.role) == (3, Role.FOLLOWER)


def test_a_leader_takes_over_a_higher_term(solo):
    node = solo(term=1).lead()
    node.get(T.APP, term=5)
    assert (node.term, node.role) == (5, Role.FOLLOWER)


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE, Role.LEADER])
def test_a_message_of_a_lower_term_changes_nothing(solo, role):
    node = become(solo(term=2), role)
    node.take()
    before = node.machine.copy()
    node.get(T.APP, term=node.term - 1, index=0, entries=(Entry(1, 1, b"old"),), commit=1)
    after = node.machine.copy()
    for one in (before, after):
        one.now = 0.0
        one.events.clear()
    assert before == after
    assert node.take() == []


# --- 5.2: elections ---------------------------------------------------------------------------------------


def test_a_node_starts_as_a_follower(solo):
    assert solo().role is Role.FOLLOWER


def test_a_leader_sends_an_empty_heartbeat_to_each_peer_every_interval(solo, make_log):
    node = solo(log=make_log(1, 1)).lead()
    for _ in range(3):
        node.tick()
        beats = node.take()
        assert [(m.type, m.to, m.term, m.index, m.log_term, m.entries) for m in beats] == [
            (T.HEARTBEAT, "2", 2, 0, 0, ()),
            (T.HEARTBEAT, "3", 2, 0, 0, ()),
        ]


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE])
def test_without_a_leader_a_node_campaigns_within_two_timeouts(solo, role):
    node = become(solo(term=1), role)
    term = node.term
    node.take()
    node.tick(2 * ELECTION - 1)
    assert (node.term, node.role, node.vote) == (term + 1, Role.CANDIDATE, "1")
    assert messages(node.take(T.VOTE)) == [("2", term + 1, 0, 0), ("3", term + 1, 0, 0)]


def test_a_candidate_that_times_out_starts_a_new_election(solo):
    node = solo(term=1).candidate()
    node.take()
    node.tick(2 * ELECTION - 1)
    assert (node.term, node.role) == (3, Role.CANDIDATE)
    assert messages(node.take(T.VOTE)) == [("2", 3, 0, 0), ("3", 3, 0, 0)]


@pytest.mark.parametrize(
    ("size", "votes", "role"),
    [
        (1, {}, Role.LEADER),
        (3, {"2": True, "3": True}, Role.LEADER),
        (3, {"2": True}, Role.LEADER),
        (5, {"2": True, "3": True, "4": True, "5": True}, Role.LEADER),
        (5, {"2": True, "3": True, "4": True}, Role.LEADER),
        (5, {"2": True, "3": True}, Role.LEADER),
        (3, {"2": False, "3": False}, Role.FOLLOWER),
        (5, {"2": False, "3": False, "4": False, "5": False}, Role.FOLLOWER),
        (5, {"2": True, "3": False, "4": False, "5": False}, Role.FOLLOWER),
        (3, {}, Role.CANDIDATE),
        (5, {"2": True}, Role.CANDIDATE),
        (5, {"2": False, "3": False}, Role.CANDIDATE),
        (5, {}, Role.CANDIDATE),
    ],
)
def test_an_election_is_won_or_lost_by_a_majority_in_one_round(solo, size, votes, role):
    node = solo(size=size).do(Campaign())
    for voter, granted in votes.items():
        node.get(T.VOTE_RESP, voter, term=1, reject=not granted)
    assert (node.role, node.term) == (role, 1)


@pytest.mark.parametrize(
    ("vote", "candidate", "granted"),
    [
        (None, "2", True),
        (None, "3", True),
        ("2", "2", True),
        ("3", "3", True),
        ("2", "3", False),
        ("3", "2", False),
    ],
)
def test_a_follower_votes_for_at_most_one_candidate_a_term(solo, vote, candidate, granted):
    node = solo(term=1, vote=vote).get(T.VOTE, candidate, term=1)
    (answer,) = node.take()
    assert (answer.type, answer.to, answer.term, answer.reject) == (T.VOTE_RESP, candidate, 1, not granted)


@pytest.mark.parametrize("term", [2, 3])
def test_a_candidate_that_hears_a_leader_falls_back(solo, term):
    node = solo(term=1).candidate()
    assert node.term == 2
    node.get(T.APP, term=term)
    assert (node.role, node.term, node.leader) == (Role.FOLLOWER, term, "2")


def fire_time(node) -> int:
    """How many ticks until the node campaigns (again)."""
    term, ticks = node.term, 0
    while node.term == term:
        node.tick()
        ticks += 1
    return ticks


def test_a_followers_timeouts_cover_the_whole_interval(solo):
    node, seen = solo(), set()
    for _ in range(500):
        node.get(T.APP, term=node.term + 1)
        seen.add(fire_time(node))
    # A draw from [T, 2T) fires at the first tick that is not before it.
    assert seen == set(range(ELECTION + 1, 2 * ELECTION + 1))


def test_a_candidates_timeouts_cover_the_whole_interval(solo):
    node = solo().candidate()
    assert {fire_time(node) for _ in range(500)} == set(range(ELECTION + 1, 2 * ELECTION + 1))


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE])
def test_followers_and_candidates_seldom_time_out_together(solo, role):
    ids = "12345"
    nodes = [solo(id=one, size=5) for one in ids]
    conflicts = rounds = 0
    while rounds < 150:
        for node in nodes:
            if role is Role.FOLLOWER:
                node.get(T.APP, "2" if node.id != "2" else "3", term=node.term + 1)
            else:
                node.do(Campaign())
            node.start = node.term
        fired = 0
        while not fired:
            for node in nodes:
                node.now += 0.25
                node.do(Woken())
            fired = sum(node.term > node.start for node in nodes)
        conflicts += fired > 1
        rounds += 1
    assert conflicts / rounds <= 0.3


def test_draws_of_different_nodes_and_seeds_never_meet(solo):
    draws = set()
    for seed in range(200):
        for one in "12345":
            draws.add(solo(id=one, size=5, seed=seed).election_timeout)
    assert len(draws) == 1000


# --- 5.3: replication -------------------------------------------------------------------------------------


def test_a_leader_replicates_a_proposal_to_every_peer(solo):
    node = solo().lead()
    assert node.commit == 1
    machine: RaftMachine = node.machine
    machine.handle(Propose((b"some data",)), node.now)
    ready = machine.ready()
    entry = Entry(2, 1, b"some data")
    assert ready.persist.write.entries == (entry,)
    assert [(m.to, m.type, m.index, m.log_term, m.entries, m.commit) for m in ready.messages] == [
        ("2", T.APP, 1, 1, (entry,), 1),
        ("3", T.APP, 1, 1, (entry,), 1),
    ]
    assert ready.committed == ()
    assert (machine.last_index, machine.commit) == (2, 1)


def test_a_leader_commits_and_applies_what_was_acknowledged(solo):
    node = solo().lead()
    node.do(Propose((b"some data",)))
    assert node.commit == 1
    node.take()
    node.ack_all()
    assert node.commit == 2
    assert node.committed[-1] == Entry(2, 1, b"some data")
    assert {(m.to, m.commit) for m in node.take(T.APP)} == {("2", 2), ("3", 2)}


@pytest.mark.parametrize(
    ("size", "acks", "committed"),
    [
        (1, "", True),
        (3, "", False),
        (3, "2", True),
        (3, "23", True),
        (5, "", False),
        (5, "2", False),
        (5, "23", True),
        (5, "234", True),
        (5, "2345", True),
    ],
)
def test_an_entry_is_committed_when_a_majority_has_it(solo, size, acks, committed):
    node = solo(size=size).lead()
    node.do(Propose((b"some data",)))
    for member in acks:
        node.get(T.APP_RESP, member, index=node.last_index)
    assert (node.commit == node.last_index) is committed


@pytest.mark.parametrize("terms", [(), (2,), (1, 2), (1,)])
def test_committing_an_own_entry_commits_all_before_it(solo, make_log, terms):
    log = make_log(*terms)
    node = solo(log=log, term=2).lead(acked=False)
    node.do(Propose((b"some data",)))
    node.ack_all()
    last = len(log)
    assert node.committed == [*log, Entry(last + 1, 3), Entry(last + 2, 3, b"some data")]


@pytest.mark.parametrize(
    ("entries", "commit"),
    [
        ([b"some data"], 1),
        ([b"some data", b"some data2"], 2),
        ([b"some data2", b"some data"], 2),
        ([b"some data", b"some data2"], 1),
    ],
)
def test_a_follower_applies_exactly_what_the_leader_committed(solo, entries, commit):
    sent = tuple(Entry(index, 1, data) for index, data in enumerate(entries, 1))
    node = solo(term=1).get(T.APP, term=1, entries=sent, commit=commit)
    assert node.commit == commit
    assert node.committed == list(sent[:commit])


@pytest.mark.parametrize(
    ("log_term", "index", "answer", "reject", "hint", "hint_term"),
    [
        # What is committed matches whatever the message says of it.
        (0, 0, 1, False, 0, 0),
        (1, 1, 1, False, 0, 0),
        # Behind the commit index the log must agree.
        (2, 2, 2, False, 0, 0),
        (1, 2, 2, True, 1, 1),
        (3, 3, 3, True, 2, 2),
    ],
)
def test_a_follower_acknowledges_only_after_a_matching_entry(
    solo, make_log, log_term, index, answer, reject, hint, hint_term
):
    node = solo(log=make_log(1, 2), commit=1, term=2)
    node.get(T.APP, term=2, log_term=log_term, index=index)
    (message,) = node.take()
    assert (message.type, message.index, message.reject) == (T.APP_RESP, answer, reject)
    assert (message.reject_hint, message.log_term) == (hint, hint_term)


@pytest.mark.parametrize(
    ("index", "log_term", "sent", "log", "written"),
    [
        (2, 2, (3,), (1, 2, 3), (3,)),
        (1, 1, (3, 4), (1, 3, 4), (3, 4)),
        (0, 0, (1,), (1, 2), ()),
        (0, 0, (3,), (3,), (3,)),
    ],
)
def test_a_follower_cuts_off_a_conflict_and_nothing_else(solo, make_log, index, log_term, sent, log, written):
    node = solo(log=make_log(1, 2), term=4)
    node.writes.clear()
    entries = tuple(Entry(index + offset, term) for offset, term in enumerate(sent, 1))
    node.get(T.APP, term=4, index=index, log_term=log_term, entries=entries)
    assert [entry.term for entry in node.log.entries(1)] == list(log)
    assert [entry.term for write in node.writes for entry in write.entries] == list(written)


FIGURE_7 = {
    "a": (1, 1, 1, 4, 4, 5, 5, 6, 6),
    "b": (1, 1, 1, 4),
    "c": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
    "d": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
    "e": (1, 1, 1, 4, 4, 4, 4),
    "f": (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
}


@pytest.mark.parametrize("case", FIGURE_7)
def test_a_leader_brings_every_log_of_figure_7_in_line(net, make_log, case):
    network = net(3)
    lead, follow = make_log(1, 1, 1, 4, 4, 5, 5, 6, 6, 6), make_log(*FIGURE_7[case])
    network.add("1", Stored(HardState(8, None, 0), Snapshot(), lead))
    network.add("2", Stored(HardState(7, None, 0), Snapshot(), follow))
    # The third node only votes: node 1 must win even against the longer logs.
    network.campaign("1").step("1")
    network.deliver([Message(T.VOTE_RESP, "1", "3", 9)])
    network.isolate("3")
    assert network["1"].is_leader
    network.propose("1", b"new")
    network.run()
    assert network["2"].log.entries(1) == network["1"].log.entries(1)
    assert network["1"].commit == network["1"].last_index == 12


# --- 5.4: safety ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("terms", [(1,), (1, 2)])
def test_a_request_for_a_vote_says_where_the_log_ends_and_goes_to_everyone(solo, make_log, terms):
    node = solo(log=make_log(*terms), term=2)
    node.tick(2 * ELECTION)
    last = len(terms)
    assert messages(node.take(T.VOTE)) == [("2", 3, terms[-1], last), ("3", 3, terms[-1], last)]


@pytest.mark.parametrize(
    ("terms", "log_term", "index", "refused"),
    [
        # The same last term.
        ((1,), 1, 1, False),
        ((1,), 1, 2, False),
        ((1, 1), 1, 1, True),
        # A higher last term of the candidate.
        ((1,), 2, 1, False),
        ((1,), 2, 2, False),
        ((1, 1), 2, 1, False),
        # A higher last term of the voter.
        ((2,), 1, 1, True),
        ((2,), 1, 2, True),
        ((2, 1), 1, 1, True),
        ((1, 2), 1, 1, True),
    ],
)
def test_a_vote_is_refused_exactly_if_the_own_log_is_better(solo, terms, log_term, index, refused):
    log = tuple(Entry(position, max(terms[:position]), b"") for position in range(1, len(terms) + 1))
    node = solo(log=log, term=3).get(T.VOTE, term=3, log_term=log_term, index=index)
    (answer,) = node.take()
    assert (answer.type, answer.reject) == (T.VOTE_RESP, refused)


@pytest.mark.parametrize(("index", "commit"), [(1, 0), (2, 0), (3, 3)])
def test_a_leader_counts_copies_only_of_entries_of_its_own_term(solo, make_log, index, commit):
    node = solo(log=make_log(1, 2), term=2).lead(acked=False)
    node.do(Propose((b"own",)))
    assert node.term == 3
    node.get(T.APP_RESP, "2", index=index)
    assert node.commit == commit
