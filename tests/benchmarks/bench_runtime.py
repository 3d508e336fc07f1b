"""How many messages a second the runtime delivers, with machines that do next to nothing.

    python tests/benchmarks/bench_runtime.py [--messages 200000] [--repeat 3]

Prints a line a case: delivered messages a second of wall time (median of the repeats), and of CPU time,
which says more on a busy machine. Every message is recorded twice in the trace, as always.
"""

from __future__ import annotations

import argparse
import math
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from agentflow.core.callbacks import callbacks
from agentflow.core.machine import Effect, Event, Received, Send
from agentflow.runtime.host import Host
from agentflow.runtime.realtime import RealtimeDriver
from agentflow.runtime.trace import Trace
from agentflow.runtime.virtual import VirtualDriver
from agentflow.transport.memory import Network

NODES = 6
IN_FLIGHT = 4
"""Messages each of the pairs keeps going."""


class Ball(msgspec.Struct, frozen=True, gc=False):
    """What is thrown to and fro."""

    number: int


class Player:
    """Throws every ball back."""

    deadline = math.inf

    def __init__(self, peer: str, balls: int, full: Callable[[], None], limit: int) -> None:
        self.effects: list[Effect] = [Send(peer, Ball(0)) for _ in range(balls)]
        self.caught = 0
        self.full = full
        self.limit = limit

    def handle(self, event: Event, now: float) -> None:
        """Throw the ball back, until the limit."""
        if isinstance(event, Received):
            self.caught += 1
            if self.caught < self.limit:
                self.effects.append(Send(event.source, Ball(event.message.number + 1)))
            elif self.caught == self.limit:
                self.full()

    def ready(self) -> list[Effect]:
        """Hand out the throws."""
        effects, self.effects = self.effects, []
        return effects


class Thrower:
    """The same game, as one writes it in a notebook."""

    def on_start(self, ctx: Any) -> None:
        """Throw the first balls."""
        position = int(ctx.id[1:])
        if position % 2 == 0:
            for _ in range(IN_FLIGHT):
                ctx.send(f"n{position + 1}", {"type": "BALL", "number": 0})

    def on_BALL(self, msg: dict[str, Any], source: str, ctx: Any) -> None:
        """Throw the ball back."""
        ctx.reply({"type": "BALL", "number": msg["number"] + 1})


def add_players(host: Host, messages: int, full: Callable[[], None]) -> None:
    """Add the pairs of players."""
    for position in range(NODES):
        peer = f"n{position ^ 1}"
        balls = IN_FLIGHT if position % 2 == 0 else 0
        host.add(f"n{position}", lambda *_, p=peer, b=balls: Player(p, b, full, messages // NODES))


def delivered(host: Host) -> int:
    """Count the deliveries in the trace."""
    return sum(record.kind == "deliver" for record in host.trace)


def virtual(network: Callable[[], Network], messages: int) -> tuple[int, float, float]:
    """Play under virtual time; return messages, wall and CPU seconds."""
    game = Host(trace=Trace(limit=4 * messages), network=network())
    driver = VirtualDriver(game, seed=7)
    add_players(game, messages, lambda: None)
    wall, cpu = time.perf_counter(), time.process_time()
    driver.run_for(3600.0)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return delivered(game), wall, cpu


def virtual_callbacks(network: Callable[[], Network], messages: int) -> tuple[int, float, float]:
    """Play with callbacks under virtual time."""
    game = Host(trace=Trace(limit=4 * messages), network=network())
    driver = VirtualDriver(game, seed=7)
    names = [f"n{position}" for position in range(NODES)]
    for name in names:
        game.add(name, callbacks(Thrower, names))
    wall, cpu = time.perf_counter(), time.process_time()
    while game.trace.next < 2 * messages:
        driver.run_for(0.1)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return delivered(game), wall, cpu


def realtime(network: Callable[[], Network], messages: int) -> tuple[int, float, float]:
    """Play on the real loop."""
    game = Host(trace=Trace(limit=4 * messages), network=network())
    driver = RealtimeDriver(game)
    ended, waiting = threading.Event(), [NODES]

    def full() -> None:
        waiting[0] -= 1
        if not waiting[0]:
            ended.set()

    try:
        wall, cpu = time.perf_counter(), time.process_time()
        driver.call(add_players, game, messages, full)
        # Of each pair the second to fill up may wait for a ball that is no longer thrown.
        while not ended.wait(0.02) and len(game.trace) < 2 * messages * 0.99:
            pass
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    finally:
        driver.close()
    return delivered(game), wall, cpu


def appends(messages: int) -> tuple[int, float, float]:
    """Append to a bounded trace, and nothing else."""
    trace = Trace(limit=messages // 2)
    ball = Ball(1)
    wall, cpu = time.perf_counter(), time.process_time()
    for number in range(messages):
        trace.append(0.5, "n1", "send", number, number, "n1", "n2", "Ball", ball)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return messages, wall, cpu


def main() -> None:
    """Run all cases and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    cases: dict[str, Callable[[], tuple[int, float, float]]] = {
        "trace: append": lambda: appends(options.messages),
        "virtual, latency 1 to 10 ms": lambda: virtual(lambda: Network(latency_ms=(1, 10)), options.messages),
        "virtual, latency 5 ms": lambda: virtual(lambda: Network(latency_ms=5), options.messages),
        "virtual, callbacks, 1 to 10 ms": lambda: virtual_callbacks(
            lambda: Network(latency_ms=(1, 10)), options.messages
        ),
        "real time, no latency": lambda: realtime(Network, options.messages),
        "real time, latency 1 ms": lambda: realtime(lambda: Network(latency_ms=1), options.messages // 20),
    }
    print(f"{'case':<34} {'per s':>10} {'per CPU s':>10}")
    for name, case in cases.items():
        results = [case() for _ in range(options.repeat)]
        per_wall = statistics.median(count / wall for count, wall, _ in results)
        per_cpu = statistics.median(count / cpu for count, _, cpu in results)
        print(f"{name:<34} {per_wall:>10,.0f} {per_cpu:>10,.0f}")


if __name__ == "__main__":
    main()
