import re
from pathlib import Path

import pytest

from atlas_tune.errors import AtlasError, UsageError
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
        ("epochs: 1", "epochs: many", "tune.epochs: Input should be a valid number"),
        ("name: small", "", "the key 'name' is missing"),
        ("runs.jsonl", "runs.jsonl, format: csv", "no format 'csv'"),
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
    with pytest.raises(AtlasError, match="is not YAML"):
        load(tmp_path, "a: [")
    with pytest.raises(AtlasError, match="not a recipe"):
        load(tmp_path, "- a")
    with pytest.raises(AtlasError, match="There is no recipe"):
        load_recipe(tmp_path / "none.yaml")
