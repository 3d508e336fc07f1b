"""The shape of the house: what may import what, what stays light, and what is promised by name."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import agentflow

PACKAGE = Path(agentflow.__file__).parent
HEAVY = ("pandas", "numpy", "networkx", "IPython", "ipywidgets", "anywidget", "sqlalchemy", "graphviz")
FORBIDDEN = {
    "asyncio",
    "socket",
    "threading",
    "time",
    "subprocess",
    "sqlite3",
    "ssl",
    "uuid",
    "secrets",
    "os",
}
PURE = sorted([*(PACKAGE / "core").rglob("*.py"), *(PACKAGE / "check").rglob("*.py")])


def test_importing_agentflow_stays_light():
    code = f"import agentflow, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_making_a_cluster_needs_none_of_the_heavy_packages():
    code = (
        "import agentflow as af, sys\n"
        "with af.Cluster(masters=1, workers=1) as c:\n"
        "    assert c.submit(pow, 2, 3).result(timeout=20) == 8\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", agentflow.__all__)
def test_every_promised_name_is_there(name):
    assert getattr(agentflow, name) is not None


def test_every_error_imports_from_the_top():
    errors = importlib.import_module("agentflow.errors")
    assert set(errors.__all__) <= set(agentflow.__all__)


@pytest.mark.parametrize("path", PURE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_pure_layers_read_no_clock_and_open_nothing(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        for name in names:
            assert name.partition(".")[0] not in FORBIDDEN, f"{path.name} imports {name}"
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            called = f"{node.func.value.id}.{node.func.attr}"
            if called.startswith("random.") and called != "random.Random":
                pytest.fail(f"{path.name} draws from the process's own randomness: {called}")


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(PACKAGE.rglob("*.py")) if path.stat().st_size],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_every_module_says_what_it_is_for_and_stays_a_small_room(path):
    source = path.read_text()
    assert ast.get_docstring(ast.parse(source)), "a module opens with what it is for"
    assert source.count("\n") <= 620, "look for the second idea"


def test_the_layers_are_kept():
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))],
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
