import math
import shutil

import pytest
import torch
from one_by_one import plain_log_probs, saved_llama

from atlas_tune.agents.local_model import load_model
from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.select import Context, make_selector, select
from atlas_tune.select.base import CannotLabel
from atlas_tune.select.likelihoods.surprisal import middleness
from atlas_tune.trajectory import Kind, Selection, Step, Trajectory
from atlas_tune.tune.loss import supervised_loss_sum
from atlas_tune.tune.render import render_rows
from tiny_model import tiny_tokenizer
from trajectory.runs import craft_run


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return saved_llama(tmp_path_factory.mktemp("models") / "base")


def surprisal(model, **options):
    return make_selector("surprisal", options, Context(model=model))


def scores(selector, run):
    return [label.score for label in selector.label(run)]


def mean(values):
    return sum(values) / len(values)


def test_the_score_is_the_mean_negative_log_likelihood(model):
    run = craft_run()
    expected = [-mean(step) for step in plain_log_probs(load_model(model), tiny_tokenizer(), run)]
    labels = surprisal(model).label(run)
    assert [label.step_id for label in labels] == [4, 5, 6, 7]
    assert [label.score for label in labels] == pytest.approx(expected, abs=1e-5)
    assert {label.kind for label in labels} == {None}
    tokens = len(tiny_tokenizer()(run.steps[3].message)["input_ids"]) + 1  # and the end of turn
    assert labels[0].reason == f"surprisal {expected[0]:.2f} nats per token over {tokens} tokens"
    assert scores(surprisal(model, variant="low"), run) == [-label.score for label in labels]


def test_the_score_is_the_loss_that_the_step_would_carry_in_training(model):
    run, tokenizer = craft_run(), tiny_tokenizer()
    found = scores(surprisal(model), run)
    for step, score in zip(run.agent_steps, found, strict=True):
        chosen = Selection(run.trajectory_id, (step.step_id,), "one")
        [row] = render_rows(tokenizer, run, chosen)
        ids, labels = torch.tensor([row.input_ids]), torch.tensor([row.labels])
        loss = supervised_loss_sum(load_model(model), ids, labels) / row.supervised
        assert score == pytest.approx(float(loss.detach()), abs=1e-5)


def test_action_tokens_alone_are_counted_where_they_are_asked_for(model):
    own = [*craft_run(steps=2).steps, Step(6, "agent", "I am done.")]
    run = Trajectory.create(tuple(own))
    first, second, third = surprisal(model, tokens="action").label(run)
    per_token = plain_log_probs(load_model(model), tiny_tokenizer(), run)
    for label, step, values in zip((first, second), run.agent_steps[:2], per_token, strict=False):
        head = tiny_tokenizer()(step.message.partition("get")[0])["input_ids"]
        action = values[len(head) : -1]  # without the end of turn
        assert label.score == pytest.approx(-mean(action), abs=1e-5)
        assert label.reason.endswith(f"over {len(action)} action tokens")
    assert (third.kind, third.score) == (Kind.NONE, None)
    assert third.reason == "no action could be read in this step"


def test_the_middle_of_a_runs_own_surprisals_scores_highest(model):
    run = craft_run(steps=5)
    high = scores(surprisal(model), run)
    labels = surprisal(model, variant="middle").label(run)
    # Ranks 1 to 5 lie at 0.1, 0.3, 0.5, 0.7 and 0.9 of the way.
    by_rank = {1: 0.2, 2: 0.6, 3: 1.0, 4: 0.6, 5: 0.2}
    for label, value in zip(labels, high, strict=True):
        rank = sorted(high).index(value) + 1
        assert label.score == by_rank[rank]
        assert label.reason.endswith(f"; rank {rank} of 5 in its run")
    assert [middleness(rank, 4) for rank in (1, 2, 3, 4)] == [0.25, 0.75, 0.75, 0.25]
    assert middleness(1, 1) == 1.0
    # Three that are alike share rank 2.
    assert middleness(2, 3) == 1.0


def test_labels_do_not_depend_on_the_order_of_trajectories(model):
    runs = [craft_run(3), craft_run(4, task_id="t2"), craft_run(2, task_id="t3")]
    one, other = surprisal(model), surprisal(model)
    there = {run.trajectory_id: one.label(run) for run in runs}
    back = {run.trajectory_id: other.label(run) for run in reversed(runs)}
    assert there == back


def test_the_source_holds_all_that_decides_the_labels(model, tmp_path):
    sources = [
        surprisal(model, **options).source
        for options in ({}, {"tokens": "action"}, {"variant": "low"}, {"precision": "bfloat16"})
    ]
    sources.append(surprisal(saved_llama(tmp_path / "base", seed=1)).source)
    assert len(set(sources)) == 5
    assert sources[0].model.startswith("base@")
    moved = shutil.copytree(model, tmp_path / "elsewhere" / "base")
    assert surprisal(str(moved)).source == sources[0]
    named = make_selector("surprisal", {"model": model}, Context(model="the run's own"))
    assert named.source == sources[0]


def test_bfloat16_is_near(model):
    run = craft_run()
    rough = scores(surprisal(model, precision="bfloat16"), run)
    assert rough == pytest.approx(scores(surprisal(model), run), abs=0.1)
    assert rough != scores(surprisal(model), run)


def test_the_cost_is_what_is_read(model):
    runs = [craft_run(3), craft_run(4, task_id="t2"), craft_run(5, task_id="t3")]
    selector = surprisal(model)
    cost = selector.cost(runs)
    read = []
    selector.scorer.model.get_input_embeddings().register_forward_pre_hook(
        lambda module, args: read.append(args[0].shape[1])
    )
    for run in runs:
        selector.label(run)
    assert cost.read_tokens == sum(read) > 0
    assert (cost.tuned_tokens, cost.rollouts, cost.env_steps) == (0, 0, 0)


def test_what_is_too_long_is_listed_and_costs_nothing(tmp_path):
    short = saved_llama(tmp_path, max_position_embeddings=150)
    runs = [craft_run(2), craft_run(9)]
    chosen = select(runs, surprisal(short))
    assert [found.trajectory_id for found in chosen.selections] == [runs[0].trajectory_id]
    [missing] = chosen.unlabelled
    assert "the model reads at most 150" in missing.reason
    assert surprisal(short).cost(runs) == surprisal(short).cost(runs[:1])


def test_without_a_model_or_a_chat_template_nothing_is_labelled(model, tmp_path):
    with pytest.raises(UsageError, match="'surprisal' asks a model: name it with --model"):
        make_selector("surprisal", {}, Context())
    bare = saved_llama(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    for work in (surprisal(bare).label, lambda run: surprisal(bare).cost([run])):
        with pytest.raises(AtlasError, match="has no chat template") as caught:
            work(craft_run())
        assert not isinstance(caught.value, CannotLabel)


def test_a_uniform_model_is_surprised_by_the_size_of_its_vocabulary(tmp_path):
    flat = load_model(saved_llama(tmp_path))
    with torch.no_grad():
        flat.lm_head.weight.zero_()
    flat.save_pretrained(tmp_path)
    assert scores(surprisal(str(tmp_path)), craft_run(2)) == pytest.approx(
        [math.log(len(tiny_tokenizer()))] * 2, abs=1e-6
    )
