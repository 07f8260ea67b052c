"""Attention for training on a CPU, as large matrix products over blocks of queries.

PyTorch's fused attention for CPUs spends more time in a training step than all linear layers
together, nearly all of it in its backward pass (docs/performance.md). This computes the same by
plain products: for a block of queries the scores with all keys that any of them sees, softmax, and
the weighted sum of values. A block of queries meets all its keys at once, so its softmax is whole.
The backward pass computes the scores again, so memory holds those of one block.

In low precision scores and weights are rounded to it, as in transformers' eager attention; the
softmax itself is taken in float32.

Shapes: H query heads, K key-value heads, G = H / K query heads that share one, S queries, L keys,
B queries of a block, M keys that a block sees, D width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable

BLOCK = 128
"""Queries of a block: its scores stay in the cache, its products stay large."""


def blocked_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    at_S: torch.Tensor,
    window: int | None = None,
    scaling: float | None = None,
) -> torch.Tensor:
    """Causal attention of chosen positions.

    Args:
        query: ``[1, H, S, D]``.
        key: ``[1, K, L, D]``; K divides H.
        value: the same.
        at_S: by query the index of its own key, rising; it sees the keys up to that one.
        window: how many keys a query sees, its own included; None sees all before it.
        scaling: of the scores; 1 / sqrt(D) where it is None.

    Returns:
        ``[1, H, S, D]``.
    """
    if torch.is_autocast_enabled(query.device.type):
        wanted = torch.get_autocast_dtype(query.device.type)
        query, key, value = (tensor.to(wanted) for tensor in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    found: torch.Tensor = _Blocked.apply(  # type: ignore[no-untyped-call]
        query, key, value, at_S, window, scale
    )
    return found


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        at_S: torch.Tensor,
        window: int | None,
        scale: float,
    ) -> torch.Tensor:
        _, h, s, d = query.shape
        k = key.shape[1]
        scaled_KGSD = query.reshape(k, h // k, s, d) * scale
        output_KGSD = torch.empty_like(scaled_KGSD)
        for block in _blocks(at_S, window):
            weights_KGBM = block.weights(scaled_KGSD, key[0])
            output_KGSD[:, :, block.queries] = _grouped(weights_KGBM, value[0, :, block.keys])
        ctx.save_for_backward(scaled_KGSD, key, value, at_S)
        ctx.window, ctx.scale = window, scale
        return output_KGSD.reshape(1, h, s, d)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scaled_KGSD, key, value, at_S = ctx.saved_tensors
        k, g, s, d = scaled_KGSD.shape
        dtype = scaled_KGSD.dtype
        grad_KGSD = grad.to(dtype).reshape(k, g, s, d)
        to_query = torch.empty_like(scaled_KGSD)
        # Sums over blocks, so in what sums do not lose in.
        summed = torch.promote_types(dtype, torch.float32)
        to_key, to_value = (torch.zeros_like(key[0], dtype=summed) for _ in range(2))
        for block in _blocks(at_S, ctx.window):
            weights_KGBM = block.weights(scaled_KGSD, key[0])
            grad_KGBD = grad_KGSD[:, :, block.queries]
            to_value[:, block.keys] += _turned(weights_KGBM, grad_KGBD)
            to_weights = _grouped(grad_KGBD, value[0, :, block.keys].transpose(1, 2))
            to_scores = torch._softmax_backward_data(to_weights, weights_KGBM, -1, dtype)
            to_query[:, :, block.queries] = _grouped(to_scores, key[0, :, block.keys])
            to_key[:, block.keys] += _turned(to_scores, scaled_KGSD[:, :, block.queries])
        to_query *= ctx.scale
        return (
            to_query.reshape(1, k * g, s, d),
            to_key[None].to(key.dtype),
            to_value[None].to(value.dtype),
            None,
            None,
            None,
        )


class _Block:
    """Some queries, and the keys that at least one of them sees."""

    def __init__(self, at_B: torch.Tensor, begin: int, window: int | None) -> None:
        first = 0 if window is None else max(0, int(at_B[0]) - window + 1)
        self.queries = slice(begin, begin + len(at_B))
        self.keys = slice(first, int(at_B[-1]) + 1)
        # Keys up to the first query's own are seen by all, but for what its window hides.
        self.all_see = 0 if window is not None else int(at_B[0]) + 1
        keys_M = torch.arange(first + self.all_see, self.keys.stop, device=at_B.device)
        self.hidden_BM = keys_M > at_B[:, None]
        if window is not None:
            self.hidden_BM |= keys_M <= at_B[:, None] - window

    def weights(self, scaled_KGSD: torch.Tensor, key_KLD: torch.Tensor) -> torch.Tensor:
        """The softmax of the scores, ``[K, G, B, M]``."""
        keys_KDM = key_KLD[:, self.keys].transpose(1, 2)
        scores_KGBM = _grouped(scaled_KGSD[:, :, self.queries], keys_KDM)
        scores_KGBM[..., self.all_see :].masked_fill_(self.hidden_BM, float("-inf"))
        return scores_KGBM.softmax(-1)


def _blocks(at_S: torch.Tensor, window: int | None) -> Iterator[_Block]:
    for begin in range(0, len(at_S), BLOCK):
        yield _Block(at_S[begin : begin + BLOCK], begin, window)


def _grouped(left_KGBX: torch.Tensor, right_KXY: torch.Tensor) -> torch.Tensor:
    """``[K, G, B, Y]``: the heads that share keys are rows of one product."""
    k, g, b, x = left_KGBX.shape
    product = torch.bmm(left_KGBX.reshape(k, g * b, x), right_KXY)
    return product.view(k, g, b, -1)


def _turned(left_KGBX: torch.Tensor, right_KGBY: torch.Tensor) -> torch.Tensor:
    """``[K, X, Y]``: the sum over groups and queries."""
    k, g, b, _ = left_KGBX.shape
    return torch.bmm(
        left_KGBX.reshape(k, g * b, -1).transpose(1, 2), right_KGBY.reshape(k, g * b, -1)
    )
