"""Flat arrays: the same answers with numpy and without, in order and out of it."""

import random

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.core.scheduling import links as module
from agentflow.core.scheduling.links import Links, positions_of


@pytest.fixture
def small(monkeypatch):
    """Let numpy take over at once, for ranks of any width."""
    monkeypatch.setattr(module, "LARGE", 0)
    monkeypatch.setattr(module, "NARROW", 0)


def answers(links, durations):
    return (
        links.in_order,
        links.is_acyclic,
        list(links.order()),
        [list(rank) for rank in links.levels()] if links.is_acyclic else None,
        list(links.finish_times(durations)) if links.is_acyclic else None,
        list(links.tail_times(durations)) if links.is_acyclic else None,
        [list(links.after(task)) for task in range(len(links))],
        [list(links.before(task)) for task in range(len(links))],
    )


def draw_links(data, circles):
    size = data.draw(st.integers(0, 12))
    hidden = data.draw(st.permutations(range(size)))
    before = [[] for _ in range(size)]
    for at, task in enumerate(hidden):
        limit = size - 1 if circles else at - 1
        if limit >= 0:
            before[task] = [
                hidden[i] for i in data.draw(st.lists(st.integers(0, limit), max_size=3, unique=True))
            ]
    durations = data.draw(st.lists(st.floats(0, 1e6), min_size=size, max_size=size))
    return before, durations


def make(before):
    return Links(list(map(len, before)), [task for each in before for task in each])


@settings(max_examples=150, deadline=None)
@given(data=st.data(), circles=st.booleans())
def test_numpy_and_loops_agree_to_the_last_bit(data, circles):
    before, durations = draw_links(data, circles)
    plain = answers(make(before), durations)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LARGE", 0)
        patch.setattr(module, "NARROW", 0)
        assert answers(make(before), durations) == plain


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_circles_are_found_like_networkx_finds_them(data):
    before, _ = draw_links(data, circles=True)
    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(before)))
    graph.add_edges_from((other, task) for task, each in enumerate(before) for other in each)
    assert make(before).is_acyclic == nx.is_directed_acyclic_graph(graph)


def test_a_narrow_graph_falls_back_to_loops(monkeypatch):
    monkeypatch.setattr(module, "LARGE", 100)
    links = make([[task - 1] if task else [] for task in range(500)])
    assert links._ranks() is None
    assert links.finish_times([1.0] * 500)[-1] == 500.0
    assert len(links.levels()) == 500


def test_large_random_graphs_agree_with_networkx():
    size, rng = 25_000, random.Random(7)
    hidden = list(range(size))
    rng.shuffle(hidden)
    before = [[] for _ in range(size)]
    for at in range(2, size):
        before[hidden[at]] = sorted({hidden[rng.randrange(at)], hidden[rng.randrange(at)]})
    links = make(before)
    graph = nx.DiGraph()
    graph.add_nodes_from(range(size))
    graph.add_edges_from((other, task) for task, each in enumerate(before) for other in each)
    assert list(links.order()) == list(nx.lexicographical_topological_sort(graph))
    assert [list(rank) for rank in links.levels()] == [
        sorted(rank) for rank in nx.topological_generations(graph)
    ]
    assert max(links.finish_times([1.0] * size)) == nx.dag_longest_path_length(graph) + 1


@pytest.mark.usefixtures("small")
def test_names_are_found_by_identity_or_not_at_all():
    ids = sorted([f"task-{i}" for i in range(5000)], key=id)[1000:1050]  # neighbours, however large the heap
    wanted = [ids[i] for i in (3, 3, 49, 0)]
    assert positions_of(ids, iter(wanted), 4).tolist() == [3, 3, 49, 0]
    assert positions_of(ids, iter([ids[1], "".join(list(ids[2]))]), 2) is None
    assert positions_of(ids, iter([]), 0) is None
    assert positions_of([], iter(["a"]), 1) is None


def test_a_graph_grows_at_its_end():
    links = make([[], [0]])
    assert list(links.after(0)) == [1]
    assert links.append([0, 1]) == 2
    assert links.append([2]) == 3
    assert [list(links.after(task)) for task in range(4)] == [[1, 2], [2], [3], []]
    assert list(links.order()) == [0, 1, 2, 3]
    assert links.reach(0, links.after) == [1, 2, 3]
    assert links.reach(3, links.before) == [0, 1, 2]
