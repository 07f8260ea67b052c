from dataclasses import replace

import pytest
from one_by_one import FORGETFUL, plain_log_probs, saved_llama

from atlas_tune.agents.local_model import load_model, load_tokenizer
from atlas_tune.select import Context, make_selector, select
from atlas_tune.select.base import CannotLabel
from atlas_tune.select.likelihoods.hindsight import ending
from atlas_tune.trajectory import Kind, Observation, Outcome, Step, Trajectory
from trajectory.runs import craft_run


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return saved_llama(tmp_path_factory.mktemp("models") / "base")


def hindsight(model, **options):
    return make_selector("hindsight", options, Context(model=model))


def run_of(*steps, outcome=None):
    return Trajectory.create(steps, environment="textcraft", outcome=outcome)


def unanswered(steps=3, outcome=None):
    """A run as AgentTraj-L has them: nothing answers the last step, no outcome is recorded."""
    *before, last = craft_run(steps).steps
    return run_of(*before, replace(last, observation=None), outcome=outcome)


@pytest.mark.parametrize("template", [None, FORGETFUL])
def test_the_score_is_the_gain_in_log_likelihood_per_token(model, tmp_path, template):
    if template is not None:
        model = saved_llama(tmp_path, template)
    run = craft_run(3)
    first = replace(
        run.steps[0],
        message="Craft things. In the end the task is solved, with reward 1. "
        "The last answer of the environment is: Got 2 stick",
    )
    told = replace(run, steps=(first, *run.steps[1:]))
    base, tokenizer = load_model(model), load_tokenizer(model)
    blind, knowing = (plain_log_probs(base, tokenizer, one) for one in (run, told))
    expected = [
        sum(after) / len(after) - sum(before) / len(before)
        for before, after in zip(blind, knowing, strict=True)
    ]
    labels = hindsight(model).label(run)
    assert [label.score for label in labels] == pytest.approx(expected, abs=2e-5)
    assert max(abs(value) for value in expected) > 1e-3
    assert {label.kind for label in labels} == {None}
    for label, value, step in zip(labels, expected, blind, strict=True):
        word = "likelier" if value >= 0 else "less likely"
        assert label.reason == (
            f"{abs(value):.3f} nats per token {word} with the end told, over {len(step)} tokens"
        )


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Outcome(1.0, True), "In the end the task is solved, with reward 1."),
        (Outcome(None, False), "In the end the task is not solved."),
        (Outcome(0.25, None), "In the end the reward is 0.25."),
    ],
)
def test_what_is_told_is_what_is_recorded(outcome, words):
    run = unanswered(outcome=outcome)
    last = "The last answer of the environment is: Got 1 stick"
    assert ending(run, "verdict") == words
    assert ending(run, "known") == f"{words} {last}"
    assert ending(run, "final_observation") == last


def test_a_run_without_an_outcome_is_told_its_last_observation(model):
    run = unanswered()
    assert ending(run, "known") == "The last answer of the environment is: Got 1 stick"
    assert [label.kind for label in hindsight(model).label(run)] == [None] * 3
    with pytest.raises(CannotLabel, match=r"records no outcome \(set outcome to known"):
        hindsight(model, outcome="verdict").label(run)


def test_a_run_that_tells_nothing_of_its_end_is_listed(model):
    bare = run_of(Step(1, "user", "Craft."), Step(2, "agent", "Action: look"))
    blank = run_of(
        Step(1, "user", "Craft."),
        Step(2, "agent", "Action: look", observation=Observation.of(" \n")),
    )
    alone = run_of(
        Step(1, "agent", "OK.", is_copied_context=True),
        Step(2, "agent", "Action: look", observation=Observation.of("A room.")),
    )
    chosen = select([bare, blank, alone, craft_run()], hindsight(model))
    assert len(chosen.selections) == 1
    assert [missing.reason.split(",")[0] for missing in chosen.unlabelled] == [
        "it records neither an outcome nor an observation",
        "it records neither an outcome nor an observation",
        "no message stands before its first step",
    ]


def test_a_step_without_an_action_is_no_candidate_where_actions_are_asked_for(model):
    run = run_of(*craft_run(2).steps, Step(6, "agent", "I am done."))
    labels = hindsight(model, tokens="action").label(run)
    assert [label.kind for label in labels] == [None, None, Kind.NONE]
    assert "action tokens" in labels[0].reason


def test_labels_do_not_depend_on_the_order_of_trajectories(model):
    runs = [craft_run(3), craft_run(4, task_id="t2"), unanswered()]
    one, other = hindsight(model), hindsight(model)
    there = {run.trajectory_id: one.label(run) for run in runs}
    assert there == {run.trajectory_id: other.label(run) for run in reversed(runs)}


def test_the_cost_is_two_readings_with_what_they_share_read_once(model):
    runs = [craft_run(3), craft_run(4, task_id="t2"), run_of(Step(1, "agent", "Action: look"))]
    runs.append(unanswered(1))
    selector = hindsight(model)
    cost = selector.cost(runs)
    read = []
    selector.scorer.model.get_input_embeddings().register_forward_pre_hook(
        lambda module, args: read.append(args[0].shape[1])
    )
    select(runs, selector)
    assert cost.read_tokens == sum(read) > 0


def test_the_source_holds_what_is_told(model):
    sources = {hindsight(model, outcome=o).source for o in ("known", "verdict")}
    assert len(sources) == 2
