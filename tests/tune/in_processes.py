"""Started by torchrun in each of its processes: ``in_processes.py DIRECTORY``."""

import json
import sys
from pathlib import Path

import torch
from torch import distributed
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from atlas_tune.errors import AtlasError
from atlas_tune.tune.packed_loss import PackedLoss
from atlas_tune.tune.processes import step_over_processes
from atlas_tune.tune.rows import Row, Span
from atlas_tune.tune.settings import TuneSettings
from atlas_tune.tune.trainer import train
from tiny_model import tiny_llama, tiny_tokenizer


def rows():
    """Eleven rows, of which most begin alike; some steps have fewer rows than processes."""
    trunk = tuple(range(3, 33))
    branch = (*trunk, *range(40, 60))
    texts = [(*trunk, 5, 6 + i, 7) for i in range(5)] + [(*branch, 8 + i, 9, 10) for i in range(5)]
    texts.append((11, 12, 13, 14, 15))
    return [
        Row(f"t{i}", text, (Span(1, 2, 4), Span(2, len(text) - 2, len(text))), len(text))
        for i, text in enumerate(texts)
    ]


SETTINGS = TuneSettings(
    epochs=2,
    learning_rate=1e-2,
    rows_per_step=5,
    tokens_per_microbatch=40,
    precision="float32",
    checkpoint_minutes=1e-9,
)


def tuned(directory, settings=SETTINGS):
    """Trains in ``directory``; tells each step's loss, and how many processes there are."""
    told = []

    def tell(step, of, loss):
        told.append({"loss": loss, "processes": processes()})

    train(tiny_llama(), tiny_tokenizer(), rows(), settings, directory, 0, on_step=tell)
    if told:  # in the first process only
        (directory / "told.json").write_text(json.dumps(told))


def processes():
    return distributed.get_world_size() if distributed.is_initialized() else 1


def gradients(dealt_out=False):
    """Loss and gradients of all rows, of the first and of the last one alone, in float64."""
    found = []
    for some in (rows(), rows()[:1], rows()[-1:]):
        model = tiny_llama().double()
        if dealt_out:
            for block in model.model.layers:
                fully_shard(block)
            fully_shard(model)
            assert isinstance(model.lm_head.weight, DTensor)
        loss = step_over_processes(model, some, PackedLoss(40))
        found.append({"loss": loss})
        for name, parameter in model.named_parameters():
            grad = parameter.grad
            found[-1][name] = grad.full_tensor() if isinstance(grad, DTensor) else grad
    return found


def main(directory):
    tuned(directory)  # which makes the process group
    rank = distributed.get_rank()
    torch.save(gradients(), directory / f"ddp-{rank}.pt")
    torch.save(gradients(dealt_out=True), directory / f"fsdp2-{rank}.pt")
    try:
        tuned(directory / "sharded", SETTINGS.model_copy(update={"sharded": True}))
    except AtlasError as error:
        (directory / f"refused-{rank}").write_text(str(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
