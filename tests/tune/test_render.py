import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.normalizers import Lowercase
from tokenizers.processors import TemplateProcessing

from atlas_tune.errors import AtlasError
from atlas_tune.trajectory import Observation, Selection, Step, Trajectory
from atlas_tune.tune.mask_check import MaskError
from atlas_tune.tune.render import render_rows, tokenise
from atlas_tune.tune.rows import IGNORED
from tiny_model import CHATML, sentencepiece_like_tokenizer, tiny_tokenizer
from trajectory.runs import craft_run

# Drops what the agent said in earlier turns, as templates of thinking models do.
FORGETFUL = CHATML.replace(
    "message['content'] +",
    "(message['content'] if loop.last or message['role'] != 'assistant' else '…') +",
)
TRIMMING = CHATML.replace("message['content'] +", "(message['content'] | trim) +")


def select(run, *places):
    own = run.agent_steps
    return Selection(run.trajectory_id, tuple(own[i].step_id for i in places), "test")


def supervised_text(row, tokenizer):
    return tokenizer.decode([i for i in row.labels if i != IGNORED], skip_special_tokens=False)


def test_the_mask_is_the_steps_and_their_end_of_turn():
    tokenizer, run = tiny_tokenizer(), craft_run(steps=4)
    (row,) = render_rows(tokenizer, run, select(run, 0, 2))
    expected = "".join(f"{run.agent_steps[i].message}<|im_end|>" for i in (0, 2))
    assert supervised_text(row, tokenizer) == expected
    assert [span.step_id for span in row.spans] == [4, 6]


def test_every_token_has_a_label_where_the_agent_says_nothing():
    tokenizer = tiny_tokenizer()
    silent = tuple(Step(n, "agent", "", observation=Observation.of("Go.")) for n in range(2, 6))
    run = Trajectory.create((Step(1, "user", "Begin."), *silent))
    (row,) = render_rows(tokenizer, run, select(run, 0, 1, 2, 3))
    assert len(row.labels) == len(row.input_ids)
    assert supervised_text(row, tokenizer) == "<|im_end|>" * 4


def test_the_tail_after_the_last_supervised_token_is_cut():
    tokenizer, run = tiny_tokenizer(), craft_run(steps=4)
    (early,) = render_rows(tokenizer, run, select(run, 0))
    (late,) = render_rows(tokenizer, run, select(run, 3))
    assert early.labels[-1] == tokenizer.eos_token_id
    assert len(early.input_ids) < len(late.input_ids) < late.full_length == early.full_length
    assert late.input_ids[: len(early.input_ids)] == early.input_ids


def test_the_tail_can_be_kept():
    run = craft_run(steps=4)
    chosen = Selection(run.trajectory_id, (5,), "test")
    (cut,), (whole,) = (
        render_rows(tiny_tokenizer(), run, chosen, tail_cut=tail_cut) for tail_cut in (True, False)
    )
    assert len(whole.input_ids) == whole.full_length == cut.full_length > len(cut.input_ids)
    assert whole.input_ids[: len(cut.input_ids)] == cut.input_ids
    assert whole.spans == cut.spans


def test_tokens_count_by_the_weight_of_their_step():
    run = craft_run(steps=4)
    first, second = (step.step_id for step in run.agent_steps[:2])
    chosen = Selection(run.trajectory_id, (second, first), "test", (0.25, 3.0))
    (row,) = render_rows(tiny_tokenizer(), run, chosen)
    assert [(span.step_id, span.weight) for span in row.spans] == [(first, 3.0), (second, 0.25)]
    lengths = [span.end - span.start for span in row.spans]
    assert row.weight == 3.0 * lengths[0] + 0.25 * lengths[1]


def test_an_empty_selection_is_an_error_with_the_id():
    run = craft_run()
    with pytest.raises(MaskError, match=run.trajectory_id):
        render_rows(tiny_tokenizer(), run, select(run))


def test_a_selection_of_a_copied_step_is_an_error():
    run = craft_run()
    with pytest.raises(MaskError, match=r"not one of the agent's own; selected \[2, 4\]"):
        render_rows(tiny_tokenizer(), run, Selection(run.trajectory_id, (4, 2), "test"))


def test_a_step_that_is_selected_twice_is_masked_once():
    tokenizer, run = tiny_tokenizer(), craft_run()
    (row,) = render_rows(tokenizer, run, select(run, 1, 1))
    assert [span.step_id for span in row.spans] == [5]


def test_a_template_that_forgets_gives_one_row_per_step_with_its_true_prompt():
    tokenizer, run = tiny_tokenizer(FORGETFUL), craft_run(steps=3)
    rows = render_rows(tokenizer, run, select(run, 1, 2))
    assert [[span.step_id for span in row.spans] for row in rows] == [[5], [6]]
    for row, step in zip(rows, run.agent_steps[1:], strict=True):
        assert supervised_text(row, tokenizer) == f"{step.message}<|im_end|>"
        prompt = tokenizer.decode(list(row.input_ids[: row.spans[0].start]))
        assert run.agent_steps[0].message not in prompt


def test_a_template_without_an_end_of_turn_is_refused():
    plain = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}"
    plain += "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    run = craft_run()
    with pytest.raises(MaskError, match="would never stop"):
        render_rows(tiny_tokenizer(plain), run, select(run, 0))


def test_an_end_of_turn_that_is_no_special_token_is_refused():
    # What ends the prompt is special here, and ends nothing.
    begun = "{% for m in messages %}{{ m.role + '<|im_start|>' + m.content + '</turn>' }}"
    begun += "{% endfor %}{% if add_generation_prompt %}assistant<|im_start|>{% endif %}"
    tokenizer, run = copy.deepcopy(tiny_tokenizer(begun)), craft_run()
    tokenizer.add_tokens(["</turn>"])
    with pytest.raises(MaskError, match="would never stop"):
        render_rows(tokenizer, run, select(run, 0))


def test_a_template_that_writes_on_behind_the_end_of_a_turn_is_refused():
    tokenizer = tiny_tokenizer(CHATML.replace("<|im_end|>\\n", "<|im_end|>#"))
    run = craft_run()
    with pytest.raises(MaskError, match="cannot be masked exactly"):
        render_rows(tokenizer, run, select(run, 0))


def test_a_tokenizer_that_changes_the_text_is_refused():
    tokenizer, run = copy.deepcopy(tiny_tokenizer()), craft_run()
    tokenizer.backend_tokenizer.normalizer = Lowercase()
    with pytest.raises(MaskError, match="cannot be masked exactly"):
        render_rows(tokenizer, run, select(run, 0))


def test_a_template_that_refuses_the_messages_is_one_sentence():
    run = craft_run()
    with pytest.raises(AtlasError, match="refuses these messages"):
        render_rows(tiny_tokenizer("{{ raise_exception('no') }}"), run, select(run, 0))


def test_a_tokenizer_that_strips_spaces_when_it_decodes_is_masked_exactly():
    tokenizer, run = sentencepiece_like_tokenizer(), craft_run(steps=3)
    (row,) = render_rows(tokenizer, run, select(run, 0, 2))
    whole = tokenizer.decode(row.input_ids)
    assert whole.count("</s>") == 4  # the prefill and three steps
    for span, step in zip(row.spans, (run.agent_steps[0], run.agent_steps[2]), strict=True):
        assert tokenizer.decode(row.input_ids[span.start : span.end]).strip() == (
            f"{step.message}</s>"
        )
        assert tokenizer.decode(row.input_ids[: span.start]).endswith("[/INST]")


def test_a_tokenizer_that_tidies_spaces_when_it_decodes_is_masked_exactly():
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.clean_up_tokenization_spaces = True
    tokenizer.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output = True
    run = Trajectory.create((Step(1, "user", "Begin ."), Step(2, "agent", "I do n't .")))
    (row,) = render_rows(tokenizer, run, select(run, 0))
    assert supervised_text(row, tokenizer) != "I do n't .<|im_end|>"
    assert supervised_text(row, tiny_tokenizer()) == "I do n't .<|im_end|>"


def test_a_token_never_spans_the_start_of_a_turn():
    # "get iron" would be merged over the cut; an acting model starts a fresh token there.
    tokenizer = tiny_tokenizer()
    text = "Thought:Action"
    ids, starts = tokenise(tokenizer, text, [4])
    assert 4 in starts
    assert tokenizer.decode(ids) == text
    assert tokenise(tokenizer, text, [9, 4]) == tokenise(tokenizer, text, [4, 9])


def test_a_text_that_no_token_spans_is_not_cut_into_pieces():
    # In a piece of its own "get" would be given a leading space, which the text has not.
    tokenizer = sentencepiece_like_tokenizer()
    whole, head, tail = (tokenizer(t)["input_ids"] for t in ("[/INST]get", "[/INST]", "get"))
    assert tokenise(tokenizer, "[/INST]get", [7])[0] == whole != head + tail


def test_a_tokenizer_that_adds_a_token_to_each_text_adds_none_here():
    plain = tiny_tokenizer()
    adding = copy.deepcopy(plain)
    start = ("<|endoftext|>", plain.pad_token_id)
    adding.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{start[0]} $A", special_tokens=[start]
    )
    assert adding("x")["input_ids"] == [plain.pad_token_id, *plain("x")["input_ids"]]
    for cuts in ([], [4]):
        assert tokenise(adding, "Thought:Action", cuts) == tokenise(plain, "Thought:Action", cuts)


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5), st.data())
@pytest.mark.parametrize("template", [CHATML, FORGETFUL, TRIMMING])
def test_any_text_is_masked_exactly(template, turns, data):
    steps = [Step(1, "user", "Begin.")]
    for action, answer in turns:
        steps.append(Step(len(steps) + 1, "agent", action, observation=Observation.of(answer)))
    run = Trajectory.create(tuple(steps))
    places = data.draw(st.sets(st.integers(0, len(turns) - 1), min_size=1))
    tokenizer = tiny_tokenizer(template)
    rows = render_rows(tokenizer, run, select(run, *sorted(places)))
    texts = [turns[i][0] for i in sorted(places)]
    if template == TRIMMING:
        texts = [text.strip() for text in texts]
    found = "".join(supervised_text(row, tokenizer) for row in rows)
    assert found == "".join(f"{text}<|im_end|>" for text in texts)
    for row in rows:
        assert row.input_ids[-1] == tokenizer.eos_token_id
