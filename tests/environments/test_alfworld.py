"""ALFWorld: its rules by hand in a small household, its games, and the recorded runs played."""

from __future__ import annotations

import json
import lzma
import os
import subprocess
import sys
import zipfile

import gymnasium
import pytest
from alfworld_game import ALL_CLOSED, BOWL_IN_LIGHT, TWO_APPLES, write_game

from atlas_tune.agents.rollout import run_expert
from atlas_tune.environments import make_environment
from atlas_tune.environments.alfworld import AlfWorld
from atlas_tune.environments.alfworld.games import Games, find_source
from atlas_tune.environments.alfworld.recorded import RecordedExpert
from atlas_tune.environments.base import ExpertFailed
from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.select.auditing.yardsticks import load_yardstick
from atlas_tune.select.replaying.replay import ReplaySelector
from atlas_tune.trajectory import Kind, Observation, Step, Trajectory
from atlas_tune.trajectory.formats import read_sources
from shared_data import ROOT, shared_data

HOT = "train/pick_heat_then_place_in_recep-Apple-None-Fridge-1/trial_1"
TWO = "train/pick_two_obj_and_place-Apple-None-Fridge-1/trial_2"
SHUT = "valid_unseen/pick_and_place_simple-Knife-None-Fridge-9/trial_3"
ROOM = (
    "You are in the middle of a room. Looking quickly around you, you see a countertop 2, "
    "a countertop 1, a fridge 1, a microwave 1, and a sinkbasin 1."
)
HEATED = [
    "go to fridge 1",
    "open fridge 1",
    "take apple 2 from fridge 1",
    "go to microwave 1",
    "heat apple 2 with microwave 1",
    "go to fridge 1",
    "put apple 2 in/on fridge 1",
]


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Three games in a tree of our own, found as a downloaded one is."""
    write_game(tmp_path / "json_2.1.1", HOT, task="put a hot apple in fridge")
    write_game(tmp_path / "json_2.1.1", TWO, TWO_APPLES, "put two apple in fridge")
    write_game(tmp_path / "json_2.1.1", SHUT, ALL_CLOSED, "put a knife in fridge")
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    monkeypatch.setenv("ATLAS_TUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "json_2.1.1"


def start(task_id=HOT):
    env = AlfWorld()
    env.reset(options={"task_id": task_id})
    return env


def answers(env, *actions):
    return [env.step(action)[0] for action in actions]


def recorded(actions, answered, *, first="", task_id=None, environment="alfworld"):
    """A run as it is imported: what it read first, then actions and their answers."""
    steps = [Step(1, "user", first)]
    for number, (action, answer) in enumerate(zip(actions, answered, strict=True), start=2):
        steps.append(
            Step(number, "agent", f"Action:\n{action}", observation=Observation.of(answer))
        )
    return Trajectory.create(tuple(steps), environment=environment, task_id=task_id)


# --- the rules, by hand -------------------------------------------------------------------------


def test_the_first_observation_is_the_room_and_the_task(tree):
    observation, info = AlfWorld().reset(options={"task_id": HOT})
    # Numbers count down in the order of PDDL's ids, in which the receptacles are listed.
    assert observation == f"{ROOM}\nYour task is to: put a hot apple in fridge."
    assert info == {"success": False, "valid": True}


def test_an_apple_is_heated_and_put_back(tree):
    env = start()
    assert answers(env, *HEATED[:5], "examine apple 2", "inventory", *HEATED[5:6]) == [
        "The fridge 1 is closed.",
        "You open the fridge 1. The fridge 1 is open. In it, you see a apple 2.",
        "You pick up the apple 2 from the fridge 1.",
        "The microwave 1 is closed.",
        "You heat the apple 2 using the microwave 1.",
        "This is a hot apple 2.",
        "You are carrying: a apple 2.",
        "The fridge 1 is open. In it, you see nothing.",
    ]
    assert env.step(HEATED[6]) == (
        "You put the apple 2 in/on the fridge 1.",
        1.0,
        True,
        False,
        {"success": True, "valid": True},
    )
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("look")


def test_both_wordings_of_putting_are_the_same_action(tree):
    old, new = start(), start()
    for env in (old, new):
        answers(env, *HEATED[:-1])
    assert new.step("move apple 2 to fridge 1") == old.step("put apple 2 in/on fridge 1")


@pytest.mark.parametrize(
    ("before", "refused"),
    [
        ([], "take apple 2 from fridge 1"),  # Not there.
        ([], "open fridge 1"),
        ([], "examine fridge 1"),
        (["go to fridge 1"], "go to fridge 1"),  # Already there.
        (["go to countertop 2"], "go to sinkbasin 1"),  # At the same place.
        (["go to fridge 1"], "take apple 2 from fridge 1"),  # Closed.
        (["go to fridge 1"], "close fridge 1"),
        (["go to fridge 1", "open fridge 1"], "open fridge 1"),
        (["go to countertop 1"], "open countertop 1"),  # No door.
        (["go to countertop 1"], "take deskLamp 1 from countertop 1"),  # No such name.
        (["go to countertop 1"], "take desklamp 1 from countertop 1"),  # Not to be picked up.
        (["go to countertop 1"], "examine apple 1"),  # Only what is held.
        (["go to countertop 1", "take apple 1 from countertop 1"],
         "take knife 1 from countertop 1"),
        (["go to countertop 1", "take apple 1 from countertop 1", "go to fridge 1"],
         "put apple 1 in/on fridge 1"),  # Closed.
        (["go to countertop 1", "take apple 1 from countertop 1", "go to fridge 1"],
         "heat apple 1 with fridge 1"),
        (["go to countertop 1", "take knife 1 from countertop 1", "go to fridge 1"],
         "cool knife 1 with fridge 1"),
        (["go to countertop 1", "take apple 1 from countertop 1", "go to sinkbasin 1"],
         "put apple 1 in/on sinkbasin 1"),  # The sink takes none.
        (["go to countertop 1", "take apple 1 from countertop 1"], "slice apple 1 with knife 1"),
        (["go to countertop 1"], "use apple 1"),
        ([], "dance"),
        ([], "help"),
        ([], ""),
    ],
)  # fmt: skip
def test_what_is_not_admissible_changes_nothing(tree, before, refused):
    env = start()
    assert "Nothing happens." not in answers(env, *before)
    admissible, facts = env.admissible(), dict(env.world._facts)
    observation, reward, terminated, truncated, info = env.step(refused)
    assert (observation, reward, terminated, truncated) == ("Nothing happens.", 0.0, False, False)
    assert info == {"success": False, "valid": False}
    assert refused not in admissible
    assert (env.admissible(), env.world._facts) == (admissible, facts)


def test_cold_clean_sliced_and_lit(tree):
    env = start()
    answers(env, "go to countertop 1", "take knife 1 from countertop 1")
    assert answers(env, "slice apple 1 with knife 1", "use desklamp 1", "use desklamp 1") == [
        "You sliced the apple 1 with the knife 1.",
        "You turn on the desklamp 1.",
        "You turn on the desklamp 1.",
    ]
    answers(env, "put knife 1 in/on countertop 1", "take apple 1 from countertop 1")
    told = ["examine apple 1"]
    assert answers(env, *told) == ["This is a sliced apple 1."]
    assert answers(env, "go to fridge 1", "cool apple 1 with fridge 1", *told)[1:] == [
        "You cool the apple 1 using the fridge 1.",
        "This is a cool sliced apple 1.",
    ]
    answers(env, "go to sinkbasin 1", "clean apple 1 with sinkbasin 1")
    assert answers(env, *told) == ["This is a cool and clean sliced apple 1."]
    answers(env, "go to microwave 1", "heat apple 1 with microwave 1")
    assert answers(env, *told) == ["This is a hot and clean sliced apple 1."]


def test_looking_around_tells_the_place_and_what_changed_receptacles_there(tree):
    env = start()
    assert answers(env, "look", "inventory") == [
        "You are in the middle of a room. Looking quickly around you, you see nothing.",
        "You are not carrying anything.",
    ]
    assert answers(env, "go to countertop 2", "look") == [
        "On the countertop 2, you see a bowl 1.",
        "You are facing the countertop 2, and sinkbasin 1. Next to it, you see nothing.",
    ]
    assert answers(env, "take bowl 1 from countertop 2", "examine bowl 1")[1] == (
        "This is a normal bowl 1. In it, you see nothing."
    )
    assert "Nothing happens." not in answers(
        env, "put bowl 1 in/on countertop 2", "go to countertop 1", "take knife 1 from countertop 1"
    )
    assert answers(env, "go to countertop 2", "put knife 1 in/on countertop 2", "look") == [
        "On the countertop 2, you see a bowl 1.",
        "You put the knife 1 in/on the countertop 2.",
        "You are facing the countertop 2, and sinkbasin 1. Next to it, you see nothing.",
    ]


def test_the_admissible_actions_are_those_that_do_something(tree):
    env = start()
    answers(env, "go to countertop 1", "take knife 1 from countertop 1")
    assert env.admissible() == [
        "examine countertop 1",
        "examine knife 1",
        "go to countertop 2",
        "go to fridge 1",
        "go to microwave 1",
        "go to sinkbasin 1",
        "inventory",
        "look",
        "put knife 1 in/on countertop 1",
        "slice apple 1 with knife 1",
        "use desklamp 1",
    ]


def test_two_apples_must_be_two(tree):
    env = start(TWO)
    assert env.step("go to fridge 1")[4]["success"] is False  # One is there already.
    answers(env, "open fridge 1", "go to countertop 1", "take apple 1 from countertop 1")
    assert answers(env, "go to fridge 1") == ["The fridge 1 is open. In it, you see a apple 2."]
    assert env.step("put apple 1 in/on fridge 1")[1] == 1.0


def test_a_goal_for_all_receptacles_waits_for_the_last_door(tree):
    env = start(SHUT)
    answers(env, "go to fridge 1", "open fridge 1", "go to countertop 1")
    answers(env, "take knife 1 from countertop 1", "go to fridge 1")
    assert env.step("put knife 1 in/on fridge 1")[1] == 0.0
    assert env.step("close fridge 1")[1:3] == (1.0, True)


def test_a_walk_can_reach_the_goal_and_leave_it_unreached(tree):
    lit = "train/look_at_obj_in_light-Bowl-None-DeskLamp-1/trial_8"
    write_game(tree, lit, BOWL_IN_LIGHT)
    env = start(lit)
    answers(env, "go to countertop 1", "use desklamp 1", "go to countertop 2")
    # The lamp is on and the bowl in hand, but elsewhere.
    assert env.step("take bowl 1 from countertop 2")[1:3] == (0.0, False)
    assert env.step("go to countertop 1")[1:3] == (1.0, True)


# --- the games ----------------------------------------------------------------------------------


def test_splits_share_no_game_and_test_is_valid_unseen(tree):
    env = AlfWorld()
    assert [env.tasks(split) for split in env.splits] == [[HOT, TWO], [], [], [SHUT]]
    assert env.tasks("valid_unseen") == [SHUT]
    assert env.tasks("train", types="pick_two_obj_and_place") == [TWO]
    assert env.tasks("train", types=["pick_and_place_simple"]) == []


@pytest.mark.parametrize(
    ("split", "options", "words"),
    [
        ("trains", {}, "did you mean 'train'"),
        ("train", {"type": "look"}, "no task option 'type'"),
        ("train", {"types": "pick_two"}, "did you mean 'pick_two_obj_and_place'"),
        ("train", {"types": 3}, "is the name of a task type or a list of names"),
    ],
)
def test_what_tasks_cannot_be_asked_for(tree, split, options, words):
    with pytest.raises(UsageError, match=words):
        AlfWorld().tasks(split, **options)


@pytest.mark.parametrize("options", [None, {}, {"task_id": 3}, {"task_id": "train/none/trial_0"}])
def test_a_reset_needs_a_game(tree, options):
    with pytest.raises(UsageError, match="alfworld has no game"):
        AlfWorld().reset(options=options)


def test_before_a_reset_nothing_runs(tree):
    env = AlfWorld()
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("look")
    with pytest.raises(UsageError, match="call reset first"):
        env.admissible()
    with pytest.raises(UsageError, match="call reset first"):
        env.expert()


def test_a_pack_is_made_once_and_again_when_the_games_change(tree, capsys):
    first = Games(find_source())
    assert sorted(first.tasks) == [HOT, TWO, SHUT]
    [pack] = (tree.parent / "cache" / "alfworld").glob("*.zip")
    assert zipfile.ZipFile(pack).namelist() == [HOT, TWO, SHUT, "index.json"]
    told = "import sys; from atlas_tune.environments.alfworld.games import Games, find_source; "
    told += "print(len(Games(find_source()).tasks))"

    def in_another_process():
        done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True)
        return done.stdout.strip(), "Packing ALFWorld's games once" in done.stderr

    assert in_another_process() == ("3", False)
    write_game(tree, "train/look_at_obj_in_light-Bowl-None-DeskLamp-1/trial_4")
    assert in_another_process() == ("4", True)


def test_games_that_cannot_be_won_or_have_other_rules_are_left_out(tree, capsys):
    odd = "train/pick_and_place_simple-Knife-None-Fridge-1/"
    write_game(tree, f"{odd}trial_5", solvable=False)
    write_game(tree, f"{odd}trial_6", pddl_domain="(define (domain alfred) (:action fly))")
    assert AlfWorld().tasks("train") == [HOT, TWO]
    assert "1 games have other rules than json_2.1.1's and are left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "is no ALFWorld game"),
        ('{"pddl_problem": "", "grammar": "", "solvable": true}', "does not say what the task is"),
    ],
)
def test_a_broken_game_is_named(tree, text, words):
    file = tree / "train" / "pick_and_place_simple-X-None-Y-1" / "trial_7" / "game.tw-pddl"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(AtlasError, match=f"trial_7.*{words}"):
        AlfWorld().tasks("train")
    assert not list((tree.parent / "cache").rglob("*.zip*.partial"))


def test_without_games_a_sentence_says_where_they_would_be(tmp_path, monkeypatch):
    monkeypatch.setenv("ATLAS_TUNE_DATA", str(tmp_path))
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    with pytest.raises(AtlasError, match=r"There are no ALFWorld games: .* Set ALFWORLD_DATA to"):
        make_environment("alfworld")
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    with pytest.raises(AtlasError, match="no games are there"):
        make_environment("alfworld")


# --- runs of others -----------------------------------------------------------------------------


def test_a_run_that_names_its_game_starts_there(tree):
    run = recorded(["look"], ["…"], task_id=TWO)
    assert AlfWorld().reset_to(run)[0].endswith("put two apple in fridge.")


def test_a_run_with_a_foreign_number_is_found_by_room_and_task(tree):
    # AgentTraj-L: the instruction, a prefill, then the first observation with the actions offered.
    told = f"{ROOM}\nYour task is to: put two apple in fridge.\nAVAILABLE ACTIONS: look"
    steps = (
        Step(1, "user", "Interact with a household to solve a task."),
        Step(2, "agent", "OK.", is_copied_context=True),
        Step(3, "user", told),
        Step(4, "agent", "Thought: …\nAction: look", observation=Observation.of("…")),
    )
    run = Trajectory.create(steps, environment="alfworld", task_id="alfworld_7")
    env = AlfWorld()
    env.reset_to(run)
    assert env.task_id == TWO


def test_of_games_that_begin_alike_the_one_that_answers_alike_is_taken(tree):
    # The twin differs in what lies in the fridge, which no first observation tells.
    twin = json.loads((tree / HOT / "game.tw-pddl").read_text())
    for fact in ("(inReceptacle Apple_bar_1 {})", "(objectAtLocation Apple_bar_1 {})"):
        for old, new in (("Fridge_bar_1", "CounterTop_bar_2"), ("loc_bar_fridge", "loc_bar_table")):
            twin["pddl_problem"] = twin["pddl_problem"].replace(fact.format(old), fact.format(new))
    write_game(
        tree,
        HOT.replace("trial_1", "trial_0"),
        task="put a hot apple in fridge",
        pddl_problem=twin["pddl_problem"],
    )
    told = answers(start(HOT), *HEATED)
    run = recorded(
        HEATED,
        told,
        first=f"{ROOM}\n\nYour task is to: put a hot apple in fridge.",
        task_id="alfworld_9",
    )
    env = AlfWorld()
    env.reset_to(run)
    assert env.task_id == HOT
    assert answers(env, *HEATED) == told
    other = ["The fridge 1 is closed.", "You open the fridge 1. The fridge 1 is open. In it, you "
             "see nothing."]  # fmt: skip
    env.reset_to(
        recorded(HEATED[:2], other, first=f"{ROOM} Your task is to: put a hot apple in fridge.")
    )
    assert env.task_id == HOT.replace("trial_1", "trial_0")


def test_a_run_that_begins_like_no_game_is_refused(tree):
    with pytest.raises(UsageError, match="names no game of ALFWorld and begins like none"):
        AlfWorld().reset_to(recorded(["look"], ["…"], first="You are on a boat."))


def test_the_expert_plays_the_recorded_run_of_a_game(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("ATLAS_TUNE_DATA", str(tmp_path))
    with pytest.raises(UsageError, match="no expert but recorded runs"):
        start().expert()
    turns = [{"from": "human", "value": ROOM}]
    for action in HEATED:
        turns += [{"from": "gpt", "value": action}, {"from": "human", "value": "…"}]
    (tmp_path / "alfworld").mkdir()
    with lzma.open(tmp_path / "alfworld" / "gt_traj_train.jsonl.xz", "wt") as stream:
        stream.write(json.dumps({"id": HOT, "conversations": turns}) + "\n")
        stream.write(json.dumps({"id": TWO, "conversations": turns}) + "\n")
    env = AlfWorld()
    episode = run_expert(env, HOT, env.expert, env.max_steps)
    assert episode.success
    assert episode.turns[2][0] == (
        "Thought:\nNext I take apple 2 from fridge 1.\n\nAction:\ntake apple 2 from fridge 1"
    )
    with pytest.raises(ExpertFailed, match="does not lead to the goal"):
        run_expert(env, TWO, env.expert, env.max_steps)
    with pytest.raises(ExpertFailed, match="recorded on the games of 'train' alone"):
        start(SHUT).expert()


def test_the_documentation_shows_an_episode_as_it_is(tree):
    page = (ROOT / "docs/environments/alfworld.md").read_text(encoding="utf-8")
    shown = page.partition("## An episode")[2].split("```")[1].strip("\n")
    episode = run_expert(AlfWorld(), HOT, lambda: RecordedExpert(tuple(HEATED)), 30)
    assert shown == "\n\n".join(message["content"] for message in episode.messages())


def test_replay_measures_what_a_run_loses_without_a_step(tree):
    actions = ["inventory", *HEATED]
    run = recorded(actions, answers(start(), *actions), task_id=HOT)
    labels = ReplaySelector(make_environment).label(run)
    assert [label.kind for label in labels] == [Kind.NONE] + [None] * 7
    assert [label.score for label in labels] == [0.0] + [1.0] * 7


def test_the_same_run_in_another_process_reads_the_same(tree):
    told = (
        "from atlas_tune.environments.alfworld import AlfWorld; e = AlfWorld();"
        f"print(e.reset(options={{'task_id': {HOT!r}}})[0]);"
        f"[print(e.step(a)[0], e.admissible()) for a in {HEATED[:5]!r}]"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", told],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1
    assert "You heat the apple 2" in texts.pop()


# --- the real games -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs():
    path = shared_data() / "alfworld" / "gt_traj_train.jsonl.xz"
    return [found.trajectory for found in read_sources([path], None, pytest.fail)]


@pytest.fixture
def real(monkeypatch):
    monkeypatch.setenv("ATLAS_TUNE_DATA", str(shared_data()))
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    return AlfWorld()


@pytest.mark.shared_data
def test_the_splits_have_the_solvable_games(real):
    counts = {split: len(real.tasks(split)) for split in real.splits}
    assert counts == {"train": 3554, "valid_train": 200, "valid_seen": 140, "test": 134}
    assert len({task for split in real.splits for task in real.tasks(split)}) == 4028
    first = {task.split("/")[1].partition("-")[0] for task in real.tasks("train")[:6]}
    assert len(first) == 6


@pytest.mark.shared_data
def test_recorded_runs_replay_to_the_goal_in_the_same_words(real, runs):
    played = runs[::89]
    same = steps = 0
    for run in played:
        first, _ = real.reset_to(run)
        assert run.steps[0].message.endswith(first.replace("\nYour", "\n\nYour"))
        for step in run.agent_steps:
            action = step.message.removeprefix("Action:\n")
            assert action in real.admissible()
            observation, reward, done, _, info = real.step(action)
            same += observation == step.observation.text
            steps += 1
            assert info["valid"]
            assert done == (step is run.agent_steps[-1])
        assert reward == 1.0
    assert (len(played), same) == (40, steps)


@pytest.mark.shared_data
def test_recorded_runs_are_found_without_the_name_of_their_game(real, runs):
    for run in runs[::500]:
        nameless = Trajectory.create(run.steps, environment="alfworld", task_id="alfworld_12")
        real.reset_to(nameless)
        assert [
            real.step(step.message.removeprefix("Action:\n"))[0] for step in run.agent_steps
        ] == [step.observation.text for step in run.agent_steps]
        assert real.world.won


@pytest.mark.shared_data
def test_measured_necessity_is_that_of_six_games_measured_elsewhere(real):
    yardstick = load_yardstick("necessity", shared_data())
    selector = ReplaySelector(lambda name: real)
    for run in yardstick.runs:
        said = yardstick.rater.said[run.trajectory_id]
        measured = {label.step_id: label.kind is None for label in selector.label(run)}
        assert measured == {step_id: kind == "critical" for step_id, kind in said.items()}
    assert len(yardstick.runs) == 6
