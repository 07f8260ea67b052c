"""Commands that make, read and write trajectories, and select their steps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from atlas_tune.cli.options import Json, Runs, Settings, parse_options, read_runs, tell
from atlas_tune.errors import UsageError
from atlas_tune.progress import say, ticking


def collect(
    environment: Annotated[str, typer.Argument(help="The environment, see `atlas-tune envs`.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The JSONL file to write.")],
    tasks: Annotated[int, typer.Option(min=1, help="How many tasks of the split.")] = 100,
    split: Annotated[str, typer.Option(help="The split they come from.")] = "train",
    seed: Annotated[int, typer.Option(help="Of the expert's habits.")] = 0,
    look: Annotated[float, typer.Option(min=0, max=1, help="Habit: looking around.")] = 0.3,
    slip: Annotated[float, typer.Option(min=0, max=1, help="Habit: a slip, then repair.")] = 0.15,
    detour: Annotated[float, typer.Option(min=0, max=1, help="Habit: a needless action.")] = 0.15,
    options: Settings = None,
    as_json: Json = False,
) -> None:
    """Collect runs of an environment's expert; only successful runs are kept."""
    from atlas_tune.agents.collect import collect_expert_runs, first_tasks
    from atlas_tune.environments import make_environment
    from atlas_tune.environments.habits import Habits
    from atlas_tune.trajectory.store import write_trajectories

    env = make_environment(environment)
    chosen = first_tasks(env, split, tasks, parse_options(options))
    with ticking(f"collect {environment}") as tick:
        collected = collect_expert_runs(
            env,
            chosen,
            seed=seed,
            habits=Habits(look, slip, detour),
            on_run=lambda done, of: tick(done, of, "runs"),
        )
    write_trajectories(output, collected.trajectories)
    for task, why in collected.failures.items():
        say(f"No run of {task}: {why}")
    summary = {
        "output": str(output),
        "trajectories": len(collected.trajectories),
        "steps": sum(len(t.agent_steps) for t in collected.trajectories),
        "failed": len(collected.failures),
    }
    tell(summary, as_json, "{trajectories} trajectories with {steps} steps in {output}")
    if collected.failures:
        raise typer.Exit(3)


def import_(
    source: Annotated[Path, typer.Argument(help="A JSONL file, plain or .gz or .xz.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The JSONL file to write.")],
    format_name: Annotated[
        str | None, typer.Option("--format", help="Force a format instead of detecting it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Import trajectories; records that cannot be read go to <output>.quarantine.jsonl."""
    from atlas_tune.trajectory.formats import read_file
    from atlas_tune.trajectory.store import Rejected, write_quarantine, write_trajectories

    rejected: list[Rejected] = []
    steps = 0

    def counted() -> Any:
        nonlocal steps
        for trajectory in read_file(source, format_name, rejected.append):
            steps += len(trajectory.agent_steps)
            yield trajectory

    count = write_trajectories(output, counted())
    summary = {
        "output": str(output),
        "trajectories": count,
        "steps": steps,
        "quarantined": len(rejected),
    }
    tell(summary, as_json, "{trajectories} trajectories with {steps} steps in {output}")
    if rejected:
        quarantine = output.with_name(output.name + ".quarantine.jsonl")
        write_quarantine(quarantine, rejected)
        for bad in rejected[:5]:
            say(str(bad))
        say(f"{len(rejected)} records could not be read; all of them with reasons: {quarantine}")
        raise typer.Exit(3)


def select(
    runs: Runs,
    output: Annotated[Path, typer.Option("-o", "--output", help="The selection file to write.")],
    selector: Annotated[str, typer.Option(help="Who says which steps are critical.")] = "replay",
    budget: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Largest share of a trajectory's steps.")
    ] = 0.3,
    labels: Annotated[
        Path | None,
        typer.Option(help="The labels sidecar.  [default: <output>.labels.jsonl]"),
    ] = None,
    of: Annotated[
        Path | None,
        typer.Option(help="For complement and random: the selection they are held against."),
    ] = None,
    options: Settings = None,
    as_json: Json = False,
) -> None:
    """Label steps and choose the critical ones; goes on where it was."""
    from atlas_tune.environments import make_environment
    from atlas_tune.llm import AnswerLog
    from atlas_tune.select import Context, make_selector
    from atlas_tune.select.stage import select_steps
    from atlas_tune.trajectory.store import read_selections

    if not budget:
        raise UsageError("A budget of 0 selects nothing: give a share above 0, at most 1.")
    sidecar = labels or output.with_name(output.name + ".labels.jsonl")
    built = make_selector(
        selector,
        parse_options(options),
        Context(
            share=budget,
            other=list(read_selections(of).values()) if of else None,
            answers=AnswerLog(sidecar.with_suffix(".answers.jsonl")),
            make_environment=make_environment,
        ),
    )
    trajectories, rejected = read_runs(runs)
    with ticking(f"select by {selector}") as tick:
        chosen, unlabelled = select_steps(
            trajectories,
            built,
            budget,
            sidecar,
            output,
            lambda done, of: tick(done, of, "trajectories"),
        )
    for missing in unlabelled[:5]:
        say(f"Trajectory {missing.trajectory_id[:12]} is unlabelled: {missing.reason}")
    summary = {
        "output": str(output),
        "labels": str(sidecar),
        "trajectories": len(chosen),
        "selected_steps": sum(len(s.step_ids) for s in chosen),
        "steps": sum(len(t.agent_steps) for t in trajectories),
        "unlabelled": [m.trajectory_id for m in unlabelled],
    }
    tell(summary, as_json, "{selected_steps} of {steps} steps selected in {output}")
    if unlabelled or rejected:
        raise typer.Exit(3)


def export(
    runs: Runs,
    output: Annotated[Path, typer.Option("-o", "--output", help="The JSONL file to write.")],
    selection: Annotated[
        Path | None, typer.Option(help="The selection; all steps carry loss without one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write trajectories as AgentGym's ShareGPT, with `loss` on the selected steps."""
    from atlas_tune.trajectory.exports import agentgym
    from atlas_tune.trajectory.store import read_selections, write_jsonl

    trajectories, rejected = read_runs(runs)
    chosen = None if selection is None else read_selections(selection)
    kept = [t for t in trajectories if chosen is None or t.trajectory_id in chosen]
    write_jsonl(
        output,
        (agentgym.write(t, None if chosen is None else chosen[t.trajectory_id]) for t in kept),
    )
    summary = {"output": str(output), "trajectories": len(kept)}
    tell(summary, as_json, "{trajectories} trajectories in {output}")
    say("AgentGym's own bc_trainer.py ignores `loss`; use a trainer that obeys it.")
    if rejected:
        raise typer.Exit(3)
