"""While a cell is busy: views go on, controls act, an interrupt leaves the run alive."""

import re

import pytest
from playwright.sync_api import expect

MAKE = """
import agentflow as af, time
cluster = af.Cluster(masters=3, workers=2)
flow = af.Workflow("slow")
flow.map(lambda i: time.sleep(0.25), range(64))
cluster
"""
WAITS = {
    "run.wait()": "run = cluster.submit(flow); run.wait(); print('over')",
    "await run": "run = cluster.submit(flow); await run; print('over')",
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_clicks_act_and_updates_flow_while_a_cell_waits(sheet, wait):
    book = sheet(MAKE, wait)
    book.begin()
    panel = book.at("af-cluster")
    expect(panel).to_contain_text(re.compile(r"[1-9]\d* running"))
    before = panel.get_attribute("data-n")
    panel.locator("[data-node='master-2']").click()
    panel.get_by_role("button", name="kill", exact=True).first.click()
    expect(book.at("af-line")).to_have_text("cluster.kill('master-2')")
    expect(panel).to_contain_text("quorum 2 of 3")
    over = book.page.locator(".jp-OutputArea-output", has_text="over")
    assert over.count() == 0, "the cell was still busy"
    assert int(panel.get_attribute("data-n")) > int(before)
    panel.get_by_role("button", name="restart", exact=True).first.click()
    expect(panel).to_contain_text("quorum 3 of 3")
    expect(over).to_be_visible()


def test_an_interrupt_ends_the_waiting_and_not_the_run(sheet):
    book = sheet(MAKE, "run = cluster.submit(flow); run.wait()", "print(run.wait().ok)")
    book.begin()
    expect(book.at("af-cluster")).to_contain_text(re.compile(r"[1-9]\d* running"))
    book.command("kernelmenu:interrupt")
    expect(book.page.locator(".jp-OutputArea-output", has_text="KeyboardInterrupt")).to_be_visible()
    book.page.wait_for_timeout(1500)  # ipykernel drops what was asked for meanwhile
    assert "True" in book.execute("print(run.wait(60).ok)")


def test_controls_do_what_their_line_says(sheet):
    book = sheet("import agentflow as af\nmine = af.Cluster(masters=5, workers=1)\nmine")
    assert book.run()
    panel, line = book.at("af-cluster"), book.at("af-line")
    panel.get_by_role("button", name="kill leader").click()
    expect(line).to_have_text(re.compile(r"mine\.kill\('master-\d'\)"))
    expect(panel).to_contain_text("quorum 4 of 5")
    panel.get_by_role("button", name="add worker").click()
    expect(line).to_have_text("mine.add_worker()")
    expect(panel).to_contain_text("2 of 2 up")
    box = panel.locator(".af-ringsvg").bounding_box()
    across = box["y"] + box["height"] * 0.3
    book.page.mouse.move(box["x"] + 8, across)
    book.page.mouse.down()
    book.page.mouse.move(box["x"] + box["width"] - 8, across, steps=6)
    book.page.mouse.up()
    expect(line).to_have_text(re.compile(r"mine\.partition\(\{.*'master-1'.*\}\)"))
    expect(panel).to_contain_text("network cut for")
    panel.get_by_role("button", name="heal").click()
    expect(line).to_have_text("mine.heal()")
    panel.get_by_role("button", name="stop time").click()
    expect(line).to_have_text("mine.speed = 0")
    panel.get_by_role("button", name="go on").click()
    expect(line).to_have_text("mine.speed = 1")
    assert "1.0 4" in book.execute("print(mine.speed, sum(m.alive for m in mine.masters.values()))")


def test_the_keyboard_reaches_every_node_and_what_can_be_done_to_it(sheet):
    book = sheet("import agentflow as af\ncluster = af.Cluster(masters=3, workers=1)\ncluster")
    assert book.run()
    node = book.page.locator("[data-node='master-3']")
    node.focus()
    book.page.keyboard.press("Enter")
    expect(node).to_have_attribute("aria-pressed", "true")
    button = book.page.get_by_role("button", name="pause", exact=True)
    button.focus()
    book.page.keyboard.press("Enter")
    expect(book.at("af-line")).to_have_text("cluster.pause('master-3')")
    expect(node).to_contain_text("paused")
    unnamed = book.page.evaluate(
        """() => [...document.querySelectorAll('.af-live button, .af-live input, .af-live select, .af-live [tabindex="0"]')]
            .filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() || e.title)).length"""
    )
    assert unnamed == 0
