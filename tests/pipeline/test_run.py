"""The whole way with a real, tiny model: run, run again, kill and go on."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from atlas_tune.errors import AtlasError
from atlas_tune.evaluate.rollouts import read_rollouts, settings_path
from atlas_tune.pipeline.experiment import Experiment
from atlas_tune.pipeline.layout import Layout
from atlas_tune.pipeline.manifest import Manifest
from atlas_tune.pipeline.run import do
from atlas_tune.recipe import load_recipe
from atlas_tune.report import load_results
from atlas_tune.trajectory.store import read_selections
from tiny_model import tiny_llama, tiny_tokenizer

RECIPE = """
name: small
model: {model}
data:
  - {{collect: textcraft, tasks: 6, options: {{depth: 1, commands: 2}}}}
arms:
  - {{name: all, selector: all}}
  - {{name: critical, selector: replay}}
  - {{name: rest, selector: complement, of: critical}}
tune: {{epochs: 1, rows_per_step: 2, checkpoint_minutes: 0.000001, precision: float32}}
evaluate:
  against: [untuned, all, critical]
  max_new_tokens: 4
  batch_size: 2
  precision: float32
  environments:
    - {{environment: textcraft, tasks: 4, options: {{depth: 1, commands: 2}}, max_steps: 2}}
"""


@pytest.fixture
def recipe(tmp_path):
    tiny_llama().save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(model=tmp_path / "base"))
    return path


def command(recipe, directory):
    return [sys.executable, "-m", "atlas_tune", "run", str(recipe), "--dir", str(directory)]


def weights(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("model.safetensors")
    }


def rollouts(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.glob("rollouts/**/*.jsonl")
    }


@pytest.mark.slow
def test_a_recipe_runs_to_its_report_and_a_second_run_does_nothing(recipe, tmp_path):
    directory = tmp_path / "run"
    first = subprocess.run(command(recipe, directory), capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    results = load_results(directory / "report" / "results.json")
    assert [arm.name for arm in results.arms] == ["untuned", "all", "critical", "rest"]
    by_name = {arm.name: arm for arm in results.arms}
    assert by_name["rest"].selected_steps == by_name["critical"].selected_steps
    assert by_name["all"].selected_steps == by_name["all"].total_steps
    for arm in results.arms[1:]:
        assert arm.training.supervised_tokens > 0
    assert len(results.results) == 4
    turns = {
        arm: sum(r.mean_turns * r.tasks for r in results.results if r.arm == arm)
        for arm in ("untuned", "all", "critical", "rest")
    }
    taken = {one.arm: sum(one.taken.values()) for one in results.actions}
    assert taken == pytest.approx(turns)
    trained = {one.arm: one.trained for one in results.actions}
    assert trained["untuned"] == {}
    assert set(trained["critical"]) <= {"get", "craft", "inventory"}
    assert sum(trained["critical"].values()) == by_name["critical"].selected_steps
    # Of two arms that every other one is held against, one way round.
    assert [(one.arm, one.against) for one in results.comparisons] == [
        ("all", "untuned"),
        ("critical", "untuned"),
        ("rest", "untuned"),
        ("critical", "all"),
        ("rest", "all"),
        ("rest", "critical"),
    ]
    assert (directory / "report" / "index.html").stat().st_size > 10_000
    made = {path: path.stat().st_mtime_ns for path in directory.rglob("*.safetensors")}
    second = subprocess.run(command(recipe, directory), capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert second.stderr.count("(done before)") == first.stderr.count("✓") == 11
    assert made == {path: path.stat().st_mtime_ns for path in directory.rglob("*.safetensors")}


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_same_models_and_rollouts(recipe, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(recipe, whole), check=True, capture_output=True)
    # Killed as soon as the first model trains, and again as soon as the second one acts.
    for sign in ("models/all/0/metrics.jsonl", "rollouts/critical/0/textcraft.jsonl"):
        process = subprocess.Popen(command(recipe, killed), stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not (killed / sign).exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        assert process.poll() is None, "the run ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command(recipe, killed), check=True, capture_output=True)
    assert weights(killed) == weights(whole)
    assert rollouts(killed) == rollouts(whole)
    numbers = [
        [(r.arm, r.success_rate) for r in load_results(d / "report" / "results.json").results]
        for d in (whole, killed)
    ]
    assert numbers[0] == numbers[1]
    manifest = json.loads((killed / "manifest.json").read_text())
    assert all("outputs" in stage for stage in manifest["stages"].values())


def test_masks_of_imported_data_reach_the_arm_that_asks_for_them(tmp_path):
    turns = [
        {"from": "human", "value": "Go."},
        {"from": "gpt", "value": "first", "loss": False},
        {"from": "human", "value": "seen"},
        {"from": "gpt", "value": "second", "loss": True},
    ]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "runs.json").write_text(json.dumps([{"conversations": turns}], indent=1))
    (tmp_path / "data" / "config.json").write_text("{}")
    arms = "arms: [{name: prior, selector: import}]"
    text = RECIPE.format(model="none").split("arms:")[0].split("data:")[0] + (
        f"data: [{{import: {tmp_path / 'data'}}}]\n{arms}\n"
        "evaluate: {environments: [{environment: textcraft, tasks: 1}]}\n"
    )
    (tmp_path / "recipe.yaml").write_text(text)
    recipe = load_recipe(tmp_path / "recipe.yaml")
    layout = Layout(tmp_path / "run")
    layout.directory.mkdir()
    run = Experiment(recipe, layout, Manifest(layout.directory))
    for stage in run.preparing():
        do(stage, run.manifest)
    (selection,) = read_selections(layout.selection("prior")).values()
    assert selection.step_ids == (3,)
    assert read_selections(layout.selection("prior")).keys() == {run.trajectories[0].trajectory_id}


def atlas_tune(*words):
    done = subprocess.run(
        [sys.executable, "-m", "atlas_tune", *map(str, words)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done


def planned(recipe, directory, *words):
    told = atlas_tune("run", recipe, "--dir", directory, "--plan", "--json", *words).stdout
    return {one["name"]: one["state"] for one in json.loads(told)}


@pytest.mark.slow
def test_a_part_runs_alone_and_another_seed_adds_only_itself(recipe, tmp_path):
    directory = tmp_path / "run"
    recipe.write_text(recipe.read_text() + "keep_weights: false\n")
    plan = planned(recipe, directory)
    assert len(plan) == 11 and set(plan.values()) == {"to do"}
    assert not directory.exists()
    # The complement needs the selection of 'critical', and not its model.
    atlas_tune("run", recipe, "--dir", directory, "--only", "arm=rest", "--only", "arm=untuned")
    results = load_results(directory / "report" / "results.json")
    assert [arm.name for arm in results.arms] == ["untuned", "rest"]
    assert (results.complete.done, results.complete.of) == (2, 4)
    done = {name for name, state in planned(recipe, directory).items() if state == "done"}
    assert done == {
        "data",
        "select critical",
        "select rest",
        "evaluate untuned on textcraft",
        "tune rest, seed 0",
        "evaluate rest, seed 0 on textcraft",
    }
    assert not weights(directory)
    atlas_tune("run", recipe, "--dir", directory)
    before = rollouts(directory)
    recipe.write_text(recipe.read_text() + "seeds: [0, 1]\n")
    plan = planned(recipe, directory)
    assert {name for name, state in plan.items() if state == "to do"} == {
        name for name in plan if "seed 1" in name
    }
    atlas_tune("run", recipe, "--dir", directory)
    assert before.items() <= rollouts(directory).items()
    results = load_results(directory / "report" / "results.json")
    assert {c.seeds for c in results.comparisons} == {2}
    # Under other settings none of this is the recipe's any more, but what runs now.
    whole = recipe.read_text()
    recipe.write_text(whole.replace("max_new_tokens: 4", "max_new_tokens: 5"))
    atlas_tune("run", recipe, "--dir", tmp_path / "run", "--only", "arm=untuned")
    results = load_results(directory / "report" / "results.json")
    assert {one.arm for one in results.results} == {"untuned"}
    assert (results.complete.done, results.complete.of) == (1, 7)
    recipe.write_text(whole)
    atlas_tune("run", recipe, "--dir", directory)
    assert before.items() <= rollouts(directory).items()
    # Another place needs the weights, which are made again and give what they gave before.
    text = recipe.read_text().replace(
        "max_steps: 2}", "max_steps: 2}\n    - {environment: babyai, tasks: 1, max_steps: 1}"
    )
    recipe.write_text(text)
    made_again = planned(recipe, directory, "--only", "arm=all", "--only", "seed=0")
    assert made_again["tune all, seed 0"] == "changed"
    told = atlas_tune("run", recipe, "--dir", directory, "--only", "arm=all", "--only", "seed=0")
    assert "weights were removed, and are made again" in told.stderr
    assert "✓ evaluate all, seed 0 on textcraft (done before)" in told.stderr
    assert before.items() <= rollouts(directory).items()


def acted(directory):
    """What was said in each run of all rollouts, and their settings, by arm and seed."""
    words, settings = {}, {}
    for path in directory.glob("rollouts/**/*.jsonl"):
        model = str(path.parent.relative_to(directory / "rollouts"))
        runs = [rollout.trajectory for rollout in read_rollouts(path)]
        words[model] = [[step.message for step in run.steps] for run in runs]
        settings[model] = json.loads(settings_path(path).read_text())
    return words, settings


@pytest.mark.slow
def test_models_are_sampled_from_where_the_recipe_says_so(recipe, tmp_path):
    text = recipe.read_text() + "seeds: [0, 7]\n"
    only = ("--only", "arm=all", "--only", "arm=untuned")
    recipe.write_text(text)
    atlas_tune("run", recipe, "--dir", tmp_path / "greedy", *only)
    recipe.write_text(text.replace("max_new_tokens: 4", "max_new_tokens: 4\n  temperature: 1.0"))
    planned_anew = planned(recipe, tmp_path / "greedy", *only)
    assert {name for name, state in planned_anew.items() if state != "done"} == {
        name for name in planned_anew if name.startswith("evaluate")
    }
    for directory in ("sampled", "again"):
        atlas_tune("run", recipe, "--dir", tmp_path / directory, *only)
    greedy, how = acted(tmp_path / "greedy")
    assert all("temperature" not in settings for settings in how.values())
    sampled, how = acted(tmp_path / "sampled")
    seeds = {model: settings["seed"] for model, settings in how.items()}
    assert seeds == {"all/0": 0, "all/7": 7, "untuned/base": 0}
    assert all(settings["temperature"] == 1.0 for settings in how.values())
    assert all(sampled[model] != greedy[model] for model in greedy)
    assert acted(tmp_path / "again")[0] == sampled


@pytest.mark.slow
def test_two_processes_tune_the_model_that_one_tunes(recipe, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    part = ["--only", "arm=critical"]
    atlas_tune("run", recipe, "--dir", one, *part)
    recipe.write_text(recipe.read_text() + "processes: 2\n")
    atlas_tune("run", recipe, "--dir", two, *part)
    from safetensors.torch import load

    (single,), (shared,) = weights(one).values(), weights(two).values()
    for name, weight in load(single).items():
        assert (weight - load(shared)[name]).abs().max() < 1e-6, name
    assert not list(two.glob("models/critical/*.json"))


def test_arms_that_differ_in_their_budget_share_labels(tmp_path):
    text = RECIPE.format(model="none").replace(
        "  - {name: rest, selector: complement, of: critical}",
        "  - {name: more, selector: replay, budget: 0.6}",
    )
    (tmp_path / "recipe.yaml").write_text(text)
    recipe = load_recipe(tmp_path / "recipe.yaml")
    layout = Layout(tmp_path / "run")
    layout.directory.mkdir()
    run = Experiment(recipe, layout, Manifest(layout.directory))
    for stage in run.preparing():
        do(stage, run.manifest)
    # Labels carry the time they were made, so equal bytes were made once.
    assert layout.labels("more").read_bytes() == layout.labels("critical").read_bytes()
    less, more = (read_selections(layout.selection(name)) for name in ("critical", "more"))
    assert all({*less[name].step_ids} <= {*more[name].step_ids} for name in less)
    assert sum(map(len, (s.step_ids for s in less.values()))) < sum(
        map(len, (s.step_ids for s in more.values()))
    )


@pytest.mark.parametrize(
    ("word", "told"),
    [("arm=al", "did you mean 'all'"), ("seed=3", "no such seed"), ("model=x", "takes arm=")],
)
def test_a_part_that_is_not_there_is_one_sentence(tmp_path, word, told):
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(model="none"))
    done = subprocess.run(
        [*command(tmp_path / "recipe.yaml", tmp_path / "run"), "--only", word],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert told in " ".join(done.stderr.split())


def test_a_model_that_another_recipe_is_still_to_make_is_missed_before_anything_is_done(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(model="runs/first/models/all/0"))
    with pytest.raises(AtlasError, match="if another recipe makes the model, run that one first"):
        Experiment(
            load_recipe(tmp_path / "recipe.yaml"),
            Layout(tmp_path / "run"),
            Manifest(tmp_path / "run"),
        )
