"""What an epoch of training will cost, with and without each saving, before a weight is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atlas_tune.tune.batches import plan_steps
from atlas_tune.tune.flops import Flops, Shape, savings
from atlas_tune.tune.memory import Memory, Saved, Weights, memory_of, most_at_once
from atlas_tune.tune.prefixes import LEAST_SHARED, forest_of, tokens_of
from atlas_tune.tune.render import Row
from atlas_tune.tune.settings import TuneSettings

SHAPES: dict[str, dict[str, Any]] = {
    "llama-3.1-8b": {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
    "qwen2.5-7b": {
        "model_type": "qwen2",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
    },
    "qwen3-8b": {
        "model_type": "qwen3",
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
    },
    "mistral-7b": {
        "model_type": "mistral",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32768,
        "sliding_window": None,
    },
}
"""Public sizes of well-known models, for those who have no configuration at hand."""


_BATCH = 4
"""Rows that a trainer pads to one length, where it does."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to compute an epoch."""

    name: str
    flops: Flops
    memory: Memory | None
    """At its peak; None where it is not estimated."""


@dataclass(frozen=True, slots=True)
class Cost:
    """An epoch in figures."""

    steps: int
    tokens: int
    """Of all rows before the tail was cut."""
    supervised: int
    computed: int
    """Tokens that are left to compute, with all savings."""
    weights: Weights
    ways: tuple[Way, ...]
    """Each with one saving more than the one before; the first is that of one row per step."""


def cost_of(config: Any, rows: Sequence[Row], settings: TuneSettings, seed: int = 0) -> Cost:
    """The cost of one epoch on training rows.

    Args:
        config: a transformers configuration; no weight is made.
        rows: with their tails cut (see :class:`atlas_tune.tune.render.Row`, ``full_length``).
        settings: how it would be trained.
        seed: of the order of rows, which decides what meets in a step.

    Raises:
        ValueError: there is no row, or the architecture is no stack of like blocks.
    """
    plan = plan_steps(rows, rows_per_step=settings.rows_per_step, epochs=1, seed=seed)
    steps = [[rows[i] for i in step] for step in plan]
    again = settings.gradient_checkpointing
    counted = savings(Shape.of(config), steps, batch=_BATCH, checkpointing=again)
    weights, saved = Weights.of(config, settings.lora), Saved.of(config, settings.precision)
    most = settings.tokens_per_microbatch
    shared = [forest_of(step, least_shared=LEAST_SHARED) for step in steps]
    alone = [forest_of(step, least_shared=None) for step in steps]
    whole = [
        [Row(row.trajectory_id, (0,) * row.full_length, row.spans, row.full_length) for row in step]
        for step in steps
    ]
    unpadded = most_at_once([forest_of(step, least_shared=None) for step in whole], most)[0]
    padded = max(
        _BATCH * max(row.full_length for row in step[start : start + _BATCH])
        for step in steps
        for start in range(0, len(step), _BATCH)
    )
    cut_tokens, cut_rows = most_at_once(alone, most)
    at_once = {
        "plain": (padded, padded),
        "no padding": (unpadded, unpadded),
        "tail cut": (cut_tokens, cut_tokens),
        "supervised rows": (cut_tokens, cut_rows),
        "sparse last block": (cut_tokens, cut_rows),
        "shared prefixes": most_at_once(shared, most),
    }
    ways = []
    for name, flops in counted.items():
        memory = None
        if name in at_once:
            tokens, logit_rows = at_once[name]
            memory = memory_of(
                config, weights, saved, settings, tokens=tokens, logit_rows=logit_rows
            )
        ways.append(Way(name, flops, memory))
    return Cost(
        steps=len(steps),
        tokens=sum(row.full_length for row in rows),
        supervised=sum(row.supervised for row in rows),
        computed=sum(tokens_of(forest) for forest in shared),
        weights=weights,
        ways=tuple(ways),
    )
