"""Loss on trajectories that are not trained on, by the kind of their steps.

A model that is tuned on critical steps alone can get worse at the others, or get better at them
too: one figure for all steps would hide which.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from atlas_tune.errors import AtlasError
from atlas_tune.trajectory import Kind, Selection, StepLabel, Trajectory
from atlas_tune.trajectory.tasks import task_digest, task_key
from atlas_tune.tune.batches import of_like_length
from atlas_tune.tune.loss import head_on_rows, log_losses
from atlas_tune.tune.padded_loss import collate
from atlas_tune.tune.rows import IGNORED, Row

SELECTED = "selected"
"""The kind of a selected step whose label names none."""
UNSELECTED = "unselected"
"""The kind of all other steps."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Rows over all agent steps of the trajectories, and the kind of each step."""

    rows: tuple[Row, ...]
    kinds: dict[tuple[str, int], str]
    """By trajectory and step id."""

    def losses(
        self, model: Any, precision: Callable[[], AbstractContextManager[Any]], most_tokens: int
    ) -> dict[str, float]:
        """Mean −log π per token, by kind of step, and of all under ``all``.

        Args:
            model: a causal language model of transformers; its mode is as before.
            precision: makes the context of a forward pass.
            most_tokens: that run at once.
        """
        sums: dict[str, float] = defaultdict(float)
        counts: dict[str, int] = defaultdict(int)
        was_training = model.training
        model.eval()
        for rows in of_like_length(self.rows, most_tokens):
            losses = iter(_token_losses(model, rows, precision))
            for row in rows:
                for span in sorted(row.spans, key=lambda span: span.start):
                    for kind in ("all", self.kinds[row.trajectory_id, span.step_id]):
                        counts[kind] += span.end - span.start
                    for _ in range(span.start, span.end):
                        loss = next(losses)
                        sums["all"] += loss
                        sums[self.kinds[row.trajectory_id, span.step_id]] += loss
        model.train(was_training)
        return {kind: sums[kind] / counts[kind] for kind in sorted(sums)}


@torch.no_grad()
def _token_losses(
    model: Any, rows: Sequence[Row], precision: Callable[[], AbstractContextManager[Any]]
) -> list[float]:
    """−log π of every supervised token, row by row in its order."""
    ids_BT, labels_BT, _ = (tensor.to(model.device) for tensor in collate(rows))
    targets_BT = torch.full_like(labels_BT, IGNORED)
    targets_BT[:, :-1] = labels_BT[:, 1:]
    rows_BT = targets_BT != IGNORED
    with precision(), head_on_rows(model, rows_BT):
        logits_RV = model(input_ids=ids_BT, use_cache=False).logits[0]
    losses: list[float] = log_losses(logits_RV, targets_BT[rows_BT]).tolist()
    return losses


def held_out_tasks(trajectories: Sequence[Trajectory], share: float, seed: int) -> set[bytes]:
    """Digests of the tasks that are kept aside; all runs of a task are, or none.

    Args:
        trajectories: all of the run.
        share: of the tasks, in [0, 1); above 0 at least one task is kept.
        seed: which ones.

    Raises:
        AtlasError: no task would be left to train on.
    """
    tasks = {task_digest(task_key(run)) for run in trajectories}
    if not share:
        return set()
    count = max(1, round(share * len(tasks)))
    if count >= len(tasks):
        raise AtlasError(
            f"tune.held_out keeps {count} of {len(tasks)} tasks aside, so none is left to train "
            "on: lower it, or give more trajectories."
        )

    def lot(task: bytes) -> bytes:
        return hashlib.sha256(f"held out {seed} ".encode() + task).digest()

    return set(sorted(tasks, key=lot)[:count])


def kinds_of(
    trajectories: Iterable[Trajectory],
    selections: Mapping[str, Selection],
    labels: Iterable[StepLabel],
) -> dict[tuple[str, int], str]:
    """The kind of every agent step: its label's where it is selected, else ``unselected``."""
    named = {
        (label.trajectory_id, label.step_id): label.kind.value
        for label in labels
        if label.kind is not None and label.kind is not Kind.NONE
    }
    kinds = {}
    for run in trajectories:
        selection = selections.get(run.trajectory_id)
        chosen = set(selection.step_ids) if selection else set()
        for step in run.agent_steps:
            key = (run.trajectory_id, step.step_id)
            kinds[key] = named.get(key, SELECTED) if step.step_id in chosen else UNSELECTED
    return kinds
