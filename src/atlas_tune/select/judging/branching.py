"""Reading prompts that begin alike: what they share is read once, each end is a short branch.

Causal attention lets no token touch an earlier one, so keys and values of a common beginning are
the same for all prompts, whatever follows. The cache is cut back to what the next prompt shares
with the last, and only the rest is read. That is exact for any chat template, because what is
shared is found among the tokens of the finished prompts.

Labels must not depend on the order of trajectories, not even in the rounding of bfloat16. So the
shapes of all forward passes are a function of the prompts alone: between trajectories nothing is
kept but a given preamble, which is always read by itself.

Shapes: B branches, S tokens of a branch, L cached positions, F tokens of interest, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atlas_tune.errors import AtlasError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel
    from transformers.cache_utils import Cache

    from atlas_tune.agents.kv_cache import GrowingLayer

CHUNK = 1024
"""The most tokens of one forward pass, which bounds the memory of a long record's first reading."""


@dataclass(frozen=True, slots=True)
class Group:
    """Prompts that are asked at once: their common beginning, and what is left of each."""

    trunk: tuple[int, ...]
    ends: tuple[tuple[int, ...], ...]
    """At least one token each."""


def groups_of(prompts: Sequence[Sequence[int]], branches: int) -> Iterator[Group]:
    """At most ``branches`` neighbouring prompts a group, in order."""
    for start in range(0, len(prompts), branches):
        some = prompts[start : start + branches]
        length = min(shared_length(some[0], prompt) for prompt in some)
        length = min(length, min(map(len, some)) - 1)
        yield Group(tuple(some[0][:length]), tuple(tuple(p[length:]) for p in some))


def shared_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two prompts begin with alike."""
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return index
    return min(len(one), len(other))


class BranchCount:
    """Counts what a :class:`BranchReader` would read, without a model."""

    def __init__(self, preamble: Sequence[int] = ()) -> None:
        self.tokens = 0
        """Tokens counted so far."""
        self._preamble = tuple(preamble)
        self._held = 0

    def read(self, prompts: Sequence[Sequence[int]], branches: int) -> None:
        """Count the prompts of one trajectory."""
        if tuple(prompts[0][: len(self._preamble)]) == self._preamble:
            self.tokens += len(self._preamble) - self._held
            self._held = len(self._preamble)
            cached: Sequence[int] = self._preamble
        else:
            self._held, cached = 0, ()
        for group in groups_of(prompts, branches):
            kept = shared_length(cached, group.trunk)
            self.tokens += len(group.trunk) - kept + sum(map(len, group.ends))
            cached = group.trunk


class BranchReader:
    """A model and the keys and values of what it read last.

    Args:
        model: a causal language model; its own dtype and device are used.
        preamble: the tokens with which the prompts of all trajectories begin.

    Raises:
        AtlasError: the model keeps a running state, which cannot be cut back.
    """

    def __init__(self, model: PreTrainedModel, preamble: Sequence[int] = ()) -> None:
        if getattr(model, "_is_stateful", False):
            raise AtlasError(
                f"The model {model.name_or_path} keeps a running state instead of keys and values "
                "(as Mamba does), which cannot be cut back to where two questions part: ask a "
                "model with attention alone."
            )
        self.model = model
        self.tokens = 0
        """Tokens read so far."""
        self._preamble = tuple(preamble)
        self._cached: tuple[int, ...] = ()
        self._cache: Cache | None = None

    def read(self, prompts: Sequence[Sequence[int]], branches: int) -> torch.Tensor:
        """The logits of the token that follows each prompt, ``[len(prompts), V]``, on the CPU.

        Args:
            prompts: token ids, of one trajectory.
            branches: how many ends are read at once; so many copies of the cache are held.
        """
        import torch

        with torch.inference_mode():
            self._rewind(prompts[0])
            found = [self._ask(group) for group in groups_of(prompts, branches)]
        return torch.cat(found)

    def _rewind(self, prompt: Sequence[int]) -> None:
        """Keep of the cache the preamble alone, or nothing where a prompt begins otherwise."""
        held = len(self._preamble)
        if tuple(prompt[:held]) != self._preamble:
            self._crop(0)
        elif self._cached[:held] == self._preamble:
            self._crop(held)
        else:
            self._crop(0)
            self._extend(self._preamble)

    def _ask(self, group: Group) -> torch.Tensor:
        """The logits after each end of a group, ``[B, V]``; the cache is left with its trunk."""
        kept = shared_length(self._cached, group.trunk)
        self._crop(kept)
        if len(group.ends) == 1:
            # Read in one go: a pass of its own for the end would read all weights again.
            logits_V = self._extend(group.trunk[kept:] + group.ends[0])
            self._crop(len(group.trunk))
            return logits_V[None]
        self._extend(group.trunk[kept:])
        return self._branch(group.ends)

    def _branch(self, ends: Sequence[Sequence[int]]) -> torch.Tensor:
        """Read all ends against copies of the cache, ``[B, V]``.

        They are padded on the right: no real token sees what comes after it, so neither a mask nor
        positions are needed, and sliding windows count right.
        """
        import torch

        from atlas_tune.agents.kv_cache import growing_cache, layers_of

        lengths = [len(end) for end in ends]
        width, rows = max(lengths), len(ends)
        copies = growing_cache(self.model.config)
        length = len(self._cached)
        for own, copy in zip(self._layers(), layers_of(copies), strict=True):
            if length:
                assert own.keys is not None and own.values is not None
                copy.update(
                    own.keys[:, :, :length].expand(rows, -1, -1, -1),
                    own.values[:, :, :length].expand(rows, -1, -1, -1),
                )
        ids_BS = torch.tensor([[*end, *[0] * (width - len(end))] for end in ends])
        kept = width - min(lengths) + 1
        output = self.model(
            input_ids=ids_BS.to(self.model.device),
            past_key_values=copies,
            use_cache=True,
            logits_to_keep=kept,
        )
        self.tokens += sum(lengths)
        last_B = torch.tensor(lengths) - 1 - (width - kept)
        logits: torch.Tensor = output.logits[torch.arange(rows), last_B]
        return logits.cpu()

    def _extend(self, tokens: Sequence[int]) -> torch.Tensor:
        """Read tokens into the cache; the logits after the last one, ``[V]``."""
        import torch

        from atlas_tune.agents.kv_cache import growing_cache

        if self._cache is None:
            self._cache = growing_cache(self.model.config)
        logits = torch.empty(0)
        for start in range(0, len(tokens), CHUNK):
            ids_1S = torch.tensor([list(tokens[start : start + CHUNK])], device=self.model.device)
            output = self.model(
                input_ids=ids_1S, past_key_values=self._cache, use_cache=True, logits_to_keep=1
            )
            logits = output.logits[0, -1].cpu()
        self._cached += tuple(tokens)
        self.tokens += len(tokens)
        return logits

    def _crop(self, length: int) -> None:
        """Forget all but the first tokens; their buffers stay, and are written over."""
        for layer in self._layers():
            layer.length = min(length, layer.length)
        self._cached = self._cached[:length]

    def _layers(self) -> list[GrowingLayer]:
        from atlas_tune.agents.kv_cache import layers_of

        return [] if self._cache is None else layers_of(self._cache)
