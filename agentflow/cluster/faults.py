"""Breaking a cluster on purpose: nodes that die or stand still, wires that are slow or cut."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

from agentflow.cluster.deployment import Deployment
from agentflow.errors import NoSuchNode
from agentflow.ids import NodeId
from agentflow.transport.memory import Network

_T = TypeVar("_T")


class Faults:
    """The faults that a person gives a cluster."""

    _deployment: Deployment

    @property
    def network(self) -> Network:
        """The wires between the nodes; `loss`, `latency_ms` and the rest may be set while it runs."""
        network = self._deployment.host.network
        assert isinstance(network, Network)
        return network

    def read(self, fn: Callable[[], _T]) -> _T:
        """Call `fn` where nothing changes meanwhile, and give what it returns."""
        raise NotImplementedError

    def _retire(self, node_id: NodeId) -> None:
        """Want no more of what runs the tasks of a worker that is gone."""

    def _check_open(self) -> None:
        raise NotImplementedError

    def _node(self, node: Any) -> NodeId:
        self._check_open()
        node_id = getattr(node, "id", node)
        if not isinstance(node_id, str):
            raise NoSuchNode(f"a node is named by its id or its handle, not by {node!r}", node=node)
        return self._deployment.check_node(node_id)

    def kill(self, node: Any) -> None:
        """Take a node down at once; only what its disk holds survives."""
        node_id = self._node(node)

        def crash() -> None:
            self._retire(node_id)
            self._deployment.host.crash(node_id, "kill")

        self.read(crash)

    def restart(self, node: Any) -> None:
        """Start a node again from what its disk holds."""
        node_id = self._node(node)
        self.read(lambda: self._deployment.host.restart(node_id))

    def pause(self, node: Any) -> None:
        """Let a node stand still, as a stopped process does; what reaches it waits."""
        node_id = self._node(node)
        self.read(lambda: self._deployment.host.pause(node_id))

    def resume(self, node: Any) -> None:
        """Let a paused node go on."""
        node_id = self._node(node)
        self.read(lambda: self._deployment.host.resume(node_id))

    def slow(self, node: Any, ms: float) -> None:
        """Let every message from or to a node take `ms` milliseconds longer; 0 ends it."""
        node_id = self._node(node)
        self._rewire(lambda: self.network.slow(node_id, ms))

    def partition(self, *groups: Collection[Any]) -> None:
        """Cut the network between groups of nodes; a node in no group keeps all its links.

        Examples
        --------
        `cluster.partition({"master-1"}, {"master-2", "master-3"})`
        """
        named = [{self._node(node) for node in _as_group(group)} for group in groups]
        self._rewire(lambda: self.network.partition(*named))

    def heal(self) -> None:
        """Mend every cut in the network."""
        self._check_open()
        self._rewire(self.network.heal)

    def _rewire(self, change: Callable[[], None]) -> None:
        """Change the wires, and have the trace tell when."""

        def rewire() -> None:
            change()
            self._deployment.host.note_wires()

        self.read(rewire)


def _as_group(group: Any) -> Iterable[Any]:
    return [group] if isinstance(group, str) or not isinstance(group, Iterable) else group
