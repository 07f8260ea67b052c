"""Training on selected steps: a thin subclass of transformers' Trainer.

One item of the training set is one whole optimiser step. The Trainer sees batches of size one
without gradient accumulation, so its resume, schedules, loggers and checkpoints work unchanged,
while the loss is normalised over all supervised tokens of the step.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
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
from atlas_tune.progress import say
from atlas_tune.tune.batches import OptimiserStep, by_trajectory, plan_steps
from atlas_tune.tune.held_out import HeldOut
from atlas_tune.tune.processes import first_says, step_over_processes
from atlas_tune.tune.record import TrainingRecord, training_key
from atlas_tune.tune.rows import Row
from atlas_tune.tune.settings import LoraSettings, Precision, TuneSettings
from atlas_tune.tune.step_loss import StepLoss, step_loss

_HELD_OUT = "held_out_loss/"
"""What the names of held-out losses begin with in ``metrics.jsonl``."""


class _StepsDataset(Dataset[list[Row]]):
    """Item i is the rows of optimiser step i."""

    def __init__(self, rows: Sequence[Row], plan: Sequence[OptimiserStep]) -> None:
        self.rows, self.plan = rows, plan

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> list[Row]:
        return [self.rows[i] for i in self.plan[index]]


class SparseTrainer(Trainer):
    """transformers' Trainer with a step of rows, computed by a :class:`StepLoss`."""

    step_loss: StepLoss
    step_started = 0.0
    step_seconds = 0.0

    def training_step(
        self, model: torch.nn.Module, inputs: Any, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Forward and backward over the rows of one optimiser step; returns its loss."""
        self.step_started = time.monotonic()
        model.train()
        total = step_over_processes(model, inputs, self.step_loss)
        if not torch.isfinite(total):
            raise AtlasError(
                f"The loss became {float(total)} at optimiser step {self.state.global_step + 1}: "
                "lower learning_rate, or set precision to float32."
            )
        return total.to(self.args.device, torch.float32)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log a step with the seconds it took, so that a resumed run can add them all up."""
        if "loss" in logs:
            logs["seconds"] = self.step_seconds
        super().log(logs, start_time)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The optimiser steps in order: the plan is already shuffled."""
        dataset = self.train_dataset
        assert dataset is not None
        return DataLoader(dataset, batch_size=1, shuffle=False, collate_fn=lambda items: items[0])


class _Stopwatch(TrainerCallback):
    """Takes the time of a step before anything else is done at its end."""

    def __init__(self, trainer: SparseTrainer) -> None:
        self.trainer = trainer

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.trainer.step_seconds = time.monotonic() - self.trainer.step_started


class _Clock(TrainerCallback):
    """Asks for a checkpoint by the clock, in all processes at the same step."""

    def __init__(self, minutes: float) -> None:
        self.seconds = minutes * 60
        self.saved_at = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        due = (
            time.monotonic() - self.saved_at > self.seconds and state.global_step < state.max_steps
        )
        if first_says(due, args.device):
            control.should_save = True
            self.saved_at = time.monotonic()


class _HeldOutLoss(TrainerCallback):
    """Logs the loss on held-out trajectories before the first step and after every epoch."""

    def __init__(
        self, trainer: Trainer, losses: Callable[[], dict[str, float]], every: int
    ) -> None:
        self.trainer, self.losses, self.every = trainer, losses, every

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.global_step == 0:
            self._log()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self._log()

    def _log(self) -> None:
        self.trainer.log({f"{_HELD_OUT}{kind}": loss for kind, loss in self.losses().items()})


class _Watch(TrainerCallback):
    """Writes metrics.jsonl and reports progress."""

    def __init__(self, path: Path, on_step: Callable[[int, int, float], None]) -> None:
        self.path, self.on_step = path, on_step

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
        if state.log_history and _is_measured(state.log_history[-1]):
            with self.path.open("a") as file:
                file.write(json.dumps(state.log_history[-1]) + "\n")

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        # What was written after the checkpoint that training goes on from is done again.
        known = filter(_is_measured, state.log_history)
        self.path.write_text("".join(json.dumps(entry) + "\n" for entry in known))


def _is_measured(entry: dict[str, Any]) -> bool:
    """Whether an entry of the Trainer's log is of a step or of the held-out loss."""
    return "loss" in entry or any(name.startswith(_HELD_OUT) for name in entry)


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    settings: TuneSettings,
    directory: Path,
    seed: int,
    on_step: Callable[[int, int, float], None] = lambda step, of, loss: None,
    base: str = "",
    tell: Callable[[str], None] = say,
    held_out: HeldOut | None = None,
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
        tell: is given a sentence where a saving that is wanted cannot be had.
        held_out: trajectories whose loss is told by kind of step.

    Returns:
        Figures of the run: optimiser steps, tokens, supervised tokens, seconds, last loss.

    Raises:
        AtlasError: there is nothing to train on, the directory holds another training, the loss
            is not a number, or weights are to be dealt out over CPUs.
    """
    if not rows:
        raise AtlasError("There is no row to train on: the selection is empty.")
    plan = plan_steps(rows, rows_per_step=settings.rows_per_step, epochs=settings.epochs, seed=seed)
    checkpoints = directory / "checkpoints"
    several = torch.distributed.is_torchelastic_launched()
    if settings.sharded and several and not torch.accelerator.is_available():
        raise AtlasError(
            "tune.sharded needs GPUs: accelerate deals weights out on them only. On CPUs leave it "
            "out; each process then holds all weights."
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
        report_to=list(settings.report_to),
        fsdp="full_shard" if settings.sharded and several else None,
        fsdp_config={"version": 2},
        use_cpu=not torch.accelerator.is_available(),
        seed=seed,
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    record = TrainingRecord(directory / "training.json", training_key(rows, settings, seed, base))
    with arguments.main_process_first():
        figures = record.open()
    if figures is not None:
        shutil.rmtree(checkpoints, ignore_errors=True)
        return figures
    set_seed(seed)
    if settings.lora is not None:
        model = _with_adapters(model, settings.lora)
    # Several GPUs in one process would be wrapped in DataParallel, which splits nothing here.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    trainer = SparseTrainer(
        model=model,
        args=arguments,
        train_dataset=_StepsDataset(rows, plan),
        processing_class=tokenizer,
    )
    first = arguments.process_index == 0
    precision = _precision(arguments.device.type, settings.precision)
    trainer.step_loss = step_loss(model, settings, precision, tell if first else _silent)
    for noisy in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(noisy)
    directory.mkdir(parents=True, exist_ok=True)
    trainer.add_callback(_Clock(settings.checkpoint_minutes))
    trainer.add_callback(_Stopwatch(trainer))
    if first:
        trainer.add_callback(_Watch(directory / "metrics.jsonl", on_step))
    if held_out is not None:
        losses = partial(held_out.losses, model, precision, settings.tokens_per_microbatch)
        an_epoch = math.ceil(len(by_trajectory(rows)) / settings.rows_per_step)
        trainer.add_callback(_HeldOutLoss(trainer, losses, an_epoch))
    with arguments.main_process_first():
        last = _last_checkpoint(checkpoints)
    trainer.train(resume_from_checkpoint=last)
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    used = [index for step in plan for index in step]
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
    weights = trainer.accelerator.get_state_dict(trainer.model)
    if first:
        model.save_pretrained(directory, state_dict=weights)
        tokenizer.save_pretrained(directory)
        record.close(figures)
        shutil.rmtree(checkpoints, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    return figures


def _silent(sentence: str) -> None:
    """What processes besides the first one say."""


def _precision(device: str, precision: Precision) -> Callable[[], AbstractContextManager[Any]]:
    """Makes the context of a forward pass."""
    if precision == "float32":
        return nullcontext
    # Trainer's own bf16 flag insists on hardware support on the CPU; autocast works anywhere.
    return partial(torch.autocast, device, dtype=torch.bfloat16)


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
