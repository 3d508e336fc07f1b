"""Proof of the messaging contract under faults, in virtual time.

    python tests/faults/messages.py --seeds 100 [--first 0] [--mutant NAME]

Four agents talk at random (requests, notifications, status updates, broadcasts, publications) while nodes crash and are
paused, and the network parts, loses, copies, delays and reorders. Then all is healed. What the handlers and the callers saw
is judged by itself, and the trace by `sim.check()`. Asserts that faults landed, prints counts, and ends with
`N passed, N failed`; status 0 only if none failed, and with a mutant only if it was caught.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import message_mutants

import agentflow as af
from agentflow import AgentMessage

NAMES = ("a", "b", "c", "d")
UNTIL = 20.0
TICK = 1 / 512  # a power of two, so that sums of it are exact and instants coincide
FAULTS = "crash,partition,one_way,loss,delay,duplicate,reorder,pause"
DEFINITE = (af.NoResponders, af.MailboxFull, af.Expired)


class Talk:
    """One run, and what everybody saw of it."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        # In every other run much falls on the same instant: there ties are decided, not times.
        latency = (1000 * TICK, 1000 * TICK) if seed % 2 else (1, 10)
        self.sim = af.Simulation(masters=0, seed=seed, network=af.Network(latency_ms=latency))
        self.agents = {name: self.sim.agent(name, capacity=4) for name in NAMES}
        self.number = 0
        self.sent = defaultdict(list)
        self.begun = defaultdict(list)
        self.ended = Counter()
        self.asked = []
        self.at_work = Counter()
        self.wrong = []
        self.counts = Counter()
        for agent in self.agents.values():
            self.listen(agent)

    def listen(self, agent):
        agent.subscribe(["news.>"] if agent.id in "ab" else ["news.*"])

        @agent.on("task_request", "notification", "status_update")
        async def handle(message):
            life = agent._life
            self.at_work[agent.id, life] += 1
            if self.at_work[agent.id, life] > 1:
                self.wrong.append(f"{agent.id} handles two messages at once")
            self.begun[message.from_, agent.id].append(message.content["n"])
            await asyncio.sleep(message.content["takes"])
            self.at_work[agent.id, life] -= 1
            self.ended[message.from_, agent.id, message.content["n"]] += 1
            if message.content["fails"]:
                raise ValueError(message.content["n"])
            return {"n": message.content["n"], "by": agent.id}

    def content(self):
        self.number += 1
        takes = self.rng.choice((0, 0, 1, 25)) * TICK
        return {"n": self.number, "takes": takes, "fails": self.rng.random() < 0.1}

    def say(self):
        """Say something to somebody."""
        sender = self.agents[self.rng.choice(NAMES)]
        if self.sim._deployment.host.state(sender.id) != "up":
            return
        to = self.rng.choice([name for name in NAMES if name != sender.id])
        content, kind = self.content(), self.rng.randrange(8)
        if kind < 4:
            timeout = self.rng.choice((20, 100, 2000))
            self.sent[sender.id, to].append(content["n"])
            call = sender.request(to, content, timeout_ms=timeout)
            call.ignore()
            self.asked.append((call, sender.id, to, content, self.sim.now + timeout / 1000))
        elif kind < 6:
            self.sent[sender.id, to].append(content["n"])
            sender.send_to_agent(AgentMessage(("notification", "status_update")[kind - 4], content, to=to))
        else:
            message = AgentMessage("notification", content)
            call = (
                sender.broadcast(message) if kind == 6 else sender.publish("news.local", message, echo=False)
            )
            for name in call.result():
                self.sent[sender.id, name].append(content["n"])

    def run(self):
        self.sim.nemesis(FAULTS, until=UNTIL)
        while self.sim.now < UNTIL:
            self.say()
            if self.rng.random() < 0.02:
                self.stumble()
            if self.rng.random() < 0.03:
                self.insist()
            self.sim.run_for(self.rng.choice((0, 1, 5, 25)) * TICK)
        self.sim.run_for(10)
        self.judge()
        self.count()
        return self.wrong

    def insist(self):
        """Say several things to the same one, tick after tick."""
        sender, to = (self.agents[name] for name in self.rng.sample(NAMES, 2))
        for _ in range(4):
            for _ in range(2 if self.sim._deployment.host.state(sender.id) == "up" else 0):
                content = self.content()
                self.sent[sender.id, to.id].append(content["n"])
                sender.send_to_agent(AgentMessage("notification", content, to=to.id))
            self.sim.run_for(TICK)

    def stumble(self):
        """Let somebody fall and rise at once, while copies of what he has heard are still under way."""
        name = self.rng.choice(NAMES)
        if self.sim._deployment.host.state(name) == "up":
            self.sim.restart(name)
            self.counts["restarted"] += 1

    # --- the judges ---------------------------------------------------------------------------------------

    def judge(self):
        for (source, to), numbers in self.begun.items():
            if len(set(numbers)) < len(numbers):
                self.wrong.append(f"{to} handled a message of {source} twice")
            if sorted(numbers) != numbers:
                self.wrong.append(f"{to} handled messages of {source} out of order")
            if not set(numbers) <= set(self.sent[source, to]):
                self.wrong.append(f"{to} handled a message that {source} did not send it")
        for call, source, to, content, _ in self.asked:
            self.judge_answer(call, source, to, content)
        for name, agent in self.agents.items():
            if agent.stats().pending_requests:
                self.wrong.append(f"{name} still waits for an answer")
            for other in set(NAMES) - {name}:
                self.judge_progress(agent, other)
        verdict = self.sim.check()
        self.wrong += [part.promise for part in verdict.violations()]

    def judge_answer(self, call, source, to, content):
        what = f"{content['n']} of {source} to {to}"
        if not call.done:
            self.wrong.append(f"{what} was never settled")
            return
        begun = content["n"] in self.begun[source, to]
        try:
            answer = call.result()
        except DEFINITE as error:
            self.counts[type(error).__name__] += 1
            if begun:
                self.wrong.append(f"{what} was refused as {type(error).__name__} and yet handled")
        except af.RemoteError as error:
            self.counts["RemoteError"] += 1
            if not content["fails"] or error.agent != to or not self.ended[source, to, content["n"]]:
                self.wrong.append(f"{what} failed, though its handler did not")
        except (af.RequestTimeout, af.PeerDown) as error:
            self.counts[type(error).__name__] += 1
        else:
            self.counts["answered"] += 1
            if answer != {"n": content["n"], "by": to} or content["fails"]:
                self.wrong.append(f"{what} was answered {answer}")

    def judge_progress(self, agent, other):
        try:
            answer = agent.request(other, {"n": 0, "takes": 0.0, "fails": False}).result()
        except af.AgentflowError as error:
            self.wrong.append(f"after healing {other} did not answer {agent.id}: {type(error).__name__}")
        else:
            if answer["by"] != other:
                self.wrong.append(f"after healing {agent.id} asked {other}, and {answer['by']} answered")

    def count(self):
        self.counts["messages"] += self.number
        self.counts["handled"] += sum(len(numbers) for numbers in self.begun.values())
        for kind, times in self.sim.landed().items():
            self.counts[f"fault {kind}"] += times
        for record in self.sim.trace:
            if record.kind == "dead_letter":
                self.counts[f"dead: {record.payload['reason']}"] += 1


MUST_HAPPEN = [
    "restarted",
    "answered",
    "RemoteError",
    "RequestTimeout",
    "PeerDown",
    "NoResponders",
    "MailboxFull",
    "dead: stale",
    "dead: late reply",
    "dead: displaced",
    "dead: superseded",
    *(f"fault {kind}" for kind in FAULTS.split(",")),
]
"""A proof in which these did not happen would prove little."""


def prove(first, count, until_caught=False):
    """Run some seeds; return what went wrong with which, and what happened."""
    wrong, counts = {}, Counter()
    for seed in range(first, first + count):
        talk = Talk(seed)
        found = talk.run()
        counts += talk.counts
        if found:
            wrong[seed] = found
            if until_caught:
                break
    return wrong, counts


def main(arguments=None):
    parser = argparse.ArgumentParser(description="The messaging contract under faults.")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--mutant", choices=sorted(message_mutants.MUTANTS))
    parser.add_argument("--until-caught", action="store_true", help="stop at the first seed that fails")
    options = parser.parse_args(arguments)
    if options.mutant:
        message_mutants.MUTANTS[options.mutant]()
    logging.getLogger("agentflow").setLevel(logging.CRITICAL)
    wrong, counts = prove(options.first, options.seeds, options.until_caught)
    for name, number in sorted(counts.items()):
        print(f"{name:24} {number}")
    for seed, found in list(wrong.items())[:5]:
        print(f"seed {seed}: {found[0]}" + (f", and {len(found) - 1} more" if len(found) > 1 else ""))
    if options.mutant:
        print(f"{options.mutant}: {'caught' if wrong else 'NOT CAUGHT'}")
        return 0 if wrong else 1
    missing = [name for name in MUST_HAPPEN if not counts[name]]
    if missing:
        print(f"did not happen: {', '.join(missing)}")
    print(f"{options.seeds - len(wrong)} passed, {len(wrong) + bool(missing)} failed")
    return 1 if wrong or missing else 0


if __name__ == "__main__":
    sys.exit(main())
