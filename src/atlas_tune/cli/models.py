"""Commands that tune a model and let it act."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from atlas_tune.agents.local_model import DEFAULT_MODEL, model_digest, resolve_model
from atlas_tune.cli.options import (
    Json,
    Output,
    Runs,
    Settings,
    keep_rejected,
    parse_options,
    read_runs,
    read_selection,
    tell,
    tell_rejected,
)
from atlas_tune.errors import UsageError, nearest
from atlas_tune.progress import ticking

Model = Annotated[str, typer.Option(help="A hub id, a directory, or a GGUF file.")]


def tune(
    runs: Runs,
    selection: Annotated[
        Path, typer.Option(help="The selection: which steps carry loss.", dir_okay=False)
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The model directory.", file_okay=False)
    ],
    model: Model = DEFAULT_MODEL,
    seed: Annotated[int, typer.Option(help="Of the order of rows.")] = 0,
    options: Settings = None,
    as_json: Json = False,
) -> None:
    """Tune a model on the selected steps; a killed run goes on from its last checkpoint.

    Several devices: torchrun --nproc-per-node 8 -m atlas_tune tune …

    Options of --set are those of the recipe's `tune`, such as learning_rate=1e-5.
    """
    from atlas_tune.checked import checked
    from atlas_tune.recipe import SEED_LIMIT
    from atlas_tune.trajectory.quarantine import Rejected
    from atlas_tune.trajectory.sidecars import labels_beside
    from atlas_tune.trajectory.store import read_labels
    from atlas_tune.tune.settings import TuneSettings
    from atlas_tune.tune.stage import tune_model

    if not 0 <= seed <= SEED_LIMIT:
        raise UsageError(f"A seed is a whole number from 0 to {SEED_LIMIT}, not {seed}.")
    try:
        settings = checked(TuneSettings, parse_options(options))
    except UsageError as error:
        raise UsageError(f"--set: {error}") from error
    trajectories, rejected = read_runs(runs)
    selections, strays = read_selection(selection, runs, trajectories)
    sidecar = labels_beside(selection)
    with ticking("tune") as tick:
        figures = tune_model(
            model,
            trajectories,
            selections,
            settings,
            output,
            seed,
            lambda step, of, loss: tick(step, of, f"steps, loss {loss:.3f}"),
            read_labels(sidecar) if sidecar.is_file() else (),
        )
    if os.environ.get("RANK", "0") != "0":
        return  # the first of torchrun's processes speaks for all
    tell(
        {"output": str(output), **figures},
        as_json,
        "{rows} rows, {supervised_tokens} supervised of {tokens} tokens, "
        "loss {first_loss:.3f} → {last_loss:.3f} in {seconds:.0f} s; "
        "{left_out} trajectories without a selected step left out; model in {output}",
    )
    reason = f"longer than {settings.max_tokens} tokens, so not trained"
    too_long = [
        Rejected(str(runs), 0, 0, reason, trajectory_id)
        for trajectory_id in dict.fromkeys(figures["too_long"])
    ]
    refused = [
        Rejected(str(runs), 0, 0, why, trajectory_id)
        for trajectory_id, why in figures["refused"].items()
    ]
    tell_rejected([*too_long, *refused])
    keep_rejected(output, [*rejected, *strays, *too_long, *refused])


def evaluate(
    environment: Annotated[str, typer.Option("--env", help="The environment.")],
    output: Output,
    model: Model = DEFAULT_MODEL,
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
    from atlas_tune.tune.settings import Precision

    if precision not in get_args(Precision):
        known = nearest(precision, get_args(Precision))
        raise UsageError(f"There is no precision '{precision}': {known}")
    env = make_environment(environment)
    chosen = first_tasks(env, split, tasks, parse_options(options))
    place = resolve_model(model)
    answers = {
        "model": model_digest(place),
        "max_new_tokens": max_new_tokens,
        "precision": precision,
    }

    def policy() -> Any:
        from atlas_tune.agents.local_policy import load_policy

        return load_policy(place, max_new_tokens, precision)

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
            agent={"name": Path(model).name, "version": "unknown"},
            model=answers,
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
