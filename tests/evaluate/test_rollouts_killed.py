"""A real process, really killed in the middle of an evaluation."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from atlas_tune.evaluate.rollouts import read_rollouts
from evaluate.slow_evaluation import TASKS, run

HERE = Path(__file__).parent


def killed_when(path, lines):
    """Evaluate in a child process that is killed when the file holds so many lines."""
    child = subprocess.Popen(
        [sys.executable, HERE / "slow_evaluation.py", path, "0.05"],
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
    )
    until = time.monotonic() + 60
    while not (path.exists() and path.read_bytes().count(b"\n") >= lines):
        assert child.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < until, "it does not get on"
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()


def test_a_killed_evaluation_goes_on_to_the_same_file_and_does_no_task_twice(tmp_path):
    path, whole = tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"
    run(whole, 0.0)
    for lines in (1, 6):
        killed_when(path, lines)
        assert len(read_rollouts(path)) < len(TASKS)
    run(path, 0.0)
    assert [rollout.task_id for rollout in read_rollouts(path)] == TASKS
    assert path.read_bytes() == whole.read_bytes()
