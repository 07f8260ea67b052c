"""A model behind an OpenAI-compatible server, acting in many episodes at once.

Each conversation is one request; all of a turn are under way together, as many as the server takes.
How a server is asked (key, retries, waiting times, adaptive concurrency, budget, journal) is the
oracle's client, :mod:`atlas_tune.llm`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

from atlas_tune.agents.history import History, Overlong
from atlas_tune.agents.making import ConversationTooLong
from atlas_tune.agents.streams import reply_seed
from atlas_tune.agents.tools import message_of, sendable
from atlas_tune.agents.usage import UsageCount
from atlas_tune.errors import UsageError
from atlas_tune.llm import ChatClient, QuestionTooLong
from atlas_tune.trajectory.canonical import plain_json
from atlas_tune.trajectory.messages import Message

_SEEDS = 2**31
"""Servers take seeds of 32 bits, some with a sign."""
_PER_MESSAGE = 4
"""About what chat templates put around a message: role, marks, line breaks."""
_OURS = ("messages", "model", "n", "seed", "stream", "tools")
"""Fields of a request that ``params`` may not set."""


def estimated_tokens(text: str) -> int:
    """About the tokens of an English text: a quarter of its characters, rounded up."""
    return -(-len(text) // 4)


@dataclass(frozen=True, slots=True)
class ReplySettings:
    """How replies are asked for, besides seed and temperature.

    Raises:
        UsageError: a number is not above 0, the context leaves no room for a conversation, or
            ``params`` sets what the policy itself does.
    """

    max_new_tokens: int = 256
    """The longest reply; a longer one is cut there."""
    stop: tuple[str, ...] = ()
    """Texts before which a reply ends."""
    context: int | None = None
    """The most tokens of conversation and reply together; None lets the server refuse. Servers
    that cut what is too long without a word (Ollama) need it."""
    overlong: Overlong = "drop"
    """What is done with a conversation that is longer: see :mod:`.history`."""
    concurrency: int = 32
    """The most requests under way at once; fewer where the server objects."""
    count: Callable[[str], int] = estimated_tokens
    """The tokens of a text, held against ``context``."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """More fields of the request; null takes one out, such as a temperature that a model refuses.
    Where it holds max_completion_tokens, max_tokens is not sent."""

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "concurrency"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}: give a number above 0.")
        if self.context is not None and self.context <= self.max_new_tokens:
            raise UsageError(
                f"A context of {self.context} tokens leaves no room for a conversation beside a "
                f"reply of up to {self.max_new_tokens}: make one larger or the other smaller."
            )
        if self.overlong not in ("drop", "refuse"):
            raise UsageError(f"overlong is 'drop' or 'refuse', not '{self.overlong}'.")
        if taken := sorted(set(self.params) & set(_OURS)):
            raise UsageError(f"params cannot set {', '.join(taken)}: the policy itself does.")

    @property
    def room(self) -> int | None:
        """The most tokens of a conversation."""
        return None if self.context is None else self.context - self.max_new_tokens

    def tokens(self, messages: Sequence[Message]) -> int:
        """The tokens of a conversation, its tool calls included, by ``count``."""
        return sum(self._tokens_of(message) for message in messages)

    def request(self, temperature: float, seed: int, tools: Sequence[Any]) -> dict[str, Any]:
        """The fields of a request besides model and messages.

        A greedy request carries no seed: it decides nothing, and some servers refuse one.
        """
        limit = (
            {} if "max_completion_tokens" in self.params else {"max_tokens": self.max_new_tokens}
        )
        fields = {
            "temperature": temperature,
            **limit,
            "seed": seed % _SEEDS if temperature else None,
            "stop": list(self.stop) or None,
            "tools": list(tools) or None,
            **self.params,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def _tokens_of(self, message: Message) -> int:
        text = str(message["content"] or "")
        if message.get("tool_calls"):
            text += plain_json(message["tool_calls"])
        return _PER_MESSAGE + self.count(text)


class HttpPolicy:
    """A served model that answers, greedily unless it is given a temperature.

    The seed of a reply follows :mod:`.streams`, so that episodes of one stream share their random
    numbers as far as the server keeps to seeds; most do so only roughly.

    A call that fails (a refused key, a spent quota, one conversation that is too long) raises one
    error. The replies that came are kept, so the same call or one without the conversation that
    was at fault pays for none of them again. Between processes a client with a journal does that.
    """

    def __init__(
        self,
        client: ChatClient,
        settings: ReplySettings | None = None,
        *,
        temperature: float = 0.0,
        seed: int = 0,
        usage: UsageCount | None = None,
    ) -> None:
        """
        Args:
            client: asks one model on one server; policies may share it.
            settings: how replies are asked for.
            temperature: 0 is greedy.
            seed: of the samples; with the episode's key and turn it decides what is sent.
            usage: where replies are counted; by default a count of its own that knows no money.

        Raises:
            UsageError: the temperature is below 0.
        """
        if not temperature >= 0:
            raise UsageError(f"A temperature is 0 (greedy) or above, not {temperature}.")
        self.client = client
        self.settings = settings or ReplySettings()
        self.temperature = temperature
        self.seed = seed
        self.usage = usage or UsageCount()
        room = self.settings.room if self.settings.overlong == "drop" else None
        self._history = History(self.settings.tokens, room)
        self._kept: dict[str, tuple[list[Message], Message]] = {}

    def replies(self, conversations: Mapping[str, Sequence[Message]]) -> dict[str, str]:
        """The next assistant message of each conversation, as text; raises as :meth:`turns`."""
        return {key: str(said["content"]) for key, said in self.turns(conversations).items()}

    def turns(
        self,
        conversations: Mapping[str, Sequence[Message]],
        tools: Sequence[dict[str, Any]] = (),
    ) -> dict[str, Message]:
        """The next assistant message of each conversation, with its calls of ``tools``.

        The first request of all goes alone: a wrong key or address costs one refusal, not 32.

        Raises:
            ConversationTooLong: some do not fit; its ``keys`` say which. All others were asked.
            ChatError: the server cannot be asked; the first such error, and no request is begun
                after it.
            Interrupted: a stop was asked for.
        """
        self._history.keep(conversations)
        self._kept = {
            key: (asked, said)
            for key, (asked, said) in self._kept.items()
            if key in conversations and asked == list(conversations[key])
        }
        left = [key for key in conversations if key not in self._kept]
        groups = [left] if self.usage.total.calls else [left[:1], left[1:]]
        too_long: dict[str, ConversationTooLong] = {}
        for group in groups:
            too_long |= self._ask({key: conversations[key] for key in group}, tools)
        if too_long:
            keys = tuple(key for key in left if key in too_long)
            raise ConversationTooLong(str(too_long[keys[0]]), keys)
        found = {key: self._kept[key][1] for key in conversations}
        self._kept = {}
        return found

    def _ask(
        self, conversations: Mapping[str, Sequence[Message]], tools: Sequence[dict[str, Any]]
    ) -> dict[str, ConversationTooLong]:
        """Ask for replies and keep them; returns the conversations that are too long.

        Raises:
            ChatError: the first error that is not about one conversation alone.
        """
        if not conversations:
            return {}
        stop = threading.Event()
        too_long: dict[str, ConversationTooLong] = {}
        problem: Exception | None = None
        with ThreadPoolExecutor(min(self.settings.concurrency, len(conversations))) as pool:
            asked: dict[Future[Message | None], str] = {
                pool.submit(self._turn, key, messages, tools, stop): key
                for key, messages in conversations.items()
            }
            try:
                for done in as_completed(asked):
                    key = asked[done]
                    try:
                        said = done.result()
                    except ConversationTooLong as error:
                        too_long[key] = error
                    except Exception as error:
                        # Those under way end and are kept; the first problem is the one to tell.
                        problem = problem or error
                    else:
                        if said is not None:
                            self._kept[key] = (list(conversations[key]), said)
            finally:
                stop.set()
        if problem is not None:
            raise problem
        return too_long

    def _turn(
        self,
        key: str,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        stop: threading.Event,
    ) -> Message | None:
        """The reply to one conversation; None where it was not asked for any more."""
        request = self.settings.request(
            self.temperature, reply_seed(self.seed, key, messages), tools
        )
        shown: list[Message] | None = self._history.shown(key, messages)
        while not stop.is_set():
            assert shown is not None
            self._check_fits(shown)
            try:
                answer = self.client.complete(sendable(shown), enlarge=False, **request)
            except QuestionTooLong as error:
                self.usage.refused_as_too_long()
                may_drop = self.settings.overlong == "drop"
                shown = self._history.refused(key, messages) if may_drop else None
                if shown is None:
                    raise ConversationTooLong(str(error)) from error
            except Exception:
                # Told here, because this thread may take up the next conversation at once.
                stop.set()
                raise
            else:
                self.usage.answered(answer)
                turn = 1 + sum(message["role"] == "assistant" for message in messages)
                return message_of(answer.text, answer.tool_calls, turn)
        return None

    def _check_fits(self, shown: Sequence[Message]) -> None:
        room, tokens = self.settings.room, self.settings.tokens(shown)
        if room is not None and tokens > room:
            raise ConversationTooLong(
                f"The conversation has about {tokens} tokens, and with a reply of up to "
                f"{self.settings.max_new_tokens} it exceeds the {self.settings.context} that the "
                "model can read."
            )
