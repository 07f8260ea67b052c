"""Rejection sampling: which runs are kept, and that none is played twice."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest

from agents.corridor import Corridor
from atlas_tune.agents.collect import collect_expert_runs, first_tasks
from atlas_tune.agents.react import format_turn, parse_turn
from atlas_tune.cli import main
from atlas_tune.environments.habits import Habits
from atlas_tune.environments.textcraft import TextCraft
from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.evaluate.rollouts import read_rollouts
from atlas_tune.evaluate.sampling import Acting, Bar, sample_runs
from atlas_tune.trajectory.store import read_selections, read_trajectories
from atlas_tune.tune.render import render_rows
from scripted_server import ScriptedServer, good
from tiny_model import tiny_llama, tiny_tokenizer

TASKS = ["corridor/1", "corridor/2", "corridor/3"]


class Walkers:
    """Policies that walk so many cells, by the sample they were made for, then stand still."""

    identity = "walker"

    def __init__(self, cells):
        self.cells = cells
        self.made = []
        self.played = 0

    def __call__(self, seed, temperature):
        self.made.append((seed, temperature))
        return Walk(self, self.cells[len(self.made) - 1])


class Walk:
    def __init__(self, walkers, cells):
        self.walkers, self.cells = walkers, cells

    def replies(self, conversations):
        turns = {key: (len(said) - 3) // 2 for key, said in conversations.items()}
        self.walkers.played += sum(turn == 0 for turn in turns.values())
        words = {key: "forward" if turn < self.cells else "wait" for key, turn in turns.items()}
        return {key: format_turn("", word) for key, word in words.items()}


def acting(walkers, samples, **changes):
    settings = {"temperature": 0.7, "seed": 5, **changes}
    return Acting("walker", walkers, {"max_new_tokens": 8}, samples=samples, **settings)


def sampled(directory, walkers, samples, bar=None, make_env=Corridor, **changes):
    return sample_runs(
        make_env,
        TASKS,
        acting(walkers, samples),
        bar or Bar(),
        directory,
        max_steps=4,
        batch_size=2,
        **changes,
    )


def test_good_runs_are_kept_and_the_fate_of_the_rest_is_told(tmp_path):
    walkers = Walkers([1, 2, 2])
    found = sampled(tmp_path, walkers, 3)
    # Sample 0 walks one cell: only corridor/1 is solved. Samples 1 and 2 solve corridor/2 alike.
    assert [run.task_id for run in found.trajectories] == ["corridor/1", "corridor/2"]
    assert found.fates == {
        "kept": 2,
        "surplus": 0,
        "duplicate": 3,
        "low reward": 0,
        "step limit": 4,
        "error": 0,
    }
    assert (found.episodes, found.tasks_kept, found.errors) == (9, 2, {})
    assert found.acceptance_rate == pytest.approx(5 / 9)


def test_each_sample_has_a_seed_of_its_own_which_stands_in_the_run(tmp_path):
    walkers = Walkers([1, 2, 3])
    found = sampled(tmp_path, walkers, 3)
    act = acting(walkers, 3)
    assert walkers.made == [(act.seed_of(k), 0.7) for k in range(3)]
    assert len({act.seed_of(k) for k in range(3)} | {acting(walkers, 1, seed=6).seed_of(0)}) == 4
    assert found.trajectories[-1].agent == {
        "name": "walker",
        "version": found.trajectories[-1].agent["version"],
        "model_name": "walker",
        "extra": {"temperature": 0.7, "seed": 5, "sample": 2, "max_new_tokens": 8},
    }


def test_a_task_that_has_enough_runs_is_sampled_no_further(tmp_path):
    walkers = Walkers([2, 3])
    found = sampled(tmp_path, walkers, 2, Bar(keep=1))
    # corridor/1 and corridor/2 are solved by the first sample, so the second plays corridor/3 only.
    assert [run.task_id for run in found.trajectories] == TASKS
    assert (found.episodes, walkers.played) == (4, 4)
    assert [r.task_id for r in read_rollouts(tmp_path / "sample-001.jsonl")] == ["corridor/3"]


def test_another_bar_and_more_samples_play_nothing_again(tmp_path):
    assert sampled(tmp_path, Walkers([1]), 1).fates["kept"] == 1
    walkers = Walkers([1])
    found = sampled(tmp_path, walkers, 1, Bar(min_reward=0.0))
    assert (walkers.played, found.fates["kept"]) == (0, 3)
    walkers = Walkers([3])
    found = sampled(tmp_path, walkers, 2)
    # Of three cells in a corridor of one only the first is walked, as in sample 0.
    assert (walkers.played, found.fates["kept"], found.fates["duplicate"]) == (3, 3, 1)
    walkers = Walkers([])
    found = sampled(tmp_path, walkers, 2, Bar(min_reward=0.0, keep=1))
    assert (walkers.played, found.fates["kept"], found.episodes) == (0, 3, 6)
    assert found.fates["surplus"] == 2


def test_samples_of_another_seed_are_not_mixed_in(tmp_path):
    sampled(tmp_path, Walkers([1]), 1)
    with pytest.raises(AtlasError, match="another seed"):
        sample_runs(
            Corridor,
            TASKS,
            acting(Walkers([1]), 1, seed=6),
            Bar(),
            tmp_path,
            max_steps=4,
            batch_size=2,
        )


class Cracked(Corridor):
    """A corridor whose second task always breaks."""

    broken = True

    def step(self, action):
        if self.left == 2 and Cracked.broken:
            raise RuntimeError("the floor gave way")
        return super().step(action)


def test_a_run_that_broke_off_is_told_never_kept_and_can_be_tried_again(tmp_path):
    Cracked.broken = True
    found = sampled(tmp_path, Walkers([3]), 1, Bar(min_reward=0.0), Cracked)
    assert [run.task_id for run in found.trajectories] == ["corridor/1"]
    assert found.fates["error"] == 2
    assert set(found.errors) == {"corridor/2 (sample 0)", "corridor/3 (sample 0)"}
    assert "the floor gave way" in found.errors["corridor/2 (sample 0)"]
    Cracked.broken = False
    assert sampled(tmp_path, Walkers([]), 1, make_env=Cracked).fates["error"] == 2
    found = sampled(tmp_path, Walkers([3]), 1, make_env=Cracked, retry_errors=True)
    assert (found.fates["kept"], found.errors) == (3, {})


def test_samples_that_would_be_the_same_are_refused():
    with pytest.raises(UsageError, match="would be the same"):
        acting(Walkers([]), 2, temperature=0.0)
    with pytest.raises(UsageError, match="keep at least one"):
        Bar(keep=0)


def call(capsys, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["atlas-tune", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    return ended.value.code or 0, captured.out, captured.err


def crafting(asked):
    """A served model that goes the expert's way, with looks at its inventory by chance."""
    messages = asked.body["messages"]
    if asked.body["seed"] % 2:
        return good(format_turn("", "inventory"))
    done = sum("I craft." in m["content"] for m in messages if m["role"] == "assistant")
    return good(format_turn("I craft.", ways()[messages[2]["content"]][done]))


@cache
def ways():
    """The expert's actions by first observation, of the first tasks."""
    env = TextCraft()
    tasks = first_tasks(env, "train", 3, {})
    runs = collect_expert_runs(env, tasks, seed=0, habits=Habits(0, 0, 0)).trajectories
    return {
        run.steps[2].message: [parse_turn(step.message).action for step in run.agent_steps]
        for run in runs
    }


def collect_words(url, out, *more):
    words = ["collect", "textcraft", "--tasks", 3, "-o", out, "--policy", url]
    return [*words, "--served-model", "m", "--samples", 8, "--keep", 1, *more]


def test_what_a_served_model_collects_is_selected_rendered_and_paid_once(
    capsys, monkeypatch, tmp_path
):
    out, chosen = tmp_path / "runs.jsonl", tmp_path / "chosen.jsonl"
    with ScriptedServer(crafting) as server:
        code, printed, _ = call(capsys, monkeypatch, *collect_words(server.url, out, "--json"))
        asked = len(server.asked)
        again, _, _ = call(capsys, monkeypatch, *collect_words(server.url, out))
        assert (code, again, len(server.asked)) == (0, 0, asked)
    summary = json.loads(printed)
    assert (summary["trajectories"], summary["tasks"], summary["fates"]["kept"]) == (3, 3, 3)
    assert summary["acceptance_rate"] == pytest.approx(3 / summary["episodes"])
    runs = list(read_trajectories(out))
    assert {run.agent["model_name"].partition(" at ")[0] for run in runs} == {"m"}
    assert all(run.outcome.success for run in runs)
    code, _, _ = call(capsys, monkeypatch, "select", out, "--selector", "replay", "-o", chosen)
    selections = read_selections(chosen)
    assert (code, set(selections)) == (0, {run.trajectory_id for run in runs})
    for run in runs:
        steps = selections[run.trajectory_id].step_ids
        assert 1 <= len(steps) <= max(1, 3 * len(run.agent_steps) // 10)
        rows = render_rows(tiny_tokenizer(), run, selections[run.trajectory_id])
        assert tuple(span.step_id for row in rows for span in row.spans) == tuple(sorted(steps))
        (taught,) = [s.message for s in run.agent_steps if s.step_id == rows[0].spans[0].step_id]
        span = rows[0].spans[0]
        text = tiny_tokenizer().decode(rows[0].input_ids[span.start : span.end])
        assert text == f"{taught}<|im_end|>"


def test_a_killed_collection_goes_on_without_a_reply_asked_twice(tmp_path):
    out = tmp_path / "runs.jsonl"

    def slowly(asked):
        time.sleep(0.03)
        return crafting(asked)

    ways()
    with ScriptedServer(slowly) as server:
        words = [sys.executable, "-m", "atlas_tune", *collect_words(server.url, out)]
        words = [*map(str, words), "--batch-size", "1", "--concurrency", "1"]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(server.asked) < 6:
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=60)
        assert not out.exists()
        done = subprocess.run(words, capture_output=True, timeout=90)
        assert done.returncode == 0, done.stderr
        requests = [json.dumps(asked.body, sort_keys=True) for asked in server.asked]
    # The request that was under way at the kill may have been asked again; no other one.
    assert len(requests) - len(set(requests)) <= 1
    assert [run.outcome.success for run in read_trajectories(out)] == [True] * 3


def test_a_model_of_this_machine_collects(capsys, monkeypatch, tmp_path):
    model, out = tmp_path / "model", tmp_path / "runs.jsonl"
    tiny_llama(max_position_embeddings=2048).save_pretrained(model)
    tiny_tokenizer().save_pretrained(model)
    words = ["collect", "textcraft", "--tasks", 2, "-o", out, "--policy", model]
    words += ["--samples", 2, "--max-steps", 2, "--max-new-tokens", 8, "--precision", "float32"]
    code, _, told = call(capsys, monkeypatch, *words)
    assert (code, "None of 4 runs was good enough (4 step limit)" in told) == (1, True)
    assert not out.exists()
    code, printed, _ = call(capsys, monkeypatch, *words, "--min-reward", 0, "--json")
    assert (code, json.loads(printed)["trajectories"]) == (0, 4)
    runs = list(read_trajectories(out))
    assert {run.agent["extra"]["sample"] for run in runs} == {0, 1}
    assert {run.agent["model_name"].partition("@")[0] for run in runs} == {"model"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--samples", 2], "--samples says nothing here"),
        (["--policy", "m", "--look", 0.5], "--look says nothing here"),
        (["--policy", "m", "--served-model", "x"], "--served-model says nothing here"),
        (["--policy", "http://127.0.0.1:9/v1"], "Name it with --served-model"),
        (["--policy", "http://127.0.0.1:9/v1", "--precision", "float32"], "--precision says"),
        (["--policy", "m", "--precision", "float3"], "did you mean 'float32'?"),
    ],
)
def test_options_that_say_nothing_are_refused(capsys, monkeypatch, tmp_path, words, sentence):
    out = tmp_path / "x.jsonl"
    code, _, told = call(capsys, monkeypatch, "collect", "textcraft", "-o", out, *words)
    assert (code, sentence in told) == (2, True), told
    assert list(Path(tmp_path).iterdir()) == []
