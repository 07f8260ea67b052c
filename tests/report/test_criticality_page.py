"""The page of measured criticality, from a record made up for it."""

import json
import re
from dataclasses import asdict, replace

import pytest
from test_report_page import ATTACK, read

from atlas_tune.errors import AtlasError
from atlas_tune.report.criticality import load_criticality, parse_criticality, write_criticality
from atlas_tune.report.criticality_page import answer_of
from atlas_tune.select.auditing.audit import Scores
from atlas_tune.select.auditing.criticality import (
    Bootstrap,
    Controls,
    Criticality,
    LeftOut,
    Measured,
    Policy,
    Reference,
    Whole,
)
from atlas_tune.select.auditing.overlap import Overlap
from atlas_tune.select.auditing.resampling import Figure
from atlas_tune.select.auditing.started import Baseline, Started, Starts
from atlas_tune.select.auditing.sufficiency import Sufficiency

MADE = {
    "created_at": "2026-01-31T12:00:07+00:00",
    "command": "atlas-tune audit a.jsonl b.jsonl --measure out",
    "version": "0.1.0",
    "runs": "runs.jsonl",
}


def reference(precision, gain, low, high):
    some = Figure(0.25, 0.125, 0.375)
    scores = Scores(
        trajectories=30,
        steps=240,
        selected=60,
        marked=142,
        hits=31,
        precision=Figure(precision, precision - 0.0625, precision + 0.0625),
        recall=some,
        f1=some,
        prevalence=some,
        share=some,
        lift=some,
        matched_lift=some,
        attainable=Figure(0.435),
    )
    return Reference(scores, Figure(0.8125, 0.75, 0.875), some, some, Figure(gain, low, high))


def measured(name, **changes):
    some = Figure(0.5, 0.25, 0.75)
    none = Figure(0.0, 0.0, 0.0)
    one = Measured(
        name=name,
        steps=60,
        share=0.25,
        positions=(0, 0, 0, 0, 0, 10, 10, 10, 10, 20),
        ordered_by="labels",
        why_not_by_labels=None,
        necessity=reference(0.9375, 0.1875, 0.125, 0.25),
        rises=reference(0.3125, -0.0625, -0.125, 0.03125),
        sufficiency=Sufficiency(some, some, some, some, none, none),
        control_own=0.4,
        control_tokens=-0.0123,
        started=None,
    )
    return replace(one, **changes)


def starts():
    return Starts(
        *(Figure(n / 16, n / 32, n / 8) for n in range(6)), *[Figure(-0.5, -0.75, -0.25)] * 2
    )


def criticality(*selections, **changes):
    selections = selections or (measured("a"), measured("b"))
    names = [one.name for one in selections]
    pairs = [(one, other) for i, one in enumerate(names) for other in names[i + 1 :]]
    found = Criticality(
        trajectories=30,
        steps=240,
        environments={"textcraft": 30},
        necessary=142,
        rises=30,
        rises_at_ends=30,
        whole=Whole(Figure(1.0, 1.0, 1.0), Figure(1.0, 1.0, 1.0)),
        selections=tuple(selections),
        overlaps=tuple(
            Overlap(one, other, 20, 100, Figure(-0.25, -0.375, -0.125), Figure(0.2, 0.1, 0.3))
            for one, other in pairs
        ),
        controls=Controls(5, 10, "supervised characters", 0),
        policy=None,
        baseline=None,
        rollouts=223,
        bootstrap=Bootstrap(2000, 0),
        left_out=(),
        not_started=(),
        not_selected=0,
        beyond=0,
    )
    return replace(found, **changes)


def acted(**changes):
    both = Started(60, starts(), starts())
    return criticality(
        measured("a", started=both),
        measured("b", started=both),
        policy=Policy("some-model", {"model": "abc", "precision": "float32"}, 0.7, 4, "d", 29),
        baseline=Baseline(Figure(0.1875, 0.125, 0.25), Figure(0.25, 0.125, 0.375)),
        **changes,
    )


def page_of(found, tmp_path, **made):
    path = write_criticality({"made": MADE | made, **asdict(found)}, tmp_path)
    assert path == tmp_path / "index.html"
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("found", [criticality(), acted(), criticality(measured("alone"))])
def test_the_page_is_properly_nested_and_loads_nothing(found, tmp_path):
    page = page_of(found, tmp_path)
    parsed = read(page)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert all(link.startswith("#") and link[1:] in parsed.ids for link in parsed.links)
    tags = {tag for tag, _ in parsed.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "image", "form"}
    assert not re.search(r"https?:|@import|url\((?!#)", page)
    policy = next(a["content"] for t, a in parsed.tags if a.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert {
        "summary",
        "necessity",
        "rises",
        "sufficiency",
        "started",
        "overlap",
        "positions",
    } < set(parsed.ids)


def test_the_record_comes_back_and_the_same_record_gives_the_same_bytes(tmp_path):
    found = acted(left_out=(LeftOut("t" * 64, "no task"),))
    page = page_of(found, tmp_path)
    made, back = load_criticality(tmp_path / "criticality.json")
    assert back == found
    assert made.runs == "runs.jsonl"
    assert page_of(back, tmp_path) == page


def test_tables_hold_figures_with_their_intervals(tmp_path):
    page = page_of(criticality(), tmp_path)
    words = " ".join(" ".join(read(page).text).split())
    for told in (
        "30 recorded runs were played again: 240 steps, of which 142 (59.2%) are necessary",
        "0.938 0.875 to 1.000",  # a's precision: rounded half to even
        "+0.188 0.125 to 0.250",
        "−0.062 −0.125 to 0.031",
        "▲ more +0.188",
        "= the same 0.000",
        "it takes 223 rollouts of a policy",
        "223 at one from each place",
        "−0.250 −0.375 to −0.125",
        "All rises are at the last step of a run",
        "2026-01-31 12:00 UTC",
        "Everything was measured.",
        "−1.2%",
    ):
        assert told in words, told
    assert "Success: the policy after" not in words


def test_with_a_policy_its_starts_are_shown(tmp_path):
    words = " ".join(" ".join(read(page_of(acted(), tmp_path)).text).split())
    for told in (
        "some-model goes on from inside 29 runs, 4 rollouts from each place at temperature 0.7",
        "it succeeds in 0.188 0.125 to 0.250 and returns 0.250 0.125 to 0.375",
        "Success: the policy after the steps of each selection",
        "Return: the policy after the steps of each selection",
        "▼ less −0.500",
        "brings the policy nearer?",
    ):
        assert told in words, told
    assert "it takes 223 rollouts" not in words


def test_a_selection_whose_position_decides_it_has_no_verdict(tmp_path):
    found = criticality(measured("a"), measured("first", control_own=1.0))
    page = page_of(found, tmp_path)
    assert "Position alone decides this selection: 100.0% of the matched random steps" in page
    assert page.count("▲ more") == 1


def test_what_is_undefined_or_left_out_says_why(tmp_path):
    nothing = Figure(None, why="no step is selected")
    empty = measured(
        "none",
        steps=0,
        share=0.0,
        positions=(0,) * 10,
        control_own=None,
        ordered_by="selection",
        why_not_by_labels="there is no none.jsonl.labels.jsonl beside it",
        necessity=replace(
            reference(0.5, 0, 0, 0),
            scores=replace(reference(0.5, 0, 0, 0).scores, precision=nothing),
            precision_gain=nothing,
        ),
    )
    found = criticality(
        measured("a"),
        empty,
        left_out=(LeftOut("t" * 64, "There is no environment 'moon'."),),
        not_started=(LeftOut("u" * 64, "too long"), LeftOut("v" * 64, "too long")),
        not_selected=1234,
        beyond=5,
        rises=0,
        rises_at_ends=0,
    )
    page = page_of(found, tmp_path)
    words = " ".join(" ".join(read(page).text).split())
    for told in (
        "none: no step is selected.",
        "nothing to compare",
        "1,234 runs are not in every selection.",
        "5 runs are beyond the most",
        "1 run: could not be measured",
        "tttttttttttt",
        "There is no environment 'moon'.",
        "2 runs: the policy could not start inside",
        "The score rises at no step of these runs.",
        "For none the order is the selection itself",
    ):
        assert told in words, told
    assert "nan" not in words.lower().split()


def test_verdicts_are_by_the_interval():
    assert answer_of(Figure(0.1, 0.01, 0.2)).word == "more"
    assert answer_of(Figure(-0.1, -0.2, -0.01)).word == "less"
    assert answer_of(Figure(0.1, 0.0, 0.2)).word == "cannot tell"
    assert answer_of(Figure(0.0, 0.0, 0.0)).word == "the same"
    assert answer_of(Figure(0.5)).word == "cannot tell"
    assert not answer_of(Figure(None, why="x")).known
    assert not answer_of(None).known


def test_an_injected_script_stays_text(tmp_path):
    found = acted(
        left_out=(LeftOut(ATTACK, ATTACK),),
        environments={ATTACK: 30},
    )
    hostile = json.loads(json.dumps(asdict(found)).replace('"a"', json.dumps(ATTACK)))
    hostile["policy"]["name"] = ATTACK
    hostile["policy"]["settings"] = {ATTACK: ATTACK}
    made = dict.fromkeys(MADE, ATTACK)
    page = write_criticality({"made": made, **hostile}, tmp_path).read_text(encoding="utf-8")
    parsed = read(page)
    assert not {tag for tag, _ in parsed.tags} & {"script", "img"}
    assert "".join(parsed.text).count(ATTACK) >= 10


def test_many_selections_with_long_names_have_a_page(tmp_path):
    found = criticality(*(measured(f"a very long name of a selection {n}") for n in range(12)))
    read(page_of(found, tmp_path))


def test_a_record_that_does_not_fit_is_told(tmp_path):
    record = {"made": MADE, **asdict(criticality())}
    with pytest.raises(AtlasError, match=r"cannot be shown: steps: Input should be a"):
        parse_criticality({**record, "steps": "many"})
    del record["overlaps"]
    with pytest.raises(AtlasError, match=r"cannot be shown: overlaps"):
        write_criticality(record, tmp_path)
    assert list(tmp_path.iterdir()) == []
    path = tmp_path / "criticality.json"
    with pytest.raises(AtlasError, match="There is no file"):
        load_criticality(path)
    path.write_text("[1]")
    with pytest.raises(AtlasError, match="no JSON object"):
        load_criticality(path)
    path.write_text("{")
    with pytest.raises(AtlasError, match="is not JSON"):
        load_criticality(path)
