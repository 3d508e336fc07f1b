"""Every view in the real thing: it renders, it updates, it holds what it is given, in both themes."""

import re

import pytest
from playwright.sync_api import expect

HOSTILE = "<img src=x onerror=alert(1)>'&</script><script>alert(2)</script>"

RUN = """
import agentflow as af, time, random
cluster = af.Cluster(masters=3, workers=4)
flow = af.Workflow("imports")
first = flow.add(lambda: time.sleep(0.1), id="load")
parts = [flow.add(lambda _, i=i: time.sleep(random.random() * 0.2), first, id=f"scan[{i}]") for i in range(300)]
def broken():
    raise ValueError("no such file")
flow.add(broken, id="validate")
rest = flow.add(lambda *a: time.sleep(20), parts[0], id="report")
run = cluster.submit(flow)
run
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_panel_in_both_themes(sheet, pictures, dark):
    book = sheet(
        "import agentflow as af, time\ncluster = af.Cluster(masters=5, workers={'cpu': 3, 'gpu': 1}, name='demo')\ncluster",
        "run = cluster.map(lambda i: time.sleep(0.02), range(400))\ncluster.kill('master-5')\nrun.wait()\ncluster.kill(cluster.leader)\ntime.sleep(1)",
        dark=dark,
    )
    assert book.run()
    panel = book.at("af-cluster")
    expect(panel).to_contain_text("quorum 3 of 5")
    expect(panel).to_contain_text("400 done")
    background = panel.evaluate("e => getComputedStyle(e).backgroundColor")
    assert background == ("rgb(17, 24, 31)" if dark else "rgb(255, 255, 255)")
    panel.screenshot(path=pictures / f"cluster-{'dark' if dark else 'light'}.png")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_view_of_a_run_in_both_themes(sheet, pictures, dark):
    book = sheet(RUN, dark=dark)
    assert book.run()
    view = book.at("af-run")
    expect(view).to_contain_text("301 done", timeout=30_000)
    expect(view.locator("[data-box]")).to_have_count(4)
    book.at("af-failure").click()
    expect(book.at("af-traceback")).to_contain_text("ValueError: no such file")
    expect(book.at("af-line")).to_have_text("run.explain('validate')")
    view.locator("[data-box]").filter(has_text="×300").click()
    expect(book.at("af-cells")).to_be_visible()
    book.at("af-find").fill("report")
    book.at("af-find").press("Enter")
    expect(book.at("af-detail")).to_contain_text("runs on worker-")
    view.screenshot(path=pictures / f"run-{'dark' if dark else 'light'}.png")
    view.get_by_role("button", name="cancel").click()
    expect(book.page.locator(".agentflow img")).to_have_count(1)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_player_in_both_themes(sheet, pictures, dark):
    book = sheet(
        "import agentflow as af\nsim = af.Simulation(masters=5, seed=7)\nsim",
        "sim.run_until(lambda s: s.leader)\nsim.run_for(2)\nsim.kill(sim.leader)\nsim.run_until(lambda s: s.leader)\nNone",
        dark=dark,
    )
    assert book.run()
    view, line, now = book.at("af-player"), book.at("af-line"), book.at("af-now")
    expect(book.at("af-seed")).to_have_text("7")
    expect(book.at("af-verdict")).to_contain_text("promises kept")
    then = now.inner_text()
    view.get_by_role("button", name="step ▶").click()
    expect(line).to_have_text("sim.step()")
    view.get_by_role("button", name="◀ step").click()
    expect(view).to_contain_text("looking back")
    view.get_by_role("button", name="to the end").click()
    view.get_by_role("button", name="show less time").click()
    expect(book.at("af-pending")).to_be_visible()
    book.at("af-pending").get_by_role("button", name=re.compile("^drop")).click()
    expect(line).to_have_text(re.compile(r"sim\.drop\(\d+\)"))
    view.get_by_role("button", name="script", exact=True).click()
    expect(book.at("af-script")).to_contain_text("af.Simulation(masters=5, seed=7)")
    view.screenshot(path=pictures / f"player-{'dark' if dark else 'light'}.png")
    book.at("af-play").click()
    expect(now).not_to_have_text(then)
    book.at("af-play").click()
    box = book.at("af-diagram").bounding_box()
    book.page.mouse.click(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.8)
    expect(view).to_contain_text("looking back")


def test_names_with_markup_are_shown_and_not_run(sheet):
    book = sheet(
        f"""
import agentflow as af, time
name = {HOSTILE!r}
cluster = af.Cluster(masters=1, workers={{name[:60]: 1}}, name=name)
flow = af.Workflow(name)
def bad(): raise ValueError(name)
flow.add(bad, id=name)
flow.add(time.sleep, 60, id="after")
run = cluster.submit(flow)
cluster""",
        "run",
    )
    book.page.on("dialog", lambda dialog: book.problems.append(f"a dialog: {dialog.message}"))
    assert book.run()
    expect(book.at("af-cluster")).to_contain_text("<img src=x onerror=alert(1)>")
    expect(book.at("af-run")).to_contain_text("<img src=x onerror=alert(1)>")
    book.at("af-failure").click()
    expect(book.at("af-traceback")).to_contain_text("</script>")
    assert book.page.locator(".af-live img, .af-live script").count() == 0


def test_ten_thousand_tasks_stay_usable(sheet, pictures):
    book = sheet(
        """
import agentflow as af, time
cluster = af.Cluster(masters=3, workers=4)
flow = af.Workflow("huge")
parts = flow.map(abs, range(10_000))
flow.add(time.sleep, 60, id="last", after=[parts])
run = cluster.submit(flow)
run"""
    )
    assert book.run()
    view = book.at("af-run")
    expect(view).to_contain_text("10,000 done", timeout=60_000)
    view.locator("[data-box]").filter(has_text="×10,000").click()
    cells = book.at("af-cells")
    expect(cells).to_be_visible()
    box = cells.bounding_box()
    book.page.mouse.click(box["x"] + 30, box["y"] + 5)
    expect(book.at("af-detail")).to_contain_text("completed")
    view.screenshot(path=pictures / "run-10000.png")


def test_narrow_and_without_motion(sheet, pictures):
    book = sheet(
        "import agentflow as af\ncluster = af.Cluster(masters=3, workers=2)\ncluster",
        width=620,
        height=1800,
        reduced_motion="reduce",
    )
    assert book.run()
    panel = book.at("af-cluster")
    expect(panel).to_contain_text("quorum 3 of 3")
    wide = panel.evaluate("e => e.scrollWidth - e.clientWidth")
    assert wide <= 1, "nothing sticks out"
    assert panel.evaluate("e => e.getAnimations({subtree: true}).length") == 0
    panel.screenshot(path=pictures / "cluster-narrow.png")


def test_small_views_and_dashboards_in_a_stock_layout(sheet, pictures):
    book = sheet(
        """
import agentflow as af, ipywidgets
%load_ext agentflow
cluster = af.Cluster(masters=3, workers=2)
sim = af.Simulation(masters=3, seed=1)
parts = [cluster.watch(part) for part in ("queue", "workers", "locks", "agents", "messages")]
ipywidgets.VBox([ipywidgets.HBox(parts[:2]), *parts[2:]])""",
        "%%workflow etl\ndef load(): return [1, 2]\ndef total(load): return sum(load)",
        "run = cluster.submit(etl)\nprint(run.result('total'))\n%agentflow status",
        "af.dashboard(cluster, sim)",
        height=3200,
    )
    assert book.run()
    views = book.page.locator("[data-testid='af-small']")
    expect(views).to_have_count(5)
    expect(views.nth(1)).to_contain_text("2 of 2 up")
    book.at("af-filter").fill("heartbeatresp master-2")
    expect(views.nth(4)).to_contain_text("MsgHeartbeatResp")
    expect(views.nth(4)).not_to_contain_text("Pulse")
    expect(book.page.locator(".jp-OutputArea-output", has_text="All is well")).to_be_visible()
    expect(book.at("af-cluster")).to_contain_text("quorum 3 of 3")
    expect(book.at("af-player")).to_contain_text("seed 1")
    book.page.screenshot(path=pictures / "dashboard.png")
