"""Asking a language model over HTTP: one client for every OpenAI-compatible server."""

from atlas_tune.llm.answers import AnswerLog, request_key
from atlas_tune.llm.chat import ChatAnswer, ChatClient, Message
from atlas_tune.llm.errors import (
    ChatError,
    KeyRefused,
    QuotaSpent,
    RequestRefused,
    ServerBusy,
    ServerUnreachable,
    WrongServer,
)

__all__ = [
    "AnswerLog",
    "ChatAnswer",
    "ChatClient",
    "ChatError",
    "KeyRefused",
    "Message",
    "QuotaSpent",
    "RequestRefused",
    "ServerBusy",
    "ServerUnreachable",
    "WrongServer",
    "request_key",
]
