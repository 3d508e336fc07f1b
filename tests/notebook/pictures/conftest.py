"""Statuses of every kind, and a reader of pictures that notices what sticks out."""

import re
import xml.etree.ElementTree as ET

import pytest

from agentflow.cluster.status import (
    ClusterStatus,
    MasterStatus,
    QueuePoint,
    Reign,
    RunBrief,
    RunStatus,
    Stand,
    Try,
    WorkerStatus,
    critical_of,
)
from agentflow.notebook.graph import warm
from agentflow.notebook.pictures.svg import measure

warm().join()  # before the first test begins: compiling outlives a single one

HOSTILE = "<script>alert('x')</script>&\"]]>\x00\x1b[31m\ud800\u202e" + "W" * 300 + "\n$\\frac{1}"

PENDING, READY, RUNNING, COMPLETED, FAILED, RETRYING, CANCELLED, SKIPPED = range(8)


class Reader:
    """Text of a picture with where it stands, transforms applied."""

    def __init__(self, svg):
        self.root = ET.fromstring(svg.encode("utf-8"))
        self.width, self.height = float(self.root.get("width")), float(self.root.get("height"))
        self.texts = []
        self.tags = set()
        self._walk(self.root, 0.0, 0.0, 1.0)

    def _walk(self, element, x, y, scale):
        tag = element.tag.split("}")[1]
        self.tags.add(tag)
        transform = element.get("transform", "")
        if move := re.search(r"translate\(([-\d.]+) ([-\d.]+)\)", transform):
            x, y = x + scale * float(move[1]), y + scale * float(move[2])
        if factor := re.search(r"scale\(([-\d.]+)\)", transform):
            scale *= float(factor[1])
        if tag == "text":
            wide = scale * measure(element.text or "", float(element.get("font-size")))
            at = x + scale * float(element.get("x"))
            left = at - {"middle": wide / 2, "end": wide}.get(element.get("text-anchor"), 0)
            self.texts.append((element.text or "", left, left + wide, y + scale * float(element.get("y"))))
        for child in element:
            self._walk(child, x, y, scale)

    @property
    def words(self):
        return " ".join(text for text, *_ in self.texts)

    def outside(self):
        """Texts that leave the card."""
        return [
            (text, left, right, y)
            for text, left, right, y in self.texts
            if left < -0.5 or right > self.width + 0.5 or y < 0 or y > self.height
        ]


@pytest.fixture
def read():
    return Reader


def make_cluster(masters=3, workers=4, terms=3, name="master", title="demo", **changes):
    ids = [f"{name}-{i + 1}" for i in range(masters)]
    tail = tuple((i, 1 + i % terms) for i in range(990, 1002))
    nodes = [
        MasterStatus(
            node,
            "up",
            "leader" if i == 0 else "follower",
            terms,
            ids[0],
            999,
            999,
            1001,
            tail,
            (),
            0.1 * (i % 9),
        )
        for i, node in enumerate(ids)
    ]
    if masters > 2:
        nodes[1] = MasterStatus(ids[1], "down")
        nodes[2] = MasterStatus(ids[2], "up", "candidate", terms + 1, None, 990, 990, 991, tail, (ids[2],))
    reigns = tuple(
        Reign(term, ids[term % masters], term - 1.0, None if term == terms else term - 0.2)
        for term in range(1, terms + 1)
    )
    stands = tuple(
        Stand(term, ids[-1], "lost" if term % 2 else "won", 1, masters, term - 0.9, term - 0.8, "timeout")
        for term in range(1, terms + 1)
    )
    group = ("cpu", "gpu", HOSTILE)
    found = {
        "title": title,
        "now": terms + 2.0,
        "leader": ids[0],
        "masters": tuple(nodes),
        "workers": tuple(
            WorkerStatus(
                f"worker-{i}", group[i % 2], ("ACTIVE", "BUSY", "OFFLINE", "DRAINING")[i % 4], i % 5, 4
            )
            for i in range(workers)
        ),
        "reigns": reigns,
        "stands": stands,
        "queue": tuple(QueuePoint(i / 10, i % 7, 3, i % 3, 1) for i in range(100)),
        "waiting": QueuePoint(terms + 2.0, 1, 2, 3, 4, 0.8),
        "runs": (RunBrief("run-1", "stdlib", (147, 86, 64, 412, 2, 3, 1, 1), 0.5),),
    }
    return ClusterStatus(**{**found, **changes})


def make_run(size=30, failed=(), name="numbers", ids=None, done=True):
    """A task, so many that wait for it, and one that waits for all of them."""
    names = ids if ids is not None else ["load", *(f"clean[{i}]" for i in range(size)), "report"]
    last = len(names) - 1
    needs = [(), *[(0,)] * (last - 1), tuple(range(1, last))] if last > 0 else [()] * len(names)
    states = bytearray([COMPLETED] * len(names))
    tries = [Try(0, 1, "worker-1", "COMPLETED", 0.0, 0.5)] if names else []
    for i in range(1, last):
        start = 0.5 + (i // 16) * 0.1
        if i in failed:
            states[i] = FAILED
            tries.append(Try(i, 1, f"worker-{i % 4}", "FAILED", start, start + 0.05, 0.0, "ValueError: no"))
            tries.append(Try(i, 2, f"worker-{i % 4}", "LOST", start + 0.06, start + 0.09))
        else:
            tries.append(Try(i, 1, f"worker-{i % 4}", "COMPLETED", start, start + 0.09))
    if failed:
        states[last] = SKIPPED
    errors = tuple((names[i], "ValueError", "no " + names[i]) for i in failed)
    run = RunStatus(
        "run-1",
        name,
        9.0,
        tuple(names),
        bytes(states),
        tuple(needs),
        tuple(tries),
        errors,
        0.0,
        2.0 if done else None,
        done,
    )
    return RunStatus(**{**{f: getattr(run, f) for f in run.__struct_fields__}, "critical": critical_of(run)})


CLUSTERS = {
    "empty": lambda: ClusterStatus("nothing", 0.0),
    "usual": make_cluster,
    "huge": lambda: make_cluster(
        masters=40,
        workers=3_000,
        terms=2_000,
        queue=tuple(QueuePoint(i / 100, i * 1000, i, 9, 1) for i in range(50_000)),
        runs=tuple(
            RunBrief(f"run-{i}", "x" * 300, (0, 0, 0, 10**9, 1, 0, 0, 0), 0.0, 9e5) for i in range(500)
        ),
        alerts=tuple(f"alert {i} " + "x" * 500 for i in range(50)),
    ),
    "failed": lambda: make_cluster(
        masters=5,
        leader=None,
        alerts=("There is no leader: 2 of 5 masters are up",),
        cuts=(("master-1", "master-3"),),
    ),
    "hostile": lambda: make_cluster(
        name=HOSTILE,
        title=HOSTILE,
        workers=0,
        alerts=(HOSTILE,),
        runs=(RunBrief(HOSTILE, HOSTILE, (1,) * 8),),
    ),
    "closed": lambda: make_cluster(closed=True),
}

RUNS = {
    "empty": lambda: make_run(ids=[]),
    "usual": make_run,
    "huge": lambda: make_run(10_000),
    "failed": lambda: make_run(20, failed=(3, 5, 7, 8, 9, 10, 11)),
    "hostile": lambda: make_run(
        name=HOSTILE, ids=[HOSTILE, *(f"{HOSTILE}{i}[{i}]" for i in range(60)), "=1+1"], failed=(2,)
    ),
    "closed": lambda: make_run(done=False),
}


@pytest.fixture(params=CLUSTERS)
def cluster_kind(request):
    return request.param


@pytest.fixture
def clusters():
    return CLUSTERS


@pytest.fixture
def runs():
    return RUNS


@pytest.fixture(params=RUNS)
def run_kind(request):
    return request.param


@pytest.fixture
def hostile():
    return HOSTILE


@pytest.fixture
def new_cluster():
    return make_cluster


@pytest.fixture
def new_run():
    return make_run
