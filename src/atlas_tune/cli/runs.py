"""Commands over whole runs."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atlas_tune.cli.options import Json
from atlas_tune.progress import print_tables, say

if TYPE_CHECKING:
    from atlas_tune.pipeline.plan import Planned


def run(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    directory: Annotated[
        Path | None, typer.Option("--dir", help="The run directory.", show_default="runs/<name>")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what is done and what the rest may take.")
    ] = False,
    report_only: Annotated[
        bool,
        typer.Option("--report", help="Run nothing: write the report on what is done by now."),
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(help="A part of it: arm=…, seed=… or environment=…; may be repeated."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a recipe from end to end; what is done already is skipped."""
    from atlas_tune.pipeline import Experiment, Layout, Manifest, Only, report_recipe, run_recipe
    from atlas_tune.pipeline.plan import plan as plan_of
    from atlas_tune.recipe import load_recipe
    from atlas_tune.report import load_results, to_console

    loaded = load_recipe(recipe)
    place = directory or Path("runs") / loaded.name
    part = Only.parse(only or [], loaded)
    if plan:
        _tell_plan(plan_of(Experiment(loaded, Layout(place), Manifest(place)), part), as_json)
        return
    command = shlex.join(["atlas-tune", *sys.argv[1:]])
    if report_only:
        index = report_recipe(loaded, place)
    else:
        index = run_recipe(loaded, recipe, place, command, part)
    results = load_results(index.parent / "results.json")
    if as_json:
        print(results.model_dump_json())
    else:
        print_tables(to_console(results))
        say(f"Report: {index}")
    if results.quarantined:
        raise typer.Exit(3)


def _tell_plan(planned: list[Planned], as_json: bool) -> None:
    from atlas_tune.pipeline.manifest import State
    from atlas_tune.pipeline.plan import remaining
    from atlas_tune.report.wording import duration

    if as_json:
        print(json.dumps([asdict(one) for one in planned]))
        return
    widest = max(len(one.name) for one in planned)
    for one in planned:
        about = "" if one.seconds is None else f"  about {duration(one.seconds)}"
        print(f"{one.name:{widest}}  {one.state}{about}")
    done = sum(one.state is State.DONE for one in planned)
    seconds, unknown = remaining(planned)
    left = f"about {duration(seconds)} left" if seconds or not unknown else "none timed yet"
    if unknown:
        left += f", and {unknown} stages of which no like was done here"
    print(f"{done} of {len(planned)} stages done; {left}.")


def report(
    directory: Annotated[
        Path, typer.Argument(help="A run directory, or one that holds a results.json.")
    ],
    markdown: Annotated[bool, typer.Option(help="Print the tables as Markdown.")] = False,
    brief: Annotated[
        bool, typer.Option(help="With --markdown: the statements and the main table alone.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Judge results again from their scores of tasks, write their report, and print its table."""
    from atlas_tune.report import load_results, to_console, to_markdown, write_report
    from atlas_tune.report.compared import restated

    place = directory if (directory / "results.json").is_file() else directory / "report"
    results = restated(load_results(place / "results.json"))
    index = write_report(results, place)
    if as_json:
        print(results.model_dump_json())
    elif markdown:
        print(to_markdown(results, brief=brief))
    else:
        print_tables(to_console(results))
        say(f"Report: {index}")
