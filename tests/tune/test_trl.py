"""TRL, unchanged, trains exactly the selected steps: from token ids and from messages."""

import json

import datasets
import pytest
import torch
from trl import SFTConfig, SFTTrainer

from atlas_tune.trajectory import Selection
from atlas_tune.trajectory.exports.dialects import DIALECTS
from atlas_tune.trajectory.exports.messages import write
from atlas_tune.trajectory.exports.rows import write_rows
from atlas_tune.tune.loss import supervised_loss_sum
from atlas_tune.tune.padded_loss import collate
from atlas_tune.tune.render import render_rows
from atlas_tune.tune.rows import IGNORED
from atlas_tune.tune.tokenised import write_tokenised
from tiny_model import tiny_llama
from trajectory.runs import craft_run
from tune.tool_runs import chat_tokenizer, template, tool_run

TALK = [(craft_run(steps=4), (0, 2)), (craft_run(steps=2, task_id="t2"), (0, 1))]
CALLS = [
    (tool_run(task_id="two"), (1, 3)),
    (tool_run(parallel=False), (0, 4)),
    (tool_run(task_id="all"), (0, 1, 2, 3, 4)),
]
END = {"llama3": "<|eot_id|>"}
FORMATS = [("chatml", TALK), ("llama3", TALK), ("qwen2.5", TALK), ("qwen2.5", TALK + CALLS)]


def selections_of(cases):
    return {
        run.trajectory_id: Selection(
            run.trajectory_id, tuple(run.agent_steps[i].step_id for i in places), "test"
        )
        for run, places in cases
    }


def rows_of(tokenizer, cases):
    """What our own trainer trains: one row per run, cut after its last supervised token."""
    chosen = selections_of(cases)
    rows = [
        row for run, _ in cases for row in render_rows(tokenizer, run, chosen[run.trajectory_id])
    ]
    assert len(rows) == len(cases)
    return rows


def trainer_of(dataset, tokenizer, directory, **settings):
    """TRL's trainer in float32 on the CPU; ``settings`` are what a user would set."""
    config = {
        "output_dir": str(directory),
        "per_device_train_batch_size": len(dataset),
        "max_steps": 1,
        "logging_steps": 1,
        "use_cpu": True,
        "bf16": False,
        "activation_checkpointing": False,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    return SFTTrainer(
        tiny_llama(vocab_size=len(tokenizer)),
        args=SFTConfig(**{**config, **settings}),
        train_dataset=dataset,
        processing_class=tokenizer,
    )


def batch_of(trainer):
    """The ids and labels of all rows, as TRL's own data loader and collator give them.

    Each row without its padding and without what follows its last supervised token.
    """
    (batch,) = list(trainer.get_train_dataloader())
    found = []
    for ids, mask, labels in zip(
        *(batch[key].tolist() for key in ("input_ids", "attention_mask", "labels")), strict=True
    ):
        assert all(label == IGNORED for label, real in zip(labels, mask, strict=True) if not real)
        end = max(i for i, label in enumerate(labels) if label != IGNORED) + 1
        found.append((tuple(ids[:end]), tuple(labels[:end])))
    return sorted(found)


def tokenised(cases, tokenizer, path):
    write_tokenised([run for run, _ in cases], selections_of(cases), tokenizer, path)
    if path.suffix == ".parquet":
        return load("parquet", path)
    return datasets.load_from_disk(str(path))


def messages(cases, path):
    chosen = selections_of(cases)
    records = [write(run, DIALECTS["trl"], chosen[run.trajectory_id]) for run, _ in cases]
    write_rows(path, records, arrow=DIALECTS["trl"].arrow)
    return load("json", path)


def load(kind, path):
    cache = str(path.parent / "hf")
    return datasets.load_dataset(kind, data_files=str(path), split="train", cache_dir=cache)


@pytest.mark.parametrize("name", ["rows.parquet", "rows"])
@pytest.mark.parametrize(("form", "cases"), FORMATS)
def test_trl_takes_the_labels_of_the_tokenised_dataset_as_they_are(tmp_path, form, cases, name):
    tokenizer = chat_tokenizer(template(form), END.get(form, "<|im_end|>"))
    data = tokenised(cases, tokenizer, tmp_path / name)
    found = batch_of(trainer_of(data, tokenizer, tmp_path / "out", max_length=None))
    rows = rows_of(tokenizer, cases)
    assert found == sorted((row.input_ids, row.labels) for row in rows)


@pytest.mark.parametrize(("form", "cases"), FORMATS)
def test_trl_trains_the_same_tokens_from_messages_and_our_template(tmp_path, form, cases):
    tokenizer = chat_tokenizer(template(form), END.get(form, "<|im_end|>"))
    (tmp_path / "template.jinja").write_text(template(form), encoding="utf-8")
    trainer = trainer_of(
        messages(cases, tmp_path / "rows.jsonl"),
        tokenizer,
        tmp_path / "out",
        assistant_only_loss=True,
        chat_template_path=str(tmp_path / "template.jinja"),
        max_length=None,
    )
    rows = rows_of(tokenizer, cases)
    assert batch_of(trainer) == sorted((row.input_ids, row.labels) for row in rows)


def test_the_supervised_text_is_the_selected_steps_with_their_calls_and_no_nulls(tmp_path):
    tokenizer = chat_tokenizer(template("qwen2.5"))
    trainer = trainer_of(
        messages(TALK + CALLS, tmp_path / "rows.jsonl"),
        tokenizer,
        tmp_path / "out",
        assistant_only_loss=True,
        max_length=None,
    )
    wanted = [
        "".join(step_text(run.agent_steps[place]) for place in places)
        for run, places in TALK + CALLS
    ]
    found = [
        (tokenizer.decode([i for i in labels if i != IGNORED]), tokenizer.decode(ids))
        for ids, labels in batch_of(trainer)
    ]
    assert sorted(text for text, _ in found) == sorted(wanted)
    # Arrow gives the objects of a column the same keys and fills them with nulls: datasets before
    # 5 did so to arguments that were no text.
    for _, whole in found:
        assert "null" not in whole and "None" not in whole


def step_text(step):
    """A step in Qwen2.5's format, written down here once more and by other means."""
    calls = []
    for call in step.tool_calls:
        body = {"name": call.function_name, "arguments": call.arguments}
        calls.append(f"<tool_call>\n{json.dumps(body, ensure_ascii=False)}\n</tool_call>")
    return "\n".join([step.message] * bool(step.message) + calls) + "<|im_end|>"


def test_trls_own_length_limit_would_drop_supervised_tokens_and_ours_does_not(tmp_path):
    """TRL cuts at 1024 tokens unless told otherwise: the end of a run is lost without a word."""
    tokenizer, cases = chat_tokenizer(template("qwen2.5")), [(craft_run(steps=40), (0, 39))]
    data = tokenised(cases, tokenizer, tmp_path / "rows")
    (row,) = rows_of(tokenizer, cases)
    assert len(row.input_ids) > 1024
    ((_, cut),) = batch_of(trainer_of(data, tokenizer, tmp_path / "a"))
    assert sum(label != IGNORED for label in cut) == row.spans[0].end - row.spans[0].start
    longest = len(row.input_ids)  # What our printed configuration sets.
    ((_, kept),) = batch_of(trainer_of(data, tokenizer, tmp_path / "b", max_length=longest))
    assert kept == row.labels


def test_a_step_of_trl_has_the_loss_of_our_own_trainer(tmp_path):
    tokenizer, cases = chat_tokenizer(template("qwen2.5")), TALK + CALLS
    data = tokenised(cases, tokenizer, tmp_path / "rows")
    trainer = trainer_of(data, tokenizer, tmp_path / "out", max_length=None)
    rows = rows_of(tokenizer, cases)
    with torch.no_grad():
        total = supervised_loss_sum(trainer.model, *collate(rows))
    expected = total.item() / sum(row.supervised for row in rows)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, abs=1e-5)
