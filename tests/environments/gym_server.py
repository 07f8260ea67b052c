"""An environment server that answers as a function says, over real HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

Asked = tuple[str, dict[str, Any]]
"""("POST /step", the fields of the body or of the query)"""
Answer = Callable[[str, dict[str, Any]], Any]


class Broken:
    """In place of an answer: another status, or a connection that breaks."""

    def __init__(self, status: int | None = None, text: str = "") -> None:
        self.status = status
        self.text = text


class GymServer:
    """Answers with the JSON value that ``answer(request, fields)`` returns; runs in ``with``."""

    def __init__(self, answer: Answer) -> None:
        self.asked: list[Asked] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                self.reply(f"GET {parts.path}", dict(parse_qsl(parts.query)))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.reply(f"POST {self.path}", json.loads(body))

            def reply(self, request: str, fields: dict[str, Any]) -> None:
                server.asked.append((request, fields))
                # Closing comes when the process ends, and is no part of any script.
                value = True if request.endswith("/close") else answer(request, fields)
                status, text = 200, ""
                if isinstance(value, Broken):
                    if value.status is None:
                        self.close_connection = True
                        return
                    status, text = value.status, value.text
                content = (text or json.dumps(value if status == 200 else {})).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
