"""Chat completions over HTTP, for any server that speaks OpenAI's ``/v1/chat/completions``.

vLLM, SGLang, llama.cpp, Ollama, OpenAI and the gateways before them all do. There is no provider
SDK here on purpose: their dependency pins conflict with each other. The HTTP library is httpx2,
the maintained successor of httpx and the one that huggingface_hub 2 brings along anyway.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeAlias

import httpx2

from atlas_tune.errors import UsageError
from atlas_tune.llm.answers import AnswerLog, request_key
from atlas_tune.llm.errors import (
    ChatError,
    ServerBusy,
    ServerUnreachable,
    WrongServer,
    refusal_of,
)
from atlas_tune.llm.patience import asked_wait, backoff

Message: TypeAlias = Mapping[str, str]
"""``{"role": "system" | "user" | "assistant", "content": …}``"""

_LIMITS = ("max_tokens", "max_completion_tokens")
_CONNECT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """One answer. ``model`` and ``usage`` are what the server reports."""

    text: str
    finish_reason: str | None
    model: str | None
    usage: dict[str, Any] = field(default_factory=dict)
    latency_s: float = 0.0


class ChatClient:
    """Asks one model on one server; may be shared between threads.

    The API key comes from the environment variable ``api_key_env`` and from nowhere else; where
    the variable is unset, no key is sent (local servers want none). Rate limits (429), 408, 409,
    server errors (5xx) and broken connections are tried again up to ``retries`` times, waiting
    as long as ``Retry-After`` asks, else ``first_wait`` seconds doubling with jitter. A server
    that asks for more than ``longest_wait`` seconds ends the attempt with its own words.
    Refused keys, spent quotas and refused requests are final after one call.
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
        answers: AnswerLog | None = None,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise UsageError(
                f"base_url '{base_url}' must begin with http:// or https://, "
                "for example http://localhost:8000/v1."
            )
        self.url = base_url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
        self.model = model
        self.api_key_env = api_key_env
        self.retries = retries
        self.first_wait = first_wait
        self.longest_wait = longest_wait
        self.answers = answers
        self._http = httpx2.Client(
            timeout=httpx2.Timeout(timeout, connect=_CONNECT_SECONDS),
            # The caller decides how many requests run at once; the pool must not queue them.
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20),
        )

    def __repr__(self) -> str:
        return f"ChatClient(url={self.url!r}, model={self.model!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def complete(
        self,
        messages: Sequence[Message],
        *,
        key: str | None = None,
        enlarge: bool = True,
        **params: Any,
    ) -> ChatAnswer:
        """The model's answer to a conversation.

        Every answer is appended to ``answers`` before it is read, under ``key`` (by default the
        request's own hash). An answer that its ``max_tokens`` cut short is asked for once more
        with twice the limit, unless ``enlarge`` is off; what still ends in ``length`` after that
        is returned as it is. ``params`` go into the request: temperature, response_format …

        Raises:
            ChatError: the server gave no answer; the message says why and what to do.
        """
        key = key or request_key(self.model, messages, params)
        answer = self._ask(messages, params, key)
        if answer.finish_reason == "length" and enlarge:
            doubled = {name: 2 * params[name] for name in _LIMITS if params.get(name)}
            if doubled:
                answer = self._ask(messages, {**params, **doubled}, key)
        return answer

    def _ask(self, messages: Sequence[Message], params: dict[str, Any], key: str) -> ChatAnswer:
        body = {"model": self.model, "messages": [dict(m) for m in messages], **params}
        text, seconds = self._post(body)
        document: dict[str, Any] = json.loads(text)
        if self.answers is not None:
            self.answers.append(key, document, seconds)
        return self._read(document, seconds)

    def _post(self, body: dict[str, Any]) -> tuple[str, float]:
        """The text of the answer to one request, tried until it comes or hope ends."""
        # ASCII escapes carry lone surrogates, which recorded observations do hold.
        content = json.dumps(body, ensure_ascii=True).encode("ascii")
        for attempt in range(self.retries + 1):
            asked: float | None = None
            started = time.monotonic()
            problem: ChatError
            try:
                response = self._http.post(self.url, content=content, headers=self._headers())
            except (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError) as error:
                raise ServerUnreachable(f"{self.url} cannot be asked: {error}") from error
            except (httpx2.TransportError, httpx2.DecodingError) as error:
                problem = ServerUnreachable(
                    f"{self.url} gave no answer ({type(error).__name__}: {error}). "
                    "Check that the server runs and that base_url is right."
                )
            else:
                refusal = refusal_of(
                    response.status_code, response.text, self.url, self.api_key_env, self._key()
                )
                if refusal is None:
                    return response.text, time.monotonic() - started
                problem = refusal
                asked = asked_wait(response.headers.get("retry-after"))
            if not problem.passing:
                raise problem
            if asked is not None and asked > self.longest_wait:
                raise ServerBusy(
                    f"{problem} It asks to wait {asked:.0f} s, more than the "
                    f"{self.longest_wait:.0f} s allowed: run again later."
                )
            if attempt == self.retries:
                raise type(problem)(f"{problem} Given up after {attempt + 1} attempts.")
            wait = backoff(attempt, self.first_wait, self.longest_wait)
            # Jitter on top, never below: the server named the earliest moment.
            time.sleep(wait if asked is None else asked + min(wait, self.first_wait))
        raise AssertionError("the last attempt returns or raises")

    def _read(self, document: dict[str, Any], seconds: float) -> ChatAnswer:
        try:
            choice = document["choices"][0]
            content = choice["message"].get("content")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise WrongServer(
                f"{self.url} answered without choices[0].message, so it does not speak "
                f"chat completions: {json.dumps(document)[:300]}"
            ) from error
        return ChatAnswer(
            # Null content is an empty answer: a refusal, or all tokens spent on reasoning.
            text=content if isinstance(content, str) else "",
            finish_reason=choice.get("finish_reason"),
            model=document.get("model"),
            usage=document.get("usage") or {},
            latency_s=seconds,
        )

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if key := self._key():
            headers["Authorization"] = f"Bearer {key}"
        return headers

    def _key(self) -> str:
        key = os.environ.get(self.api_key_env, "").strip()
        if not (key.isascii() and key.isprintable()):
            # Caught here, because the HTTP library's own error would print the key.
            raise UsageError(
                f"The environment variable {self.api_key_env} holds characters that no API key "
                "has; set it again."
            )
        return key
