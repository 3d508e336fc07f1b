from __future__ import annotations

import sys
import threading
import weakref

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import ObjectLost
from agentflow.objects import MemoryStore, ObjectStore, StoreStats


@pytest.fixture
def store():
    return MemoryStore()


def test_a_value_comes_back_as_it_is_however_unpicklable(store):
    assert isinstance(store, ObjectStore)
    lock = threading.Lock()
    store.put("k", lock)
    assert store.get("k") is lock


def test_none_is_a_value(store):
    store.put("k", None)
    assert "k" in store
    assert store.get("k") is None


@pytest.mark.parametrize("key", ["k", ("run-1", "load", 3)])
def test_a_value_that_is_not_there_is_lost_and_not_none(store, key):
    with pytest.raises(ObjectLost, match="not in the store") as lost:
        store.get(key)
    assert lost.value.key == key
    with pytest.raises(ObjectLost):
        store.size(key)
    assert store.delete(key) is False


def test_a_given_size_is_believed(store):
    assert store.put("k", object(), size=10**9) == 10**9
    assert store.size("k") == store.stats().bytes == 10**9


def test_a_deleted_value_is_let_go(store):
    class Big:
        pass

    value = Big()
    gone = weakref.ref(value)
    store.put("k", value)
    del value
    assert gone() is not None
    assert store.delete("k") is True
    assert gone() is None


def test_a_value_whose_end_uses_the_store_does_not_block_it(store):
    class Clingy:
        def __del__(self):
            store.put("last words", 1)

    store.put("k", Clingy())
    store.put("k", 2)
    store.put("j", Clingy())
    store.delete("j")
    assert store.get("last words") == 1


def frame():
    return pd.DataFrame({"x": [1, 2, 3]})


def test_no_task_sees_what_another_did_to_a_frame_in_place(store):
    made = frame()
    store.put("k", made)
    made.loc[0, "x"] = 99
    first, second = store.get("k"), store.get("k")
    first["y"] = 1
    first.loc[1, "x"] = 77
    pd.testing.assert_frame_equal(second, frame())
    pd.testing.assert_frame_equal(store.get("k"), frame())


@pytest.mark.parametrize("wrap", [lambda f: [f, 1], lambda f: (f, "x"), lambda f: {"a": f}])
def test_frames_in_a_list_a_tuple_or_a_dict_are_protected_too(store, wrap):
    store.put("k", wrap(frame()))
    for _ in range(2):
        got = store.get("k")
        assert type(got) is type(wrap(None))
        inner = got["a"] if isinstance(got, dict) else got[0]
        pd.testing.assert_frame_equal(inner, frame())
        inner.loc[0, "x"] = 55


def test_a_series_is_protected_and_its_data_are_not_copied(store):
    import numpy as np

    series = pd.Series(np.arange(1000.0))
    store.put("k", series)
    got = store.get("k")
    assert np.shares_memory(got.to_numpy(), series.to_numpy())
    got.iloc[0] = 5
    assert series.iloc[0] == 0


@given(st.lists(st.tuples(st.sampled_from("pdg"), st.sampled_from("abc"), st.integers(0, 100))))
def test_the_counts_are_those_of_a_dict(steps):
    store, model, seen = MemoryStore(), {}, {"p": 0, "g": 0, "d": 0, "lost": 0}
    for verb, key, size in steps:
        if verb == "p":
            store.put(key, size, size=size)
            model[key] = size
            seen["p"] += 1
        elif verb == "d":
            assert store.delete(key) == (model.pop(key, None) is not None)
            seen["d"] = store.stats().deletes
        elif key in model:
            assert store.get(key) == model[key]
            seen["g"] += 1
        else:
            with pytest.raises(ObjectLost):
                store.get(key)
            seen["lost"] += 1
    expected = StoreStats(len(model), sum(model.values()), seen["p"], seen["g"], seen["d"], seen["lost"])
    assert store.stats() == expected
    assert len(store) == len(model)


def test_many_threads_leave_the_sums_right(store):
    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:

        def work(number):
            for i in range(500):
                store.put((number, i % 7), i, size=i)
                store.get((number, i % 7))
                if i % 3 == 0:
                    store.delete((number, i % 7))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(old)
    stats = store.stats()
    assert stats.puts == stats.gets == 2000
    assert stats.bytes == sum(store.size((n, i)) for n in range(4) for i in range(7) if (n, i) in store)
