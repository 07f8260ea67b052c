"""Audits of a run's selections with a real, tiny model: every figure worked out by hand."""

import json
import re
from statistics import fmean

import pytest

from atlas_tune.errors import UsageError
from atlas_tune.pipeline.experiment import Experiment, Only
from atlas_tune.pipeline.layout import Layout
from atlas_tune.pipeline.manifest import Manifest, State
from atlas_tune.pipeline.plan import plan
from atlas_tune.pipeline.results import build_results
from atlas_tune.pipeline.run import do
from atlas_tune.recipe import load_recipe
from atlas_tune.report import to_markdown
from atlas_tune.report.criticality import load_criticality
from atlas_tune.report.page import render_page
from atlas_tune.trajectory.store import read_selections
from tiny_model import tiny_llama, tiny_tokenizer

RECIPE = """
name: audited
model: {model}
data:
  - {{collect: textcraft, tasks: 6, options: {{depth: 1, commands: 2}}}}
  - {{import: {runs}}}
arms:
  - {{name: all, selector: all}}
  - {{name: last, selector: last}}
  - {{name: rest, selector: complement, of: last}}
  - {{name: random, selector: random, of: last, redraw: true}}
evaluate:
  max_new_tokens: 2
  precision: float32
  environments: [{{environment: textcraft, tasks: 1, max_steps: 1}}]
audit: {{controls: 2}}
"""
ELSEWHERE = [
    {"from": "human", "value": "Go."},
    {"from": "gpt", "value": "Action: first"},
    {"from": "human", "value": "seen"},
    {"from": "gpt", "value": "Action: second"},
]


def write_recipe(folder, text=RECIPE):
    (folder / "runs.json").write_text(json.dumps([{"conversations": ELSEWHERE}]))
    path = folder / "recipe.yaml"
    path.write_text(text.format(model=folder / "base", runs=folder / "runs.json"))
    return path


def experiment(folder, text=RECIPE):
    layout = Layout(folder / "run")
    layout.directory.mkdir(exist_ok=True)
    path = write_recipe(folder, text)
    layout.recipe.write_text(path.read_text())
    manifest = Manifest(layout.directory, {"command": "atlas-tune run", "machine": {}})
    return Experiment(load_recipe(path), layout, manifest)


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audited")
    tiny_llama().save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    run = experiment(folder)
    for stage in [*run.preparing(), *run.audits()]:
        do(stage, run.manifest)
    return run


def test_rows_say_what_the_rollouts_say(audited):
    rows = build_results(audited).criticality
    assert [(row.selection, row.environment) for row in rows] == [
        (arm, "textcraft") for arm in ("last", "rest", "random")
    ]
    runs = [run for run in audited.trajectories if run.environment == "textcraft"]
    # A model of random weights crafts nothing, so a run succeeds when its last step was played.
    ends = {run.trajectory_id: run.agent_steps[-1].step_id for run in runs}
    for row, name in zip(rows, ("last", "rest", "random.0"), strict=True):
        chosen = read_selections(audited.layout.selection(name))
        at_end = [i == end for key, end in ends.items() for i in chosen[key].step_ids]
        assert (row.runs, row.steps) == (6, len(at_end))
        assert row.after == row.gain == pytest.approx(fmean(at_end)), name
        assert row.before == row.from_start == 0
    assert rows[0].after > 0.5
    assert rows[1].after == 0


def test_a_selection_is_held_against_other_steps_or_against_none(audited):
    path = audited.layout.audit("rest", "textcraft") / "criticality.json"
    made, found = load_criticality(path)
    assert (made.runs, found.controls.draws, found.controls.tokens) == (
        "trajectories.jsonl",
        2,
        "supervised tokens",
    )
    for row in build_results(audited).criticality:
        (one,) = load_criticality(
            audited.layout.audit(row.selection, "textcraft") / "criticality.json"
        )[1].selections
        apart = one.control_own is None or one.control_own <= 0.95
        assert (row.after_random is not None) == apart
        if apart:
            assert row.after - row.after_random == pytest.approx(row.after_difference)
            assert row.gain - row.matched_random == pytest.approx(row.difference)


def test_what_cannot_be_played_again_is_told(audited):
    told = {one.place: one.reason for one in build_results(audited).quarantined}
    place = "audit last, environment not named"
    assert "cannot be played again" in told[place]


def test_the_report_shows_the_rows(audited):
    results = build_results(audited)
    page = render_page(results)
    section = page[page.index('<section id="criticality">') :].split("</section>")[0]
    last = results.criticality[0]
    assert f"{100 * last.after:.1f}%" in section
    assert section.count("<tr>") == 1 + 3
    assert "Started after the selected steps" in to_markdown(results)
    assert "Started after the selected steps" not in to_markdown(results, brief=True)


def test_a_second_run_measures_nothing_and_other_controls_ask_the_model_nothing(audited):
    folder = audited.layout.directory.parent
    again = experiment(folder)
    assert {again.manifest.state(stage) for stage in again.audits()} == {State.DONE}
    rollouts = (audited.layout.audit_files / "rollouts.jsonl").read_bytes()
    assert rollouts
    text = RECIPE.replace("controls: 2", "controls: 3, arms: [rest]")
    other = experiment(folder, text)
    (stage,) = other.audits()
    assert other.manifest.state(stage) is State.CHANGED
    do(stage, other.manifest)
    # Every place beside a step of the complement was rolled out when the others were audited.
    kept = (audited.layout.audit_files / "rollouts.jsonl").read_bytes()
    assert kept.startswith(rollouts)
    path = audited.layout.audit("rest", "textcraft") / "criticality.json"
    assert load_criticality(path)[1].controls.draws == 3


def test_audits_are_planned_last_and_belong_to_the_first_seed(tmp_path):
    (tmp_path / "base").mkdir()
    run = experiment(tmp_path, RECIPE + "seeds: [3, 4]\n")
    names = [one.name for one in plan(run)]
    assert names[-3:] == ["audit last", "audit rest", "audit random"]
    assert [s.name for s in run.audits(Only(arms=("rest",)))] == ["audit rest"]
    assert [s.after for s in run.audits(Only(arms=("random",)))] == [("data", "select random.3")]
    assert list(run.audits(Only(seeds=(4,)))) == []
    assert len(list(run.audits(Only(seeds=(3,))))) == 3
    assert list(run.audits(Only(places=("textcraft",)))) == []
    without = experiment(tmp_path, RECIPE.replace("audit: {{controls: 2}}", ""))
    assert list(without.audits()) == []


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ("arms: [lost]", "audit.arms names 'lost', which is no arm: did you mean 'last'?"),
        ("arms: [all]", "audit.arms names 'all', which takes every step"),
        ("rollouts: 4", "audit: greedy rollouts from one place are all the same"),
        ("control: 4", "unknown key 'audit.control': did you mean 'controls'?"),
        ("controls: 0", "audit.controls: a number from 1 on is wanted, not 0"),
    ],
)
def test_a_mistaken_audit_is_named(tmp_path, settings, sentence):
    path = write_recipe(tmp_path, RECIPE.replace("controls: 2", settings))
    with pytest.raises(UsageError, match=re.escape(sentence)):
        load_recipe(path)
