"""The command that makes trajectories: collect."""

from __future__ import annotations

from typing import Annotated

import typer

from atlas_tune.cli.options import (
    Json,
    Output,
    Settings,
    keep_rejected,
    parse_options,
    tell,
    tell_rejected,
)
from atlas_tune.environments.habits import Habits
from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.progress import ticking

_HABITS = Habits()


def collect(
    environment: Annotated[str, typer.Argument(help="The environment, see `atlas-tune envs`.")],
    output: Output,
    tasks: Annotated[int, typer.Option(min=1, help="How many tasks of the split.")] = 100,
    split: Annotated[str, typer.Option(help="The split they come from.")] = "train",
    seed: Annotated[int, typer.Option(help="Of the expert's habits.")] = 0,
    look: Annotated[float, typer.Option(help="Habit: looking around, 0 to 1.")] = _HABITS.look,
    slip: Annotated[float, typer.Option(help="Habit: a slip, then repair.")] = _HABITS.slip,
    detour: Annotated[float, typer.Option(help="Habit: a needless action.")] = _HABITS.detour,
    options: Settings = None,
    as_json: Json = False,
) -> None:
    """Collect runs of an environment's expert; only successful runs are kept."""
    from atlas_tune.agents.collect import collect_expert_runs, first_tasks
    from atlas_tune.environments import make_environment
    from atlas_tune.trajectory.quarantine import Rejected
    from atlas_tune.trajectory.store import write_trajectories

    try:
        habits = Habits(look, slip, detour)
    except ValueError as error:
        raise UsageError(str(error)) from error
    env = make_environment(environment)
    chosen = first_tasks(env, split, tasks, parse_options(options))
    with ticking(f"collect {environment}") as tick:
        collected = collect_expert_runs(
            env,
            chosen,
            seed=seed,
            habits=habits,
            on_run=lambda done, of: tick(done, of, "runs"),
        )
    failures = [
        Rejected(task, 0, 0, f"no expert run: {why}") for task, why in collected.failures.items()
    ]
    tell_rejected(failures)
    if not collected.trajectories:
        raise AtlasError(
            f"The expert solved none of the {len(chosen)} tasks, so there is nothing to write. "
            "Choose other tasks with --set, or let the expert stray less."
        )
    write_trajectories(output, collected.trajectories)
    summary = {
        "output": str(output),
        "trajectories": len(collected.trajectories),
        "steps": sum(len(t.agent_steps) for t in collected.trajectories),
        "failed": len(collected.failures),
    }
    tell(summary, as_json, "{trajectories} trajectories with {steps} steps in {output}")
    keep_rejected(output, failures)
