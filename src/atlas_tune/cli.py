"""The command line: one command per arrow of the design, each a few lines over one function.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some records were quarantined.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atlas_tune import __version__
from atlas_tune.errors import AtlasError, UsageError, nearest
from atlas_tune.progress import print_tables, say, ticking

if TYPE_CHECKING:
    from atlas_tune.trajectory import Trajectory

app = typer.Typer(
    help="Tune language-model agents on the critical steps of expert trajectories (ATLaS).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_PRECISIONS = ("float32", "bfloat16")

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Runs = Annotated[Path, typer.Argument(help="Trajectories, as collect or import write them.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="An option; the value is read as YAML."),
]


def _show_version(value: bool) -> None:
    if value:
        print(f"atlas-tune {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
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


@app.command()
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
    chosen = first_tasks(env, split, tasks, _options(options))
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
    _tell(summary, as_json, "{trajectories} trajectories with {steps} steps in {output}")
    if collected.failures:
        raise typer.Exit(3)


@app.command("import")
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
    _tell(summary, as_json, "{trajectories} trajectories with {steps} steps in {output}")
    if rejected:
        quarantine = output.with_name(output.name + ".quarantine.jsonl")
        write_quarantine(quarantine, rejected)
        for bad in rejected[:5]:
            say(str(bad))
        say(f"{len(rejected)} records could not be read; all of them with reasons: {quarantine}")
        raise typer.Exit(3)


@app.command()
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
        _options(options),
        Context(
            share=budget,
            other=list(read_selections(of).values()) if of else None,
            answers=AnswerLog(sidecar.with_suffix(".answers.jsonl")),
            make_environment=make_environment,
        ),
    )
    trajectories, rejected = _read(runs)
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
    _tell(summary, as_json, "{selected_steps} of {steps} steps selected in {output}")
    if unlabelled or rejected:
        raise typer.Exit(3)


@app.command()
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

    given = _options(options)
    for key in given:
        if key not in TuneSettings.model_fields:
            raise UsageError(
                f"There is no setting '{key}': {nearest(key, TuneSettings.model_fields)}"
            )
    trajectories, rejected = _read(runs)
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
    _tell(
        {"output": str(output), **figures},
        as_json,
        "{rows} rows, {supervised_tokens} supervised of {tokens} tokens, "
        "loss {first_loss:.3f} → {last_loss:.3f} in {seconds:.0f} s; model in {output}",
    )
    if rejected or figures["too_long"]:
        for trajectory_id in figures["too_long"][:5]:
            say(f"Trajectory {trajectory_id[:12]} has a row over max_tokens and was left out.")
        raise typer.Exit(3)


@app.command()
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
    chosen = first_tasks(env, split, tasks, _options(options))

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
    _tell(
        summary,
        as_json,
        f"{successes} of {len(rollouts)} solved: {summary['success_rate']:.1%} "
        f"(95% Wilson interval {low:.1%} to {high:.1%}), "
        f"mean reward {summary['mean_reward']:.3f}",
    )


@app.command()
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


@app.command()
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


@app.command()
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

    trajectories, rejected = _read(runs)
    chosen = None if selection is None else read_selections(selection)
    kept = [t for t in trajectories if chosen is None or t.trajectory_id in chosen]
    write_jsonl(
        output,
        (agentgym.write(t, None if chosen is None else chosen[t.trajectory_id]) for t in kept),
    )
    summary = {"output": str(output), "trajectories": len(kept)}
    _tell(summary, as_json, "{trajectories} trajectories in {output}")
    say("AgentGym's own bc_trainer.py ignores `loss`; use a trainer that obeys it.")
    if rejected:
        raise typer.Exit(3)


def _read(path: Path) -> tuple[Sequence[Trajectory], int]:
    """The good trajectories of a store; the bad ones are told and counted."""
    from atlas_tune.trajectory.store import Rejected, read_trajectories

    rejected: list[Rejected] = []
    trajectories = list(read_trajectories(path, rejected.append))
    for bad in rejected[:5]:
        say(str(bad))
    if not trajectories:
        raise AtlasError(f"{path} holds no trajectory. Make some with collect or import.")
    return trajectories, len(rejected)


def _options(pairs: Sequence[str] | None) -> dict[str, Any]:
    import yaml

    found = {}
    for pair in pairs or ():
        key, sign, value = pair.partition("=")
        if not sign:
            raise UsageError(f"--set takes KEY=VALUE, not '{pair}'.")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError(f"--set {pair}: the value is not YAML ({error}).") from error
    return found


def _tell(summary: dict[str, Any], as_json: bool, sentence: str) -> None:
    print(json.dumps(summary) if as_json else sentence.format(**summary))


def main() -> None:
    """Run the command line; a user's mistake is one sentence, never a traceback."""
    warnings.filterwarnings("ignore", module="transformers")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    # Our own progress is shown; the libraries' bars and advice would drown it.
    for variable, value in (("TQDM_DISABLE", "1"), ("TRANSFORMERS_VERBOSITY", "error")):
        os.environ.setdefault(variable, value)
    try:
        app()
    except UsageError as error:
        say(f"Error: {error}")
        sys.exit(2)
    except AtlasError as error:
        say(f"Error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("Stopped. The same command goes on where it was.")
        sys.exit(130)
