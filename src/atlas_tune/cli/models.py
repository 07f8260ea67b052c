"""Commands that tune a model and let it act."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from atlas_tune.cli.options import Json, Runs, Settings, parse_options, read_runs, tell
from atlas_tune.errors import UsageError, nearest
from atlas_tune.progress import say, ticking

_PRECISIONS = ("float32", "bfloat16")


def tune(
    runs: Runs,
    selection: Annotated[Path, typer.Option(help="The selection: which steps carry loss.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The model directory.")],
    model: Annotated[str, typer.Option(help="A hub id, a directory, or a GGUF file.")] = "",
    seed: Annotated[int, typer.Option(help="Of the order of rows.")] = 0,
    options: Settings = None,
    as_json: Json = False,
) -> None:
    """Tune a model on the selected steps; a killed run goes on from its last checkpoint.

    Options of --set are those of the recipe's `tune`, such as learning_rate=1e-5.
    """
    from atlas_tune.recipe import DEFAULT_MODEL
    from atlas_tune.trajectory.store import read_selections
    from atlas_tune.tune.settings import TuneSettings
    from atlas_tune.tune.stage import tune_model

    given = parse_options(options)
    for key in given:
        if key not in TuneSettings.model_fields:
            raise UsageError(
                f"There is no setting '{key}': {nearest(key, TuneSettings.model_fields)}"
            )
    trajectories, rejected = read_runs(runs)
    with ticking("tune") as tick:
        figures = tune_model(
            model or DEFAULT_MODEL,
            trajectories,
            read_selections(selection),
            TuneSettings.model_validate(given),
            output,
            seed,
            lambda step, of, loss: tick(step, of, f"steps, loss {loss:.3f}"),
        )
    tell(
        {"output": str(output), **figures},
        as_json,
        "{rows} rows, {supervised_tokens} supervised of {tokens} tokens, "
        "loss {first_loss:.3f} → {last_loss:.3f} in {seconds:.0f} s; model in {output}",
    )
    if rejected or figures["too_long"]:
        for trajectory_id in figures["too_long"][:5]:
            say(f"Trajectory {trajectory_id[:12]} has a row over max_tokens and was left out.")
        raise typer.Exit(3)


def evaluate(
    environment: Annotated[str, typer.Option("--env", help="The environment.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The rollouts file.")],
    model: Annotated[str, typer.Option(help="A hub id, a directory, or a GGUF file.")] = "",
    split: Annotated[str, typer.Option(help="The split of the tasks.")] = "test",
    tasks: Annotated[int, typer.Option(min=1, help="How many tasks.")] = 100,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Step limit.  [default: AgentGym's]")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Episodes at once.")] = 32,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest reply.")] = 256,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "bfloat16",
    options: Settings = None,
    as_json: Json = False,
) -> None:
    """Let a model act in an environment, greedily; tasks on file are not run again."""
    from atlas_tune.agents.collect import first_tasks
    from atlas_tune.agents.rollout import Episode
    from atlas_tune.environments import make_environment
    from atlas_tune.evaluate.rollouts import evaluate as run_evaluation
    from atlas_tune.evaluate.statistics import wilson_interval
    from atlas_tune.recipe import DEFAULT_MODEL

    if precision not in _PRECISIONS:
        raise UsageError(f"There is no precision '{precision}': {nearest(precision, _PRECISIONS)}")
    env = make_environment(environment)
    chosen = first_tasks(env, split, tasks, parse_options(options))

    def policy() -> Any:
        from atlas_tune.agents.local_policy import load_policy

        return load_policy(model or DEFAULT_MODEL, max_new_tokens, precision)

    with ticking(f"evaluate on {environment}") as tick:

        def show(done: int, episodes: list[Episode]) -> None:
            ended = done + sum(e.ended for e in episodes)
            tick(ended, len(chosen), f"tasks ended, {sum(e.success for e in episodes)} solved")

        rollouts = run_evaluation(
            lambda: make_environment(environment),
            chosen,
            policy,
            output,
            max_steps=max_steps or env.max_steps,
            batch_size=batch_size,
            agent={"name": Path(model or DEFAULT_MODEL).name, "version": "unknown"},
            on_turn=show,
        )
    successes = sum(r.success for r in rollouts)
    low, high = wilson_interval(successes, len(rollouts))
    summary = {
        "output": str(output),
        "tasks": len(rollouts),
        "successes": successes,
        "success_rate": successes / len(rollouts),
        "interval": [low, high],
        "mean_reward": sum(r.reward for r in rollouts) / len(rollouts),
    }
    tell(
        summary,
        as_json,
        f"{successes} of {len(rollouts)} solved: {summary['success_rate']:.1%} "
        f"(95% Wilson interval {low:.1%} to {high:.1%}), "
        f"mean reward {summary['mean_reward']:.3f}",
    )
