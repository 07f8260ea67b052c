"""One environment server: its connections, its retries, and the remote environments it lends.

The connections and the lent environments are shared by all episodes of this process, from any
thread. A remote environment is asked for once and used again by the next episode, because
AgentGym's servers drop none by themselves, and some take seconds to make one.
"""

from __future__ import annotations

import atexit
import json
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import httpx2

from atlas_tune.environments.agentgym.address import Address
from atlas_tune.environments.agentgym.dialects import numbered
from atlas_tune.environments.base import EnvironmentLost
from atlas_tune.errors import AtlasError
from atlas_tune.llm.patience import asked_wait, backoff

TIMEOUT = 300.0
"""Seconds that an answer may take; AgentGym's own client waits as long."""
_CONNECT_SECONDS = 10.0
_TRIES = 5
_FIRST_WAIT = 0.1
_LONGEST_WAIT = 5.0
_BUSY = (429, 502, 503, 504)
_QUOTED = 300
_LAST_SECONDS = 2.0
"""What closing remote environments may take when the process ends."""


@dataclass(frozen=True, slots=True, eq=False)
class Seat:
    """A remote environment that one episode has to itself."""

    number: int
    """By which the server knows it."""
    era: int
    """How often the server had been lost before. One that was started again counts anew, so a
    number of an earlier era may by now name the environment of another episode."""


class Remote:
    """A server and what it has lent; may be shared between threads."""

    def __init__(self, address: Address, timeout: float = TIMEOUT) -> None:
        self.address = address
        self._base = address.url + address.dialect.root
        self._http = httpx2.Client(
            timeout=httpx2.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
            # The episodes decide how many requests run at once; the pool must not queue them.
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64),
        )
        self._has_answered = False
        # Changed by single operations only, which are atomic: a lock could be held by the very
        # thread in which the garbage collector gives a seat back.
        self._taken: dict[int, Seat] = {}
        self._free: deque[Seat] = deque()
        self._era = 0

    def take(self) -> Seat:
        """A remote environment for one episode: one that is free, else a new one.

        Raises:
            AtlasError: the server gives none, or one that another episode has.
            EnvironmentLost: the server is gone.
        """
        dialect = self.address.dialect
        while self._free:
            with suppress(IndexError):  # Another thread was faster.
                seat = self._free.popleft()
                if seat.era == self._era:
                    return seat
                self.drop(seat)
        reply = self.ask("POST", "/create", dialect.create)
        number = numbered(reply, dialect)
        if number is None:
            raise AtlasError(
                f"{self._base}/create answered without a number for the environment: "
                f"{_quoted(reply)} Does this server speak the dialect '{dialect.name}'?"
            )
        seat = Seat(number, self._era)
        known = self._taken.get(number)
        if known is not None and known.era == seat.era:
            raise AtlasError(
                f"{self._base} gave environment {number} to two episodes: it holds no more of "
                "them, or it was started again meanwhile. Run fewer episodes at once."
            )
        self._taken[number] = seat
        return seat

    def give_back(self, seat: Seat) -> None:
        """Let the next episode have a remote environment."""
        if seat.era != self._era:
            self.drop(seat)
        elif self._taken.get(seat.number) is seat:
            self._free.append(seat)

    def drop(self, seat: Seat) -> None:
        """Forget a remote environment that cannot be used again."""
        if self._taken.get(seat.number) is seat:
            del self._taken[seat.number]

    def ask(
        self,
        verb: Literal["GET", "POST"],
        path: str,
        fields: Mapping[str, Any],
        *,
        seat: Seat | None = None,
        repeatable: bool = True,
    ) -> Any:
        """What the server answers, as a JSON value.

        A server that is busy, or cannot be reached, is asked again a few times. A request that
        may have arrived is repeated only where that does no harm (``repeatable``): a step that
        is taken twice is another episode.

        Args:
            verb: the HTTP method.
            path: below the server's address and the dialect's root.
            fields: the body, or the query of a GET.
            seat: the remote environment that the request is for; dropped when it is lost.
            repeatable: whether a request may be sent again that perhaps arrived.

        Raises:
            EnvironmentLost: the server, or the remote environment, is gone or broken.
            AtlasError: the server never answered, refuses the request, or says what is wrong
                with it.
        """
        if seat is not None and self._taken.get(seat.number) is not seat:
            raise EnvironmentLost(
                f"{self._base} was started again and has given environment {seat.number} to "
                "another episode; the task can be started again."
            )
        try:
            reply = self._repeated(verb, path, fields, repeatable)
            self._check_words(reply, path, seat)
        except EnvironmentLost:
            self._era += 1
            if seat is not None:
                self.drop(seat)
            raise
        return reply

    def _repeated(self, verb: str, path: str, fields: Mapping[str, Any], repeatable: bool) -> Any:
        for attempt in range(_TRIES):
            wait = backoff(attempt, _FIRST_WAIT, _LONGEST_WAIT)
            try:
                response = self._send(verb, path, fields)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                problem = f"cannot be reached ({_named(error)})"
            except (httpx2.TransportError, httpx2.DecodingError) as error:
                problem = f"gave no whole answer ({_named(error)})"
                # A server that hangs would hang again, for minutes each time.
                if not repeatable or isinstance(error, httpx2.TimeoutException):
                    break
            else:
                self._has_answered = True
                if response.status_code not in _BUSY:
                    return self._read(response, path)
                problem = f"answered with HTTP {response.status_code}: {_quoted(response.text)}"
                wait = max(wait, min(asked_wait(response.headers) or 0.0, _LONGEST_WAIT))
            if attempt < _TRIES - 1:
                time.sleep(wait)
        raise self._lost(f"{self._base}{path} {problem}")

    def _lost(self, what: str) -> AtlasError:
        if self._has_answered:
            return EnvironmentLost(f"{what}. The episode is lost; the task can be started again.")
        return AtlasError(f"{what}. Check that the server runs and that its address is right.")

    def _send(self, verb: str, path: str, fields: Mapping[str, Any]) -> httpx2.Response:
        if verb == "GET":
            return self._http.get(self._base + path, params=dict(fields))
        # ASCII escapes carry lone surrogates, which a model's actions may hold.
        return self._http.post(
            self._base + path,
            content=json.dumps(dict(fields), ensure_ascii=True).encode("ascii"),
            headers={"Content-Type": "application/json"},
        )

    def _read(self, response: httpx2.Response, path: str) -> Any:
        status, where = response.status_code, f"{self._base}{path}"
        if status >= 500:
            raise self._lost(f"{where} broke with HTTP {status}: {_quoted(response.text)}")
        if not 200 <= status < 300:
            raise AtlasError(
                f"{where} refused the request with HTTP {status}: {_quoted(response.text)} Does "
                f"this server speak the dialect '{self.address.dialect.name}'?"
            )
        try:
            return response.json()
        except (ValueError, RecursionError):
            raise AtlasError(
                f"{where} did not answer in JSON but: {_quoted(response.text)} Is it an "
                "environment server?"
            ) from None

    def _check_words(self, reply: Any, path: str, seat: Seat | None) -> None:
        """AgentGym's servers tell errors with HTTP 200."""
        error = reply.get("error") if isinstance(reply, dict) else None
        if error is None:
            return
        told = f"{self._base}{path} says: {_quoted(error)}"
        if seat is not None and _is_unknown(seat.number, str(error)):
            raise EnvironmentLost(
                f"{told} The server was started again or dropped the episode; the task can be "
                "started again."
            )
        raise AtlasError(told)

    def close(self) -> None:
        """Close the free remote environments, where the dialect can, and the connections."""
        dialect = self.address.dialect
        with suppress(httpx2.HTTPError):
            while dialect.closes and self._free:
                number = self._free.popleft().number
                self._http.post(
                    f"{self._base}/close", json={dialect.episode: number}, timeout=_LAST_SECONDS
                )
        self._http.close()


_remotes: dict[str, Remote] = {}
_making = threading.Lock()


def remote_at(address: Address) -> Remote:
    """The one :class:`Remote` of this process for a server and a dialect."""
    with _making:
        if address.name not in _remotes:
            remote = _remotes[address.name] = Remote(address)
            atexit.register(remote.close)
        return _remotes[address.name]


def _is_unknown(number: int, error: str) -> bool:
    """Whether an error says that the server does not know a remote environment (any longer)."""
    return any(
        words in error
        for words in (
            f"id {number} is not valid",
            f"environment {number} has been deleted",
            f"Env {number} not found",
        )
    )


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _quoted(value: Any) -> str:
    """What a server said, short enough for one line and ended like a sentence."""
    words = " ".join((value if isinstance(value, str) else json.dumps(value)).split()) or "nothing"
    if len(words) > _QUOTED:
        words = words[:_QUOTED] + "…"
    return words if words.endswith((".", "…", "!", "?")) else words + "."
