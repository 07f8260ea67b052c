"""OpenAI's Batch endpoint and those like it: files up, batches made, asked after, files down."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import httpx2

from atlas_tune.errors import UsageError
from atlas_tune.llm.batch import URL
from atlas_tune.llm.draining import pause
from atlas_tune.llm.errors import ChatError, ServerUnreachable, WrongServer, refusal_of
from atlas_tune.llm.patience import asked_wait, backoff
from atlas_tune.replacing import replacing

ENDED = ("completed", "expired", "cancelled", "failed", "lost")
"""The states in which nothing more will come; any other word means that the server works on.
``lost`` is our own word for a batch that its server no longer knows."""

MARK = "atlas_tune"
"""The metadata key under which a batch carries the digest of its requests."""

_CONNECT_SECONDS = 10.0
_PAGE = 100


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as its server tells of it."""

    id: str
    status: str
    mark: str | None
    output_file: str | None
    error_file: str | None
    done: int | None
    total: int | None
    problems: tuple[str, ...]

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in ENDED


class BatchEndpoint:
    """One server's files and batches.

    Rate limits, server errors and broken connections are tried again up to ``retries`` times,
    with the waits of :class:`ChatClient`. Making a batch is never tried again blindly, because
    the broken attempt may have made it: the caller looks for it first.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key_env: str = "OPENAI_API_KEY",
        timeout: float = 300.0,
        retries: int = 6,
        first_wait: float = 1.0,
        longest_wait: float = 120.0,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise UsageError(f"base_url '{base_url}' must begin with http:// or https://.")
        self.base_url = base_url.rstrip("/").removesuffix("/chat/completions")
        self.api_key_env = api_key_env
        self.retries = retries
        self.first_wait = first_wait
        self.longest_wait = longest_wait
        self._http = httpx2.Client(timeout=httpx2.Timeout(timeout, connect=_CONNECT_SECONDS))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def upload(self, path: Path, name: str) -> str:
        """Upload a batch file under a name; its id."""
        with path.open("rb") as file:
            document = self._json("POST", "/files", file=(name, file))
        return _text(document, "id", self.base_url)

    def find_file(self, name: str) -> str | None:
        """The id of a file uploaded earlier under a name; None where there is none."""
        for record in self._pages("/files", purpose="batch"):
            if record.get("filename") == name and isinstance(record.get("id"), str):
                return str(record["id"])
        return None

    def create(self, file_id: str, mark: str) -> Batch:
        """Make a batch of an uploaded file, marked so that it can be found again.

        Raises:
            ChatError: refused, or (``ServerUnreachable``) it may or may not have been made.
        """
        body = {
            "input_file_id": file_id,
            "endpoint": URL,
            "completion_window": "24h",
            "metadata": {MARK: mark},
        }
        return self._batch(self._json("POST", "/batches", body=body, retries=0))

    def find(self, mark: str) -> Batch | None:
        """The batch with a mark, the newest first; None where there is none."""
        for record in self._pages("/batches"):
            if (record.get("metadata") or {}).get(MARK) == mark:
                return self._batch(record)
        return None

    def lists(self, batch_id: str) -> bool:
        """Whether the server's list of batches holds one."""
        return any(record.get("id") == batch_id for record in self._pages("/batches"))

    def retrieve(self, batch_id: str) -> Batch:
        """How a batch stands."""
        return self._batch(self._json("GET", f"/batches/{batch_id}"))

    def download(self, file_id: str, path: Path) -> None:
        """Write the content of a file to ``path``, whole or not at all."""
        with replacing(path) as partial, partial.open("wb") as file:
            self._send("GET", f"/files/{file_id}/content", into=file)
            file.flush()
            os.fsync(file.fileno())

    def _pages(self, path: str, **query: str) -> Iterator[dict[str, Any]]:
        after: dict[str, str] = {}
        while True:
            page = self._json("GET", path, query={"limit": str(_PAGE), **query, **after})
            records = [one for one in page.get("data") or [] if isinstance(one, dict)]
            yield from records
            if not page.get("has_more") or not records:
                return
            after = {"after": str(records[-1].get("id"))}

    def _batch(self, record: dict[str, Any]) -> Batch:
        counts = record.get("request_counts") or {}
        errors = (record.get("errors") or {}).get("data") or []
        return Batch(
            id=_text(record, "id", self.base_url),
            # Some servers write the states in capitals.
            status=_text(record, "status", self.base_url).lower(),
            mark=(record.get("metadata") or {}).get(MARK),
            output_file=record.get("output_file_id") or None,
            error_file=record.get("error_file_id") or None,
            done=counts.get("completed"),
            total=counts.get("total"),
            problems=tuple(str(one.get("message") or one) for one in errors),
        )

    def _json(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        text = self._send(method, path, **request)
        document = json.loads(text)
        assert isinstance(document, dict)  # refusal_of lets nothing else pass
        return document

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
        file: tuple[str, IO[bytes]] | None = None,
        into: IO[bytes] | None = None,
        retries: int | None = None,
    ) -> str:
        """The text of the answer; with ``into``, its bytes go there and the text is empty."""
        url = self.base_url + path
        retries = self.retries if retries is None else retries
        for attempt in range(retries + 1):
            asked: float | None = None
            problem: ChatError
            request: dict[str, Any] = {"headers": self._headers(), "params": query}
            if body is not None:
                request["json"] = body
            if file is not None:
                file[1].seek(0)
                request["files"] = {"file": (file[0], file[1], "application/jsonl")}
                request["data"] = {"purpose": "batch"}
            try:
                with self._http.stream(method, url, **request) as response:
                    if into is not None and response.status_code == 200:
                        into.seek(0)
                        into.truncate()
                        for piece in response.iter_bytes():
                            into.write(piece)
                        return ""
                    response.read()
            except (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError) as error:
                raise ServerUnreachable(f"{url} cannot be asked: {error}") from error
            except (httpx2.TransportError, httpx2.DecodingError) as error:
                problem = ServerUnreachable(
                    f"{url} gave no answer ({type(error).__name__}: {error}). Run again to go on."
                )
            else:
                refusal = refusal_of(
                    response.status_code, response.text, url, self.api_key_env, self._key()
                )
                if refusal is None:
                    return response.text
                problem = refusal
                asked = asked_wait(response.headers)
            too_long = asked is not None and asked > self.longest_wait
            if not problem.passing or attempt == retries or too_long:
                raise problem
            wait = backoff(attempt, self.first_wait, self.longest_wait)
            pause(wait if asked is None else asked + min(wait, self.first_wait))
        raise AssertionError("the last attempt returns or raises")

    def _headers(self) -> dict[str, str]:
        key = self._key()
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _key(self) -> str:
        key = os.environ.get(self.api_key_env, "").strip()
        if not (key.isascii() and key.isprintable()):
            # Caught here, because the HTTP library's own error would print the key.
            raise UsageError(
                f"The environment variable {self.api_key_env} holds characters that no API key "
                "has; set it again."
            )
        return key


def _text(record: dict[str, Any], name: str, url: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise WrongServer(
            f"{url} answered without '{name}', so it has no Batch endpoint of OpenAI's form: "
            f"{json.dumps(record)[:300]}"
        )
    return value
