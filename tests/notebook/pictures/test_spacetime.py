"""The space-time diagram can be read: nothing sticks out, no two words overlap, thirty seconds are enough."""

import itertools
import time

import pytest

import agentflow as af
from agentflow.cluster.sayings import Saying
from agentflow.cluster.spacetime import Cut, Hop, Mark, SpaceTime, Stretch
from agentflow.notebook.pictures.axis import WISHED_PX, axis
from agentflow.notebook.pictures.spacetime import spacetime_svg


def make_story(nodes=3, hops=20, name="node-", label="vote?", **changes):
    names = tuple(f"{name}{i}" for i in range(nodes))
    roles = ("leader", "follower", "candidate", "pre-candidate", "")
    found = {
        "title": "demo",
        "start": 0.0,
        "end": 30.0,
        "nodes": names,
        "stretches": tuple(
            Stretch(node, 10.0 * k, 10.0 * k + 10.0, ("up", "down", "paused")[(i + k) % 3], roles[i % 5], k)
            for i, node in enumerate(names)
            for k in range(3)
        ),
        "hops": tuple(
            Hop(
                i,
                names[i % nodes],
                names[(i + 1 + i % 2) % nodes],
                i * 1.3 % 29,
                None if i % 7 == 0 else i * 1.3 % 29 + 0.01,
                "loss" if i % 5 == 1 else "down" if i % 5 == 2 else "",
                "MsgVote",
                Saying(
                    ("election", "append", "client", "work", "heartbeat")[i % 5],
                    label,
                    label,
                    i % 9,
                    i % 2 == 0,
                ),
            )
            for i in range(hops if nodes else 0)
        ),
        "marks": tuple(
            Mark(node, 3.0 + i, ("crash", "restart", "pause", "resume", "fault", "error")[i % 6], label)
            for i, node in enumerate(names)
        )
        + ((Mark("", 12.0, "fault", f"loss=0.1 {label}"),) if nodes else ()),
        "cuts": (Cut(5.0, 9.0, names[:1], f"cut {label}"), Cut(20.0, None, names[-1:], f"cut {label}")),
        "hidden": (("heartbeat", 12),),
    }
    return SpaceTime(**{**found, **changes})


STORIES = {
    "empty": lambda: SpaceTime("", 0.0, 0.0),
    "usual": make_story,
    "huge": lambda: make_story(60, 400),
    "alone": lambda: make_story(1, 5),
    "silent": lambda: make_story(3, 0, marks=(), cuts=()),
    "failed": lambda: make_story(5, 40, end=30.0),
}


@pytest.mark.parametrize("width", [960, 480])
@pytest.mark.parametrize("kind", [*STORIES, "hostile"])
def test_every_diagram_is_whole_and_nothing_sticks_out(kind, width, read, hostile):
    story = make_story(4, 30, hostile, hostile, title=hostile) if kind == "hostile" else STORIES[kind]()
    seen = read(spacetime_svg(story, width))
    assert seen.outside() == []
    assert "script" not in seen.tags


@pytest.fixture(scope="module")
def half_a_minute():
    sim = af.Simulation(masters=5, seed=4)
    sim.run_until(lambda s: s.leader)
    sim.client("c1").set("x", 1)
    sim.kill(sim.leader)
    sim.run_for(8)
    sim.partition({"master-1"}, {"master-2", "master-3", "master-4", "master-5"})
    sim.run_to(20)
    sim.heal()
    sim.run_to(30)
    return sim


def overlapping(texts):
    """Pairs of words of which one covers more than a pixel of the other."""
    boxes = [(word, left, right, y - 7.5, y + 1) for word, left, right, y in texts if word]
    return [
        (a[0], b[0])
        for a, b in itertools.combinations(boxes, 2)
        if a[1] < b[2] - 1 and b[1] < a[2] - 1 and a[3] < b[4] and b[3] < a[4]
    ]


@pytest.mark.parametrize("width", [960, 640])
def test_half_a_minute_can_be_read(half_a_minute, read, width):
    seen = read(half_a_minute.diagram(width=width).svg())
    assert overlapping(seen.texts) == []
    assert seen.outside() == []
    for words in ("vote?", "leader, term 1", "set x=1", "1/1", "crash", "healed"):
        assert words in seen.words
    assert seen.height < 1800


def test_the_overlap_of_words_is_noticed(read):
    assert overlapping([("one", 0, 20, 10), ("two", 10, 30, 12)]) == [("one", "two")]


def test_a_message_is_a_slope_even_where_seconds_pass_between_two(half_a_minute):
    story_hops = [
        (record.time, record.time + 0.005) for record in half_a_minute.records() if record.kind == "send"
    ]
    instants = [at for hop in story_hops for at in hop]
    bands = axis(0.0, 30.0, instants, [0.005] * len(story_hops), 830)
    band, (sent, came) = next((b, h) for b in bands for h in story_hops if b.holds(h[0]) and b.holds(h[1]))
    assert band.x(came) - band.x(sent) >= WISHED_PX


def test_an_axis_covers_its_time_once_and_without_a_gap():
    instants = [i * 0.37 % 7 for i in range(300)] + [29.0]
    bands = axis(0.0, 30.0, instants, [0.001], 500)
    pieces = [piece for band in bands for piece in band.pieces]
    assert pieces[0].start == 0.0
    assert pieces[-1].end == 30.0
    assert all(a.end == b.start for a, b in itertools.pairwise(pieces))
    assert all(band.right <= 501 for band in bands)
    for at in instants:
        assert sum(band.holds(at) for band in bands) == 1


def test_where_time_is_shortened_its_length_is_written(half_a_minute, read):
    drawn = half_a_minute.diagram().svg()
    assert "drawn shorter" in drawn
    assert "quiet time, shortened" in read(drawn).words


def test_a_loss_ends_in_a_cross_and_an_answer_in_a_ring(read):
    hops = (
        Hop(0, "a", "b", 0.1, 0.1, "loss", "MsgVote", Saying("election", "vote?", "", 1)),
        Hop(1, "b", "a", 0.3, 0.5, "", "MsgVoteResp", Saying("election", "yes", "", 1, True)),
    )
    drawn = spacetime_svg(SpaceTime("t", 0.0, 1.0, ("a", "b"), (), hops))
    lost, answer = drawn.split("<title>a → b")[1].split("<title>b → a")
    assert "badline none" in lost.split("</g>")[0]
    assert "<circle" in answer.split("</g>")[0]


def test_a_diagram_of_many_messages_is_drawn_in_under_a_second():
    story = make_story(24, 400)
    began = time.thread_time()
    spacetime_svg(story)
    assert time.thread_time() - began < 1.0


def test_a_diagram_is_saved_as_svg_and_html(half_a_minute, tmp_path):
    picture = half_a_minute.diagram(start=2, end=6)
    assert picture.save(tmp_path / "fig.svg").read_text(encoding="utf-8").startswith("<svg")
    assert "data:image/svg+xml" in picture.save(tmp_path / "fig.html").read_text(encoding="utf-8")


def test_a_live_cluster_has_a_diagram_too():
    with af.Cluster(masters=3, workers=0) as cluster:
        cluster.client("c").set("x", 1)
        picture = cluster.diagram(kinds=["election", "client"])
    assert "set x=1" in picture.svg()
    assert "leader, term 1" in cluster.diagram().svg()
