"""Oracles in a recipe: one budget for all arms and all runs, and figures in the manifest."""

import json
from pathlib import Path
from typing import Any

import pytest

from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.pipeline.experiment import Experiment
from atlas_tune.pipeline.layout import Layout
from atlas_tune.pipeline.manifest import Manifest
from atlas_tune.pipeline.run import do, run_recipe
from atlas_tune.recipe import load_recipe
from atlas_tune.trajectory.store import read_selections
from scripted_server import Asked, Reply, ScriptedServer, good

RUNS = 8
PROMPT, COMPLETION = 1000, 100
A_CALL = (PROMPT + COMPLETION) / 1e6
"""USD at a dollar per million tokens of any kind."""
RECIPE = """
name: asked
data: [{{import: runs.json}}]
arms:
  - name: first
    selector: oracle
    options: &how {{model: m, base_url: "{url}", max_tokens: 100, concurrency: 1}}
  - {{name: second, selector: oracle, options: {{<<: *how, temperature: null}}}}
oracle: {oracle}
evaluate: {{environments: [{{environment: textcraft, tasks: 1}}]}}
"""


def conversation(number: int) -> dict[str, Any]:
    turns = [{"from": "human", "value": f"Task {number}: win."}]
    for step in range(4):
        turns.append({"from": "gpt", "value": f"I try way {step} of {number}."})
        turns.append({"from": "human", "value": "Nothing happens."})
    return {"conversations": turns}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "runs.json").write_text(json.dumps([conversation(n) for n in range(RUNS)]))
    (tmp_path / "prices.yaml").write_text("models: {m: {input: 1, output: 1}}")
    return tmp_path


def reply(asked: Asked) -> Reply:
    """Names the first step that the agent wrote, and reports what a call costs here."""
    shown = asked.body["messages"][1]["content"]
    title, words = next(
        part.split("\n", 1) for part in shown.split("\n\n") if "] step " in part.split("\n")[0]
    )
    step = {
        "step_id": int(title.rsplit(" ", 1)[1]),
        "kind": "plan_creation",
        "reason": "it decides",
        "quote": words.split("\n")[0],
    }
    text = json.dumps({"plan": [{"subgoal": "win"}], "critical_steps": [step]})
    document = json.loads(good(text).body)
    document["usage"] = {"prompt_tokens": PROMPT, "completion_tokens": COMPLETION}
    return Reply(json.dumps(document).encode())


def recipe_file(folder: Path, url: str, oracle: str, text: str = RECIPE) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text.format(url=url, oracle=oracle))
    return path


def select_all(folder: Path, url: str, oracle: str) -> tuple[Layout, dict[str, Any]]:
    """The selecting stages of the recipe; what each returned, by its arm."""
    recipe = load_recipe(recipe_file(folder, url, oracle))
    layout = Layout(folder / "run")
    layout.directory.mkdir(exist_ok=True)
    run = Experiment(recipe, layout, Manifest(layout.directory))
    for stage in run.preparing():
        do(stage, run.manifest)
    manifest = json.loads((layout.directory / "manifest.json").read_text())
    stages = {name: stage["returned"] for name, stage in manifest["stages"].items()}
    return layout, {arm.name: stages[f"select {arm.name}"] for arm in recipe.arms}


def chosen(layout: Layout, arm: str) -> int:
    return len(read_selections(layout.selection(arm)))


def test_without_a_budget_all_is_asked_and_the_figures_are_kept_and_told(folder: Path, capsys):
    with ScriptedServer(reply) as server:
        layout, returned = select_all(folder, server.url, "{prices: prices.yaml}")
        assert len(server.asked) == 2 * RUNS
    first, second = (returned[arm]["asking"] for arm in ("first", "second"))
    assert (first["calls"], first["failed"], first["budget_usd"]) == (RUNS, 0, None)
    assert (first["prompt_tokens"], first["completion_tokens"]) == (8000, 800)
    assert (first["usd"], first["usd_in_all"]) == pytest.approx((8 * A_CALL, 8 * A_CALL))
    # Its own cost, and that of the run so far.
    assert (second["usd"], second["usd_in_all"]) == pytest.approx((8 * A_CALL, 16 * A_CALL))
    [environment] = first["environments"]
    assert (environment["selected"], environment["steps"]) == (RUNS, 4 * RUNS)
    assert environment["kinds"] == {"plan_creation": 0.25}
    assert chosen(layout, "first") == chosen(layout, "second") == RUNS
    said = capsys.readouterr().err
    assert "8 calls, 0 answers from the journal" in said
    assert "$0.0088, $0.0176 in all" in said


def test_a_second_run_asks_nothing(folder: Path):
    with ScriptedServer(reply) as server:
        _, first = select_all(folder, server.url, "{budget_usd: 1, prices: prices.yaml}")
        asked = len(server.asked)
        _, again = select_all(folder, server.url, "{budget_usd: 1, prices: prices.yaml}")
        assert len(server.asked) == asked
    assert first == again


def test_a_budget_holds_over_arms_and_runs_and_more_of_it_goes_on(folder: Path, capsys):
    def oracle(usd: float) -> str:
        return f"{{budget_usd: {usd}, prices: prices.yaml}}"

    with ScriptedServer(reply) as server:
        layout, returned = select_all(folder, server.url, oracle(0.0145))
        paid = len(server.asked)
        # All of the first arm and some of the second, whose budget is what the first one left.
        assert RUNS < paid < 2 * RUNS
        assert paid * A_CALL <= 0.0145
        assert (chosen(layout, "first"), chosen(layout, "second")) == (RUNS, paid - RUNS)
        missing = returned["second"]["unlabelled"]
        assert len(missing) == 2 * RUNS - paid
        assert all(one["reason"].startswith("budget: ") for one in missing)
        assert returned["second"]["asking"]["usd_in_all"] == pytest.approx(paid * A_CALL)
        assert "The first: budget: The budget of $0.0145 is spent" in capsys.readouterr().err
        # The same budget again is no second one.
        select_all(folder, server.url, oracle(0.0145))
        assert len(server.asked) * A_CALL <= 0.0145
        # A raised one asks for the rest, and for nothing twice.
        layout, returned = select_all(folder, server.url, oracle(1.0))
        assert len(server.asked) == 2 * RUNS
    assert (chosen(layout, "first"), chosen(layout, "second")) == (RUNS, RUNS)
    assert returned["second"]["unlabelled"] == []
    assert returned["second"]["asking"]["usd_in_all"] == pytest.approx(16 * A_CALL)


def test_what_an_arm_spent_that_is_gone_is_spent_all_the_same(folder: Path):
    with ScriptedServer(reply) as server:
        select_all(folder, server.url, "{budget_usd: 0.0145, prices: prices.yaml}")
        paid = len(server.asked)
        renamed = RECIPE.replace("name: first", "name: third").replace("name: second", "name: last")
        recipe = load_recipe(
            recipe_file(folder, server.url, "{budget_usd: 0.0145, prices: prices.yaml}", renamed)
        )
        layout = Layout(folder / "run")
        run = Experiment(recipe, layout, Manifest(layout.directory))
        data, third, _ = run.preparing()
        do(data, run.manifest)
        with pytest.raises(AtlasError, match=r"selects no step at all. budget: The budget of"):
            do(third, run.manifest)
        assert len(server.asked) == paid


def test_an_alarm_is_raised_outside_of_the_range_that_the_recipe_expects(folder: Path, capsys):
    with ScriptedServer(reply) as server:
        name = "(no environment)"
        _, returned = select_all(folder, server.url, f'{{expect: {{"{name}": [0.5, 1]}}}}')
        [environment] = returned["first"]["asking"]["environments"]
        assert "25.0% of the 32 steps" in environment["alarm"]
        assert "50.0% to 100.0% are expected (as given)" in capsys.readouterr().err


def test_an_expected_environment_that_is_not_there_is_told_before_anything_is_paid(folder: Path):
    with ScriptedServer(reply) as server:
        with pytest.raises(UsageError, match="no trajectory is of that environment"):
            select_all(folder, server.url, "{expect: {textcraft: [0.1, 0.3]}}")
        assert server.asked == []


@pytest.mark.parametrize(
    ("oracle", "options", "sentence"),
    [
        ("{budget_usd: 1}", "model: m", "none is known: write it down for --prices"),
        (
            "{budget_usd: 1, prices: prices.yaml}",
            "model: m, max_tokens: null",
            "needs a limit on the answers",
        ),
        ("{prices: nowhere.yaml}", "model: m", "nowhere.yaml cannot be read"),
        ("{}", "model: m, tokenizer: nowhere.json", "no tokenizer at .*nowhere.json"),
    ],
)
def test_a_wrong_setting_costs_no_work(folder: Path, oracle: str, options: str, sentence: str):
    text = f"""
name: asked
data: [{{import: runs.json}}]
arms: [{{name: first, selector: oracle, options: {{{options}}}}}]
oracle: {oracle}
evaluate: {{environments: [{{environment: textcraft, tasks: 1}}]}}
"""
    path = folder / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=sentence):
        run_recipe(load_recipe(path), path, folder / "run", "test")
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    ("oracle", "arm", "sentence"),
    [
        ("{budget_usd: 1}", "selector: all", "oracle is set, and no arm has the selector 'oracle'"),
        ("{budget: 1}", "selector: all", "unknown key 'oracle.budget': did you mean 'budget_usd'"),
        ("{budget_usd: 0}", "selector: all", "oracle.budget_usd: a number above 0"),
        ("{expect: {a: [0.3, 0.1]}}", "selector: all", "expect.a goes from 0.3 to 0.1"),
        ("{expect: {a: [0.3, 2]}}", "selector: all", "oracle.expect.a.1: a number up to 1"),
        ("{expect: {a: 0.1-0.3}}", "selector: all", "oracle.expect.a: a list is wanted"),
        (
            "{budget_usd: 1}",
            "selector: oracle, options: {model: m}}, {name: both, selector: combine, options: "
            "{parts: [{selector: replay}, {selector: oracle, options: {model: m}}]}",
            "the arm 'both' asks an oracle as a part of 'combine'",
        ),
    ],
)
def test_a_mistake_in_the_section_is_one_sentence(folder: Path, oracle, arm, sentence):
    path = folder / "recipe.yaml"
    path.write_text(f"""
name: asked
data: [{{import: runs.json}}]
arms: [{{name: first, {arm}}}]
oracle: {oracle}
evaluate: {{environments: [{{environment: textcraft, tasks: 1}}]}}
""")
    with pytest.raises(UsageError, match=sentence):
        load_recipe(path)


def test_files_of_an_oracle_are_relative_to_the_recipe(folder: Path):
    path = folder / "recipe.yaml"
    path.write_text("""
name: asked
data: [{import: runs.json}]
arms: [{name: first, selector: oracle, options: {model: m, tokenizer: own/tokenizer.json}}]
oracle: {prices: prices.yaml}
evaluate: {environments: [{environment: textcraft, tasks: 1}]}
""")
    recipe = load_recipe(path)
    assert recipe.oracle.prices == folder / "prices.yaml"
    assert recipe.arms[0].options["tokenizer"] == str(folder / "own" / "tokenizer.json")
