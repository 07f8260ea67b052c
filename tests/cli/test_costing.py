"""`atlas-tune cost` and `atlas-tune preview`."""

import json
import re
from pathlib import Path

import pytest
from transformers import MambaConfig

from atlas_tune.trajectory import Kind, LabelSource, Selection, StepLabel, Trajectory
from atlas_tune.trajectory.sidecars import labels_beside
from atlas_tune.trajectory.store import append_labels, write_selections, write_trajectories
from tiny_model import tiny_llama, tiny_tokenizer
from trajectory.runs import craft_run


@pytest.fixture
def store(call):
    """Runs, of which the first step is selected, and a model without weights."""
    runs = [craft_run(steps=3, task_id=str(i)) for i in range(3)]
    odd = runs[0].steps[-1]
    runs.append(Trajectory.create(tuple(runs[0].steps), notes="<b>&amp;</b>"))
    assert odd.source == "agent"
    first = [run.agent_steps[0].step_id for run in runs]
    write_trajectories(Path("runs.jsonl"), runs)
    write_selections(
        Path("chosen.jsonl"),
        [Selection(r.trajectory_id, (s,), "test") for r, s in zip(runs, first, strict=True)],
    )
    append_labels(
        labels_beside(Path("chosen.jsonl")),
        [
            StepLabel(r.trajectory_id, s, Kind.PLAN_CREATION, LabelSource("test"))
            for r, s in zip(runs, first, strict=True)
        ],
    )
    tiny_tokenizer().save_pretrained("model")
    tiny_llama().config.save_pretrained("model")
    return runs


def test_the_cost_is_told_without_weights(call, store):
    words = ("cost", "runs.jsonl", "--selection", "chosen.jsonl", "--model", "./model")
    code, printed, _ = call(*words, "--set", "rows_per_step=4", "--json")
    found = json.loads(printed)
    assert code == 0
    assert (found["optimiser_steps"], found["weights"]) == (1, found["trained_weights"])
    ways = found["ways"]
    assert ways["shared prefixes"]["flops"] < ways["plain"]["flops"] / 2
    code, printed, told = call(*words, "--shape", "llama-3.1-8b", "--set", "lora={rank: 4}")
    assert code == 0
    assert "of 8,0" in printed and "shared prefixes" in printed
    assert "Tokens are those of ./model" in told


def test_what_is_held_out_is_not_counted(call, store):
    words = ("cost", "runs.jsonl", "--selection", "chosen.jsonl", "--model", "./model", "--json")
    whole, half = (
        json.loads(call(*words, "--set", f"held_out={share}")[1])["tokens"] for share in (0, 0.5)
    )
    assert 0 < half < whole


def test_an_architecture_without_attention_is_one_sentence(call, store):
    MambaConfig(hidden_size=8, num_hidden_layers=1).save_pretrained("mamba")
    Path("odd.json").write_text('{"model_type": "nothing-known"}')
    words = ("cost", "runs.jsonl", "--selection", "chosen.jsonl", "--model", "./model", "--shape")
    for shape, sentence in (("./mamba", "no stack of like"), ("odd.json", "nothing-known")):
        code, _, told = call(*words, shape)
        assert code == 2
        assert sentence in told


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--shape", "llama-9b"), "neither a file nor a shape that is known here"),
        (("--set", "row_per_step=4"), "did you mean 'rows_per_step'"),
        (("--set", "max_tokens=2"), "selects no step of a trajectory that fits into 2 tokens"),
    ],
)
def test_what_cannot_be_told_is_one_sentence(call, store, words, sentence):
    command = ("cost", "runs.jsonl", "--selection", "chosen.jsonl", "--model", "./model")
    code, _, told = call(*command, *words)
    assert code == 2
    assert sentence in told


def test_the_trained_tokens_are_marked(call, store):
    words = ("preview", "runs.jsonl", "--selection", "chosen.jsonl", "--model", "./model")
    code, printed, _ = call(*words)
    step = store[0].agent_steps[0].message
    assert code == 0
    assert f"〖{step}" in printed
    assert printed.count("〖") == printed.count("〗") == 1
    assert f"{store[0].trajectory_id[:12]}:" in printed
    number = store[0].agent_steps[0].step_id
    (counted,) = re.findall(rf"step {number} \(plan creation\): (\d+) tokens trained", printed)
    assert f": {counted} of " in printed
    code, printed, _ = call(*words, "--trajectory", store[2].trajectory_id[:9])
    assert f"{store[2].trajectory_id[:12]}:" in printed
    code, _, told = call(*words, "--trajectory", "nothing")
    assert code == 2
    assert "whose id begins with 'nothing'" in told


def test_the_page_marks_them_too_and_fetches_nothing(call, store):
    words = ("preview", "runs.jsonl", "--selection", "chosen.jsonl", "--model", "./model")
    code, _, told = call(*words, "--html", "page.html", "--rows", 3)
    page = Path("page.html").read_text()
    assert code == 0
    assert "3 rows of 3 trajectories in page.html" in told
    assert page.count("<mark") == 3
    assert page.count("plan creation") == 3
    assert "1 more trajectories are not shown" in page
    assert "default-src" in page
    assert not re.search(r"https?://|<script|<img|<link", page)
