"""Live views: what a feed costs, what goes over the wire, and how long until it is seen and takes effect.

    python tests/benchmarks/bench_live.py [--browser]

Without `--browser` only the kernel's side is measured; with it a real JupyterLab and Chromium are started, and
Dask's progress bar for the same tasks is measured beside ours.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import agentflow as af
from agentflow.notebook.graph import warm
from agentflow.notebook.live.feed import feed_of
from agentflow.notebook.live.run import RunScene
from agentflow.notebook.live.scene import Frame
from agentflow.notebook.live.tail import Tail

SIZES = (100, 2_000, 10_000)
TOGETHER_SECS = 6.0


def percentiles(values):
    ordered = sorted(values)
    return {
        "p50": round(statistics.median(ordered), 1),
        "p95": round(ordered[int(0.95 * (len(ordered) - 1))], 1),
        "n": len(ordered),
    }


def update_cost():
    """Milliseconds of a core and bytes for one snapshot of a run, by its number of tasks."""
    found = {}
    for size in SIZES:
        sim = af.Simulation(masters=3, workers=4, seed=1, config=af.RaftConfig.fast())
        sim.run_until(lambda s: s.leader and len(s.plane().workers) == 4)
        flow = af.Workflow("many")
        flow.map(abs, range(size), estimated_duration_secs=0.05)
        run = sim.submit(flow)
        scene, tail = RunScene(run), Tail()
        costs, sizes = [], []
        for turn in range(60):
            sim.run_for(0.1)
            tail.look(sim.trace)
            frame = Frame(sim, tail)
            began = time.perf_counter()
            scene.fixed(frame)
            data = json.dumps(scene.snapshot(frame))
            if turn >= 3:  # names and graph come in the first
                costs.append((time.perf_counter() - began) * 1000)
                sizes.append(len(data))
        found[size] = {"ms": percentiles(costs), "bytes": percentiles(sizes)}
    return found


def together():
    """Share of a core and bytes a second of a five-master cluster and a run of 2,000 tasks, both watched."""
    with af.Cluster(masters=5, workers=4) as cluster:
        flow = af.Workflow("many")
        flow.map(lambda i: time.sleep(0.05), range(2_000))
        sent = [0]
        spent = [0.0]
        feed = feed_of(cluster)
        begin = feed._run

        def run():
            started = time.thread_time()
            begin()
            spent[0] += time.thread_time() - started

        feed._run = run
        job = cluster.submit(flow)
        views = [cluster.watch(), job.watch()]
        for view in views:
            view.observe(
                lambda change: sent.__setitem__(0, sent[0] + len(change["new"])), ["fixed", "snapshot"]
            )
        began = time.monotonic()
        while time.monotonic() - began < TOGETHER_SECS and not job.done:
            time.sleep(0.05)
        seconds = time.monotonic() - began
        ticks = feed.ticks
        for shown in feed._views.values():
            shown.seen_at = -float("inf")
        for thread in threading.enumerate():
            if thread.name == "agentflow-views":
                thread.join(5)
        job.cancel()
        return {
            "core_percent": round(100 * spent[0] / seconds, 2),
            "kilobytes_a_second": round(sent[0] / seconds / 1000, 1),
            "ticks_a_second": round(ticks / seconds, 1),
        }


WATCH = """
() => {
    window.__seen = [];
    const root = document.querySelector("[data-testid='af-small'] tbody, [data-testid='af-cluster']");
    new MutationObserver(() => requestAnimationFrame(() => {
        const said = document.querySelector("[data-testid='af-quorum']").textContent;
        if (said !== window.__last) { window.__last = said; window.__seen.push([Date.now(), said]); }
    })).observe(root, {subtree: true, childList: true, characterData: true, attributes: true});
}
"""
MAKE = "import agentflow as af, time\ncluster = af.Cluster(masters=5, workers=4)\ncluster"
PAINT = """
import agentflow as af, time
cluster = af.Cluster(masters=3, workers=4)
flow = af.Workflow("many")
flow.map(lambda i: time.sleep({secs}), range({size}))
run = cluster.submit(flow)
{before}
run"""
DASK = """
import time
from distributed import Client, LocalCluster, progress
client = Client(LocalCluster(n_workers=1, threads_per_worker=16, processes=False, dashboard_address=None))
futures = client.map(lambda i: time.sleep({secs}), range({size}))
{before}
progress(futures)"""
STAMP = "from IPython.display import HTML, display; display(HTML(f'<b id=stamp data-at={time.time() * 1000}></b>'))"


def change_to_pixel(book):
    """Milliseconds from the call that kills a node to the frame that shows it, in a busy cell."""
    book.run()
    book.page.wait_for_function("() => document.querySelector(\"[data-testid='af-quorum']\")")
    book.page.evaluate(WATCH)
    said = book.execute(
        "import json, time\nat = []\nfor i in range(30):\n    time.sleep(0.35)\n    at.append(time.time() * 1000)\n"
        "    (cluster.kill if i % 2 == 0 else cluster.restart)('master-5')\nprint(json.dumps(at))"
    )
    book.page.wait_for_timeout(800)
    stamps, seen = json.loads(said), [each[0] for each in book.page.evaluate("() => window.__seen")]
    return percentiles([min(s for s in seen if s >= at) - at for at in stamps if any(s >= at for s in seen)])


def click_to_effect(book):
    """Milliseconds from a click on `kill` or `restart` of a worker to the frame that shows what came of it."""
    found = []
    for i in range(12):
        wanted = "kill" if i % 2 == 0 else "restart"
        button = book.page.get_by_role("button", name=f"{wanted} worker-2")
        button.wait_for()
        after = "restart" if i % 2 == 0 else "kill"
        found.append(
            button.evaluate(
                """(button, after) => new Promise((done) => {
                    const began = performance.now();
                    const look = () => document.querySelector(`[aria-label='${after} worker-2']`)
                        ? done(performance.now() - began) : requestAnimationFrame(look);
                    button.click();
                    look();
                })""",
                after,
            )
        )
        book.page.wait_for_timeout(200)
    return percentiles(found)


def first_paint(sheet, code, size, selector):
    """Milliseconds from the statement before the display to the first frame with something of it in it."""
    book = sheet(
        [code.replace("{before}", STAMP).replace("{size}", str(size)).replace("{secs}", str(100 / size))]
    )
    book.begin()
    book.page.wait_for_function(
        """(selector) => {
            if (!document.querySelector(selector)) return false;
            window.__painted = window.__painted || Date.now();
            return true;
        }""",
        arg=selector,
        polling="raf",
    )
    took = book.page.evaluate("() => window.__painted - Number(document.querySelector('#stamp').dataset.at)")
    book.close()
    return round(took)


def in_the_browser():
    """What a person sees."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e_live"))
    from lab import SOON_MS, Lab, Sheet, browser

    found = {}
    with tempfile.TemporaryDirectory() as folder, browser() as chrome:
        lab = Lab(Path(folder) / "here")
        number = iter(range(1_000))

        def sheet(cells):
            page = chrome.new_page(viewport={"width": 1280, "height": 1500})
            page.set_default_timeout(SOON_MS)
            return Sheet(lab, page, cells, f"n{next(number)}.ipynb")

        try:
            book = sheet([MAKE])
            found["change to pixel, ms"] = change_to_pixel(book)
            found["click to effect, ms"] = click_to_effect(book)
            book.close()
            for size in SIZES:
                ours = first_paint(sheet, PAINT, size, "[data-testid='af-run'] .af-said span")
                dask = first_paint(
                    sheet,
                    DASK,
                    size,
                    ".jp-OutputArea-output .widget-hprogress, .jp-OutputArea-output [role='progressbar']",
                )
                found[f"first paint of {size} tasks, ms"] = {"agentflow": ours, "dask progress": dask}
        finally:
            lab.close()
    return found


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--browser", action="store_true", help="measure in a real JupyterLab too")
    asked = parser.parse_args()
    warm().join()
    for size, costs in update_cost().items():
        print(f"one snapshot of a run of {size:,} tasks: {costs}")
    print(f"five masters and a run of 2,000 tasks, both watched: {together()}")
    if asked.browser:
        for what, figure in in_the_browser().items():
            print(f"{what}: {figure}")


if __name__ == "__main__":
    main()
