"""Where a policy's own actions differ from the expert's, counted by hand."""

import math
import random

import pytest
from trap_door import Walkers, draw, guided

from atlas_tune.agents.streams import hashed
from atlas_tune.select import Context, make_selector
from atlas_tune.select.base import CannotLabel
from atlas_tune.select.rollouts.disagreement import (
    DisagreementOptions,
    DisagreementSelector,
    entropy,
    normalised,
)
from atlas_tune.trajectory import Kind, Step, ToolCall, Trajectory
from tiny_model import tiny_llama, tiny_tokenizer

RUN = guided()


class Doubter:
    """Goes on as told; at the fork one of several answers, by its random number."""

    ANSWERS = ("Action: LEFT.", "Action:  forward", "I am lost.", "Action: left")

    def __init__(self, seed, left, asked):
        self.seed, self.asked = seed, asked

    def replies(self, conversations):
        self.asked.append(len(conversations))
        found = {}
        for key, said in conversations.items():
            at_fork = said[-1]["content"] == "A fork."
            number = int(draw(self.seed, key, said) * len(self.ANSWERS))
            found[key] = self.ANSWERS[number] if at_fork else "Thought: on\nAction: Forward."
        return found


def disagreement(policies, **options):
    return DisagreementSelector(DisagreementOptions(**options), policies)


def labels_of(selector, run=RUN):
    return {label.step_id: label for label in selector.label(run)}


def test_a_step_that_the_policy_takes_too_scores_nothing():
    # The walker goes forward always: twice as the guide does; not at the fork, and it never looks.
    labels = labels_of(disagreement(Walkers(0.0), measure="differs"))
    assert {i: label.score for i, label in labels.items()} == {4: 0.0, 5: 1.0, 6: 1.0, 7: 0.0}
    kinds = [label.kind for label in labels.values()]
    assert kinds == [Kind.NONE, None, None, Kind.NONE]
    assert labels[5].reason == "the policy would 'forward'"
    assert labels[4].reason == "the policy takes the same action"


def test_the_entropy_is_that_of_the_sampled_actions():
    policies = Walkers(0.0, Doubter)
    labels = labels_of(disagreement(policies, measure="entropy", samples=8, seed=5))
    # By hand: two of the four answers at the fork are one action, in other words.
    actions = []
    for i in range(8):
        stream = f"{RUN.trajectory_id}:{i}"
        number = int(random.Random(hashed(5, stream, 2)).random() * 4)
        actions.append(("left", "forward", None, "left")[number])
    shares = [actions.count(action) / 8 for action in set(actions)]
    assert len(shares) == 3
    nats = -sum(share * math.log(share) for share in shares)
    assert labels[5].score == pytest.approx(nats, abs=1e-6)
    assert labels[5].reason == (
        f"entropy {nats:.2f} nats over 8 samples, {actions.count('left')} the expert's, "
        f"{actions.count(None)} without an action"
    )
    # Everywhere else all eight are one action; by this measure it may be another than the guide's.
    assert [labels[i].score for i in (4, 6, 7)] == [0.0, 0.0, 0.0]
    assert labels[6].reason == "entropy 0.00 nats over 8 samples, 0 the expert's"
    assert policies.asked == [32]


def test_both_is_their_sum_with_the_entropy_brought_to_one():
    labels = labels_of(disagreement(Walkers(0.0, Doubter), samples=8, seed=5))
    entropies = labels_of(disagreement(Walkers(0.0, Doubter), measure="entropy", samples=8, seed=5))
    differs = labels_of(disagreement(Walkers(0.0, Doubter), measure="differs", seed=5))
    for step_id, label in labels.items():
        expected = differs[step_id].score + entropies[step_id].score / math.log(8)
        assert label.score == pytest.approx(expected, abs=1e-5)
    assert labels[6].score == 1.0
    assert labels[6].reason.startswith("the policy would 'Forward.'; entropy 0.00 nats")


def test_a_reply_without_an_action_differs():
    class Mute(Doubter):
        ANSWERS = ("I am lost.",)

    labels = labels_of(disagreement(Walkers(0.0, Mute), measure="differs"))
    assert labels[5].score == 1.0
    assert labels[5].reason == "the policy writes no readable action"


def test_the_entropy_of_actions():
    assert entropy(["a"] * 4) == 0.0
    assert entropy([None] * 4) == 0.0
    assert entropy(["a", "b", "c", None]) == pytest.approx(math.log(4))
    assert entropy(["a", "a", "a", "b"]) == pytest.approx(0.5623, abs=1e-4)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Get 1 Stick", "get 1 stick"),
        ("  go   to red\tball ", "go to red ball"),
        ("look.", "look"),
    ],
)
def test_actions_are_compared_without_case_spaces_and_full_stop(one, other):
    assert normalised(one) == normalised(other)
    assert normalised("get 1 stick") != normalised("get 2 stick")
    assert normalised("craft 1.5") == "craft 1.5"


def test_steps_without_an_action_are_no_candidates_and_are_not_asked():
    steps = list(RUN.steps)
    steps[5] = Step(6, "agent", "I wonder.", observation=steps[5].observation)
    run = Trajectory.create(tuple(steps))
    policies = Walkers(0.0, Doubter)
    labels = labels_of(disagreement(policies, measure="differs"), run)
    assert labels[6].kind is Kind.NONE
    assert labels[6].reason == "no action could be read in this step"
    assert policies.asked == [3]


def test_tool_calls_and_runs_without_an_opening_cannot_be_compared():
    call = Step(2, "agent", "", tool_calls=(ToolCall("c", "go", {}),))
    for steps, words in (
        ((Step(1, "user", "go"), call), "step 2 acts through tool calls"),
        ((Step(1, "agent", "Action: go"),), "begins with a step of the agent"),
    ):
        run = Trajectory.create(steps)
        with pytest.raises(CannotLabel, match=words):
            disagreement(Walkers(0.0)).label(run)
        assert disagreement(Walkers(0.0)).cost([run]).written_tokens == 0


def test_what_is_asked_is_what_the_measure_needs():
    for measure, batches, replies in (
        ("differs", [4], 1),
        ("entropy", [12], 3),
        ("both", [4, 12], 4),
    ):
        policies = Walkers(0.0, Doubter)
        selector = disagreement(policies, measure=measure, samples=3, max_new_tokens=7)
        selector.label(RUN)
        assert policies.asked == batches
        assert selector.cost([RUN, RUN]).written_tokens == 2 * 4 * replies * 7


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    place = tmp_path_factory.mktemp("tiny")
    model = tiny_llama()
    tiny_tokenizer().save_pretrained(place)
    model.save_pretrained(place)
    return str(place)


def test_a_real_model_gives_the_same_labels_in_batches_of_any_size(tiny):
    options = {"samples": 3, "max_new_tokens": 6}
    context = Context(model=tiny)
    labels = make_selector("disagreement", options, context).label(RUN)
    # Random weights write no action: all replies differ from the guide's, and are alike in that.
    assert [label.score for label in labels] == [1.0] * 4
    assert labels[0].reason == (
        "the policy writes no readable action; "
        "entropy 0.00 nats over 3 samples, 0 the expert's, 3 without an action"
    )
    small = make_selector("disagreement", {**options, "batch_size": 5}, context)
    assert small.label(RUN) == labels
    assert "@" in labels[0].source.model
