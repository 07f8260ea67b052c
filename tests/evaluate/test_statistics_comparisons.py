"""Paired differences over seeds and tasks: bootstrap, crossed t, equivalence, power."""

from math import sqrt

import numpy as np
import pytest
from scipy.stats import norm, ttest_1samp

from atlas_tune.evaluate.statistics import (
    Needed,
    Spread,
    bootstrap_crossed,
    bootstrap_difference,
    clopper_pearson_interval,
    crossed,
    detectable_effect,
    exact_mcnemar,
    holm,
    needed,
    paired_differences,
    paired_power,
    score_interval,
    sign_flips,
    spread,
    tasks_needed,
    tost,
    tost_bootstrap,
    wilson_interval,
)
from atlas_tune.evaluate.statistics.paired import sign_p_value
from atlas_tune.evaluate.statistics.score import lower_score_limit, score_p_value

HAND = np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
"""Mean 1/2; seed means 2/3 and 1/3; task means 1/2, 0 and 1."""


def simulated(generator, seeds, tasks, of_seeds, of_tasks, of_cells, mean=0.0):
    return (
        mean
        + of_seeds * generator.standard_normal((seeds, 1))
        + of_tasks * generator.standard_normal((1, tasks))
        + of_cells * generator.standard_normal((seeds, tasks))
    )


def test_the_exact_interval_is_the_published_one():
    # Newcombe 1998, Statistics in Medicine 17, table I, method 5: 81 of 263 and 0 of 20.
    assert clopper_pearson_interval(81, 263) == pytest.approx((0.2527, 0.3676), abs=5e-5)
    assert clopper_pearson_interval(0, 20) == pytest.approx((0.0, 1 - 0.025 ** (1 / 20)))


@pytest.mark.parametrize(
    ("wins", "losses", "exact", "mid"),
    [
        (1, 7, 18 / 256, 10 / 256),  # Bentur's children in Fagerland et al. 2013: 0.070, 0.039
        (3, 3, 1.0, 1 - 20 / 128),
        (0, 0, 1.0, 1.0),
    ],
)
def test_mcnemar_exact_and_mid_p(wins, losses, exact, mid):
    ours = dict.fromkeys(map(str, range(wins)), 1.0)
    theirs = {str(wins + i): 1.0 for i in range(losses)}
    tasks = ours | theirs
    ours, theirs = [{t: own.get(t, 0.0) for t in tasks} for own in (ours, theirs)]
    assert exact_mcnemar(ours, theirs).p_value == pytest.approx(exact)
    assert exact_mcnemar(ours, theirs, mid_p=True).p_value == pytest.approx(mid)


def test_mcnemar_agrees_with_another_implementation():
    assert sign_p_value(35, 28) == pytest.approx(0.45, abs=5e-3)  # R's binom.test(c(35, 28))


def test_holm_is_that_of_other_implementations():
    # pingouin's documentation of multicomp, method holm
    p_values = {"a": 0.50, "b": 0.003, "c": 0.32, "d": 0.054, "e": 0.0003}
    adjusted = {"a": 0.64, "b": 0.012, "c": 0.64, "d": 0.162, "e": 0.0015}
    assert holm(p_values) == pytest.approx(adjusted)
    assert list(holm(p_values)) == list(p_values)
    assert holm({}) == {}
    with pytest.raises(ValueError, match="that of a is 2"):
        holm({"a": 2.0})


def test_differences_are_paired_by_seed_and_task():
    ours = {0: {"b": 1.0, "a": 1.0}, 1: {"a": 0.0}, 2: {"a": 1.0}}
    theirs = {1: {"a": 1.0, "b": 0.0}, 0: {"a": 1.0, "b": 0.0}}
    expected = np.array([[0.0, 1.0], [-1.0, np.nan]])
    np.testing.assert_array_equal(paired_differences(ours, theirs), expected)


def test_an_untuned_model_is_held_against_every_seed():
    found = paired_differences({0: {"a": 1.0}, 1: {"a": 0.0}}, {None: {"a": 1.0}})
    np.testing.assert_array_equal(found, [[0.0], [-1.0]])


def test_arms_without_a_common_seed_or_task_are_refused():
    with pytest.raises(ValueError, match="seeds"):
        paired_differences({0: {"a": 1.0}}, {1: {"a": 1.0}})
    with pytest.raises(ValueError, match="tasks"):
        paired_differences({0: {"a": 1.0}}, {0: {"b": 1.0}})


def test_the_crossed_error_by_hand():
    found = crossed(HAND)
    of_seeds, of_tasks = (1 / 18) / 2, (1 / 4) / 3  # variances of the means, over their numbers
    assert found.mean == pytest.approx(0.5)
    assert found.error == pytest.approx(sqrt(of_seeds + of_tasks))
    free = (of_seeds + of_tasks) ** 2 / (of_seeds**2 / 1 + of_tasks**2 / 2)
    assert found.freedom == pytest.approx(free)


def test_with_one_seed_the_crossed_test_is_the_paired_t_test():
    values = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], 40, p=[0.1, 0.5, 0.4])
    other = ttest_1samp(values, 0)
    assert crossed(values).p_value == pytest.approx(other.pvalue)
    assert crossed(values).interval() == pytest.approx(tuple(other.confidence_interval()))


def test_variance_components_by_hand():
    # Residuals are (1/3, -1/6, -1/6) and its negative: their squares sum to 1/3, 2 degrees.
    assert spread(HAND) == Spread(0.0, pytest.approx(1 / 4 - 1 / 12), pytest.approx(1 / 6))


def test_a_missing_cell_is_neither_a_tie_nor_a_loss():
    gap = np.array([[1.0, np.nan], [1.0, 0.0]])
    assert crossed(gap).mean == pytest.approx(2 / 3)
    low, high = bootstrap_crossed(gap, draws=2000)
    assert (low, high) == (0.0, 1.0)


def test_bootstraps_are_seeded_and_cluster_by_task():
    generator = np.random.default_rng(1)
    one = generator.choice([-1.0, 0.0, 1.0], (1, 200))
    copied = np.repeat(one, 5, axis=0)  # five seeds that agree bring nothing new
    assert bootstrap_difference(one) == pytest.approx(bootstrap_difference(copied))
    assert bootstrap_crossed(copied) == bootstrap_crossed(copied)
    reach = 1.96 * one.std() / sqrt(200)
    low, high = bootstrap_difference(one)
    assert (low, high) == pytest.approx((one.mean() - reach, one.mean() + reach), abs=0.01)


def test_coverage_with_three_seeds_that_differ_much():
    """The t interval nearly keeps its promise; the bootstrap does not, as its docstring says."""
    generator = np.random.default_rng(2)
    runs = [simulated(generator, 3, 60, 0.2, 0.3, 0.3) for _ in range(300)]
    by_t = [low < 0 < high for low, high in (crossed(run).interval() for run in runs)]
    drawn = [bootstrap_crossed(run, draws=400) for run in runs]
    by_draws = [low < 0 < high for low, high in drawn]
    assert np.mean(by_t) > 0.9
    assert 0.75 < np.mean(by_draws) < 0.9


def test_coverage_with_many_seeds_is_right_for_both():
    generator = np.random.default_rng(3)
    runs = [simulated(generator, 12, 60, 0.15, 0.3, 0.1) for _ in range(300)]
    for interval in (
        lambda run: crossed(run).interval(),
        lambda run: bootstrap_crossed(run, draws=400),
    ):
        assert 0.89 < np.mean([(i := interval(run))[0] < 0 < i[1] for run in runs]) < 0.985


def test_equivalence_is_two_one_sided_tests_each_by_t_and_by_score():
    values = np.random.default_rng(4).choice([-1.0, 0.0, 1.0], 300, p=[0.05, 0.9, 0.05])
    found = tost(values, 0.1)
    above = ttest_1samp(values, -0.1, alternative="greater").pvalue
    below = ttest_1samp(values, 0.1, alternative="less").pvalue
    scored = max(score_p_value(values, -0.1), score_p_value(-values, -0.1))
    assert found.p_value == pytest.approx(max(above, below, scored))
    assert found.equivalent and tost_bootstrap(values, 0.1).equivalent
    assert not tost(values, 0.01).equivalent and not tost_bootstrap(values, 0.01).equivalent


def test_equivalence_errs_no_more_than_promised_at_the_margin():
    generator = np.random.default_rng(5)
    runs = [simulated(generator, 3, 60, 0.05, 0.2, 0.2, mean=0.1) for _ in range(400)]
    assert np.mean([tost(run, 0.1).equivalent for run in runs]) < 0.075


def test_arms_that_never_differ_are_equivalent_only_on_enough_tasks():
    # 0.95^58 = 0.0511 and 0.95^59 = 0.0485
    assert not tost(np.zeros((3, 58)), 0.05).equivalent
    assert tost(np.zeros((3, 59)), 0.05).equivalent
    assert not tost_bootstrap(np.zeros((3, 59)), 0.05).equivalent


def test_tasks_needed_are_those_of_a_published_calculator():
    # powerandsamplesize.com after Connor 1987: p01 = 0.45, p10 = 0.05, power 0.8, two-sided: 23
    assert tasks_needed(0.4, 0.5) == 23
    assert tasks_needed(-0.4, 0.5) == 23


def test_the_formula_of_power_agrees_with_simulation():
    generator, tasks, psi, effect = np.random.default_rng(6), 300, 0.3, 0.09
    counts = generator.multinomial(
        tasks, [(psi + effect) / 2, (psi - effect) / 2, 1 - psi], size=4000
    )
    wins, losses = counts[:, 0], counts[:, 1]
    score = np.mean(np.abs(wins - losses) / np.sqrt(wins + losses) > 1.96)
    exact = np.mean([sign_p_value(int(w), int(x)) < 0.05 for w, x in counts[:800, :2]])
    expected = paired_power(effect, tasks, psi)
    assert score == pytest.approx(expected, abs=0.02)
    assert expected - 0.09 < exact < expected + 0.02


def test_power_with_seeds_agrees_with_simulation():
    """Runs of one task agree with probability 1/2 by sharing one draw, so agreement is 1/4."""
    generator, psi, effect, seeds, tasks = np.random.default_rng(7), 0.3, 0.06, 3, 300
    odds = [(psi + effect) / 2, 1 - psi, (psi - effect) / 2]
    shape = (1500, seeds, tasks)
    own = generator.choice([1, 0, -1], shape, p=odds)
    task = generator.choice([1, 0, -1], (1500, 1, tasks), p=odds)
    means = np.where(generator.random(shape) < 0.5, task, own).mean(axis=1)
    z = means.mean(axis=1) / (means.std(axis=1, ddof=1) / sqrt(tasks))
    expected = paired_power(effect, tasks, psi, seeds=seeds, agreement=0.25)
    assert np.mean(np.abs(z) > 1.96) == pytest.approx(expected, abs=0.04)


def test_the_detectable_effect_is_the_one_whose_tasks_are_there():
    effect = detectable_effect(200, 0.25)
    assert paired_power(effect, 200, 0.25) == pytest.approx(0.8)
    assert tasks_needed(effect, 0.25) in (200, 201)
    assert detectable_effect(20, 0.1) is None  # two tasks differ: nothing can be told
    assert detectable_effect(200, 0.25, seeds=4, agreement=0.0) == pytest.approx(
        detectable_effect(800, 0.25), rel=0.05
    )


def test_a_plan_finds_what_it_was_made_for():
    generator, parts = np.random.default_rng(8), Spread(0.001, 0.04, 0.04)
    plan = needed(parts, 0.1, seeds=3)
    roots = [sqrt(v) for v in (parts.seeds, parts.tasks, parts.cells)]
    runs = [simulated(generator, plan.seeds, plan.tasks, *roots, mean=0.1) for _ in range(400)]
    assert 0.75 < np.mean([crossed(run).p_value < 0.05 for run in runs]) < 0.97


def test_a_plan_adds_seeds_only_where_tasks_do_not_do():
    assert needed(Spread(0.0, 0.1, 0.1), 0.05, seeds=3).seeds == 3
    assert needed(Spread(0.01, 0.1, 0.1), 0.05, seeds=3).seeds > 20
    assert needed(Spread(0.0, 1.0, 0.0), 0.001, seeds=1) is None
    assert needed(Spread(0.0, 0.1, 0.1), 0.5, seeds=3, tasks=400) == Needed(400, 3)


def test_what_cannot_be_computed_is_refused_in_words():
    with pytest.raises(ValueError, match="no pair"):
        crossed([[float("nan")]])
    with pytest.raises(ValueError, match="infinite"):
        crossed([float("inf")])
    with pytest.raises(ValueError, match="positive delta"):
        tost(HAND, 0.0)
    with pytest.raises(ValueError, match="as much discordance"):
        paired_power(0.3, 100, 0.2)
    with pytest.raises(ValueError, match="wanted effect"):
        tasks_needed(0.0, 0.2)


def tango(wins, losses, tasks, least):
    """z of Tango (1998), equations 3 to 5, for the mean of paired successes against ``least``."""
    a = 2 * tasks
    b = -wins - losses + (2 * tasks - wins + losses) * least
    c = -losses * least * (1 - least)
    q = (sqrt(b * b - 4 * a * c) - b) / (2 * a)
    return (wins - losses - tasks * least) / sqrt(tasks * (2 * q + least * (1 - least)))


@pytest.mark.parametrize(
    ("wins", "losses", "tasks", "least"),
    [(0, 2, 48, -0.1), (0, 0, 58, -0.05), (12, 9, 100, -0.1), (5, 1, 30, 0.0), (3, 0, 60, -0.2)],
)
def test_the_score_test_of_successes_is_tango_s(wins, losses, tasks, least):
    values = np.array([1.0] * wins + [-1.0] * losses + [0.0] * (tasks - wins - losses))
    expected = norm.sf(tango(wins, losses, tasks, least))
    assert score_p_value(values, least) == pytest.approx(expected, rel=1e-6)


def test_the_limit_of_the_score_test_is_where_it_stops_to_reject():
    values = np.array([0.25, -0.5, 0.1] + [0.0] * 37)
    limit = lower_score_limit(values, 0.05)
    assert score_p_value(values, limit) == pytest.approx(0.05)
    assert limit < values.mean()


@pytest.mark.parametrize(("tasks", "delta"), [(48, 0.1), (100, 0.05), (96, 0.1)])
@pytest.mark.parametrize("seeds", [1, 3])
def test_equivalence_errs_as_seldom_where_few_tasks_differ_and_all_one_way(tasks, delta, seeds):
    """The t form alone errs in 7 to 13 of 100: it has hardly seen a difference."""
    generator = np.random.default_rng(10)
    runs = -1.0 * (generator.random((400, 1, tasks)) < delta)
    claimed = [tost(np.repeat(run, seeds, axis=0), delta).equivalent for run in runs]
    assert np.mean(claimed) < 0.07


def test_more_differences_are_never_better_evidence_of_equivalence():
    p_values = [
        tost(np.array([-1.0] * lost + [0.0] * (58 - lost)), 0.05).p_value for lost in (0, 1, 2)
    ]
    assert p_values == sorted(p_values)
    assert p_values[0] == pytest.approx(0.95**58)


def test_sign_flips_by_hand_and_as_the_sign_test():
    # Of the eight ways to sign 3, 2 and 1, the sums 6, 4, -4 and -6 are as far off as 3 + 2 - 1.
    assert sign_flips([0.3, 0.2, -0.1, 0.0]) == 4 / 8
    assert sign_flips([1.0] * 9 + [-1.0]) == pytest.approx(sign_p_value(9, 1))
    assert sign_flips([0.0] * 5) == 1.0
    by_lot = sign_flips([1.0] * 18 + [-1.0] * 6 + [0.0] * 9)
    assert by_lot == pytest.approx(sign_p_value(18, 6), abs=0.01)


def test_an_interval_of_scores_is_wilson_s_at_the_floor_and_t_s_elsewhere():
    solved = np.array([1.0] * 12 + [0.0] * 20)
    assert score_interval(np.zeros(32)) == pytest.approx(wilson_interval(0, 32), abs=1e-6)
    assert score_interval(np.ones((3, 48))) == pytest.approx(wilson_interval(48, 48), abs=1e-6)
    low, high = score_interval(solved)
    wilson, by_t = wilson_interval(12, 32), crossed(solved).interval()
    assert low == pytest.approx(min(wilson[0], by_t[0]), abs=1e-6)
    assert high == pytest.approx(max(wilson[1], by_t[1]), abs=1e-6)
    # Three trainings that came out differently say little, however many tasks they met.
    seeds = np.stack([np.full(96, 0.2), np.full(96, 0.5), np.full(96, 0.8)])
    assert score_interval(seeds) == (0.0, 1.0)
    assert score_interval([[-1.0, -1.0, -1.0]], least=-1.0)[0] == -1.0


def test_intervals_of_scores_cover_near_the_floor():
    generator = np.random.default_rng(11)
    held = 0
    for _ in range(400):
        tasks = generator.random((1, 48)) < 0.04
        agree = generator.random((3, 48)) < 0.8
        low, high = score_interval(1.0 * (tasks & agree))
        held += low <= 0.032 <= high
    assert held / 400 > 0.93
