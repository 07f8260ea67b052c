"""Commands over whole runs."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from atlas_tune.cli.options import Json
from atlas_tune.errors import AtlasError
from atlas_tune.progress import print_tables, say


def run(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    directory: Annotated[
        Path | None, typer.Option("--dir", help="The run directory.  [default: runs/<name>]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a recipe from end to end; what is done already is skipped."""
    from atlas_tune.pipeline import run_recipe
    from atlas_tune.recipe import load_recipe
    from atlas_tune.report import load_results, to_console

    loaded = load_recipe(recipe)
    command = shlex.join(["atlas-tune", *sys.argv[1:]])
    index = run_recipe(loaded, recipe, directory or Path("runs") / loaded.name, command)
    results = load_results(index.parent / "results.json")
    if as_json:
        print(results.model_dump_json())
    else:
        print_tables(to_console(results))
        say(f"Report: {index}")
    if results.quarantined:
        raise typer.Exit(3)


def report(
    directory: Annotated[Path, typer.Argument(help="A run directory with report/results.json.")],
    markdown: Annotated[bool, typer.Option(help="Print the tables as Markdown.")] = False,
    as_json: Json = False,
) -> None:
    """Write a finished run's report again from its results.json, and print its table."""
    from atlas_tune.report import load_results, to_console, to_markdown, write_report

    results = load_results(directory / "report" / "results.json")
    index = write_report(results, directory / "report")
    if as_json:
        print(results.model_dump_json())
    elif markdown:
        print(to_markdown(results))
    else:
        print_tables(to_console(results))
        say(f"Report: {index}")


def envs(as_json: Json = False) -> None:
    """List the environments, their splits and their step limits."""
    from atlas_tune.environments import ENVIRONMENT_NAMES, make_environment

    listed: list[dict[str, Any]] = []
    for name in ENVIRONMENT_NAMES:
        try:
            env = make_environment(name)
        except AtlasError as error:
            listed.append({"name": name, "missing": str(error)})
            continue
        tasks = {split: len(env.tasks(split)) for split in env.splits}
        listed.append(
            {"name": name, "tasks": tasks, "max_steps": env.max_steps, "metric": env.metric}
        )
    if as_json:
        print(json.dumps(listed))
        return
    for entry in listed:
        if "missing" in entry:
            print(f"{entry['name']}: not available. {entry['missing']}")
            continue
        counts = ", ".join(f"{count} {split} tasks" for split, count in entry["tasks"].items())
        limit = f"{entry['max_steps']} steps at most"
        print(f"{entry['name']}: {counts}; {limit}; metric {entry['metric']}")
