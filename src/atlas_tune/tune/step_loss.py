"""Which way loss and gradients of an optimiser step are computed; all of them give the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from atlas_tune.tune.packable import why_not_packed
from atlas_tune.tune.packed_loss import PackedLoss
from atlas_tune.tune.padded_loss import PaddedLoss
from atlas_tune.tune.prefixes import LEAST_SHARED
from atlas_tune.tune.rows import Row
from atlas_tune.tune.settings import TuneSettings


class StepLoss(Protocol):
    """A way to compute a step."""

    def backward(self, model: Any, rows: Sequence[Row], normaliser: float) -> torch.Tensor:
        """Add the gradients of Σ weight · −log π / normaliser to the parameters'; the loss."""
        ...


def step_loss(
    model: Any,
    settings: TuneSettings,
    precision: Callable[[], AbstractContextManager[Any]],
    tell: Callable[[str], None],
) -> StepLoss:
    """The way that leaves out most, of those that are exact for this model.

    Args:
        model: a causal language model of transformers; its gradients are cleared.
        settings: say which savings are wanted, and what fits at once.
        precision: makes the context of a forward pass.
        tell: is given a sentence where a saving that is wanted cannot be had.
    """
    savings, fits = settings.savings, settings.tokens_per_microbatch
    reason = why_not_packed(model) if savings.no_padding else None
    if reason is not None:
        tell(
            f"Rows are padded and share no beginnings: {reason}. The other savings hold; the "
            "weights come out the same."
        )
    if reason is not None or not savings.no_padding:
        return PaddedLoss(fits, savings.supervised_rows, precision)
    return PackedLoss(
        fits,
        savings.supervised_rows,
        savings.sparse_last_block,
        LEAST_SHARED if savings.shared_prefixes else None,
        precision,
    )
