"""The page's server: it answers a browser on this machine, and no other page in that browser.

A page of any site may send requests to 127.0.0.1, and by DNS rebinding it may even read the
answers under a name of its own. So a request must name this machine as its host, must not come from
another origin, and what changes something must be JSON, which a browser sends to its own origin
alone.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.listening import Fields, fields_of
from atlas_tune.trajectory import Kind, Trajectory
from atlas_tune.trajectory.model import stored_json
from atlas_tune.view.documents import Runs
from atlas_tune.view.label_file import Judgement, Outdated
from atlas_tune.view.pages import POLICY, asset, served_page

_LARGEST_BODY = 2**16
_HERE = ("127.0.0.1", "localhost", "::1")
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}

Tokens = Callable[[Trajectory, str], list[dict[str, Any]]]
"""The rows that a run becomes under a source's selection, in pieces of text."""


def make_view_app(runs: Runs, tokens: Tokens | None = None) -> ASGIApp:
    """The application that shows ``runs`` and takes labels for them.

    Args:
        runs: what is shown.
        tokens: previews what would be trained; None where no model was named.
    """
    lock = threading.Lock()

    def document(fields: Fields) -> Any:
        return runs.document(_text(fields, "run"))

    def preview(fields: Fields) -> Any:
        if tokens is None:
            raise UsageError("Name a --model, and its tokenizer tells what is trained.")
        return tokens(runs.run(_text(fields, "run")), _text(fields, "source"))

    def judge(fields: Fields) -> Any:
        runs.labels.judge(_judgement(runs, fields))
        return document(fields)

    def finish(fields: Fields) -> Any:
        runs.labels.finish(runs.run(_text(fields, "run")))
        return document(fields)

    def agreement(fields: Fields) -> Any:
        return runs.agreement(_text(fields, "one"), _text(fields, "other"))

    def about(fields: Fields) -> Any:
        return {**runs.about(), "shows_tokens": tokens is not None}

    def raw(fields: Fields) -> Any:
        return json.loads(stored_json(runs.run(_text(fields, "run"))))

    def api(path: str, verb: str, answer: Callable[[Fields], Any]) -> Route:
        def locked(fields: Fields) -> Any:
            with lock:
                runs.labels.refresh()
                return answer(fields)

        async def endpoint(request: Request) -> Response:
            try:
                reply, status = (
                    await run_in_threadpool(locked, await fields_of(request, _LARGEST_BODY)),
                    200,
                )
            except AtlasError as error:
                reply, status = {"error": str(error)}, 409 if isinstance(error, Outdated) else 400
            # ASCII escapes carry lone surrogates, which a run may hold.
            content = json.dumps(reply, ensure_ascii=True, allow_nan=False)
            return Response(content, status, media_type="application/json")

        return Route(f"/api/{path}", endpoint, methods=[verb])

    async def page(request: Request, name: str, kind: str) -> Response:
        return Response(served_page() if name == "" else asset(name), media_type=kind)

    return _OnlyFromHere(
        Starlette(
            routes=[
                Route("/", partial(page, name="", kind="text/html")),
                Route("/page.js", partial(page, name="page.js", kind="text/javascript")),
                Route("/page.css", partial(page, name="page.css", kind="text/css")),
                api("about", "GET", about),
                api("runs", "GET", lambda fields: runs.entries()),
                api("run", "GET", document),
                api("raw", "GET", raw),
                api("tokens", "GET", preview),
                api("agreement", "GET", agreement),
                api("label", "POST", judge),
                api("finish", "POST", finish),
            ]
        )
    )


class _OnlyFromHere:
    """Refuses what does not come from our own page, and puts our headers on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refused := _refused(Request(scope))):
            answer = Response(refused, 403, media_type="text/plain")
            return await answer(scope, receive, partial(_with_headers, send))
        await self._app(scope, receive, partial(_with_headers, send))


async def _with_headers(send: Send, message: Message) -> None:
    if message["type"] == "http.response.start":
        ours = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
        message = {**message, "headers": [*message["headers"], *ours]}
    await send(message)


def _refused(request: Request) -> str | None:
    """Why a request is none of our page's own; None where it is."""
    host = request.headers.get("host", "")
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        name = None
    if name not in _HERE:
        return "Open the page under 127.0.0.1 or localhost.\n"
    origin = request.headers.get("origin")
    if origin is not None and origin != f"http://{host}":
        return "Another page sent this.\n"
    # Following a link to the page from elsewhere is no harm: the page alone is read then.
    is_followed = request.url.path == "/" and request.headers.get("sec-fetch-mode") == "navigate"
    site = request.headers.get("sec-fetch-site", "none")
    if site not in ("none", "same-origin") and not is_followed:
        return "Another page sent this.\n"
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if request.method not in ("GET", "HEAD") and kind != "application/json":
        return "What changes something is JSON.\n"
    return None


def _judgement(runs: Runs, fields: Fields) -> Judgement:
    step_id, kind = fields.get("step"), fields.get("kind", Kind.NONE.value)
    if isinstance(step_id, bool) or not isinstance(step_id, int):
        raise UsageError("'step' is the number of a step.")
    if kind not in tuple(Kind):
        raise UsageError(f"'kind' is one of {', '.join(Kind)}.")
    return Judgement(
        runs.run(_text(fields, "run")),
        step_id,
        _text(fields, "source"),
        seen=_optional(fields, "seen"),
        kind=Kind(kind),
        restored=_optional(fields, "restored"),
        reason=_optional(fields, "reason") or None,
    )


def _text(fields: Fields, name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise UsageError(f"'{name}' is missing, or is no text.")
    return value


def _optional(fields: Fields, name: str) -> str | None:
    return None if fields.get(name) is None else _text(fields, name)
