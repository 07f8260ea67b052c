"""Commands that tune a model and let it act."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atlas_tune.agents.local_model import DEFAULT_MODEL
from atlas_tune.cli.options import (
    TOLD,
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
from atlas_tune.errors import UsageError
from atlas_tune.progress import say, ticking

if TYPE_CHECKING:
    from atlas_tune.environments.base import TextEnv
    from atlas_tune.evaluate.rollouts import Rollout

_SERVER = "A model on a server"
"""The heading under which help shows what only such a model has."""

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
    model: Annotated[
        str, typer.Option(help="A hub id, a directory, a GGUF file, or a server's http://…/v1.")
    ] = DEFAULT_MODEL,
    split: Annotated[str, typer.Option(help="The split of the tasks.")] = "test",
    tasks: Annotated[int, typer.Option(min=1, help="How many tasks.")] = 100,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Step limit; by default the environment's own.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Episodes at once.")] = 32,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest reply.")] = 256,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "bfloat16",
    temperature: Annotated[float, typer.Option(min=0, help="Of sampling; 0 is greedy.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of sampling.")] = 0,
    prompt_file: Annotated[
        Path | None,
        typer.Option(
            help="What the agent is told instead of the model's or the environment's own "
            "instruction: a text, or a .json list of messages.",
            dir_okay=False,
        ),
    ] = None,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Run tasks again whose runs broke off.")
    ] = False,
    isolate: Annotated[
        bool, typer.Option("--isolate", help="Each environment in a process of its own.")
    ] = False,
    step_timeout: Annotated[
        float | None,
        typer.Option(help="With --isolate: seconds of a step or reset.", show_default="120"),
    ] = None,
    served_model: Annotated[
        str | None, typer.Option(help="The model, as its server names it.", rich_help_panel=_SERVER)
    ] = None,
    tools: Annotated[
        bool,
        typer.Option("--tools", help="Act by function calls, not ReAct.", rich_help_panel=_SERVER),
    ] = False,
    api_key_env: Annotated[
        str, typer.Option(help="The variable that holds the key.", rich_help_panel=_SERVER)
    ] = "OPENAI_API_KEY",
    context_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, help="What the model reads and writes at most.", rich_help_panel=_SERVER
        ),
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, help="Requests at once.", rich_help_panel=_SERVER)
    ] = 32,
    timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds of one reply.", rich_help_panel=_SERVER)
    ] = 300.0,
    retries: Annotated[
        int, typer.Option(min=0, help="Of a failing request.", rich_help_panel=_SERVER)
    ] = 6,
    params: Annotated[
        str | None, typer.Option(help="More fields, as JSON or YAML.", rich_help_panel=_SERVER)
    ] = None,
    budget_usd: Annotated[
        float | None, typer.Option(help="The most to spend, in USD.", rich_help_panel=_SERVER)
    ] = None,
    prices: Annotated[
        Path | None,
        typer.Option(
            help="Prices that add to the shipped ones.", dir_okay=False, rich_help_panel=_SERVER
        ),
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option(
            help="Keeps replies, so that none is paid twice.",
            dir_okay=False,
            rich_help_panel=_SERVER,
        ),
    ] = None,
    options: Settings = None,
    as_json: Json = False,
) -> None:
    """Let a model act in an environment; tasks on file are not run again.

    A task whose environment fails twice, or whose conversation outgrows the model, counts as a
    failure and is told (exit code 3); --retry-errors runs such tasks again.
    """
    from functools import partial

    from atlas_tune.agents.collect import first_tasks
    from atlas_tune.agents.opening import opening_of, read_prompt_file
    from atlas_tune.agents.rollout import PREFILL
    from atlas_tune.agents.style import REACT, TOOLS
    from atlas_tune.cli.policies import Served, acting, is_served, tell_usage
    from atlas_tune.environments import make_environment
    from atlas_tune.evaluate.rollouts import evaluate as run_evaluation

    if tools and not is_served(model):
        raise UsageError(
            "--tools is for a model on a server: models on this machine act by ReAct, as they "
            "were tuned."
        )
    if step_timeout is not None and not isolate:
        raise UsageError("--step-timeout needs --isolate: only a process of its own can be killed.")
    served = Served(
        served_model,
        api_key_env,
        context_tokens,
        concurrency,
        timeout,
        retries,
        params,
        budget_usd,
        prices,
        journal,
    )
    served.check(model)
    told = read_prompt_file(prompt_file, PREFILL) if prompt_file else None
    make: Callable[[], TextEnv] = partial(make_environment, environment)
    if isolate:
        from atlas_tune.environments.isolated import STEP_SECONDS, ProcessEnv

        make = partial(ProcessEnv, make, step_seconds=step_timeout or STEP_SECONDS)
    env = make()
    chosen = first_tasks(env, split, tasks, parse_options(options))
    limit = max_steps or env.max_steps
    env.close()
    with acting(model, served, max_new_tokens, precision) as actor:
        if told is None and actor.place is not None:
            told = opening_of(actor.place, environment)
        drawn = {"temperature": temperature, "seed": seed} if temperature else {}
        with ticking(f"evaluate on {environment}") as tick:
            rollouts = run_evaluation(
                make,
                chosen,
                lambda: actor.policies(seed, temperature),
                output,
                max_steps=limit,
                batch_size=batch_size,
                agent={"name": actor.name, "version": "unknown"},
                model={**actor.answers, **drawn},
                style=TOOLS if tools else REACT,
                opening=told,
                retry_errors=retry_errors,
                on_standing=lambda standing: tick(standing.ended, standing.of, str(standing)),
            )
        usage = actor.usage()
    if usage is not None:
        tell_usage(usage)
    _tell_rollouts(rollouts, output, usage, as_json)


def _tell_rollouts(
    rollouts: list[Rollout], output: Path, usage: dict[str, Any] | None, as_json: bool
) -> None:
    """Tell what came of an evaluation; ends with exit code 3 where runs broke off."""
    from atlas_tune.evaluate.statistics import wilson_interval

    successes = sum(r.success for r in rollouts)
    errors = [r for r in rollouts if r.error is not None]
    low, high = wilson_interval(successes, len(rollouts))
    summary = {
        "output": str(output),
        "tasks": len(rollouts),
        "successes": successes,
        "success_rate": successes / len(rollouts),
        "interval": [low, high],
        "mean_reward": sum(r.reward for r in rollouts) / len(rollouts),
        "errors": {r.task_id: r.error for r in errors},
        **({} if usage is None else {"usage": usage}),
    }
    tell(
        summary,
        as_json,
        f"{successes} of {len(rollouts)} solved: {summary['success_rate']:.1%} "
        f"(95% Wilson interval {low:.1%} to {high:.1%}), "
        f"mean reward {summary['mean_reward']:.3f}",
    )
    if errors:
        _tell_errors(errors, len(rollouts), output)
        raise typer.Exit(3)


def _tell_errors(errors: list[Rollout], of: int, output: Path) -> None:
    from atlas_tune.trajectory.visible import visible

    say(
        f"{len(errors)} of {of} runs broke off and count as failures; their lines in {output} say "
        "why. The same command with --retry-errors runs them again. The first:"
    )
    for rollout in errors[:TOLD]:
        say(visible(f"  {rollout.task_id}: {rollout.error}"))
