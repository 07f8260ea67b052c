"""The last block on supervised rows only.

What the last block writes for a row goes to the final norm, the head and the loss, and nowhere
else: there is no layer after it whose keys and values could carry it on. So queries, attention's
output and the feed-forward part are needed for supervised rows alone; keys and values for all.
Every row that is left out would have contributed an exact zero to the loss and to every gradient.

Shapes: N tokens of a chunk, R supervised rows, H heads, D width of a head, W width of the model.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from atlas_tune.tune.tree_attention import Running

_KNOWN = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer")
"""Blocks whose arithmetic is known: norm, attention, sum, norm, feed-forward, sum."""


def last_block(model: Any) -> nn.Module | None:
    """The last block of a model, where it is one of those whose arithmetic is known here."""
    decoder = getattr(model.get_decoder(), "model", model.get_decoder())
    layers = getattr(decoder, "layers", None)
    if not layers or type(layers[-1]).__name__ not in _KNOWN:
        return None
    last: nn.Module = layers[-1]
    return last


@contextmanager
def sparse(block: Any) -> Iterator[None]:
    """Within it, ``block`` gives ``[1, R, W]``: the supervised rows of the chunk under way."""

    def forward(
        hidden_states: torch.Tensor,
        *,
        running: Running,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        **_: Any,
    ) -> torch.Tensor:
        rows_R = running.rows_R
        attended = _attend(block, hidden_states, rows_R, running, position_embeddings)
        hidden_1RW = hidden_states[:, rows_R] + attended
        fed: torch.Tensor = block.mlp(block.post_attention_layernorm(hidden_1RW))
        return hidden_1RW + fed

    block.forward = forward
    try:
        yield
    finally:
        del block.forward


def _attend(
    block: Any,
    hidden_1NW: torch.Tensor,
    rows_R: torch.Tensor,
    running: Running,
    angles: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    attention = block.self_attn
    normed_1NW = block.input_layernorm(hidden_1NW)
    normed_1RW = normed_1NW[:, rows_R]

    as_it_is = nn.Identity()

    def heads(projected: torch.Tensor, norm: nn.Module) -> torch.Tensor:
        """``[1, N, H, D]`` of a projection."""
        # The number of heads is told: where no row is supervised it cannot be worked out.
        heads = projected.shape[-1] // attention.head_dim
        by_head: torch.Tensor = norm(
            projected.view(*projected.shape[:-1], heads, attention.head_dim)
        )
        return by_head.transpose(1, 2)

    # Qwen3 norms each head of queries and keys.
    query = heads(attention.q_proj(normed_1RW), getattr(attention, "q_norm", as_it_is))
    key = heads(attention.k_proj(normed_1NW), getattr(attention, "k_norm", as_it_is))
    value = heads(attention.v_proj(normed_1NW), as_it_is)
    # The model's own rotation, once for the rows' queries and once for all keys.
    rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb
    cos, sin = angles
    query, _ = rotate(query, query[:, :1], cos[:, rows_R], sin[:, rows_R])
    _, key = rotate(key[:, :1], key, cos, sin)
    attended = running.attend(
        attention.layer_idx,
        query,
        key,
        value,
        scaling=attention.scaling,
        window=_window(attention),
        rows_only=True,
    )
    projected: torch.Tensor = attention.o_proj(attended.flatten(2).contiguous())
    return projected


def _window(attention: Any) -> int | None:
    """How far the block sees, as its own forward would tell the attention function."""
    if hasattr(attention, "sliding_window"):
        own: int | None = attention.sliding_window
        return own
    if "Mistral" in type(attention).__name__:
        window: int | None = getattr(attention.config, "sliding_window", None)
        return window
    return None
