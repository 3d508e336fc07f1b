"""The player: looking changes nothing, doing in the past goes back first, and a cell is never disturbed."""

import json
import threading

import pytest

import agentflow as af
from agentflow.notebook.live.player import PlayerScene
from agentflow.notebook.live.scene import Frame
from agentflow.notebook.live.tail import Tail


@pytest.fixture
def sim():
    sim = af.Simulation(masters=3, seed=7)
    sim.run_until(lambda s: s.leader)
    return sim.run_for(5)


class Player:
    """A scene and what it would send."""

    def __init__(self, sim):
        self.scene, self.frame = PlayerScene(sim), Frame(sim, Tail())

    def look(self):
        data = self.scene.snapshot(self.frame)
        json.dumps(data)
        return data

    def do(self, name, **given):
        deed = self.scene.deed(name, given)
        return deed.line, deed.call()


@pytest.fixture
def player(sim):
    player = Player(sim)
    player.look()
    return player


def test_the_seed_and_the_verdicts_are_always_there(player):
    data = player.look()
    assert data["seed"] == 7
    assert {outcome for _, outcome, _ in data["verdicts"]} == {"ok"}


def test_looking_at_the_past_shows_it_and_changes_nothing(sim, player):
    digest, end = sim.trace.digest(), sim.now
    leaderless = sim.trace.since(0)[0].time
    line, _ = player.do("seek", value=leaderless)
    data = player.look()
    assert line == f"sim.state_at({leaderless!r})"
    assert data["past"]
    assert data["leader"] is None
    assert data["end"] == round(end, 6)
    assert sim.trace.digest() == digest


def test_what_is_done_in_the_past_goes_back_first(sim, player):
    player.do("seek", value=4.0)
    player.look()
    line, _ = player.do("kill", node="master-1")
    assert line == "sim.rewind(to=4.0).kill('master-1')"
    assert sim.now == 4.0
    assert sim.masters["master-1"].state == "down"
    assert "sim.kill('master-1')" in sim.script()


def test_what_was_done_by_hand_is_a_script_that_does_it_again(sim, player):
    player.do("kill", node=sim.leader)
    player.do("seek", value=sim.now + 2.5)
    player.do("step")
    _, answer = player.do("script")
    space = {}
    exec(answer["script"], space)
    assert space["sim"].trace.digest() == sim.trace.digest()


def until_pending(sim):
    assert sim.run_until(lambda s: len(s.pending()) > 0)


@pytest.mark.parametrize("how", ["deliver", "drop"])
def test_one_message_is_delivered_or_dropped(sim, player, how):
    until_pending(sim)
    message = player.look()["pending"][0][0]
    line, _ = player.do(how, message=message)
    assert line == f"sim.{how}({message})"
    assert message not in [row[0] for row in player.look()["pending"]]


def test_a_held_message_waits_until_it_is_released(sim, player):
    until_pending(sim)
    first = player.look()["pending"][0]
    line, _ = player.do("hold", message=first[0])
    assert line == f"sim.hold({first[1]!r}, {first[2]!r}, {first[3]!r})"
    held = [row for row in player.look()["pending"] if row[0] == first[0]]
    assert held[0][7] is None, "it arrives at no time"
    player.do("release")
    assert all(row[7] is not None for row in player.look()["pending"])


def test_playing_moves_time_and_pausing_stops_it(sim, player):
    before = sim.now
    player.do("play")
    player.scene._played_at -= 0.2
    player.look()
    assert 0.15 <= sim.now - before <= 0.5
    player.do("pause_play")
    after = sim.now
    player.look()
    assert sim.now == after


def test_a_cell_that_moves_the_simulation_is_left_alone(sim, player):
    holds, done = threading.Event(), threading.Event()

    def cell():
        with sim.turn:
            holds.set()
            done.wait(10)

    thread = threading.Thread(target=cell)
    thread.start()
    holds.wait(10)
    before = sim.now
    player.scene.playing = True
    data = player.look()
    done.set()
    thread.join()
    assert data["busy"]
    assert sim.now == before


def test_stepping_back_and_forth_visits_the_same_events(sim, player):
    player.do("back")
    first = player.look()
    player.do("back")
    assert player.look()["now"] < first["now"]
    player.do("step")
    assert player.look()["now"] == first["now"]


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("deliver", {"message": 10**9}),
        ("deliver", {"message": "1"}),
        ("hold", {}),
        ("seek", {"value": -1}),
        ("seek", {"value": float("nan")}),
        ("pace", {"value": 0}),
        ("timeout", {"node": "nobody"}),
        ("speed", {"value": 1}),
        ("exec", {}),
    ],
)
def test_what_makes_no_sense_is_refused(player, name, given):
    with pytest.raises(af.AgentflowError):
        player.do(name, **given)


def test_the_diagram_tells_of_leaders_crashes_and_losses(sim, player):
    sim.network.loss = 0.5
    sim.kill(sim.leader)
    sim.run_for(5)
    player.scene.span = 20.0
    story = player.look()["diagram"]
    assert "leader" in {stretch[4] for stretch in story["stretches"]}
    assert "crash" in {mark[2] for mark in story["marks"]}
    assert any(hop[5] for hop in story["hops"])
