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
from dataclasses import dataclass, replace
from typing import Any

from atlas_tune.tune.batches import of_like_length
from atlas_tune.tune.prefixes import LEAST_SHARED, Forest, forest_of
from atlas_tune.tune.rows import Row
from atlas_tune.tune.settings import Savings

ALL = Savings()
"""All savings."""
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
        layers_own = {
            f"{place}.{name}"
            for place, module in layers[-1].named_modules()
            if not isinstance(module, torch.nn.Linear)
            for name, weight in module.named_parameters(recurse=False)
            if weight.ndim > 1
        }
        if layers_own:
            raise ValueError(
                f"{type(model).__name__} multiplies by {min(layers_own)}, which is no linear "
                "layer, and how often a token meets it is not known"
            )
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
    adapters: bool = False,
) -> Flops:
    """Operations of one optimiser step over a forest.

    With ``adapters`` the model's own weights are frozen: a linear layer's backward pass then takes
    2 P per token, for the gradient of its input alone. The adapters' own operations, about a
    hundredth, are left out.
    """
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
    linear = both - 1 if adapters else both
    again = blocks + attention if checkpointing else 0.0
    return Flops(linear * blocks, both * attention, linear * head, again)


def _seen(shape: Shape, start: int, tokens: int) -> float:
    """How many keys the tokens from ``start`` on see, together."""
    if shape.window is None:
        return tokens * start + tokens * (tokens + 1) / 2
    return float(sum(min(at + 1, shape.window) for at in range(start, start + tokens)))


def _filled(row: Row, length: int) -> Row:
    """A row with tokens behind it up to a length: of its own tail, or of padding."""
    ids = (*row.input_ids, *[0] * (length - len(row.input_ids)))
    return Row(row.trajectory_id, ids, row.spans, length)


def one_row_per_step(rows: Sequence[Row]) -> list[Row]:
    """Each selected step as a row of its own, with everything before it as its prompt."""
    return [
        Row(row.trajectory_id, row.input_ids[: span.end], (span,), span.end)
        for row in rows
        for span in row.spans
    ]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to compute an optimiser step."""

    batch: int | None
    """Rows that are padded to one length, in the order of the step; None pads nothing, but for
    ``like_length``."""
    like_length: int | None = None
    """Pad rows of like length together, up to so many tokens."""
    per_step: bool = False
    """Each selected step as a row of its own."""
    cut: bool = False
    rows_only: bool = False
    sparse_last_block: bool = False
    shared: bool = False

    def batches(self, step: Sequence[Row]) -> list[list[Row]]:
        """The rows that are computed together, padding included."""
        rows = one_row_per_step(step) if self.per_step else list(step)
        if not self.cut:
            rows = [_filled(row, row.full_length) for row in rows]
        if self.like_length is not None:
            batches = of_like_length(rows, self.like_length)
        else:
            size = self.batch or 1
            batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        return [
            [_filled(row, max(len(one.input_ids) for one in batch)) for row in batch]
            for batch in batches
        ]

    def forest(self, step: Sequence[Row]) -> Forest:
        """The tokens that are computed, those that are shared once."""
        rows = [row for batch in self.batches(step) for row in batch]
        return forest_of(rows, least_shared=LEAST_SHARED if self.shared else None)


def ways(wanted: Savings, batch: int, most_tokens: int | None = None) -> dict[str, Way]:
    """Ways by name, each with one of the wanted savings more than those before it.

    The first two have none: each selected step as a row of its own, which is what masking costs in
    trainers that take one target per row; and plain training, whole trajectories with logits
    everywhere. Both are padded in batches of ``batch``. Where padding cannot be done without, rows
    of like length are padded together up to ``most_tokens``, which is what ours does then.
    """
    found = {"one row per step": Way(batch, per_step=True), "plain": Way(batch)}
    way = found["plain"]

    def add(name: str, is_wanted: bool, **more: Any) -> None:
        nonlocal way
        if is_wanted:
            way = found[name] = replace(way, **more)

    packed = wanted.no_padding
    add("no padding", packed, batch=None)
    add("like lengths", not packed and bool(most_tokens), batch=None, like_length=most_tokens)
    add("tail cut", wanted.tail_cut, cut=True)
    add("supervised rows", wanted.supervised_rows, rows_only=True)
    is_sparse = packed and wanted.supervised_rows and wanted.sparse_last_block
    add("sparse last block", is_sparse, sparse_last_block=True)
    add("shared prefixes", packed and wanted.shared_prefixes, shared=True)
    return found


def savings(
    shape: Shape,
    steps: Sequence[Sequence[Row]],
    *,
    wanted: Savings = ALL,
    batch: int = 4,
    most_tokens: int | None = None,
    checkpointing: bool = False,
    adapters: bool = False,
) -> dict[str, Flops]:
    """Operations of optimiser steps in each of :func:`ways`."""
    return {
        name: counted(shape, steps, way, checkpointing=checkpointing, adapters=adapters)
        for name, way in ways(wanted, batch, most_tokens).items()
    }


def counted(
    shape: Shape,
    steps: Sequence[Sequence[Row]],
    way: Way,
    *,
    checkpointing: bool = False,
    adapters: bool = False,
) -> Flops:
    """Operations of optimiser steps in one way."""
    parts: dict[str, float] = defaultdict(float)
    for step in steps:
        flops = flops_of(
            shape,
            way.forest(step),
            rows_only=way.rows_only,
            sparse_last_block=way.sparse_last_block,
            checkpointing=checkpointing,
            adapters=adapters,
        )
        for part in ("blocks", "attention", "head", "again"):
            parts[part] += getattr(flops, part)
    return Flops(**parts)
