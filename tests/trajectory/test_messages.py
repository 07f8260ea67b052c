from hypothesis import given
from hypothesis import strategies as st

from atlas_tune.trajectory import Observation, ObservationResult, Step, ToolCall, Trajectory
from atlas_tune.trajectory.messages import from_messages, to_messages
from trajectory.runs import craft_run

TEXTS = st.text(st.characters(exclude_categories=()), max_size=30)


@st.composite
def conversations(draw: st.DrawFn):
    """Chat messages as agents' data hold them, with tool calls, and which are copied."""
    messages, copied = [], []
    for role in draw(st.lists(st.sampled_from(["system", "user", "assistant"]), max_size=8)):
        message = {"role": role, "content": draw(TEXTS)}
        messages.append(message)
        copied.append(role == "assistant" and draw(st.booleans()))
        if role == "assistant" and draw(st.booleans()):
            message["reasoning_content"] = draw(TEXTS)
        if role == "assistant" and draw(st.booleans()):
            names = draw(st.lists(TEXTS, min_size=1, max_size=2))
            message["tool_calls"] = [
                {
                    "id": f"call-{i}",
                    "type": "function",
                    "function": {"name": name, "arguments": {"text": draw(TEXTS)}},
                }
                for i, name in enumerate(names)
            ]
            for i in range(len(names)):
                messages.append(
                    {"role": "tool", "content": draw(TEXTS), "tool_call_id": f"call-{i}"}
                )
                copied.append(False)
    return messages, copied


@given(conversations())
def test_messages_come_back_from_steps(conversation):
    messages, copied = conversation
    steps = (*from_messages(messages, copied), Step(0, "agent", "the end"))
    numbered = tuple(
        Step(
            i,
            s.source,
            s.message,
            s.reasoning_content,
            s.tool_calls,
            s.observation,
            s.is_copied_context,
        )
        for i, s in enumerate(steps, start=1)
    )
    rendered = to_messages(Trajectory.create(numbered))
    assert list(rendered.messages[:-1]) == messages
    own = [i for i, m in enumerate(messages) if m["role"] == "assistant" and not copied[i]]
    assert [i for i, step_id in enumerate(rendered.step_ids[:-1]) if step_id] == own


def test_an_observation_answers_the_step_before_it():
    run = craft_run(steps=2)
    rendered = to_messages(run)
    assert [m["role"] for m in rendered.messages] == [
        "user", "assistant", "user", "assistant", "user", "assistant", "user",
    ]  # fmt: skip
    assert rendered.step_ids == (None, None, None, 4, None, 5, None)
    assert from_messages(rendered.messages, [i == 1 for i in range(7)]) == run.steps


def test_parallel_calls_are_answered_one_by_one():
    calls = (ToolCall("a", "look", {}), ToolCall("b", "get", {"item": "stick"}))
    answers = Observation((ObservationResult("dark", "a"), ObservationResult("got it", "b")))
    run = Trajectory.create((Step(1, "agent", "", tool_calls=calls, observation=answers),))
    messages = to_messages(run).messages
    assert [(m["role"], m.get("tool_call_id")) for m in messages[1:]] == [
        ("tool", "a"),
        ("tool", "b"),
    ]
    assert from_messages(messages) == run.steps
