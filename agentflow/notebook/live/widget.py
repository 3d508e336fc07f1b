"""The one place that knows anywidget; imported on the first live display, and not before.

Law: a widget's traits are written by its feed's thread only, and what its browser says is handed over and never
acted upon here: handlers run wherever the kernel pleases, on its main thread or on a subshell's.
"""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets

from agentflow.notebook.graph import is_warm
from agentflow.notebook.html import escape
from agentflow.notebook.live.feed import Feed
from agentflow.notebook.live.modules import module, style
from agentflow.notebook.live.scene import Scene
from agentflow.notebook.live.session import bundle_of, show
from agentflow.views import find

WIDGET_MIME = "application/vnd.jupyter.widget-view+json"


class LiveView(anywidget.AnyWidget):
    """A live view; made by `watch()` of what it shows, and laid out like any widget of ipywidgets."""

    fixed = traitlets.Bytes(b"").tag(sync=True)
    snapshot = traitlets.Bytes(b"").tag(sync=True)

    def __init__(self, scene: Scene, feed: Feed) -> None:
        self._esm = module(scene.module)
        self._css = style()
        self.scene = scene
        self._feed = feed
        super().__init__()
        self.on_msg(self._heard)

    def open(self) -> None:
        """Open the comm, so that it is heard while a cell is busy.

        ipykernel 7.4 answers a comm in the subshell that published on it last, which for a widget made in a
        cell is the main one, and that is busy while the cell is. Front ends say themselves where to answer.
        """
        super().open()
        if hasattr(self.comm, "_reply_subshell_for"):
            self.comm._reply_subshell_for = lambda data, default: default

    def _heard(self, _: Any, content: Any, buffers: Any) -> None:
        self._feed.hear(self, content)

    def bundle(self) -> dict[str, Any]:
        """Every form of it: the widget, and the still for where there is none."""
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        if is_warm() or self.scene.subject is None:
            return {WIDGET_MIME: view, **bundle_of(self.scene.subject)}
        # The live view is what people see now; its first paint does not wait for the engine of the still.
        draw = find("text", type(self.scene.subject))
        said = repr(self.scene.subject) if draw is None else draw(self.scene.subject)
        return {WIDGET_MIME: view, "text/plain": said, "text/html": f"<pre>{escape(said)}</pre>"}

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.bundle(), {}

    def _ipython_display_(self) -> None:
        if not show(self.scene.subject, self):
            raise NotImplementedError

    def __repr__(self) -> str:
        return f"<live view of {self.scene.subject!r}>"
