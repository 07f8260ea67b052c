"""Our environments through OpenEnv's own server and client; skipped where it is not installed."""

from __future__ import annotations

import pytest
from served import ServedEnvironment

from atlas_tune.environments import make_environment

openenv = pytest.importorskip("openenv")

TASK = "textcraft/stone-brick-stairs/d2/c6/0"


def test_openenvs_client_sees_what_happens_in_process() -> None:
    from openenv.core.generic_client import GenericEnvClient

    here = make_environment("textcraft")
    with (
        ServedEnvironment("textcraft", "--protocol", "openenv") as served,
        GenericEnvClient(base_url=served.url).sync() as first,
        GenericEnvClient(base_url=served.url).sync() as second,
    ):
        begun = first.reset(task_id=TASK, episode_id="e1")
        assert begun.observation["text"] == here.reset(options={"task_id": TASK})[0]
        other = second.reset(split="test", index=3)
        for action in ("dance", "get 8 stone", "inventory"):
            text, reward, terminated, _, info = here.step(action)
            told = first.step({"action": action})
            assert told.observation["text"] == text
            assert (told.reward, told.done) == (reward, terminated)
            assert told.observation["valid"] == info["valid"]
        state = first.state()
        assert (state["episode_id"], state["task_id"]) == ("e1", TASK)
        assert (state["step_count"], state["score"]) == (3, 0.0)
        assert second.state()["step_count"] == 0
    third = here.tasks("test")[3]
    assert other.observation["text"] == here.reset(options={"task_id": third})[0]


def test_the_task_api_lists_our_tasks() -> None:
    from atlas_tune.environments.serving.openenv import OpenEnvText

    env = OpenEnvText(make_environment("textcraft"))
    tasks = make_environment("textcraft").tasks("test")
    assert env.list_splits() == ["train", "test"]
    assert env.num_tasks("test") == len(tasks)
    assert env.get_task("test", 5) == {"id": tasks[5], "index": 5}
    assert env.get_task_range("test", 1, 3) == [
        {"id": tasks[1], "index": 1},
        {"id": tasks[2], "index": 2},
    ]
    with pytest.raises(IndexError):
        env.get_task("test", len(tasks))
    env.reset(seed=len(tasks) + 1, split="test")
    assert env.state.task_id == tasks[1]
