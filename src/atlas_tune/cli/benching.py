"""The command that runs a benchmark."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from atlas_tune.agents.local_model import DEFAULT_MODEL, model_digest, resolve_model
from atlas_tune.cli.options import Json
from atlas_tune.errors import UsageError, nearest
from atlas_tune.progress import print_tables, say, ticking

if TYPE_CHECKING:
    from rich.console import Group

    from atlas_tune.evaluate.benchmark import Benchmark
    from atlas_tune.evaluate.benchmark_run import BenchmarkResult


def benchmark(
    name: Annotated[
        str | None, typer.Argument(metavar="FILE_OR_NAME", help="A benchmark file, or a name.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The directory of the results.", file_okay=False),
    ] = None,
    model: Annotated[
        str, typer.Option(help="A hub id, a directory, or a GGUF file.")
    ] = DEFAULT_MODEL,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out environments that cannot run here.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Episodes at once.")] = 32,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest reply.")] = 256,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "bfloat16",
    prompt_file: Annotated[
        Path | None,
        typer.Option(
            help="What agents are told first, instead of what the model learnt with.",
            dir_okay=False,
        ),
    ] = None,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Run again what broke off in an earlier run.")
    ] = False,
    list_them: Annotated[
        bool, typer.Option("--list", help="List the shipped benchmarks and their parts.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Let a model act on all parts of a benchmark, greedily; what is done is not run again."""
    from atlas_tune.evaluate.benchmark import load_benchmark

    if list_them:
        _list(as_json)
        return
    if name is None or output is None:
        raise UsageError(
            "A benchmark needs its name or file, and -o with a directory for the results; "
            "--list lists the shipped ones."
        )
    _run(
        load_benchmark(name),
        output,
        model,
        skip_missing,
        batch_size,
        max_new_tokens,
        precision,
        prompt_file,
        retry_errors,
        as_json,
    )


def _run(
    chosen: Benchmark,
    output: Path,
    model: str,
    skip_missing: bool,
    batch_size: int,
    max_new_tokens: int,
    precision: str,
    prompt_file: Path | None,
    retry_errors: bool,
    as_json: bool,
) -> None:
    from atlas_tune.agents.making import LocalPolicies
    from atlas_tune.agents.opening import opening_of, read_prompt_file
    from atlas_tune.agents.rollout import PREFILL
    from atlas_tune.evaluate.benchmark_run import plan, run_benchmark
    from atlas_tune.evaluate.rollouts import Standing
    from atlas_tune.tune.settings import Precision

    if precision not in get_args(Precision):
        known = nearest(precision, get_args(Precision))
        raise UsageError(f"There is no precision '{precision}': {known}")
    given = read_prompt_file(prompt_file, PREFILL) if prompt_file else None
    planned = plan(chosen, skip_missing)
    for part, why in planned.left_out.items():
        say(f"Left out '{part}': {why}")
    place = resolve_model(model)
    policies = LocalPolicies(place, max_new_tokens, precision, overlong="drop")
    answers = {
        "model": model_digest(place),
        "max_new_tokens": max_new_tokens,
        "precision": precision,
    }
    with ticking(f"benchmark {chosen.name}") as tick:

        def show(part: str, standing: Standing) -> None:
            tick(standing.ended, standing.of, f"{part}: {standing}")

        result = run_benchmark(
            chosen,
            planned,
            lambda: policies(0, 0.0),
            output,
            batch_size=batch_size,
            agent={"name": Path(model).name, "version": "unknown"},
            model=answers,
            opening=lambda environment: given or opening_of(Path(place), environment),
            retry_errors=retry_errors,
            on_standing=show,
        )
    if as_json:
        print(json.dumps({"benchmark": chosen.name, "sha256": chosen.digest, **_json(result)}))
    else:
        print_tables(_tables(chosen, result))
    if any(score.errors for score in result.scores):
        raise typer.Exit(3)


def _json(result: BenchmarkResult) -> dict[str, Any]:
    return {
        "parts": [asdict(score) for score in result.scores],
        "means": [asdict(mean) for mean in result.means],
        "left_out": result.left_out,
    }


def _list(as_json: bool) -> None:
    from atlas_tune.evaluate.benchmark import load_benchmark, shipped

    found = [load_benchmark(name) for name in shipped()]
    if as_json:
        print(json.dumps([{**one.model_dump(mode="json"), "sha256": one.digest} for one in found]))
        return
    for one in found:
        print(f"{one.name} ({one.digest[:12]}): {one.description}")
        for part in one.environments:
            print(
                f"  {part.name}: {part.tasks} {part.split} tasks of {part.environment}, "
                f"{part.role}, {part.max_steps} steps at most, metric {part.metric}"
            )


def _tables(chosen: Benchmark, result: BenchmarkResult) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{chosen.name} ({chosen.digest[:12]})")
    for heading in ("environment", "role"):
        table.add_column(heading)
    for heading in ("tasks", "success", "score", "metric"):
        table.add_column(heading, justify="right")
    for one in result.scores:
        success = f"{one.success_rate:.1%} {_range(one.success_interval)}"
        score = f"{one.score:.3f} {_range(one.score_interval, percent=False)}"
        table.add_row(Text(one.name), one.role, str(one.tasks), success, score, one.metric)
    table.add_section()
    for mean in result.means:
        counted = "all" if mean.parts == mean.of else f"{mean.parts} of {mean.of}"
        score = f"{mean.score:.3f} {_range(mean.interval, percent=False)}"
        table.add_row(f"mean of {counted}", mean.role, "", "", score, "")
    lines = [
        Text(
            "Ranges are of 95%: Wilson's for success, t or score over tasks for rewards, and a "
            "bootstrap for means, which needs two tasks that differ.",
            style="dim",
        )
    ]
    lines += [
        Text(f"'{one.name}': {one.errors} runs broke off and count as failed; --retry-errors")
        for one in result.scores
        if one.errors
    ]
    lines += [
        Text(f"Left out: '{part}', which cannot run here: {why}")
        for part, why in result.left_out.items()
    ]
    return Group(table, *lines)


def _range(interval: tuple[float, float] | None, percent: bool = True) -> str:
    if interval is None:
        return "(–)"
    low, high = interval
    return f"({low:.1%}–{high:.1%})" if percent else f"({low:.3f}–{high:.3f})"
