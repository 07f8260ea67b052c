"""A model on this machine, acting in many episodes at once.

All running episodes share one batch. Their keys and values stay in the cache from turn to turn,
so a turn costs the new observation and the reply, not the whole history; and what all episodes
begin with (the instruction) is computed once for all of them. Where one prompt begins another one,
as the places of one recorded run do, the longest is read once for all.

At a temperature above 0 tokens are sampled, each reply with random numbers of its own: see
:mod:`.streams`.

Rows of a batch are kept apart (:mod:`.batch`), so that the reply to a conversation is the one it
would get alone, up to the rounding of batched arithmetic. When half of the rows have ended their
replies, the others go on without them. Models with a sliding window, whose masks count slots, act
in one episode at a time.

Shapes: B episodes, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from atlas_tune.agents.batch import Batch, Row
from atlas_tune.agents.chat_template import render_text
from atlas_tune.agents.history import History, Overlong
from atlas_tune.agents.local_model import load_model, load_tokenizer
from atlas_tune.agents.making import ConversationTooLong
from atlas_tune.agents.sampling import sample
from atlas_tune.agents.streams import hashed, reply_seed
from atlas_tune.errors import UsageError
from atlas_tune.trajectory.messages import Message


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
        self._windowed = has_window(model.config)
        self._batch: Batch | None = None

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
            return {key: self._replies({key: text}, seeds)[key] for key, text in texts.items()}
        return self._replies(texts, seeds) if texts else {}

    def _shown(self, key: str, messages: Sequence[Message]) -> Sequence[Message]:
        """What the model sees of a conversation."""
        return messages if self._history is None else self._history.shown(key, messages)

    def _rendered(self, messages: Sequence[Message]) -> str:
        return render_text(self.tokenizer, messages, generation_prompt=True)

    def _tokens(self, messages: Sequence[Message]) -> int:
        return len(self._encode(self._rendered(messages)))

    def forget(self) -> None:
        """Drop all episodes and the memory that their keys and values take."""
        self._batch = None

    def _replies(self, texts: Mapping[str, str], seeds: Mapping[str, int]) -> dict[str, str]:
        batch, segments = self._going_on(texts) or self._begun(texts)
        # After an error in between, the next turn starts from nothing.
        self._batch = None
        for row in batch.rows:
            row.seed = seeds[row.key]
        logits_BV = batch.feed(segments)
        batch.pack()
        written = self._written(batch, logits_BV, 0)
        self._batch = batch
        return {
            row.key: self._finish(row, ids) for row, ids in zip(batch.rows, written, strict=True)
        }

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

    def _going_on(self, texts: Mapping[str, str]) -> tuple[Batch, list[list[int]]] | None:
        """The kept batch and what each conversation has gained since its last reply.

        None if a text does not go on from what the batch holds: a new episode does not, nor does
        a conversation whose past the template rewrote (it dropped a thought, it trimmed a reply).
        """
        batch = self._batch
        seen = {} if batch is None else {row.key: row.seen for row in batch.rows}
        if batch is None or not all(
            key in seen and text.startswith(seen[key]) for key, text in texts.items()
        ):
            return None
        kept = [i for i, row in enumerate(batch.rows) if row.key in texts]
        if len(kept) < len(batch.rows):
            batch.select(kept)
        segments = [self._gained(row, texts[row.key]) for row in batch.rows]
        lengths = {
            row.key: row.tokens + len(segment)
            for row, segment in zip(batch.rows, segments, strict=True)
        }
        # The tokens that a model wrote can be more than its tokenizer makes of their text, by
        # which the history was measured: read from the text, it fits.
        if self._history is not None and not all(map(self._fits, lengths.values())):
            return None
        self._check_fits(lengths)
        return batch, segments

    def _gained(self, row: Row, text: str) -> list[int]:
        fresh = [*row.pending, *self._encode(text[len(row.seen) :])]
        row.seen, row.pending = text, ()
        return fresh

    def _begun(self, texts: Mapping[str, str]) -> tuple[Batch, list[list[int]]]:
        """A new batch, and what is left to read of each prompt."""
        # What the old one holds is freed before the new one is read.
        self.forget()
        prompts = [self._encode(text) for text in texts.values()]
        self._check_fits({key: len(ids) for key, ids in zip(texts, prompts, strict=True)})
        rows = [Row(key, seen=text) for key, text in texts.items()]
        return Batch.read(self.model, rows, prompts)

    def _written(self, batch: Batch, logits_BV: torch.Tensor, place: int) -> list[list[int]]:
        """The tokens of each row's reply from ``place`` on.

        When half of the rows have ended theirs, the others go on in a batch of copies: that costs
        a fraction of a step, and saves the half of each step that is left.
        """
        written: list[list[int]] = [[] for _ in batch.rows]
        going = list(range(len(batch.rows)))
        while True:
            chosen = self._choose(batch.rows, logits_BV, place)
            for i in going:
                written[i].append(chosen[i])
            place += 1
            going = [i for i in going if chosen[i] not in self.ends]
            if not going or place == self.max_new_tokens:
                return written
            if 2 * len(going) <= len(batch.rows):
                break
            # A row that has ended gets a hidden slot.
            logits_BV = batch.feed([[c] if i in going else [] for i, c in enumerate(chosen)])
        some = batch.some(going)
        rest = self._written(some, some.feed([[chosen[i]] for i in going]), place)
        batch.take_back([some], [going])
        for i, tokens in zip(going, rest, strict=True):
            written[i] += tokens
        return written

    def _choose(self, rows: Sequence[Row], logits_BV: torch.Tensor, place: int) -> list[int]:
        """Each row's next token, the one at ``place`` of its reply."""
        if self.temperature == 0:
            chosen = logits_BV.argmax(-1)
        else:
            seeds = [hashed(row.seed, place) for row in rows]
            chosen = sample(logits_BV, self.temperature, seeds)
        tokens: list[int] = chosen.tolist()
        return tokens

    def _finish(self, row: Row, sampled: list[int]) -> str:
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


def has_window(config: PreTrainedConfig) -> bool:
    """Whether some layer of a model sees so many tokens back and no more."""
    text = config.get_text_config(decoder=True)
    kinds = getattr(text, "layer_types", None)
    if kinds is None:  # as in Mistral and Phi-3, all of whose layers are alike
        return getattr(text, "sliding_window", None) is not None
    return not {*kinds}.isdisjoint(("sliding_attention", "chunked_attention"))


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
