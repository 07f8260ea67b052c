"""A person in an environment: through pipes, on a terminal, and what is kept of it."""

import json
import os
import pty
import subprocess
import sys
import time

import pytest

from agents.corridor import Corridor
from atlas_tune.agents.person import PersonRun, advise
from atlas_tune.environments.base import ExpertFailed
from atlas_tune.environments.textcraft import TextCraft
from atlas_tune.errors import UsageError
from atlas_tune.trajectory.store import read_trajectories

TASK = "textcraft/stone-brick-stairs/d2/c6/0"
PLAY = [sys.executable, "-m", "atlas_tune", "play"]


def piped(lines, *words):
    return subprocess.run(
        [*PLAY, *map(str, words)],
        input="".join(f"{line}\n" for line in lines).encode(),
        capture_output=True,
        timeout=60,
    )


def expert_actions(task=TASK):
    env, actions = TextCraft(), []
    while True:
        try:
            actions.append(advise(env, task, actions).turn.action)
        except ExpertFailed:
            return actions


def test_what_the_expert_advises_solves_the_task_and_is_saved(tmp_path):
    saved = tmp_path / "run.jsonl"
    actions = expert_actions()
    lines = [":expert", ":think I begin.", *actions]
    done = piped(lines, "textcraft", "--task", TASK, "--save", saved, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "environment": "textcraft",
        "task": TASK,
        "steps": len(actions),
        "score": 1.0,
        "success": True,
        "saved": str(saved),
    }
    told = done.stderr.decode()
    assert f"The expert does: {actions[0]}" in told
    assert f"[score 0, 19 steps left] > {actions[1]}" in told
    assert f"Solved in {len(actions)} steps, score 1." in told
    (run,) = read_trajectories(saved)
    assert run.agent["name"] == "person"
    assert (run.task_id, run.outcome.reward, run.outcome.success) == (TASK, 1.0, True)
    assert [step.message for step in run.agent_steps] == [
        f"Thought:\nI begin.\n\nAction:\n{actions[0]}",
        *(f"Action:\n{action}" for action in actions[1:]),
    ]


def test_the_end_of_the_input_saves_what_was_done_and_a_second_run_is_added(tmp_path):
    saved = tmp_path / "run.jsonl"
    for line in ("inventory", "get 1 nothing"):
        done = piped([line], "textcraft", "--index", 1, "--save", saved)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"Stopped after 1 step, not solved, score 0." in done.stdout
    runs = list(read_trajectories(saved))
    assert [run.agent_steps[0].message for run in runs] == [
        "Action:\ninventory",
        "Action:\nget 1 nothing",
    ]
    assert {run.task_id for run in runs} == {TextCraft().tasks("train")[1]}
    assert not any(run.outcome.success for run in runs)


def test_without_a_step_nothing_is_saved(tmp_path):
    saved = tmp_path / "run.jsonl"
    done = piped([":help", "", ":undo", ":nonsense", ":quit"], "textcraft", "--save", saved)
    assert (done.returncode, saved.exists()) == (0, False)
    for words in (
        b"take the last step back",
        b"Type an action",
        b"no step to take back",
        b"no command ':nonsense'",
        b"nothing is added",
    ):
        assert words in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["textcrat"], 2, "did you mean 'textcraft'?"),
        (["textcraft", "--index", 5000], 2, "--index goes from 0 to 1495, not 5000"),
        (["textcraft", "--task", TASK, "--index", 1], 2, "--task names the task alone"),
        (["textcraft", "--task", "textcraft/none"], 2, "textcraft/none"),
        (["textcraft", "--save", "run.parquet"], 2, "the ending .jsonl"),
        (["textcraft", "--save", "other.jsonl"], 1, "name another one"),
        (["textcraft", "--save", "half.jsonl"], 1, "does not end with a line break"),
    ],
)
def test_a_mistake_is_told_before_the_first_step(call, tmp_path, words, code, sentence):
    from atlas_tune.trajectory.model import stored_json
    from trajectory.runs import craft_run

    (tmp_path / "other.jsonl").write_text('{"x": 1}\n')
    (tmp_path / "half.jsonl").write_text(stored_json(craft_run()))
    found, printed, told = call("play", *words)
    assert (found, printed) == (code, "")
    assert sentence in told
    assert (tmp_path / "half.jsonl").read_text() == stored_json(craft_run())


def test_a_terminal_shows_a_prompt_and_ctrl_d_ends_it(tmp_path):
    saved = tmp_path / "run.jsonl"
    master, slave = pty.openpty()
    words = [*PLAY, "textcraft", "--task", TASK, "--save", str(saved)]
    environment = {**os.environ, "TERM": "xterm"}
    process = subprocess.Popen(
        words, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
    )
    os.close(slave)
    seen = ""

    def wait_for(text):
        nonlocal seen
        deadline = time.monotonic() + 60
        while text not in seen:
            assert time.monotonic() < deadline, seen
            seen += os.read(master, 4096).decode()
        seen = seen.partition(text)[2]

    wait_for("20 steps left] > ")
    os.write(master, b"inventory\n")
    wait_for("Inventory: You are not carrying anything.")
    wait_for("19 steps left] > ")
    os.write(master, b"\x04")
    wait_for("Stopped after 1 step")
    wait_for("is added to")
    assert process.wait(timeout=60) == 0
    os.close(master)
    assert len(list(read_trajectories(saved))) == 1


def test_undo_takes_one_step_back():
    run = PersonRun(Corridor, "corridor/3")
    assert run.act("forward") == "2 cells ahead."
    assert run.act("forward") == "1 cells ahead."
    assert run.undo() == "2 cells ahead."
    assert (run.steps, run.is_over) == (1, False)
    assert run.undo() == "3 cells ahead."
    with pytest.raises(UsageError, match="no step to take back"):
        run.undo()
    for _ in range(3):
        run.act("forward")
    assert (run.steps, run.is_over, run.episode.reward) == (3, True, 1.0)


def test_the_step_limit_ends_a_run():
    run = PersonRun(Corridor, "corridor/3", max_steps=2)
    run.act("back")
    assert not run.is_over
    run.act("back")
    assert (run.is_over, run.episode.success, run.trajectory().outcome.reward) == (True, False, 0.0)


def test_an_action_that_cannot_be_written_is_not_played():
    run = PersonRun(Corridor, "corridor/3")
    for action in ("Action: forward", "forward\nforward", ""):
        with pytest.raises(UsageError, match="one line of text"):
            run.act(action)
    assert (run.steps, run.episode.turns) == (0, [])


def test_the_expert_does_not_mind_what_was_refused_and_tells_what_it_has_not_seen():
    env = TextCraft()
    first, second, *_ = expert_actions()
    advice = advise(env, TASK, ["get 1 stone brick stairs", first])
    assert (advice.turn.action, advice.left_at) == (second, None)
    advice = advise(env, TASK, [first, "inventory", "inventory"])
    assert (advice.turn.action, advice.left_at) == (second, 2)
