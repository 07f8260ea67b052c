"""Attention of one new token per episode, as plain matrix products.

On a CPU the fused kernel that transformers calls is made for many queries at once, and for
grouped-query models it first copies keys and values once per query head. With one query per head
most of a turn's time goes there. Here the query heads that share keys are the rows of one matrix
product, and nothing is copied. Reading prompts stays with the fused kernel.

Shapes: B episodes, H query heads, K key-value heads, L cached positions, D head width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "atlas_tune_decoding"
"""Under which transformers knows it."""


def decoding_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers asks for it; more than one query per row goes to SDPA.

    Args:
        module: the attention layer.
        query: ``[B, H, S, D]``.
        key: ``[B, K, L, D]``.
        value: ``[B, K, L, D]``.
        attention_mask: bool, ``[B, 1, S, L]``, true where a query sees; None is everything before.
        scaling: of the scores; 1 / sqrt(D) where it is None.
        kwargs: what SDPA takes besides.

    Returns:
        ``[B, S, H, D]``, and no weights.
    """
    b, h, s, d = query.shape
    if s > 1 or (attention_mask is not None and attention_mask.dtype != torch.bool):
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return output, None
    k = key.shape[1]
    scaled_BKGD = query.reshape(b, k, h // k, d) * (d**-0.5 if scaling is None else scaling)
    scores_BKGL = scaled_BKGD @ key.transpose(2, 3)
    if attention_mask is not None:
        scores_BKGL = scores_BKGL.masked_fill(~attention_mask, float("-inf"))
    weights_BKGL = scores_BKGL.softmax(-1, dtype=torch.float32).to(query.dtype)
    return (weights_BKGL @ value).reshape(b, 1, h, d), None


ALL_ATTENTION_FUNCTIONS.register(NAME, decoding_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)


def decode_plainly(model: PreTrainedModel) -> None:
    """Let a model on a CPU act with this attention, if it would act with SDPA."""
    if model.device.type == "cpu" and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(NAME)
