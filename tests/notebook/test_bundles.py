"""What the objects of a notebook show: always text and HTML, whatever became of them, and never an error."""

import base64
import concurrent.futures
import html.parser
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

import pytest

import agentflow as af
from agentflow import views
from agentflow.notebook import graph

graph.warm().join()  # before the first test begins: compiling outlives a single one

SOON = 20.0
HOSTILE = "<img src=x onerror=alert(1)>\"'&]]></svg><script>alert(2)</script>\x00\x07\u202e" + "w" * 300


class Tags(html.parser.HTMLParser):
    """The tags, attributes and pictures of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.pictures = [], set(), []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        for name, value in attrs:
            if name == "src":
                head, data = value.split(",", 1)
                assert head == "data:image/svg+xml;base64", "a picture brings itself along"
                self.pictures.append(base64.b64decode(data).decode())


def shown(thing):
    """The bundle of an object, checked for what every bundle must be."""
    bundle = thing._repr_mimebundle_()
    assert {"text/plain", "text/html"} <= set(bundle)
    assert all(isinstance(text, str) and text for text in bundle.values())
    assert "view failed" not in bundle["text/plain"], bundle["text/plain"]
    page = Tags(bundle["text/html"])
    assert set(page.tags) <= {
        *(
            "style",
            "div",
            "p",
            "img",
            "details",
            "summary",
            "table",
            "caption",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
        ),
        *("h4", "span", "b", "code"),
    }
    assert not {name for name in page.attributes if name.startswith("on")}
    for picture in page.pictures:
        root = ET.fromstring(picture)
        assert root.tag.endswith("svg")
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert not tags & {"script", "foreignObject", "image", "img"}
        assert not re.search(r"https?://(?!www\.w3\.org)", picture), "nothing is fetched"
    return bundle


def boom():
    raise ValueError(HOSTILE)


def hostile_flow():
    flow = af.Workflow(HOSTILE)
    bad = flow.add(boom, id=HOSTILE, name=HOSTILE)
    flow.add(int, bad, id=f"after {HOSTILE}")
    flow.add(int, id="lost", group=HOSTILE)
    flow.add(int, id="fine")
    return flow


def test_what_is_empty_shows_itself(sim):
    shown(af.Workflow("empty"))
    shown(sim.submit(af.Workflow("empty")))
    shown(af.Simulation(masters=3, workers=0))


def test_a_workflow_that_could_not_run_shows_itself():
    shown(af.Workflow("circle", tasks=[("a", ["b"]), ("b", ["a"]), ("c", ["c"])]))
    shown(af.Workflow("hole", tasks=[("a", ["ghost"])]))


@pytest.mark.parametrize("shape", ["layers", "chain", "wide"])
def test_what_is_huge_shows_itself_soon_and_in_few_bytes(sim, shape):
    needs = {
        "layers": lambda i: [f"t{i - 100}", f"t{(i * 7) % 100 + (i // 100 - 1) * 100}"] if i >= 100 else [],
        "chain": lambda i: [f"t{i - 1}"] if i else [],
        "wide": lambda i: [],
    }[shape]
    flow = af.Workflow("huge", tasks=[(f"t{i}", needs(i)) for i in range(5_000)])
    began = time.perf_counter()
    bundle = shown(flow)
    run = sim.submit(flow)
    sim.run_for(1.5)
    submitted = time.perf_counter()
    more = shown(run)
    cluster = shown(sim)
    assert time.perf_counter() - submitted < 8
    assert time.perf_counter() - began < 30
    for each in (bundle, more, cluster):
        assert len(each["text/html"]) < 1_000_000
        assert len(each["text/plain"]) < 20_000


def test_what_failed_shows_why(sim):
    run = sim.submit(lambda: 1 / 0).wait()
    bundle = shown(run)
    for text in bundle.values():
        assert "ZeroDivisionError" in text
        assert "division by zero" in text


def test_hostile_names_are_text_everywhere(sim):
    sim.add_worker(group=HOSTILE)
    run = sim.submit(hostile_flow(), idempotency_key=HOSTILE)
    sim.run_for(20)
    for thing in (run.flow, run, sim):
        bundle = shown(thing)
        assert "<script>" not in bundle["text/html"]
        assert "onerror=alert" not in re.sub(r"&lt;.*?&gt;", "", bundle["text/html"])
        assert "\x00" not in "".join(bundle.values())


def test_a_hostile_name_of_a_cluster_is_text_too():
    with af.Cluster(masters=1, workers=1, name=HOSTILE) as cluster:
        shown(cluster)
    shown(cluster)


def test_what_is_broken_shows_itself(sim):
    run = sim.submit(af.Workflow("abc", tasks=[("a", []), ("b", ["a"])]))
    for name in sim.masters:
        sim.kill(name)
        shown(sim)
        shown(run)
    sim.kill("worker-1")
    sim.pause("worker-2")
    shown(sim)
    shown(run)


def test_what_is_closed_shows_its_last_state():
    with af.Cluster(masters=3, workers=2) as cluster:
        run = cluster.submit(int, 3)
        run.wait(SOON)
        open_bundle = shown(cluster)
    closed = shown(cluster)
    assert "master-1" in closed["text/plain"]
    assert "closed" in closed["text/plain"].lower()
    assert "closed" not in open_bundle["text/plain"].lower()
    shown(run)
    run_text = shown(run)["text/plain"]
    assert "1" in run_text


def test_a_released_run_shows_what_it_knows(sim):
    run = sim.submit(int, 3).wait()
    run.release()
    shown(run)


def test_eight_threads_may_show_at_once(sim):
    flow = af.Workflow("both", tasks=[(f"t{i}", [f"t{i - 7}"] if i > 6 else []) for i in range(60)])
    run = sim.submit(flow).wait()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        bundles = list(pool.map(shown, [flow, run] * 8))
    assert len({bundle["text/html"] for bundle in bundles[::2]}) == 1


@pytest.mark.parametrize("engines", [["dot"], []])
def test_without_the_first_engine_the_next_one_draws(sim, engines, monkeypatch, program):
    monkeypatch.setattr(graph, "_wasm", lambda dot: None)
    path = program("dot") if engines else None
    monkeypatch.setattr(shutil, "which", lambda name, **_: path)
    flow = af.Workflow("abc", tasks=[("a", []), ("b", ["a"]), ("c", ["a"]), ("d", ["b", "c"])])
    page = Tags(shown(flow)["text/html"])
    assert page.pictures
    for name in "abcd":
        assert f">{name}<" in page.pictures[0]


def test_a_view_that_raises_leaves_the_text_with_the_reason(monkeypatch, sim):
    run = sim.submit(int).wait()
    views.find("html", af.Run)

    def broken(subject):
        raise RuntimeError("no paint")

    for kind in ("text", "html"):
        monkeypatch.setitem(views._registry, (kind, af.Run), broken)
    bundle = run._repr_mimebundle_()
    assert bundle["text/plain"].startswith("<Run run-1 'int'")
    assert "(html view failed: RuntimeError: no paint)" in bundle["text/plain"]


def test_importing_the_package_draws_nothing():
    code = "import agentflow, sys; agentflow.Workflow('x'); print('agentflow.notebook' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )
