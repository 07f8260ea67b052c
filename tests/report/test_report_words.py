import io

import synthetic_results as synthetic
from rich.console import Console

from atlas_tune.report import Results, summary, to_console, to_markdown, wording
from atlas_tune.report.statements import statements


def changed(**changes):
    return Results.model_validate(synthetic.results().model_dump() | changes)


def words(results):
    return summary(results).replace("\N{NO-BREAK SPACE}", " ")


def printed(results):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(to_console(results))
    return console.export_text()


def test_the_summary_names_the_best_arm_and_what_the_test_can_tell():
    assert words(synthetic.results()) == (
        "On textcraft (100 tasks) “critical” scores highest, 64.0% success (95% interval "
        "54.2–72.7%). "
        "On babyai (90 tasks) “all” scores highest, mean reward 0.580 (95% interval 0.500 to "
        "0.660). The paired test cannot tell it from “critical”. "
        "Arm “critical” reaches mean reward 0.561 (95% interval 0.481 to 0.641). "
        "Arm “critical” was trained on 1,462 of 4,900 steps (29.8%): 59,942 supervised tokens, "
        "29.8% of those of “all”."
    )


def test_each_comparison_of_the_main_arm_is_one_sentence_and_what_all_share_is_said_once():
    told = statements(synthetic.results())
    assert [one.sentence for one in told.made][:2] == [
        "“critical” against “untuned” on textcraft: Better (+42.0 points; 44 tasks better, 2 worse "
        "of 100; p 0.000, McNemar's exact test).",
        "“critical” against “all” on textcraft: Cannot tell (+6.0 points; 17 tasks better, 11 "
        "worse of 100; p 0.345, McNemar's exact test). A difference of 5 points would need 900 "
        "tasks x 1 seed.",
    ]
    assert len(told.made) == 5
    assert told.cautions == (
        "One seed: this holds for these trained models, not for another training.",
    )


def test_a_pair_that_was_compared_both_ways_is_told_once_and_others_are_not_told():
    record = synthetic.results().model_dump()
    first = record["comparisons"][1]
    back = first | {"arm": "all", "against": "critical"}
    from_outside = first | {"arm": "complement", "against": "critical"}
    unrelated = first | {"arm": "random", "against": "all"}
    found = Results.model_validate(record | {"comparisons": [back, first, from_outside, unrelated]})
    assert [one.title for one in statements(found).made] == [
        "“critical” against “all”",
        "“complement” against “critical”",
    ]


def test_every_verdict_has_a_mark_and_words():
    for verdict, mark in (
        ("better", "▲"),
        ("worse", "▼"),
        ("equivalent", "="),
        ("cannot tell", "≈"),
    ):
        comparison = synthetic.comparison("all", "textcraft", 100, 9, 9, 1.0, verdict)
        assert wording.verdict(comparison) == f"{mark} {verdict}"


def test_an_equivalent_arm_is_said_to_be_so_from_either_side():
    both = [
        synthetic.comparison("all", "babyai", 90, 9, 9, 1.0, "equivalent").model_dump(),
        synthetic.comparison("random", "babyai", 90, 3, 20, 0.01, "worse", "all").model_dump(),
    ]
    said = words(changed(comparisons=both))
    assert "“all” scores highest" in said
    assert "finds it worse than “random” and equivalent to “critical”." not in said
    assert "finds it worse than “random” and finds it equivalent to “critical”." in said


def test_without_a_paired_test_no_rank_is_claimed():
    assert "No paired test was made for “critical”, so its rank is not established." in words(
        changed(comparisons=[])
    )


def test_a_comparison_counts_from_either_side():
    record = synthetic.results().model_dump()
    lost = record["comparisons"][0] | {"arm": "untuned", "against": "critical", "verdict": "worse"}
    found = Results.model_validate(record | {"comparisons": [lost]})
    assert "rank is not established" not in words(found).split("On babyai")[0]
    assert statements(found).made[0].title == "“untuned” against “critical”"


def test_arms_that_tie_share_the_highest_score():
    record = synthetic.results().model_dump()
    best = next(r for r in record["results"] if r["arm"] == "critical")
    tie = best | {"arm": "all"}
    rest = [r for r in record["results"] if (r["arm"], r["environment"]) != ("all", "textcraft")]
    said = words(Results.model_validate(record | {"results": [*rest, tie]}))
    assert "“all” and “critical” share the highest score, 64.0% success." in said


def test_markdown_holds_the_scores_and_where_they_come_from():
    text = to_markdown(synthetic.results())
    assert "| critical | 29.8% | 59,942 | 64.0% (54.2–72.7%) | 0.640 | 64.4% (54.2–73.6%) |" in text
    assert "| untuned | – | – | 22.0% (15.0–31.1%) |" in text
    assert "| textcraft | critical | all | +6.0 | −4.0 to +16.0 | 17 / 11 / 72 | 0.690 |" in text
    assert "| critical | 29.8% | 64.0 (54.2–72.7) | 56.1 (48.1–64.1) |" in text
    assert "2026-01-31 12:00 UTC" in text
    assert "`atlas-tune run recipes/synthetic.yaml`" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace(r"\|", "").count("|") for line in tables} == {5, 8, 9, 11}


def test_markdown_has_one_table_without_comparisons_and_escapes_names():
    record = synthetic.results().model_dump_json().replace('"random"', '"a|b <i>*x*"')
    text = to_markdown(Results.model_validate_json(record))
    assert r"| a\|b \<i\>\*x\* |" in text
    assert to_markdown(changed(comparisons=[])).count("| wins / losses / ties |") == 0


def test_the_console_shows_scores_comparisons_summary_and_notes():
    text = printed(synthetic.results())
    for part in (
        "64.0 (54.2–72.7)",
        "≈ “critical” against “all”",
        "scores highest",
        "Note: These numbers",
    ):
        assert part in text
    assert "against" not in printed(changed(comparisons=[]))


def test_square_brackets_in_a_name_are_not_markup_and_escapes_do_not_reach_the_terminal():
    record = synthetic.results().model_dump_json().replace('"random"', r'"[bold]x[/]\u001b[2J"')
    text = printed(Results.model_validate_json(record))
    assert "[bold]x[/]␛[2J" in text


def test_several_seeds_are_named_in_tables():
    several = synthetic.results(seeds=(0, 1, 2))
    assert "(3 seeds 63.0–66.0%)" in to_markdown(several)
    assert "Means over 3 seeds" in printed(several)
