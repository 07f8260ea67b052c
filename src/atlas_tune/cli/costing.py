"""The command that tells what a training will cost: cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atlas_tune.agents.local_model import DEFAULT_MODEL
from atlas_tune.cli.models import Model
from atlas_tune.cli.options import (
    Json,
    Runs,
    Settings,
    parse_options,
    read_runs,
    read_selection,
)
from atlas_tune.errors import UsageError, nearest
from atlas_tune.progress import print_tables, say

if TYPE_CHECKING:
    from atlas_tune.tune.cost import Cost


def cost(
    runs: Runs,
    selection: Annotated[
        Path, typer.Option(help="The selection: which steps carry loss.", dir_okay=False)
    ],
    model: Model = DEFAULT_MODEL,
    shape: Annotated[
        str | None,
        typer.Option(
            help="Count for this architecture instead: llama-3.1-8b, qwen2.5-7b, qwen3-8b, "
            "mistral-7b, or a config.json. Tokens are those of --model."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the order of rows.")] = 0,
    options: Settings = None,
    as_json: Json = False,
) -> None:
    """Tell tokens, operations and memory of an epoch, with and without each saving.

    No weight is loaded. Options of --set are those of the recipe's `tune`, such as
    rows_per_step=32 or lora={rank: 16}.
    """
    from atlas_tune.agents.local_model import load_tokenizer, resolve_model
    from atlas_tune.checked import checked
    from atlas_tune.trajectory.tasks import task_digest, task_key
    from atlas_tune.tune.cost import cost_of
    from atlas_tune.tune.held_out import held_out_tasks
    from atlas_tune.tune.settings import TuneSettings
    from atlas_tune.tune.stage import TrainingRows

    try:
        settings = checked(TuneSettings, parse_options(options))
    except UsageError as error:
        raise UsageError(f"--set: {error}") from error
    trajectories, _ = read_runs(runs)
    selections, _ = read_selection(selection, runs, trajectories)
    config = _config(resolve_model(model, weights=False) if shape is None else shape)
    aside = held_out_tasks(trajectories, settings.held_out, seed)
    taught = [run for run in trajectories if task_digest(task_key(run)) not in aside]
    rendered = TrainingRows.of(load_tokenizer(model), taught, selections, settings)
    if not rendered.rows:
        raise UsageError(
            f"{selection} selects no step of a trajectory that fits into "
            f"{settings.max_tokens} tokens."
        )
    try:
        found = cost_of(config, rendered.rows, settings, seed)
    except (AttributeError, ValueError) as error:
        raise UsageError(
            f"The cost cannot be told, because the model is no stack of like attention blocks "
            f"({error})."
        ) from error
    if as_json:
        print(json.dumps(_record(found)))
        return
    if shape is not None:
        say(f"Tokens are those of {model}; {shape} has a tokenizer of its own.")
    if rendered.too_long:
        most = settings.max_tokens
        say(f"{len(rendered.too_long)} rows are longer than {most} tokens and left out.")
    for reason in list(rendered.refused.values())[:1]:
        say(f"{len(rendered.refused)} trajectories cannot be masked and are left out: {reason}")
    _tell(found, settings.rows_per_step)


def _config(name: str) -> Any:
    from transformers import AutoConfig

    from atlas_tune.tune.cost import SHAPES

    if name in SHAPES:
        return AutoConfig.for_model(**SHAPES[name])
    if not Path(name).exists():
        raise UsageError(
            f"'{name}' is neither a file nor a shape that is known here: {nearest(name, SHAPES)}"
        )
    try:
        return AutoConfig.from_pretrained(name)
    except ValueError as error:  # an architecture that this transformers does not know
        raise UsageError(f"{name}: {str(error).splitlines()[0]}") from error


def _tell(found: Cost, rows_per_step: int) -> None:
    from rich.table import Table

    print(
        f"An epoch: {found.steps} optimiser steps of up to {rows_per_step} trajectories; "
        f"{found.tokens:,} tokens, {found.computed:,} of them to compute, "
        f"{found.supervised:,} supervised. {found.weights.trained:,} of {found.weights.all:,} "
        "weights are trained."
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in ("FLOPs", "over ours", "GiB", "activations", "logits", "weights and optimiser"):
        table.add_column(name, justify="right")
    best = found.ways[-1].flops.total
    for way in found.ways:
        kept = way.memory.weights + way.memory.gradients + way.memory.optimiser
        parts = (way.memory.total, way.memory.activations, way.memory.logits, kept)
        table.add_row(
            way.name,
            f"{way.flops.total:.2e}",
            f"{way.flops.total / best:.2f}",
            *(f"{part / 2**30:.1f}" for part in parts),
        )
    print_tables(table)
    print(
        "One saving is added from line to line; the last line is what `tune` does. FLOPs are "
        "counted (without norms, rotary angles, softmax); memory is an estimate of the peak."
    )
    if found.why_padded is not None:
        print(f"Rows are padded and share no beginnings: {found.why_padded}.")


def _record(found: Cost) -> dict[str, Any]:
    ways = {}
    for way in found.ways:
        memory = way.memory
        ways[way.name] = {
            "flops": way.flops.total,
            "bytes": {
                "weights": memory.weights,
                "gradients": memory.gradients,
                "optimiser": memory.optimiser,
                "activations": memory.activations,
                "logits": memory.logits,
                "total": memory.total,
            },
        }
    return {
        "optimiser_steps": found.steps,
        "tokens": found.tokens,
        "tokens_to_compute": found.computed,
        "supervised_tokens": found.supervised,
        "weights": found.weights.all,
        "trained_weights": found.weights.trained,
        "why_padded": found.why_padded,
        "ways": ways,
    }
