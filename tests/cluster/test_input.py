"""What cannot work is refused with its reason, before anything changes."""

import contextlib
import warnings

import pytest

import agentflow as af


def fetch(url, timeout=None, retries=0):
    return url, timeout, retries


def unchanged(sim):
    """What a refused request must leave as it was."""
    plane = sim.plane()
    return (len(plane.runs), len(sim.runs), len(sim._bench.objects))


def refused(sim, error, match, call):
    before = unchanged(sim)
    with pytest.raises(error, match=match) as caught:
        call()
    assert isinstance(caught.value, af.Refused)
    assert unchanged(sim) == before
    assert sim.submit(sum, [1, 2]).result() == 3, "the cluster works as before"
    return caught.value


# --- workflows ------------------------------------------------------------------------------------------------


def test_a_circle_is_named_in_order(sim):
    flow = af.Workflow("circle", tasks=[("a", ["c"]), ("b", ["a"]), ("c", ["b"]), ("d", ["c"])])
    error = refused(sim, af.CycleInWorkflow, "a -> b -> c -> a", lambda: sim.submit(flow))
    assert error.cycle == ("a", "b", "c")


def test_a_task_that_waits_for_itself_is_named(sim):
    flow = af.Workflow("self", tasks=[("a", ["a"])])
    error = refused(sim, af.CycleInWorkflow, "'a' waits for itself", lambda: sim.submit(flow))
    assert error.cycle == ("a",)


def test_a_missing_dependency_is_named_with_who_asks_for_it(sim):
    flow = af.Workflow("hole", tasks=[("a", []), ("b", ["a", "ghost"])])
    error = refused(sim, af.MissingDependency, "'b' waits for 'ghost'", lambda: sim.submit(flow))
    assert (error.task, error.dependency) == ("b", "ghost")


def test_a_duplicate_id_is_refused_when_it_is_added():
    flow = af.Workflow("twice")
    flow.add(int, id="a")
    with pytest.raises(af.DuplicateTask, match="'a'") as caught:
        flow.add(int, id="a")
    assert caught.value.task == "a"
    assert list(flow) == ["a"]
    with pytest.raises(af.DuplicateTask):
        af.Workflow("twice", tasks=[("a", []), ("a", [])])


def test_the_same_id_in_two_runs_is_two_tasks(sim):
    runs = []
    for value in (1, 2):
        flow = af.Workflow("same")
        flow.add(int, value, id="a")
        runs.append(sim.submit(flow))
    assert [run.result("a") for run in runs] == [1, 2]


@pytest.mark.parametrize("work", [42, None, "print", [len], {"a": []}])
def test_what_is_not_callable_is_refused(sim, work):
    refused(sim, af.InvalidConfig, "call", lambda: sim.submit(work))


@pytest.mark.parametrize("fn", [42, None])
def test_a_map_of_what_is_not_callable_is_refused(sim, fn):
    refused(sim, af.InvalidConfig, "call", lambda: sim.map(fn, [1, 2]))
    refused(sim, af.InvalidConfig, "call", lambda: sim.map(fn, [1, 2], [3, 4]))


@pytest.mark.parametrize("items", [(5,), ("text",), ([1], 5), ()])
def test_a_map_over_nothing_to_go_through_is_refused(sim, items):
    refused(sim, af.InvalidConfig, "map", lambda: sim.map(max, *items))


def test_a_workflow_takes_no_arguments_at_submission(sim):
    flow = af.Workflow("flow", tasks=["a"])
    refused(sim, af.InvalidConfig, "no further arguments", lambda: sim.submit(flow, 1))
    refused(sim, af.InvalidConfig, "no further arguments", lambda: sim.submit(flow, retries=1))


@pytest.mark.parametrize("option", ["timeout", "retries"])
def test_an_ambiguous_keyword_is_refused_and_the_way_out_is_named(sim, option):
    way = rf"kwargs=\{{'{option}': 3\}}"
    flow = af.Workflow("ambiguous")
    with pytest.raises(af.InvalidConfig, match=way):
        flow.add(fetch, "u", **{option: 3})
    assert len(flow) == 0
    refused(sim, af.InvalidConfig, way, lambda: sim.submit(fetch, "u", **{option: 3}))
    refused(sim, af.InvalidConfig, way, lambda: sim.map(fetch, ["u"], **{option: 3}))
    refused(sim, af.InvalidConfig, way, lambda: sim.map(fetch, ["u"], ["v"], **{option: 3}))
    assert sim.submit(fetch, "u", kwargs={option: 3}, **{option: 9}).result() in [("u", 3, 0), ("u", None, 3)]


@pytest.mark.parametrize("option", ["idempotency_key", "commit_timeout"])
def test_an_option_of_submit_that_the_function_has_too_is_refused(sim, option):
    def odd(idempotency_key=None, commit_timeout=None):
        return idempotency_key, commit_timeout

    refused(sim, af.InvalidConfig, rf"kwargs=\{{'{option}'", lambda: sim.submit(odd, **{option: "3"}))


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("retries", {"retries": -1}),
        ("retries", {"retries": "two"}),
        ("timeout_secs", {"timeout": 0}),
        ("timeout_secs", {"timeout": "soon"}),
        ("timeout_secs", {"timeout": float("nan")}),
        ("priority", {"priority": "utmost"}),
        ("priority", {"priority": 9}),
        ("when", {"when": "whenever"}),
        ("backoff", {"backoff": 5}),
        ("estimated_duration_secs", {"duration": -1}),
        ("resources['gpu']", {"resources": {"gpu": -1}}),
        ("id", {"id": ""}),
        ("id", {"id": 5}),
        ("retry_on", {"retry_on": "ValueError"}),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_name(sim, field, options):
    error = refused(sim, af.InvalidConfig, None, lambda: sim.submit(sum, [1], **options))
    assert error.field == field


@pytest.mark.parametrize(
    "options",
    [
        {"group": 5},
        {"id": "lone \ud800"},
        {"group": "lone \ud800"},
        {"retries": 2**70},
        {"requires": {"arch": object()}},
        {"resources": {5: 1}},
    ],
)
def test_what_no_master_could_read_is_refused_here(sim, options):
    refused(sim, af.InvalidConfig, None, lambda: sim.submit(sum, [1], **options))
    assert all(sim.masters[name].alive for name in sim.masters)


def test_a_key_of_another_kind_is_refused(sim):
    for key in ("", 5, b"k"):
        refused(
            sim, af.InvalidConfig, "idempotency", lambda key=key: sim.submit(sum, [1], idempotency_key=key)
        )


def test_a_handle_of_another_workflow_is_refused():
    one, other = af.Workflow("one"), af.Workflow("other")
    with pytest.raises(af.InvalidConfig, match="'other'"):
        other.add(sum, [one.add(int)])
    assert len(other) == 0


def test_a_group_without_workers_is_accepted_and_explained(sim):
    run = sim.submit(sum, [1, 2], group="gpu")
    sim.run_for(1)
    assert not run.done
    assert "no worker of group 'gpu'" in run.explain("sum")
    assert "default" in run.explain("sum")
    assert sim.submit(sum, [3, 4]).result() == 7, "nobody else waits for it"
    sim.add_worker(group="gpu")
    assert run.result() == 3


# --- clusters -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [af.Cluster, af.Simulation])
@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("masters", {"masters": -3}),
        ("masters", {"masters": "3"}),
        ("masters", {"masters": True}),
        ("masters", {"masters": 3.0}),
        ("workers", {"workers": -1}),
        ("workers", {"workers": 2.5}),
        ("workers", {"workers": "4"}),
        ("workers", {"workers": {"gpu": -1}}),
        ("workers", {"workers": {"gpu": "1"}}),
        ("group", {"workers": {"": 1}}),
        ("seed", {"seed": "seven"}),
    ],
)
def test_a_cluster_that_cannot_work_is_refused_before_it_starts(kind, field, settings):
    with pytest.raises(af.InvalidConfig) as caught:
        kind(**settings)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("masters", {"masters": 0}),
        ("config", {"config": "fast"}),
        ("health", {"health": 5}),
        ("network", {"network": "lan"}),
        ("speed", {"speed": -1}),
        ("speed", {"speed": "slow"}),
        ("speed", {"speed": float("inf")}),
        ("name", {"name": ""}),
        ("name", {"name": 5}),
        ("executor", {"executor": "thread"}),
        ("executor", {"executor": 5}),
        ("executor", {"executor": None}),
    ],
)
def test_a_live_cluster_refuses_settings_of_the_wrong_kind(field, settings):
    with pytest.raises(af.InvalidConfig) as caught:
        af.Cluster(**settings)
    assert caught.value.field == field


@pytest.mark.parametrize(("kind", "masters"), [(af.Cluster, 2), (af.Simulation, 4)])
def test_an_even_number_of_masters_works_and_a_warning_says_why_odd(kind, masters):
    with pytest.warns(af.EvenMasters, match=f"survives the loss of {(masters - 1) // 2}") as caught:
        made = kind(masters=masters, workers=1)
    with contextlib.closing(made) if kind is af.Cluster else contextlib.nullcontext():
        assert caught[0].filename == __file__, "it points at the caller's line"
        assert "odd" in str(caught[0].message)
        if kind is af.Simulation:
            made.run_until(lambda sim: sim.leader)
        assert made.submit(sum, [1]).result(timeout=20) == 1


def test_odd_numbers_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        af.Simulation(masters=1)
        af.Simulation(masters=5)


@pytest.mark.parametrize(
    "settings",
    [
        {"group": ""},
        {"group": 5},
        {"max_tasks": 0},
        {"max_tasks": True},
        {"cpu_cores": 0},
        {"cpu_cores": "4"},
        {"gpu_count": -1},
        {"resources": {"ram": -1}},
        {"resources": {"ram": "lots"}},
        {"resources": {"ram": float("nan")}},
        {"attributes": {"arch": object()}},
        {"attributes": {"arch": "\ud800"}},
        {"group": "\ud800"},
    ],
)
def test_a_worker_that_cannot_work_is_refused(sim, settings):
    workers = list(sim.workers)
    refused(sim, af.InvalidConfig, None, lambda: sim.add_worker(**settings))
    assert list(sim.workers) == workers


def test_a_node_that_is_not_there_is_refused_with_those_that_are(sim):
    for act in (sim.kill, sim.restart, sim.pause, sim.resume, lambda node: sim.slow(node, 1)):
        error = refused(
            sim, af.NoSuchNode, "'master-9'.*master-1, master-2, master-3", lambda act=act: act("master-9")
        )
        assert error.node == "master-9"
        refused(sim, af.NoSuchNode, "by its id or its handle", lambda act=act: act(None))
    refused(sim, af.NoSuchNode, "'x'", lambda: sim.partition({"master-1"}, {"x"}))
    refused(sim, af.NoSuchNode, "'master-9'", lambda: sim.masters["master-9"])
    refused(sim, af.NoSuchNode, "is no worker", lambda: sim.remove_worker("master-1"))


def test_a_partition_that_is_none_is_refused(sim):
    refused(sim, af.InvalidConfig, "two groups", lambda: sim.partition({"master-1"}))
    refused(
        sim, af.InvalidConfig, "in two groups", lambda: sim.partition({"master-1"}, {"master-1", "master-2"})
    )
    refused(sim, af.InvalidConfig, "milliseconds", lambda: sim.slow("master-1", -5))
    refused(sim, af.InvalidConfig, "probability", lambda: setattr(sim.network, "loss", 2))


# --- asking for results ---------------------------------------------------------------------------------------


def test_a_task_that_is_not_there_is_refused(sim):
    run = sim.submit(sum, [1])
    for ask in (run.result, run.explain):
        with pytest.raises(af.NoSuchTask, match="'nope'"):
            ask("nope")
        with pytest.raises(af.InvalidConfig, match="by its id or its handle"):
            ask(5)
    with pytest.raises(af.NoSuchTask, match=r"'run-9'.*run-1"):
        sim.attach("run-9")


def test_the_result_of_a_run_with_several_ends_must_be_named(sim):
    run = sim.submit(af.Workflow("two", tasks=["a", "b"]))
    with pytest.raises(af.InvalidConfig, match="'a', 'b'"):
        run.result()
    with pytest.raises(af.InvalidConfig, match="has no tasks"):
        sim.submit(af.Workflow("none")).result()


@pytest.mark.parametrize("timeout", [-1, "soon", float("nan")])
def test_a_time_that_is_none_is_refused(sim, timeout):
    run = sim.submit(sum, [1])
    for ask in (run.wait, lambda t: run.result(timeout=t), lambda t: list(run.as_completed(t))):
        with pytest.raises(af.InvalidConfig) as caught:
            ask(timeout)
        assert caught.value.field == "timeout"
    with pytest.raises(af.InvalidConfig):
        sim.submit(sum, [1], commit_timeout=timeout)


def test_a_way_to_treat_errors_that_is_none_is_refused(sim):
    with pytest.raises(af.InvalidConfig, match="'raise', 'skip' or 'return'"):
        sim.submit(sum, [1]).results(errors="ignore")


# --- keys and values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [5, None, "\ud800"])
def test_a_key_that_is_no_text_is_refused(sim, key):
    client = sim.client("c1")
    for act in (lambda: client.set(key, 1), lambda: client.get(key), lambda: client.cas(key, None, 1)):
        refused(sim, af.InvalidConfig, None, act)


@pytest.mark.parametrize("value", [object(), 2**70, {1, (2,), object()}, "\ud800", {"a": [object()]}])
def test_a_value_that_is_not_plain_is_refused(sim, value):
    client = sim.client("c1")
    refused(sim, af.InvalidConfig, "plain data", lambda: client.set("x", value))
    refused(sim, af.InvalidConfig, "plain data", lambda: client.cas("x", value, 1))


@pytest.mark.parametrize("name", ["", 5, "master-1", "worker-1", "\ud800"])
def test_a_client_must_have_a_name_of_its_own(sim, name):
    refused(sim, af.InvalidConfig, None, lambda: sim.client(name))


def test_time_runs_forwards(sim):
    for seconds in (-1, "1", float("nan")):
        with pytest.raises(af.InvalidConfig):
            sim.run_for(seconds)
