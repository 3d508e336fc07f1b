"""`RaftNode`: the promised interface of one member, on a real loop with real time-outs."""

import asyncio
import contextlib

import pytest

import agentflow as af
from agentflow.cluster import raftnode

NAMES = ("a", "b", "c")


@contextlib.asynccontextmanager
async def members(network=None, applied=None, **overrides):
    network = network or af.Network()
    config = af.RaftConfig.fast(peers=NAMES, **overrides)
    applied = {} if applied is None else applied
    nodes = {}
    for name in NAMES:
        log = applied.setdefault(name, [])
        nodes[name] = af.RaftNode(name, config, network=network, apply=log.append)
        await nodes[name].start()
    try:
        yield nodes
    finally:
        for node in nodes.values():
            await node.stop()


async def leader_of(nodes):
    while True:
        for node in nodes.values():
            if node.is_leader():
                return node
        await asyncio.sleep(0.005)


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 30))


def test_three_nodes_elect_commit_and_apply_alike():
    async def scenario():
        applied = {}
        async with members(applied=applied) as nodes:
            leader = await leader_of(nodes)
            first = await leader.propose(b"x")
            second = await leader.propose("y")
            assert second.index > first.index
            while any(applied[name] != [b"x", b"y"] for name in NAMES):
                await asyncio.sleep(0.005)
            assert {node.get_leader() for node in nodes.values()} == {leader.id}
            assert leader.status().commit_index >= second.index

    run(scenario())


def test_a_follower_refuses_with_the_leaders_name_and_forwards_when_asked():
    async def scenario():
        async with members() as nodes:
            leader = await leader_of(nodes)
            await leader.propose(b"x")
            follower = next(node for node in nodes.values() if node is not leader)
            with pytest.raises(af.NotLeader) as refused:
                await follower.propose(b"y")
            assert refused.value.leader == leader.id
            with pytest.raises(af.NotLeader):
                await follower.send_heartbeats()
            await leader.send_heartbeats()
            assert (await follower.propose(b"y", forward=True)).index > 0

    run(scenario())


def test_one_vote_a_term_and_none_against_a_better_log():
    async def scenario():
        config = af.RaftConfig(peers=NAMES)
        node = af.RaftNode("a", config, network=af.Network())
        await node.start()
        try:
            ask = node.handle_vote_request
            assert (await ask(af.VoteRequest(5, "b", 0, 0))).vote_granted
            again = await ask(af.VoteRequest(5, "b", 0, 0))
            assert again.vote_granted, "the same candidate may ask twice"
            other = await ask(af.VoteRequest(5, "c", 9, 4))
            assert (other.term, other.vote_granted) == (5, False)
            assert not (await ask(af.VoteRequest(4, "c", 9, 4))).vote_granted
            assert (await ask(af.VoteRequest(7, "c", 0, 0, pre_vote=True))).vote_granted
            assert node.status().term == 5, "a pre-vote changes no term"
        finally:
            await node.stop()

    run(scenario())


def test_a_vote_survives_a_restart():
    async def scenario():
        config = af.RaftConfig(peers=NAMES)
        node = af.RaftNode("a", config, network=af.Network())
        await node.start()
        assert (await node.handle_vote_request(af.VoteRequest(3, "b", 0, 0))).vote_granted
        await node.stop()
        await node.start()
        try:
            assert node.status().voted_for == "b"
            assert not (await node.handle_vote_request(af.VoteRequest(3, "c", 0, 0))).vote_granted
        finally:
            await node.stop()

    run(scenario())


def test_a_leader_cut_off_answers_unknown_and_never_hangs():
    async def scenario():
        network = af.Network()
        async with members(network, replication_timeout_ms=400) as nodes:
            leader = await leader_of(nodes)
            await leader.propose(b"x")
            network.partition({leader.id}, set(NAMES) - {leader.id})
            with pytest.raises(af.TimedOut):
                await leader.propose(b"y")

    run(scenario())


def test_commands_of_one_moment_go_together_and_are_answered_each(monkeypatch):
    sent = []
    handle = raftnode.RaftMachine.handle

    def watched(machine, event, now):
        if isinstance(event, raftnode.Propose):
            sent.append(len(event.data))
        return handle(machine, event, now)

    monkeypatch.setattr(raftnode.RaftMachine, "handle", watched)

    async def story():
        applied = {}
        async with members(applied=applied) as nodes:
            leader = await leader_of(nodes)
            told = []
            propose = raftnode.Proposer(leader).propose
            for number in range(500):
                propose(b"%d" % number, told.append)
            while len(told) < 500:
                await asyncio.sleep(0.005)
            assert sent == [500]
            assert [each.index for each in told] == list(range(told[0].index, told[0].index + 500))
            assert applied[leader.id] == [b"%d" % number for number in range(500)]

    af.run_sync(story())


def test_of_commands_that_went_together_each_has_its_own_fate():
    async def story():
        network = af.Network()
        async with members(network) as nodes:
            old = await leader_of(nodes)
            others = {name: node for name, node in nodes.items() if node is not old}
            network.isolate(old.id)
            told = []
            for command in (b"x", b"y", b"z"):
                raftnode.Proposer(old).propose(command, told.append)
            new = await leader_of(others)
            for number in range(5):
                await new.propose(b"%d" % number)
            network.heal()
            while len(told) < 3:
                await asyncio.sleep(0.005)
            assert [type(each) for each in told] == [af.NotLeader] * 3

    af.run_sync(story())


def test_what_is_not_running_says_so():
    node = af.RaftNode("a", af.RaftConfig(peers=("a",)), network=af.Network())
    with pytest.raises(af.Closed):
        node.is_leader()
    with pytest.raises(af.InvalidConfig):
        af.RaftNode("")
    assert repr(node) == "<RaftNode a stopped>"


def test_a_cluster_of_one_leads_itself():
    async def scenario():
        node = af.RaftNode("solo", af.RaftConfig.fast(peers=("solo",)), network=af.Network())
        await node.start()
        try:
            await node.start_election()
            await leader_of({"solo": node})
            assert (await node.propose(b"x")).term >= 1
            with pytest.raises(af.Refused):
                await node.start()
            with pytest.raises(af.InvalidConfig):
                await node.propose(b"")
        finally:
            await node.stop()

    run(scenario())
