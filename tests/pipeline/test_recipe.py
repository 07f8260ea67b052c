import re
from pathlib import Path

import pytest

from atlas_tune.agents.local_model import DEFAULT_MODEL
from atlas_tune.environments.habits import Habits
from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.pipeline.gathering import check_data
from atlas_tune.pipeline.layout import Layout
from atlas_tune.recipe import load_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
GOOD = """
name: small
data:
  - {collect: textcraft, tasks: 4}
  - {import: runs.jsonl}
arms:
  - {name: all, selector: all}
  - {name: critical, selector: replay}
  - {name: rest, selector: complement, of: critical}
tune: {epochs: 1}
evaluate:
  environments:
    - {environment: textcraft, tasks: 4}
"""


def load(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return load_recipe(path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_project_is_valid(path):
    assert load_recipe(path).name == path.stem


def test_paths_are_relative_to_the_recipe(tmp_path):
    assert load(tmp_path, GOOD).data[1].path == tmp_path / "runs.jsonl"


def test_models_can_be_evaluated_on_a_server_that_need_not_run_yet(tmp_path):
    name = "agentgym:webshop@http://127.0.0.1:36001"
    recipe = load(tmp_path, GOOD.replace("{environment: textcraft", f"{{environment: '{name}'"))
    assert recipe.evaluate.environments[0].environment == name
    path = Layout(tmp_path).rollouts("critical", 0, name)
    assert path == tmp_path / "rollouts/critical/0/agentgym-webshop-http-127.0.0.1-36001.jsonl"
    bad = GOOD.replace("{environment: textcraft", "{environment: 'agentgym:webshop'")
    with pytest.raises(UsageError, match="does not say where the server is"):
        load(tmp_path, bad)


@pytest.mark.parametrize(
    ("wrong", "right", "sentence"),
    [
        ("epochs: 1", "epoch: 1", "unknown key 'tune.epoch': did you mean 'epochs'?"),
        ("tasks: 4}\n  - {imp", "task: 4}\n  - {imp", "unknown key 'data.0.task': did you mean 't"),
        ("selector: replay", "selector: relpay", "no selector 'relpay': did you mean 'replay'?"),
        ("collect: textcraft", "collect: textcrat", "no environment 'textcrat': did you mean"),
        ("of: critical", "of: citical", "'citical', which must be an arm above it"),
        (", of: critical", "", "the arm 'rest' needs 'of'"),
        ("name: all", "name: critical", "arms need different names"),
        ("epochs: 1", "epochs: many", "tune.epochs: a number is wanted, not 'many'"),
        ("name: small", "", "the key 'name' is missing"),
        ("runs.jsonl", "runs.jsonl, format: csv", "no format 'csv'"),
        (
            "name: small",
            "name: small\nseeds: [-1]",
            "seeds.0: a number from 0 on is wanted, not -1",
        ),
        ("name: small", "name: small\nseeds: [0, 0]", "seeds names a seed twice"),
        ("name: small", "name: small\nseeds: 0", "seeds: a list is wanted, not 0"),
        ("name: small", "name: 5", "name: a text is wanted, not 5"),
        ("name: small", "name: ../up", "letters, digits"),
        ("name: small", "name: small\n5: 6", "Keys should be strings"),
        ("name: small", "name: small\nbudget: 2", "budget: a number up to 1.0 is wanted, not 2"),
        ("epochs: 1", "schedule: cosin", "'linear', 'cosine' or 'constant' is wanted, not 'cosin'"),
        ("epochs: 1", "lora: {rnak: 1}", "unknown key 'tune.lora.rnak': did you mean 'rank'?"),
        ("tune: {epochs: 1}", "tune: 5", "tune: keys and values are wanted, not 5"),
        ("{import: runs.jsonl}", "5", "data.1: a data item needs either 'collect' or 'import'"),
        ("collect: textcraft, ", "", "data.0: a data item needs either 'collect' or 'import'"),
        ("import: runs.jsonl", "import: r, collect: textcraft, tasks: 1", "data.1: a data item ne"),
        ("{import: runs.jsonl}", "{import: 5}", "data.1.import: a path is wanted, not 5"),
        ("{import: r", "{formt: atif, import: r", "'data.1.formt': did you mean 'format'? Known: "),
        (
            "tune:",
            "tune: {lora: null}\ntune:",
            "line 11: the key 'tune' stands here and in line 10",
        ),
        ("tasks: 4}\n  - {imp", "tasks: 4, tasks: 5}\n  - {imp", "line 4: the key 'tasks' stands"),
        ("evaluate:", "evaluate:\n  against: [al]", "evaluate.against names 'al', which is no arm"),
        ("selector: all", "selector: random, options: {sed: 1}", "no option 'sed': did you mean"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_the_nearest_valid_name(
    tmp_path, wrong, right, sentence
):
    assert wrong in GOOD
    with pytest.raises(UsageError, match=re.escape(sentence)):
        load(tmp_path, GOOD.replace(wrong, right, 1))


def test_a_file_that_is_no_recipe_is_one_sentence(tmp_path):
    with pytest.raises(AtlasError, match=r"recipe.yaml, line 1: this is not YAML: "):
        load(tmp_path, "a: [")
    with pytest.raises(AtlasError, match="this is not YAML: month must be"):
        load(tmp_path, "a: 2026-13-45")
    with pytest.raises(AtlasError, match="this is not YAML: "):
        load(tmp_path, "[" * 100_000)
    with pytest.raises(AtlasError, match="not a recipe"):
        load(tmp_path, "- a")
    with pytest.raises(AtlasError, match="There is no recipe"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "recipe.yaml").write_bytes("name: größe".encode("latin-1"))
    with pytest.raises(AtlasError, match="not UTF-8 text, at byte 8"):
        load_recipe(tmp_path / "recipe.yaml")


def test_merged_keys_may_be_written_anew(tmp_path):
    merged = GOOD.replace(
        "- {collect: textcraft, tasks: 4}", "- &first {collect: textcraft, tasks: 4}"
    )
    merged = merged.replace("{import: runs.jsonl}", "{<<: *first, tasks: 5}")
    assert [source.tasks for source in load(tmp_path, merged).data] == [4, 5]


@pytest.mark.parametrize(
    ("wrong", "right", "against"),
    [
        ("", "", ("untuned", "all")),
        ("name: all", "name: every", ("untuned",)),
        ("evaluate:", "evaluate:\n  untuned: false", ("all",)),
        ("evaluate:", "evaluate:\n  against: [critical]", ("critical",)),
        ("evaluate:", "evaluate:\n  against: []", ()),
    ],
)
def test_arms_are_held_against_the_untuned_model_and_all_unless_told(
    tmp_path, wrong, right, against
):
    assert load(tmp_path, GOOD.replace(wrong, right, 1)).compared_against() == against


def test_defaults_are_those_of_the_rooms_that_use_them(tmp_path):
    recipe = load(tmp_path, GOOD)
    assert recipe.model == DEFAULT_MODEL
    assert Habits(**recipe.data[0].habits.model_dump()) == Habits()


def test_a_path_may_name_a_variable_and_one_that_is_not_set_is_told_before_the_work(
    tmp_path, monkeypatch
):
    path = tmp_path / "recipe.yaml"
    path.write_text(GOOD.replace("import: runs.jsonl", "import: $RUNS_HERE/a.jsonl"))
    monkeypatch.setenv("RUNS_HERE", str(tmp_path / "there"))
    assert load_recipe(path).data[1].path == tmp_path / "there" / "a.jsonl"
    monkeypatch.delenv("RUNS_HERE")
    with pytest.raises(AtlasError, match="export RUNS_HERE=… first"):
        check_data(load_recipe(path))
