"""What rich prints of an object in a terminal."""

import io

import pytest
from rich.console import Console

import agentflow as af
from agentflow.cluster.status import published_run
from agentflow.notebook.terminal import BAR, bar


def printed(thing, width=100):
    out = io.StringIO()
    Console(file=out, width=width).print(thing)
    return out.getvalue()


def test_a_cluster_names_its_masters_workers_and_what_is_wrong(sim):
    victim = next(master for master in sim.masters if master != sim.leader)
    sim.kill(victim)
    text = printed(sim)
    for words in (f"● {sim.leader}", f"✕ {victim}", "crashed", "worker-1", "0/4", f"! {victim} is down"):
        assert words in text


def test_a_closed_cluster_is_printed_too():
    cluster = af.Cluster(masters=1, workers=1)
    cluster.close()
    assert "master-1" in printed(cluster)


def fail():
    raise ValueError("[red]no[/red]")


def test_a_run_shows_its_states_as_a_bar_and_names_in_brackets_stay_names(sim):
    flow = af.Workflow("many")
    flow.map(abs, range(9), id="[bold]x")
    flow.add(fail, id="bad")
    run = sim.submit(flow)
    run.wait(600)
    text = printed(run)
    assert "✓ 9 done" in text
    assert "✗ 1 failed" in text
    assert "ValueError: [red]no[/red]" in text
    assert BAR - 2 <= text.count("█") <= BAR + 2


def test_a_run_without_tasks_says_so(sim):
    assert "no tasks" in str(bar(published_run(sim.submit(af.Workflow("none")))))


def test_a_huge_cluster_is_a_screenful():
    sim = af.Simulation(masters=3, workers=40, seed=1, config=af.RaftConfig.fast())
    sim.run_until(lambda s: len(s.plane().workers) == 40)
    text = printed(sim)
    assert "and 24 more" in text
    assert text.count("\n") < 40


@pytest.mark.parametrize("thing", [lambda: af.Workflow("[red]w"), af.PriorityTaskQueue, af.WorkerRegistry])
def test_what_has_no_form_of_its_own_is_printed_as_its_text(thing):
    made = thing()
    assert printed(made).strip().splitlines()[0] == made._repr_mimebundle_()["text/plain"].splitlines()[0]


def test_a_view_that_fails_leaves_the_text(sim, monkeypatch):
    def broken(kind, subject):
        raise RuntimeError("no")

    monkeypatch.setattr("agentflow.views.find", broken)
    assert "Simulation" in printed(sim)
