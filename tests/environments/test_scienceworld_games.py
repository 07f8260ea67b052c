"""ScienceWorld: rewards, splits, the shared JVM, its death, the expert, and recorded runs."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import gymnasium
import pytest

from atlas_tune.agents.rollout import run_expert
from atlas_tune.environments import make_environment
from atlas_tune.environments.base import EnvironmentLost, ExpertFailed
from atlas_tune.environments.habits import Habits
from atlas_tune.environments.java import JavaProcess
from atlas_tune.environments.scienceworld import ScienceWorld
from atlas_tune.environments.scienceworld.agreement import agreement
from atlas_tune.environments.scienceworld.expert import GoldExpert
from atlas_tune.environments.scienceworld.index import LEFT_OUT, agentgym_tasks, numbered
from atlas_tune.environments.scienceworld.simulator import PROGRAM, Game, simulator
from atlas_tune.environments.scienceworld.spelling import former, is_former, todays
from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.select.replaying.playback import moves_of, play
from atlas_tune.select.replaying.replay import ReplaySelector
from atlas_tune.trajectory import Kind, Observation, Outcome, Step, Trajectory
from atlas_tune.trajectory.formats import read_sources
from shared_data import shared_data

PLAYS = importlib.util.find_spec("scienceworld") is not None and shutil.which("java") is not None
plays = pytest.mark.skipif(not PLAYS, reason="needs the package scienceworld and Java")
PLANT = "scienceworld/find-plant/3"
NONE = Habits(look=0, slip=0, detour=0)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache of our own, filled once for the whole file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATLAS_TUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def start(task_id=PLANT):
    env = ScienceWorld()
    env.reset(options={"task_id": task_id})
    return env


def gold_run(task_id=PLANT, habits=NONE):
    env = ScienceWorld()
    return run_expert(env, task_id, lambda: env.expert(0, habits), 30)


# --- without Java -------------------------------------------------------------------------------


def test_numbers_count_through_variations_and_leave_eight_tasks_out():
    names = {"1-1": "boil", "2-3": "unknown", "5-1": "grow", "6-1": "mix"}
    assert agentgym_tasks(names) == ["boil", "mix"]
    counts = {"boil": 3, "unknown": 9, "grow": 9, "mix": 2}
    found = [numbered(n, agentgym_tasks(names), counts) for n in range(5)]
    assert found == [("boil", 0), ("boil", 1), ("boil", 2), ("mix", 0), ("mix", 1)]
    with pytest.raises(IndexError):
        numbered(5, agentgym_tasks(names), counts)
    assert len(LEFT_OUT) == 8


def test_the_expert_without_habits_plays_the_path_and_then_gives_up():
    expert = GoldExpert(("go to hall", "2"), habits=NONE, draw=random.Random(0), steps=30)
    assert expert.act("").action == "go to hall"
    assert expert.act("Ambiguous request: …").action == "2"
    with pytest.raises(ExpertFailed, match="at its end"):
        expert.act("")


def test_habits_stop_at_the_step_limit_and_at_an_ambiguous_request():
    def played(steps, answer=""):
        always = Habits(look=0, slip=1, detour=0)
        path = ("go to hall", "focus on cup")
        expert = GoldExpert(path, habits=always, draw=random.Random(0), steps=steps)
        actions = []
        while not actions or actions[-1] != "focus on cup":
            actions.append(expert.act(answer).action)
        return actions

    assert played(2) == ["go to hall", "focus on cup"]
    assert played(3) == ["walk to hall", "go to hall", "focus on cup"]
    assert played(9) == ["walk to hall", "go to hall", "choose cup", "focus on cup"]
    assert played(9, "Ambiguous request: 0 or 1?") == ["go to hall", "focus on cup"]


def test_names_in_the_spelling_of_before_and_of_today():
    pairs = [
        ("open door to green house", "open door to greenhouse"),
        ("a bath tub; Green house, cachews", "a bathtub; Greenhouse, cashews"),
        ("focus on jam sandwhich", "focus on jam sandwich"),
    ]
    for before, today in pairs:
        assert (todays(before), former(today)) == (today, before)
        assert (todays(today), former(before)) == (today, before)
        assert (is_former([before]), is_former(["", today])) == (True, False)
    # Only tin was misspelt; a house that is green for another reason is none.
    assert former("gaseous lead, gaseous tin") == "gaseous lead, gasseous tin"
    assert todays("evergreen house") == "evergreen house"


@pytest.mark.parametrize(
    ("recorded", "replayed", "found"),
    [
        ("an axe\n\tthe agent", "an axe the agent", "same"),
        ("an axe, a cup (containing nothing).", "a cup (containing nothing), an axe.", "order"),
        ("a cup at -10 degrees celsius", "a cup at 3 degrees celsius", "temperature"),
        ("10 degrees, a cup, an axe", "an axe, a cup, 11 degrees", "temperature"),
        ("an axe, an axe", "an axe", "other"),
        ("box 10", "box 11", "other"),
        ("You move to the hallway.", "No known action matches that input.", "other"),
        # A part of the recorded text is not the recorded text.
        ("an axe and a cup", "an axe", "other"),
    ],
)
def test_how_an_observation_differs_from_the_recorded_one(recorded, replayed, found):
    assert agreement(recorded, replayed) == found
    assert agreement(replayed, recorded) == found


def test_without_java_a_sentence_says_so(monkeypatch):
    if importlib.util.find_spec("scienceworld") is None:
        pytest.skip("needs the package scienceworld")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(AtlasError, match=r"there is no 'java' on PATH.*install a Java runtime"):
        make_environment("scienceworld")


def test_without_the_package_a_sentence_says_how_to_get_it():
    code = "import sys; sys.modules['scienceworld'] = None; "
    code += "from atlas_tune.environments import make_environment; make_environment('scienceworld')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'atlas-tune[scienceworld]'" in done.stderr.splitlines()[-1]


# --- playing ------------------------------------------------------------------------------------


@plays
def test_the_rises_of_the_score_add_up_to_success():
    episode = gold_run()
    assert episode.success
    assert episode.reward == pytest.approx(1.0)
    assert sum(reward > 0 for _, _, reward in episode.turns) > 1


@plays
def test_the_wrong_focus_fails_the_task_with_minus_one():
    env = start("scienceworld/boil/0")
    assert env.step("focus on air")[1:] == (
        -1.0, True, False, {"success": False, "valid": True},
    )  # fmt: skip
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("look around")


@plays
def test_a_score_that_the_start_brings_stands_in_the_first_reward():
    # This game begins in a place that the task leads to, which is worth 8 points.
    env = start()
    assert [env.step("inventory")[1] for _ in range(2)] == [0.08, 0.0]


@plays
def test_what_is_not_understood_is_not_valid():
    env = start("scienceworld/boil/0")
    assert env.step("dance") == (
        "No known action matches that input.",
        0.0,
        False,
        False,
        {"success": False, "valid": False},
    )
    assert env.step("look around")[4] == {"success": False, "valid": True}


@plays
def test_the_text_is_that_of_the_official_step():
    from scienceworld import ScienceWorldEnv

    official = ScienceWorldEnv("")
    official.load("find-plant", 3, "easy", generateGoldPath=False)
    ours = ScienceWorld()
    told, _ = ours.reset(options={"task_id": PLANT})
    assert told == f"{official.get_task_description()}\n{official.step('look around')[0]}"
    earned = 0.0
    for action in ("dance", "go to hallway", "open door to kitchen", "wait1", "inventory"):
        observation, _, ended, info = official.step(action)
        answer, reward, terminated, _, _ = ours.step(action)
        earned += reward
        assert (answer, terminated) == (observation, ended)
        assert earned == pytest.approx(info["score"] / 100)
    official.close()


@plays
def test_episodes_that_take_turns_in_one_jvm_read_what_they_read_alone():
    actions = [
        "go to kitchen",
        "look around",
        "open cupboard",
        "activate stove",
        "wait",
        "look in sink",
    ]
    tasks = ["scienceworld/boil/3", PLANT, "scienceworld/use-thermometer/5"]
    alone = []
    for task in tasks:
        env = start(task)
        alone.append([env.step(action)[0] for action in actions])
    envs = [start(task) for task in tasks]
    turns = [[env.step(action)[0] for env in envs] for action in actions]
    assert [list(texts) for texts in zip(*turns, strict=True)] == alone
    assert len({env._game.java.process.pid for env in envs}) == 1


@plays
@pytest.mark.slow
def test_a_jvm_that_dies_is_told_and_another_one_plays_the_same_episodes():
    actions = [
        *("pick up glass jar", "go to hallway", "go to workshop", "drop glass jar", "0"),
        "look around",
    ]

    def texts():
        game = Game(simulator())
        game.load("test-conductivity", 228)
        return tuple(game.ask("step", action) for action in actions)

    here = {texts() for _ in range(8)}
    one, other = start(), start()
    process = one._game.java.process
    process.kill()
    process.wait()
    for env in (one, other):
        with pytest.raises(EnvironmentLost, match="start the task again"):
            env.step("look around")
    assert here == {texts()}
    # The answer to "drop" is a list, and what "0" does hangs on its order.
    assert here.pop()[3].startswith("Ambiguous request")
    assert one.reset(options={"task_id": PLANT})[0].startswith("Your task is to find a(n) plant.")
    assert one._game.java.process.pid != process.pid


@plays
def test_a_jvm_that_hangs_is_ended():
    java = JavaProcess(replace(PROGRAM, patience=2.0))
    os.kill(java.process.pid, signal.SIGSTOP)
    with pytest.raises(EnvironmentLost, match="or gave no answer for 2 seconds"):
        Game(java)
    assert not java.alive


@plays
@pytest.mark.slow
def test_32_episodes_in_threads_read_what_they_read_in_turns():
    tasks = ScienceWorld().tasks("test", tasks=["lifespan-longest-lived", "find-plant"])[:32]
    envs = [ScienceWorld() for _ in tasks]

    def read(env, task):
        told, _ = env.reset(options={"task_id": task})
        return [told, *(env.step(action)[0] for action in ("open door to kitchen", "look around"))]

    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(read, envs, tasks))
    assert at_once[::4] == [
        read(env, task) for env, task in zip(envs[::4], tasks[::4], strict=True)
    ]
    assert len({env._game.java.process.pid for env in envs}) == 1


# --- tasks --------------------------------------------------------------------------------------


@plays
def test_splits_share_no_task_and_hold_scienceworlds_lists():
    env = ScienceWorld()
    found = {split: env.tasks(split) for split in env.splits}
    assert {split: len(ids) for split, ids in found.items()} == {
        "train": 3592, "dev": 1796, "test": 1819,
    }  # fmt: skip
    assert len(set().union(*found.values())) == 3592 + 1796 + 1819
    assert len({task.split("/")[1] for task in found["test"][:30]}) == 30
    boil = sorted(env.tasks("dev", tasks="boil"))
    assert boil == [f"scienceworld/boil/{number}" for number in range(14, 21)]
    assert len({task.split("/")[1] for task in env.tasks("train", tasks="agentgym")}) == 22


@plays
@pytest.mark.parametrize(
    "task_id",
    [None, 3, "boil/0", "scienceworld/boil/-1", "scienceworld/boil/30", "scienceworld/boil/01"],
)
def test_a_reset_needs_a_task(task_id):
    with pytest.raises(UsageError, match="scienceworld has no task"):
        ScienceWorld().reset(options={"task_id": task_id})


@plays
@pytest.mark.parametrize(
    ("split", "options", "words"),
    [
        ("trains", {}, "did you mean 'train'"),
        ("train", {"task": "boil"}, "no task option 'task'"),
        ("train", {"tasks": "boill"}, "did you mean 'boil'"),
        ("train", {"tasks": 3}, "is the name of a task or a list of names"),
    ],
)
def test_what_tasks_cannot_be_asked_for(split, options, words):
    with pytest.raises(UsageError, match=words):
        ScienceWorld().tasks(split, **options)


# --- replaying ----------------------------------------------------------------------------------


@plays
def test_replay_finds_the_steps_that_a_collected_run_needs():
    episode = gold_run()
    steps = [Step(1, "user", episode.observation)]
    for number, (message, answer, _) in enumerate(episode.turns, start=2):
        steps.append(Step(number, "agent", message, observation=Observation.of(answer)))
    run = Trajectory.create(
        tuple(steps),
        environment="scienceworld",
        task_id=PLANT,
        outcome=Outcome(reward=1.0, success=True),
    )
    labels = ReplaySelector(make_environment).label(run)
    needed = [
        step.message.rpartition("\n")[2]
        for step, label in zip(run.agent_steps, labels, strict=True)
        if label.kind is not Kind.NONE
    ]
    assert any(action.startswith("focus on") for action in needed)
    assert not any(action == "look around" for action in needed)


@plays
def test_a_number_that_begins_with_other_words_is_refused():
    run = Trajectory.create(
        (Step(1, "user", "Your task is to fly."), Step(2, "agent", "Action:\nlook around")),
        environment="scienceworld",
        task_id="sciworld_0",
    )
    with pytest.raises(UsageError, match="by AgentGym's count it is scienceworld/boil/0"):
        ScienceWorld().reset_to(run)


def told(place, task_id=PLANT, action="go to green house"):
    """A run that was told of a place and then takes an action."""
    steps = (
        Step(1, "user", f"In it, you see a door to the {place}."),
        Step(2, "agent", f"Action:\n{action}", observation=Observation.of(f"To the {place}.")),
    )
    return Trajectory.create(steps, environment="scienceworld", task_id=task_id)


@plays
def test_a_run_that_was_told_of_a_green_house_finds_one():
    hallway = "scienceworld/boil/0"
    env = ScienceWorld()
    assert "A door to the green house (that is" in env.reset_to(told("green house", hallway))[0]
    assert env.step("go to green house")[0] == "You move to the green house."
    assert "This room is called the green house." in env.step("look around")[0]
    # A policy that goes on with the run may spell as today.
    assert env.step("go to hallway")[4]["valid"]
    assert env.step("go to greenhouse")[0] == "You move to the green house."


@plays
def test_without_such_a_run_only_todays_names_are_known():
    env = ScienceWorld()
    hallway = "scienceworld/boil/0"
    # The agent's own word is no sign of another version.
    env.reset_to(told("greenhouse", hallway))
    assert env.step("go to green house")[0] == "No known action matches that input."
    env.reset_to(told("green house", hallway))
    assert "A door to the greenhouse (that is" in env.reset(options={"task_id": hallway})[0]
    assert env.step("go to green house")[0] == "No known action matches that input."
    assert env.step("go to greenhouse")[0] == "You move to the greenhouse."


@pytest.fixture(scope="module")
def recorded():
    """All runs of AgentTraj-L in ScienceWorld."""
    path = shared_data() / "agenttraj-l" / "sciworld.jsonl.xz"
    return [found.trajectory for found in read_sources([path], None, pytest.fail)]


@plays
@pytest.mark.shared_data
def test_recorded_runs_through_the_green_house_reach_the_full_score(recorded):
    through = [
        run for run in recorded if any(m.action == "go to green house" for m in moves_of(run))
    ]
    env, causes = ScienceWorld(), []
    for run in through[:: len(through) // 8][:8]:
        replayed = play(env, run, moves_of(run))
        assert replayed.success
        for step in run.agent_steps:
            if step.observation is not None and step.step_id in replayed.observations:
                answer = replayed.observations[step.step_id]
                causes.append(agreement(step.observation.text, answer))
    assert len(causes) > 50
    assert set(causes) <= {"same", "order", "temperature"}


@plays
@pytest.mark.shared_data
def test_recorded_runs_begin_with_the_task_of_their_number(recorded):
    runs = recorded[::300]
    env = ScienceWorld()
    assert [env.reset_to(run)[0][:12] for run in runs] == ["Your task is"] * 8
    assert make_environment(runs[0].environment).name == "scienceworld"
