"""What can be broken in a simulation beyond what a live cluster offers, now or later, by hand or by a nemesis.

Law: every fault is either an act, which is in the journal, or planned from the seed; so each comes again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from agentflow.cluster.simulating.base import Base, by_hand
from agentflow.cluster.simulating.script import call_of, source_of
from agentflow.cluster.simulating.workloads import Workload
from agentflow.errors import InvalidConfig
from agentflow.runtime.nemesis import LEADER, Fault, Nemesis, landed
from agentflow.storage.faulty import Fault as DiskFault


class Breaking(Base):
    """A simulation that can be broken."""

    # --- now ----------------------------------------------------------------------------------------------

    def skew(self, node: Any, *, offset: float | None = None, rate: float | None = None) -> None:
        """Make a node's clock wrong from now on.

        Parameters
        ----------
        node : str or handle
            Whose clock.
        offset : float, optional
            Seconds by which it is ahead at this instant; behind, if negative. It never goes back: it stands
            still until time has caught up with it.
        rate : float, optional
            Seconds that pass on it in one of everybody else's; 1 is right.
        """
        self._deployment.host.skew(self._node(node), offset=offset, rate=rate)

    def cut(self, source: Any, destination: Any) -> None:
        """Let nothing pass from one node to another; the way back stays open. `heal()` mends it."""
        self.network.cut(self._node(source), self._node(destination))

    def slow_disk(self, node: Any, ms: float) -> None:
        """Let every write of a node take `ms` milliseconds longer; 0 ends it."""
        if not isinstance(ms, int | float) or not 0 <= ms < math.inf:
            raise InvalidConfig(f"ms={ms!r} is no time in milliseconds", field="ms")
        self._world.driver.slow_disk(self._node(node), ms)

    def fail_disk(self, node: Any, how: DiskFault | str = DiskFault.FAIL) -> None:
        """Let the next write of a master fail; it then says no more until it is restarted.

        Parameters
        ----------
        node : str or handle
            Whose disk.
        how : str
            `fail`: the write raises. `full`: it raises, and so does every later one. `torn`: power is lost
            within it. `lost`: it is acknowledged but not synced, and a crash loses it: a disk that lies,
            under which no algorithm is safe.
        """
        self._world.fail_disk(self._node(node), DiskFault(how))

    # --- later --------------------------------------------------------------------------------------------

    def fault(
        self, kind: str, *nodes: Any, at: float | None = None, seconds: float = math.inf, amount: float = 0.0
    ) -> Fault:
        """Have a fault strike, now or later, and be mended by itself.

        Parameters
        ----------
        kind, amount
            As in `Fault`.
        *nodes : str or handle
            Whom it strikes; `"@leader"` is whoever leads then.
        at : float, optional
            When; now, by default.
        seconds : float
            How long it lasts; until `mend()` by default.

        Examples
        --------
        >>> from agentflow import Simulation
        >>> sim = Simulation(masters=3, seed=7)
        >>> _ = sim.fault("crash", "@leader", at=10, seconds=20)
        >>> sim.run_for(60).landed()
        {'crash': 1}
        """
        named = tuple(node if node == LEADER else self._node(node) for node in nodes)
        fault = Fault(kind, self.now if at is None else float(at), float(seconds), named, float(amount))
        self._world.inject([fault])
        return fault

    def inject(self, faults: Iterable[Fault]) -> None:
        """Have faults strike at their times: what `Nemesis.plan` or `verdict.shrink()` gave."""
        self._world.inject(list(faults))

    def nemesis(self, nemesis: Nemesis | str = "all", *, until: float) -> list[Fault]:
        """Let a nemesis strike from now until an instant, at which everything it broke is mended.

        Parameters
        ----------
        nemesis : Nemesis or str
            What breaks; kinds with commas between them, or `all`.
        until : float
            When it ends.

        Returns
        -------
        list of Fault
            What it is going to do.

        Examples
        --------
        >>> from agentflow import Simulation
        >>> sim = Simulation(masters=3, seed=7)
        >>> plan = sim.nemesis("crash,partition", until=60)
        >>> sorted({fault.kind for fault in plan})
        ['crash', 'partition']
        """
        if isinstance(nemesis, str):
            nemesis = Nemesis(*(kind.strip() for kind in nemesis.split(",") if kind.strip()))
        if not isinstance(until, int | float) or not self.now < until < math.inf:
            raise InvalidConfig(f"it is {self.now:g} s; a nemesis cannot end at {until!r}", field="until")
        first = len(self._world.faults)
        self._world.nemesis(nemesis, float(until))
        return self._world.faults[first:]

    def mend(self) -> None:
        """End every fault that `fault`, `inject` or a nemesis has in force."""
        self._world.mend()

    def landed(self) -> dict[str, int]:
        """Count, by kind, the planned faults that had an effect so far; see `agentflow.runtime.nemesis`."""
        return landed(self.trace)

    # --- work ---------------------------------------------------------------------------------------------

    def load(self, load: Workload) -> None:
        """Put work on the cluster from now on: a `KeyValueLoad`, a `WorkflowLoad`, or your own."""
        if not self._deployment.master_ids:
            raise InvalidConfig("there are no masters to put work on; give masters=", field="load")
        self._world.load(load)

    skew = by_hand(skew)  # type: ignore[assignment]
    cut = by_hand(cut)  # type: ignore[assignment]
    slow_disk = by_hand(slow_disk)  # type: ignore[assignment]
    fail_disk = by_hand(fail_disk, lambda node, how="fail": call_of("fail_disk", node, str(how)))  # type: ignore[assignment]
    fault = by_hand(fault)  # type: ignore[assignment]
    inject = by_hand(inject)  # type: ignore[assignment]
    nemesis = by_hand(
        nemesis,
        lambda nemesis="all", *, until: (
            f"sim.nemesis({source_of(nemesis) if isinstance(nemesis, str) else _nemesis(nemesis)}, "
            f"until={until!r})"
        ),
    )  # type: ignore[assignment]
    mend = by_hand(mend)  # type: ignore[assignment]
    load = by_hand(load)  # type: ignore[assignment]


def _nemesis(nemesis: Nemesis) -> str:
    return repr(nemesis).replace("Nemesis(", "af.Nemesis(")
