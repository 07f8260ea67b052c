"""Environments in real child processes, killed for real."""

import gc
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from agents.corridor import Corridor
from atlas_tune.agents.rollout import run_policy
from atlas_tune.environments.base import EnvironmentLost, ExpertFailed
from atlas_tune.environments.isolated import EnvironmentCrashed, ProcessEnv
from atlas_tune.errors import AtlasError, UsageError
from environments.hanging import Hanging, never_made, slow_to_make

START = {"task_id": "corridor/2"}


@pytest.fixture
def env():
    found = ProcessEnv(Hanging, step_seconds=20)
    yield found
    found.close()


def pid_of(env):
    return env._child.pid


def is_there(pid):
    """Whether there is such a process, be it a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def gone_soon(pid):
    until = time.monotonic() + 10
    while is_there(pid) and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < until
        time.sleep(0.01)
    return True


def test_it_behaves_as_the_environment_in_it(env):
    own = Hanging()
    about = ("name", "instruction", "max_steps", "metric", "splits")
    assert [getattr(env, name) for name in about] == [getattr(own, name) for name in about]
    assert list(env.tasks("train")) == own.tasks("train")
    assert env.reset(options=START) == own.reset(options=START)
    assert env.expert().act("").action == "forward"
    for action in ("forward", "dance", "forward"):
        assert env.step(action) == own.step(action)
    pid = pid_of(env)
    assert pid != os.getpid()
    env.close()
    assert not is_there(pid), "ended and reaped"


def test_a_step_that_hangs_is_killed_with_all_that_it_started(tmp_path):
    env = ProcessEnv(Hanging, step_seconds=1)
    env.reset(options=START)
    pid, started = pid_of(env), time.monotonic()
    with pytest.raises(EnvironmentLost, match=r"longer than 1 s for step.*--step-timeout"):
        env.step(f"hang {tmp_path / 'pid'}")
    assert time.monotonic() - started < 10
    assert not is_there(pid), "killed and reaped: no zombie"
    assert gone_soon(int((tmp_path / "pid").read_text()))
    with pytest.raises(EnvironmentLost, match="gone"):
        env.step("forward")
    assert env.reset(options=START)[0] == "2 cells ahead.", "the next reset starts a new child"
    env.close()


def test_a_reset_that_hangs_is_killed_too():
    env = ProcessEnv(Hanging, step_seconds=0.5)
    pid = pid_of(env)
    with pytest.raises(EnvironmentLost, match=r"longer than 0\.5 s for reset"):
        env.reset(options={"task_id": "corridor/never"})
    assert not is_there(pid)


def test_a_child_that_dies_is_told_and_started_again(env):
    env.reset(options=START)
    with pytest.raises(EnvironmentLost, match=r"died in step \(exit code 7\)"):
        env.step("exit")
    assert env.reset(options=START)[0] == "2 cells ahead."


@pytest.mark.parametrize(
    ("action", "kind", "told"),
    [
        ("crash", EnvironmentCrashed, "ValueError: boom"),
        ("refuse", UsageError, "no such thing"),
        ("missing", ModuleNotFoundError, "minigrid"),
        ("unsendable", EnvironmentCrashed, "cannot be sent"),
    ],
)
def test_what_it_raises_is_raised_here_and_it_goes_on(env, action, kind, told):
    env.reset(options=START)
    with pytest.raises(kind, match=told):
        env.step(action)
    assert env.step("forward")[0] == "1 cells ahead."


def test_an_expert_that_gives_up_says_so(env):
    env.reset(options=START)
    with pytest.raises(ExpertFailed, match="at a loss"):
        env.expert(13)


def test_an_environment_that_cannot_be_made_says_why():
    with pytest.raises(AtlasError, match="there is no such world: install it"):
        ProcessEnv(never_made)
    with pytest.raises(EnvironmentLost, match="for making it"):
        ProcessEnv(slow_to_make, start_seconds=2)
    with pytest.raises(UsageError, match="above 0"):
        ProcessEnv(Hanging, step_seconds=0)


def test_nobody_needs_to_close_it():
    env = ProcessEnv(Hanging)
    pid = pid_of(env)
    del env
    gc.collect()
    assert not is_there(pid)


@pytest.mark.parametrize("end", ["pass", "import os; os.kill(os.getpid(), 9)"])
def test_it_ends_with_the_process_that_started_it(end):
    code = (
        "from atlas_tune.environments.isolated import ProcessEnv\n"
        "from environments.hanging import Hanging\n"
        "if __name__ == '__main__':\n"
        "    env = ProcessEnv(Hanging)\n"
        "    print(env._child.pid, flush=True)\n"
        f"    {end}\n"
    )
    paths = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=paths, capture_output=True, text=True, timeout=60
    )
    assert gone_soon(int(ran.stdout)), ran.stderr


class HangsOnce:
    """Lets the first episode hang in its second turn; all others walk on."""

    def __init__(self, place):
        self.place = place

    def replies(self, conversations):
        return {key: f"Action: {self._action(said)}" for key, said in conversations.items()}

    def _action(self, said):
        if said[2]["content"].startswith("3") and len(said) == 5 and not self.place.exists():
            return f"hang {self.place}"
        return "forward"


def test_a_rollout_outlives_an_episode_that_hangs(tmp_path):
    made = partial(ProcessEnv, Hanging, step_seconds=1)
    tasks = ["corridor/3", "corridor/2"]
    episodes = run_policy(made, tasks, HangsOnce(tmp_path / "pid"), max_steps=8)
    assert [(e.success, len(e.turns), e.error) for e in episodes] == [
        (True, 3, None),
        (True, 2, None),
    ]
    plain = run_policy(Corridor, tasks, HangsOnce(tmp_path / "pid"), max_steps=8)
    assert [e.messages() for e in episodes] == [e.messages() for e in plain]
