import importlib.util
import math

import numpy as np
import pytest

from atlas_tune.errors import UsageError
from atlas_tune.select import Context, make_selector, select
from atlas_tune.select.diverse import (
    DiverseOptions,
    DiverseSelector,
    Rarity,
    goal_of,
    greedy_order,
    text_of,
    tf_idf,
)
from atlas_tune.trajectory import Observation, Step, ToolCall, Trajectory

HAS_ENCODERS = importlib.util.find_spec("sentence_transformers") is not None


def run_of(goal, *turns, task="1"):
    steps = [Step(1, "user", goal)]
    steps += [
        Step(i + 2, "agent", said, observation=Observation.of(seen))
        for i, (said, seen) in enumerate(turns)
    ]
    return Trajectory.create(tuple(steps), task_id=task)


def scores(selector, trajectory):
    return {label.step_id: label.score for label in selector.label(trajectory)}


def test_rarity_is_the_smoothed_inverse_document_frequency():
    rarity = Rarity.of(["get iron", "get iron iron", "craft"])
    assert rarity("get") == pytest.approx(math.log(4 / 3) + 1)
    assert rarity("craft") == pytest.approx(math.log(4 / 2) + 1)
    assert rarity("unheard") == 0.0


def test_vectors_are_counts_times_rarity_of_length_one():
    steps, goal = tf_idf(["b a a", "c"], "A, unheard!", Rarity.of(["b a a", "c"]))
    # Words in order: a b c unheard. All of a, b, c are in one text of two: equal rarities.
    assert steps[0] == pytest.approx(np.array([2, 1, 0, 0]) / math.sqrt(5))
    assert steps[1] == pytest.approx([0, 0, 1, 0])
    assert goal == pytest.approx([1, 0, 0, 0])


def test_a_text_without_a_word_is_near_nothing():
    steps, goal = tf_idf(["!?", "a"], "", Rarity.of(["!?", "a"]))
    assert steps[0].tolist() == [0.0] and goal.tolist() == [0.0]


def test_each_step_of_the_greedy_order_adds_most_to_relevance_and_distances():
    relevance = [1.0, 0.8, 0.0, 0.3]
    distance = [[0, 0.1, 0.9, 0.5], [0.1, 0, 0.9, 0.5], [0.9, 0.9, 0, 0.2], [0.5, 0.5, 0.2, 0]]
    # λ = 1. After 0: 0.8+0.1, 0+0.9, 0.3+0.5 → 1 and 2 are equal, and the lots say 2.
    # After 2: 1 has 0.8+0.1+0.9 = 1.8, 3 has 0.3+0.5+0.2 = 1.0.
    assert greedy_order(relevance, distance, 1.0, "abAc") == [0, 2, 1, 3]
    assert greedy_order(relevance, distance, 1.0, "abcd") == [0, 1, 2, 3]
    # λ = 0 is relevance alone; a large λ takes what is farthest from what was taken.
    assert greedy_order(relevance, distance, 0.0, "abcd") == [0, 1, 3, 2]
    assert greedy_order(relevance, distance, 9.0, "abcd") == [0, 2, 1, 3]


def test_the_greedy_order_starts_with_the_most_relevant_step_whatever_the_trade_off():
    assert greedy_order([0.0, 1.0], [[0, 1], [1, 0]], 100.0, "ab")[0] == 1


def test_a_repeated_step_comes_last_and_a_step_about_the_goal_first():
    trajectory = run_of(
        "craft an iron helmet",
        ("look around", "a meadow with sheep"),
        ("look around", "a meadow with sheep"),
        ("craft iron helmet", "crafted iron helmet"),
    )
    found = scores(DiverseSelector(), trajectory)
    assert found[4] == 1.0
    assert sorted((found[2], found[3])) == [1 / 3, 2 / 3]
    [chosen] = select([trajectory], DiverseSelector(), 0.34).selections
    assert chosen.step_ids == (4,)


def test_reasons_have_the_relevance_and_the_distance():
    trajectory = run_of("a", ("a", ""), ("b", ""), ("b", ""))
    labels = {label.step_id: label for label in DiverseSelector().label(trajectory)}
    second, third = sorted((labels[3], labels[4]), key=lambda label: -label.score)
    assert labels[2].reason == "relevance 1.00 to the goal"
    assert second.reason == (
        "relevance 0.00 to the goal, mean distance 1.00 from the step chosen before it"
    )
    assert third.reason == (
        "relevance 0.00 to the goal, mean distance 0.50 from the 2 steps chosen before it"
    )


def test_equal_steps_are_ordered_by_lot_and_not_by_place():
    firsts = set()
    for task in range(20):
        found = scores(DiverseSelector(), run_of("a", *[("same", "")] * 3, task=str(task)))
        firsts.add(max(found, key=found.get))
    assert firsts == {2, 3, 4}


def test_words_are_rare_or_common_among_all_runs():
    # Here alone "get" and "flint" are as rare; among all runs "get" says nothing of the goal.
    trajectory = run_of("get flint", ("get get", ""), ("flint flint", ""), ("x", ""))
    others = [run_of("g", ("get wood", ""), task=str(n)) for n in range(20)]
    alone = DiverseSelector(DiverseOptions(trade_off=0))
    among = make_selector("diverse", {"trade_off": 0}, Context(trajectories=[trajectory, *others]))

    def relevance(selector):
        labels = selector.label(trajectory)
        return [float(label.reason.split()[1]) for label in labels]

    assert relevance(alone)[0] == relevance(alone)[1]
    assert relevance(among)[0] < 0.6 * relevance(among)[1]


def test_the_source_names_all_that_decides_the_labels():
    runs = [run_of("g", ("a", ""), task=str(n)) for n in range(2)]
    sources = {
        DiverseSelector().source,
        DiverseSelector(DiverseOptions(trade_off=2)).source,
        DiverseSelector(trajectories=runs).source,
        DiverseSelector(trajectories=runs[:1]).source,
    }
    assert len(sources) == 4
    assert (
        DiverseSelector(trajectories=runs).source == DiverseSelector(trajectories=runs[::-1]).source
    )


def test_labels_do_not_depend_on_the_order_of_runs():
    runs = [run_of("get b", ("a b", "c"), ("b c", "d"), ("x", "y"), task=str(n)) for n in range(5)]
    one = select(runs, DiverseSelector(trajectories=runs), 0.5).selections
    two = select(runs[::-1], DiverseSelector(trajectories=runs[::-1]), 0.5).selections
    assert one == two[::-1]


def test_the_goal_is_what_the_user_says_last_before_the_first_own_step():
    steps = (
        Step(1, "user", "You are in a game."),
        Step(2, "agent", "OK.", is_copied_context=True),
        Step(3, "user", "Goal: craft an observer."),
        Step(4, "agent", "look"),
        Step(5, "user", "Hurry up."),
    )
    assert goal_of(Trajectory.create(steps)) == "Goal: craft an observer."


def test_a_run_without_a_goal_is_left_out_with_the_reason():
    silent = Trajectory.create((Step(1, "user", "  "), Step(2, "agent", "look")))
    [missing] = select([silent], DiverseSelector()).unlabelled
    assert "nothing tells its goal" in missing.reason


def test_calls_reasoning_and_answers_are_part_of_a_step():
    step = Step(
        2,
        "agent",
        "said",
        reasoning_content="thought",
        tool_calls=(ToolCall("1", "search", {"query": "flights"}),),
        observation=Observation.of("seen"),
    )
    assert text_of(step).split() == ["thought", "said", "search", '{"query":', '"flights"}', "seen"]


@pytest.mark.skipif(HAS_ENCODERS, reason="sentence-transformers is installed")
def test_an_encoder_without_its_package_is_refused_with_the_remedy():
    with pytest.raises(UsageError, match="pip install sentence-transformers"):
        make_selector("diverse", {"encoder": "all-MiniLM-L6-v2"})


@pytest.mark.skipif(not HAS_ENCODERS, reason="sentence-transformers is not installed")
def test_an_encoder_compares_the_texts(tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    from tiny_model import tiny_llama, tiny_tokenizer

    tiny_llama().save_pretrained(tmp_path / "tiny")
    tiny_tokenizer().save_pretrained(tmp_path / "tiny")
    words = Transformer(str(tmp_path / "tiny"))
    pooled = Pooling(words.get_word_embedding_dimension())
    SentenceTransformer(modules=[words, pooled]).save(str(tmp_path / "encoder"))
    selector = make_selector("diverse", {"encoder": str(tmp_path / "encoder")})
    same = run_of("get iron", ("get", "iron"), ("go to", "ball"), ("go to", "ball"))
    labels = sorted(selector.label(same), key=lambda label: -label.score)
    assert [label.score for label in labels] == [1.0, 2 / 3, 1 / 3]
    # The two equal steps are at no distance from each other, so one of them is the last.
    assert labels[-1].step_id in (3, 4)
    with pytest.raises(UsageError, match="cannot be loaded"):
        make_selector("diverse", {"encoder": str(tmp_path / "none")}).label(same)
