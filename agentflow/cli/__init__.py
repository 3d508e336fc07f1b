"""The command line: `agentflow demo` and its siblings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentflow import __version__

app = typer.Typer(
    name="agentflow",
    help="A cluster you can hold in a notebook.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"agentflow {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """A cluster you can hold in a notebook."""


@app.command()
def demo(
    faults: Annotated[bool, typer.Option(help="Kill the leader and a worker while it runs.")] = True,
    seed: Annotated[int, typer.Option(help="Fixes the election time-outs and which worker dies.")] = 0,
    masters: Annotated[int, typer.Option(help="How many masters.")] = 3,
    workers: Annotated[int, typer.Option(help="How many workers.")] = 4,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write all of it to this .html file, which needs no network.")
    ] = None,
) -> None:
    """Find out what this interpreter's standard library leans on, and survive a killed leader on the way."""
    from agentflow.cli.demo import run_demo

    raise typer.Exit(
        run_demo(faults=faults, seed=seed, masters=masters, workers=workers, as_json=json, report=report)
    )


@app.command(context_settings={"ignore_unknown_options": True})
def lab(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DIR] [OPTIONS OF JUPYTERLAB]...", help="Where the notebooks go, and the rest."
        ),
    ] = None,
) -> None:
    """Put the notebooks into DIR (`agentflow-notebooks` unless given) and open JupyterLab on them.

    What you changed there stays. Options, such as --no-browser, are passed on to JupyterLab.
    """
    from agentflow.cli.lab import run_lab, split_words

    raise typer.Exit(run_lab(*split_words(words or [])))


@app.command()
def fuzz(
    seeds: Annotated[str, typer.Option(help="Which: A:B is from A up to, and without, B.")] = "0:100",
    masters: Annotated[
        int | None, typer.Option(help="How many masters; by default 3 or 5, as the seed draws.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Virtual seconds of each run.")] = 30.0,
    nemesis: Annotated[
        str, typer.Option(help="What breaks: kinds of fault with commas between them, all, or none.")
    ] = "all",
    processes: Annotated[
        int | None, typer.Option(help="How many processes; by default one a processor.")
    ] = None,
    nightly: Annotated[bool, typer.Option("--nightly", help="As many seeds as a night is long.")] = False,
    shrink: Annotated[
        bool, typer.Option("--shrink", help="Look for fewer faults that break what was broken.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Let simulated clusters run under faults, a seed each, and judge everything that was promised."""
    from agentflow.cli.fuzz import run_fuzz
    from agentflow.labs.fuzzing import Fuzz

    settings = Fuzz(masters, seconds, nemesis)
    raise typer.Exit(
        run_fuzz(
            seeds=seeds, fuzz=settings, processes=processes, nightly=nightly, shrink=shrink, as_json=json
        )
    )


def main() -> None:
    """Run the command line."""
    app()
