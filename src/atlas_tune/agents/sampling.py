"""Sampling a token from logits with noise that is computed, not drawn.

The noise of a token is a hash of (seed, token id): every row has its own random numbers whatever
batch it stands in, on any device, without a generator to carry along. The token with the highest
``logit / temperature + Gumbel noise`` is a sample from the softmax ("Gumbel-max"). Two rows with
one seed and nearly the same logits nearly always take the same token, which is what paired
rollouts need; a draw by cumulative probability would shift every later token's place.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

_WEYL = 0x9E3779B97F4A7C15
ROWS = 8
"""Rows that a CPU draws at once."""
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def sample(logits_BV: torch.Tensor, temperature: float, seeds_B: Sequence[int]) -> torch.Tensor:
    """One token per row from softmax(logits / temperature), in float32; ``[B]``.

    Args:
        logits_BV: any floating type.
        temperature: above 0.
        seeds_B: one seed per row, of 63 bits; one seed gives one token.
    """
    seeds = torch.tensor(seeds_B, dtype=torch.int64, device=logits_BV.device)
    # On a CPU in blocks that the memory allocator keeps: larger arrays go back to the system at
    # once, and their pages are then what costs (benchmarks/sampling.py).
    block = ROWS if logits_BV.device.type == "cpu" else max(len(seeds), 1)
    chosen = torch.empty_like(seeds)
    for start in range(0, len(seeds), block):
        some = slice(start, start + block)
        scores = logits_BV[some].float() / temperature
        chosen[some] = scores.add_(gumbel(seeds[some], logits_BV.shape[1])).argmax(-1)
    return chosen


def gumbel(seeds_B: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Standard Gumbel noise, ``[B, V]`` float32, a function of each row's seed alone.

    The bits are those of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), whose i-th output is a
    hash of ``seed + i · golden ratio``, so that all of them are computed at once.
    """
    places_V = torch.arange(1, vocabulary + 1, dtype=torch.int64, device=seeds_B.device)
    bits = seeds_B[:, None] + places_V * _signed(_WEYL)
    # In place: with [B, V] arrays, memory and not arithmetic is what costs.
    for shift, factor in _MIX:
        bits.bitwise_xor_(_shifted(bits, shift)).mul_(_signed(factor))
    bits.bitwise_xor_(_shifted(bits, 31))
    # 32 bits, halfway between the marks, so that neither 0 nor 1 comes out. They are taken near
    # 0, where float32 is fine, because what wins is the smallest of V exponential draws.
    below_0 = _shifted(bits, 32).float().add_(0.5).mul_(-(2.0**-32)).clamp_(min=2**-24 - 1)
    return below_0.log1p_().neg_().log_().neg_()


def _shifted(bits: torch.Tensor, by: int) -> torch.Tensor:
    """A logical shift to the right; torch's keeps the sign."""
    return (bits >> by).bitwise_and_((1 << (64 - by)) - 1)


def _signed(word: int) -> int:
    """The signed 64-bit integer of the same bits."""
    return word - (1 << 64) if word >> 63 else word
