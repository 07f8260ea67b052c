import subprocess
import sys
from pathlib import Path

import pytest

from atlas_tune.errors import UsageError
from atlas_tune.select import SELECTOR_NAMES, Context, make_selector, selector_options
from atlas_tune.select.registry import located_selector
from atlas_tune.trajectory import Kind, LabelSource, Selection, StepLabel
from atlas_tune.trajectory.store import append_labels
from trajectory.runs import craft_run

NEEDED = {"oracle": {"model": "m"}, "combine": {"parts": [{"selector": "first"}]}}
CONTEXT = Context(
    other=[Selection("t", (2,), "x")],
    make_environment=lambda name: None,
    model="m",
    trajectories=[craft_run(task_id="one"), craft_run(task_id="two")],
    directory=Path("selector_files"),
)


@pytest.mark.parametrize("name", SELECTOR_NAMES)
def test_every_name_makes_a_selector_of_that_name(name, tmp_path):
    needed = NEEDED.get(name)
    if name == "labels":
        label = StepLabel("t", 2, Kind.NONE, LabelSource("ada"))
        append_labels(tmp_path / "labels.jsonl", [label])
        needed = {"file": str(tmp_path / "labels.jsonl")}
    assert make_selector(name, needed, CONTEXT).name == name


def test_paths_of_a_recipe_begin_at_the_recipe():
    found = located_selector("labels", {"file": "mine.jsonl#ada"}, Path("recipes"))
    assert found == ("labels", {"file": "recipes/mine.jsonl#ada"})


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("oracel", {}, "no selector 'oracel': did you mean 'oracle'"),
        ("random", {"sead": 1}, "no option 'sead': did you mean 'seed'"),
        ("first", {"seed": 1}, "'first' has no option 'seed': it has none"),
        ("random", {"seed": "many"}, "option 'seed' of the selector 'random' does not fit"),
        ("oracle", {}, "option 'model' of the selector 'oracle' does not fit: Field required"),
        ("oracle", {"model": "m", "concurrency": 0}, "greater than 0"),
        ("complement", {}, "no other arm is given"),
        ("replay", {}, "got no environments"),
    ],
)
def test_what_does_not_exist_or_fit_is_said(name, options, words):
    with pytest.raises(UsageError, match=words):
        make_selector(name, options)


def test_options_are_checked_without_building_anything():
    assert selector_options("complement", {"seed": 4}).model_dump() == {"seed": 4}


def test_selecting_needs_no_torch_and_loads_no_environment():
    code = "import sys, atlas_tune.select; print({'torch', 'gymnasium'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
