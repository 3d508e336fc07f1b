"""The pictures of the README are what the code draws today, and the README shows them."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
MAKE = ROOT / "notebooks" / "pictures" / "make.py"


def make(*options):
    return subprocess.run([sys.executable, str(MAKE), *options], capture_output=True, text=True, timeout=100)


def test_the_pictures_show_what_the_script_draws():
    done = make("--check")
    assert done.returncode == 0, done.stderr


def test_a_picture_of_something_else_or_in_other_colours_is_noticed():
    script = runpy.run_path(str(MAKE))
    panel, diagram = (
        (MAKE.parent / f"{name}.svg").read_text(encoding="utf-8") for name in ("cluster", "space-time")
    )
    assert script["alike"](panel, panel)
    assert not script["alike"](panel, diagram)
    assert not script["alike"](panel, panel.replace("#1b2430", "#000000"))


def test_the_readme_shows_pictures_that_are_there_and_says_what_is_on_them():
    shown = re.findall(r"!\[(.+)\]\((.+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(shown) >= 2
    for words, path in shown:
        assert (ROOT / path).is_file()
        assert len(words) > 20
