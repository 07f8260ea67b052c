"""The command ``evaluate`` with models on servers and on this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from atlas_tune.agents.history import LEFT_OUT
from atlas_tune.agents.tools import TAKE_ACTION, TOOL_FORMAT
from atlas_tune.evaluate.rollouts import read_rollouts
from cli.commands import atlas
from scripted_server import Reply, ScriptedServer, failure, good
from tiny_model import tiny_llama, tiny_tokenizer

TASKS = ["--env", "textcraft", "--set", "depth=1", "--set", "commands=2"]


@pytest.fixture
def evaluate(monkeypatch, capsys, tmp_path):
    """Evaluates into ``rollouts.jsonl``; gives exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: atlas(
        monkeypatch, capsys, "evaluate", *TASKS, "-o", "rollouts.jsonl", *words
    )


def served(server, *words):
    return ["--model", server.url, "--served-model", "qwen", "--retries", 0, *words]


def looking(asked):
    return good("Thought: I look.\n\nAction: inventory")


def goal_of(asked):
    """The first observation of the episode that a request is about."""
    return asked.body["messages"][2]["content"]


def test_a_model_on_a_server_acts(evaluate, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-mine")
    with ScriptedServer(looking) as server:
        words = ["--tasks", 3, "--max-steps", 2, "--max-new-tokens", 50, "--api-key-env", "MY_KEY"]
        words += ["--temperature", 0.7, "--seed", 5, "--params", "{top_p: 0.9}", "--json"]
        code, printed, told = evaluate(*served(server, *words))
    assert (code, len(server.asked)) == (0, 6), told
    summary = json.loads(printed)
    assert (summary["tasks"], summary["successes"], summary["errors"]) == (3, 0, {})
    assert (summary["usage"]["calls"], summary["usage"]["spent_usd"]) == (6, None)
    body = server.asked[0].body
    assert [body[name] for name in ("model", "temperature", "max_tokens", "top_p")] == [
        "qwen",
        0.7,
        50,
        0.9,
    ]
    assert server.asked[0].headers["Authorization"] == "Bearer sk-mine"
    seeds = {asked.body["seed"] for asked in server.asked}
    assert len(seeds) == 6, "every task and turn draws numbers of its own"
    assert "6 replies: 42 prompt and 18 completion tokens at an unknown price." in told
    settings = json.loads(Path("rollouts.jsonl.settings.json").read_text())
    assert (settings["temperature"], settings["seed"], settings["params"]) == (
        0.7,
        5,
        {"top_p": 0.9},
    )
    assert settings["model"].startswith("qwen at 127.0.0.1:")
    assert "sk-mine" not in Path("rollouts.jsonl").read_text() + json.dumps(settings)


def test_the_same_task_is_sampled_alike_in_every_batch(evaluate, tmp_path):
    seeds = []
    for size in (1, 2):
        with ScriptedServer(looking) as server:
            words = ["--tasks", 2, "--max-steps", 1, "--temperature", 1, "--batch-size", size]
            assert evaluate(*served(server, *words))[0] == 0
        seeds.append({goal_of(asked): asked.body["seed"] for asked in server.asked})
        Path("rollouts.jsonl").unlink()
    assert seeds[0] == seeds[1]


def test_an_agent_acts_by_function_calls(evaluate):
    arguments = json.dumps({"action": "inventory"})
    call = {"id": "c1", "type": "function"}
    call["function"] = {"name": "take_action", "arguments": arguments}
    message = {"role": "assistant", "content": "I look.", "tool_calls": [call]}
    answer = {"model": "m", "choices": [{"message": message, "finish_reason": "tool_calls"}]}
    with ScriptedServer(lambda asked: Reply(json.dumps(answer).encode())) as server:
        code, _, told = evaluate(*served(server, "--tasks", 1, "--max-steps", 2, "--tools"))
    assert code == 0, told
    assert [asked.body["tools"] for asked in server.asked] == [[TAKE_ACTION]] * 2
    first, second = (asked.body["messages"] for asked in server.asked)
    assert first[0]["content"].endswith(TOOL_FORMAT)
    assert [message["role"] for message in second[3:]] == ["assistant", "tool"]
    (rollout,) = read_rollouts(Path("rollouts.jsonl"))
    assert rollout.invalid_turns == 0
    assert [step.tool_calls[0].arguments for step in rollout.trajectory.agent_steps] == [
        {"action": "inventory"}
    ] * 2


def test_a_conversation_that_the_server_refuses_is_an_error_row_and_can_be_retried(evaluate):
    def full(asked):
        too_long = goal_of(asked) == full.goal
        return failure(400, "maximum context length is 8 tokens") if too_long else looking(asked)

    words = ["--tasks", 3, "--max-steps", 2]
    with ScriptedServer(looking) as server:
        assert evaluate(*served(server, *words))[0] == 0
        full.goal = goal_of(server.asked[1])
        whole = Path("rollouts.jsonl").read_bytes()
        Path("rollouts.jsonl").unlink()
        server._script = full
        code, printed, told = evaluate(*served(server, *words))
        assert code == 3
        assert "0 of 3 solved" in printed
        assert "1 of 3 runs broke off and count as failures" in told
        assert "conversation too long: " in told
        rows = read_rollouts(Path("rollouts.jsonl"))
        assert [row.error is not None for row in rows].count(True) == 1
        asked = len(server.asked)
        assert evaluate(*served(server, *words))[0] == 3
        assert len(server.asked) == asked, "they are not run again unasked"
        server._script = looking
        assert evaluate(*served(server, *words, "--retry-errors"))[0] == 0
        assert len(server.asked) == asked + 2
    assert Path("rollouts.jsonl").read_bytes() == whole


def test_an_error_of_the_server_ends_the_run_with_its_sentence(evaluate):
    with ScriptedServer(lambda asked: failure(401, "bad key")) as server:
        code, _, told = evaluate(*served(server, "--tasks", 3))
    assert (code, len(server.asked)) == (1, 1)
    assert "bad key" in told
    assert not Path("rollouts.jsonl").exists()


def test_a_budget_and_a_journal(evaluate, tmp_path):
    (tmp_path / "prices.yaml").write_text("models:\n  qwen: {input: 1.0, output: 10.0}\n")
    words = ["--tasks", 2, "--max-steps", 2, "--prices", "prices.yaml"]
    words += ["--journal", "replies.sqlite", "--json"]
    with ScriptedServer(looking) as server:
        code, _, told = evaluate(*served(server, *words, "--budget-usd", 0.0001))
        assert (code, "Raise --budget-usd" in told) == (1, True)
        assert server.asked == []
        first = json.loads(evaluate(*served(server, *words, "--budget-usd", 1))[1])["usage"]
        Path("rollouts.jsonl").unlink()
        second = json.loads(evaluate(*served(server, *words))[1])["usage"]
    assert (first["calls"], second["calls"], second["cached"]) == (4, 0, 4)
    assert first["spent_usd"] == pytest.approx(4 * (7 + 30) / 1e6)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--model", "http://h/v1"], "Name it with --served-model"),
        (["--served-model", "q"], "--served-model is for a model on a server"),
        (["--model", "m", "--budget-usd", 1], "--budget-usd is for a model on a server"),
        (["--tools"], "--tools is for a model on a server"),
        (["--step-timeout", 1], "--step-timeout needs --isolate"),
        (["--model", "http://h/v1", "--served-model", "q", "--params", "[1]"], "takes an object"),
        (
            ["--model", "http://h/v1", "--served-model", "q", "--params", "{seed: 1}"],
            "params cannot set seed",
        ),
        (["--prompt-file", "none.txt"], "There is no prompt file none.txt"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(evaluate, words, told):
    code, _, said = evaluate(*words)
    assert (code, told in said) == (2, True), said


def save_tiny(directory, **changes):
    tiny_llama(**changes).save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return ["--model", directory, "--precision", "float32"]


def test_a_conversation_beyond_a_local_model_is_an_error_row(evaluate, tmp_path):
    model = save_tiny(tmp_path / "small", max_position_embeddings=64)
    code, _, told = evaluate(*model, "--tasks", 2, "--max-new-tokens", 4)
    assert code == 3
    assert "2 of 2 runs broke off" in told
    rows = read_rollouts(Path("rollouts.jsonl"))
    assert [(row.turns, row.trajectory) for row in rows] == [(0, None)] * 2
    assert all("exceeds the 64 that the model can read" in row.error for row in rows)


def test_a_local_model_may_be_sampled_and_told_something_else(evaluate, tmp_path):
    model = save_tiny(tmp_path / "base")
    (tmp_path / "told.txt").write_text("Craft!\n")
    words = [*model, "--tasks", 2, "--max-steps", 2, "--max-new-tokens", 4]
    words += ["--temperature", 1, "--prompt-file", "told.txt"]
    assert evaluate(*words)[0] == 0
    rows = read_rollouts(Path("rollouts.jsonl"))
    assert rows[0].trajectory.steps[0].message == "Craft!"
    Path("rollouts.jsonl").unlink()
    assert evaluate(*words)[0] == 0
    assert read_rollouts(Path("rollouts.jsonl")) == rows, "the same seed, the same samples"
    code, _, told = evaluate(*words, "--seed", 1)
    assert (code, "made with another seed" in told) == (1, True)


def test_old_observations_of_a_long_run_are_left_out(evaluate):
    # What is wrong with such a reply is told at length, turn by turn.
    with ScriptedServer(lambda asked: good("I do not know.")) as server:
        words = ["--tasks", 1, "--max-steps", 7, "--context-tokens", 450]
        code, _, told = evaluate(*served(server, *words, "--max-new-tokens", 100))
    assert code == 0, told
    shown = [[m["content"] for m in asked.body["messages"]] for asked in server.asked]
    assert LEFT_OUT not in shown[2]
    assert LEFT_OUT in shown[-1]


def test_isolated_environments_give_the_same_rollouts(evaluate):
    with ScriptedServer(looking) as server:
        words = served(server, "--tasks", 1, "--max-steps", 2)
        assert evaluate(*words)[0] == 0
        plain = Path("rollouts.jsonl").read_bytes()
        Path("rollouts.jsonl").unlink()
        code, _, told = evaluate(*words, "--isolate", "--step-timeout", 30)
    assert code == 0, told
    assert Path("rollouts.jsonl").read_bytes() == plain


def test_progress_tells_the_successes_so_far_without_a_terminal(evaluate, monkeypatch):
    monkeypatch.setattr("atlas_tune.progress.PLAIN_SECONDS", 0.0)
    with ScriptedServer(looking) as server:
        words = ["--tasks", 2, "--max-steps", 2, "--batch-size", 1]
        _, _, told = evaluate(*served(server, *words))
    assert "evaluate on textcraft: 1/2 tasks ended, 0 solved (0%), turn 1" in told
    assert "evaluate on textcraft: 2/2 tasks ended, 0 solved (0%), turn 2" in told


def test_ctrl_c_lets_calls_end_and_the_next_run_goes_on(tmp_path):
    def slow(asked):
        time.sleep(0.1)
        return looking(asked)

    path = tmp_path / "rollouts.jsonl"
    with ScriptedServer(slow) as server:
        words = served(server, "--tasks", 6, "--max-steps", 2, "--batch-size", 1)
        line = ["evaluate", *TASKS, "-o", path, *words]
        command = [sys.executable, "-m", "atlas_tune", *map(str, line)]
        child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ})
        until = time.monotonic() + 60
        while not (path.exists() and len(path.read_bytes().splitlines()) >= 2):
            assert child.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        child.send_signal(signal.SIGINT)
        _, told = child.communicate(timeout=60)
        assert child.returncode == 130, told
        assert "waiting for the calls under way" in told
        before = path.read_bytes()
        assert 2 <= len(before.splitlines()) < 6
        assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0
    assert path.read_bytes().startswith(before)
    assert len({row.task_id for row in read_rollouts(path)}) == len(read_rollouts(path)) == 6
