"""The ATLaS objective, computed on supervised positions only.

L = − Σ log π(token) / N over the supervised tokens of an optimiser step (section 3 of the paper
gives the sum; it does not state a normalisation, ours is by token).

Only rows that carry loss go through the language-model head: its logits are the largest tensor of
a small model's step. This changes nothing in the loss or in any gradient, because an unsupervised
row contributes an exact zero to both.

Shapes: B sequences, T tokens, D width, R supervised rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from atlas_tune.tune.rows import IGNORED


def supervised_loss_sum(
    model: nn.Module,
    input_ids_BT: torch.Tensor,
    labels_BT: torch.Tensor,
    weights_BT: torch.Tensor | None = None,
    *,
    supervised_rows: bool = True,
) -> torch.Tensor:
    """The sum of weight · −log π over the supervised tokens of a microbatch; a scalar.

    Sequences are padded on the right. Under causal attention no real token sees the padding, so
    no attention mask is needed.

    Args:
        model: a causal language model of transformers, wrapped by peft or not.
        input_ids_BT: token ids, padded on the right with any id.
        labels_BT: the id where a token is supervised, else ``IGNORED``; not shifted.
        weights_BT: how much each token counts; all alike where it is left out.
        supervised_rows: compute logits at the rows that need them only.
    """
    # Position t predicts token t + 1: the row of a supervised token is the one before it.
    targets_BT = torch.full_like(labels_BT, IGNORED)
    targets_BT[:, :-1] = labels_BT[:, 1:]
    rows_BT = targets_BT != IGNORED
    with head_on_rows(model, rows_BT) if supervised_rows else nullcontext():
        logits = model(input_ids=input_ids_BT, use_cache=False).logits
    logits_RV = logits[0] if supervised_rows else logits[rows_BT]
    losses_R = log_losses(logits_RV, targets_BT[rows_BT])
    if weights_BT is None:
        return losses_R.sum()
    weights_R = weights_BT[:, 1:][rows_BT[:, :-1]]
    return (losses_R * weights_R.to(losses_R.dtype)).sum()


def log_losses(logits_RV: torch.Tensor, targets_R: torch.Tensor) -> torch.Tensor:
    """−log π of each row's target, ``[R]``; half precision is left for it."""
    if logits_RV.dtype in (torch.bfloat16, torch.float16):
        logits_RV = logits_RV.float()
    return nn.functional.cross_entropy(logits_RV, targets_R, reduction="none")


@contextmanager
def head_on_rows(model: Any, rows_BT: torch.Tensor) -> Iterator[None]:
    """Let the language-model head see only the given rows, as one sequence ``[1, R, D]``.

    A hook on the head rather than a call of the inner model, so that whatever an architecture
    does around it (soft-capping or scaling of logits) stays in place.
    """

    def gather(_: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (args[0][rows_BT][None], *args[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(gather)
    try:
        yield
    finally:
        handle.remove()
