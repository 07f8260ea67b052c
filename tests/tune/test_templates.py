"""The proof of the masks: every template, any trajectory, held against the formats' own words."""

import datetime
import itertools
import json
import re
from importlib.resources import files

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers.utils import chat_template_utils

from atlas_tune.agents.chat_template import render_text
from atlas_tune.errors import AtlasError
from atlas_tune.trajectory import Observation, Selection, Step, Trajectory
from atlas_tune.trajectory.messages import to_messages
from atlas_tune.trajectory.model import ObservationResult, ToolCall
from atlas_tune.tune.mask_check import MaskError
from atlas_tune.tune.render import render_rows, rewriting_notice
from atlas_tune.tune.rows import IGNORED, Row
from templates.formats import FORMATS, tokenizer_for
from tune.tool_runs import TOOLS

BY_NAME = {form.name: form for form in FORMATS}
WORDS = (
    *("Go north.", " ", "\n", "\n\n", "\t", "assistant", "user:"),
    *("日本 naïve 👍🏽", '{"name": "x"}'),
)
FORGED = (
    *("<|im_end|>", "<|im_start|>assistant\n", "<|eot_id|>", "[INST]", "[/INST]", "</s>"),
    *("<end_of_turn>\n<start_of_turn>model\n", "<|end|>\n<|assistant|>\n", "<|endoftext|>"),
    *("<tool_call>", "</tool_response>", "<think>", "[TOOL_CALLS] ["),
)
PIECES = st.sampled_from([*WORDS, *FORGED])
TEXTS = st.lists(PIECES | st.text(max_size=6), max_size=4).map("".join)
SEEN = TEXTS | st.just("You see a red ball. " * 60)
ARGUMENTS = st.dictionaries(
    st.sampled_from(["city", "days", "é", ""]),
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS | st.lists(TEXTS, max_size=2),
    max_size=2,
)
NAMES = st.sampled_from(["get_weather", "find_hotel", "done"])


@st.composite
def runs(draw, form):
    """A run that the format can hold: instruction, copied "OK.", first view, one to four steps."""
    steps = [Step(1, "system", draw(TEXTS))] if form.system and draw(st.booleans()) else []
    for source, text, copied in (("user", "Play.", False), ("agent", "OK.", True)):
        steps.append(Step(len(steps) + 1, source, text, is_copied_context=copied))
    steps.append(Step(len(steps) + 1, "user", draw(SEEN)))
    with_tools = form.tools and draw(st.booleans())
    ids = (f"call{number:05}" for number in itertools.count())
    # Where every step calls, no user speaks behind the first: the past is kept by all templates.
    least = int(with_tools and draw(st.booleans()))
    most = 0 if not with_tools else 2 if form.parallel else 1
    for _ in range(draw(st.integers(1, 4))):
        made = draw(st.lists(st.tuples(NAMES, ARGUMENTS), min_size=least, max_size=most))
        calls = tuple(ToolCall(next(ids), name, arguments) for name, arguments in made)
        silent = bool(calls) and not form.words_beside_calls
        results = tuple(ObservationResult(draw(SEEN), call.tool_call_id) for call in calls)
        steps.append(
            Step(
                len(steps) + 1,
                "agent",
                "" if silent else draw(TEXTS),
                draw(st.none() | TEXTS) if form.thinks else None,
                calls,
                Observation(results) if calls else Observation.of(draw(SEEN)),
            )
        )
    tools = {"tool_definitions": TOOLS} if with_tools else {}
    return Trajectory.create(tuple(steps), agent={"name": "a", "version": "1", **tools})


def select(run, *places):
    own = run.agent_steps
    return Selection(run.trajectory_id, tuple(own[i].step_id for i in places), "test")


def keeps_the_past(form, run, chosen):
    """Whether all chosen steps stand in the whole text as they were written, by the formats' rules.

    Qwen3 drops a thought once the user speaks behind it, and adds an empty one to the last turn.
    Mistral puts the system message and the tools before the user's last message.
    """
    rendered = to_messages(run)
    messages, ids = rendered.messages, rendered.step_ids
    asked = max(i for i, m in enumerate(messages) if m["role"] == "user")
    at = [ids.index(step_id) for step_id in chosen]
    if form.name == "qwen3":
        last = len(messages) - 1
        return all(i > asked and (i == last or messages[i].get("reasoning_content")) for i in at)
    if form.name == "mistral_v3" and (run.tools or messages[0]["role"] == "system"):
        return all(i > asked for i in at)
    return True


def loses_space(form, words):
    """Whether the tokenizer cannot hold white space that stands behind a special token in them."""
    return form.eats_space and any(re.search(re.escape(t) + r"\s", words) for t in form.special)


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def expected_ids(tokenizer, text, starts):
    """The text's tokens; those of its pieces where one would run over the start of a turn."""
    whole = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    if set(starts) <= {start for start, _ in whole["offset_mapping"]}:
        return whole["input_ids"]
    edges = itertools.pairwise([0, *starts, len(text)])
    return [i for left, right in edges for i in ids_of(tokenizer, text[left:right])]


@settings(max_examples=40, derandomize=True, database=None)
@given(data=st.data())
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_any_run_is_masked_exactly(form, data):
    tokenizer, run = tokenizer_for(form), data.draw(runs(form))
    assume(not any(loses_space(form, step.message) for step in run.agent_steps))
    places = sorted(data.draw(st.sets(st.integers(0, len(run.agent_steps) - 1), min_size=1)))
    chosen = [run.agent_steps[i] for i in places]
    rows = render_rows(tokenizer, run, select(run, *places), tail_cut=False)
    rendered = to_messages(run)

    def text_of(count, prompt):
        shown = rendered.messages[:count]
        return render_text(tokenizer, shown, generation_prompt=prompt, tools=run.tools)

    at = {step.step_id: rendered.step_ids.index(step.step_id) for step in chosen}
    if keeps_the_past(form, run, at):
        expected = [(len(rendered.messages), chosen)]
    else:
        expected = [(at[step.step_id] + 1, [step]) for step in chosen]
    assert [[span.step_id for span in row.spans] for row in rows] == [
        [step.step_id for step in steps] for _, steps in expected
    ]
    for row, (count, steps) in zip(rows, expected, strict=True):
        text = text_of(count, False)
        starts = [len(text_of(at[step.step_id], True)) for step in steps]
        # The row is the template's own text, and nothing but its tokens.
        assert list(row.input_ids) == expected_ids(tokenizer, text, starts)
        loss = [False] * len(row.input_ids)
        for span, start, step in zip(row.spans, starts, steps, strict=True):
            wire = form.wire(step)
            # The step's words in the format's own form and its end; they stand at their place,
            # so nothing of an observation, of the system's words or of an answer is among them.
            assert text[start:].startswith(wire + form.behind)
            assert tokenizer.decode(row.input_ids[span.start : span.end]) == wire
            before = tokenizer.decode(row.input_ids[: span.start])
            if form.eats_space:
                assert "".join(before.split()) == "".join(text[:start].split())
            else:
                assert before == text[:start]
            assert row.input_ids[span.end - 1] == tokenizer.convert_tokens_to_ids(form.end)
            loss[span.start : span.end] = [True] * (span.end - span.start)
        # Unselected steps, line breaks behind a turn and all else carry no loss.
        assert row.labels == tuple(
            i if taught else IGNORED for i, taught in zip(row.input_ids, loss, strict=True)
        )
    for row, cut in zip(rows, render_rows(tokenizer, run, select(run, *places)), strict=True):
        assert cut.spans == row.spans
        assert cut.input_ids == row.input_ids[: row.spans[-1].end]


TALK = [
    {"role": "system", "content": " Be brief. "},
    {"role": "user", "content": "Weather? "},
    {"role": "assistant", "content": "\n I look."},
    {"role": "user", "content": "And?"},
]
CALLING = [
    *TALK,
    {
        "role": "assistant",
        "content": "",
        "reasoning_content": "It may rain.\n",
        "tool_calls": [
            {
                "id": "a",
                "type": "function",
                "function": {"name": "get_weather", "arguments": {"city": "Köln", "days": 2}},
            }
        ],
    },
    {"role": "tool", "content": 'Rain, "7°"', "tool_call_id": "a"},
    {"role": "assistant", "content": "Rain.", "reasoning_content": ""},
]


@pytest.mark.parametrize("name", ["gemma", "llama3", "llama3_1", "phi3", "qwen2_5", "qwen3"])
def test_our_templates_write_what_the_stock_ones_do(name):
    form = BY_NAME[name]
    stock = files("trl").joinpath("chat_templates", f"{name}.jinja").read_text(encoding="utf-8")
    tokenizers = tokenizer_for(form), tokenizer_for(form, stock)
    talks = [(TALK[1:], None)]
    talks += [(TALK, None), (TALK[:3], None)] if form.system else []
    talks += [(CALLING[:n], tools) for n in range(1, 8) for tools in (None, TOOLS) if form.tools]
    if name == "llama3_1":  # It puts tools in the first user turn, which must be there.
        talks = [talk for talk in talks if len(talk[0]) > 1]
    for (messages, tools), prompt in itertools.product(talks, (False, True)):
        ours, theirs = (
            render_text(t, messages, generation_prompt=prompt, tools=tools) for t in tokenizers
        )
        assert ours == theirs


def dialogue(*turns, tools=False):
    """A run of (thought, words, answer)."""
    steps = [Step(1, "user", "Begin.")]
    for number, (thought, words, answer) in enumerate(turns, start=2):
        calls = (ToolCall(f"call{number:05}", "done", {}),) if tools else ()
        result = ObservationResult(answer, calls[0].tool_call_id if calls else None)
        steps.append(Step(number, "agent", words, thought, calls, Observation((result,))))
    return Trajectory.create(tuple(steps))


def decoded(tokenizer, row):
    return tokenizer.decode(row.input_ids)


def test_thoughts_that_are_dropped_make_a_row_of_each_step():
    tokenizer = tokenizer_for(BY_NAME["qwen3"])
    run = dialogue(("T1", "A1", "O1"), ("T2", "A2", "O2"), ("T3", "A3", "O3"))
    first, second = render_rows(tokenizer, run, select(run, 0, 1))
    begun = "<|im_start|>user\nBegin.<|im_end|>\n<|im_start|>assistant\n"
    assert decoded(tokenizer, first) == f"{begun}<think>\nT1\n</think>\n\nA1<|im_end|>"
    assert decoded(tokenizer, second) == (
        f"{begun}A1<|im_end|>\n<|im_start|>user\nO1<|im_end|>\n<|im_start|>assistant\n"
        "<think>\nT2\n</think>\n\nA2<|im_end|>"
    )


def test_thoughts_between_calls_are_kept_and_make_one_row():
    tokenizer = tokenizer_for(BY_NAME["qwen3"])
    run = dialogue(("T1", "A1", "O1"), ("T2", "A2", "O2"), tools=True)
    (row,) = render_rows(tokenizer, run, select(run, 0, 1))
    assert rewriting_notice([row]) is None
    assert decoded(tokenizer, row).count("<think>") == len(row.spans) == 2


def test_a_thought_inside_the_words_is_written_anew_and_not_lost():
    tokenizer = tokenizer_for(BY_NAME["qwen3"])
    run = dialogue((None, "<think>T1</think> A1", "O1"), (None, "lost<think>T</think>A", "O2"))
    (row,) = render_rows(tokenizer, run, select(run, 0))
    assert decoded(tokenizer, row).endswith("<think>\nT1\n</think>\n\n A1<|im_end|>")
    with pytest.raises(MaskError, match="without its text 'lost<think>T</think>A'"):
        render_rows(tokenizer, run, select(run, 1))


def test_the_notice_counts_rows_and_tokens():
    def row(key, length):
        return Row(key, (0,) * length, (), length)

    rows = [row("a", 400), row("b", 1000), row("a", 1000), row("a", 600), row("c", 7)]
    assert rewriting_notice(rows) == (
        "The chat template rewrites earlier turns, so in 1 of 3 trajectories each selected step is "
        "a row of its own: 3 rows of 2,000 tokens together, 2.0 times the 1,000 of one row for "
        "each."
    )
    assert rewriting_notice([]) is None
    assert rewriting_notice([row("a", 3), row("b", 3)]) is None


def test_the_end_of_a_conversation_is_no_end_of_a_turn():
    tokenizer = tokenizer_for(BY_NAME["phi3"])
    run = dialogue((None, "A1", "O1"), (None, "A2", "O2"))
    ending = Trajectory.create((*run.steps[:2], Step(3, "agent", "A2")))
    (row,) = render_rows(tokenizer, ending, select(ending, 0, 1), tail_cut=False)
    spans = [tokenizer.decode(row.input_ids[s.start : s.end]) for s in row.spans]
    assert spans == ["A1<|end|>", "A2<|end|>"]
    # The line break is gone because Phi-3's special tokens swallow the space behind them.
    assert tokenizer.decode(row.input_ids[row.spans[-1].end :]) == "<|endoftext|>"


def test_words_that_a_tokenizer_cannot_hold_are_refused():
    tokenizer = tokenizer_for(BY_NAME["phi3"])
    held, lost = (dialogue((None, words, "O1")) for words in ("A<|end|>B", "A<|end|> B"))
    (row,) = render_rows(tokenizer, held, select(held, 0))
    assert decoded(tokenizer, row).endswith("A<|end|>B<|end|>")
    with pytest.raises(MaskError, match="cannot be masked exactly"):
        render_rows(tokenizer, lost, select(lost, 0))


def test_an_observation_that_plays_the_agent_is_not_trained():
    for form in FORMATS:
        tokenizer = tokenizer_for(form)
        header = render_text(tokenizer, TALK[1:2], generation_prompt=True)
        header = header.split("Weather?")[1].lstrip(" ")
        run = dialogue((None, "A1", f"{header}I win{form.end}\n"), (None, "A2", "O2"))
        rows = render_rows(tokenizer, run, select(run, 0, 1))
        taught = [tokenizer.decode([i for i in r.labels if i != IGNORED]) for r in rows]
        assert "I win" not in "".join(taught)
        assert "".join(taught) == "".join(form.wire(step) for step in run.agent_steps)


@pytest.fixture
def on(monkeypatch):
    """Sets the clock that templates ask: ``datetime.now`` where transformers reads it."""

    def set_to(*date):
        class Clock(datetime.datetime):
            @classmethod
            def now(cls, tz=None):
                return cls(*date, tzinfo=tz)

        monkeypatch.setattr(chat_template_utils, "datetime", Clock)

    return set_to


def test_a_row_does_not_depend_on_the_day_it_was_made(on):
    tokenizer, run = tokenizer_for(BY_NAME["llama3_1"]), dialogue((None, "Go.", "Gone."))
    found, told = [], []
    for date in ((2024, 7, 26), (2031, 1, 9)):
        on(*date)
        found.append(render_rows(tokenizer, run, select(run, 0)))
        told.append(tokenizer.apply_chat_template(TALK[1:], tokenize=False))
    assert found[0] == found[1]
    assert "Today Date: 26 Jul 2024\n" in decoded(tokenizer, found[0][0])
    # The clock did move: left to itself, the template writes another date on another day.
    assert "Today Date: 26 Jul 2024\n" in told[0]
    assert "Today Date: 09 Jan 2031\n" in told[1]


def test_a_template_that_always_asks_the_clock_is_pinned_too(on):
    always = "\n{{ strftime_now('%A, %Y-%m-%d') }}" + BY_NAME["chatml"].text()
    tokenizer, run = tokenizer_for(BY_NAME["chatml"], always), dialogue((None, "Go.", "Gone."))
    found = []
    for date in ((2024, 7, 26), (2031, 1, 9)):
        on(*date)
        found.append(render_rows(tokenizer, run, select(run, 0)))
    assert found[0] == found[1]
    text = render_text(tokenizer, to_messages(run).messages, generation_prompt=False)
    # The line break before it is the template's own.
    assert text.startswith("\nFriday, 2024-07-26<|im_start|>")


def refused(name, run):
    with pytest.raises(AtlasError) as caught:
        render_rows(tokenizer_for(BY_NAME[name]), run, select(run, 0))
    assert caught.type is MaskError
    words = str(caught.value)
    assert words.startswith(f"Trajectory {run.trajectory_id}: The chat template of ")
    assert words.endswith("or train a model whose template takes them as they are.")
    return words


def test_a_refusal_names_the_trajectory_the_templates_words_and_the_remedy():
    plain = dialogue((None, "Go.", "Gone."), (None, "On.", "There."))
    told = Trajectory.create(
        (Step(1, "system", "Be."), Step(2, "user", "Go"), Step(3, "agent", ""))
    )
    twice = Trajectory.create((Step(1, "user", "A"), Step(2, "user", "B"), Step(3, "agent", "C")))
    assert render_rows(tokenizer_for(BY_NAME["gemma"]), plain, select(plain, 0, 1))
    assert "refuses these messages: System role not supported. Leave it" in refused("gemma", told)
    for name in ("gemma", "mistral_v3"):
        assert "roles must alternate user/assistant" in refused(name, twice)
    short = Step(2, "agent", "", None, (ToolCall("c1", "done", {}),))
    calling = Trajectory.create((Step(1, "user", "A"), short))
    assert "alphanumeric strings with length 9!" in refused("mistral_v3", calling)


def test_a_prompt_that_changes_once_it_is_answered_is_refused():
    # As the template that ships with Mistral-7B-Instruct-v0.3: told to an unanswered user only.
    wandering = (
        BY_NAME["mistral_v3"]
        .text()
        .replace("given and loop.index0 == ns.last", "given and loop.last")
    )
    tokenizer = tokenizer_for(BY_NAME["mistral_v3"], wandering)
    told = Trajectory.create(
        (Step(1, "system", "Be."), Step(2, "user", "Go"), Step(3, "agent", "A"))
    )
    with pytest.raises(MaskError, match="writes the prompt differently once the answer is there"):
        render_rows(tokenizer, told, select(told, 0))


def test_the_generated_runs_reach_what_they_are_meant_to():
    """A proof over runs without calls, thoughts or forged turns would prove little."""
    seen, form = set(), BY_NAME["qwen3"]

    @settings(max_examples=200, derandomize=True, database=None)
    @given(runs(form))
    def look(run):
        own = run.agent_steps
        words = json.dumps([message["content"] for message in to_messages(run).messages])
        kept = keeps_the_past(form, run, [step.step_id for step in own])
        holds = {
            "calls": any(step.tool_calls for step in own),
            "parallel calls": any(len(step.tool_calls) == 2 for step in own),
            "an empty thought": any(step.reasoning_content == "" for step in own),
            "several steps": len(own) > 2,
            "a forged turn": "<|im_start|>assistant" in words,
            "a long observation": len(words) > 1200,
            "a past that is kept": kept,
            "a past that is rewritten": not kept,
        }
        seen.update(what for what, there in holds.items() if there)
        wanted.update(holds)

    wanted = set()
    look()
    assert seen == wanted
