"""A key-value cache that grows in place.

transformers' own dynamic cache copies all keys and values for every new token (``torch.cat``).
With dozens of episodes of a thousand tokens that copy costs more than the model. This layer
writes into a buffer with room to spare and doubles it when it is full; what attention sees is
the same tensor values in the same order.

Shapes: B episodes, H key-value heads, L cached positions, D head width.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicLayer


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """One layer's keys and values, ``[B, H, L, D]`` views of larger buffers."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.length = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append new positions and return all keys and values, ``[B, H, L, D]`` each."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._keys = key_states.new_empty(*key_states.shape[:2], 0, key_states.shape[3])
            self._values = value_states.new_empty(*value_states.shape[:2], 0, value_states.shape[3])
        needed = self.length + key_states.shape[2]
        if needed > self._keys.shape[2]:
            self._keys = self._grown(self._keys, needed)
            self._values = self._grown(self._values, needed)
        self._keys[:, :, self.length : needed] = key_states
        self._values[:, :, self.length : needed] = value_states
        self._show(needed)
        assert self.keys is not None and self.values is not None
        return self.keys, self.values

    def _grown(self, buffer: torch.Tensor, needed: int) -> torch.Tensor:
        size = max(needed + 64, needed * 5 // 4)
        grown = buffer.new_empty(buffer.shape[0], buffer.shape[1], size, buffer.shape[3])
        grown[:, :, : self.length] = buffer[:, :, : self.length]
        return grown

    def get_seq_length(self) -> int:
        """L, the number of cached positions."""
        return self.length

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep the given episodes; an index may be repeated."""
        if self.length:
            self._keys = self._keys[indices]
            self._values = self._values[indices]
            self._show(self.length)

    def rows(self, indices: torch.Tensor) -> GrowingLayer:
        """A copy of the given episodes."""
        copy = GrowingLayer()
        if self.length:
            assert self.keys is not None and self.values is not None
            copy.update(self.keys[indices], self.values[indices])
        return copy

    def extend(self, width: int) -> None:
        """Append so many positions of zeros to every episode."""
        keys, values = (
            buffer.new_zeros(*buffer.shape[:2], width, buffer.shape[3])
            for buffer in (self._keys, self._values)
        )
        self.update(keys, values)

    def take_back(self, rows: GrowingLayer, indices: torch.Tensor, known: int) -> None:
        """Write what a copy of the given episodes has gained into their last positions.

        ``known`` is how many positions the copy began with.
        """
        assert rows.keys is not None and rows.values is not None
        begin = self.length - (rows.length - known)
        self._keys[indices, :, begin : self.length] = rows.keys[:, :, known:]
        self._values[indices, :, begin : self.length] = rows.values[:, :, known:]

    def choose(self, places_BP: torch.Tensor) -> None:
        """Keep the positions at these places of each episode, in this order."""
        episodes_B1 = torch.arange(len(places_BP), device=places_BP.device)[:, None]
        # Chosen with the heads last, whole vectors are copied.
        self._keys = self._keys.transpose(1, 2)[episodes_B1, places_BP].transpose(1, 2)
        self._values = self._values.transpose(1, 2)[episodes_B1, places_BP].transpose(1, 2)
        self._show(places_BP.shape[1])

    def _show(self, length: int) -> None:
        """Let attention see the first positions of the buffers."""
        self.length = length
        self.keys = self._keys[:, :, :length]
        self.values = self._values[:, :, :length]


def growing_cache(config: PreTrainedConfig) -> Cache:
    """A cache with one growing layer per layer of the model.

    Sliding-window layers are given full attention's cache: the model's own mask hides what lies
    outside the window.
    """
    text_config = config.get_text_config(decoder=True)
    return Cache(layers=[GrowingLayer() for _ in range(text_config.num_hidden_layers)])


def layers_of(cache: Cache) -> list[GrowingLayer]:
    """The layers of a growing cache."""
    return [layer for layer in cache.layers if isinstance(layer, GrowingLayer)]
