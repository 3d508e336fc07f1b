import math

from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.core.agents.letters import Reason
from agentflow.core.agents.mailbox import Item, Mailbox
from agentflow.core.agents.messages import AgentMessage, MessageType
from agentflow.core.agents.pending import Pending, Requests

LATEST = {MessageType.HEARTBEAT, MessageType.STATUS_UPDATE}


class SlowMailbox:
    """The same mailbox as a list that is searched from the front."""

    def __init__(self, capacity):
        self.capacity = capacity
        self.items = []

    def put(self, item, now, in_hand):
        lost = []
        if len(self.items) + in_hand >= self.capacity:
            for old in [old for old in self.items if old.expires <= now]:
                self.remove(old)
                lost.append((Reason.EXPIRED, old))
        if len(self.items) + in_hand >= self.capacity:
            victim = self.victim(item.message)
            if victim is None:
                return [*lost, (Reason.MAILBOX_FULL, item)]
            self.remove(victim)
            latest = item.message.msg_type in LATEST
            lost.append((Reason.SUPERSEDED if latest else Reason.DISPLACED, victim))
        self.items.append(item)
        return lost

    def remove(self, gone):
        """Two messages may be equal; `list.remove` would take the first of them."""
        self.items = [item for item in self.items if item is not gone]

    def victim(self, new):
        def key(m):
            return m.from_, m.msg_type, m.subject, m.correlation_id

        for old in self.items:
            message = old.message
            if new.requires_response or message.requires_response:
                continue
            if new.msg_type in LATEST and key(message) == key(new):
                # Only the newest of a key is replaced; with one a key in a full box they are the same.
                return [
                    o for o in self.items if key(o.message) == key(new) and not o.message.requires_response
                ][-1]
            if new.msg_type is MessageType.NOTIFICATION and message.msg_type is MessageType.NOTIFICATION:
                return old
        return None


MESSAGES = st.builds(
    AgentMessage,
    st.sampled_from(
        [MessageType.TASK_REQUEST, MessageType.HEARTBEAT, MessageType.STATUS_UPDATE, MessageType.NOTIFICATION]
    ),
    from_=st.sampled_from("pq"),
    requires_response=st.booleans(),
    subject=st.sampled_from(["", "s"]),
)
STEPS = st.one_of(
    st.tuples(st.just("put"), MESSAGES, st.sampled_from([1.0, 5.0, math.inf]), st.integers(0, 2)),
    st.tuples(st.just("take"), st.integers(1, 4)),
    st.tuples(st.just("back"), st.integers(1, 4), st.integers(0, 3)),
    st.tuples(st.just("later"), st.floats(0.1, 3.0)),
)


@settings(max_examples=300)
@given(st.integers(1, 5), st.lists(STEPS, max_size=40))
def test_a_mailbox_does_what_a_list_would(capacity, steps):
    box, slow, now = Mailbox(capacity), SlowMailbox(capacity), 0.0
    for kind, *data in steps:
        if kind == "put":
            message, ttl, in_hand = data
            item = Item(message, now + ttl)
            assert [(r, id(i)) for r, i in box.put(item, now, in_hand)] == [
                (r, id(i)) for r, i in slow.put(item, now, in_hand)
            ]
        elif kind == "later":
            now += data[0]
        else:
            taken = box.take(data[0])
            expected, slow.items = slow.items[: data[0]], slow.items[data[0] :]
            assert [id(i) for i in taken] == [id(i) for i in expected]
            if kind == "back":
                # The reader started on some of them and gives back the rest.
                box.put_back(taken[data[1] :])
                slow.items = expected[data[1] :] + slow.items
        assert len(box) == len(slow.items) <= capacity
    assert [id(i) for i in box.take(len(box))] == [id(i) for i in slow.items]
    assert len(box) == 0


def test_an_accepted_request_is_never_pushed_out():
    box = Mailbox(2)
    for number in range(2):
        box.put(Item(AgentMessage(MessageType.TASK_REQUEST, number)), 0.0)
    for kind in MessageType:
        (lost,) = box.put(Item(AgentMessage(kind, "new")), 0.0)
        assert lost[0] is Reason.MAILBOX_FULL
    assert [item.message.content for item in box.take(len(box))] == [0, 1]


def test_a_full_mailbox_keeps_the_latest_heartbeat_and_drops_the_oldest_notification():
    box = Mailbox(4)
    for kind in (MessageType.HEARTBEAT, MessageType.NOTIFICATION):
        for number in (1, 2):
            box.put(Item(AgentMessage(kind, number, from_="p")), 0.0)
    box.put(Item(AgentMessage(MessageType.HEARTBEAT, 3, from_="p")), 0.0)
    box.put(Item(AgentMessage(MessageType.NOTIFICATION, 3, from_="p")), 0.0)
    left = [(item.message.msg_type, item.message.content) for item in box.take(len(box))]
    assert left == [("heartbeat", 1), ("notification", 2), ("heartbeat", 3), ("notification", 3)]


def test_a_mailbox_under_steady_load_keeps_no_traces_of_what_has_left():
    box = Mailbox(10)
    for number in range(5):
        box.put(Item(AgentMessage(MessageType.NOTIFICATION, number)), 0.0)
    for number in range(1000):
        box.put(Item(AgentMessage(MessageType.NOTIFICATION, number)), 0.0)
        box.take(1)
    assert len(box) == 5
    assert len(box._droppable) <= 6


REQUESTS = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 9), st.floats(0.1, 5.0), st.sampled_from("bc")),
    st.tuples(st.just("pop"), st.integers(0, 9)),
    st.tuples(st.just("to"), st.sampled_from("bc")),
    st.tuples(st.just("due"), st.floats(0.1, 2.0)),
    st.tuples(st.just("postpone"), st.floats(0.1, 2.0)),
)


@given(st.lists(REQUESTS, max_size=60))
def test_open_requests_are_settled_once_and_in_the_order_of_their_deadlines(steps):
    requests, slow, now = Requests(), {}, 0.0
    for kind, *data in steps:
        if kind == "add" and str(data[0]) not in slow:
            pending = Pending(str(data[0]), data[0], data[2], now + data[1], data[1])
            requests.add(pending)
            slow[pending.id] = pending
        elif kind == "pop":
            assert requests.pop(str(data[0])) is slow.pop(str(data[0]), None)
        elif kind == "to":
            gone = [p for p in slow.values() if p.target == data[0]]
            assert requests.awaits(data[0]) == bool(gone)
            assert requests.to(data[0]) == gone
            slow = {key: p for key, p in slow.items() if p.target != data[0]}
        elif kind == "postpone":
            requests.postpone(data[0])
        elif kind == "due":
            now += data[0]
            due = [p for p in slow.values() if p.deadline <= now]
            found = requests.due(now)
            assert sorted(p.id for p in found) == sorted(p.id for p in due)
            assert [p.deadline for p in found] == sorted(p.deadline for p in due)
            slow = {key: p for key, p in slow.items() if p.deadline > now}
        assert len(requests) == len(slow)
        assert requests.deadline == min((p.deadline for p in slow.values()), default=math.inf)


def test_answered_requests_leave_nothing_behind():
    requests = Requests()
    for number in range(10_000):
        requests.add(Pending(str(number), number, "b", 5.0 + number, 5.0))
        requests.pop(str(number))
    assert len(requests) == 0
    assert len(requests._heap) <= 66
