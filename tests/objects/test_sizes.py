from __future__ import annotations

import subprocess
import sys
import time
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from agentflow.objects import size_bytes
from agentflow.objects.sizes import is_pandas


@pytest.mark.parametrize("value", [None, True, 3, 2.5, "text", b"raw", object(), len, print, int, iter([1])])
def test_a_plain_value_is_as_large_as_python_says(value):
    assert size_bytes(value) == sys.getsizeof(value)


@pytest.mark.parametrize(
    ("value", "held"),
    [
        (np.zeros(1_000_000), 8_000_000),
        (memoryview(bytes(5000)), 5000),
        ([np.zeros(1000)] * 100, 800_000),
        ({i: bytes(1000) for i in range(500)}, 500_000),
        ({"a": {"b": [np.zeros(10_000)]}}, 80_000),
        ((bytes(100_000), 1), 100_000),
        (pd.DataFrame({"x": np.zeros(10_000), "y": np.zeros(10_000)}), 160_000),
        (pd.Series(np.zeros(10_000)), 80_000),
        (pd.DataFrame(np.zeros((100, 1000))), 800_000),
        (pd.DataFrame({"s": pd.Series(["x" * 1000] * 1000, dtype=object), "n": range(1000)}), 1_050_000),
        (pd.DataFrame({"c": pd.Categorical(["a", "b"] * 5000)}), 10_000),
        (pd.DataFrame({"t": pd.date_range("2020", periods=10_000, tz="UTC")}), 80_000),
    ],
)
def test_a_container_is_about_as_large_as_what_it_holds(value, held):
    assert held <= size_bytes(value) <= 1.3 * held + 5000


def test_an_object_counts_its_attributes():
    class Model:
        def __init__(self):
            self.weights = np.zeros(10_000)

    assert size_bytes(Model()) > 80_000


def test_a_value_that_lies_or_breaks_is_still_measured():
    class Broken:
        @property
        def nbytes(self):
            raise RuntimeError("no")

    class Negative:
        nbytes = -5

    class Huge:
        def __sizeof__(self):
            raise RuntimeError("no")

    assert size_bytes(Broken()) > 0
    assert size_bytes(Negative()) > 0
    assert size_bytes(Huge()) > 0
    assert size_bytes([Huge()] * 3) > 0


def test_a_value_that_contains_itself_is_measured():
    loop: list = [1]
    loop.append(loop)
    assert size_bytes(loop) > 0


def test_nothing_is_consumed():
    numbers = iter([1, 2, 3])
    size_bytes([numbers])
    assert list(numbers) == [1, 2, 3]


def test_a_large_nest_is_measured_at_once():
    nest = [[[list(range(50)) for _ in range(50)] for _ in range(50)] for _ in range(20)]
    start = time.process_time()
    for _ in range(10):
        size_bytes(nest)
    assert time.process_time() - start < 0.1


def test_measuring_does_not_import_pandas():
    code = "import sys; from agentflow.objects import MemoryStore; s = MemoryStore(); s.put('k', [1]); s.get('k');"
    code += "assert not {'pandas', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_module_that_another_thread_is_still_importing_is_no_reason_to_fail(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", ModuleType("pandas"))
    assert not is_pandas(object())
    assert size_bytes([object()]) > 0
