"""What a training step costs, counted: floating-point operations, with and without each saving.

A multiply-add is two operations. A linear layer of P weights takes 2 P per token forward and 4 P
backward (Kaplan et al., arXiv 2001.08361, section 2.1); attention takes 4 H D per query and key
that it sees forward, twice that backward (two products, of queries with keys and of weights with
values). Norms, rotary angles, softmax and the optimiser are left out: they are a few per cent.

Gradient checkpointing computes the forward pass of the blocks once more.

Shapes: H query heads, D width of a head, W width of the model, V vocabulary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atlas_tune.tune.prefixes import LEAST_SHARED, Forest, forest_of
from atlas_tune.tune.render import Row

BACKWARD = 2
"""Operations of a backward pass over those of the forward pass."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What of an architecture decides its cost."""

    layers: int
    block: int
    """Weights of one block's linear layers."""
    keys_and_values: int
    """Of these, the weights that make keys and values."""
    attention: int
    """H · D: the width of all query heads together."""
    head: int
    """Weights of the language-model head, W · V; counted though it shares the embedding's."""
    window: int | None = None
    """How many tokens a token sees, where that is limited in every layer."""

    @classmethod
    def of(cls, config: Any) -> Shape:
        """The shape of a transformers configuration; no weights are made.

        Raises:
            ValueError: the architecture is no stack of like blocks with keys and values.
        """
        import torch
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
        decoder = model.get_decoder()
        layers = getattr(getattr(decoder, "model", decoder), "layers", None)
        if not layers:
            raise ValueError(f"{type(model).__name__} has no list of blocks whose cost is known")
        text = config.get_text_config(decoder=True)
        linear = {
            name: module.weight.numel()
            for name, module in layers[-1].named_modules()
            if isinstance(module, torch.nn.Linear)
        }
        kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
        sliding = kinds == {"sliding_attention"} or "Mistral" in type(model).__name__
        heads = text.num_attention_heads
        width = getattr(text, "head_dim", None) or text.hidden_size // heads
        return cls(
            layers=len(layers),
            block=sum(linear.values()),
            keys_and_values=sum(
                count for name, count in linear.items() if name.endswith(("k_proj", "v_proj"))
            ),
            attention=heads * width,
            head=text.hidden_size * text.vocab_size,
            window=getattr(text, "sliding_window", None) if sliding else None,
        )


@dataclass(frozen=True, slots=True)
class Flops:
    """Operations of a step, forward and backward, by where they go."""

    blocks: float
    attention: float
    head: float
    again: float = 0.0
    """Of gradient checkpointing."""

    @property
    def total(self) -> float:
        """All of them."""
        return self.blocks + self.attention + self.head + self.again


def flops_of(
    shape: Shape,
    forest: Forest,
    *,
    rows_only: bool = True,
    sparse_last_block: bool = True,
    checkpointing: bool = False,
) -> Flops:
    """Operations of one optimiser step over a forest."""
    tokens = rows = 0
    seen = seen_by_rows = 0.0
    for node in forest:
        offsets = {target.offset for target in node.targets}
        tokens += len(node.tokens)
        rows += len(offsets)
        seen += _seen(shape, node.start, len(node.tokens))
        seen_by_rows += sum(_seen(shape, node.start + offset, 1) for offset in offsets)
    dense = shape.layers - sparse_last_block
    blocks = 2.0 * shape.block * tokens * dense
    attention = 4.0 * shape.attention * seen * dense
    if sparse_last_block:
        blocks += 2.0 * shape.keys_and_values * tokens
        blocks += 2.0 * (shape.block - shape.keys_and_values) * rows
        attention += 4.0 * shape.attention * seen_by_rows
    head = 2.0 * shape.head * (rows if rows_only else tokens)
    both = 1 + BACKWARD
    again = blocks + attention if checkpointing else 0.0
    return Flops(both * blocks, both * attention, both * head, again)


def _seen(shape: Shape, start: int, tokens: int) -> float:
    """How many keys the tokens from ``start`` on see, together."""
    if shape.window is None:
        return tokens * start + tokens * (tokens + 1) / 2
    return float(sum(min(at + 1, shape.window) for at in range(start, start + tokens)))


def padded(rows: Sequence[Row], full: Sequence[int], batch: int) -> list[Row]:
    """Rows as a trainer that only masks labels sees them: uncut, and padded in batches.

    Args:
        rows: training rows.
        full: their lengths before the tail was cut.
        batch: rows that are padded to one length; 1 pads nothing.
    """
    found = []
    for start in range(0, len(rows), batch):
        longest = max(full[start : start + batch])
        for row in rows[start : start + batch]:
            filled = (*row.input_ids, *[0] * (longest - len(row.input_ids)))
            found.append(Row(row.trajectory_id, filled, row.spans, longest))
    return found


def one_row_per_step(rows: Sequence[Row]) -> list[Row]:
    """Each selected step as a row of its own, with everything before it as its prompt."""
    return [
        Row(row.trajectory_id, row.input_ids[: span.end], (span,), span.end)
        for row in rows
        for span in row.spans
    ]


def savings(
    shape: Shape, steps: Sequence[Sequence[Row]], *, batch: int = 4, checkpointing: bool = False
) -> dict[str, Flops]:
    """Operations of optimiser steps, each saving added to those before it.

    The first is plain training: whole trajectories, padded in batches of ``batch``, logits
    everywhere. ``one row per step`` stands beside them: what masking costs in trainers that take
    one target per row.
    """
    found: dict[str, Flops] = {}

    def add(name: str, rows_of: Any, least_shared: int | None = None, **switches: bool) -> None:
        parts: dict[str, float] = defaultdict(float)
        for step in steps:
            forest = forest_of(rows_of(step), least_shared=least_shared)
            flops = flops_of(shape, forest, checkpointing=checkpointing, **switches)
            for part in ("blocks", "attention", "head", "again"):
                parts[part] += getattr(flops, part)
        found[name] = Flops(**parts)

    off = {"rows_only": False, "sparse_last_block": False}
    full = [[row.full_length for row in step] for step in steps]
    lengths = {id(step): lengths for step, lengths in zip(steps, full, strict=True)}

    def whole(rows: Sequence[Row], size: int) -> list[Row]:
        return padded(rows, lengths[id(rows)], size)

    add("one row per step", lambda rows: whole_steps(rows, batch), **off)
    add("plain", lambda rows: whole(rows, batch), **off)
    add("no padding", lambda rows: whole(rows, 1), **off)
    add("tail cut", lambda rows: rows, **off)
    add("supervised rows", lambda rows: rows, sparse_last_block=False)
    add("sparse last block", lambda rows: rows)
    add("shared prefixes", lambda rows: rows, LEAST_SHARED)
    return found


def whole_steps(rows: Sequence[Row], batch: int) -> list[Row]:
    """One row per step, padded in batches."""
    single = one_row_per_step(rows)
    return padded(single, [row.full_length for row in single], batch)
