"""Every message of a whole cluster survives its bytes."""

import random

import pytest

import agentflow as af
from agentflow.core.agents.messages import AgentMessage
from agentflow.core.nodes import messages
from agentflow.core.raft.messages import Message, MessageType
from agentflow.transport.codec import TYPES, MessageCodec, Undecodable

SOON = 20.0


def boom():
    raise ValueError("boom — naïve \ud800")


def everything(cluster):
    """Use all that makes nodes talk."""
    flow = af.Workflow("everything")
    items = flow.add(range, 3, id="items", priority="urgent", retries=2, backoff=af.Backoff(0.01, jitter=0.5))
    parts = flow.map(
        str, items, id="parts", group="gpu", resources={"gpu": 1}, requires={"arch": "x", "fast": True}
    )
    bad = flow.add(boom, id="bad", timeout=30)
    flow.add(list, parts, id="list")
    flow.add(lambda *values: len(values), bad, parts, when="all_done", id="count")
    flow.add(int, bad, id="after")
    run = cluster.submit(flow, idempotency_key="key — naïve")
    cluster.add_worker(group="gpu", gpu_count=2, attributes={"arch": "x", "fast": True})
    run.wait(120)
    client = cluster.client("c1")
    client.set("x", {"a": [1, 2.5, None, True, "ü", b"\x00"]})
    client.cas("x", None, 1)
    letter = AgentMessage("notification", {"x": [1, None]}, to=cluster.agent("agent-2").id)
    cluster.agent("agent-1").send_to_agent(letter)
    run.release()
    cluster.remove_worker("worker-1")
    return run, client.get("x")


def delivered(cluster):
    return [record.payload for record in cluster.records() if record.kind in ("send", "echo")]


def check(run, value):
    assert run.counts["COMPLETED"] == 8
    assert run.counts["FAILED"] == 1
    assert run.counts["SKIPPED"] == 1
    assert value == {"a": [1, 2.5, None, True, "ü", b"\x00"]}


def test_a_simulation_under_faults_works_through_bytes_alone():
    network = af.Network(latency_ms=(1, 10), loss=0.02, duplicate=0.05, reorder=0.1)
    sim = af.Simulation(
        masters=3, workers=2, seed=5, config=af.RaftConfig.fast(), network=network, codec_check=True
    )
    sim.run_until(lambda s: s.leader)
    sim.at(sim.now + 2, lambda s: s.kill(s.leader or "master-1"))
    sim.at(sim.now + 8, lambda s: [s.restart(name) for name in s.masters if s.masters[name].state == "down"])
    check(*everything(sim))
    sim.pause("worker-2")
    sim.run_for(10)
    sim.resume("worker-2")
    sim.run_for(3)
    codec, seen = MessageCodec(), set()
    for message in delivered(sim):
        again = codec.decode(codec.encode(message))
        assert again == message
        assert type(again) is type(message)
        seen.add(message.type if isinstance(message, Message) else type(message))
    wanted = set(TYPES) - {Message, messages.Unfollow, messages.Gone, messages.Unsure}
    assert wanted <= seen
    assert {MessageType.APP, MessageType.VOTE, MessageType.HEARTBEAT} <= seen


def test_the_codec_changes_nothing_of_a_history():
    digests = []
    for codec_check in (False, True):
        sim = af.Simulation(
            masters=3, workers=2, seed=9, config=af.RaftConfig.fast(), codec_check=codec_check
        )
        sim.run_until(lambda s: s.leader)
        sim.map(str, range(30)).wait()
        digests.append([(r.time, r.node, r.kind, r.type) for r in sim.records()])
    assert digests[0] == digests[1]


def test_a_live_cluster_works_through_bytes_alone():
    with af.Cluster(masters=3, workers=2, codec_check=True) as cluster:
        run = cluster.map(int, range(200))
        cluster.kill(cluster.leader)
        assert run.result(timeout=SOON) == list(range(200))
        check(*everything(cluster))
        assert all(cluster.masters[name].state in ("up", "down") for name in cluster.masters)
        assert not [record for record in cluster.records() if record.kind == "error"]


def test_damaged_bytes_of_any_message_are_refused_or_are_another_message():
    sim = af.Simulation(masters=3, workers=2, seed=2, config=af.RaftConfig.fast())
    sim.run_until(lambda s: s.leader)
    everything(sim)
    codec, rng, refused = MessageCodec(), random.Random(2), 0
    by_type = {}
    for message in delivered(sim):
        by_type.setdefault(type(message), []).append(message)
    assert len(by_type) >= 10
    for kind, all_of_kind in by_type.items():
        for message in all_of_kind[:20]:
            data = bytearray(codec.encode(message))
            for _ in range(20):
                damaged = bytearray(data)
                damaged[rng.randrange(len(damaged))] ^= rng.randrange(1, 256)
                try:
                    again = codec.decode(bytes(damaged))
                except Undecodable:
                    refused += 1
                else:
                    assert type(again) in (*TYPES, dict, list, int, str, bytes, float, bool, type(None)), kind
            for cut in {1, 2, len(data) // 2, len(data) - 1}:
                with pytest.raises(Undecodable):
                    codec.decode(bytes(data[:cut]))
    assert refused > 100
