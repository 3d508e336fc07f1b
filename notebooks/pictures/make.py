"""The pictures of the README, made from a simulation.

    python notebooks/pictures/make.py            # writes them beside this file
    python notebooks/pictures/make.py --check    # says whether they still show what would be drawn

Instants move with every change of the library, so `--check` does not compare them: colours must be the same, and nearly
all words.
"""

import re
import sys
from pathlib import Path

import agentflow as af

HERE = Path(__file__).resolve().parent


def build(name):
    return name


def cluster():
    """A panel in the middle of trouble: a crash, a cut, work under way."""
    sim = af.Simulation(masters=5, workers={"cpu": 3, "gpu": 1}, seed=11, config=af.RaftConfig.fast())
    sim.run_until(lambda s: s.leader and len(s.plane().workers) == 4)
    flow = af.Workflow("build-and-test")
    parts = flow.map(build, [f"part-{i}" for i in range(90)])
    tests = flow.map(build, [f"test-{i}" for i in range(40)], id="test", priority="low")
    flow.add(build, [parts, tests], id="report", priority="low")
    sim.submit(flow)
    sim.run_for(1.2)
    sim.kill(sim.leader)
    sim.run_for(2.4)
    sim.kill("worker-2")
    apart = next(master for master in sim.masters if sim.masters[master].alive and master != sim.leader)
    sim.partition({apart}, set(sim.masters) - {apart})
    sim.run_for(3.1)
    return sim.plot.panel()


def spacetime():
    """Three masters, a client, a crash and its repair."""
    sim = af.Simulation(masters=3, seed=7)
    sim.run_until(lambda s: s.leader)
    sim.client("client").set("x", 1)
    first = sim.leader
    sim.run_for(1)
    sim.kill(first)
    sim.run_until(lambda s: s.leader and s.leader != first)
    sim.client("client").set("x", 2)
    sim.restart(first)
    sim.run_for(2.2)
    return sim.diagram(start=2.8)


PICTURES = {"cluster.svg": cluster, "space-time.svg": spacetime}


def words(svg):
    """The words that stand on a picture, without numbers."""
    return set(re.findall(r"[a-z]{2,}", " ".join(re.findall(r"<text[^>]*>([^<]*)", svg)).lower()))


def alike(one, other):
    """Whether two pictures show the same, at other instants perhaps."""
    styles = {re.findall(r"<style>.*?</style>", svg, re.DOTALL)[0] for svg in (one, other)}
    return len(styles) == 1 and len(words(one) & words(other)) >= 0.7 * len(words(one) | words(other))


def main():
    stale = []
    for name, draw in PICTURES.items():
        drawn = draw().svg() + "\n"
        path = HERE / name
        if "--check" not in sys.argv:
            path.write_text(drawn, encoding="utf-8")
        elif not path.exists() or not alike(path.read_text(encoding="utf-8"), drawn):
            stale.append(name)
    if stale:
        sys.exit(f"{', '.join(stale)}: no longer like what {Path(__file__).name} draws; run it and look at them")


if __name__ == "__main__":
    main()
