"""Import agentflow with one mistake in it.

With `AGENTFLOW_MUTANT=name` in the environment, importing this module makes later imports of agentflow
read the mutant's modules with its edits applied. Nothing on disk changes.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import CodeType, ModuleType

from catalogue import MUTANTS, Mutant


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, fullname: str, path: str, mutant: Mutant) -> None:
        super().__init__(fullname, path)
        self.mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path).decode()
        return compile(self.mutant.mutate(fullname, source), self.path, "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self.mutant.modules:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        assert spec is not None, f"{fullname} is not there"
        assert spec.origin is not None
        spec.loader = _Loader(fullname, spec.origin, self.mutant)
        return spec


name = os.environ.get("AGENTFLOW_MUTANT")
if name:
    mutant = MUTANTS[name]
    loaded = [module for module in mutant.modules if module in sys.modules]
    assert not loaded, f"{loaded} were imported before they could be changed"
    sys.meta_path.insert(0, _Finder(mutant))
