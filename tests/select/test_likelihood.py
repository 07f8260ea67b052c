import copy

import pytest
import torch
from one_by_one import FORGETFUL, plain_log_probs
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from atlas_tune.errors import AtlasError
from atlas_tune.select.base import CannotLabel
from atlas_tune.select.likelihoods.likelihood import StepScorer
from atlas_tune.select.likelihoods.passages import passages_of, tell, tokens_read
from atlas_tune.trajectory import Observation, Step, Trajectory
from tiny_model import CHATML, sentencepiece_like_tokenizer, tiny_llama, tiny_tokenizer
from trajectory.runs import craft_run
from tune.tool_runs import chat_tokenizer, template, tool_run

RULES = "You can get, craft and look at the inventory. " * 8


def long_run(steps=5, goal="stick"):
    """A run with a long instruction, as those of one environment share it."""
    short = craft_run(steps=steps, task_id=goal)
    opening = (
        Step(1, "user", RULES),
        short.steps[1],
        Step(3, "user", f"Goal: craft {goal}."),
    )
    return Trajectory.create(opening + short.steps[3:], environment="textcraft", task_id=goal)


def values(found):
    return [list(step.log_probs) for step in found]


def numbers(found):
    return [value for step in found for value in step]


def watched(model):
    """The lengths of all pieces that a model reads from now on."""
    read = []
    model.get_input_embeddings().register_forward_pre_hook(
        lambda module, args: read.append(args[0].shape[1])
    )
    return read


@pytest.mark.parametrize("template_text", [CHATML, FORGETFUL])
@pytest.mark.parametrize(
    ("chunk", "dtype", "off"),
    [(7, torch.float64, 1e-11), (512, torch.float64, 1e-11), (64, torch.float32, 1e-5)],
)
def test_all_steps_at_once_equal_a_plain_pass_for_every_step(template_text, chunk, dtype, off):
    model, tokenizer = tiny_llama().to(dtype), tiny_tokenizer(template_text)
    scorer = StepScorer(model, tokenizer, chunk)
    # One after the other, so that later ones find the cache full.
    for run in (long_run(3), long_run(3, goal="torch"), craft_run(2)):
        found = scorer.likelihoods(run)
        expected = plain_log_probs(model, tokenizer, run)
        assert [step.step_id for step in found] == [step.step_id for step in run.agent_steps]
        assert [len(step.log_probs) for step in found] == list(map(len, expected))
        assert numbers(values(found)) == pytest.approx(numbers(expected), abs=off)


def test_what_is_told_stands_in_the_first_message_and_changes_nothing_else():
    model, tokenizer = tiny_llama().double(), tiny_tokenizer()
    scorer = StepScorer(model, tokenizer, chunk_tokens=40)
    run = long_run()
    scorer.likelihoods(run)
    found = scorer.likelihoods(run, "In the end it fails.")
    told = tell(run, "In the end it fails.")
    assert told.steps[0].message == RULES.rstrip() + " In the end it fails."
    assert told.steps[1:] == run.steps[1:]
    assert numbers(values(found)) == pytest.approx(
        numbers(plain_log_probs(model, tokenizer, told)), abs=1e-11
    )


def test_the_system_is_told_where_the_user_says_nothing_and_nobody_where_none_opens():
    act = Step(2, "agent", "Action: look", observation=Observation.of("A room."))
    lone = Trajectory.create((Step(1, "system", "Rules."), act, Step(3, "user", "Go on.")))
    assert tell(lone, "It ends.").steps[0].message == "Rules. It ends."
    with pytest.raises(CannotLabel, match="no message stands before its first step"):
        tell(Trajectory.create((Step(1, "agent", "Action: look"),)), "It ends.")


def test_a_shared_beginning_is_read_once_and_changes_not_a_bit():
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    runs = [long_run(), long_run(goal="torch"), long_run(steps=2, goal="torch")]
    alone = [values(StepScorer(model, tokenizer, 64).likelihoods(run)) for run in runs]
    for order in ((0, 1, 2), (2, 0, 1)):
        scorer = StepScorer(model, tokenizer, 64)
        assert [values(scorer.likelihoods(runs[i])) for i in order] == [alone[i] for i in order]
    read = watched(model)
    scorer = StepScorer(model, tokenizer, 64)
    scorer.likelihoods(runs[0])
    first = sum(read)
    scorer.likelihoods(runs[1])
    opening = tokenizer("<|im_start|>user\n" + RULES.strip(), add_special_tokens=False)
    (passage,) = passages_of(tokenizer, runs[1])
    assert first == len(passages_of(tokenizer, runs[0])[0].ids) - 1
    # All of the instruction, though it is no multiple of the chunk.
    assert sum(read) - first == passage.length - len(opening["input_ids"])
    assert max(read) == 64


@pytest.mark.parametrize("template_text", [CHATML, FORGETFUL])
def test_tokens_read_are_counted_without_the_model(template_text):
    model, tokenizer = tiny_llama(), tiny_tokenizer(template_text)
    scorer, runs = StepScorer(model, tokenizer, 64), [long_run(), craft_run(), craft_run(6)]
    read = watched(model)
    for run in runs:
        scorer.likelihoods(run)
        scorer.likelihoods(run, "In the end all is well.")
    planned = [
        passage
        for run in runs
        for told in ("", "In the end all is well.")
        for passage in passages_of(tokenizer, run, told, 64)
    ]
    assert sum(read) == tokens_read(planned) < sum(passage.length for passage in planned)


def test_after_an_error_in_the_middle_the_next_trajectory_is_read_from_its_start():
    model, tokenizer = tiny_llama().double(), tiny_tokenizer()
    scorer = StepScorer(model, tokenizer, 32)
    scorer.likelihoods(long_run())

    def fail(module, args, kwargs):
        if kwargs["past_key_values"].get_seq_length() > 64:
            raise MemoryError

    hook = model.register_forward_pre_hook(fail, with_kwargs=True)
    with pytest.raises(MemoryError):
        scorer.likelihoods(long_run(goal="torch"))
    hook.remove()
    expected = plain_log_probs(model, tokenizer, long_run())
    assert numbers(values(scorer.likelihoods(long_run()))) == pytest.approx(
        numbers(expected), abs=1e-11
    )


def test_only_rows_that_predict_a_step_reach_the_head():
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    rows = []
    model.lm_head.register_forward_hook(lambda module, args, out: rows.append(out.shape[-2]))
    found = StepScorer(model, tokenizer, 64).likelihoods(long_run())
    assert sum(rows) == sum(len(step.log_probs) for step in found)


def windowed():
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 12}
    config = MistralConfig(vocab_size=len(tiny_tokenizer()), **sizes, **heads)
    return MistralForCausalLM(config)


def gpt2():
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 1024}
    return GPT2LMHeadModel(GPT2Config(vocab_size=len(tiny_tokenizer()), **sizes))


def mamba():
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
    return MambaForCausalLM(MambaConfig(vocab_size=len(tiny_tokenizer()), **sizes))


def stretched(kind):
    """Rotary angles that depend on how long the sequence is."""
    rope = {"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0}
    if kind == "longrope":
        rope |= {"short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
        rope |= {"original_max_position_embeddings": 64}
        return tiny_llama(rope_parameters=rope)
    return tiny_llama(rope_parameters=rope, max_position_embeddings=100)


@pytest.mark.parametrize(
    "make",
    [windowed, gpt2, mamba, lambda: stretched("longrope"), lambda: stretched("dynamic")],
    ids=["window", "gpt2", "mamba", "longrope", "dynamic"],
)
def test_other_architectures_give_what_a_plain_pass_gives(make):
    torch.manual_seed(0)
    model, tokenizer = make().double().eval(), tiny_tokenizer()
    scorer = StepScorer(model, tokenizer, 16)
    scorer._limit = None  # a stretched model reads more than its configuration names
    for run in (craft_run(2), craft_run(1)):
        # The last step alone: the plain pass of an earlier one is shorter, and so are its angles.
        *_, expected = plain_log_probs(model, tokenizer, run)
        *_, found = values(scorer.likelihoods(run))
        # Mamba's logits are float32 whatever its weights are.
        assert found == pytest.approx(expected, abs=1e-6)


def test_a_trajectory_longer_than_the_model_reads_is_one_sentence():
    tokenizer, run = tiny_tokenizer(), craft_run()
    length = passages_of(tokenizer, run)[0].length
    exact = StepScorer(tiny_llama(max_position_embeddings=length), tokenizer)
    assert len(exact.likelihoods(run)) == 4
    short = StepScorer(tiny_llama(max_position_embeddings=length - 1), tokenizer)
    with pytest.raises(CannotLabel, match=f"has {length} tokens.*reads at most {length - 1}"):
        short.likelihoods(run)


def test_a_tokenizer_without_a_chat_template_stops_everything():
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = None
    with pytest.raises(AtlasError, match="use an instruct model") as caught:
        StepScorer(tiny_llama(), tokenizer).likelihoods(craft_run())
    assert not isinstance(caught.value, CannotLabel)


def test_a_template_that_refuses_one_trajectory_spares_the_others():
    tokenizer = tiny_tokenizer(
        "{% if messages[0]['content'] == 'Craft things.' %}{{ raise_exception('no') }}{% endif %}"
        + CHATML
    )
    scorer = StepScorer(tiny_llama(), tokenizer)
    with pytest.raises(CannotLabel, match="refuses these messages"):
        scorer.likelihoods(craft_run())
    assert len(scorer.likelihoods(long_run())) == 5


def test_a_step_that_nothing_precedes_has_no_likelihood():
    bare = "{% for m in messages if m['role'] == 'assistant' %}{{ m['content'] + '<|im_end|>' }}"
    bare += "{% endfor %}"
    run = Trajectory.create((Step(1, "user", "Go."), Step(2, "agent", "Action: look")))
    with pytest.raises(CannotLabel, match="step 2 is the first thing"):
        StepScorer(tiny_llama(), tiny_tokenizer(bare)).likelihoods(run)


def test_likelihoods_that_are_no_numbers_stop_everything():
    model = tiny_llama()
    with torch.no_grad():
        model.lm_head.weight[7] = float("nan")
    with pytest.raises(AtlasError, match="not numbers: set precision"):
        StepScorer(model, tiny_tokenizer()).likelihoods(craft_run())


def actions(tokenizer, run):
    """The decoded action tokens of every step."""
    return [
        tokenizer.decode(
            [passage.ids[step.start + i] for i, acts in enumerate(step.is_action) if acts],
            clean_up_tokenization_spaces=False,
        )
        for passage in passages_of(tokenizer, run)
        for step in passage.steps
    ]


@pytest.mark.parametrize(
    ("message", "action"),
    [
        ("Thought:\nI need it.\n\nAction:\nget 1 stick", "get 1 stick"),
        ("Thought: get 1 stick Action: get 1 stick\nThen more.", "get 1 stick"),
        ("  Thought: spaces around.\nAction:\n\n get iron ", "get iron"),
        ("Action: 鍵を取る 🗝", "鍵を取る 🗝"),
        ("I do nothing.", ""),
        ("Action: one\nAction: two", ""),
    ],
)
def test_the_action_is_the_line_after_its_word(message, action):
    run = Trajectory.create((Step(1, "user", "get 1 stick"), Step(2, "agent", message)))
    [found] = actions(tiny_tokenizer(), run)
    # A token may hold the space before the action's first word.
    assert found.strip() == action
    assert len(found) <= len(action) + 1


def test_the_action_is_found_where_the_tokenizer_writes_spaces_into_words():
    run = craft_run(steps=2)
    found = [text.strip() for text in actions(sentencepiece_like_tokenizer(), run)]
    assert found == ["get 0 stick", "get 1 stick"]


def test_tool_calls_are_actions_and_the_end_of_a_turn_is_none():
    tokenizer = chat_tokenizer(template("qwen2.5"))
    run = tool_run()
    first, second, third, *_ = actions(tokenizer, run)
    assert first.strip().startswith('<tool_call>\n{"name": "get_weather"')
    assert first.endswith("</tool_call>")
    assert "I look at the weather" not in first
    assert second.count("<tool_call>") == 2
    assert third == ""
