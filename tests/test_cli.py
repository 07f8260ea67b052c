import json
import subprocess
import sys

import pytest

from atlas_tune.cli import main
from atlas_tune.trajectory import dump_trajectory
from atlas_tune.trajectory.store import read_selections, read_trajectories, write_trajectories
from trajectory.runs import craft_run


def atlas(monkeypatch, capsys, *words):
    """Run the command line in this process; returns exit code, output and errors."""
    monkeypatch.setattr(sys, "argv", ["atlas-tune", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    return ended.value.code or 0, captured.out, captured.err


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *words: atlas(monkeypatch, capsys, *words)


def test_collect_select_export(call, tmp_path):
    runs, chosen, out = (tmp_path / name for name in ("runs.jsonl", "chosen.jsonl", "out.jsonl"))
    code, printed, _ = call("collect", "textcraft", "--tasks", 5, "-o", runs, "--json")
    assert (code, json.loads(printed)["trajectories"]) == (0, 5)
    code, printed, _ = call("select", runs, "--selector", "replay", "-o", chosen, "--json")
    summary = json.loads(printed)
    assert (code, summary["trajectories"]) == (0, 5)
    selections = read_selections(chosen)
    for run in read_trajectories(runs):
        assert len(selections[run.trajectory_id].step_ids) <= max(1, len(run.agent_steps) * 3 // 10)
    code, _, _ = call("export", runs, "--selection", chosen, "-o", out)
    records = [json.loads(line) for line in out.read_bytes().splitlines()]
    losses = [turn["loss"] for record in records for turn in record["conversations"]]
    assert (code, losses.count(True)) == (0, summary["selected_steps"])


def test_collecting_is_the_same_every_time(call, tmp_path):
    files = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    for file in files:
        call("collect", "babyai", "--tasks", 3, "--seed", 7, "-o", file)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_import_quarantines_bad_records_and_says_so(call, tmp_path):
    source, out = tmp_path / "mixed.jsonl", tmp_path / "runs.jsonl"
    good = json.dumps(dump_trajectory(craft_run()))
    source.write_text(f'{good}\n{{"conversations": []}}\n{{"x": 1}}\n')
    code, printed, told = call("import", source, "-o", out)
    assert code == 3
    assert "1 trajectories with 4 steps" in printed
    assert "mixed.jsonl, line 2: no agent step to learn from" in told
    assert "line 3: no known format has this shape" in told
    assert list(read_trajectories(out)) == [craft_run()]
    quarantine = (tmp_path / "runs.jsonl.quarantine.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["line"] for line in quarantine] == [2, 3]


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["collect", "textcrat", "-o", "x"], 2, "did you mean 'textcraft'?"),
        (["collect", "textcraft", "--tasks", 9999, "-o", "x"], 2, "9999 were asked for"),
        (["collect", "textcraft", "--set", "deep=1", "-o", "x"], 2, "no task option 'deep'"),
        (["collect", "textcraft", "--set", "depth", "-o", "x"], 2, "takes KEY=VALUE"),
        (["import", "none.jsonl", "-o", "x"], 1, "There is no file none.jsonl"),
        (["run", "none.yaml"], 1, "There is no recipe none.yaml"),
        (["report", "."], 1, "results.json"),
        (["evaluate", "--env", "babyia", "-o", "x"], 2, "did you mean 'babyai'?"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_exit_code(
    call, monkeypatch, tmp_path, words, code, sentence
):
    monkeypatch.chdir(tmp_path)
    ended, _, told = call(*words)
    assert ended == code
    assert sentence in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--selector", "relpay"], 2, "did you mean 'replay'?"),
        (["--selector", "random", "--set", "sed=1"], 2, "no option 'sed'"),
        (["--selector", "complement"], 2, "no other arm is given"),
        (["--budget", "0"], 2, "budget of 0 selects nothing"),
    ],
)
def test_selecting_wrongly_is_one_sentence(call, tmp_path, words, code, sentence):
    runs = tmp_path / "runs.jsonl"
    write_trajectories(runs, [craft_run()])
    ended, _, told = call("select", runs, "-o", tmp_path / "chosen.jsonl", *words)
    assert (ended, sentence in told) == (code, True)


def test_a_trajectory_that_cannot_be_replayed_is_listed_and_the_rest_goes_on(call, tmp_path):
    runs, chosen = tmp_path / "runs.jsonl", tmp_path / "chosen.jsonl"
    call("collect", "textcraft", "--tasks", 1, "-o", runs)
    (good,) = read_trajectories(runs)
    write_trajectories(runs, [craft_run(environment="nowhere"), good])
    code, _, told = call("select", runs, "-o", chosen)
    assert code == 3
    assert "is unlabelled: There is no environment 'nowhere'" in told
    assert list(read_selections(chosen)) == [good.trajectory_id]


def test_an_unknown_training_setting_names_the_nearest(call, tmp_path):
    runs = tmp_path / "runs.jsonl"
    write_trajectories(runs, [craft_run()])
    (tmp_path / "chosen.jsonl").write_text("")
    code, _, told = call(
        "tune", runs, "--selection", tmp_path / "chosen.jsonl", "-o", tmp_path / "m",
        "--set", "learning_rat=1",
    )  # fmt: skip
    assert (code, "did you mean 'learning_rate'?" in told) == (2, True)


HEAVY = ("torch", "transformers", "gymnasium", "matplotlib")


@pytest.mark.parametrize(
    "module",
    ["trajectory", "trajectory.formats", "llm", "select", "evaluate", "report", "recipe", "cli"],
)
def test_what_needs_no_model_loads_no_torch(module):
    code = f"import sys, atlas_tune.{module}; print([m for m in {HEAVY} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "command",
    ["run", "collect", "import", "select", "tune", "evaluate", "report", "envs", "export"],
)
def test_every_command_explains_itself(call, command):
    code, printed, _ = call(command, "--help")
    assert code == 0
    assert "Usage: atlas-tune" in printed
    assert "--json" in printed
