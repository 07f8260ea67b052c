"""A model on this machine, acting in many episodes at once.

All running episodes share one batch. Their keys and values stay in the cache from turn to turn,
so a turn costs the new observation and the reply, not the whole history; and what all episodes
begin with (the instruction) is computed once for all of them. Where one prompt begins another one,
as the places of one recorded run do, the longest is read once for all.

At a temperature above 0 tokens are sampled, each reply with random numbers of its own: see
:mod:`.streams`.

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
from atlas_tune.agents.history import History, Overlong
from atlas_tune.agents.kv_cache import growing_cache
from atlas_tune.agents.local_model import load_model, load_tokenizer
from atlas_tune.agents.making import ConversationTooLong
from atlas_tune.agents.prefixes import longest_of_each, shared_prefix
from atlas_tune.agents.sampling import sample
from atlas_tune.agents.streams import hashed, reply_seed
from atlas_tune.errors import UsageError
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
    seed: int = 0
    """Of the reply that is being written."""


class LocalPolicy:
    """A transformers model that answers, greedily unless it is given a temperature.

    A reply is the same alone and in any batch, up to rounding. One exception: a template that
    rewrites the past of one conversation lets the whole batch be read anew, as text, and a model
    may have written tokens that its tokenizer would not choose.

    Args:
        model: a causal language model; its own dtype and device are used.
        tokenizer: its tokenizer, with a chat template.
        max_new_tokens: the longest reply; a longer one is cut there.
        temperature: 0 takes the likeliest token; above 0, tokens are sampled from
            softmax(logits / temperature).
        seed: of the samples; with the episode's key and turn it decides a reply.
        context: the most tokens of prompt and reply together; None checks nothing.
        overlong: what is done with a conversation beyond the context: refuse it, or leave out
            old observations by the rule of :mod:`.history`. A past that was changed so is read
            anew, with the whole batch.

    Raises:
        UsageError: the temperature is below 0, or ``overlong`` is neither word.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_new_tokens: int = 256,
        *,
        temperature: float = 0.0,
        seed: int = 0,
        context: int | None = None,
        overlong: Overlong = "refuse",
    ) -> None:
        if not temperature >= 0:
            raise UsageError(f"A temperature is 0 (greedy) or above, not {temperature}.")
        if overlong not in ("drop", "refuse"):
            raise UsageError(f"overlong is 'drop' or 'refuse', not '{overlong}'.")
        self.model = model
        self.tokenizer = tokenizer
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.seed = seed
        self.context = context
        room = None if context is None or overlong == "refuse" else context - max_new_tokens
        self._history = None if room is None else History(self._tokens, room)
        self.ends = _end_tokens(model, tokenizer)
        # A window counts slots of the cache, hidden ones too, so rows of a batch would see less
        # than alone: models with one act in one episode at a time.
        self._windowed = "sliding_attention" in (getattr(model.config, "layer_types", None) or ())
        self._rows: list[_Row] = []
        self._cache: Cache | None = None
        self._mask_BL = torch.zeros(0, 0, dtype=torch.long)

    @torch.inference_mode()
    def replies(self, conversations: Mapping[str, Sequence[Message]]) -> dict[str, str]:
        """The next assistant message of each conversation, without its end-of-turn token.

        Raises:
            ConversationTooLong: a conversation and its reply may not fit into the context.
        """
        texts = {
            key: self._rendered(self._shown(key, messages))
            for key, messages in conversations.items()
        }
        if self._history is not None:
            self._history.keep(conversations)
        seeds = {key: reply_seed(self.seed, key, said) for key, said in conversations.items()}
        if self._windowed:
            return {key: self._batch({key: text}, seeds)[key] for key, text in texts.items()}
        return self._batch(texts, seeds) if texts else {}

    def _shown(self, key: str, messages: Sequence[Message]) -> Sequence[Message]:
        """What the model sees of a conversation."""
        return messages if self._history is None else self._history.shown(key, messages)

    def _rendered(self, messages: Sequence[Message]) -> str:
        return render_text(self.tokenizer, messages, generation_prompt=True)

    def _tokens(self, messages: Sequence[Message]) -> int:
        return len(self._encode(self._rendered(messages)))

    def forget(self) -> None:
        """Drop all episodes and the memory that their keys and values take."""
        self._rows = []
        self._cache = None
        self._mask_BL = torch.zeros(0, 0, dtype=torch.long)

    def _batch(self, texts: Mapping[str, str], seeds: Mapping[str, int]) -> dict[str, str]:
        if self._all_continue(texts):
            self._keep(set(texts))
            segments = [self._continue(row, texts[row.key]) for row in self._rows]
            lengths = {
                row.key: row.tokens + len(segment)
                for row, segment in zip(self._rows, segments, strict=True)
            }
            # The tokens that a model wrote can be more than its tokenizer makes of their text, by
            # which the history was measured: read from the text, it fits.
            if self._history is not None and not all(map(self._fits, lengths.values())):
                segments = self._start(texts)
            else:
                self._check_fits(lengths)
        else:
            segments = self._start(texts)
        for row in self._rows:
            row.seed = seeds[row.key]
        return self._generate(self._feed(segments))

    def _fits(self, prompt: int) -> bool:
        return self.context is None or prompt + self.max_new_tokens <= self.context

    def _check_fits(self, lengths: Mapping[str, int]) -> None:
        over = tuple(key for key, length in lengths.items() if not self._fits(length))
        if over:
            self.forget()
            raise ConversationTooLong(
                f"The conversation has {lengths[over[0]]} tokens, and with a reply of up to "
                f"{self.max_new_tokens} it exceeds the {self.context} that the model can read.",
                over,
            )

    def _all_continue(self, texts: Mapping[str, str]) -> bool:
        """Whether every text goes on from what the cache holds.

        A new episode does not; nor does a conversation whose past the template rewrote (it
        dropped a thought, it trimmed a reply). Then all are read anew.
        """
        seen = {row.key: row.seen for row in self._rows}
        return all(key in seen and text.startswith(seen[key]) for key, text in texts.items())

    def _start(self, texts: Mapping[str, str]) -> list[list[int]]:
        """A new batch: read what all prompts begin with once, and return the rest of each.

        A prompt with which another one begins costs nothing: it is that one's row, cut off.
        """
        prompts = [self._encode(text) for text in texts.values()]
        self._check_fits({key: len(ids) for key, ids in zip(texts, prompts, strict=True)})
        rows = [_Row(key, seen=text) for key, text in texts.items()]
        longest = longest_of_each(prompts)
        read = sorted(set(longest))
        self._rows = [rows[i] for i in read]
        self._cache = growing_cache(self.model.config)
        self._mask_BL = torch.zeros(1, 0, dtype=torch.long, device=self.model.device)
        shared = shared_prefix([prompts[i] for i in read])
        if shared:
            self._forward(torch.tensor([shared]), torch.ones(1, len(shared), dtype=torch.long))
        everyone = torch.zeros(len(read), dtype=torch.long, device=self.model.device)
        self._select(everyone)
        for row in self._rows:
            row.tokens = len(shared)
        if len(read) == len(rows):
            return [ids[len(shared) :] for ids in prompts]
        rest = [prompts[i][len(shared) : -1] for i in read]
        if any(rest):
            self._feed(rest)
        self._cut(rows, [read.index(i) for i in longest], [len(ids) - 1 for ids in prompts])
        return [ids[-1:] for ids in prompts]

    def _cut(self, rows: list[_Row], of: list[int], tokens: list[int]) -> None:
        """Make the batch ``rows`` of the rows that were read: each the first tokens of one.

        Under causal attention keys and values of a beginning do not depend on what follows, so
        hiding the rest gives the cache of the shorter prompt.
        """
        device = self.model.device
        self._select(torch.tensor(of, device=device))
        kept_B = torch.tensor(tokens, device=device)
        self._mask_BL = self._mask_BL * (self._mask_BL.cumsum(1) <= kept_B[:, None])
        self._rows = rows
        for row, count in zip(rows, tokens, strict=True):
            row.tokens = count

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
        for place in range(self.max_new_tokens):
            chosen = self._choose(logits_BV, place)
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

    def _choose(self, logits_BV: torch.Tensor, place: int) -> list[int]:
        """Each row's next token, the one at ``place`` of its reply."""
        if self.temperature == 0:
            chosen = logits_BV.argmax(-1)
        else:
            seeds = [hashed(row.seed, place) for row in self._rows]
            chosen = sample(logits_BV, self.temperature, seeds)
        tokens: list[int] = chosen.tolist()
        return tokens

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
