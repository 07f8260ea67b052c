"""The raw answers of a model, kept as they came: whatever is paid for is on disk before it is read.

One JSON line per answer, append-only. Reading an answer differently later costs nothing then.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def request_key(model: str, messages: Sequence[Mapping[str, str]], params: Any) -> str:
    """SHA-256 of a request: equal questions to the same model with the same settings share it."""
    request = {"model": model, "messages": [dict(m) for m in messages], "params": params}
    text = json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


class AnswerLog:
    """An append-only JSONL file of raw answers, safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def append(self, request: str, response: dict[str, Any], latency_s: float) -> None:
        """Write one answer through to the disk: the server's JSON as it came.

        ``response`` holds the text, the model as the server reports it and the usage.
        """
        record = {
            "request": request,
            "received_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "latency_s": round(latency_s, 3),
            "response": response,
        }
        line = json.dumps(record, ensure_ascii=True).encode("ascii") + b"\n"
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                # A line that an earlier kill cut short must not swallow this one.
                if file.tell() and not _ends_in_newline(self.path):
                    line = b"\n" + line
                file.write(line)
                file.flush()
                os.fsync(file.fileno())


def _ends_in_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
