"""The tuning stage: a model, trajectories and a selection in; a tuned model out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas_tune.agents.local_model import load_model, load_tokenizer, model_digest
from atlas_tune.agents.shared_opening import write_openings
from atlas_tune.errors import AtlasError
from atlas_tune.progress import say
from atlas_tune.replacing import replacing
from atlas_tune.trajectory import Selection, StepLabel, Trajectory
from atlas_tune.trajectory.tasks import task_digest, task_key
from atlas_tune.tune.cost import training_flops
from atlas_tune.tune.held_out import HeldOut, held_out_tasks, kinds_of
from atlas_tune.tune.mask_check import MaskError
from atlas_tune.tune.model_card import model_card
from atlas_tune.tune.render import render_rows, rewriting_notice
from atlas_tune.tune.rows import Row
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
        The figures of :func:`atlas_tune.tune.trainer.train`, with ``flops`` of
        :func:`atlas_tune.tune.cost.training_flops`, ``left_out`` and ``held_out``, the numbers of
        trajectories without a selected step and of those kept aside, and ``too_long`` and
        ``refused`` of :class:`TrainingRows`.

    Raises:
        AtlasError: nothing is left to train on.
    """
    tokenizer = load_tokenizer(model)
    aside = held_out_tasks(trajectories, settings.held_out, seed)
    kept = [run for run in trajectories if task_digest(task_key(run)) in aside]
    taught = [run for run in trajectories if task_digest(task_key(run)) not in aside]
    found = TrainingRows.of(tokenizer, taught, selections, settings)
    if not found.rows:
        raise AtlasError(_nothing_to_train_on(len(taught), found, settings))
    is_first = os.environ.get("RANK", "0") == "0"
    notice = rewriting_notice(found.rows)
    if notice is not None and is_first:
        say(notice)
    kinds = kinds_of(trajectories, selections, labels)
    held_out = None
    if kept:
        every = {
            run.trajectory_id: Selection(
                run.trajectory_id, tuple(step.step_id for step in run.agent_steps), "all"
            )
            for run in kept
        }
        told = TrainingRows.of(tokenizer, kept, every, settings)
        found.too_long.extend(told.too_long)
        found.refused.update(told.refused)
        held_out = HeldOut(tuple(told.rows), kinds) if told.rows else None
    digest = model_digest(model)
    loaded = load_model(model)
    config = loaded.config
    figures = train(
        loaded,
        tokenizer,
        found.rows,
        settings,
        directory,
        seed,
        on_step,
        base=digest,
        held_out=held_out,
    )
    figures |= {
        "flops": training_flops(config, found.rows, settings, seed),
        "left_out": len(found.left_out),
        "too_long": found.too_long,
        "refused": found.refused,
        "held_out": len(kept),
    }
    if is_first:
        card = model_card(model, digest, trajectories, selections, kinds, settings, seed, figures)
        with replacing(directory / "README.md") as partial:
            partial.write_text(card, encoding="utf-8", newline="\n")
        left_out = set(found.left_out)
        for sentence in write_openings(
            directory, (run for run in taught if run.trajectory_id not in left_out)
        ):
            say(sentence)
    return figures


def _nothing_to_train_on(trajectories: int, found: TrainingRows, settings: TuneSettings) -> str:
    reason = (
        f"Nothing to train on: of {trajectories} trajectories {len(found.left_out)} have no "
        f"selected step and {len(found.too_long)} rows are longer than {settings.max_tokens} "
        "tokens. Widen the selection or raise max_tokens."
    )
    if found.refused:
        reason += f" {len(found.refused)} cannot be masked; the first: "
        reason += next(iter(found.refused.values()))
    return reason


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """The rows of a selection, and what is not among them."""

    rows: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Trajectories without a selected step."""
    too_long: list[str] = field(default_factory=list)
    """Trajectories with a row that is longer than ``max_tokens``, once for each such row."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why, by trajectory, its supervised tokens cannot be told exactly."""

    @classmethod
    def of(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        trajectories: Iterable[Trajectory],
        selections: Mapping[str, Selection],
        settings: TuneSettings,
    ) -> TrainingRows:
        """Render them; a trajectory that cannot be does not stop the others."""
        found = cls()
        for trajectory in trajectories:
            name = trajectory.trajectory_id
            selection = selections.get(name)
            if selection is None or not selection.step_ids:
                found.left_out.append(name)
                continue
            if settings.other_steps:
                selection = selection.with_others(trajectory, settings.other_steps)
            tail_cut = settings.savings.tail_cut
            try:
                rows = render_rows(tokenizer, trajectory, selection, tail_cut=tail_cut)
            except MaskError as error:
                found.refused[name] = str(error)
                continue
            for row in rows:
                if len(row.input_ids) > settings.max_tokens:
                    found.too_long.append(name)
                else:
                    found.rows.append(row)
        return found
