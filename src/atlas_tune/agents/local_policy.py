"""A model on this machine, acting in many episodes at once.

All running episodes share one batch. Their keys and values stay in the cache from turn to turn,
so a turn costs the new observation and the reply, not the whole history; and what all episodes
begin with (the instruction) is computed once for all of them.

Rows of a batch are kept apart by the attention mask: a row's padding slots are never attended to,
and positions count real tokens only, so that the reply to a conversation is the one it would get
alone (up to the rounding of batched arithmetic). Models with a sliding window, whose masks count
slots, act in one episode at a time.

Shapes: B episodes, S new tokens of a turn (left-padded), L cached positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import Cache

from atlas_tune.agents.chat_template import render_text
from atlas_tune.agents.kv_cache import growing_cache
from atlas_tune.agents.local_model import load_model, load_tokenizer
from atlas_tune.trajectory.messages import Message


@dataclass
class _Row:
    """One episode's place in the batch."""

    key: str
    seen: str = ""
    """The text whose tokens are in the cache or in ``pending``."""
    pending: tuple[int, ...] = ()
    """The last sampled token: chosen, but not yet read by the model."""
    tokens: int = 0
    """Real tokens in the cache: the position of the next one."""


class LocalPolicy:
    """Greedy decoding with a transformers model.

    Args:
        model: a causal language model; its own dtype and device are used.
        tokenizer: its tokenizer, with a chat template.
        max_new_tokens: the longest reply; a longer one is cut there.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_new_tokens: int = 256,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_new_tokens = max_new_tokens
        self.ends = _end_tokens(model, tokenizer)
        # A window counts slots of the cache, hidden ones too, so rows of a batch would see less
        # than alone: models with one act in one episode at a time.
        self._windowed = "sliding_attention" in (getattr(model.config, "layer_types", None) or ())
        self._rows: list[_Row] = []
        self._cache: Cache | None = None
        self._mask_BL = torch.zeros(0, 0, dtype=torch.long)

    @torch.inference_mode()
    def replies(self, conversations: Mapping[str, Sequence[Message]]) -> dict[str, str]:
        """The next assistant message of each conversation, without its end-of-turn token."""
        texts = {
            key: render_text(self.tokenizer, messages, generation_prompt=True)
            for key, messages in conversations.items()
        }
        if self._windowed:
            return {key: self._batch({key: text})[key] for key, text in texts.items()}
        return self._batch(texts) if texts else {}

    def _batch(self, texts: Mapping[str, str]) -> dict[str, str]:
        if self._all_continue(texts):
            self._keep(set(texts))
            segments = [self._continue(row, texts[row.key]) for row in self._rows]
        else:
            segments = self._start(texts)
        return self._generate(self._feed(segments))

    def _all_continue(self, texts: Mapping[str, str]) -> bool:
        """Whether every text goes on from what the cache holds.

        A new episode does not; nor does a conversation whose past the template rewrote (it
        dropped a thought, it trimmed a reply). Then all are read anew.
        """
        seen = {row.key: row.seen for row in self._rows}
        return all(key in seen and text.startswith(seen[key]) for key, text in texts.items())

    def _start(self, texts: Mapping[str, str]) -> list[list[int]]:
        """A new batch: read what all prompts begin with once, and return the rest of each."""
        prompts = {key: self._encode(text) for key, text in texts.items()}
        self._rows = [_Row(key, seen=text) for key, text in texts.items()]
        self._cache = growing_cache(self.model.config)
        self._mask_BL = torch.zeros(1, 0, dtype=torch.long, device=self.model.device)
        shared = _shared_prefix(list(prompts.values()))
        if shared:
            self._forward(torch.tensor([shared]), torch.ones(1, len(shared), dtype=torch.long))
        everyone = torch.zeros(len(self._rows), dtype=torch.long, device=self.model.device)
        self._select(everyone)
        for row in self._rows:
            row.tokens = len(shared)
        return [ids[len(shared) :] for ids in prompts.values()]

    def _continue(self, row: _Row, text: str) -> list[int]:
        """The tokens that a row's conversation has gained since the last reply."""
        fresh = [*row.pending, *self._encode(text[len(row.seen) :])]
        row.seen, row.pending = text, ()
        return fresh

    def _keep(self, keys: set[str]) -> None:
        """Drop the episodes that have ended."""
        kept = [i for i, row in enumerate(self._rows) if row.key in keys]
        if len(kept) < len(self._rows):
            self._rows = [self._rows[i] for i in kept]
            self._select(torch.tensor(kept, device=self.model.device))

    def _select(self, indices: torch.Tensor) -> None:
        assert self._cache is not None
        self._mask_BL = self._mask_BL[indices]
        self._cache.batch_select_indices(indices)

    def _feed(self, segments: list[list[int]]) -> torch.Tensor:
        """Read each row's new tokens; returns the logits after the last one, ``[B, V]``."""
        width = max(len(segment) for segment in segments)
        ids_BS = torch.tensor([[0] * (width - len(s)) + s for s in segments])
        real_BS = torch.tensor([[0] * (width - len(s)) + [1] * len(s) for s in segments])
        return self._forward(ids_BS, real_BS)

    def _forward(self, ids_BS: torch.Tensor, real_BS: torch.Tensor) -> torch.Tensor:
        device = self.model.device
        ids_BS, real_BS = ids_BS.to(device), real_BS.to(device)
        first_B = torch.tensor([row.tokens for row in self._rows[: len(ids_BS)]], device=device)
        positions_BS = (first_B[:, None] + real_BS.cumsum(1) - 1).clamp(min=0)
        self._mask_BL = torch.cat([self._mask_BL, real_BS], dim=1)
        output = self.model(
            input_ids=ids_BS,
            attention_mask=self._mask_BL,
            position_ids=positions_BS,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        for row, count in zip(self._rows, real_BS.sum(1).tolist(), strict=False):
            row.tokens += count
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _generate(self, logits_BV: torch.Tensor) -> dict[str, str]:
        sampled: list[list[int]] = [[] for _ in self._rows]
        open_rows = set(range(len(self._rows)))
        for _ in range(self.max_new_tokens):
            chosen = logits_BV.argmax(-1).tolist()
            for i in sorted(open_rows):
                sampled[i].append(chosen[i])
            open_rows = {i for i in open_rows if chosen[i] not in self.ends}
            if not open_rows or len(sampled[min(open_rows)]) == self.max_new_tokens:
                break
            # A row that has ended gets a hidden slot, so that the others can go on.
            ids = [[chosen[i] if i in open_rows else 0] for i in range(len(self._rows))]
            real = [[int(i in open_rows)] for i in range(len(self._rows))]
            logits_BV = self._forward(torch.tensor(ids), torch.tensor(real))
        return {
            row.key: self._finish(row, ids) for row, ids in zip(self._rows, sampled, strict=True)
        }

    def _finish(self, row: _Row, sampled: list[int]) -> str:
        """The reply's text; remembers what the cache holds of it."""
        ended = sampled[-1] in self.ends
        text = self._decode(sampled[:-1] if ended else sampled)
        row.pending = tuple(sampled[-1:])
        row.seen += text + (self._decode(sampled[-1:]) if ended else "")
        return text

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _decode(self, ids: list[int]) -> str:
        return str(
            self.tokenizer.decode(
                ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )


def _shared_prefix(prompts: list[list[int]]) -> list[int]:
    """The tokens with which all prompts begin, short of the last token of any prompt."""
    limit = min(len(prompt) for prompt in prompts) - 1
    first = prompts[0]
    length = 0
    while length < limit and all(prompt[length] == first[length] for prompt in prompts):
        length += 1
    return first[:length]


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The tokens that end a turn: the tokenizer's, and those of the generation settings."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    several = configured if isinstance(configured, list) else [configured]
    return {token for token in (*several, tokenizer.eos_token_id) if token is not None}


def load_policy(model: str, max_new_tokens: int, precision: str = "bfloat16") -> LocalPolicy:
    """A policy from a hub id, a directory or a GGUF file, on the GPU where there is one.

    Raises:
        AtlasError: the model cannot be found, or has no chat template.
    """
    loaded = load_model(model, getattr(torch, precision))
    if torch.cuda.is_available():
        loaded = loaded.to("cuda")  # type: ignore[arg-type]
    return LocalPolicy(loaded, load_tokenizer(model), max_new_tokens)
