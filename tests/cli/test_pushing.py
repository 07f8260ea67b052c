"""`atlas-tune push` against a server that answers as the Hub does."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@pytest.fixture
def hub():
    """A hub that takes one repository; ``hub.got`` holds (path, body) of what it was sent."""
    got = []

    class Hub(BaseHTTPRequestHandler):
        def do_POST(self):
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            got.append((self.path, raw, self.headers.get("Authorization")))
            if "me/taken" in self.path:
                return self.answer({"error": "You don't have the rights"}, 403)
            if self.path == "/api/repos/create":
                return self.answer({"url": f"{self.here}/me/agent", "name": "me/agent"})
            if "/preupload/" in self.path:
                files = json.loads(raw)["files"]
                answer = [
                    {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for f in files
                ]
                return self.answer({"files": answer})
            url = f"{self.here}/me/agent/commit/1"
            return self.answer({"success": True, "commitOid": "1", "commitUrl": url})

        @property
        def here(self):
            return f"http://127.0.0.1:{self.server.server_port}"

        def do_GET(self):
            got.append((self.path, b"", self.headers.get("Authorization")))
            self.answer({"id": "me/agent", "siblings": [], "sha": "0", "private": True})

        def answer(self, document, status=200):
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.got = got
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def push(hub, model, *words, token="hf_secret"):
    environment = {
        **os.environ,
        "HF_HOME": str(model.parent / "hub"),  # what the client keeps of our answers
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": token,
        "HF_TOKEN_PATH": "/nonexistent/token",
    }
    return subprocess.run(
        [sys.executable, "-m", "atlas_tune", "push", str(model), *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.fixture
def model(tmp_path):
    """What a finished training leaves, small enough to be sent as it is."""
    directory = tmp_path / "model"
    (directory / "checkpoints").mkdir(parents=True)
    (directory / "model.safetensors").write_bytes(b"weights")
    (directory / "README.md").write_text("the card")
    (directory / "checkpoints" / "optimizer.pt").write_bytes(b"state")
    return directory


def test_a_model_is_private_unless_told_otherwise_and_goes_with_its_card(hub, model):
    done = push(hub, model, "me/agent")
    assert done.returncode == 0, done.stderr
    created = next(json.loads(raw) for path, raw, _ in hub.got if path == "/api/repos/create")
    assert (created["name"], created["organization"]) == ("agent", "me")
    assert created["visibility"] == "private"
    commit = next(raw for path, raw, _ in hub.got if "/commit/" in path)
    sent = [json.loads(line) for line in commit.splitlines()]
    files = {one["value"]["path"] for one in sent if one["key"] == "file"}
    assert files == {"README.md", "model.safetensors"}
    # Once a day the client asks for one public list besides, and needs no name for that.
    ours = {auth for path, _, auth in hub.got if path != "/api/agent-harnesses"}
    assert ours == {"Bearer hf_secret"}
    assert push(hub, model, "me/agent", "--public").returncode == 0
    created = [json.loads(raw) for path, raw, _ in hub.got if path == "/api/repos/create"]
    assert [one["visibility"] for one in created] == ["private", "public"]


def test_what_stops_a_push_is_one_sentence(hub, model, tmp_path):
    for words, code, sentence in (
        ((tmp_path, "me/agent"), 2, "holds no weights"),
        ((model, "no/such/name"), 2, "is no OWNER/NAME"),
        ((model, "me/taken"), 1, "The Hub refused me/taken"),
    ):
        done = push(hub, *words)
        assert done.returncode == code, done.stderr
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr
