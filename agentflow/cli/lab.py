"""`agentflow lab`: the notebooks in a folder of your own, and JupyterLab open on them.

Law: a notebook that you changed is never overwritten.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import typer

import agentflow

FOLDER: Final = "agentflow-notebooks"
FIRST: Final = "00_quickstart.ipynb"


def notebooks_folder() -> Path:
    """Where the notebooks are: within an installed package, or beside it in a checkout.

    Examples
    --------
    >>> (notebooks_folder() / FIRST).exists()
    True
    """
    package = Path(agentflow.__file__).resolve().parent
    shipped = package / "notebook" / "shipped"
    return shipped if shipped.is_dir() else package.parent / "notebooks"


def lay_out(folder: Path) -> tuple[list[str], list[str]]:
    """Copy what is missing; give the names of what was copied, and of what differs and was left alone."""
    source = notebooks_folder()
    folder.mkdir(parents=True, exist_ok=True)
    copied, kept = [], []
    for path in sorted(source.glob("*.ipynb")):
        target = folder / path.name
        if not target.exists():
            shutil.copyfile(path, target)
            copied.append(target.name)
        elif target.read_bytes() != path.read_bytes():
            kept.append(target.name)
    return copied, kept


def split_words(words: Sequence[str]) -> tuple[Path, list[str]]:
    """The folder, if it comes first, and what is meant for JupyterLab.

    Examples
    --------
    >>> split_words(["course", "--no-browser"]), split_words(["--no-browser"])
    ((PosixPath('course'), ['--no-browser']), (PosixPath('agentflow-notebooks'), ['--no-browser']))
    """
    if words and not words[0].startswith("-"):
        return Path(words[0]), list(words[1:])
    return Path(FOLDER), list(words)


def run_lab(folder: Path, options: Sequence[str]) -> int:
    """Lay the notebooks out and run JupyterLab until it ends; give its exit status."""
    if folder.exists() and not folder.is_dir():
        typer.echo(f"{folder} is a file; give a folder for the notebooks", err=True)
        return 2
    copied, kept = lay_out(folder)
    said = [f"{len(copied)} new" if copied else "nothing new"]
    if kept:
        said.append(f"left as you changed them: {', '.join(kept)}")
    typer.echo(f"notebooks in {folder}: {'; '.join(said)}")
    first = (
        []
        if any("default_url" in option for option in options)
        else [f"--LabApp.default_url=/lab/tree/{FIRST}"]
    )
    command = [sys.executable, "-m", "jupyterlab", str(folder), *first, *options]
    server = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    while True:
        try:
            return server.wait()
        except KeyboardInterrupt:
            # The server heard it too, asks whether it is meant, and ends by itself.
            continue
