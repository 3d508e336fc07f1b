"""The replicated key-value store, as a client sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentflow.cluster.settings import check_readable
from agentflow.core.control.commands import KeyCas, KeyGet, KeySet
from agentflow.errors import InvalidConfig

if TYPE_CHECKING:
    from agentflow.cluster.facade import Facade


class KeyValueClient:
    """A client of the replicated key-value store; made by `cluster.client(name)`.

    Writes go through the log and take effect once, however often they had to be sent. Reads do not: the
    leader makes sure that it still leads (`RaftConfig(lease_reads=True)`: that nobody else can), and answers.
    """

    def __init__(self, home: Facade, name: str) -> None:
        self._home = home
        self.id = name

    def __repr__(self) -> str:
        return f"<client {self.id!r}>"

    def set(self, key: str, value: Any, *, timeout: float | None = None) -> None:
        """Write a key.

        Parameters
        ----------
        key : str
            Its name.
        value : plain data
            Numbers, strings, lists, dictionaries: what can be kept in a log.
        timeout : float, optional
            Seconds to wait for a majority.
        """
        self._home._command(self.id, KeySet(_key(key), _plain(value)), timeout)

    def get(self, key: str, *, timeout: float | None = None) -> Any:
        """Read a key: never older than any write that was acknowledged before; None if it was never written."""
        # A value of the caller's own: what the masters hold must not change under them.
        return _plain(self._home._command(self.id, KeyGet(_key(key)), timeout))

    def cas(self, key: str, expected: Any, value: Any, *, timeout: float | None = None) -> bool:
        """Write a key if it holds `expected`; say whether it did."""
        return bool(self._home._command(self.id, KeyCas(_key(key), _plain(expected), _plain(value)), timeout))


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise InvalidConfig(f"a key is a string, not {key!r}", field="key")
    check_readable(KeyGet(key))
    return key


def _plain(value: Any) -> Any:
    """Refuse what cannot be kept in a log, before anything is sent."""
    import msgspec

    try:
        return msgspec.msgpack.decode(msgspec.msgpack.encode(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidConfig(
            f"the store keeps plain data (numbers, strings, lists, dictionaries), not {type(value).__name__}: {error}",
            field="value",
        ) from None
