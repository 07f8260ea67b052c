"""How likely a base policy finds what the expert did: log π₀ of every token of every step.

All steps of a trajectory come out of one forward pass, because under causal attention the
prediction of a token sees what stands before it and nothing else. Where a chat template rewrites
the past, each step is read behind its true prompt, one pass a step (:mod:`.passages`).

Three things keep it cheap, and none changes a number: a sequence is read in chunks against a
key-value cache, so memory grows with keys and not with attention; what a sequence shares with the
last one stays in the cache; and only positions that predict a step's token go through the
language-model head, so that no ``[T, V]`` is ever made. ``tests/select/test_likelihood.py`` holds
it against one plain forward pass a step.

Models whose state is no list of keys (Mamba, hybrids) and those whose rotary angles depend on the
length (dynamic and long RoPE) read each passage whole. Trajectories are read one at a time.

Shapes: S tokens of a chunk, R of them that predict a token of a step, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from atlas_tune.agents.local_model import load_model, load_tokenizer
from atlas_tune.errors import AtlasError
from atlas_tune.select.base import CannotLabel
from atlas_tune.select.likelihoods.passages import (
    CHUNK_TOKENS,
    Passage,
    kept_tokens,
    passages_of,
)
from atlas_tune.trajectory import Trajectory
from atlas_tune.tune.settings import Precision

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Tokens = Literal["all", "action"]
"""Which tokens of a step count: all that training supervises, or those of the action alone."""

_SOFTMAX_ROWS = 64
_PLAIN_LAYERS = {"full_attention", "sliding_attention"}


@dataclass(frozen=True, slots=True)
class StepLikelihood:
    """What a model makes of one agent step, token by token, in nats."""

    step_id: int
    token_ids: tuple[int, ...]
    """Its supervised tokens: text, tool calls, and the one that ends the turn."""
    log_probs: tuple[float, ...]
    """log π(token | all before it), one per token."""
    is_action: tuple[bool, ...]
    """Whether a token belongs to the action: the line after ``Action:``, or a tool call."""

    def counted(self, tokens: Tokens) -> tuple[float, ...]:
        """The log-probabilities that count; empty where no action could be read.

        ``all`` has the token that ends the turn, because training supervises it; ``action`` does
        not.
        """
        if tokens == "all":
            return self.log_probs
        pairs = zip(self.log_probs, self.is_action, strict=True)
        return tuple(value for value, acts in pairs if acts)


class StepScorer:
    """Reads trajectories with one model; keeps what the next one shares with the last.

    Args:
        model: a causal language model; its own dtype and device are used.
        tokenizer: its tokenizer, with a chat template.
        chunk_tokens: the most tokens read at once; bounds memory, and changes nothing but the
            rounding.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        chunk_tokens: int = CHUNK_TOKENS,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.chunk_tokens = chunk_tokens
        self._in_chunks = _keeps_keys(model)
        self._limit = context_length(model.config)
        self._last: Passage | None = None
        self._cache: Any = None

    def likelihoods(self, trajectory: Trajectory, told: str = "") -> list[StepLikelihood]:
        """Every agent step of a trajectory, in order.

        Args:
            trajectory: whose steps are wanted.
            told: words that the opening gets besides, see :func:`.passages.tell`.

        Raises:
            CannotLabel: its tokens cannot be told exactly, or the model cannot read so many.
            AtlasError: the tokenizer has no chat template, or the model gives no numbers.
        """
        passages = passages_of(self.tokenizer, trajectory, told, self.chunk_tokens)
        check_length(passages, self._limit)
        return [step for passage in passages for step in self._read(passage)]

    def _read(self, passage: Passage) -> list[StepLikelihood]:
        import torch

        rows = [i - 1 for step in passage.steps for i in range(step.start, step.end)]
        with torch.inference_mode():
            read = torch.cat(list(self._log_probs(passage, rows))).tolist()
        if not all(map(math.isfinite, read)):
            raise AtlasError(
                f"The model {self.model.name_or_path} gives likelihoods that are not numbers: set "
                "precision to float32, or use another model."
            )
        by_row = dict(zip(rows, read, strict=True))
        return [
            StepLikelihood(
                step.step_id,
                passage.ids[step.start : step.end],
                tuple(by_row[i - 1] for i in range(step.start, step.end)),
                step.is_action,
            )
            for step in passage.steps
        ]

    def _log_probs(self, passage: Passage, rows: list[int]) -> Iterator[torch.Tensor]:
        """log π of the token behind each row, chunk by chunk."""
        wanted = set(rows)
        start = self._prepare(passage)
        for end in passage.ends if self._in_chunks else (passage.length,):
            if end > start:
                chunk_rows = [row for row in range(start, end) if row in wanted]
                logits_RV = self._forward(passage.ids[start:end], [r - start for r in chunk_rows])
                yield _log_probs(logits_RV, [passage.ids[row + 1] for row in chunk_rows])
                start = end
        self._last = passage if self._in_chunks else None

    def _prepare(self, passage: Passage) -> int:
        """Cut the cache to what the passage shares with the last one; returns how much that is."""
        from atlas_tune.agents.kv_cache import growing_cache

        if not self._in_chunks:
            return 0
        kept = kept_tokens(self._last, passage)
        # Until the passage is read to its end the cache holds part of it: after an error in
        # between, the next one starts from nothing.
        self._last = None
        if not kept:
            self._cache = growing_cache(self.model.config)
        else:
            for layer in self._cache.layers:
                layer.length = min(layer.length, kept)
        return kept

    def _forward(self, ids: tuple[int, ...], rows: list[int]) -> torch.Tensor:
        """The logits ``[R, V]`` at some rows of a chunk."""
        import torch

        from atlas_tune.tune.loss import head_on_rows

        device = self.model.device
        rows_1S = torch.zeros(1, len(ids), dtype=torch.bool, device=device)
        rows_1S[0, rows] = True
        cache = {"past_key_values": self._cache, "use_cache": True} if self._in_chunks else {}
        with head_on_rows(self.model, rows_1S):
            read = self.model(
                input_ids=torch.tensor([ids], device=device), **(cache or {"use_cache": False})
            )
        logits_RV: torch.Tensor = read.logits[0]
        return logits_RV


def _log_probs(logits_RV: torch.Tensor, targets: list[int]) -> torch.Tensor:
    """log softmax at the targets, ``[R]``, in float32 at least, a few rows at a time."""
    import torch

    found = []
    for start in range(0, len(targets), _SOFTMAX_ROWS):
        some_RV = logits_RV[start : start + _SOFTMAX_ROWS]
        if some_RV.dtype in (torch.bfloat16, torch.float16):
            some_RV = some_RV.float()
        chosen = torch.tensor(targets[start : start + _SOFTMAX_ROWS], device=some_RV.device)
        picked = some_RV.gather(1, chosen[:, None])[:, 0]
        found.append((picked - some_RV.logsumexp(1)).double().cpu())
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)


def _keeps_keys(model: PreTrainedModel) -> bool:
    """Whether a sequence may be read in pieces against a cache of keys and values."""
    config = model.config.get_text_config(decoder=True)
    layers = set(getattr(config, "layer_types", None) or ())
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(part for part in rope.values() if isinstance(part, dict))]
    by_length = any(
        kind.get("rope_type") == "longrope" or "dynamic" in str(kind.get("rope_type"))
        for kind in kinds
    )
    stateful = getattr(model, "_is_stateful", False)
    return not stateful and layers <= _PLAIN_LAYERS and not by_length


def context_length(config: Any) -> int | None:
    """The most tokens that a model can read, where its configuration names a limit."""
    text_config = config.get_text_config(decoder=True)
    limit: int | None = getattr(text_config, "max_position_embeddings", None)
    return limit


def check_length(passages: Iterable[Passage], limit: int | None) -> None:
    """Refuse what a model cannot read.

    Raises:
        CannotLabel: a passage has more tokens than the limit.
    """
    longest = max(passage.length for passage in passages)
    if limit is not None and longest > limit:
        raise CannotLabel(
            f"it has {longest} tokens up to its last step, and the model reads at most {limit}: "
            "use a model with a longer context"
        )


def load_scorer(model: str, precision: Precision) -> StepScorer:
    """A scorer from a hub id, a directory or a GGUF file, on the GPU where there is one.

    Raises:
        AtlasError: the model cannot be found.
    """
    import torch

    loaded = load_model(model, getattr(torch, precision))
    if torch.cuda.is_available():
        loaded = loaded.to("cuda")  # type: ignore[arg-type]
    return StepScorer(loaded, load_tokenizer(model))
