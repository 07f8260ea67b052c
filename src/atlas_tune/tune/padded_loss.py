"""Loss and gradients of one optimiser step over padded rows: what any causal model can do.

The way of models whose attention is not known well enough for :mod:`.packed_loss`. Rows of like
length run together, so that little is padded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from atlas_tune.tune.batches import of_like_length
from atlas_tune.tune.loss import supervised_loss_sum
from atlas_tune.tune.rows import IGNORED, Row


@dataclass(frozen=True, slots=True)
class PaddedLoss:
    """How a step is computed: what fits at once, and where logits are made."""

    most_tokens: int
    """Tokens that run at once, padding included; a longer row runs alone."""
    supervised_rows: bool = True
    """Final head and loss on supervised rows only."""
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Makes the context of a forward pass, such as autocast."""

    def backward(self, model: Any, rows: Sequence[Row], normaliser: float) -> torch.Tensor:
        """Add the gradients of Σ weight · −log π / normaliser to the parameters'.

        Args:
            model: a causal language model of transformers, wrapped by peft or not.
            rows: those of the step.
            normaliser: what the sum is divided by.

        Returns:
            The loss, a scalar without a graph.
        """
        total = torch.zeros((), dtype=torch.float64)
        for together in of_like_length(rows, self.most_tokens):
            batch = (tensor.to(model.device) for tensor in collate(together))
            with self.precision():
                loss = (
                    supervised_loss_sum(model, *batch, supervised_rows=self.supervised_rows)
                    / normaliser
                )
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach().double().cpu()
        return total


def collate(rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, labels and weights of rows, ``[B, T]`` each, padded on the right.

    The id of the padding is of no account: nothing real sees it under causal attention.
    """
    width = max(len(row.input_ids) for row in rows)
    shape = (len(rows), width)
    ids, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, IGNORED)
    weights = torch.zeros(shape)
    for i, row in enumerate(rows):
        ids[i, : len(row.input_ids)] = torch.tensor(row.input_ids)
        labels[i, : len(row.input_ids)] = torch.tensor(row.labels)
        for span in row.spans:
            weights[i, span.start : span.end] = span.weight
    return ids, labels, weights
