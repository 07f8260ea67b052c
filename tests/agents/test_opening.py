"""Openings: found in recorded runs, kept beside a model, put before an observation."""

import json

import pytest

from agents.corridor import Corridor
from atlas_tune.agents.collect import collect_expert_runs
from atlas_tune.agents.opening import (
    OPENINGS,
    Opening,
    opening_of,
    openings_beside,
    read_prompt_file,
    world_of,
)
from atlas_tune.agents.react import REPLY_FORMAT
from atlas_tune.agents.rollout import PREFILL, Episode
from atlas_tune.agents.shared_opening import (
    DIFFERENT,
    SharedOpening,
    shared_openings,
    write_openings,
)
from atlas_tune.environments.habits import Habits
from atlas_tune.environments.isolated import ProcessEnv
from atlas_tune.environments.textcraft import TextCraft
from atlas_tune.environments.wordle import Wordle
from atlas_tune.environments.wordle.task import build, find_vocabulary
from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.trajectory import Selection, Trajectory
from atlas_tune.trajectory.importing import import_files
from atlas_tune.trajectory.messages import from_messages
from atlas_tune.trajectory.store import read_trajectories
from atlas_tune.tune.settings import TuneSettings
from atlas_tune.tune.stage import tune_model
from shared_data import shared_data
from tiny_model import tiny_llama, tiny_tokenizer

RULES = {"role": "user", "content": "Say forward."}
OK = {"role": "assistant", "content": "OK."}


def user(text):
    return {"role": "user", "content": text}


def run(*before, task="t", environment="corridor"):
    """A run that begins with these messages and takes one step."""
    messages = [*before, {"role": "assistant", "content": "Action: forward"}]
    copied = [True] * len(before) + [False]
    return Trajectory.create(
        from_messages(messages, copied=copied), environment=environment, task_id=task
    )


def shared(*runs):
    return shared_openings(runs)["corridor"]


def test_what_stands_before_the_observations_is_the_opening():
    found = shared(
        run(RULES, OK, user("2 cells ahead."), task="corridor/2"),
        run(RULES, OK, user("3 cells ahead."), task="corridor/3"),
    )
    assert found == SharedOpening(Opening((RULES, OK), "", anchored=True), 2, 2)
    assert found.opening.conversation("9 cells.") == [RULES, OK, user("9 cells.")]


def test_a_line_before_the_observation_comes_back_where_the_observation_follows_it():
    lines = "Instruction:\nCrafting commands:\n"
    found = shared(
        run(RULES, OK, user(lines + "craft 1 a using 1 b"), task="1"),
        run(RULES, OK, user(lines + "craft 1 c using 1 d"), task="2"),
    )
    assert found.opening.lead == lines
    told = found.opening.conversation("Crafting commands:\ncraft 1 e using 1 f")[-1]["content"]
    assert told == "Instruction:\nCrafting commands:\ncraft 1 e using 1 f"


def test_a_goal_that_all_training_tasks_had_is_not_told_in_another_task():
    found = shared(
        run(RULES, OK, user("Your goal: go to the red ball\nYou see a box."), task="1"),
        run(RULES, OK, user("Your goal: go to the red ball\nYou see a key."), task="2"),
    )
    other = "Your goal: open the door\nYou see a door."
    assert found.opening.conversation(other)[-1] == user(other)
    same = "Your goal: go to the red ball\nYou see a door."
    assert found.opening.conversation(same)[-1] == user(same)


def test_an_instruction_in_the_message_of_the_observation_is_its_common_paragraphs():
    found = shared(
        run(user("Walk the corridor.\n\nSay forward.\n\n2 cells ahead."), task="1"),
        run(user("Walk the corridor.\n\nSay forward.\n\n2 doors ahead."), task="2"),
    )
    assert found.opening == Opening((), "Walk the corridor.\n\nSay forward.\n\n")
    assert found.opening.conversation("5 cells ahead.") == [
        user("Walk the corridor.\n\nSay forward.\n\n5 cells ahead.")
    ]


def test_runs_without_an_instruction_give_the_observation_alone():
    found = shared(run(user("2 cells."), task="1"), run(user("3 cells."), task="2"))
    assert found.opening.conversation("5 cells.") == [user("5 cells.")]


def test_one_task_does_not_tell_its_instruction_from_itself():
    single = run(user("Walk.\n\n2 cells ahead."), task="1")
    assert shared(single, single) is None
    # With an instruction in a message of its own it does, but of the observation nothing is kept.
    apart = run(RULES, OK, user("Goal: 2 cells.\nGo."), task="1")
    assert shared(apart, apart).opening == Opening((RULES, OK), "", anchored=True)


def test_a_last_message_that_many_tasks_share_holds_rules_and_no_task():
    many = [run(RULES, OK, user("The rules."), task=str(i)) for i in range(DIFFERENT)]
    found = shared(*many)
    assert found.opening == Opening((RULES, OK), "The rules.")
    # The environment's own first observation is not lost, and not told twice.
    assert found.opening.conversation("Guess 1.")[-1] == user("The rules.\n\nGuess 1.")
    assert found.opening.conversation("The rules.")[-1] == user("The rules.")
    few = shared(*many[1:])
    assert few.opening.conversation("Guess 1.")[-1] == user("Guess 1.")


def test_what_the_task_decides_is_restated_and_told_once():
    def restate(told, observation):
        return told.replace("2 cells", observation) if "2 cells" in told else None

    ruled = Opening((RULES, OK), "There are 2 cells. Go.")
    assert ruled.conversation("9 cells", restate)[-1] == user("There are 9 cells. Go.")
    silent = Opening((RULES, OK), "Go.")
    assert silent.conversation("9 cells", restate)[-1] == user("Go.\n\n9 cells")
    # An anchored lead is not told where the observation does not follow it: nothing to restate.
    anchored = Opening((RULES, OK), "There are 2 cells. Go.\n", anchored=True)
    assert anchored.conversation("9 cells", restate)[-1] == user("9 cells")


WORDS = tuple(f"{a}{b}ide" for a in "bgprstw" for b in "lru")


def listing(words):
    return "```\n" + "\n".join(words) + "\n```"


def recorded_wordle(words):
    """The start of a run of AgentGym's Wordle: the list stands within the rules."""
    rules = f"Welcome.\n\nAccepted:\n{listing(words)}\n\nExample:\n```\nguess 1: p a n i c\n```\n"
    return [user("You play Wordle."), OK, user(rules)]


@pytest.mark.parametrize("isolated", [False, True])
def test_a_model_of_recorded_wordle_is_told_the_words_of_its_task_alone(isolated):
    start = recorded_wordle(WORDS)
    runs = [run(*start, task=f"lmrlgym_wordle_{n}", environment="wordle") for n in range(DIFFERENT)]
    opening = shared_openings(runs)["wordle"].opening
    task = "wordle/bowel/w20/1"
    env = ProcessEnv(Wordle) if isolated else Wordle()
    told = Episode.start(env, task, opening).opening()
    env.close()
    assert told == recorded_wordle(build(task).vocabulary)


def test_a_model_of_our_wordle_is_told_the_words_of_another_variant():
    env = Wordle()
    usual = Opening.of(env.instruction, REPLY_FORMAT, PREFILL)
    first = env.tasks("train", words=20, variants=1)
    runs = collect_expert_runs(env, first, seed=0, habits=Habits()).trajectories
    assert len({one.task_id for one in runs}) >= DIFFERENT
    opening = shared_openings(runs)["wordle"].opening
    for task in ("wordle/bowel/w20/1", first[0]):
        told = Episode.start(env, task, opening).opening()
        assert told == usual.conversation(build(task).observation)


def test_the_most_frequent_opening_wins_and_that_is_told(tmp_path):
    other = {"role": "user", "content": "Other words."}
    runs = [
        run(other, OK, user("1 cell."), task="1"),
        run(RULES, OK, user("2 cells."), task="2"),
        run(RULES, OK, user("3 cells."), task="3"),
    ]
    assert shared(*runs) == SharedOpening(Opening((RULES, OK), "", anchored=True), 2, 3)
    (notice,) = write_openings(tmp_path, runs)
    assert "The runs of corridor do not all begin alike: 2 of 3" in notice
    assert opening_of(tmp_path, "corridor").messages[0] == RULES


def test_of_mixed_instructions_in_one_message_the_more_frequent_is_taken():
    ours = [run(user(f"Walk.\n\n{n} cells."), task=str(n)) for n in (1, 2, 3)]
    found = shared(run(user("March.\n\n4 cells."), task="4"), *ours)
    assert found == SharedOpening(Opening((), "Walk.\n\n"), 3, 4)


def test_openings_are_kept_by_environment_and_read_again(tmp_path):
    runs = [
        run(RULES, OK, user("2 cells."), task="1"),
        run(RULES, OK, user("3 cells."), task="2"),
        run(user("Boil it.\n\nwater"), task="1", environment="sciworld"),
        run(user("Boil it.\n\nlead"), task="2", environment="scienceworld"),
        run(user("Only one.\n\nx"), task="1", environment="alone"),
    ]
    (notice,) = write_openings(tmp_path, runs)
    assert "alone do not tell their instruction" in notice
    assert openings_beside(tmp_path) == {
        "corridor": Opening((RULES, OK), "", anchored=True),
        "scienceworld": Opening((), "Boil it.\n\n"),
    }
    assert opening_of(tmp_path, "sciworld") == Opening((), "Boil it.\n\n")
    assert opening_of(tmp_path, "agentgym:corridor@http://h:1") is not None
    assert opening_of(tmp_path, "textcraft") is None
    # Runs that tell nothing leave no openings of an earlier training behind.
    assert write_openings(tmp_path, [run(RULES, environment=None)]) == []
    assert openings_beside(tmp_path) == {}


def test_a_lone_surrogate_in_an_instruction_survives(tmp_path):
    odd = user("Say \ud800.")
    runs = [run(odd, OK, user(f"{n} cells."), task=str(n)) for n in (1, 2)]
    write_openings(tmp_path, runs)
    assert opening_of(tmp_path, "corridor").messages[0] == odd


def test_our_own_runs_give_the_environments_opening_back(tmp_path):
    env = TextCraft()
    tasks = env.tasks("train")[:6]
    runs = collect_expert_runs(env, tasks, seed=0, habits=Habits()).trajectories
    write_openings(tmp_path, runs)
    usual = Opening.of(env.instruction, REPLY_FORMAT, PREFILL)
    found = opening_of(tmp_path, "textcraft")
    for task in env.tasks("test")[:6]:
        observation, _ = env.reset(options={"task_id": task})
        assert found.conversation(observation) == usual.conversation(observation)


def test_an_opening_in_agentgyms_form():
    assert Opening.of(Corridor.instruction, "Answer so.", "OK.").conversation("1 cell.") == [
        user("Say forward until you are there.\n\nAnswer so."),
        OK,
        user("1 cell."),
    ]


def test_a_conversation_shares_nothing_with_the_opening():
    opening = Opening((RULES,))
    opening.conversation("1")[0]["content"] = "changed"
    assert opening.messages == ({"role": "user", "content": "Say forward."},)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "does not hold the openings"),
        ('{"form": 9, "openings": {}}', "its form is 9"),
        ('{"form": 1}', "no key 'openings'"),
        ('{"form": 1, "openings": {"x": {"messages": [], "lead": 1, "anchored": true}}}', "'lead'"),
        (
            '{"form": 1, "openings": {"x": {"messages": [{}], "lead": "", "anchored": true}}}',
            "message 1 has no text",
        ),
        ("[]", "does not hold the openings"),
    ],
)
def test_a_broken_file_is_told(tmp_path, text, reason):
    (tmp_path / OPENINGS).write_text(text)
    with pytest.raises(AtlasError, match=reason):
        openings_beside(tmp_path)


def test_a_prompt_file_of_text_is_the_instruction(tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_text("Walk.\n\nAction: <action>\n")
    assert read_prompt_file(path, "OK.").conversation("1 cell.") == [
        user("Walk.\n\nAction: <action>"),
        OK,
        user("1 cell."),
    ]


def test_a_prompt_file_of_messages_is_told_as_it_is(tmp_path):
    path = tmp_path / "prompt.json"
    system = {"role": "system", "content": "You walk."}
    path.write_text(json.dumps([system]))
    assert read_prompt_file(path, "OK.").conversation("1 cell.") == [system, user("1 cell.")]
    path.write_text(json.dumps([system, RULES]))
    assert read_prompt_file(path, "OK.").conversation("1 cell.") == [
        system,
        user("Say forward.\n\n1 cell."),
    ]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b" \n", "is empty"),
        ("a.txt", b"\xff", "not UTF-8 text, at byte 0"),
        ("a.json", b"{", "not a list of chat messages"),
        ("a.json", b'{"role": "user"}', "a list is wanted"),
        ("a.json", b"[]", "holds no message"),
        ("a.json", b'[{"role": "human", "content": "x"}]', "one of system, developer, user"),
        ("a.json", b'[{"role": "user"}]', "message 1 has no text"),
        ("missing.txt", None, "There is no prompt file"),
    ],
)
def test_a_prompt_file_that_is_none_is_told(tmp_path, name, content, reason):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=reason):
        read_prompt_file(tmp_path / name, "OK.")


def test_worlds_have_one_name():
    names = ["textcraft", "lmrlgym_wordle", "sciworld", "agentgym:sciworld@http://h:1"]
    assert [world_of(name) for name in names] == [
        "textcraft",
        "wordle",
        "scienceworld",
        "scienceworld",
    ]


def test_tuning_records_the_openings_of_what_was_trained(tmp_path):
    base, out = tmp_path / "base", tmp_path / "out"
    tiny_llama().save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    runs = [run(RULES, OK, user(f"{n} cells."), task=str(n)) for n in (1, 2)]
    unselected = [run(user(f"Boil.\n\n{n}"), task=str(n), environment="sciworld") for n in (1, 2)]
    chosen = {one.trajectory_id: Selection(one.trajectory_id, (4,), "all") for one in runs}
    settings = TuneSettings(epochs=1, precision="float32")
    tune_model(str(base), [*runs, *unselected], chosen, settings, out, 0)
    assert openings_beside(out) == {"corridor": Opening((RULES, OK), "", anchored=True)}


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("file", "environment", "runs", "begins"),
    [
        ("textcraft", "textcraft", 374, "You are given few useful crafting recipes"),
        ("babyai", "babyai", 810, "You are an exploration master"),
        ("sciworld", "scienceworld", 2120, "You are an agent for science world."),
        ("wordle", "wordle", 955, "You are an expert wordle player."),
    ],
)
def test_recorded_runs_of_agentgym(tmp_path, file, environment, runs, begins):
    path = shared_data() / "agenttraj-l" / f"{file}.jsonl.xz"
    import_files([path], tmp_path / "runs.jsonl")
    trajectories = list(read_trajectories(tmp_path / "runs.jsonl"))
    found = shared_openings(trajectories)[environment]
    assert (found.runs, found.of) == (runs, runs)
    first, prefill = found.opening.messages
    assert first["content"].startswith(begins)
    assert prefill["content"].startswith("OK. I'll follow your instructions")
    # Every run's own start comes back from the opening and what its environment told first.
    for trajectory in trajectories[:50]:
        start = [step.message for step in trajectory.steps[:3]]
        observation = "" if environment == "wordle" else start[2].removeprefix("Instruction:\n")
        told = [m["content"] for m in found.opening.conversation(observation)]
        assert told == start


@pytest.mark.shared_data
def test_the_rules_of_recorded_wordle_come_with_the_words_of_the_task(tmp_path):
    path = shared_data() / "agenttraj-l" / "wordle.jsonl.xz"
    import_files([path], tmp_path / "runs.jsonl")
    trajectories = list(read_trajectories(tmp_path / "runs.jsonl"))
    opening = shared_openings(trajectories)["wordle"].opening
    recorded = trajectories[0].steps[2].message
    for task in Wordle().tasks("test")[:2]:
        told = Episode.start(Wordle(), task, opening).opening()[-1]["content"]
        assert find_vocabulary(told) == build(task).vocabulary != find_vocabulary(recorded)
        # All else is word for word what the recorded agents were told.
        assert told == recorded.replace(
            listing(find_vocabulary(recorded)), listing(build(task).vocabulary)
        )
