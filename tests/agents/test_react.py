import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_tune.agents.react import format_turn, parse_turn

LINES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1).filter(
    lambda text: "Action:" not in text and "Thought:" not in text
)


@given(LINES, LINES)
def test_a_turn_is_read_as_it_was_written(thought, action):
    turn = parse_turn(format_turn(thought, action))
    assert (turn.thought, turn.action, turn.problem) == (thought, action, None)


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("Thought: x\nAction: get 1 stick", "get 1 stick"),
        ("Thought:\nx\n\nAction:\n get 1 stick \nand more", "get 1 stick"),
        ("Action:\n\nlook", "look"),
    ],
)
def test_the_action_is_the_first_line_after_its_mark(text, action):
    assert parse_turn(text).action == action


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("I will get a stick.", "no 'Action:'"),
        ("Action: a\nAction: b", "more than one"),
        ("Thought: x\nAction:\n ", "nothing stands"),
        ("", "no 'Action:'"),
    ],
)
def test_a_reply_without_one_action_says_what_is_wrong(text, problem):
    turn = parse_turn(text)
    assert turn.action is None
    assert problem in turn.problem
