"""Episodes that a model reads together: their keys and values, and which of them count.

Rows are kept apart by the attention mask: a hidden slot is never attended to, and positions count
real tokens only. A row has hidden slots where it waited for others: it was given fewer tokens, or
its reply had ended.

Shapes: B rows, S new tokens (left-padded), L cached slots, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from atlas_tune.agents.grouping import alike
from atlas_tune.agents.kv_cache import growing_cache, layers_of
from atlas_tune.agents.prefixes import longest_of_each, shared_prefix

SPARSE = 0.25
"""Where more slots than this share are hidden, moving the others together costs less than
attending to all."""


@dataclass
class Row:
    """One episode's place in the batch."""

    key: str
    seen: str = ""
    """The text whose tokens are in the cache or in ``pending``."""
    pending: tuple[int, ...] = ()
    """The last sampled token: chosen, but not yet read by the model."""
    tokens: int = 0
    """Real tokens in the cache: the position of the next one."""
    seed: int = 0
    """Of the reply that is being written."""


class Batch:
    """Rows and what the model has read of each.

    Args:
        model: a causal language model.
        rows: one an episode.
        cache: a growing one (:mod:`.kv_cache`) of these rows.
        mask_BL: 1 where a slot holds a real token of the row.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        rows: list[Row],
        cache: Cache,
        mask_BL: torch.Tensor,
    ) -> None:
        self.model = model
        self.rows = rows
        self.cache = cache
        self.mask_BL = mask_BL

    @classmethod
    def read(
        cls, model: PreTrainedModel, rows: list[Row], prompts: Sequence[list[int]]
    ) -> tuple[Batch, list[list[int]]]:
        """A batch that has read what its prompts share, and what each row has still to be fed.

        What all prompts begin with is read once. A prompt with which another one begins costs
        nothing: it is that one's row, cut off.
        """
        longest = longest_of_each(list(prompts))
        read = sorted(set(longest))
        shared = shared_prefix([prompts[i] for i in read])
        nothing_BL = torch.zeros(1, 0, dtype=torch.long, device=model.device)
        batch = cls(model, [Row("")], growing_cache(model.config), nothing_BL)
        if shared:
            batch.feed([shared])
        batch.select([0] * len(read))
        batch.rows = [rows[i] for i in read]
        for row in batch.rows:
            row.tokens = len(shared)
        if len(read) == len(rows):
            return batch, [ids[len(shared) :] for ids in prompts]
        rest = [prompts[i][len(shared) : -1] for i in read]
        if any(rest):
            batch.feed(rest)
        batch.select([read.index(i) for i in longest])
        batch._cut(rows, [len(ids) - 1 for ids in prompts])
        return batch, [ids[-1:] for ids in prompts]

    def feed(self, segments: Sequence[Sequence[int]]) -> torch.Tensor:
        """Read each row's new tokens; returns the logits after the last one, ``[B, V]``.

        Rows that get much more than others are read by themselves, not to pad all to their
        length. A row that gets nothing has no logits: whatever stands there means nothing.
        """
        fed = [place for place, segment in enumerate(segments) if segment]
        groups = [[fed[i] for i in group] for group in alike([len(segments[i]) for i in fed])]
        if len(groups) == 1:
            return self._feed(segments)
        parts = [self.some(group) for group in groups]
        found = [
            part._feed([segments[i] for i in group])
            for part, group in zip(parts, groups, strict=True)
        ]
        self.take_back(parts, groups)
        logits_BV = found[0].new_zeros(len(self.rows), found[0].shape[1])
        for group, logits in zip(groups, found, strict=True):
            logits_BV[group] = logits
        return logits_BV

    def _feed(self, segments: Sequence[Sequence[int]]) -> torch.Tensor:
        width = max(len(segment) for segment in segments)
        device = self.model.device
        ids_BS = torch.tensor([[0] * (width - len(s)) + [*s] for s in segments], device=device)
        real = [[0] * (width - len(s)) + [1] * len(s) for s in segments]
        real_BS = torch.tensor(real, device=device)
        first_B = torch.tensor([row.tokens for row in self.rows], device=device)
        self.mask_BL = torch.cat([self.mask_BL, real_BS], dim=1)
        output = self.model(
            input_ids=ids_BS,
            attention_mask=self.mask_BL,
            position_ids=(first_B[:, None] + real_BS.cumsum(1) - 1).clamp(min=0),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        for row, segment in zip(self.rows, segments, strict=True):
            row.tokens += len(segment)
        logits_BV: torch.Tensor = output.logits[:, -1]
        return logits_BV

    def select(self, indices: Sequence[int]) -> None:
        """Keep the rows at these places, in this order; one may be repeated."""
        index_B = torch.tensor(indices, device=self.model.device)
        self.rows = [self.rows[i] for i in indices]
        self.mask_BL = self.mask_BL[index_B]
        self.cache.batch_select_indices(index_B)

    def some(self, indices: Sequence[int]) -> Batch:
        """A batch of copies of these rows, which goes on without the others."""
        index_B = torch.tensor(indices, device=self.model.device)
        copies = Cache(layers=[layer.rows(index_B) for layer in layers_of(self.cache)])
        return Batch(self.model, [self.rows[i] for i in indices], copies, self.mask_BL[index_B])

    def take_back(self, parts: Sequence[Batch], places: Sequence[Sequence[int]]) -> None:
        """Put behind the rows at these places what copies of them have read since.

        The last slots of all parts come to stand below each other; a row has hidden slots before
        its own where another part has read more, or where it is in no part.
        """
        old = self.mask_BL.shape[1]
        width = max(part.mask_BL.shape[1] for part in parts) - old
        new_BL = self.mask_BL.new_zeros(len(self.rows), width)
        for layer in layers_of(self.cache):
            layer.extend(width)
        for part, place in zip(parts, places, strict=True):
            index_B = torch.tensor(place, device=self.model.device)
            its_BL = part.mask_BL[:, old:]
            new_BL[index_B, width - its_BL.shape[1] :] = its_BL
            layers = zip(layers_of(self.cache), layers_of(part.cache), strict=True)
            for layer, its in layers:
                layer.take_back(its, index_B, old)
        self.mask_BL = torch.cat([self.mask_BL, new_BL], dim=1)

    def pack(self) -> None:
        """Move real slots together where many are hidden. Keys carry their positions with them."""
        most = int(self.mask_BL.sum(1).max())
        if most >= self.mask_BL.shape[1] * (1 - SPARSE):
            return
        places_BL = self.mask_BL.argsort(dim=1, stable=True)[:, -most:]
        self.mask_BL = self.mask_BL.gather(1, places_BL)
        for layer in layers_of(self.cache):
            layer.choose(places_BL)

    def _cut(self, rows: list[Row], tokens: Sequence[int]) -> None:
        """Make these the rows, each with the first tokens of what its place holds.

        Under causal attention keys and values of a beginning do not depend on what follows, so
        hiding the rest gives the cache of the shorter prompt.
        """
        kept_B = torch.tensor(tokens, device=self.model.device)
        self.mask_BL = self.mask_BL * (self.mask_BL.cumsum(1) <= kept_B[:, None])
        self.rows = rows
        for row, count in zip(rows, tokens, strict=True):
            row.tokens = count
