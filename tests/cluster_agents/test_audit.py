"""The audit on disk: a numbered table of what happened to every message."""

import hashlib
import json
import sqlite3

import pytest

import agentflow as af
from agentflow import AgentMessage
from agentflow.runtime.trace import Trace, canonical


def rows(path, columns="*", where="1"):
    with sqlite3.connect(path) as database:
        found = database.execute(f"SELECT {columns} FROM agent_audit WHERE {where} ORDER BY seq").fetchall()
    database.close()
    return found


def talk(home):
    """Have a conversation of four messages, one of which nobody handles."""
    a, b = home.agents("a", "b")
    b.on("task_request")(lambda message: {"secret": message.content["secret"][::-1], "ok": True})
    a.request("b", {"secret": "abc"}, correlation_id="order-7").result(10)
    a.send_to_agent(AgentMessage("heartbeat", to="b"))
    a.publish("weather.rain", 3)
    assert home.until(lambda: b.stats().dead_letters == {"unhandled": 1})
    return a, b


def test_every_stage_of_every_message_is_a_row(home, tmp_path):
    path = tmp_path / "audit.sqlite"
    listener = home.agent("listener")
    with listener.audit_to(path):
        a, _ = talk(home)
    assert rows(path, "event, msg_type, from_agent, to_agent, correlation_id", "id LIKE 'a%'") == [
        ("sent", "task_request", "a", "b", "order-7"),
        ("delivered", "task_request", "a", "b", "order-7"),
        ("handled", "task_request", "a", "b", "order-7"),
        ("sent", "task_response", "b", "a", "order-7"),
        ("delivered", "task_response", "b", "a", "order-7"),
        ("sent", "heartbeat", "a", "b", None),
        ("delivered", "heartbeat", "a", "b", None),
        ("dead", "heartbeat", "a", "b", None),
    ]
    numbers = [seq for (seq,) in rows(path, "seq")]
    assert numbers == list(range(1, len(numbers) + 1))
    ((text, digest),) = rows(path, "content, content_sha256", "event = 'handled'")
    assert json.loads(text) == {"secret": "abc"}
    assert digest == hashlib.sha256(canonical({"secret": "abc"})).hexdigest()
    assert a.frames.audit().query("event == 'handled'").content.tolist()[-1] == {"secret": "abc"}


def test_secrets_can_be_left_out_and_are_still_told_apart_by_their_hash(home, tmp_path):
    listener = home.agent("listener")
    redacted, bare = tmp_path / "redacted.sqlite", tmp_path / "bare.sqlite"

    def redact(content):
        return {**content, "secret": "***"} if isinstance(content, dict) else content

    with listener.audit_to(redacted, redact=redact), listener.audit_to(bare, content=False):
        talk(home)
    assert json.loads(rows(redacted, "content", "event = 'handled'")[0][0]) == {"secret": "***"}
    assert rows(bare, "DISTINCT content") == [(None,)]
    assert rows(redacted, "content_sha256") == rows(bare, "content_sha256")
    assert b"abc" not in bare.read_bytes() + redacted.read_bytes()


def test_an_audit_goes_on_in_the_same_file(kernel, tmp_path):
    path = tmp_path / "audit.sqlite"
    a, b = kernel.agents("a", "b")
    b.on("task_request")(lambda message: message.content)
    with a.audit_to(path):
        a.request("b", 1).result(10)
    a.request("b", "between two audits").result(10)
    log = a.audit_to(path)
    a.request("b", 2).result(10)
    log.close()
    log.close()
    with pytest.raises(af.Closed):
        log.flush()
    assert rows(path, "seq, event, content") == [
        (1, "sent", "1"),
        (2, "delivered", "1"),
        (3, "handled", "1"),
        (4, "sent", "1"),
        (5, "delivered", "1"),
        (6, "sent", "2"),
        (7, "delivered", "2"),
        (8, "handled", "2"),
        (9, "sent", "2"),
        (10, "delivered", "2"),
    ]


def test_a_message_under_way_when_the_audit_begins_is_known_by_what_it_says(sim, tmp_path):
    path = tmp_path / "audit.sqlite"
    a, b = sim.agent("a"), sim.agent("b")
    b.on("notification")(print)
    sim.network.latency_ms = (100, 100)
    a.send_to_agent(AgentMessage("notification", "early", to="b"))
    with a.audit_to(path):
        sim.run_for(1)
    assert rows(path, "seq, event, content") == [(1, "delivered", '"early"'), (2, "handled", '"early"')]


def test_what_the_trace_forgot_before_it_was_read_is_a_row_that_says_so(sim, tmp_path):
    path = tmp_path / "audit.sqlite"
    a, b = sim.agent("a"), sim.agent("b")
    b.on("task_request")(lambda message: message.content)
    bus = a._bus
    bus.host.trace = Trace(limit=20)
    with a.audit_to(path) as log:
        for number in range(20):
            a.request("b", number).result()
        assert log.flush() > 0
        for number in range(20):
            a.request("b", number).result()
    assert log.missed > 0
    gaps = rows(path, "seq, reason", "event = 'gap'")
    assert len(gaps) == 2
    assert "events were forgotten before they were read" in gaps[0][1]
    numbers = [seq for (seq,) in rows(path, "seq")]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_file_that_cannot_be_written_is_an_error_at_once(kernel, tmp_path):
    a = kernel.agent("a")
    with pytest.raises(sqlite3.OperationalError):
        a.audit_to(tmp_path / "no such folder" / "audit.sqlite")
