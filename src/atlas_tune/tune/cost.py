"""What an epoch of training will cost, with and without each saving, before a weight is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atlas_tune.tune.batches import plan_steps
from atlas_tune.tune.flops import Flops, Shape, Way, counted, savings, ways
from atlas_tune.tune.memory import Memory, Saved, Weights, memory_of, most_at_once
from atlas_tune.tune.packable import why_not_by_config
from atlas_tune.tune.prefixes import Forest, tokens_of
from atlas_tune.tune.rows import Row
from atlas_tune.tune.settings import Savings, TuneSettings

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
class Costed:
    """One way to compute an epoch, in figures."""

    name: str
    flops: Flops
    memory: Memory
    """At its peak."""


@dataclass(frozen=True, slots=True)
class Cost:
    """An epoch in figures."""

    steps: int
    tokens: int
    """Of all rows before the tail was cut."""
    supervised: int
    computed: int
    """Tokens that training is left to compute."""
    weights: Weights
    ways: tuple[Costed, ...]
    """Each with one saving more than the one before; the first is that of one row per step. The
    last one is what training does."""
    why_padded: str | None
    """Why the architecture cannot do without padding; None where it can, or is not asked to."""


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
    wanted, why_padded = _possible(config, settings)
    flops = savings(
        Shape.of(config),
        steps,
        wanted=wanted,
        batch=_BATCH,
        most_tokens=settings.tokens_per_microbatch,
        checkpointing=settings.gradient_checkpointing,
        adapters=settings.lora is not None,
    )
    weights, saved = Weights.of(config, settings.lora), Saved.of(config, settings.precision)
    found = []
    forests: list[Forest] = []
    for name, way in ways(wanted, _BATCH, settings.tokens_per_microbatch).items():
        forests = [way.forest(step) for step in steps]
        if way.batch is None and way.like_length is None:
            tokens, predicted = most_at_once(forests, settings.tokens_per_microbatch)
        else:
            tokens, predicted = _most_in_a_batch(way, steps)
        memory = memory_of(
            config,
            weights,
            saved,
            settings,
            tokens=tokens,
            logit_rows=predicted if way.rows_only else tokens,
        )
        found.append(Costed(name, flops[name], memory))
    return Cost(
        steps=len(steps),
        tokens=sum(row.full_length for row in rows),
        supervised=sum(row.supervised for row in rows),
        computed=sum(tokens_of(forest) for forest in forests),
        weights=weights,
        ways=tuple(found),
        why_padded=why_padded,
    )


def training_flops(
    config: Any, rows: Sequence[Row], settings: TuneSettings, seed: int = 0
) -> float | None:
    """Floating-point operations of a whole training as it is done, all epochs of it.

    Arguments are those of :func:`cost_of`. None where the architecture is no stack of like blocks,
    so that nobody can count.
    """
    try:
        shape = Shape.of(config)
    except ValueError:
        return None
    plan = plan_steps(rows, rows_per_step=settings.rows_per_step, epochs=settings.epochs, seed=seed)
    wanted, _ = _possible(config, settings)
    *_, done = ways(wanted, _BATCH, settings.tokens_per_microbatch).values()
    return counted(
        shape,
        [[rows[i] for i in step] for step in plan],
        done,
        checkpointing=settings.gradient_checkpointing,
        adapters=settings.lora is not None,
    ).total


def _possible(config: Any, settings: TuneSettings) -> tuple[Savings, str | None]:
    """The savings that the architecture allows, and why padding is among its costs if it is."""
    why_padded = why_not_by_config(config) if settings.savings.no_padding else None
    no_padding = settings.savings.no_padding and why_padded is None
    return settings.savings.model_copy(update={"no_padding": no_padding}), why_padded


def _most_in_a_batch(way: Way, steps: Sequence[Sequence[Row]]) -> tuple[int, int]:
    """Over all padded batches, the most tokens, padding included, and the most supervised ones."""
    tokens = supervised = 0
    for step in steps:
        for batch in way.batches(step):
            tokens = max(tokens, sum(len(row.input_ids) for row in batch))
            supervised = max(supervised, sum(row.supervised for row in batch))
    return tokens, supervised
