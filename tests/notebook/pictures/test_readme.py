"""The pictures of the README are what the code draws today, and the README shows them."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
MAKE = ROOT / "notebooks" / "pictures" / "make.py"


def make(*options):
    return subprocess.run([sys.executable, str(MAKE), *options], capture_output=True, text=True, timeout=100)


def test_the_pictures_are_what_the_script_draws():
    done = make("--check")
    assert done.returncode == 0, done.stderr


def test_the_readme_shows_pictures_that_are_there_and_says_what_is_on_them():
    shown = re.findall(r"!\[(.+)\]\((.+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(shown) >= 2
    for words, path in shown:
        assert (ROOT / path).is_file()
        assert len(words) > 20
