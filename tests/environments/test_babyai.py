"""BabyAI: its words and rules, its tasks, its expert, and AgentTraj-L's runs replayed in it."""

from __future__ import annotations

import json
import lzma
import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_tune.agents.react import parse_turn
from atlas_tune.agents.rollout import run_expert
from atlas_tune.environments.babyai import BabyAI
from atlas_tune.environments.babyai.levels import (
    LEVELS,
    TEST_SEEDS,
    TRAIN_SEEDS,
    parse_task,
    seeds_of,
    task_id,
)
from atlas_tune.environments.babyai.menu import menu_of
from atlas_tune.environments.babyai.repeats import find_repeated, world_of
from atlas_tune.environments.babyai.view import Thing, View, describe, numbered
from atlas_tune.environments.base import ExpertFailed
from atlas_tune.environments.habits import Habits
from atlas_tune.errors import UsageError
from atlas_tune.trajectory.model import Step, Trajectory
from shared_data import shared_data

ROOT = Path(__file__).resolve().parents[2]
DIRECT = Habits(0, 0, 0)
NOT_RECOGNISED = "The action is not recognized. Please check valid actions."
SOLVED_BY_EVERY_RUN = [
    "GoToRedBallGrey",
    "GoToRedBall",
    "GoToRedBallNoDists",
    "GoToObjS4",
    "GoToLocalS8N7",
    "GoToSeqS5R2",
    "GoToRedBlueBall",
    "GoToDoor",
    "GoToObjDoor",
    "PickupLoc",
    "PickupDistDebug",
]
tasks = st.builds(task_id, st.sampled_from(list(LEVELS.values())), st.integers(0, 2000))


def start(task):
    env = BabyAI()
    observation, info = env.reset(options={"task_id": task})
    assert info == {"success": False, "valid": True}
    return env, observation


def play(env, expert, observation, turns=20):
    """The actions, the replies and whether the goal was reached."""
    actions, replies = [], []
    for _ in range(turns):
        action = expert.act(observation).action
        observation, _, done, _, info = env.step(action)
        actions.append(action)
        replies.append(observation)
        if done:
            return actions, replies, info["success"]
    return actions, replies, False


# --- words -----------------------------------------------------------------------------------


def test_the_first_observation_tells_the_goal_and_the_view():
    _, observation = start("babyai/PickupDistDebug/1000")
    assert observation == (
        "Your goal: pick up the blue object\n"
        "In front of you in this room, you can see several objects: "
        "There is a red ball 1 0 steps in front of you and 2 steps to your left.  "
        "There is a grey key 1 0 steps in front of you and 2 steps to your right.  "
        "There is a purple ball 1 1 steps in front of you and 2 steps to your left.  "
        "There is a green ball 1 4 steps in front of you and 1 steps to your right.  "
        "There is a blue box 1 3 steps in front of you and 2 steps to your left.  "
        "The room has walls around you. You are facing a wall 5 steps away. "
        "You are not carrying anything."
    )


def test_a_view_without_anything_says_so():
    nothing = View((3, 3), 0, (), "grey key")
    assert describe(nothing) == (
        "You cannot see any objects within sight."
        "The room has walls around you. You are carrying a grey key."
    )


def test_an_unreachable_thing_keeps_its_number_in_the_view_and_has_none_in_the_actions():
    """AgentGym's two ways of counting; the recorded runs depend on both."""
    walled_in = [(6, 5), (7, 4), (7, 6), (8, 5)]
    walls = [Thing("wall", "grey wall", (x, y), x - 5, y - 5) for x, y in walled_in]
    near, far = (
        Thing("ball", "red ball", cell, cell[0] - 5, cell[1] - 5) for cell in [(7, 5), (9, 7)]
    )
    view = View((5, 5), 0, tuple(sorted([*walls, near, far], key=lambda t: t.distance)), None)
    assert [name for name, _ in numbered(view.objects)] == ["red ball 1", "red ball 2"]
    menu = menu_of(view)
    assert menu.aims["go to", far.cell] == "go to red ball 1"
    assert "go to red ball 2" not in menu.actions
    assert menu.refusals["pickup red ball 1"] == (
        "You cannot pickup red ball 1, as there is no path leading to it."
    )


# --- actions ---------------------------------------------------------------------------------


def test_pickup_and_drop():
    env, _ = start("babyai/PickupLoc/1005")
    assert "You are carrying a blue ball." in env.step("Pickup Blue Ball 1 ")[0]
    assert env.step("pickup purple key 1")[0] == NOT_RECOGNISED  # one thing at a time
    assert "You are not carrying anything." in env.step("drop")[0]


@pytest.mark.parametrize(
    ("action", "reply"),
    [
        ("pick up red ball 1", NOT_RECOGNISED),  # the prompt of AgentGym says so, its rules do not
        ("go to red ball", NOT_RECOGNISED),
        ("drop", "You cannot drop the object, as you are not carrying anything."),
        ("", "No change in state."),
    ],
)
def test_an_inadmissible_action_changes_nothing_and_is_answered(action, reply):
    env, _ = start("babyai/GoToRedBall/1000")
    before = env.step("check available actions")[0]
    assert env.step(action) == (reply, 0.0, False, False, {"success": False, "valid": False})
    assert env.step("check available actions")[0] == before


def test_a_closed_door_is_toggled_and_gone_through():
    env, _ = start("babyai/ActionObjDoor/1010")
    observation, *_, info = env.step("go through green closed door 1")
    assert observation == (
        "You cannot go through green closed door 1, as it is closed. You should toggle it first."
    )
    assert not info["valid"]
    env.step("toggle and go through green closed door 1")
    assert env.world.grid.get(*env.view.position).type == "door"


def test_going_where_one_stands_changes_nothing():
    env, _ = start("babyai/GoToRedBallGrey/1007")
    env.step("go to grey ball 1")
    assert env.step("go to grey ball 1")[0] == "No change in state."


def test_the_goal_must_hold_when_the_action_ends():
    """On the way to the grey ball the agent faces the red one, which is its goal."""
    env, _ = start("babyai/GoToRedBallGrey/1007")
    goal, passed = env.world.instrs.desc.obj_poss[0], []
    env._on_move = lambda _: passed.append(tuple(env.world.front_pos) == tuple(goal))
    *_, done, _, info = env.step("go to grey ball 1")
    assert any(passed) and not passed[-1]
    assert not done and not info["success"]


def test_the_reward_falls_with_the_moves_and_only_the_goal_pays():
    env, _ = start("babyai/PickupDistDebug/1000")
    moves = len(env.menu.actions["pickup blue box 1"])
    _, reward, done, truncated, info = env.step("pickup blue box 1")
    assert (done, truncated, info["success"]) == (True, False, True)
    assert reward == pytest.approx(1 - 0.9 * moves / env.world.max_steps)


def test_a_wrong_thing_in_hand_does_not_end_the_task():
    env, _ = start("babyai/PickupDistDebug/1000")
    observation, reward, done, _, info = env.step("pickup red ball 1")
    assert (reward, done, info["success"]) == (0.0, False, False)
    assert "completed" not in observation


def test_after_the_end_a_reset_is_needed():
    env, _ = start("babyai/PickupDistDebug/1000")
    env.step("pickup blue box 1")
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset first"):
        env.step("turn left")


@settings(max_examples=25)
@given(tasks, st.lists(st.integers(0, 10**6), max_size=8))
def test_every_listed_action_is_admissible(task, choices):
    env, _ = start(task)
    for choice in choices:
        listing = env.step("check available actions")[0].partition(": ")[2].split(", ")
        *_, done, _, info = env.step(listing[choice % len(listing)])
        assert info["valid"]
        if done:
            break


@settings(max_examples=25)
@given(tasks, st.text(max_size=30))
def test_no_text_breaks_the_environment(task, action):
    env, _ = start(task)
    before = env.view
    observation, *_, info = env.step(action)
    assert observation
    assert info["valid"] or env.view == before


# --- tasks -----------------------------------------------------------------------------------


def test_splits_share_no_task_and_hold_every_level():
    env = BabyAI()
    train, test = env.tasks("train"), env.tasks("test")
    assert len(train) == 18 * 279 and len(test) == 16 * 500 + 441 + 89
    assert not set(train) & set(test) and len(set(test)) == len(test)
    for names in (train, test):
        assert [parse_task(name)[0].name for name in names[:36]] == list(LEVELS) * 2


@pytest.mark.parametrize("level", ["GoToObjS4", "GoToRedBallNoDists", "GoToDoor"])
def test_no_world_of_a_test_task_is_met_in_train_or_twice(level):
    level = LEVELS[level]
    train = {world_of(level, seed) for seed in TRAIN_SEEDS}
    test = [
        world_of(level, parse_task(name)[1]) for name in BabyAI().tasks("test", levels=level.name)
    ]
    assert not train & set(test) and len(set(test)) == len(test)


@pytest.mark.parametrize(
    ("level", "count"), [("GoToObjS4", 411), ("GoToRedBallNoDists", 59), ("GoToRedBallGrey", 0)]
)
def test_the_shipped_repeated_seeds_are_those_that_minigrid_gives(level, count):
    repeated = find_repeated(LEVELS[level])
    assert len(repeated) == count
    assert set(repeated) == set(TEST_SEEDS) - set(seeds_of(LEVELS[level], "test"))


def test_equal_worlds_are_one_episode_and_a_glance_aside_makes_another():
    """Seed 10 differs from 1 and 33 in nothing but the agent's direction."""
    worlds = {seed: world_of(LEVELS["GoToObjS4"], seed) for seed in (1, 10, 33)}
    assert worlds[1] == worlds[33] != worlds[10]
    assert sum(a != b for a, b in zip(worlds[1], worlds[10], strict=True)) == 1
    assert start("babyai/GoToObjS4/1")[1] == start("babyai/GoToObjS4/33")[1]


def test_a_seed_that_is_left_out_can_still_be_played():
    left_out = (set(TEST_SEEDS) - set(seeds_of(LEVELS["GoToObjS4"], "test"))).pop()
    _, observation = start(f"babyai/GoToObjS4/{left_out}")
    assert observation.startswith("Your goal: go to ")


def test_tasks_of_some_levels():
    found = BabyAI().tasks("test", levels=["GoToRedBall", "PickupLoc"])
    assert found[:3] == [
        "babyai/GoToRedBall/1000",
        "babyai/PickupLoc/1000",
        "babyai/GoToRedBall/1001",
    ]
    alone = BabyAI().tasks("test", levels="GoToRedBall")
    assert alone == BabyAI().tasks("test", levels=("GoToRedBall", "GoToRedBall")) == found[::2]


def test_unseen_levels_are_in_no_other_split_and_bring_new_worlds():
    env = BabyAI()
    unseen = env.tasks("unseen")
    assert len(unseen) == 5 * 500
    others = {parse_task(name)[0].name for split in ("train", "test") for name in env.tasks(split)}
    assert others == set(LEVELS)
    assert {parse_task(name)[0].name for name in unseen[:5]}.isdisjoint(others)
    with pytest.raises(UsageError, match="split 'train' has no level 'Pickup'"):
        env.tasks("train", levels=["Pickup"])
    with pytest.raises(UsageError, match="split 'unseen' has no level 'GoToRedBall'"):
        env.tasks("unseen", levels=["GoToRedBall"])
    worlds = {world_of(*parse_task(name)) for name in unseen[:100]}
    assert len(worlds) == 100


def test_the_expert_solves_a_task_of_an_unseen_level():
    env = BabyAI()
    observation, _ = env.reset(options={"task_id": "babyai/PutNextLocalS6N4/1000"})
    expert = env.expert(habits=Habits(0, 0, 0))
    done, turns = False, 0
    while not done and turns < env.max_steps:
        observation, reward, done, _, info = env.step(expert.act(observation).action)
        turns += 1
    assert info["success"] and reward > 0


@given(st.integers(0, 100_000))
def test_agentgym_counts_through_forty_levels(number):
    place, seed = number % 40 + 1, number // 40
    if place in {level.number for level in LEVELS.values()}:
        level, found = parse_task(f"babyai_{number}")
        assert (level.number, found) == (place, seed)
        assert parse_task(task_id(level, found)) == (level, seed)
    else:
        with pytest.raises(UsageError, match=f"level {place} of"):
            parse_task(f"babyai_{number}")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("babyai/GoToRedBal/3", "did you mean 'GoToRedBall'"),
        ("babyai/GoToRedBall", "names no BabyAI task"),
        ("textcraft/3", "names no BabyAI task"),
        (None, "starts at a task"),
    ],
)
def test_a_wrong_task_is_told_in_plain_words(name, hint):
    with pytest.raises(UsageError, match=hint):
        BabyAI().reset(options={"task_id": name})


def test_unknown_splits_levels_and_options_are_told():
    env = BabyAI()
    with pytest.raises(UsageError, match="did you mean 'train'"):
        env.tasks("trian")
    with pytest.raises(UsageError, match="did you mean 'PickupLoc'"):
        env.tasks("train", levels=["PickUpLoc"])
    for option in ("depth", "split", "self"):
        with pytest.raises(UsageError, match=f"no task option '{option}': .*Known: levels"):
            env.tasks("train", **{option: "test"})


@pytest.mark.parametrize("levels", [5, [1], ["GoToRedBall", None], [], "", None, {"GoToDoor": 1}])
def test_levels_are_a_name_or_a_list_of_names(levels):
    with pytest.raises(UsageError, match="level"):
        BabyAI().tasks("train", levels=levels)


def test_without_a_task_there_is_nothing_to_do():
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset first"):
        BabyAI().step("turn left")
    with pytest.raises(UsageError, match="call reset first"):
        BabyAI().expert()


def test_reset_to_takes_our_name_and_agentgyms():
    steps = (Step(1, "user", "…"), Step(2, "agent", "Thought:\n…\n\nAction:\nturn left"))
    first = {
        BabyAI().reset_to(Trajectory.create(steps, task_id=name))[0]
        for name in ("babyai_41", "babyai/GoToRedBall/1")
    }
    assert len(first) == 1


def test_an_episode_is_the_same_in_every_process_and_makes_no_noise():
    program = (
        "import sys\n"
        "from atlas_tune.environments.babyai import BabyAI\n"
        "assert 'minigrid' not in sys.modules and 'pygame' not in sys.modules\n"
        "env = BabyAI()\n"
        "for task in ('babyai/GoToSeqS5R2/1003', 'babyai/SynthLoc/1007'):\n"
        "    observation, _ = env.reset(options={'task_id': task})\n"
        "    expert, done = env.expert(seed=5), False\n"
        "    print(observation)\n"
        "    for _ in range(20):\n"
        "        turn = expert.act(observation)\n"
        "        observation, reward, done, _, _ = env.step(turn.action)\n"
        "        print(turn, observation, reward)\n"
        "        if done: break\n"
    )
    outputs = []
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT / "src")}
        environment.pop("PYGAME_HIDE_SUPPORT_PROMPT", None)
        run = subprocess.run(
            [sys.executable, "-W", "error::UserWarning", "-c", program],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stderr == ""
        outputs.append(run.stdout)
    assert outputs[0] == outputs[1]
    assert outputs[0].startswith("Your goal: go to the blue ball\n")


# --- expert ----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", SOLVED_BY_EVERY_RUN)
def test_the_expert_solves_the_easy_levels_with_and_without_habits(level):
    for seed in range(1000, 1008):
        env, observation = start(f"babyai/{level}/{seed}")
        assert play(env, env.expert(habits=DIRECT), observation)[2]
        observation, _ = env.reset(options={"task_id": f"babyai/{level}/{seed}"})
        assert play(env, env.expert(seed), observation)[2]


def test_the_direct_expert_is_never_refused():
    for level in LEVELS:
        env, observation = start(f"babyai/{level}/1002")
        _, replies, _ = play(env, env.expert(habits=DIRECT), observation)
        assert not [r for r in replies if "In front of you" not in r and "sight" not in r]


def test_the_expert_opens_a_locked_door_with_its_key():
    env, observation = start("babyai/GoToImpUnlock/1017")
    actions, _, success = play(env, env.expert(habits=DIRECT), observation, turns=99)
    assert success
    key = next(action for action in actions if action.startswith("pickup"))
    door = next(action for action in actions if "locked door" in action)
    assert actions.index(key) < actions.index(door)
    assert key.split()[1] == door.split()[4]


def habit_run(habits, seed):
    env, observation = start("babyai/GoToLocalS8N7/1000")
    return play(env, env.expert(seed, habits), observation)


def test_looking_is_turning_aside_and_back_or_checking():
    runs = [habit_run(Habits(1, 0, 0), seed)[0] for seed in range(20)]
    assert {run[0] for run in runs} == {"turn left", "turn right", "check available actions"}
    aside = next(run for run in runs if run[0] == "turn left")
    assert aside[1] == "turn right"


def test_slips_are_refused_or_go_to_a_wrong_thing_and_are_mended():
    runs = [habit_run(Habits(0, 1, 0), seed) for seed in range(8)]
    direct = habit_run(DIRECT, 0)[0]
    assert all(success for _, _, success in runs)
    refused = [run for run in runs if run[1][0] == NOT_RECOGNISED]
    assert refused and len(refused) < len(runs)
    assert {run[0][-1] for run in refused} == {direct[-1]}


def test_a_detour_visits_a_thing_that_the_goal_does_not_name():
    actions, _, success = habit_run(Habits(0, 0, 1), 1)
    assert success
    assert len(actions) > len(habit_run(DIRECT, 0)[0])
    assert actions[0].startswith("go to ")


def test_habits_are_drawn_from_the_seed():
    assert habit_run(Habits(), 3) == habit_run(Habits(), 3)
    assert len({tuple(habit_run(Habits(1, 1, 1), seed)[0]) for seed in range(8)}) > 1


def test_the_expert_puts_one_thing_next_to_another():
    env, observation = start("babyai/SynthLoc/1035")
    assert observation.startswith("Your goal: put the blue key next to ")
    actions, _, success = play(env, env.expert(habits=DIRECT), observation)
    assert success
    assert "pickup blue key 1" in actions and actions[-1] == "drop"


def test_the_expert_says_when_it_is_at_a_loss():
    """The yellow door had to be opened as the last thing; no action closes it again."""
    env, observation = start("babyai/ActionObjDoor/1010")
    expert = env.expert(habits=DIRECT)
    env.step("toggle and go through yellow closed door 1")
    with pytest.raises(ExpertFailed, match="ActionObjDoor/1010"):
        play(env, expert, observation)


def test_the_documentation_shows_an_episode_as_it_is():
    page = (ROOT / "docs/environments/babyai.md").read_text(encoding="utf-8")
    shown = page.partition("## A sample episode")[2].split("```")[1].strip("\n")
    env = BabyAI()
    episode = run_expert(env, "babyai/PickupLoc/1005", env.expert, env.max_steps)
    assert shown == "\n\n".join(message["content"] for message in episode.messages())


# --- recorded runs ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded():
    path = shared_data() / "agenttraj-l" / "babyai.jsonl.xz"
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def as_parsed(reply):
    return parse_turn(reply).action


def as_sent_by_agentgym(reply):
    """The client of the recordings sent all that stands after "Action:", further lines too."""
    return reply.partition("Action:")[2].strip()


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("read", "same_words"), [(as_parsed, 3808), (as_sent_by_agentgym, 3832)], ids=["ours", "theirs"]
)
def test_recorded_runs_replay_to_the_goal_in_the_same_words(recorded, read, same_words):
    env = BabyAI()
    first = solved = same = 0
    for run in recorded:
        turns = run["conversations"][2:]
        observation, _ = env.reset(options={"task_id": run["item_id"]})
        first += observation == turns[0]["value"]
        answers = [turn["value"] for turn in turns[2::2]] + [None]
        for turn, answer in zip(turns[1::2], answers, strict=True):
            observation, _, done, _, info = env.step(read(turn["value"]))
            same += observation == answer
            if done:
                break
        solved += info["success"]
    assert (len(recorded), first, solved, same) == (810, 810, 810, same_words)
    assert sum((len(run["conversations"]) - 4) // 2 for run in recorded) == 3832
