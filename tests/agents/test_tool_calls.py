"""Turns by function calling: read, written, answered, and played over a real socket."""

import json
from dataclasses import asdict

import pytest
from corridor import Corridor
from hypothesis import given
from hypothesis import strategies as st

from atlas_tune.agents.http_policy import HttpPolicy
from atlas_tune.agents.tools import (
    TAKE_ACTION,
    TOOL_FORMAT,
    ToolTurn,
    answers,
    format_call,
    message_of,
    parse_call,
    problem_text,
    sendable,
)
from atlas_tune.llm import ChatClient
from atlas_tune.trajectory import Trajectory
from atlas_tune.trajectory.messages import from_messages, to_messages
from scripted_server import Asked, Reply, ScriptedServer


def call_of(arguments, name="take_action", call_id="c1"):
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def said(*calls, text="I think."):
    return message_of(text, calls, 1)


@given(st.text().filter(str.strip), st.text())
def test_a_call_that_is_written_is_read(action, thought):
    turn = parse_call(format_call(thought, action, "c1"))
    assert turn == ToolTurn(thought.strip(), action.strip())


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (said(), "calls no tool"),
        (said(call_of('{"action": "a"}'), call_of('{"action": "b"}')), "2 tools at once"),
        (said(call_of('{"action": "a"}', name="go")), "no tool 'go'"),
        (
            said(call_of("forward")),
            'needs {"action": "…"} as its arguments, and these were forward',
        ),
        (said(call_of('["forward"]')), 'these were ["forward"]'),
        (said(call_of("{ }")), "these were { }"),
        (said(call_of('{"action": 3}')), 'these were {"action": 3}'),
        (said(call_of('{"action": "  "}')), 'these were {"action": "  "}'),
        (said({"id": None}), "no tool ''"),
    ],
)
def test_what_is_no_action_says_why(message, problem):
    turn = parse_call(message)
    assert turn.action is None and turn.thought == "I think."
    assert problem in turn.problem
    assert problem_text("x") == f"Error: x.\n\n{TOOL_FORMAT}"


def test_a_long_mistake_is_quoted_in_part():
    problem = parse_call(said(call_of("x" * 5000))).problem
    assert problem.endswith("x" * 200 + "…") and len(problem) < 300


def test_servers_differ_and_messages_do_not():
    calls = [{"id": "", "function": {"name": "f", "arguments": {"a": 1}}}, {"id": 7}]
    assert message_of("t", calls, 3) == {
        "role": "assistant",
        "content": "t",
        "tool_calls": [call_of('{"a": 1}', "f", "call_3"), call_of("", "", "call_3_2")],
    }
    assert message_of("t", [], 3) == {"role": "assistant", "content": "t"}


def test_every_call_is_answered_and_a_turn_without_one_by_the_user():
    both = said(call_of("{}", call_id="a"), call_of("{}", call_id="b"))
    assert answers(both, "No.") == [
        {"role": "tool", "tool_call_id": "a", "content": "No."},
        {"role": "tool", "tool_call_id": "b", "content": "No."},
    ]
    assert answers(said(), "No.") == [{"role": "user", "content": "No."}]


def test_arguments_that_no_server_takes_back_are_sent_as_an_empty_object():
    good, bad = said(call_of('{"action":  "a"}')), said(call_of("forward"))
    parsed = said(call_of('{"action":"a"}'))
    parsed["tool_calls"][0]["function"]["arguments"] = {"action": "a"}
    user = {"role": "user", "content": "x"}
    sent = sendable([user, good, bad, parsed])
    assert sent[:2] == [user, good]
    written = [m["tool_calls"][0]["function"]["arguments"] for m in sent[1:]]
    assert written == ['{"action":  "a"}', "{}", '{"action": "a"}']
    assert bad["tool_calls"][0]["function"]["arguments"] == "forward"


def test_the_schema_is_what_the_parser_reads():
    function = TAKE_ACTION["function"]
    assert function["parameters"]["required"] == list(function["parameters"]["properties"])
    arguments = json.dumps(dict.fromkeys(function["parameters"]["required"], "go"))
    assert parse_call(said(call_of(arguments, function["name"]))).action == "go"


def walk(policy, task, turns):
    """One episode of tool calls, as a rollout plays it; the conversation and its success."""
    env = Corridor()
    observation, _ = env.reset(options={"task_id": task})
    messages = [
        {"role": "user", "content": f"{env.instruction}\n\n{TOOL_FORMAT}"},
        {"role": "assistant", "content": "OK."},
        {"role": "user", "content": observation},
    ]
    for _ in range(turns):
        message = policy.turns({"0": messages}, [TAKE_ACTION])["0"]
        turn = parse_call(message)
        if turn.action is None:
            observation, done = problem_text(turn.problem), False
        else:
            observation, _, done, _, info = env.step(turn.action)
        messages += [message, *answers(message, observation)]
        if done:
            return messages, info["success"]
    return messages, False


def completion(text, *calls):
    message = {"role": "assistant", "content": text, "tool_calls": list(calls)}
    return Reply(json.dumps({"choices": [{"message": message}]}).encode())


def test_an_agent_is_told_its_mistakes_and_walks_on():
    forward = '{"action": "forward"}'
    script = [
        completion("On.", call_of("forward")),
        completion("On.", call_of(forward, call_id="x"), call_of(forward, call_id="y")),
        completion("I am there, I think."),
        completion(None, call_of(forward, call_id=None)),
        completion(None, call_of(forward, call_id=None)),
    ]

    def strict(asked: Asked) -> Reply:
        # As real servers: arguments must parse, and every call must be answered before the next.
        open_calls = set()
        for message in asked.body["messages"]:
            if message["role"] != "tool":
                assert not open_calls
            for call in message.get("tool_calls", ()):
                assert isinstance(json.loads(call["function"]["arguments"]), dict)
                open_calls.add(call["id"])
            open_calls.discard(message.get("tool_call_id"))
        assert not open_calls
        return script[len(server.asked) - 1]

    with ScriptedServer(strict) as server:
        policy = HttpPolicy(ChatClient(server.url, "m", first_wait=0.01, retries=0))
        messages, success = walk(policy, "corridor/2", 5)
    assert success
    told = [m["content"] for m in messages[3:] if m["role"] in ("tool", "user")]
    assert "these were forward" in told[0]
    assert all("2 tools at once" in text for text in told[1:3])
    assert "calls no tool" in told[3]
    assert told[4:] == ["1 cells ahead.", "0 cells ahead."]
    # It is a trajectory with tool calls, which comes back as it was.
    run = Trajectory.create(
        from_messages(messages, [i < 3 for i in range(len(messages))]),
        agent={"name": "a", "version": "1", "tool_definitions": [TAKE_ACTION]},
    )
    assert len(run.agent_steps) == 5 and run.tools == [TAKE_ACTION]
    assert [asdict(c)["tool_call_id"] for s in run.agent_steps for c in s.tool_calls] == [
        "c1",
        "x",
        "y",
        "call_5",
        "call_6",
    ]
    again = [m["content"] for m in to_messages(run).messages]
    assert again == [m["content"] for m in messages]
