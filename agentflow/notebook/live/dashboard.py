"""Several live views in one place."""

from __future__ import annotations

from typing import Any

from agentflow.errors import InvalidConfig
from agentflow.views import Watchable


def dashboard(*subjects: Any) -> Any:
    """Put live views below one another; give a widget that stock layouts take like any other.

    Parameters
    ----------
    *subjects : Cluster, Run, Simulation or widget
        What to show, in order.

    Examples
    --------
    >>> from agentflow import Simulation, dashboard
    >>> sim = Simulation(masters=3, seed=7)
    >>> len(dashboard(sim, sim.watch("messages")).children)
    2
    """
    import ipywidgets

    if not subjects:
        raise InvalidConfig("a dashboard shows something: dashboard(cluster, run)", field="subjects")
    views = []
    for subject in subjects:
        if isinstance(subject, Watchable):
            views.append(subject.watch())
        elif isinstance(subject, ipywidgets.Widget):
            views.append(subject)
        else:
            raise InvalidConfig(
                f"{subject!r} has no live view; give clusters, runs, simulations or widgets", field="subjects"
            )
    return ipywidgets.VBox(views)
