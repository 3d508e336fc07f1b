"""Every mutant still fits the core it is made for, so that none of them silently becomes the original."""

import importlib.util
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[2] / "mutants"


def _load():
    spec = importlib.util.spec_from_file_location("mutant_catalogue", HERE / "catalogue.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


catalogue = _load()


@pytest.mark.parametrize("mutant", catalogue.MUTANTS.values(), ids=catalogue.MUTANTS)
def test_a_mutant_can_be_applied_and_differs_from_the_original(mutant):
    for module in mutant.modules:
        source = Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8")
        changed = mutant.mutate(module, source)
        assert changed != source
        compile(changed, module, "exec")


def test_every_classic_mistake_has_its_mutant():
    assert {mutant.mistake for mutant in catalogue.MUTANTS.values()} == set(range(1, 28))
