import json
import subprocess
import sys

import pytest
import typer

from atlas_tune.cli import app, main
from atlas_tune.trajectory import Selection, Step, ToolCall, Trajectory, dump_trajectory
from atlas_tune.trajectory.store import (
    read_labels,
    read_selections,
    read_trajectories,
    write_selections,
    write_trajectories,
)
from scripted_server import ScriptedServer, good
from tiny_model import tiny_llama, tiny_tokenizer
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
    code, _, _ = call("export", "--to", "agentgym", runs, "--selection", chosen, "-o", out)
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
    assert "mixed.jsonl, line 2: " in told
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
        (["import", "none.jsonl", "-o", "x"], 1, "There is no file or folder none.jsonl"),
        (["run", "none.yaml"], 1, "There is no recipe none.yaml"),
        (["report", "."], 1, "results.json"),
        (["evaluate", "--env", "babyia", "-o", "x"], 2, "did you mean 'babyai'?"),
        (["collect", "textcraft", "--set", "depth=2026-13-45", "-o", "x"], 2, "not YAML: month"),
        (["collect", "textcraft", "--set", "a=1", "--set", "a=2", "-o", "x"], 2, "'a' twice"),
        (["collect", "textcraft", "--slip", "2", "-o", "x"], 2, "slip is a probability"),
        (["collect", "textcraft", "--slip", "nan", "-o", "x"], 2, "slip is a probability"),
        (["collect", "textcraft", "-o", "."], 2, "is a directory"),
        (
            ["evaluate", "--env", "textcraft", "--precision", "int8", "-o", "x"],
            2,
            "precision 'int8'",
        ),
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
        (["--budget", "0"], 2, "A budget is a share of the steps above 0, at most 1, not 0."),
        (["--budget", "nan"], 2, "at most 1, not nan."),
        (["--selector", "oracle", "--set", "model=m", "--set", "params={model: n}"], 2, "'model'"),
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
    assert "unlabelled: There is no environment 'nowhere'" in told
    assert list(read_selections(chosen)) == [good.trajectory_id]
    (bad,) = quarantine_of(chosen, told)
    assert bad["trajectory_id"] == craft_run(environment="nowhere").trajectory_id


def quarantine_of(output, told):
    """The records of the quarantine beside an output, which standard error must name."""
    path = output.with_name(output.name + ".quarantine.jsonl")
    assert str(path) in told
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_every_bad_record_is_in_the_quarantine_though_only_the_first_are_told(call, tmp_path):
    runs, chosen = tmp_path / "runs.jsonl", tmp_path / "chosen.jsonl"
    write_trajectories(runs, [craft_run()])
    good = runs.read_text()
    runs.write_text(good + "{}\n" * 7)
    for words in (["select", runs, "--selector", "all"], ["export", "--to", "agentgym", runs]):
        code, _, told = call(*words, "-o", chosen)
        assert (code, told.count("trajectory has no 'steps'")) == (3, 5)
        assert [bad["line"] for bad in quarantine_of(chosen, told)] == [2, 3, 4, 5, 6, 7, 8]
    runs.write_text(good)
    assert call("export", "--to", "agentgym", runs, "-o", chosen)[0] == 0
    assert not list(tmp_path.glob("*.quarantine.jsonl"))


def test_without_a_successful_run_nothing_is_written(call, monkeypatch, tmp_path):
    monkeypatch.setattr("atlas_tune.environments.textcraft.TextCraft.max_steps", 1)
    code, _, told = call("collect", "textcraft", "--tasks", 2, "--slip", 1, "-o", "runs.jsonl")
    assert (code, "The expert solved none of the 2 tasks" in told) == (1, True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_a_trajectory_leaves_the_old_import(call, tmp_path):
    (tmp_path / "bad.jsonl").write_text("{}\n")
    write_trajectories(tmp_path / "runs.jsonl", [craft_run()])
    code, _, told = call("import", tmp_path / "bad.jsonl", "-o", tmp_path / "runs.jsonl")
    assert (code, "bad.jsonl holds no trajectory that can be read" in told) == (1, True)
    assert len(quarantine_of(tmp_path / "runs.jsonl", told)) == 1
    assert list(read_trajectories(tmp_path / "runs.jsonl")) == [craft_run()]


def test_a_place_that_cannot_be_written_is_one_sentence(call, tmp_path):
    (tmp_path / "file").write_text("")
    runs = tmp_path / "runs.jsonl"
    write_trajectories(runs, [craft_run()])
    code, _, told = call("export", "--to", "agentgym", runs, "-o", tmp_path / "file" / "out.jsonl")
    assert code == 1
    assert f"Error: {tmp_path / 'file'}" in told
    assert "Check the path" in told


def test_export_leaves_out_what_the_format_cannot_hold(call, tmp_path):
    runs, out = tmp_path / "runs.jsonl", tmp_path / "out.jsonl"
    calling = Trajectory.create((Step(1, "agent", "", tool_calls=(ToolCall("c", "f", {}),)),))
    write_trajectories(runs, [calling, craft_run()])
    code, printed, told = call("export", "--to", "agentgym", runs, "-o", out)
    assert (code, "1 trajectories in" in printed, len(out.read_bytes().splitlines())) == (
        3,
        True,
        1,
    )
    assert "has tool calls" in quarantine_of(out, told)[0]["reason"]


def test_selections_of_other_trajectories_are_told(call, tmp_path):
    runs, chosen, out = (tmp_path / name for name in ("runs.jsonl", "chosen.jsonl", "out.jsonl"))
    here, other = craft_run(), craft_run(task_id="other")
    write_trajectories(runs, [here])
    write_selections(chosen, [Selection(x.trajectory_id, (4,), "rule") for x in (here, other)])
    code, printed, told = call("export", "--to", "agentgym", runs, "--selection", chosen, "-o", out)
    assert (code, "1 trajectories in" in printed) == (3, True)
    assert "1 of 2 selections are of no trajectory in" in told
    assert quarantine_of(out, told)[0]["trajectory_id"] == other.trajectory_id
    write_trajectories(runs, [craft_run(task_id="third")])
    for words in (["export", "--to", "agentgym", runs], ["tune", runs, "--model", "none"]):
        code, _, told = call(*words, "--selection", chosen, "-o", tmp_path / "new")
        assert (code, "None of the 2 selections in" in told) == (2, True)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--set", "learning_rat=1"], "did you mean 'learning_rate'?"),
        (["--set", "learning_rate=abc"], "learning_rate: a number is wanted, not 'abc'"),
        (["--set", "lora={rnak: 1}"], "unknown key 'lora.rnak': did you mean 'rank'?"),
        (["--set", "lora=5"], "lora: keys and values are wanted, not 5"),
        (["--seed", "-1"], "A seed is a whole number from 0 to 4294967295, not -1."),
        (["--seed", 2**32], "not 4294967296."),
    ],
)
def test_a_wrong_training_setting_is_one_sentence(call, tmp_path, words, sentence):
    runs = tmp_path / "runs.jsonl"
    write_trajectories(runs, [craft_run()])
    (tmp_path / "chosen.jsonl").write_text("")
    code, _, told = call(
        "tune", runs, "--selection", tmp_path / "chosen.jsonl", "-o", tmp_path / "m", *words
    )
    assert (code, sentence in told) == (2, True)
    assert "Traceback" not in told


def test_tuning_tells_what_is_left_out_and_keeps_the_reasons(call, tmp_path):
    tiny_llama().save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    runs, chosen = tmp_path / "runs.jsonl", tmp_path / "chosen.jsonl"
    short, empty, long = craft_run(2), craft_run(3), craft_run(40)
    write_trajectories(runs, [short, empty, long])
    picks = [(short, (4,)), (empty, ()), (long, (43,))]
    write_selections(chosen, [Selection(run.trajectory_id, ids, "x") for run, ids in picks])
    words = ["tune", runs, "--selection", chosen, "--model", tmp_path / "base"]
    words += ["--set", "epochs=1", "--set", "precision=float32"]
    code, printed, _ = call(*words, "-o", tmp_path / "one")
    assert (code, "1 trajectories without a selected step" in printed) == (0, True)
    code, _, told = call(*words, "--set", "max_tokens=200", "-o", tmp_path / "two")
    assert code == 3
    (bad,) = quarantine_of(tmp_path / "two", told)
    assert bad["trajectory_id"] == long.trajectory_id
    assert bad["reason"] == "longer than 200 tokens, so not trained"
    words = ["evaluate", "--env", "textcraft", "--tasks", 1, "--max-steps", 1, "--json"]
    words += ["--model", tmp_path / "one", "--max-new-tokens", 2, "--precision", "float32"]
    code, printed, _ = call(*words, "-o", tmp_path / "rollouts.jsonl")
    assert (code, json.loads(printed)["tasks"]) == (0, 1)


def test_the_oracle_labels_over_http_and_does_not_ask_twice(call, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    runs, chosen = tmp_path / "runs.jsonl", tmp_path / "chosen.jsonl"
    run = craft_run(steps=7)
    write_trajectories(runs, [run])
    step = {"step_id": 6, "kind": "plan_creation", "reason": "sets the way"}
    answer = {"plan": [{"subgoal": "a stick"}], "critical_steps": [{**step, "quote": "stick 2"}]}
    with ScriptedServer([good(json.dumps(answer))]) as server:
        words = ["select", runs, "--selector", "oracle", "-o", chosen, "--set", "model=m"]
        words += ["--set", f"base_url={server.url}"]
        assert call(*words)[0] == 0
        assert call(*words)[0] == 0
    assert len(server.asked) == 1
    assert server.asked[0].headers["Authorization"] == "Bearer sk-secret"
    assert read_selections(chosen)[run.trajectory_id].step_ids == (6,)
    labels = {x.step_id: x for x in read_labels(tmp_path / "chosen.jsonl.labels.jsonl")}
    assert (labels[6].kind, labels[6].reason) == ("plan_creation", "sets the way")
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"subgoal" in written
    assert b"sk-secret" not in written


HEAVY = ("torch", "transformers", "gymnasium", "matplotlib")


@pytest.mark.parametrize(
    "module",
    [
        "trajectory",
        "trajectory.formats",
        "llm",
        "select",
        "evaluate",
        "report",
        "view.app",
        "recipe",
        "cli",
    ],
)
def test_what_needs_no_model_loads_no_torch(module):
    code = f"import sys, atlas_tune.{module}; print([m for m in {HEAVY} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


COMMANDS = typer.main.get_command(app).commands
WITHOUT_JSON = {"preview", "push", "serve-env", "view"}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(call, command):
    code, printed, _ = call(command, "--help")
    assert code == 0
    assert "Usage: atlas-tune" in printed
    assert ("--json" in printed) == (command not in WITHOUT_JSON)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_no_help_holds_brackets_which_the_terminal_would_swallow(command):
    helps = [parameter.help or "" for parameter in COMMANDS[command].params]
    assert [text for text in [COMMANDS[command].help, *helps] if "[" in text] == []


def test_a_default_that_is_not_a_parameters_own_is_told(call):
    for command, told in (("evaluate", "120"), ("run", "runs/<name>")):
        assert f"[default: ({told})]" in call(command, "--help")[1]
