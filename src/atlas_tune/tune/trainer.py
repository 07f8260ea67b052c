"""Training on selected steps: a thin subclass of transformers' Trainer.

One item of the training set is one whole optimiser step, already cut into microbatches. The
Trainer sees batches of size one without gradient accumulation, so its resume, schedules, loggers
and checkpoints work unchanged, while the loss is normalised over all supervised tokens of the
step.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from atlas_tune.errors import AtlasError
from atlas_tune.tune.batches import OptimiserStep, plan_steps
from atlas_tune.tune.loss import supervised_loss_sum
from atlas_tune.tune.record import TrainingRecord, training_key
from atlas_tune.tune.render import IGNORED, Row
from atlas_tune.tune.settings import LoraSettings, TuneSettings

Microbatch = dict[str, torch.Tensor]


class _StepsDataset(Dataset[list[Microbatch]]):
    """Item i is optimiser step i: its microbatches, padded on the right."""

    def __init__(self, rows: Sequence[Row], plan: Sequence[OptimiserStep], pad: int) -> None:
        self.rows, self.plan, self.pad = rows, plan, pad

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> list[Microbatch]:
        return [collate([self.rows[i] for i in micro], self.pad) for micro in self.plan[index]]


def collate(rows: Sequence[Row], pad: int) -> Microbatch:
    """Rows as ``input_ids`` and ``labels`` of one length, ``[B, T]``, padded on the right."""
    width = max(len(row.input_ids) for row in rows)
    return {
        "input_ids": torch.tensor(
            [[*row.input_ids, *[pad] * (width - len(row.input_ids))] for row in rows]
        ),
        "labels": torch.tensor(
            [[*row.labels, *[IGNORED] * (width - len(row.input_ids))] for row in rows]
        ),
    }


class SparseTrainer(Trainer):
    """transformers' Trainer with a step made of microbatches and the loss on supervised rows."""

    bfloat16 = False
    """Whether forward and backward run under bfloat16 autocast."""
    step_started = 0.0

    def training_step(
        self, model: torch.nn.Module, inputs: Any, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Forward and backward over the microbatches of one optimiser step; returns its loss."""
        self.step_started = time.monotonic()
        model.train()
        supervised = sum(int((micro["labels"] != IGNORED).sum()) for micro in inputs)
        total = torch.zeros((), device=self.args.device)
        for micro in inputs:
            micro = {name: tensor.to(self.args.device) for name, tensor in micro.items()}
            with self._precision():
                loss = supervised_loss_sum(model, micro["input_ids"], micro["labels"]) / supervised
            self.accelerator.backward(loss)
            total += loss.detach()
        if not torch.isfinite(total):
            raise AtlasError(
                f"The loss became {float(total)} at optimiser step {self.state.global_step + 1}: "
                "lower learning_rate, or set precision to float32."
            )
        return total

    def _precision(self) -> Any:
        # Trainer's own bf16 flag insists on hardware support on the CPU; autocast works anywhere.
        if self.bfloat16:
            return torch.autocast(self.args.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log a step with the seconds it took, so that a resumed run can add them all up."""
        if "loss" in logs:
            logs["seconds"] = time.monotonic() - self.step_started
        super().log(logs, start_time)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The optimiser steps in order: the plan is already shuffled."""
        dataset = self.train_dataset
        assert dataset is not None
        return DataLoader(dataset, batch_size=1, shuffle=False, collate_fn=lambda items: items[0])


class _Watch(TrainerCallback):
    """Writes metrics.jsonl, saves by the clock, and reports progress."""

    def __init__(
        self, path: Path, minutes: float, on_step: Callable[[int, int, float], None]
    ) -> None:
        self.path, self.seconds, self.on_step = path, minutes * 60, on_step
        self.saved_at = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if time.monotonic() - self.saved_at > self.seconds and state.global_step < state.max_steps:
            control.should_save = True
            self.saved_at = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if logs and "loss" in logs:
            self.on_step(state.global_step, state.max_steps, logs["loss"])
        # The whole history, each time: after a resume the file holds each step once.
        steps = [entry for entry in state.log_history if "loss" in entry]
        self.path.write_text("".join(json.dumps(entry) + "\n" for entry in steps))


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    settings: TuneSettings,
    directory: Path,
    seed: int,
    on_step: Callable[[int, int, float], None] = lambda step, of, loss: None,
    base: str = "",
) -> dict[str, Any]:
    """Tune a model on rows and save it as safetensors in ``directory``; resumes where it was.

    ``training.json`` in the directory names what was asked for and, when all is done, the
    figures. The same call then returns them at once; another one is refused.

    Args:
        model: the base model; it is changed.
        tokenizer: saved beside the weights.
        rows: training rows, see :mod:`atlas_tune.tune.render`.
        settings: how to train.
        directory: gets the weights, ``metrics.jsonl`` and, while running, ``checkpoints/``.
        seed: of the order of rows, of dropout and of the adapters' first values.
        on_step: called after each optimiser step with (step, steps in all, loss).
        base: identifies the base model, so that a training is not resumed from another one.

    Returns:
        Figures of the run: optimiser steps, tokens, supervised tokens, seconds, last loss.

    Raises:
        AtlasError: there is nothing to train on, the directory holds another training, the loss
            is not a number, or this process is one of several (``torchrun``).
    """
    if not rows:
        raise AtlasError("There is no row to train on: the selection is empty.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise AtlasError("Training runs in one process on one device: start it without torchrun.")
    record = TrainingRecord(directory / "training.json", training_key(rows, settings, seed, base))
    checkpoints = directory / "checkpoints"
    figures = record.open()
    if figures is not None:
        shutil.rmtree(checkpoints, ignore_errors=True)
        return figures
    set_seed(seed)
    if settings.lora is not None:
        model = _with_adapters(model, settings.lora)
    plan = plan_steps(
        [len(row.input_ids) for row in rows],
        rows_per_step=settings.rows_per_step,
        epochs=settings.epochs,
        tokens_per_microbatch=settings.tokens_per_microbatch,
        seed=seed,
    )
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=len(plan),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=round(settings.warmup_ratio * len(plan)),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        optim="adamw_torch_fused",
        activation_checkpointing=settings.gradient_checkpointing,
        logging_steps=1,
        # Left on, it would log a loss that is not a number as zero.
        logging_nan_inf_filter=False,
        save_strategy="no",
        save_total_limit=1,
        report_to=[],
        seed=seed,
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    # Several GPUs in one process would be wrapped in DataParallel, which splits nothing here.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    trainer = SparseTrainer(
        model=model,
        args=arguments,
        train_dataset=_StepsDataset(rows, plan, tokenizer.pad_token_id or 0),
        processing_class=tokenizer,
    )
    trainer.bfloat16 = settings.precision == "bfloat16"
    for noisy in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(noisy)
    directory.mkdir(parents=True, exist_ok=True)
    trainer.add_callback(_Watch(directory / "metrics.jsonl", settings.checkpoint_minutes, on_step))
    trainer.train(resume_from_checkpoint=_last_checkpoint(checkpoints))
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    used = [index for step in plan for micro in step for index in micro]
    figures = {
        "optimiser_steps": len(plan),
        "rows": len(rows),
        "tokens": sum(len(rows[i].input_ids) for i in used),
        "tokens_before_tail_cut": sum(rows[i].full_length for i in used),
        "supervised_tokens": sum(rows[i].supervised for i in used),
        "seconds": sum(entry["seconds"] for entry in history),
        "first_loss": history[0]["loss"],
        "last_loss": history[-1]["loss"],
    }
    record.close(figures)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return figures


def _with_adapters(model: PreTrainedModel, lora: LoraSettings) -> PreTrainedModel:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    return cast("PreTrainedModel", get_peft_model(model, config))


def _last_checkpoint(checkpoints: Path) -> str | None:
    """The newest checkpoint that was written to its end.

    Trainer writes ``trainer_state.json`` after weights and optimiser, so a checkpoint that has a
    readable one is whole; a kill in the middle of a save leaves one without it.
    """
    whole = []
    for path in checkpoints.glob("checkpoint-*"):
        try:
            whole.append(
                (json.loads((path / "trainer_state.json").read_text())["global_step"], path)
            )
        except (OSError, ValueError, KeyError):
            shutil.rmtree(path)
    return str(max(whole)[1]) if whole else None
