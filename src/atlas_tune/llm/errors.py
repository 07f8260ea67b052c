"""What a chat server can answer instead of an answer, told apart by what mends it."""

from __future__ import annotations

import json
import re
from typing import Any

from atlas_tune.errors import AtlasError

_AUTH = (401, 403)
_RETRIED = (408, 409, 429)
_QUOTA_CODES = ("insufficient_quota", "billing_hard_limit_reached")
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


class WrongServer(ChatError):
    """No chat completions at this address, or not with this model: no request will succeed."""


class ServerBusy(ChatError):
    """Rate limits and server-side failures."""

    passing = True


class ServerUnreachable(ChatError):
    """No connection, a connection that broke, or no answer in time."""

    passing = True


def refusal_of(status: int, text: str, url: str, key_env: str, key: str) -> ChatError | None:
    """The error that a response means; None where it is an answer.

    Servers repeat keys in their error messages; ``key`` itself never gets into ours.

    Some gateways send failures as HTTP 200 with an ``error`` object, whose numeric ``code`` is
    then the status that counts.
    """
    document = _json_object(text)
    error = document.get("error") if document is not None else None
    code: Any = None
    if isinstance(error, dict):
        code = error.get("code")
        if status < 400 and isinstance(code, int):
            status = code
    words = _words(text, document)
    # A shorter "key" is a placeholder ("EMPTY", "x") and would only garble the sentence.
    if len(key) >= _SHORTEST_SECRET:
        words = words.replace(key, f"<{key_env}>")
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
        return RequestRefused(said)
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


def _words(text: str, document: dict[str, Any] | None) -> str:
    """What the server said, short enough for one line and ended like a sentence."""
    words = text
    if document is not None:
        error = document.get("error", document)
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
