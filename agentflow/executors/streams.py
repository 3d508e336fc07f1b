"""What a task prints, kept with the task instead of shown in somebody else's cell.

Law: only threads that asked for it are captured; for every other thread `sys.stdout` and `sys.stderr`
behave as they did. The stand-ins are there while a capturing thread lives, and are taken out again.

A stand-in holds no state of its own but the stream it stands for. So it may outlive its purpose without
harm where it cannot be taken out, as when the user holds it in a `redirect_stdout` of their own.

While the user's own redirection is in force (`%%capture`, `redirect_stdout`), threads that began before
it print there too: to take the user's stream over from another thread might outlast the redirection.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from typing import Any

LIMIT = 64 * 1024
"""Characters kept of one task's output."""


class Capture:
    """What one thread printed since it was last asked: the beginning and the end, if it was too much.

    Examples
    --------
    >>> capture = Capture(limit=10)
    >>> _ = capture.write("01234"), capture.write("x" * 100), capture.write("56789")
    >>> print(capture.take())
    01234
    ... 100 characters left out ...
    56789
    >>> capture.take()
    ''
    """

    __slots__ = ("_head", "_room", "_tail", "_tail_size", "limit", "size")

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._reset()

    def _reset(self) -> None:
        self.size = 0
        self._head: list[str] = []
        self._room = self.limit - self.limit // 2
        self._tail: deque[str] = deque()
        self._tail_size = 0

    def write(self, text: str) -> int:
        """Add text, as a file would."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        length = len(text)
        self.size += length
        if self._room:
            self._head.append(text[: self._room])
            text = text[self._room :]
            self._room = max(0, self._room - length)
        if text:
            self._tail.append(text)
            self._tail_size += len(text)
            while self._tail_size - len(self._tail[0]) >= self.limit // 2:
                self._tail_size -= len(self._tail.popleft())
        return length

    def take(self) -> str:
        """Return what was printed, and start anew."""
        if not self.size:
            return ""
        head, tail = "".join(self._head), "".join(self._tail)
        if self.size > self.limit:
            tail = tail[len(tail) - self.limit // 2 :]
            tail = f"\n... {self.size - self.limit:,} characters left out ...\n{tail}"
        self._reset()
        return head + tail


class _Here(threading.local):
    capture: Capture | None = None


_here = _Here()
_lock = threading.Lock()
_captures = 0


_OURS = frozenset({"write", "writelines", "flush"})
"""What a stand-in does itself; all else is its stream's."""


class _StandIn:
    """Stands where a standard stream stood; everything but a captured thread's writing goes to that.

    It passes for an instance of that stream's class too (`isinstance(sys.stdout, OutStream)`).
    """

    _stream: Any

    def __init__(self, stream: Any) -> None:
        object.__setattr__(self, "_stream", stream)

    def write(self, text: str) -> Any:
        capture = _here.capture
        if capture is not None:
            return capture.write(text)
        return len(text) if self._stream is None else self._stream.write(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if _here.capture is None and self._stream is not None:
            self._stream.flush()

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return _StandIn if self._stream is None else self._stream.__class__

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __setattr__(self, name: str, value: Any) -> None:
        # IPython replaces `write` for the length of a cell by a function that calls the former one. Handed on
        # to the stream, that function would call itself through us.
        if name in _OURS:
            object.__setattr__(self, name, value)
        else:
            setattr(self._stream, name, value)

    def __delattr__(self, name: str) -> None:
        if name in _OURS:
            object.__delattr__(self, name)
        else:
            delattr(self._stream, name)

    def __repr__(self) -> str:
        return repr(self._stream)


def begin(capture: Capture) -> None:
    """Capture what this thread prints from now on. A thread that began must `end`."""
    global _captures
    with _lock:
        _captures += 1
        _put_in()
    _here.capture = capture


def end() -> None:
    """Stop capturing this thread."""
    global _captures
    _here.capture = None
    with _lock:
        _captures -= 1
        if not _captures:
            _take_out()


def _put_in() -> None:
    # By `type`, for a stand-in's `__class__` says what it stands for. A stream that the user put in the
    # place of ours in the meantime gets a stand-in of its own.
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is not _StandIn:
            setattr(sys, name, _StandIn(stream))


def _take_out() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is _StandIn:
            setattr(sys, name, stream._stream)
