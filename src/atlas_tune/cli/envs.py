"""The command that tells which environments can be used here and now: envs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atlas_tune.cli.options import Json
from atlas_tune.progress import print_tables, say

if TYPE_CHECKING:
    from rich.table import Table

    from atlas_tune.environments.base import TextEnv

_UNCOUNTED = "?"


def envs(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Only these; an agentgym: address is asked. By default all of ours."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the environments that can be used here, and what the others lack.

    Told are the splits with their tasks, the step limit and the metric. Nothing is started for it.
    """
    from atlas_tune.environments import ENVIRONMENT_NAMES, check_environment

    wanted = tuple(names or ENVIRONMENT_NAMES)
    for name in wanted:
        check_environment(name)
    found = [describe(name) for name in wanted]
    if as_json:
        print(json.dumps(found))
        return
    if usable := [entry for entry in found if entry["available"]]:
        print_tables(_table(usable))
    for entry in found:
        if not entry["available"]:
            say(f"{entry['name']}: not available. {entry['missing']}")
    if any(count is None for entry in usable for count in entry["tasks"].values()):
        say(f"{_UNCOUNTED}: counted when the environment is first used.")
    if not names:
        say(f"On an AgentGym server: agentgym:<dialect>@http://host:port ({_dialects()}).")


def describe(name: str) -> dict[str, Any]:
    """What can be told of an environment without starting it, as JSON values.

    Always ``name`` and ``available``. Where it is available: ``tasks`` (by split how many, null
    where counting them takes long or needs an option), ``max_steps`` and ``metric``. Where it is
    not: ``missing``, a sentence that says what is missing and how to get it.
    """
    from atlas_tune.environments import make_environment
    from atlas_tune.errors import AtlasError

    try:
        env = make_environment(name)
    except AtlasError as error:
        return {"name": name, "available": False, "missing": str(error)}
    except ImportError as error:
        # Installed and broken; the other environments are there all the same.
        missing = f"A package that it needs cannot be imported ({error}): install it again."
        return {"name": name, "available": False, "missing": missing}
    return {
        "name": name,
        "available": True,
        "tasks": {split: _count(env, split) for split in env.splits},
        "max_steps": env.max_steps,
        "metric": env.metric,
    }


def _count(env: TextEnv, split: str) -> int | None:
    """How many tasks a split has; None where that cannot be told at once."""
    from atlas_tune.errors import UsageError

    if not env.lists_tasks_at_once:
        return None
    try:
        return len(env.tasks(split))
    except UsageError:  # An AgentGym server lists no tasks.
        return None


def _dialects() -> str:
    from atlas_tune.environments.agentgym.dialects import DIALECTS

    return ", ".join(sorted(DIALECTS))


def _table(entries: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table("environment", "tasks", "step limit", "metric", box=None, pad_edge=False)
    for entry in entries:
        counts = (
            f"{split} {_UNCOUNTED if count is None else format(count, ',')}"
            for split, count in entry["tasks"].items()
        )
        table.add_row(
            entry["name"], ", ".join(counts), str(entry["max_steps"]), str(entry["metric"])
        )
    return table
