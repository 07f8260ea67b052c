"""Our environments behind real HTTP: what the client sees is what happens in process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from served import ServedEnvironment

from atlas_tune.agents.rollout import run_expert
from atlas_tune.environments import make_environment
from atlas_tune.environments.base import EnvironmentLost, TextEnv
from atlas_tune.environments.habits import Habits
from atlas_tune.environments.serving.episodes import Episodes
from atlas_tune.environments.wordle.task import find_vocabulary
from atlas_tune.errors import AtlasError, UsageError

PERFECT = Habits(look=0.0, slip=0.0, detour=0.0)


@pytest.fixture(scope="module")
def textcraft() -> Iterator[ServedEnvironment]:
    with ServedEnvironment("textcraft") as served:
        yield served


@pytest.fixture(scope="module")
def babyai() -> Iterator[ServedEnvironment]:
    with ServedEnvironment("babyai", "--split", "train", "--set", "levels=GoToRedBall") as served:
        yield served


@pytest.fixture(scope="module")
def wordle() -> Iterator[ServedEnvironment]:
    with ServedEnvironment("wordle", "--set", "words=20") as served:
        yield served


@pytest.fixture(scope="module")
def textworldexpress() -> Iterator[ServedEnvironment]:
    try:
        make_environment("textworldexpress")
    except AtlasError as missing:
        pytest.skip(str(missing))
    with ServedEnvironment("textworldexpress") as served:
        yield served


def expert_actions(env: TextEnv, task_id: str) -> list[str]:
    """What a perfect expert does in a task, played in process, and one refused action first."""
    episode = run_expert(env, task_id, lambda: env.expert(0, PERFECT), env.max_steps)
    assert episode.success
    return ["dance", *(reply.rpartition("Action:\n")[2] for reply, _, _ in episode.turns)]


def play(env: TextEnv, task_id: str, actions: list[str]) -> list[Any]:
    """All that an environment says to these actions."""
    return [env.reset(options={"task_id": task_id}), *(env.step(action) for action in actions)]


def ask(served: ServedEnvironment, path: str, fields: Any) -> Any:
    """A bare request, as any other client sends it; GET where there are no fields."""
    content = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    reply = httpx2.post(served.url + path, content=content)
    assert reply.status_code == 200
    return reply.json()


@pytest.mark.parametrize("name", ["textcraft", "babyai", "wordle", "textworldexpress"])
def test_a_served_environment_is_the_one_in_process(
    name: str, request: pytest.FixtureRequest
) -> None:
    served = request.getfixturevalue(name)
    here, there = make_environment(name), make_environment(f"agentgym:plain@{served.url}")
    assert (there.instruction, there.max_steps, there.metric, there.splits) == (
        here.instruction,
        here.max_steps,
        here.metric,
        here.splits,
    )
    assert there.tasks("test") == here.tasks("test")
    for task_id in here.tasks("train")[2:4]:  # The first two games of TextWorldExpress are slow.
        actions = expert_actions(here, task_id)
        told = play(there, task_id, actions)
        assert told == play(here, task_id, actions)
        assert told[-1][2] is True and told[-1][4]["success"]
        assert told[1][4] == {"success": False, "valid": False}


@pytest.mark.parametrize(
    ("name", "split", "options"),
    [("textcraft", "test", {}), ("babyai", "train", {"levels": "GoToRedBall"})],
)
def test_agentgyms_own_dialect_names_our_tasks_by_index(
    name: str, split: str, options: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    served = request.getfixturevalue(name)
    here, there = make_environment(name), make_environment(f"agentgym:{name}@{served.url}")
    task_id = here.tasks(split, **options)[2]
    actions = expert_actions(here, task_id)
    assert play(there, f"{name}_2", actions) == play(here, task_id, actions)


def test_wordle_is_served_as_agentgym_serves_it(wordle: ServedEnvironment) -> None:
    here, there = make_environment("wordle"), make_environment(f"agentgym:wordle@{wordle.url}")
    task_id = here.tasks("test", words=20)[2]
    actions = expert_actions(here, task_id)
    told, own = play(there, "lmrlgym_wordle_2", actions), play(here, task_id, actions)
    words = find_vocabulary(own[0][0])
    assert words is not None
    assert told[0][0].split("\n")[-len(words) :] == list(words)
    assert told[1:] == own[1:]


def test_scienceworld_is_served_as_agentgym_serves_it() -> None:
    try:
        here = make_environment("scienceworld")
    except AtlasError as missing:
        pytest.skip(str(missing))
    with ServedEnvironment("scienceworld") as served:
        there = make_environment(f"agentgym:sciworld@{served.url}")
        task_id = here.tasks("test")[0]
        actions = ["look around", "inventory", "nonsense"]
        told, own = play(there, "sciworld_0", actions), play(here, task_id, actions)
        assert [one[:4] for one in told[1:]] == [one[:4] for one in own[1:]]
        assert told[0][0] == own[0][0]


def test_sixteen_episodes_at_once_do_not_disturb_each_other(textcraft: ServedEnvironment) -> None:
    here = make_environment("textcraft")
    tasks = here.tasks("train")[:16]
    scripts = [expert_actions(here, task_id) for task_id in tasks]
    together = threading.Barrier(16)

    def episode(task_id: str, actions: list[str]) -> list[Any]:
        env = make_environment(f"agentgym:plain@{textcraft.url}")
        told = [env.reset(options={"task_id": task_id})]
        together.wait(20)  # All sixteen have begun before any goes on.
        return told + [env.step(action) for action in actions]

    with ThreadPoolExecutor(16) as pool:
        told = list(pool.map(episode, tasks, scripts))
    assert told == [play(here, *script) for script in zip(tasks, scripts, strict=True)]


def test_errors_are_replies_of_agentgyms_form(textcraft: ServedEnvironment) -> None:
    number = ask(textcraft, "/create", {})["id"]
    for path, fields, told in [
        ("/reset", {"id": number, "data_idx": 10**9}, "'data_idx' runs from 0 to "),
        ("/reset", {"id": number, "data_idx": -1}, "'data_idx' runs from 0 to "),
        ("/reset", {"id": number, "data_idx": "0"}, "a whole number, not '0'"),
        ("/reset", {"id": number, "task_id": "textcraft/nothing"}, "textcraft/nothing"),
        ("/reset", {"id": number}, "'data_idx' is missing"),
        ("/step", {"id": number, "action": "inventory"}, "reset it first"),
        ("/step", {"id": 10**12, "action": "inventory"}, f"The id {10**12} is not valid."),
        ("/step", {"action": "inventory"}, "'id' is missing"),
        ("/step", {"id": True, "action": "inventory"}, "not True"),
        ("/step", {"id": number}, "'action' is missing"),
        ("/step", [1], "not a JSON object"),
        ("/step", b"{", "not JSON"),
        ("/step", b" " * (2**20 + 1), "larger than"),
        ("/tasks", {"split": "tset"}, "has no split 'tset'"),
        ("/tasks", {"split": "test", "options": {"deep": 1}}, "no task option 'deep'"),
    ]:
        reply = ask(textcraft, path, fields)
        assert list(reply) == ["error"] and told in reply["error"], (path, fields, reply)
    env = make_environment(f"agentgym:plain@{textcraft.url}")
    with pytest.raises(AtlasError, match="textcraft/nothing") as caught:
        env.reset(options={"task_id": "textcraft/nothing"})
    assert not isinstance(caught.value, EnvironmentLost)


def test_agentgyms_paths_and_fields(textcraft: ServedEnvironment) -> None:
    """What AgentGym's TextCraft client reads, with an action that is half a surrogate pair."""
    created = ask(textcraft, "/create", {"commands": None, "goal": None})
    assert {"id", "observation"} <= set(created)
    number = created["id"]
    begun = ask(textcraft, "/reset", {"id": number, "data_idx": 0})
    assert begun["observation"].startswith("Crafting commands:") and begun["done"] is False
    stepped = ask(textcraft, "/step", {"id": number, "action": "\ud83d"})
    assert (stepped["reward"], stepped["done"], stepped["valid"]) == (0.0, False, False)
    seen = httpx2.get(f"{textcraft.url}/observation", params={"id": number}).json()
    assert seen == stepped["observation"]
    assert ask(textcraft, "/close", {"id": number}) is True
    assert "is not valid" in ask(textcraft, "/close", {"id": number})["error"]
    assert httpx2.get(textcraft.url).json() == "This is environment textcraft."


def test_a_server_killed_in_mid_episode_loses_it_and_a_new_one_takes_the_task() -> None:
    actions = expert_actions(make_environment("textcraft"), "textcraft/stone-brick-stairs/d2/c6/0")
    with ServedEnvironment("textcraft") as served:
        env = make_environment(f"agentgym:plain@{served.url}")
        env.reset(options={"task_id": "textcraft/stone-brick-stairs/d2/c6/0"})
        env.step(actions[0])
        served.kill()
        with pytest.raises(EnvironmentLost, match="the task can be started again"):
            env.step(actions[1])
        with pytest.raises(EnvironmentLost, match="cannot be reached"):
            env.reset(options={"task_id": "textcraft/stone-brick-stairs/d2/c6/0"})
    with ServedEnvironment("textcraft", port=served.port) as again:
        assert again.url == served.url
        told = play(env, "textcraft/stone-brick-stairs/d2/c6/0", actions)
    assert told[-1][1:] == (1.0, True, False, {"success": True, "valid": True})


def test_a_server_restarted_unnoticed_is_noticed() -> None:
    with ServedEnvironment("textcraft") as served:
        env = make_environment(f"agentgym:textcraft@{served.url}")
        env.reset(options={"task_id": "textcraft_0"})
    with ServedEnvironment("textcraft", port=served.port) as again:
        number = ask(again, "/create", {})["id"]
        ask(again, "/reset", {"id": number, "data_idx": 1})
        with pytest.raises(EnvironmentLost):
            env.step("inventory")
        env.reset(options={"task_id": "textcraft_0"})
        assert env.step("inventory")[0] == "Inventory: You are not carrying anything."


def test_control_c_ends_the_server_cleanly() -> None:
    with ServedEnvironment("textcraft") as served:
        env = make_environment(f"agentgym:plain@{served.url}")
        env.reset(options={"task_id": env.tasks("test")[0]})
        code, errors = served.interrupt()
    assert code == 0
    assert errors.endswith("Stopped.\n") and "Traceback" not in errors
    assert f"agentgym:plain@{served.url}" in errors


def test_a_port_that_is_taken_is_told(textcraft: ServedEnvironment) -> None:
    with ServedEnvironment("textcraft", port=textcraft.port) as second:
        _, errors = second.process.communicate(timeout=20)
    assert second.process.returncode == 1
    assert f"Error: Nothing can be served on 127.0.0.1, port {textcraft.port}" in errors


def test_idle_episodes_are_dropped_and_no_more_than_the_most_are_made() -> None:
    now = 0.0
    episodes = Episodes(
        lambda: make_environment("textcraft"), idle_seconds=100, most=2, clock=lambda: now
    )
    first, second = episodes.create(), episodes.create()
    with pytest.raises(AtlasError, match="2 environments run here"):
        episodes.create()
    now = 60.0
    episodes.reset(second, "textcraft/stone-brick-stairs/d2/c6/0")
    now = 101.0
    assert episodes.drop_idle() == 1
    with pytest.raises(UsageError, match=f"The id {first} is not valid.*after 100 seconds"):
        episodes.step(first, "inventory")
    assert episodes.step(second, "inventory")["observation"].startswith("Inventory:")
    third = episodes.create()
    assert len({first, second, third}) == 3 and len(episodes) == 2


def test_an_ended_episode_takes_no_more_steps() -> None:
    actions = expert_actions(make_environment("textcraft"), "textcraft/stone-brick-stairs/d2/c6/0")
    episodes = Episodes(lambda: make_environment("textcraft"))
    number = episodes.create()
    episodes.reset(number, "textcraft/stone-brick-stairs/d2/c6/0")
    last = [episodes.step(number, action) for action in actions][-1]
    assert (last["reward"], last["score"], last["done"]) == (1.0, 1.0, True)
    with pytest.raises(UsageError, match=f"The task with environment {number} has finished"):
        episodes.step(number, "inventory")
    assert episodes.reset(number, "textcraft/stone-brick-stairs/d2/c6/0")["score"] == 0.0
