"""What a chat server can answer instead of an answer, told apart by what mends it."""

from __future__ import annotations

import json
import re
from html import escape
from typing import Any
from urllib.parse import quote

from atlas_tune.errors import AtlasError

_AUTH = (401, 403)
_RETRIED = (408, 409, 429)
_QUOTA_CODES = ("insufficient_quota", "billing_hard_limit_reached")
_PASSING_KINDS = (
    "engine_overloaded",
    "internal_error",
    "overloaded_error",
    "rate_limit_error",
    "rate_limit_exceeded",
    "server_error",
    "timeout",
)
"""What error objects call what a little patience mends."""
_TOO_LONG_KINDS = ("context_length_exceeded", "exceed_context_size_error")
_TOO_LONG = re.compile(
    r"context (length|size|window)|(prompt|input|request|conversation)( is|'s)? too long"
    r"|token (count|limit).{0,40}exceed|exceed.{0,40}(token|context)|too many (input )?tokens",
    re.IGNORECASE | re.DOTALL,
)
"""How vLLM, SGLang, llama.cpp and the vendors say that a question does not fit."""
_LONGEST_QUOTE = 300
_SHORTEST_SECRET = 8


class ChatError(AtlasError):
    """A question to a language model got no usable answer."""

    passing = False
    """True where the same request may well succeed a little later."""


class KeyRefused(ChatError):
    """The server does not accept the API key, or wants one and got none."""


class QuotaSpent(ChatError):
    """The account behind the key has no money or quota left; waiting does not help."""


class RequestRefused(ChatError):
    """The server will not serve this request: too long, a setting that it does not know …"""


class QuestionTooLong(RequestRefused):
    """The question, with the room for its answer, is more than the model can read.

    Servers have no common sign for it, so it is known by their words; one with other words gives
    the plain refusal.
    """


class WrongServer(ChatError):
    """No chat completions at this address, or not with this model: no request will succeed."""


class ServerBusy(ChatError):
    """Rate limits and server-side failures."""

    passing = True


class ServerUnreachable(ChatError):
    """No connection, a connection that broke, or no answer in time."""

    passing = True


def refusal_of(status: int, text: str, url: str, key_env: str, key: str = "") -> ChatError | None:
    """The error that a response means; None where it is an answer.

    Some gateways send failures as HTTP 200 with an ``error`` object, beside the choices or in
    the first of them; the status in its ``code`` is then the one that counts. Servers repeat
    keys in what they say; ``key``, where given, does not get into the message.
    """
    document = _json_object(text)
    error = _error_in(document)
    if status < 400 and isinstance(error, dict):
        status = _hidden_status(error) or status
    words = without_key(_words(text, document, error), key, key_env)
    said = f"{url} answered {status}: {words}"
    if status in _AUTH:
        return KeyRefused(
            f"{said} The API key is read from the environment variable {key_env}: "
            "set it to a key that this server accepts."
        )
    if status == 402 or (isinstance(error, dict) and _is_quota(error)):
        return QuotaSpent(f"{said} Top up the account or use another key, then run again.")
    if status in _RETRIED or status >= 500:
        return ServerBusy(said)
    if status == 404:
        return WrongServer(
            f"{said} Check that base_url ends where the server's API begins (often '/v1') "
            "and that the server has this model."
        )
    if status >= 400:
        return (QuestionTooLong if _is_too_long(error, words) else RequestRefused)(said)
    if status >= 300:
        return WrongServer(f"{said} It redirects elsewhere: give the final address as base_url.")
    if document is None:
        return WrongServer(
            f"{said} That is no JSON object, so this is no chat server; "
            "base_url often has to end in '/v1'."
        )
    if error:
        return RequestRefused(said)
    return None


def _is_quota(error: dict[str, Any]) -> bool:
    return error.get("code") in _QUOTA_CODES or error.get("type") in _QUOTA_CODES


def _is_too_long(error: Any, words: str) -> bool:
    kinds = (error.get("code"), error.get("type")) if isinstance(error, dict) else ()
    return any(kind in _TOO_LONG_KINDS for kind in kinds) or bool(_TOO_LONG.search(words))


def without_key(text: str, key: str, key_env: str) -> str:
    """A server's text without the API key, which servers repeat when they complain about it.

    The key is found as it is and as JSON, HTML and addresses write it. One of less than eight
    characters is a placeholder ("EMPTY", "x") that stands in many a word.
    """
    if len(key) < _SHORTEST_SECRET:
        return text
    as_json = json.dumps(key)[1:-1]
    forms = {
        key,
        as_json,
        as_json.replace("/", "\\/"),
        escape(key),
        quote(key),
        quote(key, safe=""),
    }
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, f"<{key_env}>")
    return text


def _error_in(document: dict[str, Any] | None) -> Any:
    if document is None:
        return None
    choices = document.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if not document.get("error") and isinstance(first, dict):
        return first.get("error")
    return document.get("error")


def _hidden_status(error: dict[str, Any]) -> int | None:
    """The HTTP status that an error object stands for."""
    code = error.get("code")
    if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) == 3:
        code = int(code)
    if isinstance(code, int) and not isinstance(code, bool) and 400 <= code < 600:
        return code
    kinds = (error.get("type"), code)
    return 503 if any(isinstance(k, str) and k in _PASSING_KINDS for k in kinds) else None


def _words(text: str, document: dict[str, Any] | None, error: Any) -> str:
    """What the server said, short enough for one line and ended like a sentence."""
    words = text
    if document is not None:
        error = error or document
        message = error.get("message") if isinstance(error, dict) else error
        words = message if isinstance(message, str) else json.dumps(error)
    elif re.match(r"\s*<(!doctype|html)", text, re.IGNORECASE):
        title = re.search(r"<title>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        words = f"an HTML page titled '{title.group(1)}'" if title else "an HTML page"
    words = " ".join(words.split()) or "nothing"
    if len(words) > _LONGEST_QUOTE:
        words = words[:_LONGEST_QUOTE] + "…"
    return words if words.endswith((".", "…", "!", "?")) else words + "."


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
