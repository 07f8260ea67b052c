"""What our servers share: listening on a port until Ctrl-C, and what a request says."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import uvicorn
from starlette.requests import Request

from atlas_tune.errors import AtlasError, UsageError

Fields = Mapping[str, Any]

_QUEUED = 1024
_LAST_SECONDS = 5
"""How long running requests may still take when the server is stopped."""


def bind(host: str, port: int) -> socket.socket:
    """A socket that already accepts connections; port 0 takes any free one.

    Raises:
        AtlasError: the port is taken, or the host is none of this machine's.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_QUEUED)
    except OSError as error:
        raise AtlasError(
            f"Nothing can be served on {host}, port {port}: {error.strerror or error}. Choose "
            "another --port, or 0 for any that is free, and a --host of this machine."
        ) from error
    return listening


def address_of(listening: socket.socket) -> str:
    """The URL of a socket that listens."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: Callable[..., Any], listening: socket.socket) -> None:
    """Answer requests until the process is interrupted or terminated."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_LAST_SECONDS,
    )
    # uvicorn stops cleanly and then raises the signal again, for those who run more than it.
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])


async def fields_of(request: Request, largest: int) -> Fields:
    """The query of a GET, or the JSON object of a body; no body is an empty object.

    Raises:
        UsageError: the body is no JSON object, or has more than ``largest`` bytes.
    """
    if request.method == "GET":
        return dict(request.query_params)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > largest:
            raise UsageError(f"The request is larger than {largest:,} bytes.")
    try:
        fields = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise UsageError(f"The request is not JSON: {error}.") from error
    if not isinstance(fields, dict):
        raise UsageError("The request is not a JSON object.")
    return fields
