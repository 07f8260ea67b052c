"""The report of many arms, seeds and environments: its tables, drawings and LaTeX."""

import io
import re

import pytest
import synthetic_experiment as many
import synthetic_results as synthetic
from rich.console import Console
from test_report_page import ATTACK, read

from atlas_tune.evaluate.statistics import wilson_interval
from atlas_tune.report import (
    Cell,
    Results,
    SeedScores,
    TaskScores,
    to_console,
    to_latex,
    to_markdown,
)
from atlas_tune.report.compared import compare, restated, score_cells
from atlas_tune.report.figures import ratio_arms
from atlas_tune.report.latex import escaped
from atlas_tune.report.matrix import Pair, matrices
from atlas_tune.report.page import render_page
from atlas_tune.report.palette import MOST_FEATURED, featured
from atlas_tune.report.training_signal import signal_table


def changed(results, /, **changes):
    return Results.model_validate(results.model_dump() | changes)


@pytest.fixture(scope="module")
def experiment():
    return many.experiment()


@pytest.fixture(scope="module")
def page(experiment):
    return render_page(experiment)


def test_a_page_of_twenty_arms_is_whole_and_its_links_lead_somewhere(page):
    parsed = read(page)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert all(link.startswith("#") and link[1:] in parsed.ids for link in parsed.links)
    assert sum(link.startswith("#transcript-") for link in parsed.links) == 20


def test_a_page_of_twenty_arms_can_be_sent_by_mail(page):
    assert len(page.encode()) < 1_300_000
    # The look of an arm is drawn once, however many rows have it.
    assert page.count('<symbol id="look-') == 20
    assert page.count('<use href="#look-') > 800


def test_many_curves_do_not_explode_the_legends(experiment, page):
    assert len(experiment.arms) == 20
    assert len(featured(experiment)) == MOST_FEATURED
    assert {"critical", "untuned", "all", "random"} <= set(featured(experiment))
    legends = re.findall(r'<ul class="legend" aria-label="Legend">(.*?)</ul>', page, re.DOTALL)
    assert max(legend.count("<li>") for legend in legends) <= 9
    assert "12 other arms: thin grey lines" in page


def test_a_run_under_way_says_so_first(experiment, page):
    said = "This run is under way: 228 of 240 evaluations are done."
    assert said in page[: page.index('<ul class="statements">')]
    assert to_markdown(experiment).startswith(f"**{said}")
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(to_console(experiment))
    printed = console.export_text()
    assert printed.startswith(said)
    assert "208 comparisons of other arms: see the page of the report." in printed
    assert said in to_latex(experiment).splitlines()[2]
    done = changed(experiment, complete={"done": 240, "of": 240})
    assert "under way" not in to_markdown(done)


def test_cells_and_means_stand_in_the_table_of_signals():
    results = many.experiment()
    cells = [
        Cell(arm="all", environment=place, seeds=3, tasks=100, value=value, interval=interval)
        for place, value, interval in (
            ("textcraft", 0.5, (0.4, 0.6)),
            ("babyai", 0.7, (0.66, 0.74)),
            ("wordle", 0.1, (0.0, 0.2)),
        )
    ]
    bare = changed(results, cells=[cell.model_dump() for cell in cells], results=[])
    table = signal_table(bare)
    assert [column.name for column in table.columns] == [
        "textcraft",
        "babyai",
        "scienceworld-measurement",
        "wordle",
        "held-in mean",
        "held-out mean",
    ]
    row = next(row for row in table.rows if row.arm.name == "all")
    assert [value and (value.written, value.range_written) for value in row.values] == [
        ("50.0", "40.0–60.0"),
        ("70.0", "66.0–74.0"),
        None,
        ("10.0", "0.0–20.0"),
        ("60.0", "53.0–67.0"),
        None,  # one of its two environments was not evaluated
    ]


def test_without_cells_several_seeds_have_a_mean_and_no_interval():
    table = signal_table(synthetic.results(seeds=(0, 1)))
    row = next(row for row in table.rows if row.arm.name == "critical")
    assert all(value.interval is None for value in row.values)
    assert "95% intervals where an arm is one model" in table.caption
    untuned = next(row for row in table.rows if row.arm.name == "untuned")
    assert untuned.values[0].range_written == "15.0–31.1"


def test_the_matrix_counts_tasks_both_ways_and_leaves_out_what_one_arm_did_not_play():
    scores = TaskScores(
        environment="textcraft",
        tasks=["a", "b", "c", "d"],
        scores=[
            SeedScores(arm="all", seed=0, values=[1, 0.5, 0.1 + 0.2, None]),
            SeedScores(arm="critical", seed=0, values=[0, 1, 0.2, 1]),
            SeedScores(arm="critical", seed=1, values=[0, None, 0.4, 1]),
        ],
    )
    (matrix,) = matrices(changed(synthetic.results(), task_scores=[scores.model_dump()]))
    assert matrix.arms == ("all", "critical")
    assert matrix.rows[0] == (None, Pair(higher=1, lower=1, tasks=3))
    assert Pair(3, 1, 8).lead == 0.25


def test_the_ratios_are_those_of_the_main_selector_between_nothing_and_everything(experiment):
    shares = [arm.selected_share for arm in ratio_arms(experiment)]
    names = [arm.name for arm in ratio_arms(experiment)]
    assert shares == sorted(shares)
    assert (names[0], names[-1]) == ("untuned", "all")
    assert {f"critical-{ratio}" for ratio in many.RATIOS} < set(names)
    assert not {"random", "surprisal", "complement"} & set(names)
    assert ratio_arms(synthetic.results()) == []


def test_a_policy_started_after_the_selected_steps_is_held_against_matched_random_ones(
    experiment, page
):
    section = page[page.index('<section id="criticality">') :].partition("</section>")[0]
    (row, _) = re.findall(r"<tr><th scope=\"row\">.*?</tr>", section, re.DOTALL)
    cells = [" ".join(re.sub("<.*?>", " ", cell).split()) for cell in row.split("</td>")]
    assert cells[:-1] == [
        "critical textcraft",
        "base",
        "90",
        "140",
        "21.0%",
        "40.0%",
        "52.0%",
        "47.0%",
        "+5.0 −2.0 to +12.0",
        "+12.0 +5.0 to +19.0",
        "+6.0",
        "+6.0 −1.0 to +13.0",
    ]
    markdown = to_markdown(experiment)
    assert (
        "| critical | textcraft | base | 90 | 140 | 52.0% | 47.0% | +5.0 (−2.0 to +12.0) | +12.0 "
        "| +6.0 | +6.0 (−1.0 to +13.0) |"
    ) in markdown
    assert r"critical & textcraft & base & 90 & 140 & 52.0\% & 47.0\% & +5.0 " in to_latex(
        experiment
    )
    # Where there is no other step to draw there is no difference, and none is made up.
    absent = ("after_random", "after_difference", "after_interval", "matched_random")
    bare = experiment.criticality[0].model_dump() | dict.fromkeys((*absent, "difference"))
    alone = to_markdown(changed(experiment, criticality=[bare | {"interval": None}]))
    assert "| 52.0% | – | – | +12.0 | – | – |" in alone


def test_what_the_models_do_stands_beside_what_they_were_trained_on(experiment):
    taken = {"get": 94, "craft": 6}
    acted = changed(
        experiment,
        actions=[
            {"arm": "untuned", "environment": "textcraft", "taken": {"turn": 1}},
            {"arm": "critical", "environment": "textcraft", "trained": {"get": 3}, "taken": taken},
        ],
    )
    markdown = to_markdown(acted)
    assert "| textcraft | untuned | – | turn 100% |" in markdown
    assert "| textcraft | critical | get 100% | get 94%, craft 6% |" in markdown
    section = render_page(acted).partition('<section id="actions">')[2].partition("</section>")[0]
    assert "get 94%, craft 6%" in section
    # A run of which nobody counted them says nothing of it.
    assert "What the models do" not in to_markdown(experiment) + render_page(experiment)
    with pytest.raises(ValueError, match="names no arm of this run: 'criticl'"):
        changed(experiment, actions=[{"arm": "criticl", "environment": "textcraft"}])


def test_an_injected_script_in_a_transcript_stays_text():
    record = synthetic.results().model_dump()
    hostile = record["transcripts"][0] | {"task_id": ATTACK, "transcript_id": ATTACK}
    hostile["turns"] = [{"text": ATTACK, "observation": ATTACK, "reward": 0.5}]
    found = changed(synthetic.results(), transcripts=[hostile])
    parsed = read(render_page(found))
    assert not {tag for tag, _ in parsed.tags} & {"script", "img"}
    assert "".join(parsed.text).count(ATTACK) == 4


def test_a_latex_table_is_well_formed_and_holds_the_numbers(experiment):
    text = to_latex(experiment)
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 3
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count(rf"\{rule}") == 3
    for columns, body in re.findall(r"\\begin{tabular}{(\w+)}\n(.*?)\\end{tabular}", text, re.S):
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert rows
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns)}
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")
    assert r"complement & 30.0\% & " in text
    assert to_latex(synthetic.results()).count(r"64.0 {\scriptsize [54.2--72.7]}") == 1


def test_latex_takes_no_command_from_a_name():
    assert escaped(r"\input{x} $1^2_3 ~#% & <a|b>" + "\n") == (
        r"\textbackslash{}input\{x\} \$1\textasciicircum{}2\_3 \textasciitilde{}\#\% \& "
        r"\textless{}a\textbar{}b\textgreater{}"
    )
    record = synthetic.results().model_dump_json().replace('"random"', r'"\\input{x}%"')
    text = to_latex(Results.model_validate_json(record))
    assert r"\input" not in "\n".join(text.splitlines()[2:])


def test_results_that_are_judged_again_say_what_their_task_scores_say():
    once = restated(synthetic.results())
    assert restated(once) == once
    (found,) = (
        one
        for one in once.comparisons
        if (one.arm, one.against, one.environment) == ("critical", "all", "textcraft")
    )
    # The synthetic tasks are solved by rank, so of 100 tasks 64 and 58 are, nested.
    assert (found.wins, found.losses, found.ties, found.seeds) == (6, 0, 94, 1)
    assert found.test == "McNemar's exact test"
    assert found.p_value == pytest.approx(2 * 0.5**6)
    cell = next(c for c in once.cells if (c.arm, c.environment) == ("critical", "textcraft"))
    assert cell.value == 0.64
    assert cell.interval == pytest.approx(wilson_interval(64, 100))


def test_an_arm_of_several_seeds_has_an_interval_over_seeds_and_tasks():
    values = [[1, 1, 0, 0] * 10, [1, 0, 0, 0] * 10]
    scores = TaskScores(
        environment="textcraft",
        tasks=[f"t{n}" for n in range(40)],
        scores=[SeedScores(arm="all", seed=n, values=v) for n, v in enumerate(values)],
    )
    (cell,) = score_cells([scores], {"textcraft": "success"})
    assert (cell.seeds, cell.tasks, cell.value) == (2, 40, 0.375)
    low, high = cell.interval
    assert low < 0.25 < 0.5 < high  # the two models alone are that far apart


def test_a_lost_game_at_minus_one_is_compared_as_a_share_of_the_whole_range():
    scores = TaskScores(
        environment="textcraft",
        tasks=["a", "b", "c"],
        scores=[
            SeedScores(arm="all", seed=0, values=[-1, -1, 0]),
            SeedScores(arm="critical", seed=0, values=[1, 0, 1]),
        ],
    )
    (found,) = compare([scores], {"textcraft": "reward"}, [("critical", "all")], 0.05)
    assert (found.wins, found.difference) == (3, pytest.approx((2 + 1 + 1) / 3 / 2))
    assert found.words.endswith("Points are of the range from -1 to 1.")


def test_arms_that_both_solve_nothing_are_said_to_be_beyond_the_tasks_reach():
    nothing = [0] * 60
    scores = TaskScores(
        environment="textcraft",
        tasks=[str(n) for n in range(60)],
        scores=[SeedScores(arm=arm, seed=0, values=nothing) for arm in ("all", "critical")],
    )
    (found,) = compare([scores], {"textcraft": "success"}, [("critical", "all")], 0.05)
    assert found.verdict == "equivalent"
    assert found.words.endswith("Both score 0 everywhere: the tasks are too hard to tell.")
