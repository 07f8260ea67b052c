"""What the two exact savings of training bring: tail cut, and the head on supervised rows only.

One process, both sides interleaved, medians over rounds; the ratio is what counts. Both sides see
the same trajectories, the same masks and the same batches of one step; the losses must agree.

    make bench
    .venv/bin/python benchmarks/training.py --rounds 5 --model HuggingFaceTB/SmolLM2-135M-Instruct
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from atlas_tune.agents.collect import collect_expert_runs, first_tasks
from atlas_tune.agents.local_model import DEFAULT_MODEL, load_model, load_tokenizer, resolve_model
from atlas_tune.environments import make_environment
from atlas_tune.environments.habits import Habits
from atlas_tune.pipeline.provenance import machine, versions
from atlas_tune.select import Context, make_selector, select
from atlas_tune.trajectory import Trajectory
from atlas_tune.tune.loss import supervised_loss_sum
from atlas_tune.tune.render import IGNORED, Row, render_rows
from atlas_tune.tune.trainer import collate

RESULTS = Path(__file__).parent / "results"


def on_device(model: PreTrainedModel, rows: list[Row]) -> dict[str, torch.Tensor]:
    batch = collate(rows, pad=0)
    return {name: tensor.to(model.device) for name, tensor in batch.items()}


def autocast(model: PreTrainedModel) -> AbstractContextManager[None]:
    return torch.autocast(model.device.type, dtype=torch.bfloat16)


def plain_step(model: PreTrainedModel, rows: list[Row]) -> float:
    """What a trainer does that only masks labels: whole sequences, logits at every position."""
    batch = on_device(model, rows)
    with autocast(model):
        logits = model(input_ids=batch["input_ids"], use_cache=False).logits
        loss = nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(),
            batch["labels"][:, 1:].flatten(),
            ignore_index=IGNORED,
        )
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())


def sparse_step(model: PreTrainedModel, rows: list[Row]) -> float:
    """Ours: sequences end after their last supervised token; logits where there is a loss."""
    batch = on_device(model, rows)
    supervised = sum(row.supervised for row in rows)
    with autocast(model):
        loss = supervised_loss_sum(model, batch["input_ids"], batch["labels"]) / supervised
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())


def uncut(row: Row, whole_ids: tuple[int, ...]) -> Row:
    """The row as it was before its tail was cut."""
    return Row(row.trajectory_id, whole_ids, row.spans, row.full_length)


def make_batches(model: str, trajectories: int) -> list[tuple[list[Row], list[Row]]]:
    """Batches of four trajectories: cut, and whole to the end of the agent's last step."""
    tokenizer = load_tokenizer(model)
    runs: list[Trajectory] = []
    for name in ("textcraft", "babyai"):
        env = make_environment(name)
        tasks = first_tasks(env, "train", trajectories // 2, {})
        runs += collect_expert_runs(env, tasks, seed=0, habits=Habits()).trajectories
    selector = make_selector("replay", {}, Context(make_environment=make_environment))
    chosen = {s.trajectory_id: s for s in select(runs, selector).selections}
    everything = {s.trajectory_id: s for s in select(runs, make_selector("last", {})).selections}
    pairs = []
    for run in runs:
        (cut,) = render_rows(tokenizer, run, chosen[run.trajectory_id])
        (longest,) = render_rows(tokenizer, run, everything[run.trajectory_id])
        pairs.append((cut, uncut(cut, longest.input_ids)))
    pairs.sort(key=lambda pair: len(pair[1].input_ids))
    groups = [pairs[i : i + 4] for i in range(0, len(pairs), 4)]
    return [([cut for cut, _ in group], [whole for _, whole in group]) for group in groups]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trajectories", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    batches = make_batches(options.model, options.trajectories)
    model = load_model(options.model)
    model.to(options.device).train()
    seconds: dict[str, list[float]] = {"plain": [], "sparse": []}
    worst = 0.0
    for round_number in range(options.rounds + 1):
        totals = dict.fromkeys(seconds, 0.0)
        for cut, whole in batches:
            losses = []
            for name, step, rows in (("plain", plain_step, whole), ("sparse", sparse_step, cut)):
                model.zero_grad(set_to_none=True)
                started = time.perf_counter()
                losses.append(step(model, rows))
                totals[name] += time.perf_counter() - started
            worst = max(worst, abs(losses[0] - losses[1]))
        if round_number:  # the first round warms up
            for name, total in totals.items():
                seconds[name].append(total)
            print(f"round {round_number}: plain {totals['plain']:.1f} s, "
                  f"sparse {totals['sparse']:.1f} s", flush=True)  # fmt: skip
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    record: dict[str, Any] = {
        "benchmark": "training",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["benchmarks/training.py", *sys.argv[1:]]),
        "machine": machine(),
        "versions": versions(options.model, resolve_model(options.model)),
        "trajectories": sum(len(cut) for cut, _ in batches),
        "tokens_plain": sum(len(r.input_ids) for _, whole in batches for r in whole),
        "tokens_sparse": sum(len(r.input_ids) for cut, _ in batches for r in cut),
        "supervised_tokens": sum(r.supervised for cut, _ in batches for r in cut),
        "seconds": seconds,
        "median_seconds": medians,
        "ratio": medians["plain"] / medians["sparse"],
        "largest_loss_difference": worst,
    }
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"training-{record['date'][:10]}.json"
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(f"ratio {record['ratio']:.2f} (plain / sparse); {target}")


if __name__ == "__main__":
    main()
