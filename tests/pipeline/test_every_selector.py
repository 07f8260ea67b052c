"""Every selector, from the command line and from a recipe, on real runs of AgentTraj-L."""

import json
import lzma
from itertools import islice

import pytest

from atlas_tune.pipeline.layout import Layout
from atlas_tune.pipeline.run import run_recipe
from atlas_tune.recipe import load_recipe
from atlas_tune.select import SELECTOR_NAMES
from atlas_tune.trajectory.store import read_labels, read_selections, read_trajectories
from cli.commands import atlas
from shared_data import shared_data
from tiny_model import tiny_llama, tiny_tokenizer

ACTING = {"max_new_tokens": 4, "max_steps": 4}
ROLLING = {**ACTING, "rollouts": 1}
OPTIONS = {
    "combine": {"parts": [{"selector": "replay", "require": True}, {"selector": "surprisal"}]},
    "disagreement": {"max_new_tokens": 4, "samples": 2},
    "excess": {"tune": {"epochs": 1, "max_tokens": 8192}},
    "labels": {"file": "other.jsonl.labels.jsonl"},
    "leverage": {**ACTING, "rollouts_min": 1, "rollouts_max": 1},
    "progress": {"source": "replay"},
    "random": {"match": ["position"]},
    "value-jump": ROLLING,
}
SERVED = {"oracle"}
"""Those that ask a server: tests/select/test_oracle.py and tests/pipeline/test_oracle_arm.py."""
NAMES = [name for name in SELECTOR_NAMES if name not in SERVED]
MAY_NAME_NONE = {"leverage", "value-jump"}
"""With a policy of random weights no step is worth anything."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with three runs as AgentTraj-L has them, and a tiny model."""
    folder = tmp_path_factory.mktemp("selectors")
    source = shared_data() / "agenttraj-l" / "textcraft.jsonl.xz"
    with lzma.open(source, "rt", encoding="utf-8") as lines:
        (folder / "textcraft.jsonl").write_text("".join(islice(lines, 3)))
    tiny_llama(max_position_embeddings=16384).save_pretrained(folder / "tiny")
    tiny_tokenizer().save_pretrained(folder / "tiny")
    return folder


@pytest.mark.shared_data
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_from_the_command_line(name, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    if not (place / "runs.jsonl").exists():
        assert atlas(monkeypatch, capsys, "import", "textcraft.jsonl", "-o", "runs.jsonl")[0] == 0
        words = ("select", "runs.jsonl", "--selector", "last", "-o", "other.jsonl")
        assert atlas(monkeypatch, capsys, *words)[0] == 0
    words = ["select", "runs.jsonl", "-o", f"{name}.jsonl", "--selector", name,
             "--model", "tiny", "--of", "other.jsonl", "--json"]  # fmt: skip
    for option, value in OPTIONS.get(name, {}).items():
        words += ["--set", f"{option}={json.dumps(value)}"]
    code, told, _ = atlas(monkeypatch, capsys, *words, "--dry-run")
    assert (code, json.loads(told)["selector"]) == (0, name)
    assert not (place / f"{name}.jsonl").exists()
    code, told, _ = atlas(monkeypatch, capsys, *words)
    summary = json.loads(told)
    assert (code, summary["unlabelled"], summary["trajectories"]) == (0, [], 3)
    assert summary["selected_steps"] > 0 or name in MAY_NAME_NONE
    labels = list(read_labels(place / f"{name}.jsonl.labels.jsonl"))
    assert len(labels) == summary["steps"]
    # The second run has nothing to do, and chooses the same.
    chosen = (place / f"{name}.jsonl").read_text()
    assert atlas(monkeypatch, capsys, *words)[0] == 0
    assert len(list(read_labels(place / f"{name}.jsonl.labels.jsonl"))) == len(labels)
    assert (place / f"{name}.jsonl").read_text() == chosen


@pytest.mark.slow
@pytest.mark.shared_data
def test_they_run_from_one_recipe(place):
    # Labels on file are made by the commands of the other test.
    named = [name for name in NAMES if name not in {*MAY_NAME_NONE, "labels"}]
    # The arm that others are held against comes first.
    named.sort(key=lambda name: name != "last")
    arms = [
        {
            "name": name,
            "selector": name,
            "options": OPTIONS.get(name, {}),
            **({"of": "last"} if name in ("random", "complement") else {}),
        }
        for name in named
    ]
    path = place / "recipe.yaml"
    recipe = {
        "name": "every-selector",
        "model": str(place / "tiny"),
        "data": [{"import": "textcraft.jsonl"}],
        "arms": arms,
        "tune": {"epochs": 1, "precision": "float32"},
        "evaluate": {
            "environments": [{"environment": "textcraft", "tasks": 1, "max_steps": 1}],
            "max_new_tokens": 2,
            "untuned": False,
        },
    }
    path.write_text(json.dumps(recipe))  # JSON is YAML
    report = run_recipe(load_recipe(path), path, place / "run", "test")
    layout = Layout(place / "run")
    runs = list(read_trajectories(layout.trajectories))
    for name in named:
        assert len(read_selections(layout.selection(name))) == len(runs) == 3
        assert name in report.read_text()
