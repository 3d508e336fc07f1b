"""Feeds: one for all views of a cluster, nothing for what nobody sees, and errors that stay in the view."""

import json
import threading
import time

import pytest

import agentflow as af
from agentflow.notebook.live import feed as feeds
from agentflow.notebook.live.cluster import ClusterScene
from agentflow.notebook.live.scene import Frame
from agentflow.notebook.live.tail import Tail


def until(condition, seconds=10.0):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it never came"
        time.sleep(0.01)


def threads(name):
    return [each for each in threading.enumerate() if each.name == name]


@pytest.fixture
def cluster():
    with af.Cluster(masters=3, workers=2) as cluster:
        yield cluster


def shown(view):
    return json.loads(view.snapshot or b"{}")


def test_ten_views_of_one_cluster_cost_one_feed(cluster):
    views = [cluster.watch() for _ in range(10)]
    assert len(set(map(id, views))) == 1, "one model serves all displays"
    until(lambda: views[0].snapshot)
    assert len(threads("agentflow-views")) == 1


def test_what_nobody_sees_costs_no_thread_and_comes_back_when_it_is_seen(cluster):
    view, feed = cluster.watch(), feeds.feed_of(cluster)
    until(lambda: view.snapshot)
    for shown_view in feed._views.values():
        shown_view.seen_at = -float("inf")
    until(lambda: not threads("agentflow-views"))
    before = feed.ticks
    view._heard(view, {"what": "seen"}, [])
    until(lambda: feed.ticks > before)


def test_at_most_ten_updates_a_second(cluster):
    view, feed = cluster.watch(), feeds.feed_of(cluster)
    until(lambda: view.snapshot)
    before, began = feed.ticks, time.monotonic()
    time.sleep(1.0)
    assert feed.ticks - before <= 10 * (time.monotonic() - began) + 1


def test_a_snapshot_tells_what_the_cluster_is(cluster):
    view = cluster.watch()
    until(lambda: shown(view).get("leader"))
    data = shown(view)
    assert data["leader"] == cluster.leader
    assert [each["id"] for each in data["masters"]] == ["master-1", "master-2", "master-3"]


def said_by(view):
    said = []
    view.send = lambda content, buffers=None: said.append(content)
    return said


def test_a_control_does_what_its_line_of_python_says(cluster):
    view = cluster.watch()
    said = said_by(view)
    view._heard(view, {"what": "do", "do": "kill", "node": "master-2"}, [])
    until(lambda: said)
    assert said[0]["line"] == "cluster.kill('master-2')"
    assert not said[0]["error"]
    assert cluster.masters["master-2"].state == "down"


@pytest.mark.parametrize(
    "content",
    [
        {"what": "do", "do": "kill", "node": "nobody"},
        {"what": "do", "do": "kill"},
        {"what": "do", "do": "__class__", "node": "master-1"},
        {"what": "do", "do": ["kill"]},
        {"what": "do", "do": "loss", "value": "much"},
        {"what": "do", "do": "loss", "value": 2},
        {"what": "do", "do": "partition", "side": ["master-1", "master-2", "master-3"]},
    ],
    ids=lambda content: f"{content.get('do')} {content.get('value', content.get('node'))}",
)
def test_what_makes_no_sense_is_refused_in_the_view(cluster, content):
    view = cluster.watch()
    said = said_by(view)
    view._heard(view, content, [])
    until(lambda: said)
    assert "view failed" not in said[0]["error"]
    assert said[0]["error"]
    assert cluster.masters["master-1"].state == "up"


@pytest.mark.parametrize("content", [None, 7, [], "do", {}, {"what": None}])
def test_noise_from_a_browser_is_no_error(cluster, content):
    cluster.watch()._heard(None, content, [])


def test_closing_ends_the_feed_and_shows_the_last_of_it():
    cluster = af.Cluster(masters=3, workers=1)
    view = cluster.watch()
    until(lambda: view.snapshot)
    cluster.close()
    assert shown(view)["frozen"]
    assert shown(view)["closed"]
    until(lambda: not threads("agentflow-views"))


def test_each_record_of_the_trace_is_looked_at_once():
    sim = af.Simulation(masters=3, seed=7)
    tail, whole = Tail(), Tail()
    for _ in range(20):
        sim.run_for(1)
        tail.look(sim.trace)
    whole.look(sim.trace)
    assert tail.reigns == whole.reigns
    assert [stand.outcome for stand in tail.stands] == [stand.outcome for stand in whole.stands]


def test_a_trace_that_went_back_is_read_anew():
    sim = af.Simulation(masters=3, seed=7)
    tail = Tail()
    sim.run_until(lambda s: s.leader)
    tail.look(sim.trace)
    assert tail.reigns
    sim.rewind(to=0.1)
    tail.look(sim.trace)
    assert not tail.reigns


def test_a_cut_is_shown_with_how_long_it_lasts():
    sim = af.Simulation(masters=3, seed=7).run_for(5)
    scene, tail = ClusterScene(sim), Tail()
    sim.partition({"master-1"}, {"master-2", "master-3"})
    tail.look(sim.trace)
    scene.snapshot(Frame(sim, tail))
    sim.run_for(2)
    tail.look(sim.trace)
    cuts = scene.snapshot(Frame(sim, tail))["cuts"]
    assert [cut[:2] for cut in cuts] == [["master-1", "master-2"], ["master-1", "master-3"]]
    assert all(cut[2] == 2.0 for cut in cuts)
