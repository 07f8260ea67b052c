"""The command that makes trajectories: collect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atlas_tune.cli.options import (
    Json,
    Output,
    Settings,
    beside,
    keep_rejected,
    parse_options,
    tell,
    tell_rejected,
)
from atlas_tune.environments.habits import Habits
from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.progress import ticking

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atlas_tune.environments.base import TextEnv

_HABITS = Habits()
_FOR_EXPERTS = ("look", "slip", "detour")
_FOR_LOCAL = ("precision",)
_FOR_SERVED = (
    "served_model",
    "context_tokens",
    "concurrency",
    "api_key_env",
    "timeout",
    "retries",
    "params",
    "budget_usd",
    "prices",
)
_FOR_POLICIES = (
    "min_reward",
    "samples",
    "keep",
    "temperature",
    "max_steps",
    "batch_size",
    "max_new_tokens",
    "retry_errors",
    *_FOR_LOCAL,
    *_FOR_SERVED,
)
_EXPERT, _POLICY, _SERVER = "The expert", "A policy", "A policy on a server"


def _option(help_: str, panel: str, **limits: Any) -> Any:
    return typer.Option(help=help_, rich_help_panel=panel, **limits)


def collect(
    given: typer.Context,
    environment: Annotated[str, typer.Argument(help="The environment, see `atlas-tune envs`.")],
    output: Output,
    tasks: Annotated[int, typer.Option(min=1, help="How many tasks of the split.")] = 100,
    split: Annotated[str, typer.Option(help="The split they come from.")] = "train",
    seed: Annotated[int, typer.Option(help="Of the expert's habits, or the policy's samples.")] = 0,
    options: Settings = None,
    look: Annotated[float, _option("Habit: looking around, 0 to 1.", _EXPERT)] = _HABITS.look,
    slip: Annotated[float, _option("Habit: a slip, then repair.", _EXPERT)] = _HABITS.slip,
    detour: Annotated[float, _option("Habit: a needless action.", _EXPERT)] = _HABITS.detour,
    policy: Annotated[
        str | None,
        _option("A model instead of the expert: hub id, directory, GGUF file or URL.", _POLICY),
    ] = None,
    min_reward: Annotated[
        float | None,
        _option("Keep runs with this reward or more. By default the solved ones.", _POLICY),
    ] = None,
    samples: Annotated[int, _option("How often it acts in each task.", _POLICY, min=1)] = 4,
    keep: Annotated[
        int | None, _option("At most so many runs of a task; then it is done.", _POLICY, min=1)
    ] = None,
    temperature: Annotated[float, _option("Of its sampling; 0 is greedy.", _POLICY)] = 0.7,
    max_steps: Annotated[
        int | None, _option("Step limit; by default the environment's own.", _POLICY, min=1)
    ] = None,
    batch_size: Annotated[int, _option("Episodes at once.", _POLICY, min=1)] = 32,
    max_new_tokens: Annotated[int, _option("The longest reply.", _POLICY, min=1)] = 256,
    precision: Annotated[str, _option("float32 or bfloat16.", _POLICY)] = "bfloat16",
    retry_errors: Annotated[
        bool, _option("Play episodes again that broke off before.", _POLICY)
    ] = False,
    served_model: Annotated[str | None, _option("The model's name on the server.", _SERVER)] = None,
    context_tokens: Annotated[
        int | None, _option("The most tokens that the server's model reads.", _SERVER, min=1)
    ] = None,
    concurrency: Annotated[
        int, _option("Requests under way at once, at most.", _SERVER, min=1)
    ] = 32,
    api_key_env: Annotated[
        str, _option("The environment variable with the key.", _SERVER)
    ] = "OPENAI_API_KEY",
    timeout: Annotated[float, _option("Seconds of one reply.", _SERVER, min=0.001)] = 300.0,
    retries: Annotated[int, _option("Of a failing request.", _SERVER, min=0)] = 6,
    params: Annotated[str | None, _option("More fields, as JSON or YAML.", _SERVER)] = None,
    prices: Annotated[
        Path | None, _option("Prices that add to the shipped ones.", _SERVER, dir_okay=False)
    ] = None,
    budget_usd: Annotated[
        float | None, _option("What the replies may cost at most.", _SERVER)
    ] = None,
    as_json: Json = False,
) -> None:
    """Collect runs of an environment's expert, or the good runs of a policy.

    Of the expert the successful runs are kept. A policy (--policy) acts --samples times in each
    task, and the runs that reach --min-reward are kept; all of them stay in OUTPUT.samples, so the
    same command goes on after a kill, and another --min-reward plays nothing again.
    """
    from atlas_tune.agents.collect import first_tasks
    from atlas_tune.environments import make_environment

    if policy is None:
        _refuse(given, _FOR_POLICIES, "it is for a policy: name one with --policy")
        habits = _habits(look, slip, detour)
    else:
        _refuse(given, _FOR_EXPERTS, "it is a habit of the expert, and --policy acts instead")
    env = make_environment(environment)
    chosen = first_tasks(env, split, tasks, parse_options(options))
    if policy is None:
        _collect_expert(env, environment, chosen, seed, habits, output, as_json)
        return
    from atlas_tune.cli import sampling
    from atlas_tune.cli.policies import Served, is_served
    from atlas_tune.evaluate.sampling import Bar

    bar = Bar(min_reward, keep)
    wanted = sampling.Wanted(
        environment, chosen, max_steps or env.max_steps, batch_size, retry_errors
    )
    env.close()
    drawn = sampling.Drawn(temperature, seed, samples, max_new_tokens)
    directory = beside(output, ".samples")
    if is_served(policy):
        _refuse(given, _FOR_LOCAL, f"{policy} is a server, which decides it")
    else:
        _refuse(given, _FOR_SERVED, f"it is for a server, and {policy} is no address of one")
    served = Served(
        served_model=served_model,
        api_key_env=api_key_env,
        context_tokens=context_tokens,
        concurrency=concurrency,
        timeout=timeout,
        retries=retries,
        params=params,
        budget_usd=budget_usd,
        prices=prices,
    )
    sampled = sampling.sampled_runs(policy, served, precision, drawn, wanted, bar, directory)
    sampling.tell_sampled(sampled, directory, output, as_json)


def _refuse(given: typer.Context, names: Sequence[str], why: str) -> None:
    """Refuse options that would say nothing here.

    Raises:
        UsageError: one of them was given.
    """
    for name in names:
        source = given.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = name.replace("_", "-")
            raise UsageError(f"--{option} says nothing here: {why}.")


def _habits(look: float, slip: float, detour: float) -> Habits:
    try:
        return Habits(look, slip, detour)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _collect_expert(
    env: TextEnv,
    environment: str,
    chosen: Sequence[str],
    seed: int,
    habits: Habits,
    output: Path,
    as_json: bool,
) -> None:
    """Collect the successful runs of an environment's expert."""
    from atlas_tune.agents.collect import collect_expert_runs
    from atlas_tune.trajectory.quarantine import Rejected
    from atlas_tune.trajectory.store import write_trajectories

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
