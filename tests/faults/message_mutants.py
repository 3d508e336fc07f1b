"""Mistakes of an agent's machine, each of which the proof must catch."""

import asyncio
import math

from agentflow.core.agents.machine import AgentMachine
from agentflow.core.agents.mailbox import Mailbox
from agentflow.core.agents.pending import Requests
from agentflow.core.agents.replies import refusal
from agentflow.core.machine import Answer


def copies_are_news():
    """A copy of a message counts as another one."""
    receive = AgentMachine._receive

    def forgetful(self, source, message):
        self._heard.pop(source, None)
        receive(self, source, message)

    AgentMachine._receive = forgetful


def a_restart_forgets_who_was_heard():
    """What was heard is known to a life only, so a copy that comes after a crash is news."""
    init = AgentMachine.__init__

    def fresh(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self._heard = {}

    AgentMachine.__init__ = fresh


def late_replies_go_to_whoever_waits():
    """A reply that nobody waits for any more is given to the next request to the same agent."""
    settle = AgentMachine._settle

    def helpful(self, source, question, reply):
        if self.requests.get(question) is None:
            for pending in self.requests._open.values():
                if pending.target == source:
                    question = pending.id
                    break
        return settle(self, source, question, reply)

    AgentMachine._settle = helpful


def the_newest_first():
    """The mailbox is a stack."""
    take = Mailbox.take

    def reversed_take(self, limit):
        return take(self, limit)[::-1]

    Mailbox.take = reversed_take


def what_was_not_started_is_put_back_upside_down():
    """What is behind a slow handler goes back into the mailbox, the last one first."""
    put_back = Mailbox.put_back

    def reversed_back(self, taken):
        put_back(self, taken[::-1])

    Mailbox.put_back = reversed_back


def the_one_at_work_is_put_back_too():
    """A slow handler's own message goes back into the mailbox, and is handled again."""
    done = AgentMachine._done

    again = set()

    def doubled(self, message):
        done(self, message)
        if message.busy and self._in_hand and self._in_hand[0].message.id not in again:
            again.add(self._in_hand[0].message.id)
            self.mailbox.put_back(list(self._in_hand))

    AgentMachine._done = doubled


def a_full_mailbox_refuses_and_keeps():
    """A request that finds the mailbox full is refused, and handled all the same."""
    put = Mailbox.put

    def greedy(self, item, now, in_hand=0):
        lost = put(self, item, now, in_hand)
        if lost and lost[-1][1] is item:
            self._add(item)
        return lost

    Mailbox.put = greedy


def a_time_out_is_a_refusal():
    """Who gives up says that nothing was done."""

    def give_up(self, pending):
        self._effects.append(Answer(pending.token, refusal("no responders", pending.target, pending.id)))

    AgentMachine._give_up = give_up


def nobody_gives_up():
    """A request whose answer is lost waits for ever."""
    Requests.deadline = property(lambda self: math.inf)


def broken_connections_are_refusals():
    """Who went down with a request in its hands is said to have done nothing."""
    bounced = AgentMachine._bounced

    def sure(self, peer, message):
        for pending in self.requests.to(peer):
            self._effects.append(Answer(pending.token, refusal("no responders", peer, pending.id)))
        bounced(self, peer, message)

    AgentMachine._bounced = sure


def numbers_begin_again():
    """A restarted sender counts its messages from the beginning, so that all of them seem stale."""
    init = AgentMachine.__init__

    def fresh(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self._seq = 0

    AgentMachine.__init__ = fresh


def a_task_for_every_message():
    """Handlers are started one beside the other, as some frameworks do."""
    from agentflow.cluster.agents.consumer import _HANDLED, Consumer

    handle = Consumer._handle

    async def spawn(self, message, expires):
        task = asyncio.create_task(handle(self, message, expires))
        if message.requires_response:
            return await task
        self._spawned = {*getattr(self, "_spawned", ()), task}
        return _HANDLED

    Consumer._handle = spawn


def an_error_ends_the_agent():
    """What a handler raises ends the reading of the mailbox."""
    from agentflow.cluster.agents.consumer import Consumer

    failed = Consumer._failed

    def ended(self, message, error):
        self.stop()
        return failed(self, message, error)

    Consumer._failed = ended


MUTANTS = {
    name.replace("_", "-"): fn
    for name, fn in list(globals().items())
    if callable(fn) and getattr(fn, "__module__", "") == __name__
}
