"""Every picture of every kind of status can be read, and nothing sticks out of it."""

import itertools
import time

import pytest

from agentflow.cluster.status import MasterStatus, QueuePoint, Reign, WorkerStatus
from agentflow.notebook.pictures import panel, run, svg, theme, timeline

CLUSTER_PICTURES = {
    "panel": panel.cluster_svg,
    "narrow": lambda status: panel.cluster_svg(status, 480),
    "elections": panel.elections_svg,
    "queue": panel.queue_svg,
    "workers": panel.workers_svg,
}
RUN_PICTURES = {
    "view": run.run_svg,
    "narrow": lambda status: run.run_svg(status, 480),
    "graph": run.graph_svg,
    "gantt": run.gantt_svg,
    "utilisation": run.utilisation_svg,
}
BYTES_AT_MOST = 1_500_000


@pytest.mark.parametrize("picture", CLUSTER_PICTURES)
def test_every_picture_of_every_cluster_is_whole_and_nothing_sticks_out(
    clusters, cluster_kind, picture, read
):
    drawn = CLUSTER_PICTURES[picture](clusters[cluster_kind]())
    seen = read(drawn)
    assert seen.outside() == []
    assert "script" not in seen.tags
    assert len(drawn) < BYTES_AT_MOST


@pytest.mark.parametrize("picture", RUN_PICTURES)
def test_every_picture_of_every_run_is_whole_and_nothing_sticks_out(runs, run_kind, picture, read):
    drawn = RUN_PICTURES[picture](runs[run_kind]())
    seen = read(drawn)
    assert seen.outside() == []
    assert "script" not in seen.tags
    assert len(drawn) < BYTES_AT_MOST


def test_equal_statuses_give_equal_pictures(new_cluster, new_run):
    assert panel.cluster_svg(new_cluster()) == panel.cluster_svg(new_cluster())
    assert run.run_svg(new_run()) == run.run_svg(new_run())


def test_ten_thousand_tasks_are_drawn_in_under_three_seconds(new_run):
    status = new_run(10_000)
    began = time.thread_time()
    drawn = run.run_svg(status)
    assert time.thread_time() - began < 3.0
    assert "×10,000" in drawn


def test_the_leader_is_filled_and_has_a_second_ring_and_the_crashed_is_crossed(new_cluster, read):
    status = new_cluster(terms=3)
    drawn = panel.cluster_svg(status)
    leader = drawn[drawn.index("<title>master-1: leader") : drawn.index("<title>master-2")]
    assert leader.count("class='t2'") == 1
    assert leader.count("class='o2'") == 1
    crashed = drawn[drawn.index("<title>master-2: crashed") : drawn.index("<title>master-3")]
    assert "class='down none'" in crashed
    assert "crashed" in read(drawn).words


def test_a_candidate_is_dashed_and_wears_its_votes(new_cluster):
    drawn = panel.cluster_svg(new_cluster(terms=3))
    candidate = drawn[drawn.index("<title>master-3: candidate") :]
    candidate = candidate[: candidate.index("</g>")]
    assert "o3 dash" in candidate
    assert candidate.count("r='3'") == 1


def test_the_number_of_a_term_is_always_written(new_cluster, read):
    words = read(panel.cluster_svg(new_cluster(terms=4))).words.split()
    for term in ("1", "2", "3", "4"):
        assert term in words


def test_the_time_without_a_leader_is_written_with_its_unit(new_cluster, read):
    status = new_cluster(reigns=(Reign(1, "master-1", 0.1, 1.0), Reign(2, "master-2", 1.214)), now=5.0)
    assert "214 ms" in read(panel.cluster_svg(status)).words


def test_a_cluster_that_has_no_leader_now_says_for_how_long(new_cluster, read):
    status = new_cluster(reigns=(Reign(1, "master-1", 0.1, 1.0),), now=3.5, leader=None)
    assert "2.5 s" in read(panel.cluster_svg(status)).words


@pytest.mark.parametrize(
    ("reigns", "now", "closed", "gaps"),
    [
        ((), 5.0, False, []),
        ((Reign(1, "a", 0.1),), 5.0, False, []),
        ((Reign(1, "a", 0.1, 1.0),), 5.0, False, [(1.0, 5.0)]),
        ((Reign(1, "a", 0.1, 1.0),), 5.0, True, []),
        ((Reign(1, "a", 0.1, 1.0), Reign(2, "b", 1.0)), 5.0, False, []),
    ],
)
def test_gaps_are_the_times_without_a_leader(reigns, now, closed, gaps):
    assert timeline.gaps_of(reigns, now, closed) == gaps


def test_thinning_the_queue_keeps_the_peak_and_the_end():
    points = [QueuePoint(i, 5 if i != 777 else 9_999) for i in range(10_000)]
    kept = timeline.thinned(points, 100)
    assert len(kept) <= 101
    assert max(point.depth for point in kept) == 9_999
    assert kept[-1] is points[-1]


def test_state_is_never_told_by_colour_alone(new_run, read):
    seen = read(run.run_svg(new_run(20, failed=(3, 5))))
    for mark in ("✓", "✗", "⊘"):
        assert mark in seen.words
    assert "strike" in run.run_svg(new_run(20, failed=(3, 5)))


def test_a_failed_run_says_what_failed(new_run, read):
    words = read(run.run_svg(new_run(20, failed=(3, 5, 7, 8, 9, 10, 11)))).words
    assert "clean[2]" in words
    assert "ValueError: no clean[2]" in words
    assert "and 2 more" in words


def test_retries_are_marked_in_the_gantt_and_counted_at_the_box(new_run, read):
    status = new_run(10, failed=(3,))
    assert "1 retry" in read(run.gantt_svg(status)).words
    assert "2 tries" in run.graph_svg(status)


def test_hostile_names_are_shown_as_text(clusters, runs, hostile):
    for drawn in (panel.cluster_svg(clusters["hostile"]()), run.run_svg(runs["hostile"]())):
        assert "<script" not in drawn
        assert "&lt;script&gt;" in drawn
        assert "\x00" not in drawn
        assert "\u202e" not in drawn


def test_one_master_one_worker_and_one_task_have_cards(new_cluster, new_run, read):
    status = new_cluster()
    for master in (*status.masters, MasterStatus("x" * 200, "paused", term=10**9)):
        assert read(panel.master_svg(master)).outside() == []
    for worker in (*status.workers, WorkerStatus("y" * 200, "g" * 200, "OFFLINE", reason="silent " * 50)):
        assert read(panel.worker_svg(worker)).outside() == []
    failing = new_run(10, failed=(3,))
    seen = read(run.task_svg(failing, 3))
    assert seen.outside() == []
    assert "try 2 on worker-3: lost" in seen.words


# --- colours and text ----------------------------------------------------------------------------------------


def _linear(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]


def _luminance(rgb):
    return 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2]


def _lab(rgb):
    x, y, z = (
        0.4124 * rgb[0] + 0.3576 * rgb[1] + 0.1805 * rgb[2],
        _luminance(rgb),
        0.0193 * rgb[0] + 0.1192 * rgb[1] + 0.9505 * rgb[2],
    )
    fx, fy, fz = (max(t, 0) ** (1 / 3) for t in (x / 0.9505, y, z / 1.089))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


# Machado, Oliveira, Fernandes 2009, severity 1.0.
SIGHT = {
    "usual": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152, 1.053, -0.205), (0.115, 0.786, 0.099), (-0.004, -0.048, 1.052)),
    "deuteranopia": ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969)),
    "tritanopia": ((1.256, -0.077, -0.179), (-0.078, 0.931, 0.148), (0.005, 0.691, 0.304)),
}


@pytest.mark.parametrize("sight", SIGHT)
def test_the_five_colours_of_terms_stay_apart_for_every_kind_of_sight(sight):
    seen = [
        _lab([sum(k * c for k, c in zip(row, _linear(fill), strict=True)) for row in SIGHT[sight]])
        for fill, _ in theme.TERMS
    ]
    for a, b in itertools.combinations(seen, 2):
        assert sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) ** 0.5 > 12


def _contrast(a, b):
    high, low = sorted((_luminance(_linear(a)), _luminance(_linear(b))), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_numbers_on_the_colours_of_terms_can_be_read():
    for fill, ink in theme.TERMS:
        assert _contrast(fill, ink) >= 3.9


@pytest.mark.parametrize("at", [1, 2])
def test_text_can_be_read_on_its_card_in_both_themes(at):
    back = theme._COLOURS["bg"][at]
    for name in ("t", "m", "good", "bad", "warn"):
        assert _contrast(theme._COLOURS[name][at], back) >= 4.5
    for state in theme.STATES:
        assert _contrast(theme._COLOURS["t"][at], theme._COLOURS[f"n-{state.lower()}"][at]) >= 4.5


def test_a_theme_can_be_chosen_and_auto_follows_the_viewer():
    assert "prefers-color-scheme:dark" in theme.style()
    assert "prefers-color-scheme" not in theme.style("light")
    assert theme._COLOURS["bg"][2] in theme.style("dark")


def test_text_is_cut_to_its_room():
    for said in ("", "a", "W" * 1000, "一" * 50, "a b " * 99):
        assert svg.measure(svg.fit(said, 60, 12), 12) <= 60


def test_ticks_are_round_and_within():
    for start, end in ((0, 1e-5), (0, 0.3), (3.2, 4.7), (0, 1e6)):
        found = svg.ticks(start, end)
        assert 1 <= len(found) <= 12
        assert all(start - 1e-9 <= at <= end + 1e-9 for at, _ in found)
