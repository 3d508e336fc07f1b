"""Workers: who is well, who gets the next task, and numbers that cannot be."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agentflow.core.scheduling import (
    HealthCheckConfig,
    TaskNode,
    WorkerHealth,
    WorkerInfo,
    WorkerRegistry,
    WorkerResources,
    WorkerStatus,
)
from agentflow.errors import DuplicateTask, InvalidConfig, NoSuchNode, NoSuchTask, Refused

HEALTH = HealthCheckConfig(heartbeat_interval_secs=2, suspect_after_secs=6, offline_after_secs=20)


def worker(name, group="default", **resources):
    return WorkerInfo(name, group_name=group, resources=WorkerResources(**resources))


def registry(*workers, now=0.0):
    made = WorkerRegistry(HEALTH, clock=lambda: 0.0)
    for each in workers:
        made.register(each, now=now)
    return made


class RegistryAgainstModel(RuleBasedStateMachine):
    """Random operations; the model judges every worker from scratch at every question."""

    names = st.sampled_from([f"w{i}" for i in range(5)])

    @initialize()
    def begin(self):
        self.now = 0.0
        self.made = WorkerRegistry(HEALTH, clock=lambda: self.now)
        self.model = {}
        self.tasks = 0

    @rule(secs=st.integers(0, 9))
    def wait(self, secs):
        self.now += secs

    @rule(
        name=names,
        group=st.sampled_from(["default", "gpu"]),
        cores=st.sampled_from([0, 0.5, 1, 4]),
        memory=st.sampled_from([(0, 0), (100, 100), (100, 25)]),
        gpus=st.sampled_from([0, 1, 1.5]),
        slots=st.integers(0, 3),
    )
    def register(self, name, group, cores, memory, gpus, slots):
        total, free = memory
        self.made.register(
            worker(
                name,
                group,
                cpu_cores=cores,
                total_memory_mb=total,
                available_memory_mb=free,
                gpu_count=gpus,
                max_tasks=slots,
            )
        )
        self.model[name] = {
            "group": group,
            "cores": cores,
            "memory": memory,
            "gpus": gpus,
            "slots": slots,
            "heard": self.now,
            "draining": False,
            "down": False,
            "told": False,
            "running": {},
        }

    @precondition(lambda self: self.model)
    @rule(data=st.data(), action=st.sampled_from(["beat", "drain", "resume", "unhealthy", "unregister"]))
    def act(self, data, action):
        name = data.draw(st.sampled_from(sorted(self.model)))
        one = self.model[name]
        if action == "beat":
            self.made.update_heartbeat(name)
            if self.down(one):
                one["down"] = one["told"] = False
            one["heard"] = self.now
        elif action == "drain":
            self.made.drain(name)
            one["draining"] = True
        elif action == "resume":
            self.made.resume(name)
            one["draining"] = False
        elif action == "unhealthy":
            assert self.made.mark_unhealthy(name, "sick") == list(one["running"])
            one.update(down=True, told=True, running={})
        else:
            assert self.made.unregister(name) == list(one["running"])
            del self.model[name]

    @rule()
    def lose(self):
        lost = {
            n: list(one["running"]) for n, one in self.model.items() if self.down(one) and not one["told"]
        }
        assert self.made.take_lost() == lost
        for name in lost:
            self.model[name].update(down=True, told=True, running={})

    @rule(timeout=st.integers(0, 60))
    def clean_up(self, timeout):
        gone = [n for n, one in self.model.items() if self.down(one) and self.now - one["heard"] >= timeout]
        assert self.made.cleanup_offline(timeout) == gone
        for name in gone:
            del self.model[name]

    @rule(group=st.sampled_from([None, "default", "gpu", "none"]), gpu=st.sampled_from([0, 0.25, 0.5, 1]))
    def place(self, group, gpu):
        task = TaskNode(f"t{self.tasks}", group=group, resources={"gpu": gpu} if gpu else {})
        self.tasks += 1
        fit = [n for n in self.model if self.takes(n) and self.fits(n, group, gpu)]
        found = self.made.find_worker(task)
        if not fit:
            assert found is None
            return
        best = min(fit, key=lambda n: (self.load(n), len(self.model[n]["running"]), n))
        assert found.id == best
        self.made.assign(best, task)
        self.model[best]["running"][task.id] = gpu

    @precondition(lambda self: any(one["running"] for one in self.model.values()))
    @rule(data=st.data())
    def finish(self, data):
        pairs = [(n, t) for n, one in self.model.items() for t in one["running"]]
        name, task = data.draw(st.sampled_from(pairs))
        self.made.release(name, task)
        del self.model[name]["running"][task]

    def down(self, one):
        return one["down"] or self.now - one["heard"] > 20

    def takes(self, name):
        one = self.model[name]
        silent = self.now - one["heard"] > 6
        return not (self.down(one) or one["draining"] or silent) and len(one["running"]) < one["slots"]

    def fits(self, name, group, gpu):
        one = self.model[name]
        return group in (None, one["group"]) and sum(one["running"].values()) + gpu <= one["gpus"]

    def load(self, name):
        one = self.model[name]
        total, free = one["memory"]
        memory = 1 - free / total if total else 0
        running = len(one["running"])
        tasks = running / one["cores"] if one["cores"] else math.inf if running else 0
        return 0.6 * memory + 0.4 * tasks

    @invariant()
    def agree(self):
        self.made.check_invariants()
        assert [each.id for each in self.made.get_workers()] == list(self.model)
        well = []
        for name, one in self.model.items():
            info = self.made.get_worker(name)
            silent = self.now - one["heard"]
            if self.down(one):
                status = WorkerStatus.OFFLINE
            elif one["draining"]:
                status = WorkerStatus.DRAINING
            elif len(one["running"]) >= one["slots"]:
                status = WorkerStatus.BUSY
            else:
                status = WorkerStatus.ACTIVE
            assert info.status is status
            assert info.resources.concurrent_tasks == len(one["running"])
            assert info.load == pytest.approx(self.load(name))
            assert self.made.running(name) == list(one["running"])
            assert self.made.is_drained(name) == (one["draining"] and not one["running"])
            assert self.made.heartbeat_age(name) == silent
            if not self.down(one) and not one["draining"] and silent <= 6:
                well.append(name)
        assert [each.id for each in self.made.get_healthy_workers()] == well


def test_the_registry_answers_like_one_that_looks_at_everything():
    run_state_machine_as_test(
        RegistryAgainstModel, settings=settings(max_examples=80, stateful_step_count=40, deadline=None)
    )


# --- load and placement -----------------------------------------------------------------------------------


@given(st.floats(0.1, 64), st.floats(0, 1e6), st.floats(0, 1), st.integers(0, 100))
def test_the_load_score_is_the_formula(cores, total, share, running):
    available = total * share
    resources = WorkerResources(
        cpu_cores=cores,
        total_memory_mb=total,
        available_memory_mb=min(available, total),
        concurrent_tasks=running,
        max_tasks=100,
    )
    used = 1 - min(available, total) / total if total else 0
    assert resources.load == pytest.approx(0.6 * used + 0.4 * running / cores)


def test_the_least_loaded_worker_gets_the_task():
    made = registry(
        worker("busy", cpu_cores=4, concurrent_tasks=3),
        worker("full-memory", cpu_cores=4, total_memory_mb=100, available_memory_mb=10),
        worker("idle", cpu_cores=4, concurrent_tasks=1),
    )
    assert made.get_least_loaded_worker().id == "idle"


def test_ties_go_to_the_one_with_the_fewest_running_then_by_id():
    made = registry(
        worker("b", cpu_cores=2, concurrent_tasks=1),
        worker("c", cpu_cores=4, concurrent_tasks=2),
        worker("a", cpu_cores=4, concurrent_tasks=2),
    )
    assert made.get_least_loaded_worker().id == "b"
    made.unregister("b")
    assert made.get_least_loaded_worker().id == "a"


def test_a_worker_at_max_tasks_takes_nothing():
    made = registry(worker("w", max_tasks=1))
    assert made.assign("w", "a").status is WorkerStatus.BUSY
    assert made.get_least_loaded_worker() is None
    assert [each.id for each in made.get_healthy_workers()] == ["w"]
    with pytest.raises(Refused, match="BUSY"):
        made.assign("w", "b")
    made.release("w", "a")
    assert made.get_least_loaded_worker().id == "w"


def test_what_a_worker_says_it_runs_counts_too():
    made = registry(worker("w", max_tasks=2))
    made.update_heartbeat("w", {"concurrent_tasks": 2})
    assert made.get_worker("w").status is WorkerStatus.BUSY
    made.update_heartbeat("w", WorkerResources(max_tasks=2))
    assert made.get_worker("w").status is WorkerStatus.ACTIVE


def test_a_release_also_lowers_what_the_worker_said():
    made = registry(worker("w", max_tasks=4))
    made.assign("w", "a")
    made.update_heartbeat("w", {"concurrent_tasks": 1})
    assert made.release("w", "a").resources.concurrent_tasks == 0


def test_groups_isolate():
    made = registry(worker("cpu", "default"), worker("gpu", "gpu", max_tasks=1))
    assert made.groups() == ["default", "gpu"]
    assert made.get_least_loaded_worker("gpu").id == "gpu"
    made.assign("gpu", "train")
    assert made.get_least_loaded_worker("gpu") is None
    assert made.get_least_loaded_worker("nowhere") is None
    assert made.get_least_loaded_worker("default").id == "cpu"
    assert [each.id for each in made.get_healthy_workers("gpu")] == ["gpu"]


def test_attributes_and_capabilities_are_constraints():
    made = registry(
        WorkerInfo("arm", resources=WorkerResources(custom_attributes={"arch": "arm64", "ssd": True})),
        WorkerInfo(
            "x86", capabilities=["cuda"], resources=WorkerResources(custom_attributes={"arch": "x86_64"})
        ),
    )

    def who(**requires):
        found = made.get_least_loaded_worker(requires=requires)
        return found and found.id

    assert who(arch="x86_64") == "x86"
    assert who(cuda=True) == "x86"
    assert who(cuda=False) == "arm"
    assert who(ssd=True) == "arm"
    assert who(arch="arm64", cuda=True) is None
    assert who(floppy=True) is None
    assert made.find_worker(TaskNode("t", requires={"arch": "arm64"})).id == "arm"


def test_ten_tenths_of_a_gpu_are_a_whole_one():
    made = registry(worker("w", gpu_count=1, max_tasks=99))
    for i in range(10):
        assert made.get_least_loaded_worker(resources={"gpu": 0.1}).id == "w"
        made.assign("w", f"t{i}", {"gpu": 0.1})
    assert made.get_least_loaded_worker(resources={"gpu": 0.1}) is None
    assert made.get_least_loaded_worker().id == "w"
    with pytest.raises(Refused, match="gpu"):
        made.assign("w", "more", {"gpu": 0.1})
    made.release("w", "t0")
    assert made.get_least_loaded_worker(resources={"gpu": 0.1}).id == "w"


def test_custom_numbers_are_resources_and_memory_is_what_is_free():
    made = registry(
        worker(
            "w", total_memory_mb=1000, available_memory_mb=600, custom_attributes={"licence": 2, "name": "x"}
        )
    )
    assert made.get_least_loaded_worker(resources={"licence": 2, "memory_mb": 600}).id == "w"
    assert made.get_least_loaded_worker(resources={"licence": 3}) is None
    assert made.get_least_loaded_worker(resources={"memory_mb": 601}) is None
    assert made.get_least_loaded_worker(resources={"name": 1}) is None
    made.assign("w", "a", {"memory_mb": 500, "licence": 1})
    # What it took may already be in what the worker reports: it is not counted twice.
    assert made.get_least_loaded_worker(resources={"memory_mb": 500, "licence": 1}).id == "w"
    assert made.get_least_loaded_worker(resources={"memory_mb": 501}) is None


def test_a_worker_with_nothing_divides_by_nothing():
    made = registry(worker("zero", cpu_cores=0, total_memory_mb=0, max_tasks=2))
    assert made.get_worker("zero").load == 0.0
    assert made.assign("zero", "a").load == math.inf
    made.register(worker("some", cpu_cores=1, concurrent_tasks=3), now=0.0)
    assert made.get_least_loaded_worker().id == "some"
    made.register(worker("none", max_tasks=0), now=0.0)
    assert made.get_worker("none").status is WorkerStatus.BUSY


# --- health -----------------------------------------------------------------------------------------------


def test_silence_is_late_then_suspected_then_offline():
    made = registry(worker("w"))
    seen = [made.health("w", now=now) for now in (0, 3, 3.1, 6, 6.1, 20, 20.1)]
    alive, late, suspected, offline = WorkerHealth
    assert seen == [alive, alive, late, late, suspected, suspected, offline]
    assert made.get_least_loaded_worker(now=6.0).id == "w"
    assert made.get_least_loaded_worker(now=6.1) is None
    assert made.get_worker("w", now=6.1).status is WorkerStatus.ACTIVE
    assert made.get_worker("w", now=20.1).status is WorkerStatus.OFFLINE


def test_a_heartbeat_brings_a_silent_worker_back_with_its_tasks():
    made = registry(worker("w"))
    made.assign("w", "a")
    assert made.update_heartbeat("w", now=30.0).status is WorkerStatus.ACTIVE
    assert made.running("w") == ["a"]


def test_a_worker_that_was_given_up_comes_back_without_its_tasks():
    made = registry(worker("w"))
    made.assign("w", "a")
    assert made.take_lost(now=30.0) == {"w": ["a"]}
    assert made.take_lost(now=31.0) == {}
    assert made.update_heartbeat("w", now=32.0).status is WorkerStatus.ACTIVE
    assert made.running("w") == []
    assert made.take_lost(now=60.0) == {"w": []}


def test_an_unhealthy_worker_is_offline_until_it_is_heard_again():
    made = registry(worker("w"))
    made.assign("w", "a")
    assert made.mark_unhealthy("w", ValueError("disk full")) == ["a"]
    info = made.get_worker("w")
    assert (info.status, info.error) == (WorkerStatus.OFFLINE, "disk full")
    assert made.health("w", now=0.0) is WorkerHealth.OFFLINE
    assert made.get_healthy_workers() == []
    assert made.get_least_loaded_worker() is None
    assert made.update_heartbeat("w", now=1.0).error == ""
    assert made.get_least_loaded_worker(now=1.0).id == "w"


def test_a_heartbeat_that_comes_late_does_not_turn_time_back():
    made = registry(worker("w"))
    made.update_heartbeat("w", now=10.0)
    made.update_heartbeat("w", now=5.0)
    assert made.heartbeat_age("w", now=12.0) == 2.0


def test_a_draining_worker_finishes_and_takes_nothing_new():
    made = registry(worker("w"))
    made.assign("w", "a")
    assert made.drain("w").status is WorkerStatus.DRAINING
    assert made.get_least_loaded_worker() is None
    assert made.get_healthy_workers() == []
    assert not made.is_drained("w")
    with pytest.raises(Refused, match="DRAINING"):
        made.assign("w", "b")
    assert made.update_heartbeat("w", now=1.0).status is WorkerStatus.DRAINING
    made.release("w", "a")
    assert made.is_drained("w")
    assert made.unregister("w") == []
    assert len(made) == 0


def test_draining_can_be_taken_back():
    made = registry(worker("w"))
    made.drain("w")
    assert made.resume("w").status is WorkerStatus.ACTIVE
    assert made.get_least_loaded_worker().id == "w"


def test_a_worker_that_registers_again_begins_anew():
    made = registry(worker("w"))
    made.assign("w", "a")
    made.drain("w")
    assert made.register(worker("w", "gpu"), now=5.0).registered_at == 5.0
    assert made.running("w") == []
    assert made.get_least_loaded_worker("gpu", now=5.0).id == "w"


def test_only_the_long_offline_are_cleaned_up():
    made = registry(worker("old"), worker("well"))
    made.update_heartbeat("well", now=100.0)
    assert made.cleanup_offline(101, now=100.0) == []
    assert made.cleanup_offline(100, now=100.0) == ["old"]
    assert "old" not in made
    assert "well" in made


def test_a_status_given_at_registration_is_kept():
    made = registry(WorkerInfo("d", status="draining"), WorkerInfo("o", status=WorkerStatus.OFFLINE))
    assert [each.status.name for each in made.get_workers()] == ["DRAINING", "OFFLINE"]


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cpu_cores", -1),
        ("cpu_cores", math.nan),
        ("cpu_cores", "four"),
        ("total_memory_mb", -5),
        ("total_memory_mb", math.inf),
        ("available_memory_mb", -2),
        ("available_memory_mb", 5),
        ("gpu_count", -0.5),
        ("concurrent_tasks", -1),
        ("concurrent_tasks", 1.5),
        ("max_tasks", -1),
        ("max_tasks", 2.0),
        ("custom_attributes", {"licence": -1}),
        ("custom_attributes", {"licence": math.nan}),
        ("custom_attributes", {"licence": [1]}),
        ("custom_attributes", {3: "x"}),
    ],
)
def test_resources_that_cannot_be_are_refused_by_name(field, value):
    with pytest.raises(InvalidConfig) as refused:
        WorkerResources(**{field: value})
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", ""),
        ("id", 3),
        ("group_name", ""),
        ("status", "asleep"),
        ("capabilities", "cuda"),
        ("resources", {}),
    ],
)
def test_a_worker_that_cannot_be_is_refused_by_name(field, value):
    with pytest.raises(InvalidConfig) as refused:
        WorkerInfo(**{"id": "w", field: value})
    assert refused.value.field == field


@pytest.mark.parametrize(
    "times",
    [(0, 3, 10), (1, 0, 10), (1, 3, math.inf), (5, 3, 10), (1, 30, 10), (math.nan, 3, 10), (True, 3, 10)],
)
def test_times_that_cannot_be_are_refused(times):
    with pytest.raises(InvalidConfig):
        HealthCheckConfig(*times)


def test_unknown_workers_tasks_and_fields_are_refused():
    made = registry(worker("w"))
    for ask in (made.unregister, made.update_heartbeat, made.drain, made.resume, made.running, made.health):
        with pytest.raises(NoSuchNode):
            ask("nobody")
    with pytest.raises(NoSuchNode):
        made.mark_unhealthy("nobody", "why")
    with pytest.raises(NoSuchTask):
        made.release("w", "a")
    made.assign("w", "a")
    with pytest.raises(DuplicateTask):
        made.assign("w", "a")
    with pytest.raises(InvalidConfig):
        made.update_heartbeat("w", {"cpus": 3})
    with pytest.raises(InvalidConfig):
        made.update_heartbeat("w", {"cpu_cores": -3})
    with pytest.raises(InvalidConfig):
        made.register("w")
    with pytest.raises(InvalidConfig):
        made.cleanup_offline(-1)
    with pytest.raises(Refused):
        made.assign("w", "b", {"gpu": -1})
    assert made.get_worker("w").resources.cpu_cores == 1.0


def test_the_repr_is_one_line():
    assert repr(registry(worker("w"))) == "<WorkerRegistry: 1 worker in 1 groups>"
