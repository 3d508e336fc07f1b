"""What people leave at the end of a cell shows itself, whatever state it is in, and saves itself."""

import base64
import re
import threading
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

import agentflow as af
from agentflow.cluster.status import (
    cluster_status,
    critical_of,
    published,
    published_run,
    queue_of,
    reigns_of,
    run_status,
)
from agentflow.core.raft.events import Role, RoleChanged
from agentflow.core.record import Record
from agentflow.notebook.pictures import picture as pictures
from agentflow.notebook.pictures.picture import Picture, png


class Page(HTMLParser):
    """Tags, text and images of a piece of HTML."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.images, self.addresses = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        found = dict(attrs)
        if tag == "img":
            self.images.append(found)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset")]

    def handle_data(self, data):
        self.words.append(data)


def svgs(html):
    return [
        base64.b64decode(each["src"].removeprefix("data:image/svg+xml;base64,")).decode()
        for each in Page(html).images
    ]


def boom():
    raise ValueError("<b>broken</b>")


@pytest.fixture
def sim():
    sim = af.Simulation(masters=3, workers=2, seed=5)
    sim.run_until(lambda s: s.leader)
    return sim


@pytest.fixture
def flow(hostile):
    flow = af.Workflow("two\nlines <i>")
    numbers = flow.map(abs, range(60))
    total = flow.add(sum, numbers, id="total")
    flow.add(boom, id="<script>", after=total)
    return flow


@pytest.fixture
def run(sim, flow):
    return sim.submit(flow).wait(600)


@pytest.fixture
def cluster():
    with af.Cluster(masters=3, workers=2) as cluster:
        yield cluster


def check(bundle):
    assert set(bundle) == {"text/plain", "text/html"}
    assert "failed:" not in bundle["text/plain"].splitlines()[-1]
    assert 1 <= len(bundle["text/plain"].splitlines()) <= 40
    page = Page(bundle["text/html"])
    assert "script" not in page.tags
    assert all(address.startswith("data:image/svg+xml;base64,") for address in page.addresses)
    for each in page.images:
        assert each["alt"]
    for svg in svgs(bundle["text/html"]):
        ET.fromstring(svg)
    return page


def test_a_cluster_shows_its_panel_and_the_same_facts_as_tables(cluster):
    page = check(cluster._repr_mimebundle_())
    assert len(page.images) == 1
    assert page.tags.count("caption") == 2
    assert "scope" in cluster._repr_mimebundle_()["text/html"]
    assert "master-1" in page.words


def test_a_closed_cluster_shows_its_last_state():
    cluster = af.Cluster(masters=3, workers=1)
    run = cluster.submit(sum, [1, 2])
    run.wait(20)
    cluster.close()
    for shown in (cluster, run):
        check(shown._repr_mimebundle_())
    assert "closed" in svgs(cluster._repr_mimebundle_()["text/html"])[0]
    assert "✓ 1 done" in svgs(run._repr_mimebundle_()["text/html"])[0]


def test_a_cluster_with_every_master_down_still_shows_itself(sim, run):
    for master in sim.masters:
        sim.kill(master)
    check(sim._repr_mimebundle_())
    check(run._repr_mimebundle_())
    assert "no quorum: 0 of 3" in svgs(sim._repr_mimebundle_()["text/html"])[0]


def test_a_run_shows_graph_gantt_and_errors(run):
    page = check(run._repr_mimebundle_())
    svg = svgs(run._repr_mimebundle_()["text/html"])[0]
    assert "×60" in svg
    assert "ATTEMPTS BY WORKER" in svg
    assert "&lt;script&gt;" in svg
    assert any("<b>broken</b>" in word for word in page.words)


def test_a_released_run_shows_what_it_knows(run):
    run.release()
    check(run._repr_mimebundle_())
    assert "failed" in run._repr_mimebundle_()["text/plain"]


def test_workflows_and_nodes_show_themselves(sim, flow, run):
    check(flow._repr_mimebundle_())
    check(af.Workflow("empty")._repr_mimebundle_())
    for handle in (*sim.masters.values(), *sim.workers.values()):
        picture = sim.plot.node(handle)
        ET.fromstring(picture.svg())
    sim.kill("master-2")
    assert "crashed" in sim.plot.node("master-2").svg()
    with pytest.raises(af.NoSuchNode, match="there are: master-1"):
        sim.plot.node("master-9")
    with pytest.raises(af.NoSuchTask):
        sim.submit(sum, [1]).plot.task("nothing")


def test_a_display_does_not_wait_for_a_loop_that_stands_still(cluster):
    known = published(cluster)
    run = cluster.submit(sum, [1, 2])
    run.wait(20)
    go_on, stands = threading.Event(), threading.Event()

    def stand():
        stands.set()
        go_on.wait(20)

    blocker = threading.Thread(target=cluster.read, args=(stand,))
    blocker.start()
    try:
        assert stands.wait(10)
        shown = published(cluster, patience=0.05)
        assert shown.stale
        assert shown.masters == known.masters
        assert published_run(run, patience=0.05).note == "the cluster does not answer"
    finally:
        go_on.set()
        blocker.join()
    assert not published(cluster, patience=20).stale


def test_a_status_agrees_with_the_frames(sim, run):
    status = cluster_status(sim)
    nodes = sim.frames.nodes().set_index("id")
    for master in status.masters:
        assert (master.term, master.commit, master.last) == tuple(
            nodes.loc[master.id, ["term", "commit", "last_index"]]
        )
        assert [term for _, term in master.tail] == list(
            sim.frames.log().query("node == @master.id").tail(len(master.tail))["term"]
        )
    found = run_status(run)
    assert len(found.tries) == len(run.frames.attempts())
    assert dict(zip(found.ids, found.states, strict=True)).keys() == set(run.frames.tasks()["task"])
    assert found.counts[4] == len(run.frames.errors()) == 1


def test_a_reign_ends_with_a_crash_a_new_role_or_a_successor():
    def role(time, node, what, term):
        return Record(0, time, node, "role", payload=RoleChanged(what, term))

    records = [
        role(1.0, "a", Role.LEADER, 1),
        Record(0, 2.0, "a", "crash"),
        role(3.0, "b", Role.LEADER, 2),
        role(4.0, "c", Role.LEADER, 3),
        role(5.0, "c", Role.FOLLOWER, 4),
        role(6.0, "a", Role.LEADER, 4),
    ]
    assert [(r.term, r.leader, r.started, r.ended) for r in reigns_of(records)] == [
        (1, "a", 1.0, 2.0),
        (2, "b", 3.0, 4.0),
        (3, "c", 4.0, 5.0),
        (4, "a", 6.0, None),
    ]
    assert queue_of(records) == []


def test_the_critical_path_is_the_longest_chain_of_time(new_run):
    status = new_run(3)
    assert [status.ids[task] for task in critical_of(status)] in (["load", f"clean[{i}]"] for i in range(3))
    assert critical_of(new_run(ids=[])) == ()


# --- files ---------------------------------------------------------------------------------------------------


def test_a_picture_is_saved_as_svg_and_html(run, tmp_path):
    picture = run.gantt()
    saved = picture.save(tmp_path / "gantt.svg")
    ET.parse(saved)
    page = Page(picture.save(tmp_path / "gantt.html").read_text())
    assert len(page.images) == 1
    assert all(address.startswith("data:") for address in page.addresses)
    assert picture._repr_svg_() == saved.read_text()


def test_a_picture_keeps_the_instant_it_was_asked_for(sim):
    picture = sim.plot.panel()
    before = picture.svg()
    sim.kill(sim.leader)
    sim.run_for(5)
    assert picture.svg() == before
    assert sim.plot.panel().svg() != before


def test_an_unknown_ending_or_theme_is_refused(run, tmp_path):
    with pytest.raises(af.InvalidConfig, match=r"\.svg, \.html, \.png"):
        run.graph().save(tmp_path / "graph.gif")
    with pytest.raises(af.InvalidConfig, match="theme='pink'"):
        run.graph().svg("pink")
    assert list(tmp_path.iterdir()) == []


def test_without_a_converter_a_png_names_what_would_help(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cairosvg", None)
    monkeypatch.setattr(pictures.shutil, "which", lambda name: None)
    with pytest.raises(af.MissingExtra, match="pip install cairosvg"):
        Picture(lambda theme: "<svg xmlns='http://www.w3.org/2000/svg'/>", "x").save(tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []


def test_a_png_has_twice_the_pixels_of_its_picture(new_cluster, program):
    program("chromium")
    from agentflow.notebook.pictures.panel import worker_svg

    svg = worker_svg(new_cluster().workers[0], theme="light")
    made = png(svg)
    width, height = pictures.size_of(svg)
    assert made.startswith(b"\x89PNG")
    assert (int.from_bytes(made[16:20], "big"), int.from_bytes(made[20:24], "big")) == (2 * width, 2 * height)


@pytest.mark.parametrize("of", ["run", "cluster"])
def test_a_report_is_one_file_that_asks_the_network_for_nothing(sim, run, tmp_path, of):
    subject = run if of == "run" else sim
    text = subject.report(tmp_path / "report.html").read_text()
    page = Page(text)
    words = " ".join(page.words)
    assert len(page.images) >= 5
    assert "script" not in page.tags
    assert all(address.startswith("data:") for address in page.addresses)
    assert not re.search(r"url\(|@import|https?://", text)
    for said in ("Elections", "Slowest tasks", "Errors", "seed", af.__version__, "<b>broken</b>"):
        assert said in words
    for svg in svgs(text):
        ET.fromstring(svg)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_report_of_a_closed_cluster_is_written_too(tmp_path):
    cluster = af.Cluster(masters=1, workers=1)
    run = cluster.submit(sum, [1, 2])
    run.wait(20)
    cluster.close()
    assert "closed" in svgs(cluster.report(tmp_path / "c.html").read_text())[0]
    assert run.report(tmp_path / "r.html").exists()


def test_the_report_of_a_cluster_shows_how_its_leaders_were_elected(sim, tmp_path):
    assert any("leader, term 1" in svg for svg in svgs(sim.report(tmp_path / "c.html").read_text()))


def test_a_report_is_an_html_file(sim, tmp_path):
    with pytest.raises(af.InvalidConfig, match=r"\.html"):
        sim.report(tmp_path / "report.pdf")


def test_plots_draw_on_an_axis_that_is_passed(sim, run):
    from matplotlib.figure import Figure

    for plot, least in ((run.plot.gantt, 60), (sim.plot.elections, 1)):
        ax = Figure().add_subplot()
        assert plot(ax=ax) is ax
        assert len(ax.patches) >= least
    for plot in (run.plot.utilisation, sim.plot.queue):
        ax = Figure().add_subplot()
        assert plot(ax=ax) is ax
        assert ax.lines or ax.collections
    ax = Figure().add_subplot()
    assert sim.plot.spacetime(ax=ax, start=0.0) is ax
    assert [label.get_text() for label in ax.get_yticklabels()][:3]
    assert ax.lines
    assert ax.texts


def test_drawing_without_an_axis_imports_no_plotting_library(sim, run):
    import subprocess
    import sys

    code = (
        "import sys, agentflow as af; s = af.Simulation(masters=1, workers=1, seed=1); s.run_until(lambda s: s.leader);"
        "r = s.submit(sum, [1]).wait(60); r.gantt().svg(); s.plot.queue().svg();"
        "assert 'matplotlib' not in sys.modules; assert 'pandas' not in sys.modules; print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "fine", done.stderr
