"""One seed, one trace: here, again, and in any process."""

import subprocess
import sys

import pytest

import agentflow as af

RUN = """
import agentflow as af
sim = af.Simulation(masters=5, workers=2, seed=11, config=af.RaftConfig.fast(), disk_ms=(0, 3))
sim.load(af.KeyValueLoad(3, 3))
sim.load(af.WorkflowLoad())
sim.nemesis("all", until=8)
print(sim.run_for(10).trace.digest())
"""


def test_the_hash_seed_of_the_process_does_not_matter():
    digests = {
        subprocess.run(
            [sys.executable, "-c", RUN],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert len(digests) == 1


def test_a_run_with_everything_in_it_proves_itself(busy):
    sim = busy(until=8).run_for(10)
    verdict = sim.prove_deterministic()
    assert verdict, verdict
    assert verdict.facts["processes"] == 2
    assert verdict.facts["events"] == len(sim.trace)


def test_what_was_done_by_hand_is_done_again_in_the_proof(elected):
    sim = elected(masters=3)
    sim.client("c").set("x", 1)
    sim.hold(type="MsgApp")
    sim.request("c", "set", "x", 2)
    sim.run_for(0.02)
    sim.deliver(int(sim.pending().query("held").message.iloc[0]))
    sim.network.loss = 0.1
    sim.release()
    sim.timeout("master-2")
    sim.at(sim.now + 1, lambda s: s.kill("master-3"))
    sim.run_for(3)
    assert sim.prove_deterministic()


def test_an_order_of_sets_is_found_in_another_process():
    class Sets:
        def on_start(self, ctx):
            ctx.log("order", names=list({"anna", "bert", "carl", "dora", "emil", "fritz"}))

    sim = af.Simulation(nodes={"a": Sets}, seed=1).run_for(1)
    assert sim.prove_deterministic(process=False)
    verdict = sim.prove_deterministic()
    assert verdict.is_violated
    assert verdict.first_bad.kind == "log"
    assert "another process" in verdict.explanation


def test_what_no_other_process_can_have_leaves_the_proof_open():
    import threading

    lock = threading.Lock()

    class Holder:
        def on_start(self, ctx):
            with lock:
                ctx.log("mine")

    sim = af.Simulation(nodes={"a": Holder}, seed=1).run_for(1)
    verdict = sim.prove_deterministic()
    assert str(verdict.outcome) == "unknown"
    assert "cannot be sent" in verdict.explanation


def test_diff_names_the_first_event_that_differs(elected):
    one, two = elected(seed=1).run_to(3), elected(seed=1).run_to(3)
    assert not af.diff(one, two)
    two.rewind(2).kill("master-1")
    two.run_to(3)
    found = af.diff(one, two)
    assert found
    assert found.right.kind == "crash"
    assert found.right.seq == found.seq
    assert all(a == b for a, b in zip(found.before, list(one.trace)[found.seq - 5 : found.seq], strict=True))
    assert "crash" in repr(found)


def test_diff_says_when_one_run_goes_on(elected):
    one, two = elected(seed=1).run_to(3), elected(seed=1).run_to(4)
    found = af.diff(one, two)
    assert found.left is None
    assert found.seq == len(one.trace)


def test_equal_values_of_different_types_are_one_event():
    import numpy as np

    class Arrays:
        def on_start(self, ctx):
            ctx.log("array", a=np.arange(3))

    runs = [af.Simulation(nodes={"a": Arrays}, seed=1).run_for(1) for _ in range(2)]
    assert not af.diff(*runs)


@pytest.mark.parametrize("codec_check", [False, True])
def test_the_codec_changes_nothing(codec_check, busy):
    sim = busy(until=4, nemesis="", codec_check=codec_check).run_for(5)
    assert sim.check()
    assert not af.diff(sim, busy(until=4, nemesis="").run_for(5))
