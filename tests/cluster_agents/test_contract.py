"""What holds wherever agents live: on the kernel's bus, on a cluster, in a simulation."""

import asyncio
import time

import pytest

import agentflow as af
from agentflow import AgentMessage, MessageType

ALL_TYPES = [
    "task_request",
    "task_response",
    "status_update",
    "resource_query",
    "resource_response",
    "collaboration_request",
    "collaboration_response",
    "notification",
    "heartbeat",
    "error",
]


def note(to="", content=None, **fields):
    return AgentMessage(to=to, msg_type=MessageType.NOTIFICATION, content=content, **fields)


def contents(messages):
    return [message.content for message in messages]


# --- from one to another ----------------------------------------------------------------------------------


def test_a_message_reaches_the_one_it_names_stamped_with_its_sender(home, heard):
    a, b, c = home.agents("a", "b", "c")
    at_b, at_c = heard(b, "notification"), heard(c, "notification")
    name = a.send_to_agent(note("b", {"x": [1, "two"]})).result(10)
    assert home.until(lambda: at_b)
    (message,) = at_b
    assert (message.id, message.from_, message.to, message.content) == (name, "a", "b", {"x": [1, "two"]})
    assert message.timestamp > 0
    assert not at_c


def test_all_ten_types_of_message_travel(home, heard):
    a, b = home.agents("a", "b")
    seen = heard(b, *ALL_TYPES)
    for word in ALL_TYPES:
        a.send_to_agent(AgentMessage(word, to="b"))
    assert home.until(lambda: len(seen) == len(ALL_TYPES))
    assert [message.msg_type for message in seen] == ALL_TYPES == list(MessageType)


def test_messages_of_each_sender_are_handled_in_the_order_they_were_sent(home, heard):
    home_count = 200
    receiver = home.agent("r")
    seen = heard(receiver, "notification", "task_request", "heartbeat")
    senders = home.agents("s1", "s2", "s3")
    kinds = ("notification", "task_request", "heartbeat")
    for number in range(home_count):
        for sender in senders:
            sender.send_to_agent(AgentMessage(kinds[number % 3], number, to="r"))
    assert home.until(lambda: len(seen) == 3 * home_count)
    for sender in senders:
        assert contents(m for m in seen if m.from_ == sender.id) == list(range(home_count))


def test_a_receiver_gets_a_copy_of_its_own(home):
    a, b = home.agents("a", "b")
    content = {"items": [1]}

    @b.on("task_request")
    async def spoil(message):
        message.content["items"].append("spoilt")
        return message.content["items"]

    asked = a.request("b", content)
    content["items"].append("changed after it was sent")
    assert asked.result(10) == [1, "spoilt"]
    assert a.get_history()[0].content == {"items": [1]}
    assert b.get_history()[0].content == {"items": [1]}


def test_to_send_to_nobody_fails_at_once(home):
    a = home.agent("a")
    with pytest.raises(af.NoResponders, match="'nobody'") as caught:
        a.send_to_agent(note("nobody")).result(10)
    assert isinstance(caught.value, af.Refused)
    with pytest.raises(af.InvalidConfig, match="to="):
        a.send_to_agent(note())


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (note("b", content=object()), "content"),
        (note("b", content={"f": print}), "content"),
        (note("b", ttl=0), "ttl"),
        (note("b", ttl=-5), "ttl"),
        (note("b", ttl=float("nan")), "ttl"),
        (AgentMessage("no such type", to="b"), "msg_type"),
        ("not a message", "message"),
        (note(to=5), "to"),
    ],
)
def test_what_is_no_message_is_refused_before_it_is_sent(home, message, field):
    a, _ = home.agents("a", "b")
    with pytest.raises(af.InvalidConfig) as caught:
        a.send_to_agent(message)
    assert caught.value.field == field
    assert a.stats().sent == 0


# --- to all -----------------------------------------------------------------------------------------------


def test_a_broadcast_reaches_every_other_agent_once_and_not_its_sender(home, heard):
    agents = home.agents("a", "b", "c", "d")
    seen = {agent.id: heard(agent, "status_update") for agent in agents}
    told = agents[0].broadcast(AgentMessage("status_update", "up")).result(10)
    assert sorted(told) == ["b", "c", "d"]
    assert home.until(lambda: all(seen[name] for name in "bcd"))
    assert {name: contents(found) for name, found in seen.items()} == {
        "a": [],
        "b": ["up"],
        "c": ["up"],
        "d": ["up"],
    }


def test_a_broadcast_with_a_receiver_is_refused(home):
    a, _ = home.agents("a", "b")
    with pytest.raises(af.InvalidConfig, match="send_to_agent"):
        a.broadcast(note("b"))


# --- to those who subscribed ------------------------------------------------------------------------------


def test_a_publication_reaches_those_subscribed_by_subject_or_type_with_one_copy_each(home, heard):
    publisher, one, rest, by_type, all_of_it, none = home.agents("p", "one", "rest", "type", "all", "none")
    one.subscribe("one", ["sensors.*"])
    rest.subscribe(["sensors.>"])
    by_type.subscribe("type", ["notification"])
    all_of_it.subscribe("all", ["sensors.*", "sensors.>", ">", "notification", "sensors.room1"])
    seen = {agent.id: heard(agent, "notification") for agent in (one, rest, by_type, all_of_it, none)}
    assert publisher.publish("sensors.room1", 1).result(10) == ("all", "one", "rest", "type")
    assert publisher.publish("sensors.room1.door", 2).result(10) == ("all", "rest", "type")
    assert publisher.publish("sensors", 3).result(10) == ("all", "type")
    assert publisher.publish("weather", 4, msg_type="status_update").result(10) == ("all",)
    assert home.until(lambda: contents(seen["all"])[-1:] == [3] and len(seen["type"]) == 3)
    found = {name: contents(messages) for name, messages in seen.items()}
    assert found == {"one": [1], "rest": [1, 2], "type": [1, 2, 3], "all": [1, 2, 3], "none": []}
    assert [message.subject for message in seen["rest"]] == ["sensors.room1", "sensors.room1.door"]


def test_one_publishes_by_type_too(home, heard):
    a, b, c = home.agents("a", "b", "c")
    b.subscribe("b", ["status_update"])
    seen = heard(b, "status_update")
    assert a.publish("status_update", {"load": 0.5}).result(10) == ("b",)
    assert home.until(lambda: seen)
    assert seen[0].msg_type is MessageType.STATUS_UPDATE
    assert c.stats().received == 0


def test_who_published_hears_it_if_subscribed_unless_told_otherwise(home):
    a = home.agent("a")
    a.subscribe(["news"])
    assert a.publish("news").result(10) == ("a",)
    assert a.publish("news", echo=False).result(10) == ()


def test_subscriptions_end(home):
    a, b = home.agents("a", "b")
    assert b.subscribe("b", ["x.*", "heartbeat"]).result(10) == ("x.*", "heartbeat")
    assert b.unsubscribe("b", ["x.*"]).result(10) == ("heartbeat",)
    assert a.publish("x.y").result(10) == ()
    assert b.unsubscribe().result(10) == () == b.subscriptions
    assert a.publish("heartbeat").result(10) == ()


def test_a_handler_for_a_subject_goes_before_one_for_the_type_and_the_newest_first(home):
    a, b = home.agents("a", "b")
    seen = []
    b.on("notification")(lambda message: seen.append(("type", message.subject)))
    b.on("news.>")(lambda message: seen.append(("news", message.subject)))
    b.on("news.sport")(lambda message: seen.append(("sport", message.subject)))
    b.on(lambda message: seen.append(("else", message.msg_type)))
    for subject in ("news.sport", "news.art"):
        a.publish(subject)
    a.send_to_agent(note("b"))
    a.send_to_agent(AgentMessage("heartbeat", to="b"))
    assert home.until(lambda: len(seen) == 4)
    assert seen == [("sport", "news.sport"), ("news", "news.art"), ("type", ""), ("else", "heartbeat")]
    assert b.subscriptions == ("news.>", "news.sport")


def test_a_cell_that_runs_again_replaces_its_handler(home):
    a, b = home.agents("a", "b")
    for word in ("old", "new"):
        b.on("task_request", "jobs.*")(lambda message, word=word: word)
    assert a.request("b").result(10) == "new"
    assert b.subscriptions == ("jobs.*",)


# --- questions and answers --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async", "plain", "plain that returns a coroutine", "object"])
def test_what_a_handler_returns_is_the_answer_whatever_kind_of_function_it_is(home, kind):
    a, b = home.agents("a", "b")

    async def coroutine(message):
        await asyncio.sleep(0.001)
        return {"twice": 2 * message.content["x"]}

    class Handler:
        async def __call__(self, message):
            return await coroutine(message)

    handlers = {
        "async": coroutine,
        "plain": lambda message: {"twice": 2 * message.content["x"]},
        "plain that returns a coroutine": lambda message: coroutine(message),
        "object": Handler(),
    }
    b.on("task_request")(handlers[kind])
    asked = a.request("b", {"x": 21}, timeout_ms=10_000)
    assert asked.result(10) == {"twice": 42}
    assert (asked.message.msg_type, asked.message.from_) == (MessageType.TASK_RESPONSE, "b")


def test_a_handler_may_answer_with_a_message_of_its_own_type(home):
    a, b = home.agents("a", "b")
    b.on("collaboration_request")(lambda message: AgentMessage("notification", "later"))
    asked = a.request("b", msg_type="collaboration_request")
    assert asked.result(10) == "later"
    assert asked.message.msg_type is MessageType.NOTIFICATION


def test_an_answer_can_come_as_a_message_of_its_own(home, heard):
    a, b = home.agents("a", "b")
    answers = heard(a, "resource_response")
    b.on("resource_query")(lambda message: {"cpu": 4})
    name = a.send_to_agent(AgentMessage("resource_query", to="b", requires_response=True)).result(10)
    assert home.until(lambda: answers)
    assert (answers[0].content, answers[0].in_reply_to) == ({"cpu": 4}, name)
    assert answers[0].correlation_id == name


def test_everybody_may_answer_a_broadcast_and_each_once(home, heard):
    a, *others = home.agents("a", "b", "c", "d")
    bids = heard(a, "collaboration_response")
    for agent in others:
        agent.on("collaboration_request")(lambda message: message.to)
    name = a.broadcast(AgentMessage("collaboration_request", requires_response=True, id="auction")).result(10)
    assert name == ("b", "c", "d")
    assert home.until(lambda: len(bids) == 3)
    assert sorted(contents(bids)) == ["b", "c", "d"]
    assert {message.in_reply_to for message in bids} == {"auction"}
    assert a.stats().dead_letters == {}


def test_to_ask_nobody_fails_at_once_and_for_sure(home):
    a, b = home.agents("a", "b")
    began = time.monotonic()
    with pytest.raises(af.NoResponders, match="no agent 'nobody'"):
        a.request("nobody", timeout_ms=60_000).result(30)
    with pytest.raises(af.NoResponders, match=r"no handler for task_request.*@agent\.on\('task_request'\)"):
        a.request("b", timeout_ms=60_000).result(30)
    b.close()
    with pytest.raises(af.NoResponders, match="no agent 'b'"):
        a.request("b", timeout_ms=60_000).result(30)
    assert time.monotonic() - began < 30
    assert a.stats().pending_requests == 0


def test_a_question_without_an_answer_times_out_and_the_late_answer_is_counted_and_reaches_nobody(home):
    a, b = home.agents("a", "b")
    gate = []

    @b.on("task_request")
    async def slow(message):
        if message.content == "first":
            while not gate:
                await asyncio.sleep(0.01)
        return f"answer to the {message.content}"

    with pytest.raises(af.RequestTimeout, match=r"within 0\.05 s; it may have done") as caught:
        a.request("b", "first", timeout_ms=50).result(20)
    assert isinstance(caught.value, af.Unknown)
    assert isinstance(caught.value, TimeoutError)
    second = a.request("b", "second", timeout_ms=30_000)
    gate.append(True)
    assert second.result(20) == "answer to the second"
    assert home.until(lambda: a.stats().dead_letters.get("late reply") == 1)
    assert [letter.message.content for letter in a.dead_letters] == ["answer to the first"]
    assert a.stats().pending_requests == 0


def test_who_cancels_a_question_waits_no_more_and_its_answer_is_a_late_one(home):
    a, b = home.agents("a", "b")
    gate = []

    @b.on("task_request")
    async def slow(message):
        while not gate:
            await asyncio.sleep(0.01)
        return message.content

    asked = a.request("b", 1)
    asked.cancel()
    gate.append(True)
    with pytest.raises(asyncio.CancelledError):
        asked.result(1)
    assert a.request("b", 2).result(10) == 2
    assert home.until(lambda: a.stats().dead_letters.get("late reply", 0) == 1)
    assert a.stats().pending_requests == 0


def test_a_handler_that_raises_answers_with_an_error_and_the_agent_goes_on(home):
    a, b = home.agents("a", "b")

    @b.on("task_request")
    async def fragile(message):
        return 1 / message.content

    with pytest.raises(af.RemoteError, match=r"the handler of b failed on .*ZeroDivisionError") as caught:
        a.request("b", 0).result(10)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "fragile" in caught.value.report["traceback"]
    assert caught.value.agent == "b"
    assert a.request("b", 4).result(10) == 0.25
    assert (b.stats().handled, b.stats().failed) == (1, 1)


@pytest.mark.parametrize(
    "error", [ValueError, SystemExit, KeyboardInterrupt, asyncio.CancelledError, StopIteration]
)
@pytest.mark.parametrize("plain", [False, True])
def test_whatever_a_handler_raises_is_its_answer(home, error, plain):
    a, b = home.agents("a", "b")

    def raising(message):
        raise error("no")

    async def raising_later(message):
        await asyncio.sleep(0)
        raise error("no")

    b.on("task_request")(raising if plain else raising_later)
    b.on("heartbeat")(lambda message: "alive")
    with pytest.raises(af.RemoteError, match=error.__name__):
        a.request("b").result(10)
    assert a.request("b", msg_type="heartbeat").result(10) == "alive"


def test_what_a_handler_returns_has_to_be_plain_data(home):
    a, b = home.agents("a", "b")
    b.on("task_request")(lambda message: object())
    with pytest.raises(af.RemoteError, match="what a handler returns is plain data"):
        a.request("b").result(10)


def test_a_handler_that_raises_on_a_plain_message_is_logged_and_counted(home, caplog):
    a, b = home.agents("a", "b")

    @b.on("notification")
    async def fragile(message):
        raise ValueError("broken")

    with caplog.at_level("ERROR", logger="agentflow"):
        a.send_to_agent(note("b"))
        assert home.until(lambda: b.stats().failed == 1)
    assert "the handler of b raised on notification from a" in caplog.text


def test_agents_can_ask_each_other_while_they_are_being_asked(home):
    a, b, c = home.agents("a", "b", "c")

    @b.on("task_request")
    async def pass_on(message):
        return 1 + await b.request("c", message.content)

    @c.on("task_request")
    async def answer(message):
        return 10 * message.content

    assert a.request("b", 4).result(10) == 41


def test_a_conversation_keeps_its_correlation_id(home, heard):
    a, b, c = home.agents("a", "b", "c")
    at_c = heard(c, "status_update")

    @b.on("task_request")
    async def work(message):
        b.send_to_agent(AgentMessage("status_update", "halfway", to="c"))
        return "done"

    asked = a.request("b", correlation_id="order-7")
    asked.result(10)
    assert home.until(lambda: at_c)
    assert asked.message.correlation_id == at_c[0].correlation_id == "order-7"
    own = a.request("b")
    own.result(10)
    assert own.message.correlation_id == own.message.in_reply_to


def test_a_message_can_be_handled_by_hand_in_turn_with_the_others(home):
    b = home.agent("b")
    b.on("task_request")(lambda message: message.content + 1)
    b.on("error")(lambda message: 1 / 0)
    assert b.handle_message(AgentMessage("task_request", 1)).result(10) == 2
    with pytest.raises(af.NoResponders):
        b.handle_message(AgentMessage("heartbeat")).result(10)
    with pytest.raises(af.RemoteError) as caught:
        b.handle_message(AgentMessage("error")).result(10)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


# --- time ------------------------------------------------------------------------------------------------


def test_a_message_that_outlives_its_ttl_is_not_handled(home):
    a, b = home.agents("a", "b")
    handled, gate = [], []

    @b.on("task_request", "notification")
    async def slow(message):
        handled.append(message.content)
        while not gate:
            await asyncio.sleep(0.01)

    a.send_to_agent(note("b", "first"))
    assert home.until(lambda: handled)
    a.send_to_agent(note("b", "short-lived", ttl=20))
    asked = a.request("b", "short-lived question", timeout_ms=20_000, ttl=20)
    a.send_to_agent(note("b", "long-lived", ttl=600_000))
    assert home.until(lambda: b.stats().mailbox == 3)
    home.let_pass(0.1)
    gate.append(True)
    with pytest.raises(af.Expired, match="outlived its ttl"):
        asked.result(10)
    assert home.until(lambda: "long-lived" in handled)
    assert handled == ["first", "long-lived"]
    assert b.stats().dead_letters == {"expired": 2}


def test_the_budget_of_a_question_travels_with_it(home):
    """What a handler asks takes no longer than whoever waits for the handler."""
    a, b, c = home.agents("a", "b", "c")
    caught, gate = [], []

    @b.on("task_request")
    async def pass_on(message):
        try:
            await b.request("c", timeout_ms=600_000)
        except af.RequestTimeout as error:
            caught.append(error)

    @c.on("task_request")
    async def never(message):
        while not gate:
            await asyncio.sleep(0.01)

    with pytest.raises(af.RequestTimeout):
        a.request("b", timeout_ms=100).result(20)
    assert home.until(lambda: caught)
    assert home.until(lambda: b.stats().pending_requests == 0)
    gate.append(True)


# --- mailboxes -------------------------------------------------------------------------------------------


@pytest.fixture
def stuffed(home):
    """An agent whose handler is at work, with three places in its mailbox."""
    a, b = home.agent("a"), home.agent("b", capacity=3)
    handled, gate = [], []

    @b.on(*ALL_TYPES)
    async def slow(message):
        handled.append(message.content)
        while not gate:
            await asyncio.sleep(0.01)

    a.send_to_agent(note("b", "at work"))
    assert home.until(lambda: handled)
    yield a, b, handled, lambda: gate.append(True)
    gate.append(True)


def test_a_full_mailbox_rejects_requests(home, stuffed):
    a, b, handled, release = stuffed
    asked = [a.request("b", number, timeout_ms=60_000) for number in range(4)]
    with pytest.raises(af.MailboxFull, match="ask again later") as caught:
        asked[3].result(20)
    assert isinstance(caught.value, af.Refused)
    release()
    assert [call.result(20) for call in asked[:3]] == [None] * 3
    assert handled == ["at work", 0, 1, 2]
    assert b.stats().dead_letters == {"mailbox full": 1}


@pytest.mark.parametrize("kind", ["heartbeat", "status_update"])
def test_a_full_mailbox_keeps_the_latest_of_what_is_worth_nothing_once_it_is_old(home, stuffed, kind):
    a, b, handled, release = stuffed
    a.send_to_agent(AgentMessage("task_request", "work", to="b"))
    for number in range(10):
        a.send_to_agent(AgentMessage(kind, number, to="b"))
    assert home.until(lambda: sum(b.stats().dead_letters.values()) == 8)
    release()
    assert home.until(lambda: len(handled) == 4)
    assert handled == ["at work", "work", 0, 9]
    assert b.stats().dead_letters == {"superseded": 8}


def test_a_full_mailbox_drops_the_oldest_notification(home, stuffed):
    a, b, handled, release = stuffed
    for number in range(10):
        a.send_to_agent(note("b", number))
    assert home.until(lambda: sum(b.stats().dead_letters.values()) == 7)
    release()
    assert home.until(lambda: len(handled) == 4)
    assert handled == ["at work", 7, 8, 9]
    assert b.stats().dead_letters == {"displaced": 7}
    assert [letter.message.content for letter in b.dead_letters] == list(range(7))


def test_a_full_mailbox_delays_nobody_else(home, stuffed):
    a, _, _, release = stuffed
    c = home.agent("c")
    c.on("status_update")(lambda message: None)
    for number in range(50):
        a.broadcast(AgentMessage("status_update", number))
    assert home.until(lambda: c.stats().handled == 50)
    release()


# --- what is remembered ----------------------------------------------------------------------------------


def test_the_history_has_what_was_sent_and_received_and_is_bounded(home):
    a, b = home.agent("a", history=4), home.agent("b")
    b.on("task_request")(lambda message: -message.content)
    for number in range(1, 4):
        a.request("b", number).result(10)
    assert contents(a.get_history()) == [2, -2, 3, -3]
    assert contents(a.get_history(3)) == [-2, 3, -3]
    assert a.get_history(0) == []
    assert contents(b.get_history()) == [1, -1, 2, -2, 3, -3]
    with pytest.raises(af.InvalidConfig):
        a.get_history(-1)


def test_dead_letters_are_kept_in_a_ring_and_all_of_them_are_counted(home):
    a, b = home.agents("a", "b")
    for number in range(1200):
        a.send_to_agent(AgentMessage("task_request", number, to="b"))
        if number % 500 == 499:
            assert home.until(lambda number=number: b.stats().dead_letters.get("unhandled") == number + 1)
    assert home.until(lambda: b.stats().dead_letters == {"unhandled": 1200})
    assert contents(letter.message for letter in b.dead_letters) == list(range(200, 1200))
    assert {letter.reason for letter in b.dead_letters} == {"unhandled"}


# --- who one is -------------------------------------------------------------------------------------------


def test_a_handle_sends_only_as_itself_and_an_attempt_is_counted(home, heard):
    a, b, _ = home.agents("a", "b", "c")
    seen = heard(b, "notification")
    with pytest.raises(af.Refused, match="a sends only as itself, not as 'c'"):
        a.send_to_agent(note("b", from_="c"))
    with pytest.raises(af.Refused, match="sends only as itself"):
        a.broadcast(note(from_="c"))
    with pytest.raises(af.Refused, match="sends only as itself"):
        a.publish("news", note(from_="c"))
    with pytest.raises(af.Refused, match="subscribes only itself"):
        a.subscribe("b", ["news"])
    a.send_to_agent(note("b", "own", from_="a"))
    assert home.until(lambda: seen)
    assert contents(seen) == ["own"]
    assert home.until(lambda: a.stats().dead_letters == {"forged": 4})


def test_names_are_taken_once(home):
    home.agent("a")
    with pytest.raises(af.InvalidConfig):
        home.agent("")
    with pytest.raises(af.InvalidConfig):
        home.agent(5)
    if home.place is None:
        with pytest.raises(af.InvalidConfig, match="there is an agent 'a' already"):
            home.agent("a")
    else:
        assert home.place.agent("a") is home.made[0]
        with pytest.raises(af.InvalidConfig, match="other settings"):
            home.place.agent("a", capacity=5)


def test_a_closed_agent_says_so_and_its_name_is_free(home):
    a, b = home.agents("a", "b")
    b.subscribe(["news"])
    b.close()
    b.close()
    with pytest.raises(af.Closed):
        b.send_to_agent(note("a")).result(10)
    with pytest.raises(af.Closed):
        b.subscribe(["x"]).result(10)
    assert a.peers == ()
    assert a.publish("news").result(10) == ()
    again = home.agent("b")
    again.on("task_request")(lambda message: "the new one")
    assert a.request("b").result(10) == "the new one"
    assert again.subscriptions == ()
    assert "closed" in repr(b)


def test_an_agent_shows_where_it_is_and_what_it_handles(home):
    a = home.agent("a")
    a.on("task_request", "news.*")(lambda message: None)
    assert repr(a) == f"<agent 'a' on {home.label}, handles news.*, task_request>"
    asked = a.request("nobody")
    with pytest.raises(af.NoResponders):
        asked.result(10)
    assert repr(asked).startswith("<call failed: NoResponders")


# --- tables ----------------------------------------------------------------------------------------------


def test_every_message_is_a_row_and_its_stages_are_an_audit(home):
    a, b = home.agents("a", "b")
    b.on("task_request")(lambda message: message.content)
    b.on("error")(lambda message: 1 / 0)
    a.request("b", {"x": 1}).result(10)
    with pytest.raises(af.RemoteError):
        a.request("b", msg_type="error").result(10)
    a.send_to_agent(AgentMessage("heartbeat", to="b"))
    assert home.until(lambda: b.stats().dead_letters)
    messages = a.frames.messages().query("source in ('a', 'b') and destination in ('a', 'b')").tail(5)
    assert messages.type.tolist() == ["task_request", "task_response", "error", "error", "heartbeat"]
    assert messages.source.tolist() == ["a", "b", "a", "b", "a"]
    audit = a.frames.audit()
    assert audit.seq.tolist() == list(range(1, len(audit) + 1))
    last = audit[audit.id == b.dead_letters[-1].message.id]
    assert last.event.tolist() == ["sent", "delivered", "dead"]
    assert last.reason.tolist()[-1] == "unhandled"
    failed = audit[audit.event == "failed"]
    assert failed.reason.tolist()[-1].startswith("ZeroDivisionError")
    assert a.frames.dead_letters().reason.tolist()[-1] == "unhandled"
