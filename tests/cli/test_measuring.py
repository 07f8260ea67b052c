"""`atlas-tune audit … --measure`, from files to page, JSON and screen."""

import json
from pathlib import Path

import pytest

from atlas_tune.trajectory import Outcome, Selection, Step, Trajectory
from atlas_tune.trajectory.store import (
    read_selections,
    read_trajectories,
    write_selections,
    write_trajectories,
)
from tiny_model import tiny_llama, tiny_tokenizer

FILES = ("replay.jsonl", "last.jsonl", "--runs", "runs.jsonl", "--measure", "out")


@pytest.fixture
def files(call):
    """A directory with three runs of TextCraft's expert and two selections; gives the command."""
    assert call("collect", "textcraft", "--tasks", 3, "-o", "runs.jsonl")[0] == 0
    for selector in ("replay", "last"):
        assert (
            call("select", "runs.jsonl", "--selector", selector, "-o", f"{selector}.jsonl")[0] == 0
        )
    return call


def test_measuring_writes_a_page_and_a_record_and_prints_the_chief_figures(files):
    code, printed, told = files("audit", *FILES)
    assert (code, told) == (0, "")
    runs = list(read_trajectories(Path("runs.jsonl")))
    steps = sum(len(run.agent_steps) for run in runs)
    assert f"3 runs, {steps} steps, " in printed
    assert "whole runs return 1.000" in printed
    assert f"The page: {Path('out') / 'index.html'}" in printed
    found = json.loads(Path("out/criticality.json").read_text())
    assert found["made"]["runs"] == "runs.jsonl"
    assert [one["name"] for one in found["selections"]] == ["replay", "last"]
    replay, last = found["selections"]
    assert replay["necessity"]["scores"]["precision"]["value"] == 1.0
    # The expert's last step makes the goal: it is the one step at which the score rises.
    assert (found["rises"], found["rises_at_ends"]) == (3, 3)
    assert last["rises"]["scores"]["recall"]["value"] == 1.0
    assert replay["ordered_by"] == "labels"
    assert (found["policy"], replay["started"]) == (None, None)
    page = Path("out/index.html").read_text()
    assert f"it takes {found['rollouts']} rollouts of a policy" in page
    assert Path("out/necessity.labels.jsonl").is_file()


def test_json_is_the_record_and_measuring_again_gives_the_same(files):
    code, printed, _ = files("audit", *FILES, "--json", "--draws", "100")
    first = json.loads(printed)
    assert code == 0
    assert json.loads(Path("out/criticality.json").read_text()) == first
    labels = Path("out/necessity.labels.jsonl").read_bytes()
    second = json.loads(files("audit", *FILES, "--json", "--draws", "100")[1])
    assert Path("out/necessity.labels.jsonl").read_bytes() == labels
    del first["made"], second["made"]
    assert first == second


def test_a_dry_run_counts_and_does_nothing(files):
    code, printed, told = files("audit", *FILES, "--dry-run")
    assert (code, told, Path("out").exists()) == (0, "", False)
    assert printed.startswith("3 runs: at most ")
    assert "rollouts of a policy at one from each place, if one is named" in printed
    code, printed, _ = files("audit", *FILES, "--dry-run", "--most", 1, "--json")
    assert (code, json.loads(printed)["trajectories"]) == (0, 1)


def test_runs_that_cannot_be_replayed_are_left_out_and_told(files):
    runs = list(read_trajectories(Path("runs.jsonl")))
    alien = Trajectory.create(
        (Step(1, "user", "go"), Step(2, "agent", "Action: look")),
        environment="moon",
        task_id="1",
        outcome=Outcome(success=True),
    )
    write_trajectories(Path("runs.jsonl"), [*runs, alien])
    for name in ("replay.jsonl", "last.jsonl"):
        chosen = list(read_selections(Path(name)).values())
        more = Selection(alien.trajectory_id, (2,), chosen[0].rule)
        write_selections(Path(name), [*chosen, more])
    code, printed, told = files("audit", *FILES)
    assert (code, "3 runs, " in printed) == (3, True)
    assert "not measured: There is no environment 'moon'" in told
    (bad,) = Path("out/criticality.json.quarantine.jsonl").read_text().splitlines()
    assert alien.trajectory_id in bad
    assert alien.trajectory_id[:12] in Path("out/index.html").read_text()
    write_trajectories(Path("runs.jsonl"), [alien])
    code, _, told = files("audit", *FILES)
    assert (code, "None of the 1 runs can be measured" in told) == (1, True)


@pytest.mark.slow
def test_a_policy_starts_inside_runs_and_its_rollouts_are_kept(files):
    tiny_llama().save_pretrained("tiny")
    tiny_tokenizer().save_pretrained("tiny")
    words = ("audit", *FILES, "--most", 1, "--controls", 1, "--policy", "tiny")
    words += ("--max-new-tokens", 2)
    code, printed, _ = files(*words, "--dry-run", "--json")
    most = json.loads(printed)
    assert (code, most["on_file"], Path("out").exists()) == (0, 0, False)
    code, printed, _ = files(*words)
    assert (code, "The policy from the beginning: success 0.000." in printed) == (0, True)
    found = json.loads(Path("out/criticality.json").read_text())
    (settings,) = [found["policy"]["settings"]]
    assert (settings["max_new_tokens"], settings["precision"]) == (2, "float32")
    # A model of random weights never wins, but where the recording has: the expert's last step.
    last = found["selections"][1]["started"]["success"]
    count = found["selections"][1]["steps"]
    assert last["after"]["value"] == pytest.approx(1 / count)
    assert (last["before"]["value"], found["controls"]["tokens"]) == (0.0, "supervised tokens")
    rolled = Path("out/rollouts.jsonl").read_bytes()
    assert 0 < len(rolled.splitlines()) == found["rollouts"] <= most["rollouts"]
    assert "tiny" in Path("out/index.html").read_text()
    code, printed, _ = files(*words, "--dry-run", "--json")
    assert json.loads(printed)["on_file"] == found["rollouts"]
    assert files(*words)[0] == 0
    assert Path("out/rollouts.jsonl").read_bytes() == rolled


def test_wrong_usage_is_told(files):
    for words, told in (
        (("replay.jsonl", "--measure", "out"), "name them with --runs"),
        (("--measure", "out", "--runs", "runs.jsonl"), "Name the selection files"),
        ((*FILES, "replay.jsonl"), "named twice"),
        ((*FILES, "--against", "last.jsonl"), "--against is for an audit without --measure"),
        ((*FILES, "--rollouts", "2"), "--rollouts is for a policy"),
        ((*FILES, "--policy", "tiny", "--rollouts", "2"), "Greedy rollouts from one place"),
        ((*FILES, "--policy", "tiny", "--precision", "float31"), "did you mean 'float32'"),
        ((*FILES, "--policy", "./nowhere"), "There is no model directory nowhere"),
        (("replay.jsonl", "last.jsonl", "--against", "last.jsonl"), "One selection is audited"),
        (("replay.jsonl", "--against", "last.jsonl", "--dry-run"), "--dry-run is for --measure"),
        (("replay.jsonl", "--against", "last.jsonl", "--most", 3), "--most is for --measure"),
        (("runs.jsonl", "--runs", "runs.jsonl", "--measure", "out"), "neither labels nor"),
    ):
        code, _, errors = files("audit", *words)
        assert (code in (1, 2), told in errors) == (True, True), (words, errors)
    assert not Path("out").exists()


def test_names_that_are_alike_are_told_apart_by_their_paths(files):
    Path("other").mkdir()
    write_selections(Path("other/last.jsonl"), read_selections(Path("last.jsonl")).values())
    code, _, _ = files(
        "audit", "last.jsonl", "other/last.jsonl", *FILES[2:], "--most", 2, "--draws", "100"
    )
    found = json.loads(Path("out/criticality.json").read_text())
    assert (code, [one["name"] for one in found["selections"]]) == (
        0,
        ["last.jsonl", "other/last.jsonl"],
    )
    assert found["overlaps"][0]["jaccard"]["value"] == 1.0
    assert "there is no last.jsonl.labels.jsonl beside it" in Path("out/index.html").read_text()
