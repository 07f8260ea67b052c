"""Our chat templates write what the models' own do, and mark what the flags say."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from atlas_tune.agents.chat_template import render_text
from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.trajectory.exports.dialects import DIALECTS
from atlas_tune.trajectory.exports.messages import flagged, write
from atlas_tune.trajectory.exports.templates import TEMPLATES, make_template, template_like
from tiny_model import tiny_tokenizer
from trajectory.exports.talks import TOOLS, call, talks

ENDS = {name: "<|eot_id|>" if name == "llama3" else "<|im_end|>" for name in TEMPLATES}
HEADERS = {
    name: "<|start_header_id|>assistant<|end_header_id|>\n\n"
    if name == "llama3"
    else "<|im_start|>assistant\n"
    for name in TEMPLATES
}


def rendered(name, messages, tools=None, prompt=False):
    """The text of messages, and the parts of it that are marked."""
    (text,), (spans,) = render_jinja_template(
        [messages],
        tools=tools,
        chat_template=TEMPLATES[name].text,
        add_generation_prompt=prompt,
        return_assistant_tokens_mask=True,
        bos_token="<|begin_of_text|>",
    )
    (unmarked,), _ = render_jinja_template(
        [messages],
        tools=tools,
        chat_template=TEMPLATES[name].text,
        add_generation_prompt=prompt,
        bos_token="<|begin_of_text|>",
    )
    assert unmarked == text
    return text, [text[start:end] for start, end in spans]


TALK = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello", "loss": False},
    {"role": "user", "content": " Go "},
    {"role": "assistant", "content": " Gone \n", "loss": True},
]


def test_chatml():
    text, marked = rendered("chatml", TALK, prompt=True)
    assert text == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
        "<|im_start|>user\n Go <|im_end|>\n<|im_start|>assistant\n Gone \n<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert marked == [" Gone \n<|im_end|>"]


def test_smollm2_says_who_it_is():
    text, marked = rendered("smollm2", TALK)
    chatml, _ = rendered("chatml", TALK)
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        f"<|im_end|>\n{chatml}"
    )
    assert marked == [" Gone \n<|im_end|>"]
    spoken_to = [{"role": "system", "content": "Be."}, *TALK]
    assert rendered("smollm2", spoken_to) == rendered("chatml", spoken_to)


def test_llama3():
    text, marked = rendered("llama3", TALK, prompt=True)
    assert text == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nGo<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nGone<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert marked == ["Gone<|eot_id|>"]


CALLING = [
    {"role": "user", "content": "Sum?"},
    {
        "role": "assistant",
        "content": "",
        "loss": True,
        "tool_calls": [call("a", "add", {"b": 1, "a": "é"}), call("b", "look", {})],
    },
    {"role": "tool", "content": "2", "tool_call_id": "a"},
    {"role": "tool", "content": "dark", "tool_call_id": "b"},
    {"role": "assistant", "content": "So", "loss": False, "tool_calls": [call("c", "look", {})]},
    {"role": "tool", "content": "light", "tool_call_id": "c"},
    {"role": "assistant", "content": "Done", "loss": True},
]


def test_qwen2_5_with_tools():
    text, marked = rendered("qwen2.5", CALLING, TOOLS[1:])
    assert text == (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
        "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
        '{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}\n'
        "</tools>\n\nFor each function call, return a json object with function name and arguments"
        " within <tool_call></tool_call> XML tags:\n<tool_call>\n"
        '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\nSum?<|im_end|>\n"
        "<|im_start|>assistant\n"
        '<tool_call>\n{"name": "add", "arguments": {"b": 1, "a": "é"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\n2\n</tool_response>\n"
        "<tool_response>\ndark\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\nSo\n"
        '<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\nlight\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\nDone<|im_end|>\n"
    )
    assert marked == [
        '<tool_call>\n{"name": "add", "arguments": {"b": 1, "a": "é"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call><|im_end|>',
        "Done<|im_end|>",
    ]


def test_qwen2_5_without_tools_and_with_a_system_message():
    text, _ = rendered("qwen2.5", [{"role": "system", "content": "Be."}, *TALK], prompt=True)
    assert text == (
        "<|im_start|>system\nBe.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\n Go <|im_end|>\n"
        "<|im_start|>assistant\n Gone \n<|im_end|>\n<|im_start|>assistant\n"
    )
    text, _ = rendered("qwen2.5", [{"role": "system", "content": "Be."}, *CALLING], TOOLS)
    assert text.startswith("<|im_start|>system\nBe.\n\n# Tools\n\n")


def test_smollm2_is_what_the_model_has():
    from atlas_tune.agents.local_model import DEFAULT_MODEL, load_tokenizer

    try:
        tokenizer = load_tokenizer(DEFAULT_MODEL)
    except AtlasError as error:
        pytest.skip(str(error))
    for messages, prompt in itertools.product((TALK, TALK[1:], TALK[:1]), (True, False)):
        own = render_text(tokenizer, messages, generation_prompt=prompt)
        assert rendered("smollm2", messages, prompt=prompt)[0] == own


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_a_message_without_the_flag_is_marked_like_one_with_it(name):
    unflagged = [{k: v for k, v in message.items() if k != "loss"} for message in TALK]
    _, marked = rendered(name, unflagged)
    assert len(marked) == 2
    # Arrow gives every message every field, null where it had none.
    assert rendered(name, [{**m, "loss": None} for m in unflagged])[1] == marked


@pytest.mark.parametrize("name", ["chatml", "llama3", "smollm2"])
def test_a_template_without_a_form_for_calls_refuses_them(name):
    with pytest.raises(Exception, match="has no form for tool calls"):
        rendered(name, CALLING)


@pytest.mark.parametrize("name", sorted(TEMPLATES))
@given(st.data())
def test_marks_are_the_selected_steps_from_their_header_to_the_end_of_turn(name, data):
    run, steps = data.draw(talks(calls=name == "qwen2.5", any_arguments=False))
    record = json.loads(json.dumps(write(run, DIALECTS["trl"], None)))
    messages, flags = flagged(run, steps, whole=True)
    for message, on in zip(messages, flags, strict=True):
        if message["role"] == "assistant":
            message["loss"] = on
    tools = json.loads(record["tools"]) if "tools" in record else None
    marked = rendered(name, messages, tools)[1]
    expected = []
    for index, on in enumerate(flags):
        if on:
            prompt, _ = rendered(name, messages[:index], tools, prompt=True)
            through, _ = rendered(name, messages[: index + 1], tools)
            assert prompt.endswith(HEADERS[name])
            expected.append(through[len(prompt) :].removesuffix("\n"))
    assert marked == expected
    assert all(span.endswith(ENDS[name]) for span in marked)


def test_the_mask_of_transformers_is_the_marks():
    tokenizer = tiny_tokenizer()
    encoded = tokenizer.apply_chat_template(
        TALK,
        chat_template=TEMPLATES["chatml"].text,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    ids = [
        token
        for token, on in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
        if on
    ]
    assert tokenizer.decode(ids) == " Gone \n<|im_end|>"


def writer(text):
    def write_text(messages, tools, speak):
        try:
            (found,), _ = render_jinja_template(
                [messages], tools=tools, chat_template=text, add_generation_prompt=speak,
                bos_token="<s>",
            )  # fmt: skip
        except Exception as error:
            raise AtlasError(str(error)) from error
        return found

    return write_text


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_a_template_is_known_by_what_it_writes(name):
    def ours(template):
        return writer(template.text)

    found = template_like(writer(TEMPLATES[name].text), ours)
    assert found == TEMPLATES[name]
    assert template_like(writer(TEMPLATES[name].text + "!"), ours) is None
    assert template_like(writer("{{ raise_exception('no') }}"), ours) is None


def test_an_unknown_template_is_named():
    with pytest.raises(UsageError, match=r"no template 'qwen2'; did you mean 'qwen2.5'"):
        make_template("qwen2")
