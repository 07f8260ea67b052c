"""Wordle: its marks, its tasks, its expert, and the runs of AgentTraj-L replayed in it."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys

import gymnasium
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_tune.agents.react import format_turn, parse_turn
from atlas_tune.environments import make_environment
from atlas_tune.environments.base import ExpertFailed
from atlas_tune.environments.habits import Habits
from atlas_tune.environments.wordle import Wordle, words
from atlas_tune.environments.wordle.feedback import marks, spaced
from atlas_tune.environments.wordle.guessing import best_guess
from atlas_tune.environments.wordle.knowledge import told
from atlas_tune.environments.wordle.recorded import find_task
from atlas_tune.environments.wordle.task import build, find_vocabulary, fitting
from atlas_tune.errors import UsageError
from atlas_tune.trajectory.importing import import_files
from atlas_tune.trajectory.model import Observation, Step, Trajectory
from atlas_tune.trajectory.store import read_trajectories
from shared_data import shared_data

OPTIMAL = Habits(look=0, slip=0, detour=0)
STORM = "wordle/storm/w1118/0"
FIVE = ("crane", "grate", "storm", "trace", "geese")
WORDS = st.text(alphabet="abcde", min_size=5, max_size=5)


def started(task_id: str = STORM) -> Wordle:
    env = Wordle()
    env.reset(options={"task_id": task_id})
    return env


def run_of(
    *turns: tuple[str, str | None], vocabulary: tuple[str, ...] = FIVE, lost: bool = False
) -> Trajectory:
    """A run from elsewhere: its guesses with the answers, None where none was recorded."""
    listed = "\n".join(vocabulary)
    steps = [Step(1, "user", f"Accepted:\n```\n{listed}\n```\n")]
    for number, (guess, answer) in enumerate(turns):
        observation = None if answer is None else Observation.of(answer)
        text = format_turn("I try.", guess)
        steps.append(Step(2 + number, "agent", text, observation=observation))
    trajectory = Trajectory.create(tuple(steps), task_id="lmrlgym_wordle_7")
    if not lost:
        return trajectory
    extra = {"outcome": {"reward": 0.0, "success": False}}
    return Trajectory(trajectory.trajectory_id, trajectory.steps, extra=extra)


def play(task_id: str, seed: int, habits: Habits) -> list[tuple[str, str, str, dict[str, bool]]]:
    """Let an expert act to the end: thought, action, answer and info of each turn."""
    env = Wordle()
    observation, _ = env.reset(options={"task_id": task_id})
    expert = env.expert(seed, habits)
    turns = []
    for _ in range(env.max_steps):
        turn = expert.act(observation)
        observation, _, terminated, _, info = env.step(turn.action)
        turns.append((turn.thought, turn.action, observation, info))
        if terminated:
            break
    return turns


# --- the marks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("guess", "secret", "row"),
    [
        ("crane", "crane", "ggggg"),
        ("storm", "crane", "bbbyb"),
        ("trace", "crane", "bggyg"),
        # The newspaper's rule would give "bbbbg" here: it counts letters, and the one e is used up.
        ("geese", "crane", "byybg"),
        ("crane", "geese", "bbbbg"),
    ],
)
def test_marks_by_hand(guess, secret, row):
    assert marks(guess, secret) == row


def test_a_guess_of_another_length_has_no_marks():
    with pytest.raises(ValueError, match="zip"):
        marks("cranes", "crane")


@given(WORDS, WORDS)
def test_marks_tell_places_and_membership_alone(guess, secret):
    row = marks(guess, secret)
    assert [mark == "g" for mark in row] == [a == b for a, b in zip(guess, secret, strict=True)]
    assert [mark == "b" for mark in row] == [letter not in secret for letter in guess]


@given(st.sets(WORDS, min_size=1), WORDS)
def test_the_hidden_word_always_fits_its_own_rows(guesses, secret):
    rows = [(guess, marks(guess, secret)) for guess in sorted(guesses)]
    assert secret in fitting([*sorted(guesses), secret], rows)


# --- an episode ----------------------------------------------------------------------------------


def test_the_hidden_word_wins_and_ends():
    env = started()
    assert env.step("s c o r e") == (
        "g b g g b\n",
        0.0,
        False,
        False,
        {"success": False, "valid": True},
    )
    assert env.step("s t o r m") == (
        "g g g g g\n",
        1.0,
        True,
        False,
        {"success": True, "valid": True},
    )
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset before step"):
        env.step("s t o r m")
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset before expert"):
        env.expert()


def test_the_sixth_wrong_guess_ends_and_the_sixth_right_one_still_wins():
    env = started()
    ends = [env.step("c r a n e")[1:3] for _ in range(6)]
    assert ends == [(0.0, False)] * 5 + [(0.0, True)]
    env = started()
    for _ in range(5):
        env.step("c r a n e")
    assert env.step("s t o r m")[1:3] == (1.0, True)


@pytest.mark.parametrize(
    "action", ["z z z z z", "s t o r", "s t o r m s", "", "I guess storm", "é"]
)
def test_an_unknown_word_is_told_in_words_and_costs_no_guess(action):
    env = started()
    for _ in range(9):
        assert env.step(action) == (
            "invalid word\n",
            0.0,
            False,
            False,
            {"success": False, "valid": False},
        )
    for _ in range(5):
        env.step("c r a n e")
    assert env.step("s t o r m")[1] == 1.0


@pytest.mark.parametrize("action", ["storm", "S T O R M", "  s  t o r m\n", "Storm"])
def test_a_guess_may_be_written_without_spaces_or_in_capitals(action):
    assert started().step(action)[1] == 1.0


def test_only_shown_words_are_accepted():
    shown = words.vocabulary(20, 0)
    other = next(word for word in words.hidden_words("train") if word not in shown)
    env = started(Wordle().tasks("test", words=20)[0])
    assert env.step(spaced(other))[0] == "invalid word\n"
    assert env.step(spaced(shown[0]))[4]["valid"]


# --- tasks ---------------------------------------------------------------------------------------


def test_splits_share_no_hidden_word():
    splits = [set(words.hidden_words(split)) for split in words.SPLITS]
    assert [len(split) for split in splits] == [670, 168, 280]
    assert len(set.union(*splits)) == 1118
    tasks = {split: Wordle().tasks(split) for split in Wordle.splits}
    hidden = {split: {build(task).secret for task in ids} for split, ids in tasks.items()}
    assert {split: len(ids) for split, ids in tasks.items()} == {
        "train": 960,
        "dev": 240,
        "test": 400,
    }
    assert all(len(set(ids)) == len(ids) for ids in tasks.values())
    for split, secrets in hidden.items():
        assert secrets <= set(words.hidden_words(split))


def test_every_word_is_five_small_letters():
    for split in words.SPLITS:
        listed = words.hidden_words(split)
        assert list(listed) == sorted(set(listed))
        assert all(re.fullmatch("[a-z]{5}", word) for word in listed)


def test_tasks_stay_what_they_are():
    # A task id means the same for ever: a change of the list or of the order is a break.
    told_now = "\n".join(
        build(task).observation for task in Wordle().tasks("test", variants=2)[::40]
    )
    assert hashlib.sha256(told_now.encode()).hexdigest()[:16] == "334b2b4a22a36225"


def test_a_task_is_the_same_in_another_process_with_another_hash_seed():
    code = (
        "from atlas_tune.environments.wordle import Wordle; env = Wordle();"
        "task = env.tasks('test', words=60)[3];"
        "told = env.reset(options={'task_id': task})[0];"
        "print(task, told, env.expert(5).act(told))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1] != b""


@pytest.mark.parametrize("size", [20, 57, 400, 1118])
def test_a_vocabulary_has_its_size_and_holds_all_its_hidden_words(size):
    shown = words.vocabulary(size, 3)
    assert len(set(shown)) == len(shown) == size
    hidden = [set(words.secrets_of(split, size, 3)) for split in words.SPLITS]
    assert all(hidden)
    assert set.union(*hidden) == set(shown)


def test_all_tasks_of_a_vocabulary_begin_with_the_same_words():
    env = Wordle()
    begun = {env.reset(options={"task_id": task})[0] for task in env.tasks("dev", variants=1)}
    assert len(begun) == 1
    assert find_vocabulary(begun.pop()) == words.vocabulary(400, 0)


@pytest.mark.parametrize(
    ("task_id", "message"),
    [
        ("storm", "the form is wordle/WORD"),
        ("wordle/storm/w0400/0", "the form is wordle/WORD"),
        ("wordle/strom/w400/0", "'strom' is not a word of our list"),
        ("wordle/storm/w19/0", "has 20 to 1118 words, not 19"),
        ("wordle/storm/w1119/0", "not 1119"),
    ],
)
def test_an_id_that_names_no_task_is_refused(task_id, message):
    with pytest.raises(UsageError, match=message):
        Wordle().reset(options={"task_id": task_id})


def test_a_word_outside_its_vocabulary_is_refused():
    shown = words.vocabulary(20, 0)
    other = next(word for word in words.hidden_words("test") if word not in shown)
    with pytest.raises(UsageError, match=f"'{other}' is not among the 20 words of variant 0"):
        build(f"wordle/{other}/w20/0")


@pytest.mark.parametrize(
    ("split", "options", "message"),
    [
        ("tests", {}, "no split 'tests'"),
        ("test", {"word": 3}, "no task option 'word'"),
        ("test", {"words": 19}, "from 20 to 1118, not 19"),
        ("test", {"words": True}, "not True"),
        ("test", {"variants": 0}, "from 1 to 10000, not 0"),
    ],
)
def test_wrong_splits_and_options_are_told(split, options, message):
    with pytest.raises(UsageError, match=message):
        Wordle().tasks(split, **options)


def test_reset_wants_a_task():
    with pytest.raises(UsageError, match="starts a named task"):
        Wordle().reset()


# --- the expert ----------------------------------------------------------------------------------


def test_knowledge_in_words():
    assert told([("storm", "ybbbg")]) == (
        "I know _ _ _ _ m. It holds s, but not first. It does not hold o, r, t."
    )
    assert told([("crane", "bgyyy"), ("nosed", "ybbyb")]) == (
        "I know _ r _ _ _. It holds a, but not third; e, but not fourth or fifth; n, but not "
        "first or fourth. It does not hold c, d, o, s."
    )
    assert told([]) == ""


def test_the_best_guess_separates_what_fits():
    # Of four words that differ in the first letter alone, a guess of one of them leaves three.
    # "blmpz" tells all four apart.
    fits = ("bills", "lills", "mills", "pills")
    accepted = (*fits, "blmpz", "zzzzz")
    assert best_guess(fits[:1] + fits[2:], accepted, 3) == "blmpz"
    assert best_guess(fits[:1] + fits[2:], accepted, 1) == "bills"
    assert best_guess(("mills", "bills"), accepted, 3) == "bills"


def test_the_expert_wins_every_test_word_within_four_guesses():
    runs = [play(task, 0, OPTIMAL) for task in Wordle().tasks("test", variants=1)]
    assert len(runs) == 100
    assert all(run[-1][3]["success"] for run in runs)
    assert max(map(len, runs)) == 4
    assert all(turn[3]["valid"] for run in runs for turn in run)


def test_without_habits_every_guess_is_said_and_kept_to():
    task = Wordle().tasks("test", words=100)[0]
    turns = play(task, 0, OPTIMAL)
    assert turns[0][0].startswith("I begin with ")
    assert turns[-1][1] == spaced(build(task).secret)
    assert "It does not hold" in turns[-1][0]


def test_habits_are_seeded_and_stay_within_guesses_and_turns():
    tasks = Wordle().tasks("train", words=100, variants=2)
    runs = [play(task, 1, Habits()) for task in tasks]
    assert runs[:20] == [play(task, 1, Habits()) for task in tasks[:20]]
    assert runs[:20] != [play(task, 2, Habits()) for task in tasks[:20]]
    assert all(sum(turn[3]["valid"] for turn in run) <= 6 for run in runs)
    assert sum(run[-1][3]["success"] for run in runs) == len(runs) == 120
    thoughts = " ".join(turn[0] for run in runs for turn in run)
    for said in ("all new letters", "could not be right", "left out a letter", "comes to mind"):
        assert said in thoughts


def test_one_habit_alone_does_what_it_says():
    tasks = Wordle().tasks("train", words=100, variants=1)[:20]
    slips = [turn for task in tasks for turn in play(task, 0, Habits(0, 1, 0))]
    refused = [turn for turn in slips if not turn[3]["valid"]]
    assert refused and all(len(turn[1].split()) == 4 for turn in refused)
    for task in tasks:
        looks = play(task, 0, Habits(1, 0, 0))
        used: set[str] = set()
        for thought, action, _, info in looks:
            assert info["valid"]
            if "all new letters" in thought:
                assert not used & set(action.split())
            used |= set(action.split())


def test_a_slip_is_owned_up_to_in_the_next_turn():
    task = Wordle().tasks("test", words=100)[0]
    expert = started(task).expert(0, Habits(look=0, slip=1, detour=0))
    first = expert.act("")
    assert len(first.action.split()) == 4
    second = expert.act("invalid word\n")
    assert second.thought.startswith("That was no word: I left out a letter. I write it again.")


def test_the_expert_gives_up_on_an_answer_without_sense():
    expert = started(Wordle().tasks("test", words=100)[0]).expert(0, OPTIMAL)
    expert.act("")
    with pytest.raises(ExpertFailed, match="not answered by marks but by: what"):
        expert.act("what")
    env = Wordle()
    env.reset_to(run_of(("s t o r m", None)))
    expert = env.expert(0, OPTIMAL)
    guess = expert.act("").action.replace(" ", "")
    impossible = next(row for row in ("yyyyy", "bbbbb") if not fitting(FIVE, [(guess, row)]))
    with pytest.raises(ExpertFailed, match="no accepted word fits"):
        expert.act(spaced(impossible))


def test_the_expert_does_not_know_the_hidden_word():
    openings = {play(task, 0, OPTIMAL)[0][1] for task in Wordle().tasks("dev", variants=1)[:20]}
    assert len(openings) == 1


# --- runs from elsewhere -------------------------------------------------------------------------


def test_the_last_guess_of_a_run_is_its_hidden_word():
    env = make_environment("lmrlgym_wordle")
    observation, _ = env.reset_to(run_of(("c r a n e", "b g g b g\n"), ("g r a t e", None)))
    assert find_vocabulary(observation) == FIVE
    assert env.step("c r a n e")[0] == "b g g b g\n"


def test_a_row_of_five_g_names_the_hidden_word():
    env = Wordle()
    env.reset_to(run_of(("t r a c e", "b g g y g\n"), ("c r a n e", "g g g g g\n")))
    assert env.step("c r a n e")[1] == 1.0


def test_the_only_word_that_fits_is_the_hidden_one():
    env = Wordle()
    env.reset_to(run_of(("c r a n e", "b y b b b\n"), lost=True))
    assert env.step("s t o r m")[1] == 1.0


def test_a_refused_guess_tells_nothing():
    env = Wordle()
    env.reset_to(run_of(("z z z z z", "invalid word\n"), ("s t o r m", None)))
    assert env.step("s t o r m")[1] == 1.0


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (run_of(("g e e s e", "b y y b g\n")), "2 accepted words fit"),
        (run_of(("g e e s e", None), lost=True), "5 accepted words fit"),
        (run_of(("c r a n e", "y y y y y\n"), ("s t o r m", None)), "AgentGym's rule"),
        (run_of(("s t o r m", None), vocabulary=("no list",)), "shows the accepted words"),
    ],
)
def test_a_run_that_leaves_the_word_open_is_refused(run, message):
    with pytest.raises(UsageError, match=message):
        Wordle().reset_to(run)


def test_a_run_of_our_own_replays_by_its_id():
    reply = Step(1, "agent", format_turn("I try.", "s t o r m"))
    env = Wordle()
    env.reset_to(Trajectory.create((reply,), task_id=STORM))
    assert env.step("s t o r m")[1] == 1.0


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> list[Trajectory]:
    path = tmp_path_factory.mktemp("wordle") / "runs.jsonl"
    import_files([shared_data() / "agenttraj-l" / "wordle.jsonl.xz"], path)
    return list(read_trajectories(path))


@pytest.fixture(scope="module")
def recorded_secrets(recorded) -> dict[str, Trajectory]:
    """The hidden words of the recorded runs, each with one of its runs."""
    return {find_task(run).secret: run for run in recorded}


@pytest.mark.shared_data
def test_recorded_runs_replay_to_their_win_with_the_same_rows(recorded):
    env = make_environment("lmrlgym_wordle")
    won = same = told_rows = 0
    for run in recorded:
        env.reset_to(run)
        for step in run.agent_steps:
            action = parse_turn(step.message).action
            assert action is not None
            answer, _, terminated, _, info = env.step(action)
            if step.observation is not None:
                told_rows += 1
                same += answer == step.observation.text
                assert not terminated
        won += info["success"]
    assert (len(recorded), won) == (955, 955)
    assert (told_rows, same) == (3100, 3100)


@pytest.mark.shared_data
def test_dev_and_test_hide_no_word_that_a_recorded_run_hides(recorded_secrets):
    hidden = set(recorded_secrets)
    assert len(hidden) == 387
    assert not hidden & {*words.hidden_words("dev"), *words.hidden_words("test")}


@pytest.mark.shared_data
def test_the_expert_wins_the_recorded_tasks(recorded_secrets):
    env, won = Wordle(), 0
    for run in list(recorded_secrets.values())[::4]:
        answer, _ = env.reset_to(run)
        expert, terminated = env.expert(0, OPTIMAL), False
        while not terminated:
            answer, reward, terminated, _, _ = env.step(expert.act(answer).action)
        won += reward == 1.0
    assert won == 97
