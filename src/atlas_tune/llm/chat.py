"""Chat completions over HTTP, for any server that speaks OpenAI's ``/v1/chat/completions``.

vLLM, SGLang, llama.cpp, Ollama, OpenAI and the gateways before them all do. There is no provider
SDK here on purpose: their dependency pins conflict with each other. The HTTP library is httpx2,
the maintained successor of httpx and the one that huggingface_hub 2 brings along anyway.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeAlias

from atlas_tune.llm.concurrency import Gate, Slot
from atlas_tune.llm.draining import pause
from atlas_tune.llm.errors import ChatError, WrongServer, refusal_of
from atlas_tune.llm.journal import Journal
from atlas_tune.llm.limits import enlarged
from atlas_tune.llm.patience import Patience
from atlas_tune.llm.record import facts_of, request_key
from atlas_tune.llm.spending import Call, Spending
from atlas_tune.llm.transport import Reply, Transport

Message: TypeAlias = Mapping[str, Any]
"""``{"role": "system" | "user" | "assistant" | "tool", "content": …}``, with ``tool_calls`` or
``tool_call_id`` where an agent acts through tools."""


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """One answer. ``model`` and ``usage`` are what the server reports."""

    text: str
    finish_reason: str | None
    model: str | None
    usage: dict[str, Any] = field(default_factory=dict)
    latency_s: float = 0.0
    cached: bool = False
    """Whether it comes from the journal, so that nothing was paid for it now."""
    tool_calls: tuple[dict[str, Any], ...] = ()
    """The tools that the model calls, as the server sent them; what is no object is left out."""


class ChatClient:
    """Asks one model on one server; may be shared between threads.

    The API key comes from the environment variable ``api_key_env`` and from nowhere else; where
    the variable is unset, no key is sent (local servers want none). Rate limits (429), 408, 409,
    server errors (5xx), broken connections and answers that do not come whole within ``timeout``
    seconds are tried again up to ``retries`` times, waiting ``first_wait`` seconds doubling with
    jitter. Where a server says how long to wait, it is obeyed by all threads and as often as it
    says so, up to ``longest_wait`` seconds at a time and ``total_wait`` for one request. Refused
    keys, spent quotas and refused requests are final after one call.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key_env: str = "OPENAI_API_KEY",
        timeout: float = 300.0,
        retries: int = 6,
        first_wait: float = 1.0,
        longest_wait: float = 120.0,
        total_wait: float = 1800.0,
        journal: Journal | None = None,
        gate: Gate | None = None,
        spending: Spending | None = None,
    ) -> None:
        """``journal`` keeps what is asked and answered; an answer in it is never asked for again.

        ``gate`` adapts how many requests run at once; clients of one server may share one.
        ``spending`` holds a budget that no call may overrun.

        Raises:
            UsageError: ``base_url`` is no address, or holds a password.
        """
        self._transport = Transport(base_url, api_key_env, timeout)
        self.url = self._transport.url
        self.model = model
        self.journal = journal
        self.gate = gate or Gate()
        self.spending = spending
        self._patience = (retries, first_wait, longest_wait, total_wait)

    def __repr__(self) -> str:
        return f"ChatClient(url={self.url!r}, model={self.model!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def complete(
        self,
        messages: Sequence[Message],
        *,
        key: str | None = None,
        enlarge: bool = True,
        largest: int | None = None,
        **params: Any,
    ) -> ChatAnswer:
        """The model's answer to a conversation: the journal's, else the server's.

        The request is known by ``key``, by default its own hash. Every answer is in the journal
        before it is read. An answer that its ``max_tokens`` cut short is asked for once more
        with twice the limit, or as much of that as ``largest`` allows, unless ``enlarge`` is off;
        what still ends in ``length`` after that is returned as it is. ``params`` go into the
        request: temperature, response_format …

        Raises:
            ChatError: the server gave no answer; the message says why and what to do.
            JournalError: the journal cannot be written.
            Interrupted: a stop was asked for before the request left.
        """
        key = key or request_key(self.model, messages, params)
        answer = self._ask(messages, params, key, answers=0)
        if answer.finish_reason == "length" and enlarge:
            larger = enlarged(params, largest)
            if larger:
                answer = self._ask(messages, {**params, **larger}, key, answers=1)
        return answer

    def _ask(
        self, messages: Sequence[Message], params: dict[str, Any], key: str, answers: int
    ) -> ChatAnswer:
        """One answer more than ``answers``, stored or asked for until it comes or hope ends."""
        body = {"model": self.model, "messages": [dict(m) for m in messages], **params}
        # ASCII escapes carry lone surrogates, which recorded observations do hold.
        content = json.dumps(body, ensure_ascii=True).encode("ascii")
        shown = self._transport.shown(content)
        patience = Patience(*self._patience)
        is_ours = False
        try:
            while True:
                if not is_ours and (stored := self._stored(key, shown, answers)) is not None:
                    return stored
                is_ours = True
                reply, found = self._call(key, body, content, shown)
                # A stored answer ends the claim, also where it then turns out to be none.
                is_ours = not _is_answer(reply)
                if isinstance(found, ChatAnswer):
                    return found
                pause(patience.wait_after(found, reply.wait))
        finally:
            if is_ours and self.journal is not None:
                self.journal.release(key)

    def _stored(self, key: str, shown: dict[str, Any], answers: int) -> ChatAnswer | None:
        """The journal's answer; None where the request is ours to send now."""
        if self.journal is None:
            return None
        while (stored := self.journal.claim(key, shown, answers=answers, send=False)) is not None:
            try:
                answer = self._read(200, stored.raw, stored.latency_s)
            except ChatError as error:
                # Killed before it was struck out: a gateway's error page, not an answer.
                self.journal.failed(key, str(error))
            else:
                return replace(answer, cached=True)
        return None

    def _call(
        self, key: str, body: dict[str, Any], content: bytes, shown: dict[str, Any]
    ) -> tuple[Reply, ChatAnswer | ChatError]:
        """Send a request once, and keep what comes of it; the journal keeps it as ``shown``."""
        with self.gate.slot() as slot:
            call = None if self.spending is None else self.spending.call(body)
            with call or nullcontext():
                if self.journal is not None:
                    self.journal.send(key, shown)
                reply = self._transport.post(content)
                if _is_answer(reply):
                    self._keep(key, reply)
                found = self._found(reply)
                if isinstance(found, ChatError) and self.journal is not None:
                    self.journal.failed(
                        key,
                        str(found),
                        reply.text or None,
                        latency_s=reply.seconds,
                        again=not _is_answer(reply),
                    )
                _tell(slot, reply, found)
                _settle(call, reply, found)
        return reply, found

    def _keep(self, key: str, reply: Reply) -> None:
        if self.journal is not None:
            self.journal.answered(key, reply.text, latency_s=reply.seconds)

    def _found(self, reply: Reply) -> ChatAnswer | ChatError:
        if reply.problem is not None:
            return reply.problem
        try:
            return self._read(reply.status, reply.text, reply.seconds)
        except ChatError as error:
            return error

    def _read(self, status: int, text: str, seconds: float) -> ChatAnswer:
        refusal = refusal_of(status, text, self.url, self._transport.api_key_env)
        if refusal is not None:
            raise refusal
        document = json.loads(text)
        try:
            choice = document["choices"][0]
            content = choice["message"].get("content")
            calls = choice["message"].get("tool_calls")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise WrongServer(
                f"{self.url} answered without choices[0].message, so it does not speak "
                f"chat completions: {json.dumps(document)[:300]}"
            ) from None
        facts = facts_of(text)
        return ChatAnswer(
            # Null content is an empty answer: a refusal, or all tokens spent on reasoning.
            text=content if isinstance(content, str) else "",
            finish_reason=facts.finish_reason,
            model=facts.model,
            usage=facts.usage,
            latency_s=seconds,
            tool_calls=tuple(call for call in calls if isinstance(call, dict))
            if isinstance(calls, list)
            else (),
        )


def _is_answer(reply: Reply) -> bool:
    """Whether a reply is one that is paid for, as far as its status says."""
    return 200 <= reply.status < 300


def _tell(slot: Slot, reply: Reply, found: ChatAnswer | ChatError) -> None:
    if reply.is_congested or reply.wait is not None:
        slot.congested(reply.wait)
    elif isinstance(found, ChatAnswer):
        slot.served()


def _settle(call: Call | None, reply: Reply, found: ChatAnswer | ChatError) -> None:
    """Count what a call cost; one that broke off is left to be counted at its worst."""
    if call is None:
        return
    usage = facts_of(reply.text).usage
    if usage or isinstance(found, ChatAnswer):
        call.settle(usage)
    elif reply.status or not reply.has_left:
        call.release()
