"""Asking a language model over HTTP: one client for every OpenAI-compatible server."""

from atlas_tune.llm.chat import ChatAnswer, ChatClient, Message
from atlas_tune.llm.concurrency import Gate
from atlas_tune.llm.draining import Interrupted, draining, stop_asked
from atlas_tune.llm.errors import (
    ChatError,
    KeyRefused,
    QuestionTooLong,
    QuotaSpent,
    RequestRefused,
    ServerBusy,
    ServerUnreachable,
    WrongServer,
)
from atlas_tune.llm.journal import Journal
from atlas_tune.llm.journal_file import JournalError
from atlas_tune.llm.record import Batch, Stored, Summary, Unknown, request_key

__all__ = [
    "Batch",
    "ChatAnswer",
    "ChatClient",
    "ChatError",
    "Gate",
    "Interrupted",
    "Journal",
    "JournalError",
    "KeyRefused",
    "Message",
    "QuestionTooLong",
    "QuotaSpent",
    "RequestRefused",
    "ServerBusy",
    "ServerUnreachable",
    "Stored",
    "Summary",
    "Unknown",
    "WrongServer",
    "draining",
    "request_key",
    "stop_asked",
]
