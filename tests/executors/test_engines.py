"""Dask and Ray for real, where they are installed."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import warnings

import pytest

from agentflow.errors import InvalidConfig, MissingExtra, PeerDown, TaskCancelled, Unpicklable
from agentflow.executors import RayExecutor, runner_for


@pytest.fixture(scope="module")
def distributed():
    distributed = pytest.importorskip("distributed")
    # A thread of Dask's own that lasts as long as the interpreter: it is no leftover of a test.
    distributed.utils._offload_executor.submit(int).result()
    return distributed


@pytest.fixture
def dask(request, distributed):
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=request.param, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("dask", [True], indirect=True)
def test_dask_runs_tasks_as_often_as_they_are_asked_for(dask, ends):
    for spec in (dask, dask.get_executor()):
        runner = runner_for(spec, name="w1", slots=4)
        for key in range(6):
            runner.start(key, lambda: (print("there"), os.urandom(8))[1], ends)
        outcomes = ends.take(6).values()
        assert len({outcome.value for outcome in outcomes}) == 6
        assert {outcome.stdout for outcome in outcomes} == {"there\n"}
        assert runner.close(20) == []


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("dask", [False], indirect=True)
def test_dask_reports_errors_and_what_cannot_travel(dask, ends):
    runner = runner_for(dask, name="w1", slots=2)
    lock = threading.Lock()

    def fail():
        raise KeyError("there")

    runner.start(1, fail, ends)
    assert isinstance(ends.outcome().error, KeyError)
    runner.start(2, lambda: lock, ends)
    error = ends.outcome().error
    assert isinstance(error, Unpicklable)
    assert "variable 'lock'" in error.culprit
    assert runner.close(20) == []


@pytest.fixture
def ray():
    ray = pytest.importorskip("ray")
    folder = tempfile.mkdtemp(prefix="r")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            _temp_dir=folder,
            object_store_memory=80_000_000,
        )
        try:
            yield ray
        finally:
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.long  # ray.init alone takes half a minute on two cores
@pytest.mark.filterwarnings("default")
def test_ray_runs_reports_and_cancels(ray, ends):
    runner = runner_for("ray", name="w1", slots=2)

    def fail():
        raise KeyError("there")

    for key in range(4):
        runner.start(key, lambda: (print("there"), os.getpid())[1], ends)
    outcomes = ends.take(4).values()
    assert all(outcome.value != os.getpid() and outcome.stdout == "there\n" for outcome in outcomes)
    runner.start(5, fail, ends)
    assert isinstance(ends.outcome().error, KeyError)
    lock = threading.Lock()
    runner.start(6, lambda: lock, ends)
    assert isinstance(ends.outcome().error, Unpicklable)
    runner.start(7, lambda: os._exit(3), ends)
    assert isinstance(ends.outcome().error, PeerDown)

    def forever():
        import time

        while True:
            time.sleep(0.05)

    runner.start(8, forever, ends)
    runner.replace(8)
    assert isinstance(ends.outcome().error, TaskCancelled)
    assert runner.close(20) == []


def test_ray_must_be_running_and_installed(monkeypatch):
    if "ray" in sys.modules or shutil.which("ray"):
        ray = pytest.importorskip("ray")
        assert not ray.is_initialized()
        with pytest.raises(InvalidConfig, match=r"ray.init\(\)"):
            RayExecutor()
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"agentflow\[ray\]"):
        RayExecutor()
