"""The recipe of the paper's scale, run to its report with a tiny model of the same architecture.

Its data, oracle and environments are cut down to what is here: our experts' runs, a scripted
server, TextCraft and BabyAI. What stays is the recipe itself: its arms and its settings.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from test_oracle_arm import reply

from atlas_tune.checked import parse_yaml
from atlas_tune.report import load_results
from scripted_server import ScriptedServer
from tiny_model import tiny_llama, tiny_tokenizer

RECIPE = Path(__file__).parents[2] / "recipes" / "paper-8b.yaml"
HERE = ("textcraft", "babyai")


@pytest.mark.slow
def test_the_paper_s_recipe_runs_to_its_end_with_a_tiny_model(tmp_path):
    tiny_llama().save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    recipe = parse_yaml(RECIPE.read_text())
    recipe["model"] = str(tmp_path / "base")
    recipe["data"] = [{"collect": "textcraft", "tasks": 6, "options": {"depth": 1, "commands": 2}}]
    # Several processes are tested in test_run.py; accelerate shards on GPUs only.
    recipe["seeds"], recipe["processes"] = recipe["seeds"][:1], 1
    recipe["tune"] |= {"sharded": False, "rows_per_step": 4, "epochs": 1}
    places = [p for p in recipe["evaluate"]["environments"] if p["environment"] in HERE]
    recipe["evaluate"] |= {
        "environments": [place | {"tasks": 2, "max_steps": 2} for place in places],
        "max_new_tokens": 4,
    }
    assert [place.get("name", place["environment"]) for place in places] == [*HERE, "babyai-unseen"]
    run = [sys.executable, "-m", "atlas_tune", "run"]
    with ScriptedServer(reply) as server:
        for arm in recipe["arms"]:
            if arm["selector"] == "oracle":
                arm["options"] = arm["options"] | {"base_url": server.url}
        path = tmp_path / "recipe.json"
        path.write_text(json.dumps(recipe))
        words = [*run, str(path), "--dir", str(tmp_path / "run")]
        plan = subprocess.run([*words, "--plan", "--json"], capture_output=True, text=True)
        planned = {one["state"] for one in json.loads(plan.stdout)}
        done = subprocess.run(words, capture_output=True, text=True)
        again = subprocess.run([*words, "--plan", "--json"], capture_output=True, text=True)
    assert planned == {"to do"}
    assert done.returncode == 0, done.stderr[-3000:]
    assert {one["state"] for one in json.loads(again.stdout)} == {"done"}
    results = load_results(tmp_path / "run" / "report" / "results.json")
    assert [arm.name for arm in results.arms] == [
        "untuned",
        *(arm["name"] for arm in recipe["arms"]),
    ]
    assert results.complete.done == results.complete.of == 3 + 3 * len(recipe["arms"])
    assert {one.seeds for one in results.comparisons} == {1}
    assert not list(tmp_path.rglob("run/models/**/*.safetensors"))
