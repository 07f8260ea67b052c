"""The sides of benchmarks/training.py: ways to get loss and gradients of one optimiser step.

Trainers of others compute with their own batches, their own loss and their own backward pass, as
they come out of the box; gradient checkpointing is off everywhere.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch

from atlas_tune.agents.local_model import resolve_model
from atlas_tune.tune.flops import one_row_per_step
from atlas_tune.tune.packed_loss import PackedLoss
from atlas_tune.tune.padded_loss import PaddedLoss
from atlas_tune.tune.prefixes import LEAST_SHARED
from atlas_tune.tune.rows import Row

Side = Callable[[Sequence[tuple[Row, Row]]], float]
"""Loss and gradients of a step's rows, each cut and whole; gives the loss."""


class Padded:
    """Whole rows padded in batches, logits everywhere."""

    def __init__(
        self,
        model: Any,
        precision: Callable[[], AbstractContextManager[Any]],
        batch: int,
        per_step: bool,
    ) -> None:
        self.model, self.precision, self.batch, self.per_step = model, precision, batch, per_step

    def __call__(self, step: Sequence[tuple[Row, Row]]) -> float:
        rows = [whole for _, whole in step]
        if self.per_step:
            rows = one_row_per_step(rows)
        normaliser = sum(row.supervised for row in rows)
        loss = 0.0
        for start in range(0, len(rows), self.batch):
            some = rows[start : start + self.batch]
            longest = max(len(row.input_ids) for row in some)
            way = PaddedLoss(self.batch * longest, supervised_rows=False, precision=self.precision)
            loss += float(way.backward(self.model, some, normaliser))
        return loss


class Ours:
    """Rows behind each other, with some of the savings."""

    def __init__(self, model: Any, way: PackedLoss, cut: bool) -> None:
        self.model, self.way, self.cut = model, way, cut

    def __call__(self, step: Sequence[tuple[Row, Row]]) -> float:
        rows = [cut if self.cut else whole for cut, whole in step]
        return float(self.way.backward(self.model, rows, sum(row.supervised for row in rows)))


class Trainer:
    """A trainer of others, made once for each step's rows."""

    def __init__(self, make: Callable[[Sequence[Row]], Any], device: str) -> None:
        self.make, self.device = make, device
        self.made: dict[int, Any] = {}

    def __call__(self, step: Sequence[tuple[Row, Row]]) -> float:
        key = id(step[0][0])
        if key not in self.made:
            trainer = self.make([whole for _, whole in step])
            trainer.model.train()
            supervised = torch.tensor(sum(whole.supervised for _, whole in step))
            batches = list(trainer.get_train_dataloader())
            self.made[key] = (trainer, batches, supervised.to(self.device))
        trainer, batches, supervised = self.made[key]
        loss = 0.0
        for batch in batches:
            # As Trainer does with gradient accumulation: normalised over the whole step.
            loss += float(trainer.training_step(trainer.model, dict(batch), supervised))
        return loss


def trl(
    rows: Sequence[Row], *, model: Any, tokenizer: Any, batch: int, packing: bool, device: str
) -> Any:
    """TRL's SFTTrainer."""
    import datasets
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    longest = max(len(row.input_ids) for row in rows)
    return SFTTrainer(
        model,
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(),
            # A pack holds as many tokens as a padded batch at most.
            per_device_train_batch_size=1 if packing else batch,
            packing=packing,
            max_length=batch * longest if packing else None,
            activation_checkpointing=False,
            use_cpu=device == "cpu",
            bf16=True,
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=datasets.Dataset.from_list(
            [{"input_ids": list(row.input_ids), "labels": list(row.labels)} for row in rows]
        ),
        processing_class=tokenizer,
    )


def ms_swift(rows: Sequence[Row], *, model: Any, path: str, batch: int, device: str) -> Any:
    """ms-swift's Seq2SeqTrainer with a plain padding template."""
    from swift.arguments import SftArguments
    from swift.model import get_processor
    from swift.template import get_template
    from swift.trainers import Seq2SeqTrainer

    args = SftArguments(
        model=path,
        model_type="llama",
        template="chatml",
        tuner_type="full",
        dataset=["rows.jsonl"],  # it must be named; the rows below are used
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=1,
        gradient_checkpointing=False,
        bf16=True,
        fp16=False,
        use_cpu=device == "cpu",
        report_to=[],
        dataloader_num_workers=0,
    )
    template = get_template(get_processor(path, model_type="llama"), template_type="chatml")
    template.set_mode("train")
    model.model_meta, model.model_info = args.model_meta, args.model_info
    data = [
        {"input_ids": list(row.input_ids), "labels": list(row.labels), "length": len(row.input_ids)}
        for row in rows
    ]
    return Seq2SeqTrainer(
        model=model, args=args.training_args, template=template, train_dataset=data
    )


def sides(
    model: Any, name: str, tokenizer: Any, batch: int, most_tokens: int, device: str
) -> dict[str, Side]:
    """All of them that are installed by name, in the order in which they are told."""
    bf16 = partial(torch.autocast, device, dtype=torch.bfloat16)

    def ours(cut: bool, rows: bool, sparse: bool, shared: bool) -> Ours:
        least = LEAST_SHARED if shared else None
        return Ours(model, PackedLoss(most_tokens, rows, sparse, least, bf16), cut)

    def trls(packing: bool) -> Trainer:
        setting = {"model": model, "tokenizer": tokenizer, "batch": batch, "device": device}
        return Trainer(partial(trl, **setting, packing=packing), device)

    swift = partial(ms_swift, model=model, path=resolve_model(name), batch=batch, device=device)
    found: dict[str, Side] = {
        "one row per step": Padded(model, bf16, batch, per_step=True),
        "plain": Padded(model, bf16, batch, per_step=False),
    }
    if importlib.util.find_spec("swift"):  # it holds TRL at a version of another interface
        found["ms-swift"] = Trainer(swift, device)
    elif importlib.util.find_spec("trl"):
        found |= {"TRL": trls(False), "TRL packed": trls(True)}
    return found | {
        "no padding": ours(False, False, False, False),
        "tail cut": ours(True, False, False, False),
        "supervised rows": ours(True, True, False, False),
        "sparse last block": ours(True, True, True, False),
        "shared prefixes": ours(True, True, True, True),
    }
