"""Verdicts: which one, what decided it, and what it says."""

import numpy as np
import pytest

from atlas_tune.evaluate.statistics import crossed, exact_mcnemar, verdict, verdicts


def outcomes(wins, losses, ties):
    return np.array([1.0] * wins + [-1.0] * losses + [0.0] * ties)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        (outcomes(30, 5, 65), "better"),
        (outcomes(5, 30, 65), "worse"),
        (outcomes(2, 2, 396), "equivalent"),
        (outcomes(6, 5, 29), "cannot tell"),
        (np.tile(outcomes(30, 5, 65), (3, 1)), "better"),
        (np.zeros((3, 200)), "equivalent"),
        (np.zeros((1, 10)), "cannot tell"),
        (np.ones((3, 8)), "better"),
        (np.ones((3, 4)), "cannot tell"),  # four of four is 1/8 by signs, however many seeds
        (np.array([[0.5], [0.6], [0.5]]), "cannot tell"),  # one task, however sure of it
    ],
)
def test_the_four_verdicts(differences, expected):
    assert verdict(differences, delta=0.05, draws=200).verdict == expected


def test_one_seed_of_successes_is_decided_by_mcnemar():
    found = verdict(outcomes(9, 1, 10), delta=0.05)
    ours = {str(i): float(i < 9) for i in range(20)}
    theirs = {str(i): float(i == 9) for i in range(20)}
    assert found.p_value == pytest.approx(exact_mcnemar(ours, theirs).p_value)
    assert (found.test, found.wins, found.losses) == ("McNemar's exact test", 9, 1)
    assert "not for another training" in found.words


def test_a_few_tasks_that_all_go_one_way_are_no_proof_however_many_seeds():
    found = verdict(np.tile(outcomes(4, 0, 44), (3, 1)), delta=0.05)
    assert crossed(np.tile(outcomes(4, 0, 44), (3, 1))).p_value < 0.05
    assert (found.verdict, found.p_value) == ("cannot tell", 0.125)
    assert "sign flips of the tasks that differ" in found.words


def test_seeds_that_disagree_take_a_verdict_back():
    """Each row is established for itself; over trainings the method is not."""
    good, bad = outcomes(60, 10, 130), outcomes(10, 60, 130)
    assert verdict(good, 0.05).verdict == "better"
    found = verdict([good, good, bad], 0.05)
    assert (found.verdict, found.test) == ("cannot tell", "t test over seeds and tasks")
    assert "Not even 10,000 tasks x 100 seeds would find a difference of 5 points" in found.words
    wider = verdict([good, good, bad], 0.15)
    assert wider.needed is not None and wider.needed.seeds > 3
    assert f"x {wider.needed.seeds} seeds" in wider.words


def test_holm_makes_a_verdict_harder_with_more_environments():
    alone, empty = outcomes(9, 1, 90), outcomes(5, 5, 90)  # p = 22/1024 = 0.0215
    assert verdict(alone, 0.02).verdict == "better"
    both = verdicts({"one": alone, "two": empty, "three": empty}, 0.02)
    assert both["one"].adjusted_p_value == pytest.approx(3 * 22 / 1024)
    assert both["one"].verdict == "cannot tell"
    assert "p = 0.064" in both["one"].words


def test_an_environment_without_pairs_costs_the_others_nothing():
    found = verdicts({"one": outcomes(9, 1, 90), "none": [], "gaps": [[float("nan")]]}, 0.02)
    assert found["one"].adjusted_p_value == found["one"].p_value
    assert found["none"].words == found["gaps"].words
    assert (found["none"].tasks, found["none"].verdict) == (0, "cannot tell")


def test_a_small_established_difference_is_called_small():
    found = verdict(outcomes(30, 5, 4965), delta=0.05, draws=200)
    assert found.verdict == "better"
    assert "smaller than 5 points" in found.words


def test_words_of_an_undecided_comparison():
    # The variance is 0.2814, so (1.96 + 0.84)^2 0.2814 / 0.1^2 = 221, and 223 with t quantiles.
    assert verdict(outcomes(6, 5, 29), delta=0.1).words == (
        "Cannot tell (+2.5 points; 6 tasks better, 5 worse of 40; p = 1.000, McNemar's exact test)."
        " A difference of 10 points would need 223 tasks x 1 seed."
        " One seed: this holds for these trained models, not for another training."
    )


def test_words_of_degenerate_cases():
    assert "do not differ on any task" in verdict(np.zeros((2, 30)), 0.05).words
    assert "one way" in verdict(outcomes(4, 0, 30), 0.05).words
    one = verdict([[0.5], [0.6]], 0.05)
    assert "One task" in one.words and one.interval is None and one.detectable is None
    assert "2 seeds" in verdict([outcomes(3, 1, 30), outcomes(1, 3, 30)], 0.05).words


def test_false_alarms_over_trainings_are_as_rare_as_promised():
    generator = np.random.default_rng(9)
    alarms = 0
    for _ in range(200):
        seeds = generator.normal(0, 0.06, (3, 1))
        up = generator.random((3, 80)) < 0.15 + seeds / 2
        down = generator.random((3, 80)) < 0.15 - seeds / 2
        alarms += verdict(1.0 * up - 1.0 * down, 0.5, draws=10).verdict in ("better", "worse")
    assert alarms / 200 < 0.08


def test_what_is_no_share_is_refused():
    with pytest.raises(ValueError, match="divide rewards"):
        verdict([0.0, 3.0], 0.05)
    with pytest.raises(ValueError, match="Delta is a share"):
        verdict([0.0, 1.0], 5)
