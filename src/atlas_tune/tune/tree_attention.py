"""Attention over a chunk of a prefix forest: each node sees its own rows' past and nothing else.

All of a chunk's tokens stand in one sequence, so every linear layer of the model runs over them
once and without padding. Attention alone has to know which tokens belong together: for each node
the queries of its tokens meet the keys of the nodes before it and, causally, its own. Positions
count from the row's beginning, so a token gets the rotary angle that it has in its row.

Keys and values that later chunks need are kept twice: with their graph, and as leaves that
those chunks compute against. Their backward passes leave gradients in the leaves, and the chunk's
own backward pass goes on from there: the chain rule, cut at the keys and values.

It enters a model through transformers' attention interface, under the name ``NAME``; the chunk is
handed through the model's keyword arguments, so that a block which is computed again in the
backward pass (gradient checkpointing) meets the chunk that it was computed with.

Shapes: H heads, S tokens of a node, P tokens before them, N tokens of a chunk, D width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface

from atlas_tune.tune.blocked_attention import blocked_attention
from atlas_tune.tune.chunks import Chunk
from atlas_tune.tune.prefixes import Forest, path_of

NAME = "atlas_tune_prefix_forest"
"""Of the attention function, among those of transformers."""

Pair = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one node in one layer, ``[1, H, S, D]`` each."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A node's place in the sequence of its chunk."""

    node: int
    begin: int
    end: int
    before: tuple[int, ...]
    """The nodes that its tokens see besides their own."""
    rows: torch.Tensor
    """Offsets of the tokens that predict a supervised one."""


class Running:
    """A chunk on its way through the model.

    Not a dataclass: FSDP rebuilds those among a block's arguments, and what a block keeps in the
    copy would be lost.
    """

    def __init__(
        self,
        places: Sequence[_Place],
        outer: dict[int, dict[int, Pair]],
        keeps: frozenset[int],
    ) -> None:
        """A chunk before its first layer.

        Args:
            places: of its nodes, in the order of its sequence.
            outer: layer → node → leaves, of the chunks that this one runs against.
            keeps: the nodes that later chunks need.
        """
        self.places, self.outer, self.keeps = tuple(places), outer, keeps
        self.graphs: dict[int, dict[int, Pair]] = {}
        """Layer → node → keys and values with their graph, of ``keeps``."""
        self.leaves: dict[int, dict[int, Pair]] = {}
        """The same as leaves, in which gradients gather."""
        self._masks: dict[Any, torch.Tensor] = {}

    @property
    def rows_R(self) -> torch.Tensor:
        """Places in the sequence of the tokens that predict a supervised one."""
        return torch.cat([place.begin + place.rows for place in self.places])

    @classmethod
    def of(
        cls, forest: Forest, chunk: Chunk, outer: dict[int, dict[int, Pair]], device: torch.device
    ) -> Running:
        """The places of a chunk's nodes in its sequence."""
        places = []
        begin = 0
        for node in chunk.nodes:
            end = begin + len(forest[node].tokens)
            rows = sorted({target.offset for target in forest[node].targets})
            places.append(
                _Place(
                    node,
                    begin,
                    end,
                    tuple(path_of(forest, node)[:-1]),
                    torch.tensor(rows, dtype=torch.long, device=device),
                )
            )
            begin = end
        keeps = frozenset(chunk.nodes) if chunk.then else frozenset()
        return cls(places, outer, keeps)

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        scaling: float | None,
        window: int | None,
        rows_only: bool = False,
    ) -> torch.Tensor:
        """Attention of a layer; ``[1, N, H, D]``, or ``[1, R, H, D]`` of the supervised rows.

        Args:
            layer: its index.
            query: ``[1, H, N, D]``, or ``[1, H, R, D]`` with ``rows_only``.
            key: ``[1, H', N, D]``; H' divides H.
            value: the same.
            scaling: of the logits.
            window: how many tokens a token sees, itself included; None sees all.
            rows_only: the queries are those of the supervised rows alone.
        """
        own: dict[int, Pair] = {}
        found = []
        begin = 0
        for place in self.places:
            pair = (key[:, :, place.begin : place.end], value[:, :, place.begin : place.end])
            own[place.node] = pair
            self._keep(layer, place.node, pair)
            rows = place.rows if rows_only else None
            width = place.end - place.begin if rows is None else len(rows)
            if width == 0:
                continue
            queries = query[:, :, begin : begin + width]
            begin += width
            past = [own[n] if n in own else self.outer[layer][n] for n in place.before]
            keys, values = (torch.cat([*(p[i] for p in past), pair[i]], dim=2) for i in (0, 1))
            seen = keys.shape[2]
            before = seen - (place.end - place.begin)
            if query.device.type == "cpu":
                at_S = before + (torch.arange(width) if rows is None else rows)
                found.append(blocked_attention(queries, keys, values, at_S, window, scaling))
                continue
            is_whole = rows is None and before == 0 and (window is None or seen <= window)
            sharing = query.shape[1] // key.shape[1]
            if sharing > 1 and not is_whole:
                # With a mask CUDA's fused kernels know no heads that share keys.
                keys, values = (t.repeat_interleave(sharing, dim=1) for t in (keys, values))
            found.append(
                nn.functional.scaled_dot_product_attention(
                    queries,
                    keys,
                    values,
                    attn_mask=None if is_whole else self._mask(place, rows, seen, window, query),
                    is_causal=is_whole and width > 1,
                    scale=scaling,
                    enable_gqa=queries.shape[1] != keys.shape[1],
                )
            )
        if not found:
            return query.transpose(1, 2)
        return torch.cat(found, dim=2).transpose(1, 2)

    def _keep(self, layer: int, node: int, pair: Pair) -> None:
        if node not in self.keeps or node in self.graphs.setdefault(layer, {}):
            return  # kept already: this is the second computation of a checkpointed block
        self.graphs[layer][node] = pair
        key, value = (tensor.detach().requires_grad_(tensor.requires_grad) for tensor in pair)
        self.leaves.setdefault(layer, {})[node] = (key, value)

    def _mask(
        self,
        place: _Place,
        rows: torch.Tensor | None,
        seen: int,
        window: int | None,
        query: torch.Tensor,
    ) -> torch.Tensor:
        """Which keys each query sees, ``[S, P + S]``; made once for all layers alike."""
        name = (place.node, rows is None, window)
        if name not in self._masks:
            width = place.end - place.begin
            at = torch.arange(width, device=query.device) if rows is None else rows
            at_S1 = (at + seen - width)[:, None]
            keys_L = torch.arange(seen, device=query.device)
            mask = keys_L <= at_S1
            if window is not None:
                mask &= keys_L > at_S1 - window
            self._masks[name] = mask
        return self._masks[name]

    def to_go_back(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The kept keys and values that got gradients, and those gradients."""
        tensors, gradients = [], []
        for layer, nodes in self.graphs.items():
            for node, graph in nodes.items():
                for tensor, leaf in zip(graph, self.leaves[layer][node], strict=True):
                    if leaf.grad is not None and tensor.requires_grad:
                        tensors.append(tensor)
                        gradients.append(leaf.grad)
        return tensors, gradients


def merged(outer: dict[int, dict[int, Pair]], more: dict[int, dict[int, Pair]]) -> Any:
    """Layer → node → leaves of both."""
    return {layer: {**outer.get(layer, {}), **nodes} for layer, nodes in more.items()}


def prefix_forest_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    running: Running,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it; ``running`` is the chunk under way."""
    layer: Any = module.layer_idx
    found = running.attend(layer, query, key, value, scaling=scaling, window=sliding_window)
    return found, None


AttentionInterface.register(NAME, prefix_forest_attention)


def sequence_of(forest: Forest, nodes: Sequence[int]) -> tuple[list[int], list[int]]:
    """Token ids and positions of nodes behind each other."""
    ids = [token for node in nodes for token in forest[node].tokens]
    positions = [
        forest[node].start + offset for node in nodes for offset in range(len(forest[node].tokens))
    ]
    return ids, positions
