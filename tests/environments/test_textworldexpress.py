"""TextWorldExpress: rewards, splits, the shared Java process, its death, and the expert."""

from __future__ import annotations

import gc
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from threading import Timer

import gymnasium
import pytest

from atlas_tune.agents.rollout import run_expert
from atlas_tune.environments import make_environment
from atlas_tune.environments.base import EnvironmentLost, ExpertFailed
from atlas_tune.environments.habits import Habits
from atlas_tune.environments.java import check_installed
from atlas_tune.environments.textworldexpress import TextWorldExpress
from atlas_tune.environments.textworldexpress.expert import GoldExpert, thought_of
from atlas_tune.environments.textworldexpress.games import GAMES, Task
from atlas_tune.environments.textworldexpress.gold import gold_path
from atlas_tune.environments.textworldexpress.simulator import PROGRAM, Game, Simulator, simulator
from atlas_tune.errors import AtlasError, UsageError

PLAYS = all(map(importlib.util.find_spec, PROGRAM.packages)) and shutil.which("java") is not None
plays = pytest.mark.skipif(not PLAYS, reason="needs the package textworld-express and Java")
COIN = "textworldexpress/coin/20000"
SUM = "textworldexpress/arithmetic/20000"
NONE = Habits(look=0, slip=0, detour=0)


def start(task_id=COIN):
    env = TextWorldExpress()
    env.reset(options={"task_id": task_id})
    return env


def run(task_id, habits=NONE, seed=0):
    env = TextWorldExpress()
    return run_expert(env, task_id, lambda: env.expert(seed, habits), env.max_steps)


def actions_of(episode):
    return [message.rpartition("\n")[2] for message, _, _ in episode.turns]


# --- without Java -------------------------------------------------------------------------------


def test_a_task_is_a_game_and_a_seed_of_a_split():
    seeds = (0, 999, 10_000, 10_999, 20_000, 20_999)
    tasks = [Task.parse(f"textworldexpress/coin/{seed}") for seed in seeds]
    assert [task.split for task in tasks] == ["train", "train", "dev", "dev", "test", "test"]
    assert [task.id for task in tasks] == [f"textworldexpress/coin/{seed}" for seed in seeds]


@pytest.mark.parametrize(
    ("task_id", "words"),
    [
        (None, "has no task None"),
        (3, "has no task 3"),
        ("coin/0", "such as 'textworldexpress/coin/0'"),
        ("textworldexpress/coins/0", "did you mean 'coin'"),
        ("textworldexpress/coin/1000", "train 0 to 999, dev 10000 to 10999, test 20000 to 20999"),
        ("textworldexpress/coin/01", "the seeds are"),
        ("textworldexpress/coin/-1", "the seeds are"),
        ("textworldexpress/coin/²", "the seeds are"),
        ("textworldexpress/coin/" + "9" * 5000, "the seeds are"),
    ],
)
def test_an_id_that_names_no_task_is_refused(task_id, words):
    with pytest.raises(UsageError, match=words):
        Task.parse(task_id)


def played(path, habits, steps, obeys=False):
    """All actions of an expert; only the last one ends a path."""
    draw = random.Random(0)
    expert = GoldExpert(path, obeys=obeys, habits=habits, draw=draw, steps=steps)
    actions = []
    try:
        while True:
            actions.append(expert.act("").action)
    except ExpertFailed:
        return actions


def test_the_expert_without_habits_plays_the_path_and_then_gives_up():
    assert played(("move east", "take coin"), NONE, 50) == ["move east", "take coin"]


def test_slips_are_mended_and_stop_at_the_step_limit():
    slips = Habits(look=0, slip=1, detour=0)
    path = ("move east", "open door to north", "take coin")
    assert played(path, slips, 3) == list(path)
    assert played(path, slips, 5) == [
        "go east", "move east", "open the door to the north", "open door to north", "take coin",
    ]  # fmt: skip
    expert = GoldExpert(path, obeys=False, habits=slips, draw=random.Random(0), steps=9)
    assert [expert.act("").thought for _ in range(2)] == [
        "I go on to the east.",
        "That was not understood. I say it in the game's words. I go on to the east.",
    ]


def test_a_detour_goes_back_and_returns_or_reads_again():
    detours = Habits(look=0, slip=0, detour=1)
    path = ("move east", "read map", "take coin", "inventory")
    there = ["move east", "move west", "move east", "read map", "read map", "take coin"]
    assert played(path, detours, 50) == [*there, "inventory"]
    # Going back and forth needs two turns, and there is but one; reading again needs one.
    assert played(path, detours, 5) == [
        "move east", "read map", "read map", "take coin", "inventory",
    ]  # fmt: skip


def test_a_look_is_another_one_than_the_path_takes():
    looks = Habits(look=1, slip=0, detour=0)
    assert played(("look around",), looks, 9) == ["inventory", "look around"]
    seen = {played(("take coin",) * 9, looks, 50)[n] for n in range(0, 18, 2)}
    assert seen == {"look around", "inventory"}


def test_in_simonsays_there_are_no_habits_but_slips():
    path = ("read map", "take tomato", "hop to the left")
    assert played(path, Habits(look=1, slip=0, detour=1), 50, obeys=True) == list(path)
    slips = Habits(look=1, slip=1, detour=1)
    assert played(("take tomato",), slips, 50, obeys=True) == ["take the tomato", "take tomato"]


def test_thoughts_are_plain_words():
    assert thought_of("cook red apple in stove") == (
        "The recipe wants the red apple cooked, and the stove does that."
    )
    assert thought_of("open door to north") == "The door to the north may be closed, so I open it."
    assert thought_of("open fridge") == "There may be something in the fridge, so I open it."
    assert thought_of("wave hello") == "Next I wave hello."


def test_a_missing_package_and_a_missing_java_are_told(monkeypatch, tmp_path):
    absent = replace(PROGRAM, packages=("no_such_package",))
    with pytest.raises(AtlasError, match=r"pip install 'atlas-tune\[textworldexpress\]'"):
        check_installed(absent)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(AtlasError, match="runs on Java, and there is no 'java'"):
        check_installed(replace(PROGRAM, packages=()))


def test_java_below_java_home_is_found(monkeypatch, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    check_installed(replace(PROGRAM, packages=()))


# --- playing ------------------------------------------------------------------------------------


@plays
def test_it_is_an_environment_by_name():
    env = make_environment("textworldexpress")
    assert (env.name, env.metric, env.max_steps) == ("textworldexpress", "reward", 50)


@plays
def test_the_first_observation_holds_the_task_and_the_reward_is_the_rise_of_the_score():
    env = TextWorldExpress()
    told, info = env.reset(options={"task_id": SUM})
    assert told.startswith("Your first task is to solve the math problem. Then, pick up the item")
    assert "18 avocados" in told and info == {"success": False, "valid": True}
    done = [
        env.step(action)
        for action in (
            "take math problem",
            "read math problem",
            "take 18 avocados",
            "put 18 avocados in box",
        )
    ]
    assert "divide 36 by 2" in done[1][0]
    assert [(reward, ended) for _, reward, ended, _, _ in done] == [
        (0.0, False), (0.5, False), (0.0, False), (0.5, True),
    ]  # fmt: skip
    assert [info["success"] for *_, info in done] == [False, False, False, True]
    assert not any(truncated for *_, truncated, _ in done)


@plays
def test_a_wrong_deed_ends_the_game_with_minus_one():
    env = start(SUM)
    env.step("take 40 blueberries")
    _, reward, ended, _, info = env.step("put 40 blueberries in box")
    assert (reward, ended, info) == (-1.0, True, {"success": False, "valid": True})
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("look around")
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.expert()


@plays
def test_a_meal_that_is_spoilt_keeps_the_points_it_had():
    env = start("textworldexpress/cookingworld/20000")
    rewards = [env.step("take red apple")[1], env.step("eat red apple")[1:3]]
    assert rewards == [pytest.approx(1 / 6), (0.0, True)]


@plays
@pytest.mark.parametrize(
    "action", ["", "dance", "Open door to north", "\ud800", "a\nb", "x" * 9999]
)
def test_an_action_that_is_not_listed_is_invalid_and_changes_nothing(action):
    env = start()
    room = env.step("look around")[0]
    answer, reward, ended, _, info = env.step(action)
    assert answer == "Unknown action: I'm not sure what you mean."
    assert (reward, ended, info["valid"]) == (0.0, False, False)
    assert env.step("look around")[0] == room
    assert env.step("  open door to north\n")[4]["valid"]


@plays
def test_an_action_is_valid_exactly_where_the_game_understands_it():
    draw, seen = random.Random(3), set()
    for game in GAMES:
        one = Game(simulator())
        for seed in (20_000, 20_001):
            state, met = one.start(Task(game, seed)), set()
            for _ in range(25):
                met |= state.valid_actions
                action = draw.choice(sorted(met))
                valid = action in state.valid_actions
                after = one.act(action)
                assert valid != after.observation.startswith("Unknown action")
                assert valid or (after.score, after.ended) == (state.score, state.ended)
                assert after.succeeded == (after.score == 1)
                assert -1 <= after.score <= 1
                seen.add(valid)
                state = after
                if state.ended:
                    break
    assert seen == {True, False}


@plays
def test_our_simulator_says_what_the_packages_own_class_says():
    from textworld_express import TextWorldExpressEnv

    official = TextWorldExpressEnv(envStepLimit=100)
    for task_id in (COIN, "textworldexpress/cookingworld/3", "textworldexpress/twc/10005"):
        task = Task.parse(task_id)
        official.load(task.game, GAMES[task.game].parameters)
        official.reset(seed=task.seed, gameFold=task.split, generateGoldPath=True)
        ours = start(task_id)
        for action in official.getGoldActionSequence():
            observation, reward, ended, info = official.step(action)
            answer, earned, terminated, _, told = ours.step(action)
            assert answer == observation.strip()
            assert (earned, terminated) == (reward, ended)
            assert told["success"] == info["tasksuccess"]
            if ended:
                break
        assert told["success"]
    official.close()


# --- the shared process -------------------------------------------------------------------------


def walk(task_id, steps=20):
    """What a walk without thought reads, alone."""
    game, draw = Game(simulator()), random.Random(task_id)
    state = game.start(Task.parse(task_id))
    read = [game.described(), state.observation]
    while len(read) < steps and not state.ended:
        state = game.act(draw.choice(sorted(state.valid_actions)))
        read.append(state.observation)
    return read


@plays
def test_episodes_in_turns_and_in_threads_read_what_they_read_alone():
    tasks = [f"textworldexpress/{game}/{seed}" for game in GAMES for seed in (7, 20_007)]
    alone = [walk(task) for task in tasks]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(walk, tasks)) == alone
    # In turns: all are started before any goes on.
    envs = [start(task) for task in tasks]
    assert len({env._game.java.process.pid for env in envs}) == 1
    looks = [[env.step("look around")[0] for env in envs] for _ in range(2)]
    assert looks[0] == [start(task).step("look around")[0] for task in tasks] == looks[1]


@plays
def test_32_episodes_at_once_share_one_process():
    tasks = TextWorldExpress().tasks("test")[:32]
    envs = [TextWorldExpress() for _ in tasks]
    with ThreadPoolExecutor(8) as pool:
        told = list(
            pool.map(lambda env, task: env.reset(options={"task_id": task})[0], envs, tasks)
        )
        moved = list(pool.map(lambda env: env.step(min(env._state.valid_actions)), envs))
    assert len(told) == 32 and all(told)
    assert all(info["valid"] for *_, info in moved)
    assert len({env._game.java.process.pid for env in envs}) == 1


@plays
@pytest.mark.parametrize("game", GAMES)
def test_two_episodes_of_one_task_do_not_touch_each_other(game):
    # In Java two sorting games of one problem share their things.
    task = f"textworldexpress/{game}/20000"
    env, path = start(task), run(task)
    other = start(task)
    for (message, answer, reward), action in zip(path.turns, actions_of(path), strict=True):
        assert message.endswith(action)
        observation, earned, ended, _, info = env.step(action)
        assert (observation, earned, info["valid"]) == (answer, reward, True)
        other.step(next(iter(sorted(other._state.valid_actions))) if other._state else "")
        if other._state is None:
            other.reset(options={"task_id": task})
    assert ended and info["success"]


@plays
def test_sorting_games_in_threads_stay_apart():
    tasks = [f"textworldexpress/sorting/{seed}" for seed in (0, 1, 0, 1, 2, 2)]
    alone = [walk(task) for task in tasks]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(walk, tasks)) == alone


@plays
def test_a_task_is_the_same_in_another_process():
    task = "textworldexpress/coin/20003"
    code = (
        "from atlas_tune.environments.textworldexpress.env import TextWorldExpress\n"
        "env = TextWorldExpress()\n"
        f"told, _ = env.reset(options={{'task_id': {task!r}}})\n"
        "expert = env.expert(5)\n"
        "print(repr([told, *(expert.act('').action for _ in range(5))]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    env = TextWorldExpress()
    told, _ = env.reset(options={"task_id": task})
    expert = env.expert(5)
    assert done.stdout.strip() == repr([told, *(expert.act("").action for _ in range(5))])


@plays
def test_a_process_that_dies_is_told_and_replaced():
    one, other = start(), start()
    process = one._game.java.process
    process.kill()
    process.wait()
    for env in (one, other):
        with pytest.raises(EnvironmentLost, match="start the task again"):
            env.step("look around")
        with pytest.raises(EnvironmentLost, match="start the task again"):
            env.expert()
    told = [env.reset(options={"task_id": COIN})[0] for env in (one, other)]
    assert told[0] == told[1] and told[0].startswith("Your task is to search the environment")
    assert one._game.java.process.pid == other._game.java.process.pid != process.pid


@plays
def test_a_process_that_hangs_or_dies_in_a_call_is_told_once(caplog):
    hanging, dying = (Simulator(replace(PROGRAM, patience=patience)) for patience in (2.0, 60.0))
    os.kill(hanging.process.pid, signal.SIGSTOP)
    with pytest.raises(EnvironmentLost, match="no answer for 2 seconds"):
        Game(hanging)
    assert not hanging.alive
    with pytest.raises(EnvironmentLost, match="Java process has ended"):
        Game(hanging)
    os.kill(dying.process.pid, signal.SIGSTOP)
    Timer(0.3, dying.process.kill).start()
    with pytest.raises(EnvironmentLost, match="process died"):
        Game(dying)
    # py4j would log its tracebacks beside the sentence.
    assert caplog.records == []


@plays
def test_py4j_may_complain_of_connections_that_are_not_ours(caplog):
    from py4j.java_gateway import GatewayParameters, JavaGateway
    from py4j.protocol import Py4JNetworkError

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gateway = JavaGateway(gateway_parameters=GatewayParameters(port=free.getsockname()[1]))
        with pytest.raises(Py4JNetworkError):
            gateway.jvm.java.util.ArrayList()
    assert "An error occurred while trying to connect" in caplog.text


@plays
def test_a_fork_leaves_the_process_to_its_parent():
    env = start()
    room, pid = env.step("look around")[0], env._game.java.process.pid
    child = os.fork()
    if child == 0:
        told = []
        try:
            with pytest.raises(EnvironmentLost, match="Java process has ended"):
                env.step("look around")
            env.close()
            gc.collect()
            other = start()
            told = [other.step("look around")[0], other._game.java.process.pid != pid]
        finally:
            os._exit(told != [room, True])
    assert os.waitpid(child, 0)[1] == 0
    # What the child let go of is still here.
    assert env.step("look around")[0] == room
    assert env._game.java.process.pid == pid


@plays
def test_what_java_refuses_loses_the_episode_and_not_the_process():
    game = Game(simulator())
    nothing = game.java.new("java.util.ArrayList")
    with pytest.raises(EnvironmentLost, match=r"failed in Java at \(3,\): .*IndexOutOfBounds"):
        game.java.call(nothing.get, 3)
    assert simulator() is game.java and game.java.alive
    assert game.start(Task.parse(COIN)).observation.startswith("You are in the kitchen.")


@plays
def test_a_java_that_does_not_start_is_told(monkeypatch, tmp_path):
    (tmp_path / "java").write_text("#!/bin/sh\necho broken\n")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(AtlasError, match=r"did not start TextWorldExpress: .*-version' to see"):
        Simulator()


@plays
@pytest.mark.parametrize("environment", ["scienceworld", "textworldexpress"])
def test_the_process_ends_with_a_killed_one(environment):
    if environment == "scienceworld":
        pytest.importorskip("scienceworld")
    code = (
        "import os, signal\n"
        f"from atlas_tune.environments.{environment}.simulator import simulator\n"
        "print(simulator().process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    pid = int(done.stdout)
    for _ in range(100):
        try:
            with open(f"/proc/{pid}/stat") as stat:
                if stat.read().rpartition(")")[2].split()[0] == "Z":
                    return
        except FileNotFoundError:
            return
        time.sleep(0.1)
    pytest.fail("Java is still there ten seconds after its parent was killed")


# --- tasks and the expert -----------------------------------------------------------------------


@plays
def test_splits_hold_a_thousand_tasks_a_game_in_turns():
    env = TextWorldExpress()
    found = {split: env.tasks(split) for split in env.splits}
    assert {split: len(tasks) for split, tasks in found.items()} == dict.fromkeys(
        ("train", "dev", "test"), 8000
    )
    assert len(set().union(*found.values())) == 24_000
    assert [task.split("/")[1] for task in found["test"][:8]] == list(GAMES)
    assert all(Task.parse(task).split == "dev" for task in found["dev"])
    coins = env.tasks("test", games="coin")
    assert coins == [task for task in found["test"] if "/coin/" in task]
    assert len(env.tasks("test", games=["coin", "twc", "coin"])) == 2000


@plays
def test_the_seeds_of_a_split_are_the_packages():
    interface = Game(simulator())._interface
    for game in ("coin", "arithmetic"):
        interface.load(game, "")
        for split, method in (
            ("train", interface.getSeedsTrain),
            ("dev", interface.getSeedsDev),
            ("test", interface.getSeedsTest),
        ):
            assert {Task("coin", seed).split for seed in method()} == {split}


@plays
@pytest.mark.parametrize(
    ("split", "options", "words"),
    [
        ("trains", {}, "did you mean 'train'"),
        ("train", {"game": "coin"}, "no task option 'game'"),
        ("train", {"games": "coins"}, "did you mean 'coin'"),
        ("train", {"games": []}, "is the name of a game or a list of names"),
        ("train", {"games": 3}, "is the name of a game or a list of names"),
    ],
)
def test_what_tasks_cannot_be_asked_for(split, options, words):
    with pytest.raises(UsageError, match=words):
        TextWorldExpress().tasks(split, **options)


@plays
@pytest.mark.parametrize("game", GAMES)
def test_the_expert_wins_with_habits_and_without(game):
    for seed in (20_001, 5):
        task_id = f"textworldexpress/{game}/{seed}"
        plain = run(task_id)
        assert (plain.success, plain.reward, plain.invalid) == (True, pytest.approx(1), 0)
        usual = run(task_id, Habits(look=0.3, slip=0.9, detour=0.5), seed=1)
        assert (usual.success, usual.reward) == (True, pytest.approx(1))
        assert usual.invalid > 0 and len(usual.turns) <= 50


@plays
def test_the_same_seed_gives_the_same_turns_and_another_one_searches_otherwise():
    task = "textworldexpress/coin/20001"
    assert run(task, Habits(), 3).turns == run(task, Habits(), 3).turns
    ways = {tuple(actions_of(run(task, seed=seed))) for seed in range(4)}
    assert len(ways) > 1


@plays
def test_a_path_that_does_not_fit_is_no_path():
    with pytest.raises(ExpertFailed, match="did not solve textworldexpress/coin/20000 in 2 steps"):
        gold_path(simulator(), Task.parse(COIN), 0, 2)


@plays
def test_a_path_ends_with_the_step_that_wins():
    # The package's own path goes on for a move after the last thing is put away.
    actions = actions_of(run("textworldexpress/twc/20000"))
    assert actions[-1].startswith("put ")
    assert not any(a == b == "task" for a, b in pairwise(actions))
