"""Runs of ALFWorld's recorded expert, as they are imported."""

import json

import pytest

from atlas_tune.agents.react import parse_turn
from atlas_tune.trajectory.formats import read_sources
from atlas_tune.trajectory.formats.alfworld import detect

GAME = "train/pick_and_place_simple-Mug-None-Desk-301/trial_T20190908_1"
TURNS = [
    {"from": "human", "value": "A room.\n\nYour task is to: put a mug on desk."},
    {"from": "gpt", "value": "go to desk 1"},
    {"from": "human", "value": "On the desk 1, you see nothing."},
]


def read(tmp_path, *records):
    path = tmp_path / "runs.jsonl"
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    rejected = []
    return [found.trajectory for found in read_sources([path], None, rejected.append)], rejected


def test_a_run_is_named_by_its_game_and_its_turns_can_be_parsed(tmp_path):
    [run], rejected = read(tmp_path, {"id": GAME, "conversations": TURNS, "seed": 3})
    assert rejected == []
    assert (run.environment, run.task_id) == ("alfworld", GAME)
    assert run.outcome.success is None
    assert run.extra["record"] == {"seed": 3}
    assert run.steps[0].message == TURNS[0]["value"]
    [step] = run.agent_steps
    assert step.message == "Action:\ngo to desk 1"
    assert parse_turn(step.message).action == "go to desk 1"
    assert step.observation.text == "On the desk 1, you see nothing."


def test_a_turn_that_is_one_of_ours_already_is_kept(tmp_path):
    spoken = "Thought:\nI look.\n\nAction:\nlook"
    turns = [TURNS[0], {"from": "gpt", "value": spoken}, TURNS[2]]
    [run], _ = read(tmp_path, {"id": GAME, "conversations": turns})
    assert run.agent_steps[0].message == spoken


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        ("look", "is a JSON object"),
        ({"from": "gpt"}, "has no 'value'"),
        ({"from": "system", "value": "look"}, "needs 'from' as one of human, gpt"),
    ],
)
def test_a_broken_run_costs_only_itself(tmp_path, turn, words):
    good = {"id": GAME, "conversations": TURNS}
    runs, [rejected] = read(tmp_path, {"id": GAME, "conversations": [*TURNS, turn]}, good)
    assert len(runs) == 1
    assert words in rejected.reason


@pytest.mark.parametrize(
    "other",
    [
        None,
        [],
        {"id": GAME},
        {"id": 7, "conversations": TURNS},
        {"id": "identity_0", "conversations": TURNS},
        {"conversations": TURNS},
    ],
)
def test_other_records_with_conversations_are_left_to_sharegpt(other):
    assert not detect(other)
