import json

import pytest
import torch
import yaml
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import Gemma2Config, Gemma2ForCausalLM

from atlas_tune.agents.local_model import load_model
from atlas_tune.errors import AtlasError
from atlas_tune.trajectory import Kind, LabelSource, Selection, StepLabel
from atlas_tune.trajectory.tasks import task_digest, task_key
from atlas_tune.tune.held_out import held_out_tasks
from atlas_tune.tune.render import render_rows
from atlas_tune.tune.settings import LoraSettings, Savings, TuneSettings
from atlas_tune.tune.stage import TrainingRows, tune_model
from atlas_tune.tune.trainer import train
from tiny_model import tiny_llama, tiny_tokenizer
from trajectory.runs import craft_run

SETTINGS = TuneSettings(epochs=2, learning_rate=1e-2, rows_per_step=2, precision="float32")


class Killed(Exception):
    pass


def rows():
    found = []
    for steps in range(1, 7):
        run = craft_run(steps=steps, task_id=str(steps))
        chosen = Selection(run.trajectory_id, (run.agent_steps[-1].step_id,), "last")
        found += render_rows(tiny_tokenizer(), run, chosen)
    return found


def tuned(directory, settings=SETTINGS, seed=0, **hooks):
    figures = train(tiny_llama(), tiny_tokenizer(), rows(), settings, directory, seed, **hooks)
    return figures, load_file(directory / "model.safetensors")


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_training_lowers_the_loss_and_tells_what_it_cost(tmp_path):
    figures, _ = tuned(tmp_path)
    assert figures["last_loss"] < 0.9 * figures["first_loss"]
    assert figures["optimiser_steps"] == 6
    assert figures["supervised_tokens"] == 2 * sum(row.supervised for row in rows())
    assert figures["tokens"] == 2 * sum(len(row.input_ids) for row in rows())
    assert figures["tokens"] < figures["tokens_before_tail_cut"]
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in metrics] == [1, 2, 3, 4, 5, 6]
    assert not (tmp_path / "checkpoints").exists()


def test_steps_that_are_not_selected_count_as_much_as_they_are_told():
    run, without = (craft_run(steps=steps, task_id=str(steps)) for steps in (4, 5))
    ids = [step.step_id for step in run.agent_steps]
    chosen = {run.trajectory_id: Selection(run.trajectory_id, tuple(ids[-2:]), "", (0.5, 1.0))}

    def weights(**told):
        settings = SETTINGS.model_copy(update=told)
        found = TrainingRows.of(tiny_tokenizer(), [run, without], chosen, settings)
        (row,) = found.rows
        assert found.left_out == [without.trajectory_id]
        return {span.step_id: span.weight for span in row.spans}

    assert weights() == dict(zip(ids[-2:], (0.5, 1.0), strict=True))
    assert weights(other_steps=0.25) == dict(zip(ids, (0.25, 0.25, 0.5, 1.0), strict=True))
    # A training from before there was such a setting is still the one without it.
    assert "other_steps" not in SETTINGS.decisive()
    assert SETTINGS.model_copy(update={"other_steps": 0.25}).decisive()["other_steps"] == 0.25


def test_the_seed_decides_the_weights(tmp_path):
    _, one = tuned(tmp_path / "one")
    _, same = tuned(tmp_path / "same")
    _, other = tuned(tmp_path / "other", seed=1)
    assert equal(one, same)
    assert not equal(one, other)


def test_a_finished_training_is_not_done_again_and_not_mixed_with_another(tmp_path):
    figures, _ = tuned(tmp_path)
    before = (tmp_path / "model.safetensors").stat().st_mtime_ns
    assert tuned(tmp_path, on_step=lambda *_: pytest.fail("it is done"))[0] == figures
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == before
    (tmp_path / "model.safetensors").unlink()
    tuned(tmp_path)
    with pytest.raises(AtlasError, match="holds another training"):
        tuned(tmp_path, seed=1)
    with pytest.raises(AtlasError, match="holds another training"):
        tuned(tmp_path, SETTINGS.model_copy(update={"epochs": 3}))
    # What changes no weight does not make it another one: memory, the clock, trackers.
    harmless = {"tokens_per_microbatch": 64, "checkpoint_minutes": 1.0, "report_to": ("wandb",)}
    assert tuned(tmp_path, SETTINGS.model_copy(update=harmless))[0]["optimiser_steps"] == 6


def test_a_loss_that_is_not_a_number_is_an_error(tmp_path):
    wild = SETTINGS.model_copy(update={"learning_rate": 1e30, "max_grad_norm": 1e30})
    with pytest.raises(AtlasError, match="lower learning_rate"):
        tuned(tmp_path, wild)


def test_microbatches_change_memory_and_not_the_weights(tmp_path):
    _, whole = tuned(tmp_path / "whole")
    one_by_one = SETTINGS.model_copy(update={"tokens_per_microbatch": 1})
    _, cut = tuned(tmp_path / "cut", one_by_one)
    for name in whole:
        torch.testing.assert_close(whole[name], cut[name], rtol=1e-3, atol=1e-5)


def test_savings_change_the_cost_and_not_the_weights(tmp_path):
    _, whole = tuned(tmp_path / "whole")
    for name in Savings.model_fields:
        without = SETTINGS.model_copy(update={"savings": Savings(**{name: False})})
        _, other = tuned(tmp_path / name, without)
        for part in whole:
            torch.testing.assert_close(whole[part], other[part], rtol=1e-3, atol=1e-5)


def test_a_model_that_cannot_be_packed_is_tuned_padded_and_told_so(tmp_path):
    torch.manual_seed(0)
    shape = {name: getattr(tiny_llama().config, name) for name in ("vocab_size", "hidden_size")}
    model = Gemma2ForCausalLM(
        Gemma2Config(
            **shape,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
        )
    )
    told = []
    figures = train(model, tiny_tokenizer(), rows(), SETTINGS, tmp_path, 0, tell=told.append)
    assert figures["last_loss"] < figures["first_loss"]
    (sentence,) = told
    assert sentence.startswith("Rows are padded and share no beginnings: equal gradients")


@pytest.mark.parametrize("killed_at", [1, 4])
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, killed_at):
    _, whole = tuned(tmp_path / "whole")
    often = SETTINGS.model_copy(update={"checkpoint_minutes": 1e-9})

    def kill(step, of, loss):
        if step == killed_at:
            raise Killed

    with pytest.raises(Killed):
        tuned(tmp_path / "killed", often, on_step=kill)
    # A kill in the middle of a save leaves a checkpoint without its last file.
    torn = tmp_path / "killed" / "checkpoints" / "checkpoint-99"
    torn.mkdir(parents=True)
    seen = []
    _, resumed = tuned(tmp_path / "killed", often, on_step=lambda step, of, loss: seen.append(step))
    assert seen[0] == killed_at
    assert equal(whole, resumed)
    metrics = (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in metrics] == [1, 2, 3, 4, 5, 6]


def lora_run(tmp_path, name, **hooks):
    base = tmp_path / "base"
    if not base.exists():
        tiny_llama().save_pretrained(base)
        tiny_tokenizer().save_pretrained(base)
    settings = SETTINGS.model_copy(
        update={"lora": LoraSettings(rank=4, dropout=0.1), "checkpoint_minutes": 1e-9}
    )
    model = load_model(str(base))
    figures = train(model, tiny_tokenizer(), rows(), settings, tmp_path / name, 0, **hooks)
    return figures, load_file(tmp_path / name / "adapter_model.safetensors")


def test_adapters_are_tuned_and_saved_alone_and_load_merged(tmp_path):
    figures, saved = lora_run(tmp_path, "lora")
    assert figures["last_loss"] < figures["first_loss"]
    assert saved
    assert all("lora" in name for name in saved)
    base = load_model(str(tmp_path / "base")).state_dict()
    merged = load_model(str(tmp_path / "lora")).state_dict()
    assert merged.keys() == base.keys()
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert changed
    assert all("proj" in name for name in changed)


def test_a_killed_run_with_adapters_and_dropout_goes_on_to_the_same_weights(tmp_path):
    _, whole = lora_run(tmp_path, "whole")

    def kill(step, of, loss):
        if step == 4:
            raise Killed

    with pytest.raises(Killed):
        lora_run(tmp_path, "killed", on_step=kill)
    _, resumed = lora_run(tmp_path, "killed")
    assert equal(whole, resumed)


def test_rows_that_are_too_long_are_left_out_and_listed(tmp_path):
    base = tmp_path / "base"
    tiny_llama().save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    runs = [craft_run(steps=1, task_id="short"), craft_run(steps=8, task_id="long")]
    chosen = {
        r.trajectory_id: Selection(r.trajectory_id, (3 + len(r.agent_steps),), "last") for r in runs
    }
    settings = SETTINGS.model_copy(update={"max_tokens": 150})
    figures = tune_model(str(base), runs, chosen, settings, tmp_path / "out", 0)
    assert figures["rows"] == 1
    assert figures["too_long"] == [runs[1].trajectory_id]


def test_held_out_runs_are_not_trained_on_and_their_loss_is_told_by_kind(tmp_path):
    base = tmp_path / "base"
    tiny_llama().save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    runs = [craft_run(steps=3, task_id=str(task)) for task in range(8)]
    twin = craft_run(steps=4, task_id="0")  # of a task that is there already
    chosen = {
        r.trajectory_id: Selection(r.trajectory_id, (r.agent_steps[0].step_id,), "first")
        for r in [*runs, twin]
    }
    source = LabelSource("test")
    labels = [
        StepLabel(r.trajectory_id, r.agent_steps[0].step_id, Kind.PLAN_CREATION, source)
        for r in [*runs, twin]
    ]
    settings = SETTINGS.model_copy(update={"held_out": 0.25})
    out = tmp_path / "out"
    figures = tune_model(str(base), [*runs, twin], chosen, settings, out, 0, labels=labels)
    assert figures["held_out"] in (2, 3)
    assert figures["rows"] + figures["held_out"] == 9
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    told = [entry for entry in metrics if "held_out_loss/all" in entry]
    an_epoch = -(-figures["rows"] // 2)
    assert [entry["step"] for entry in told] == [0, an_epoch, 2 * an_epoch]
    assert told[-1]["held_out_loss/plan_creation"] < told[0]["held_out_loss/plan_creation"]
    # By hand: the untuned model on the run that was kept aside, token by token.
    aside = held_out_tasks([*runs, twin], 0.25, 0)
    model, sums = tiny_llama().eval(), {"plan_creation": [], "unselected": []}
    for run in [*runs, twin]:
        if task_digest(task_key(run)) not in aside:
            continue
        every = Selection(run.trajectory_id, tuple(s.step_id for s in run.agent_steps), "all")
        (row,) = render_rows(tiny_tokenizer(), run, every)
        with torch.no_grad():
            log_p = model(torch.tensor([row.input_ids])).logits[0].log_softmax(-1)
        for place, span in enumerate(row.spans):
            kind = "unselected" if place else "plan_creation"
            for at in range(span.start, span.end):
                sums[kind].append(-float(log_p[at - 1, row.input_ids[at]]))
    for kind, losses in sums.items():
        assert told[0][f"held_out_loss/{kind}"] == pytest.approx(
            sum(losses) / len(losses), rel=1e-4
        )


def test_not_all_tasks_can_be_held_out():
    runs = [craft_run(task_id="a"), craft_run(task_id="b")]
    with pytest.raises(AtlasError, match="keeps 2 of 2 tasks aside"):
        held_out_tasks(runs, 0.9, 0)
    assert len(held_out_tasks(runs, 0.01, 0)) == 1
    assert held_out_tasks(runs, 0.0, 0) == set()


def test_a_card_stands_beside_the_weights(tmp_path):
    base = tmp_path / "base"
    tiny_llama().save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    runs = [craft_run(steps=4, task_id=str(task)) for task in range(3)]
    chosen = {
        r.trajectory_id: Selection(r.trajectory_id, (r.agent_steps[0].step_id,), "my rule")
        for r in runs[:2]
    }
    first = runs[0].agent_steps[0].step_id
    label = StepLabel(runs[0].trajectory_id, first, Kind.PLAN_CREATION, LabelSource("test"))
    out = tmp_path / "out"
    figures = tune_model(str(base), runs, chosen, SETTINGS, out, 7, labels=[label])
    card = (out / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front == {
        "library_name": "transformers",
        "base_model": str(base),
        "tags": ["atlas-tune", "agent"],
    }
    for sentence in (
        "Rule: `my rule`. 2 of 12 agent steps (16.7%) were selected.",
        "| plan creation | 1 |\n| selected | 1 |",
        f"| {runs[0].environment} | 3 |",
        "1 trajectories had no selected step, 0 were held out, and 0 rows were too long.",
        f"2 optimiser steps, {figures['supervised_tokens']:,} supervised of",
        "seed 7",
        '"learning_rate": 0.01',
    ):
        assert sentence in card


def test_a_trajectory_that_cannot_be_masked_stops_no_other(tmp_path):
    base = tmp_path / "base"
    tiny_llama().save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    good, bad = craft_run(steps=2, task_id="good"), craft_run(steps=3, task_id="bad")
    chosen = {
        good.trajectory_id: Selection(good.trajectory_id, (good.agent_steps[0].step_id,), "x"),
        bad.trajectory_id: Selection(bad.trajectory_id, (1,), "x"),  # a step of the user
    }
    figures = tune_model(str(base), [good, bad], chosen, SETTINGS, tmp_path / "out", 0)
    assert (figures["rows"], list(figures["refused"])) == (1, [bad.trajectory_id])
    assert "names a step that is not one" in figures["refused"][bad.trajectory_id]
    with pytest.raises(AtlasError, match=r"1 cannot be masked; the first: Trajectory"):
        tune_model(str(base), [bad], chosen, SETTINGS, tmp_path / "none", 0)


@pytest.mark.parametrize("name", ["epochs", "learning_rate", "weight_decay"])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_setting_that_no_training_can_follow_is_refused(name, value):
    with pytest.raises(ValidationError, match="finite number"):
        TuneSettings(**{name: value})
