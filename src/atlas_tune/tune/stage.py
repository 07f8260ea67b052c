"""The tuning stage: a model, trajectories and a selection in; a tuned model out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas_tune.agents.local_model import load_model, load_tokenizer, model_digest
from atlas_tune.errors import AtlasError
from atlas_tune.replacing import replacing
from atlas_tune.trajectory import Selection, StepLabel, Trajectory
from atlas_tune.trajectory.tasks import task_digest, task_key
from atlas_tune.tune.held_out import HeldOut, held_out_tasks, kinds_of
from atlas_tune.tune.model_card import model_card
from atlas_tune.tune.render import Row, render_rows
from atlas_tune.tune.settings import TuneSettings
from atlas_tune.tune.trainer import train

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tune_model(
    model: str,
    trajectories: Sequence[Trajectory],
    selections: Mapping[str, Selection],
    settings: TuneSettings,
    directory: Path,
    seed: int,
    on_step: Callable[[int, int, float], None] = lambda step, of, loss: None,
    labels: Iterable[StepLabel] = (),
) -> dict[str, Any]:
    """Tune ``model`` on the selected steps and save it in ``directory``.

    Trajectories without a selected step carry no loss and are left out; so are rows longer than
    ``settings.max_tokens``, whose trajectories are listed under ``too_long``.

    Args:
        model: a hub id, a directory or a GGUF file.
        trajectories: all of the run.
        selections: by trajectory id, the steps that carry loss.
        settings: how to train.
        directory: gets the model.
        seed: of the order of rows, of dropout, of what is held out.
        on_step: called after each optimiser step with (step, steps in all, loss).
        labels: tell the kinds by which the loss of held-out steps is told apart.

    Returns:
        The figures of :func:`atlas_tune.tune.trainer.train`, with ``left_out``, ``too_long`` and
        ``held_out``, the number of trajectories that were kept aside.

    Raises:
        AtlasError: nothing is left to train on.
    """
    tokenizer = load_tokenizer(model)
    aside = held_out_tasks(trajectories, settings.held_out, seed)
    kept = [run for run in trajectories if task_digest(task_key(run)) in aside]
    taught = [run for run in trajectories if task_digest(task_key(run)) not in aside]
    rows, left_out, too_long = rows_of(tokenizer, taught, selections, settings)
    if not rows:
        raise AtlasError(
            f"Nothing to train on: of {len(taught)} trajectories {left_out} have no "
            f"selected step and {len(too_long)} rows are longer than {settings.max_tokens} "
            "tokens. Widen the selection or raise max_tokens."
        )
    kinds = kinds_of(trajectories, selections, labels)
    held_out = None
    if kept:
        every = {
            run.trajectory_id: Selection(
                run.trajectory_id, tuple(step.step_id for step in run.agent_steps), "all"
            )
            for run in kept
        }
        told, _, longer = rows_of(tokenizer, kept, every, settings)
        too_long += longer
        held_out = HeldOut(tuple(told), kinds) if told else None
    digest = model_digest(model)
    figures = train(
        load_model(model),
        tokenizer,
        rows,
        settings,
        directory,
        seed,
        on_step,
        base=digest,
        held_out=held_out,
    )
    figures |= {"left_out": left_out, "too_long": too_long, "held_out": len(kept)}
    if os.environ.get("RANK", "0") == "0":
        card = model_card(model, digest, trajectories, selections, kinds, settings, seed, figures)
        with replacing(directory / "README.md") as partial:
            partial.write_text(card, encoding="utf-8", newline="\n")
    return figures


def rows_of(
    tokenizer: PreTrainedTokenizerBase,
    trajectories: Iterable[Trajectory],
    selections: Mapping[str, Selection],
    settings: TuneSettings,
) -> tuple[list[Row], int, list[str]]:
    """The training rows of a selection.

    Returns:
        The rows, the number of trajectories without a selected step, and the ids of those with a
        row that is longer than ``settings.max_tokens``, once for each such row.
    """
    rows: list[Row] = []
    left_out = 0
    too_long: list[str] = []
    for trajectory in trajectories:
        selection = selections.get(trajectory.trajectory_id)
        if selection is None or not selection.step_ids:
            left_out += 1
            continue
        tail_cut = settings.savings.tail_cut
        for row in render_rows(tokenizer, trajectory, selection, tail_cut=tail_cut):
            if len(row.input_ids) > settings.max_tokens:
                too_long.append(trajectory.trajectory_id)
            else:
                rows.append(row)
    return rows, left_out, too_long
