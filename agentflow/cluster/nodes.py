"""A node as a person holds it: its id, how it is, and the faults one can give it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from agentflow.errors import NoSuchNode
from agentflow.ids import NodeId
from agentflow.views import Viewable

if TYPE_CHECKING:
    from agentflow.cluster.facade import Facade
    from agentflow.core.raft import RaftStatus

_H = TypeVar("_H")


class Nodes(Mapping[NodeId, _H], Generic[_H]):
    """Handles by node id; an unknown id is refused with those that there are."""

    def __init__(self, ids: tuple[NodeId, ...], make: Callable[[NodeId], _H]) -> None:
        self._ids = ids
        self._make = make

    def __getitem__(self, node_id: NodeId) -> _H:
        if node_id not in self._ids:
            raise NoSuchNode(
                f"there is no {node_id!r}; there are: {', '.join(self._ids) or 'none'}", node=node_id
            )
        return self._make(node_id)

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._ids

    def get(self, node_id: NodeId, default: Any = None) -> Any:
        """Give the handle, or `default` if there is no such node."""
        return self._make(node_id) if node_id in self._ids else default

    def __iter__(self) -> Iterator[NodeId]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        return f"{{{', '.join(repr(self._make(node_id)) for node_id in self._ids)}}}"


class NodeHandle(Viewable):
    """A node of a cluster."""

    def __init__(self, home: Facade, node_id: NodeId) -> None:
        self._home = home
        self.id = node_id

    @property
    def state(self) -> str:
        """`up`, `paused`, `starting`, `down` or `removed`."""
        host = self._home._deployment.host
        return self._home.read(lambda: host.state(self.id) if self.id in host.nodes else "removed")

    @property
    def alive(self) -> bool:
        """Whether it is up."""
        return self.state in ("up", "paused")

    def kill(self) -> None:
        """Take it down at once; only what its disk holds survives."""
        self._home.kill(self.id)

    def restart(self) -> None:
        """Start it again from what its disk holds."""
        self._home.restart(self.id)

    def pause(self) -> None:
        """Let it stand still."""
        self._home.pause(self.id)

    def resume(self) -> None:
        """Let it go on."""
        self._home.resume(self.id)

    def __eq__(self, other: Any) -> bool:
        return type(other) is type(self) and other.id == self.id and other._home is self._home

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.id))

    def __repr__(self) -> str:
        return f"<{self.id} {self.state}>"


class MasterHandle(NodeHandle):
    """A master of a cluster."""

    def status(self) -> RaftStatus | None:
        """What Raft says of itself there; None while the master is down."""

        def look() -> RaftStatus | None:
            machine = self._home._deployment.master(self.id)
            return None if machine is None else machine.raft.status()

        return self._home.read(look)

    def is_leader(self) -> bool:
        """Whether it leads."""
        return self._home.leader == self.id

    def __repr__(self) -> str:
        status = self.status()
        if status is None:
            return f"<{self.id} {self.state}>"
        return f"<{self.id} {status.role} term {status.term} commit {status.commit_index}>"


class WorkerHandle(NodeHandle):
    """A worker of a cluster."""

    @property
    def group(self) -> str:
        """Its group."""
        spec = self._home._deployment.worker_specs.get(self.id)
        if spec is None:
            raise NoSuchNode(f"{self.id!r} was removed", node=self.id)
        return spec.group
