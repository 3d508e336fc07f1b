"""One feed an object, for all its views: it reads, sends what changed, and carries what the browser asks for.

Law: one thread a cluster writes to its views, at most ten times a second and less often where that would cost
more than its share of a core or of the wire. Without a view that somebody sees there is no thread. Commands run
in a thread of their own, in order, and their errors go to the view.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from agentflow import views
from agentflow.cluster.facade import Facade
from agentflow.errors import AgentflowError, InvalidConfig
from agentflow.notebook.live import session
from agentflow.notebook.live.scene import Frame, Scene
from agentflow.notebook.live.tail import Tail

if TYPE_CHECKING:
    from agentflow.notebook.live.widget import LiveView

TICK_SECS: Final = 0.1
BYTES_A_SECOND: Final = 60_000
UNSEEN_SECS: Final = 20.0
"""A view says every few seconds that it is seen; after so much silence it is not."""

LINGER_SECS: Final = 0.5


class Hands(threading.Thread):
    """Does what views ask for, one thing after the other."""

    def __init__(self) -> None:
        super().__init__(name="agentflow-hands", daemon=True)
        self._jobs: collections.deque[Callable[[], None]] = collections.deque()
        self._change = threading.Condition()
        self.gone = False

    def give(self, job: Callable[[], None]) -> bool:
        """Have something done; False if this pair of hands has left."""
        with self._change:
            if self.gone:
                return False
            self._jobs.append(job)
            self._change.notify()
        return True

    def run(self) -> None:
        """Work until nothing was asked for a while."""
        while True:
            with self._change:
                if not self._jobs and not self._change.wait_for(lambda: bool(self._jobs), LINGER_SECS):
                    self.gone = True
                    return
                job = self._jobs.popleft()
            with contextlib.suppress(Exception):
                job()


class Shown:
    """A view and what the feed knows of it."""

    def __init__(self, view: LiveView) -> None:
        self.view = view
        self.seen_at = time.monotonic()
        self.behind = False
        self.due = 0.0
        self.bytes = 0


class Feed:
    """What the views of one cluster are fed from."""

    def __init__(self, home: Facade) -> None:
        self._home = weakref.ref(home)
        self._views: dict[int, Shown] = {}
        self._by_kind: weakref.WeakValueDictionary[Any, LiveView] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._hands: Hands | None = None
        self._turn = threading.Lock()
        self.tail = Tail()
        self.ticks = 0
        """How often it has looked."""
        views.at_end(home, self._home_ended)

    # --- views --------------------------------------------------------------------------------------------

    def view_of(self, kind: type[Scene], subject: Any) -> LiveView:
        """Give the view of a kind, made if there is none: one model serves all its displays."""
        from agentflow.notebook.live.widget import LiveView

        key = (kind, id(subject))
        view = self._by_kind.get(key)
        if view is None or view.comm is None or view.scene.subject is not subject:
            view = LiveView(kind(subject), self)
            self._by_kind[key] = view
            with self._lock:
                self._views[id(view)] = Shown(view)
        with self._lock:
            self._views[id(view)].seen_at = time.monotonic()
        self.wake()
        return view

    def _home_ended(self) -> None:
        """The cluster was closed: show the last of it, then freeze, before `close` returns."""
        with contextlib.suppress(Exception):
            self._tick(list(self._views.values()), final=True)
        for shown in list(self._views.values()):
            session.freeze(shown.view.scene.subject)
        home = self._home()
        if home is not None:
            session.freeze(home)
        with self._lock:
            self._views.clear()
        self._wake.set()

    # --- what the browser says ------------------------------------------------------------------------------

    def hear(self, view: LiveView, content: Any) -> None:
        """Take a message from a view; called on whatever thread, so it only hands over."""
        if not isinstance(content, Mapping):
            return
        shown = self._views.get(id(view))
        what = content.get("what")
        if shown is None:
            if what == "do":
                view.send({"what": "said", "error": "this view has ended", "line": ""})
            return
        shown.seen_at = -float("inf") if what == "hidden" else time.monotonic()
        if what == "resync":
            shown.behind = True
        elif what == "seen":
            # So that a view can tell a kernel that is gone from a loop that stands still.
            self._give(lambda: view.send({"what": "here"}))
        elif what == "do":
            self._give(lambda: self._do(shown, content))
        shown.due = 0.0 if what in ("seen", "resync") else shown.due
        if what != "hidden":
            self.wake()

    def _give(self, job: Callable[[], None]) -> None:
        with self._lock:
            if self._hands is None or not self._hands.give(job):
                self._hands = Hands()
                self._hands.give(job)
                self._hands.start()

    def _do(self, shown: Shown, content: Mapping[str, Any]) -> None:
        """Do what a view asked for, and tell it what that was in Python and how it went."""
        scene = shown.view.scene
        answer: dict[str, Any] = {"what": "said", "line": "", "error": ""}
        try:
            name = content.get("do")
            if not isinstance(name, str):
                raise InvalidConfig(f"{name!r} is no command", field="do")
            deed = scene.deed(name, content)
            answer["line"] = deed.line
            result = deed.call()
            if isinstance(result, Mapping):
                answer = {**answer, **result}
        except AgentflowError as error:
            answer["error"] = f"{type(error).__name__}: {error}"
        except Exception as error:
            answer["error"] = f"the view failed: {type(error).__name__}: {error}"
        shown.view.send(answer)
        shown.due = 0.0
        self.wake()

    # --- the thread -----------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Have it look soon, in a thread that is started if there is none."""
        with self._lock:
            self._wake.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="agentflow-views", daemon=True)
                with contextlib.suppress(RuntimeError):  # the interpreter is ending
                    self._thread.start()

    def _run(self) -> None:
        while True:
            began = time.monotonic()
            with self._lock:
                self._wake.clear()
                shown = list(self._views.values())
                seen = [each for each in shown if began - each.seen_at < UNSEEN_SECS]
                over = [each for each in shown if each.view.scene.ended]
                if not seen and not over:
                    self._thread = None
                    return
            with contextlib.suppress(Exception):
                self._tick([each for each in seen if each.due <= began])
            for each in over:
                self._bury(each)
            self._wake.wait(TICK_SECS)
            left = TICK_SECS - (time.monotonic() - began)
            if left > 0:
                time.sleep(left)

    def _bury(self, shown: Shown) -> None:
        """A run has ended: its last snapshot is sent, then the still takes its place."""
        with contextlib.suppress(Exception):
            self._tick([shown], final=True)
        session.freeze(shown.view.scene.subject)
        with self._lock:
            self._views.pop(id(shown.view), None)

    def _tick(self, due: list[Shown], *, final: bool = False) -> None:
        home = self._home()
        if home is None or not due:
            return
        with self._turn:
            self._look(home, due, final=final)

    def _look(self, home: Facade, due: list[Shown], *, final: bool) -> None:
        # Its own time, not the wall's: a machine that is busy with the work itself is no reason to look away.
        began = time.thread_time()
        self.ticks += 1
        self.tail.look(home._deployment.host.trace)
        frame = Frame(home, self.tail)
        for each in due:
            self._send(each, frame, final=final)
        cost = time.thread_time() - began
        now = time.monotonic()
        for each in due:
            pause = max(TICK_SECS, cost / each.view.scene.share, each.bytes / BYTES_A_SECOND)
            each.due = now + pause - TICK_SECS / 2

    def _send(self, shown: Shown, frame: Frame, *, final: bool) -> None:
        view, scene = shown.view, shown.view.scene
        if shown.behind:
            shown.behind = False
            scene.refix()
            for piece in scene.rest():
                view.send({"what": "rest"}, buffers=[msgspec.json.encode(piece)])
        fixed = scene.fixed(frame)
        if fixed is not None:
            view.fixed = msgspec.json.encode(fixed)
        data = scene.snapshot(frame)
        if final:
            data["frozen"] = True
        encoded = msgspec.json.encode(data)
        shown.bytes = len(encoded)
        view.snapshot = encoded


_feeds: weakref.WeakKeyDictionary[Facade, Feed] = weakref.WeakKeyDictionary()
_feeds_lock = threading.Lock()


def feed_of(home: Facade) -> Feed:
    """The feed of a cluster, the same for all who ask."""
    with _feeds_lock:
        feed = _feeds.get(home)
        if feed is None:
            feed = _feeds[home] = Feed(home)
        return feed


def live(kind: type[Scene], subject: Any) -> LiveView:
    """Give the live view of an object."""
    home = getattr(subject, "_home", subject)
    return feed_of(home).view_of(kind, subject)


def displayed(kind: type[Scene], subject: Any) -> bool:
    """Show an object live where somebody looks on and it goes on; as a still where it has ended."""
    if session.shell() is None:
        return False
    alive = session.attended() and not kind(subject).ended
    return session.show(subject, live(kind, subject) if alive else None)
