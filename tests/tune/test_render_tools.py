"""Masks of tool calls under the templates that models ship with (TRL's package has copies)."""

import json
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_tune.agents.chat_template import render_text
from atlas_tune.errors import AtlasError
from atlas_tune.trajectory import Observation, Selection, Step, Trajectory
from atlas_tune.trajectory.messages import to_messages
from atlas_tune.trajectory.model import ObservationResult, ToolCall
from atlas_tune.tune.mask_check import MaskError
from atlas_tune.tune.render import render_rows
from atlas_tune.tune.rows import IGNORED
from tiny_model import CHATML
from tune.tool_runs import TOOLS, chat_tokenizer, tool_run


def stock(name):
    text = files("trl").joinpath("chat_templates", f"{name}.jinja").read_text(encoding="utf-8")
    return chat_tokenizer(text, "<|eot_id|>" if name.startswith("llama") else "<|im_end|>")


def select(run, *places):
    own = run.agent_steps
    return Selection(run.trajectory_id, tuple(own[i].step_id for i in places), "test")


def texts(tokenizer, rows):
    """The supervised text of every span, in order."""
    return [
        tokenizer.decode([row.labels[i] for i in range(span.start, span.end)])
        for row in rows
        for span in row.spans
    ]


def call_text(call):
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return (
        f'<tool_call>\n{{"name": "{call.function_name}", "arguments": {arguments}}}\n</tool_call>'
    )


def test_calls_parallel_calls_and_answers_are_told_apart():
    tokenizer, run = stock("qwen2_5"), tool_run()
    rows = render_rows(tokenizer, run, select(run, 0, 1, 2, 3, 4))
    assert len(rows) == 1
    for step, text in zip(run.agent_steps, texts(tokenizer, rows), strict=True):
        parts = [step.message] if step.message else []
        assert text == "\n".join([*parts, *map(call_text, step.tool_calls)]) + "<|im_end|>"
    assert sum(label != IGNORED for label in rows[0].labels) == rows[0].supervised


def test_a_step_after_others_with_calls_is_masked_alone():
    tokenizer, run = stock("qwen2_5"), tool_run()
    (row,) = render_rows(tokenizer, run, select(run, 1))
    (text,) = texts(tokenizer, [row])
    assert text == "\n".join(map(call_text, run.agent_steps[1].tool_calls)) + "<|im_end|>"
    before = tokenizer.decode(row.input_ids[: row.spans[0].start])
    assert before.endswith("</tool_response><|im_end|>\n<|im_start|>assistant\n")
    assert "Result of get_weather: 7°" in before


def test_the_definitions_of_the_tools_stand_in_the_prompt():
    tokenizer, run = stock("qwen2_5"), tool_run()
    (row,) = render_rows(tokenizer, run, select(run, 0))
    prompt = tokenizer.decode(row.input_ids[: row.spans[0].start])
    for tool in TOOLS:
        assert json.dumps(tool, ensure_ascii=False) in prompt


def test_a_template_with_one_call_at_a_time_takes_one_and_refuses_two():
    tokenizer = stock("llama3_1")
    single, parallel = tool_run(parallel=False), tool_run(parallel=True)
    rows = render_rows(tokenizer, single, select(single, 1, 2))
    assert texts(tokenizer, rows) == [
        '{"name": "find_hotel", "parameters": '
        '{"filter": {"stars": 3, "near": ["sea", "Köln"]}}}<|eot_id|>',
        "Which day do you prefer?<|eot_id|>",
    ]
    with pytest.raises(AtlasError, match="single tool-calls"):
        render_rows(tokenizer, parallel, select(parallel, 0))


def test_a_template_that_drops_the_thought_beside_a_call_is_refused():
    run = tool_run(parallel=False)
    with pytest.raises(MaskError, match="without its text 'I look at"):
        render_rows(stock("llama3_1"), run, select(run, 0))


def test_a_template_that_drops_reasoning_is_refused():
    thinking = Step(2, "agent", "Go.", reasoning_content="Why not?")
    run = Trajectory.create((Step(1, "user", "Begin."), thinking))
    with pytest.raises(MaskError, match="without its reasoning"):
        render_rows(chat_tokenizer(CHATML), run, select(run, 0))


def test_a_template_that_drops_calls_is_refused():
    run = tool_run()
    with pytest.raises(MaskError, match="without its call of 'get_weather'"):
        render_rows(chat_tokenizer(CHATML), run, select(run, 0))


FIRST_CALL_ONLY = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content }}"
    "{% if message.tool_calls %}{{ message.tool_calls[0].function.name + ' ' }}"
    "{{ message.tool_calls[0].function.arguments | tojson }}{% endif %}{{ '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_a_template_that_drops_the_second_call_is_refused():
    run, tokenizer = tool_run(), chat_tokenizer(FIRST_CALL_ONLY)
    assert texts(tokenizer, render_rows(tokenizer, run, select(run, 0)))
    with pytest.raises(MaskError, match="without its call of 'get_weather'"):
        render_rows(tokenizer, run, select(run, 1))


def test_a_template_that_drops_the_arguments_is_refused():
    names = FIRST_CALL_ONLY.replace("{{ message.tool_calls[0].function.arguments | tojson }}", "")
    run = tool_run()
    with pytest.raises(MaskError, match="the argument 'city' of its call of 'get_weather'"):
        render_rows(chat_tokenizer(names), run, select(run, 0))
    for name in ("q", "é"):
        calling = Step(2, "agent", "", tool_calls=(ToolCall("c", "look", {name: 1}),))
        short = Trajectory.create((Step(1, "user", "Begin."), calling))
        with pytest.raises(MaskError, match=f"the argument '{name}'"):
            render_rows(chat_tokenizer(names), short, select(short, 0))


NAMES = st.sampled_from(["get_weather", "find_hotel", "done"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)
CALLS = st.lists(
    st.tuples(NAMES, st.dictionaries(st.text(max_size=4), VALUES, max_size=3)), max_size=3
)


@given(st.lists(st.tuples(st.text(max_size=20), CALLS), min_size=1, max_size=4), st.data())
def test_any_calls_are_masked_exactly(turns, data):
    tokenizer, steps, count = stock("qwen2_5"), [Step(1, "user", "Begin.")], 0
    for message, calls in turns:
        made = tuple(ToolCall(f"c{count + i}", *call) for i, call in enumerate(calls))
        count += len(made)
        answers = tuple(ObservationResult(f"got {c.tool_call_id}", c.tool_call_id) for c in made)
        seen = Observation(answers) if made else Observation.of("Go on.")
        steps.append(Step(len(steps) + 1, "agent", message, tool_calls=made, observation=seen))
    agent = {"name": "a", "version": "1", "tool_definitions": TOOLS}
    run = Trajectory.create(tuple(steps), agent=agent)
    places = sorted(data.draw(st.sets(st.integers(0, len(turns) - 1), min_size=1)))
    rows = render_rows(tokenizer, run, select(run, *places))
    rendered = to_messages(run)
    for place, text in zip(places, texts(tokenizer, rows), strict=True):
        at = rendered.step_ids.index(place + 2)
        before, after = rendered.messages[:at], rendered.messages[: at + 1]
        prompt = render_text(tokenizer, before, generation_prompt=True, tools=TOOLS)
        assert prompt + text + "\n" == render_text(
            tokenizer, after, generation_prompt=False, tools=TOOLS
        )
