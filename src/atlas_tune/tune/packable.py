"""Whether a model's optimiser step can be computed over a prefix forest, asked before training.

The forest needs to know what attention does, and that nothing else carries anything from token to
token. So it is used for architectures for which ``tests/tune/test_exactness.py`` proves it, and
even there only after a numerical probe of the very model, on the very device: a new version of
transformers that hands its attention something new must not change a gradient unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from atlas_tune.tune.packed_loss import PackedLoss
from atlas_tune.tune.padded_loss import PaddedLoss
from atlas_tune.tune.rows import Row, Span

PROVEN = ("llama", "mistral", "qwen2", "qwen3")
"""``model_type`` of the architectures whose packed gradients are proven equal."""

_ATTENTION = {"full_attention", "sliding_attention"}
_TOLERANCE = 0.02
"""Of the probe, relative: a GPU may round to TF32, while a wrong mask is wrong by the whole."""


def why_not_packed(model: Any) -> str | None:
    """Why a model's steps have to be computed over padded rows; None where they need not.

    Args:
        model: a causal language model of transformers, wrapped by peft or not. Its gradients are
            cleared.
    """
    by_config = why_not_by_config(model.config)
    if by_config is not None:
        return by_config
    difference = _probe(model)
    if difference > _TOLERANCE:
        return f"a probe of it gave gradients that differ by {difference:.1%}"
    return None


def why_not_by_config(config: Any) -> str | None:
    """The same, as far as a transformers configuration tells."""
    config = config.get_text_config(decoder=True)
    others = set(getattr(config, "layer_types", None) or []) - _ATTENTION
    if others:
        return (
            f"its layers of the kind {', '.join(sorted(others))} carry a state from token to "
            "token, through which rows behind each other would touch"
        )
    if config.model_type not in PROVEN:
        return (
            f"equal gradients are proven for {', '.join(PROVEN)}, and this is {config.model_type}"
        )
    if getattr(config, "attention_dropout", 0.0):
        return "its attention has dropout"
    return None


def _probe(model: Any) -> float:
    """By how much loss or gradients of packed rows differ from those of padded ones, relatively."""
    was_training = model.training
    model.eval()  # no dropout, which no two ways of computing share
    rows = _rows(model.config.get_text_config(decoder=True).vocab_size)
    with _few_gradients(model) as parameters:
        found = []
        # The chunks are so small that keys and values go from one to the other.
        for way in (PaddedLoss(most_tokens=64), PackedLoss(most_tokens=40)):
            model.zero_grad(set_to_none=True)
            loss = way.backward(model, rows, 10.0)
            gradients = [p.grad.flatten().double() for p in parameters if p.grad is not None]
            found.append((float(loss), torch.cat(gradients).cpu()))
        model.zero_grad(set_to_none=True)
    model.train(was_training)
    (plain, wanted), (packed, gradient) = found
    if wanted.shape != gradient.shape:
        return float("inf")
    by_loss = abs(packed - plain) / max(abs(plain), 1e-9)
    by_gradient = float((gradient - wanted).norm() / wanted.norm().clamp_min(1e-12))
    return max(by_loss, by_gradient)


def _rows(vocabulary: int) -> list[Row]:
    """Rows that begin alike, two of them for longer, with loss before and behind the branches."""
    draw = torch.Generator().manual_seed(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(vocabulary, (count,), generator=draw).tolist())

    trunk = ids(20)
    branch = trunk + ids(18)
    texts = [trunk + ids(13), branch + ids(9), branch + ids(17), ids(11)]
    return [
        Row("probe", text, (Span(1, len(text) - 5, len(text) - 1),), len(text)) for text in texts
    ] + [Row("probe", branch + ids(4), (Span(1, 6, 9), Span(2, 30, 39)), len(branch) + 4)]


@contextmanager
def _few_gradients(model: Any) -> Iterator[list[torch.nn.Parameter]]:
    """Within it only the first block is trained: all other gradients pass through it anyway."""
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    first = [p for n, p in trained if ".layers.0." in n] or [p for _, p in trained]
    kept = {id(p) for p in first}
    for _, parameter in trained:
        parameter.requires_grad_(id(parameter) in kept)
    try:
        yield first
    finally:
        for _, parameter in trained:
            parameter.requires_grad_(True)
