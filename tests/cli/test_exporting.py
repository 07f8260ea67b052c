"""`atlas-tune export`: rows, configuration, what is refused and what is told."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from atlas_tune.cli import main
from atlas_tune.trajectory import LabelSource, Selection, StepLabel
from atlas_tune.trajectory.exports.targets import TARGETS
from atlas_tune.trajectory.exports.templates import TEMPLATES
from atlas_tune.trajectory.formats import IMPORT
from atlas_tune.trajectory.sidecars import labels_beside
from atlas_tune.trajectory.store import append_labels, write_selections, write_trajectories
from tiny_model import tiny_llama, tiny_tokenizer
from trajectory.exports.talks import tool_run
from trajectory.runs import craft_run
from tune.tool_runs import chat_tokenizer, template


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Runs the command line in a directory with runs; gives exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    write_trajectories(Path("runs.jsonl"), [craft_run(), tool_run()])

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["atlas-tune", "export", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run


def rows_of(path="rows.jsonl"):
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]


@pytest.fixture
def model(tmp_path):
    """A directory with a tokenizer whose template is Qwen2.5's."""
    directory = tmp_path / "qwen"
    return saved(chat_tokenizer(template("qwen2.5")), directory)


def saved(tokenizer, directory):
    """A model directory without weights, which no export needs."""
    tokenizer.save_pretrained(directory)
    tiny_llama().config.save_pretrained(directory)
    return directory


def test_weights_that_no_format_holds_are_told(call, model):
    run = craft_run()
    step = run.agent_steps[0].step_id
    for weights, told_of in (((2.0,), True), (None, False)):
        write_selections(
            Path("chosen.jsonl"), [Selection(run.trajectory_id, (step,), "mine", weights)]
        )
        words = ("--selection", "chosen.jsonl", "--to", "trl", "--model", model, "-o", "rows.jsonl")
        code, _, told = call("runs.jsonl", *words)
        assert code == 0
        assert ("1 selections weigh their steps" in told) == told_of


def test_without_a_target_they_are_listed(call):
    code, _, told = call("runs.jsonl", "-o", "rows.jsonl")
    assert code == 2
    assert all(f"  {name} " in told for name in TARGETS)
    code, _, told = call("runs.jsonl", "-o", "rows.jsonl", "--to", "ms-swft")
    assert (code, "did you mean 'ms-swift'" in told) == (2, True)
    assert not Path("rows.jsonl").exists()


def test_only_the_selected_step_carries_loss_and_the_printed_lines_are_yaml(call):
    run = craft_run()
    chosen = Selection(run.trajectory_id, (5,), "test")
    write_selections(
        Path("chosen.jsonl"), [chosen, Selection(tool_run().trajectory_id, (), "test")]
    )
    code, printed, told = call(
        "runs.jsonl", "--to", "axolotl", "--selection", "chosen.jsonl", "-o", "rows.jsonl"
    )
    assert code == 0
    (row,) = rows_of()
    assert [m["loss"] for m in row["messages"] if m["role"] == "assistant"] == [False, False, True]
    assert "1 trajectories in rows.jsonl; 1 left out" in printed
    assert "1 trajectories have no selected step" in told
    assert "path: rows.jsonl" in printed
    assert "# a bound; --model gives the number of tokens" in printed


def test_without_a_selection_all_steps_carry_loss_and_it_is_said(call):
    code, printed, told = call("runs.jsonl", "--to", "ms-swift", "-o", "rows.jsonl", "--json")
    summary = json.loads(printed)
    assert code == 0
    assert "every step of the agent carries loss" in told
    assert (summary["trajectories"], summary["steps"], summary["left_out"]) == (2, 7, 0)
    assert "--dataset rows.jsonl" in summary["config"]


def test_a_mask_that_came_with_the_data_is_told_of(call):
    words = ("runs.jsonl", "--to", "ms-swift", "-o", "rows.jsonl")
    sidecar, run = labels_beside(Path("runs.jsonl")), craft_run()
    append_labels(sidecar, [StepLabel(run.trajectory_id, 4, None, LabelSource("oracle"))])
    assert "a mask came with" not in call(*words)[2], "labels, but not of the import"
    append_labels(sidecar, [StepLabel(run.trajectory_id, 4, None, IMPORT, score=1.0)])
    _, _, told = call(*words)
    assert "a mask came with the data (runs.jsonl.labels.jsonl): select --selector import" in told
    write_selections(Path("chosen.jsonl"), [Selection(run.trajectory_id, (4,), "import")])
    assert "a mask came with" not in call(*words, "--selection", "chosen.jsonl")[2]
    sidecar.write_text("no label\n")
    assert call(*words)[0] == 0, "labels that are not used cannot stop an export"


def test_trl_gets_the_template_that_writes_what_the_model_writes(call, model):
    code, printed, _ = call(
        "runs.jsonl", "--to", "trl", "--model", model, "-o", "rows.jsonl", "--json"
    )
    summary = json.loads(printed)
    assert code == 0
    path = Path(summary["template"])
    assert path.name == "rows.jsonl.qwen2.5.jinja"
    assert path.read_text(encoding="utf-8") == TEMPLATES["qwen2.5"].text
    assert f'chat_template_path="{path}"' in summary["config"]
    tokenizer = chat_tokenizer(template("qwen2.5"))
    lengths = [
        len(
            tokenizer.apply_chat_template(
                row["messages"], tools=json.loads(row.get("tools", "null")), return_dict=False
            )
        )
        for row in rows_of()
    ]
    assert summary["longest_row"] == max(lengths)
    assert f"max_length={max(lengths)},\n" in summary["config"]


def test_the_output_is_a_script_as_it_is(call, model):
    code, printed, _ = call("runs.jsonl", "--to", "trl", "--model", model, "-o", "rows.jsonl")
    assert (code, printed.startswith("# 2 trajectories in rows.jsonl")) == (0, True)
    assert ast.parse(printed)


def test_a_line_break_in_a_path_does_not_end_the_comment(call, model):
    words = ("runs.jsonl", "--to", "trl", "--model", model, "-o")
    code, printed, _ = call(*words, "two\nlines.jsonl")
    assert (code, "# 2 trajectories in two lines.jsonl" in printed) == (0, True)
    assert ast.parse(printed)
    assert json.loads(call(*words, "two\nlines.jsonl", "--json")[1])["output"] == "two\nlines.jsonl"


SLOW = [
    pytest.param(name, marks=pytest.mark.slow) for name in ("trl-tokenised", "prompt-completion")
]


@pytest.mark.parametrize("name", ["trl", *SLOW])
def test_the_printed_script_trains_without_a_gpu(call, tmp_path, name):
    pytest.importorskip("trl")
    tokenizer = chat_tokenizer(template("qwen2.5"))
    tiny_llama(vocab_size=len(tokenizer)).save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    output = "it's" if name == "trl-tokenised" else "it's.jsonl"
    code, script, _ = call("runs.jsonl", "--to", name, "--model", "tiny", "-o", output)
    assert code == 0
    script = script.replace("SFTConfig(", "SFTConfig(max_steps=2, save_strategy='no', ")
    Path("train.py").write_text(script, encoding="utf-8")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [sys.executable, "train.py"], capture_output=True, text=True, env=environment, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "train_loss" in ran.stdout


def test_trl_without_a_template_is_asked_for_one(call):
    code, _, told = call("runs.jsonl", "--to", "trl", "-o", "rows.jsonl")
    assert (code, "name it with --template" in told) == (2, True)


def test_a_model_whose_template_is_none_of_ours(call, tmp_path):
    strange = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|im_end|>{% endfor %}"
    saved(tiny_tokenizer(strange), tmp_path / "strange")
    words = ("runs.jsonl", "--to", "nemo-automodel", "--model", "strange", "-o", "rows.jsonl")
    code, _, told = call(*words)
    assert (code, "No template of ours writes what" in told) == (2, True)
    code, _, told = call(*words, "--template", "qwen2.5")
    assert (code, "qwen2.5 writes other text than" in told) == (0, True)


def test_a_template_without_tools_leaves_runs_with_tools_out(call):
    code, printed, told = call(
        "runs.jsonl", "--to", "trl", "--template", "chatml", "-o", "rows.jsonl"
    )
    assert (code, "1 trajectories in" in printed) == (3, True)
    assert "the template chatml has no form" in told
    assert told.count(tool_run().trajectory_id[:12]) == 1
    (bad,) = rows_of("rows.jsonl.quarantine.jsonl")
    assert bad["trajectory_id"] == tool_run().trajectory_id


def test_tokens_that_cannot_be_masked_are_told_with_one_id(call, tmp_path):
    pytest.importorskip("datasets")
    silent = "{% for m in messages %}{% if not m.tool_calls %}{{ m.content }}{% endif %}<|im_end|>"
    saved(chat_tokenizer(silent + "{% endfor %}"), tmp_path / "silent")
    code, _, told = call("runs.jsonl", "--to", "tokenised", "--model", "silent", "-o", "rows")
    assert (code, told.count(tool_run().trajectory_id[:12])) == (3, 1)
    (bad,) = rows_of("rows.quarantine.jsonl")
    assert bad["reason"].startswith("steps 3, 4, 5: step 3: the chat template of silent writes")


@pytest.mark.parametrize("name", ["verl", "openrlhf", "nemo-rl", "tokenised", "trl-tokenised"])
def test_text_and_tokens_need_a_model(call, name):
    code, _, told = call("runs.jsonl", "--to", name, "-o", "rows")
    assert (code, "name it with --model" in told) == (2, True)


def test_rows_per_step_tell_what_they_cost(call, model):
    code, printed, _ = call("runs.jsonl", "--to", "openrlhf", "--model", model, "-o", "rows.jsonl")
    assert code == 0
    assert len(rows_of()) == 7
    assert "# 7 rows, " in printed and "times the tokens of one masked row" in printed
    code, printed, _ = call("runs.jsonl", "--to", "open-instruct", "-o", "rows.jsonl", "--json")
    summary = json.loads(printed)
    assert (code, summary["overhead_in"], len(rows_of())) == (3, "characters", 4)
    assert summary["overhead"] > 1


@pytest.mark.parametrize("output", ["rows.parquet", "rows"])
def test_tokens_and_their_figures(call, model, output):
    pytest.importorskip("pyarrow")
    pytest.importorskip("datasets")
    words = ("runs.jsonl", "--to", "tokenised", "--model", model, "-o", output, "--json")
    code, printed, _ = call(*words)
    summary = json.loads(printed)
    assert (code, summary["trajectories"], summary["steps"]) == (0, 2, 7)
    assert summary["supervised_tokens"] < summary["tokens"]
    assert Path(output).exists()
    assert call(*words)[0] == 0, "the same command again replaces its output"


def test_llamafactory_gets_a_directory_without_other_columns(call, model):
    datasets = pytest.importorskip("datasets")
    words = ("runs.jsonl", "--to", "llamafactory-tokenised", "--model", model, "-o")
    code, _, told = call(*words, "rows.parquet")
    assert (code, "is a directory: name one with -o" in told) == (2, True)
    code, printed, _ = call(*words, "rows")
    assert (code, "tokenized_path: rows\n" in printed) == (0, True)
    columns = datasets.load_from_disk("rows").column_names
    assert columns == ["input_ids", "attention_mask", "labels"]
    code, _, told = call("runs.jsonl", "--to", "axolotl", "-o", "rows")
    assert (code, "rows is a directory" in told) == (2, True)


def test_options_without_use_are_refused(call, model):
    words = ("runs.jsonl", "--model", model, "-o", "rows.jsonl", "--to")
    code, _, told = call(*words, "axolotl", "--template", "chatml")
    assert (code, "--template is for trl and nemo-automodel" in told) == (2, True)
    code, _, told = call(*words, "verl", "--whole")
    assert (code, "--whole is for exports of messages" in told) == (2, True)
    code, _, told = call(*words, "ms-swift", "--whole")
    assert (code, "--whole would go wrong with ms-swift" in told) == (2, True)
    code, _, told = call(*words, "trl", "--template", "chatlm")
    assert (code, "did you mean 'chatml'" in told) == (2, True)


def test_whole_keeps_what_follows(call):
    run = craft_run()
    write_selections(Path("chosen.jsonl"), [Selection(run.trajectory_id, (4,), "test")])
    words = ("runs.jsonl", "--to", "slime", "--selection", "chosen.jsonl", "-o", "rows.jsonl")
    assert call(*words)[0] == 0
    (short,) = rows_of()
    assert call(*words, "--whole")[0] == 0
    (whole,) = rows_of()
    assert whole["messages"][: len(short["messages"])] == short["messages"]
    assert (len(short["messages"]), len(whole["messages"])) == (4, 11)


def test_nothing_that_can_be_held_is_an_error_and_writes_nothing(call):
    write_trajectories(Path("runs.jsonl"), [tool_run()])
    code, _, told = call("runs.jsonl", "--to", "agentgym", "-o", "rows.jsonl")
    assert (code, "agentgym can hold none of the trajectories" in told) == (1, True)
    assert not Path("rows.jsonl").exists()


def test_the_command_loads_no_torch():
    code = (
        "import sys, atlas_tune.cli.exporting, atlas_tune.trajectory.exports.stage; "
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
