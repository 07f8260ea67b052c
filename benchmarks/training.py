"""What training on critical steps costs: ours, each saving added in turn, and the ways of others.

One process, all sides interleaved, medians over rounds; the ratios are what counts, and are taken
within a round, because a machine may be slower for an hour than for the next. Every side
computes the loss and all gradients of the same optimiser steps, from the same trajectories with
the same masks; the losses must agree. No side takes the optimiser's own step: it is the same for
all. Rounds are kept as they are done, so a killed run goes on, and --rounds may be raised.

Before the rounds each side runs once for its peak memory, with memory handed back first. That run
is not timed: a training takes its memory from the system in its first step and keeps it.

    make bench
    .venv/bin/python benchmarks/training.py --rows-per-step 32 --rounds 5

Sides:

- one row per step: what trainers cost that take one target per row: each selected step with all
  before it as its prompt, padded in batches, logits everywhere;
- plain: transformers, whole trajectories, padded in batches, logits everywhere;
- TRL, TRL packed: its SFTTrainer over token ids and labels, the same batches, without and with
  packing;
- ms-swift: its trainer over the same, where it is installed (docs/performance.md);
- ours: unpadded, then tail cut, supervised rows, sparse last block and shared prefixes added.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import hashlib
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from kept import Kept, Record
from training_sides import sides

import atlas_tune.tune
from atlas_tune.agents.local_model import DEFAULT_MODEL, load_model, load_tokenizer, resolve_model
from atlas_tune.pipeline.provenance import machine, versions
from atlas_tune.select import make_selector, select
from atlas_tune.trajectory import Trajectory
from atlas_tune.trajectory.formats.reading import read_sources
from atlas_tune.tune.flops import Shape, savings
from atlas_tune.tune.render import render_rows
from atlas_tune.tune.rows import Row

HERE = Path(__file__).parent
RESULTS = HERE / "results"
DATA = Path(os.environ.get("ATLAS_TUNE_DATA", HERE.parent.parent / "shared" / "data"))
ENVIRONMENTS = ("textcraft", "babyai", "sciworld", "wordle")
LLAMA_8B: dict[str, Any] = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
}


def rows_of(model: str, steps: int, rows_per_step: int, share: float) -> list[tuple[Row, Row]]:
    """Rows of a mixture of all environments, cut and whole, in a fixed random order."""
    tokenizer = load_tokenizer(model)
    draw = random.Random(0)
    runs: list[Trajectory] = []
    wanted = steps * rows_per_step
    for name in ENVIRONMENTS:
        path = DATA / "agenttraj-l" / f"{name}.jsonl.xz"
        if not path.is_file():
            raise SystemExit(f"{path} is not there: set ATLAS_TUNE_DATA to the folder of the data.")
        found = [one.trajectory for one in read_sources([path], None, lambda bad: None)]
        runs += draw.sample(found, -(-wanted // len(ENVIRONMENTS)))
    draw.shuffle(runs)
    selector = make_selector("random" if share < 1 else "all", {})
    chosen = {s.trajectory_id: s for s in select(runs, selector, share).selections}
    pairs = []
    for run in runs[:wanted]:
        (cut,), (whole,) = (
            render_rows(tokenizer, run, chosen[run.trajectory_id], tail_cut=tail_cut)
            for tail_cut in (True, False)
        )
        pairs.append((cut, whole))
    return pairs


def peak_of(device: str, run: Callable[[], object]) -> float:
    """Peak memory in bytes over what was held before."""
    gc.collect()
    if device == "cpu":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back
        before = _status("VmRSS")
    else:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    run()
    peak = _status("VmHWM") if device == "cpu" else torch.cuda.max_memory_allocated()
    return peak - before


def timed(device: str, run: Callable[[], float]) -> tuple[float, float]:
    """Loss and seconds of one step."""
    gc.collect()
    if device != "cpu":
        torch.cuda.synchronize()
    started = time.perf_counter()
    loss = run()
    if device != "cpu":
        torch.cuda.synchronize()
    return loss, time.perf_counter() - started


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def load(options: argparse.Namespace) -> Any:
    """The model, or one of Llama-3.1-8B's shape with random weights, with adapters if asked."""
    if options.shape is None:
        model: Any = load_model(options.model)
    else:
        from transformers import LlamaConfig, LlamaForCausalLM

        with torch.device(options.device):
            torch.set_default_dtype(torch.bfloat16)
            model = LlamaForCausalLM(LlamaConfig(**LLAMA_8B))
            torch.set_default_dtype(torch.float32)
    if options.lora:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear"))
    return model.to(options.device).train()


def trained_by() -> list[str]:
    """SHA-256 of each file of our trainer: a commit that leaves it alone keeps the rounds."""
    files = sorted(Path(atlas_tune.tune.__file__).parent.glob("*.py"))
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--shape", choices=["llama-3.1-8b"], help="random weights of this shape")
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows-per-step", type=int, default=32)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--share", type=float, default=0.3, help="of the steps; 1 trains all")
    parser.add_argument("--batch", type=int, default=2, help="rows that others run at once")
    parser.add_argument("--tokens", type=int, default=2048, help="that ours runs at once")
    parser.add_argument("--only", nargs="*", help="sides; all where it is left out")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    pairs = rows_of(options.model, options.steps, options.rows_per_step, options.share)
    size = options.rows_per_step
    steps = [pairs[i : i + size] for i in range(0, len(pairs), size)]
    tokenizer = load_tokenizer(options.model)
    model = load(options)
    running = sides(model, options.model, tokenizer, options.batch, options.tokens, options.device)
    chosen = options.only or list(running)
    setting = {k: value for k, value in vars(options).items() if k not in ("rounds", "only")}
    installed = versions(options.model, resolve_model(options.model))
    decisive = {name: version for name, version in installed.items() if name != "atlas-tune"}
    rows = [asdict(whole) for _, whole in pairs]
    kept = Kept("training", [setting, decisive, trained_by(), machine(), rows])

    def memory(name: str) -> Record:
        peaks = []
        for step in steps:
            model.zero_grad(set_to_none=True)
            peaks.append(peak_of(options.device, partial(running[name], step)))
        return {"peak": max(peaks)}

    def speed(name: str) -> Record:
        losses, seconds = [], 0.0
        for step in steps:
            model.zero_grad(set_to_none=True)
            loss, took = timed(options.device, partial(running[name], step))
            losses.append(loss)
            seconds += took
        return {"seconds": seconds, "loss": statistics.mean(losses)}

    for name in chosen:
        kept.measured({"round": "memory", "side": name}, partial(memory, name))
    for number in range(options.rounds):
        for name in chosen:
            kept.measured({"round": number, "side": name}, partial(speed, name))
    counted = savings(
        Shape.of(model.config), [[cut for cut, _ in step] for step in steps], batch=options.batch
    )
    record = summary(options, pairs, list(running), kept.done, counted) | {"versions": installed}
    RESULTS.mkdir(exist_ok=True)
    name = "-".join(
        filter(
            None,
            ["training", options.device, options.shape, "lora" * options.lora,
             f"{options.rows_per_step}rows", "all" * (options.share >= 1),
             "ms-swift" * ("ms-swift" in chosen)],
        )
    )  # fmt: skip
    target = RESULTS / f"{name}-{record['date'][:10]}.json"
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(table(record))
    print(target)


def summary(
    options: argparse.Namespace,
    pairs: Sequence[tuple[Row, Row]],
    order: Sequence[str],
    done: Sequence[Record],
    counted: dict[str, Any],
) -> Record:
    """Medians over rounds, and each side's time and counted operations over the last one's."""

    def all_of(name: str, what: str) -> list[float]:
        return [one[what] for one in done if one["side"] == name and what in one]

    def within_rounds(name: str) -> list[float]:
        times = {(one["round"], one["side"]): one["seconds"] for one in done if "seconds" in one}
        rounds = {number for number, side in times if side == name}
        both = [number for number in rounds if (number, best) in times]
        return [times[number, name] / times[number, best] for number in both]

    names = [name for name in order if all_of(name, "seconds")]
    seconds = {n: statistics.median(all_of(n, "seconds")) for n in names}
    peak = {n: all_of(n, "peak")[0] for n in names}
    best = names[-1]
    as_counted = {"TRL": "plain", "TRL packed": "no padding", "ms-swift": "plain"}
    flops = {n: counted[as_counted.get(n, n)].total for n in names}
    ratio = {n: statistics.median(within_rounds(n)) for n in names}
    return {
        "benchmark": "training",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["benchmarks/training.py", *sys.argv[1:]]),
        "machine": machine(),
        "shape": options.shape,
        "trajectories": len(pairs),
        "tokens": sum(len(whole.input_ids) for _, whole in pairs),
        "supervised_tokens": sum(cut.supervised for cut, _ in pairs),
        "rounds": options.rounds,
        "seconds": seconds,
        "peak_bytes": peak,
        "loss": {n: all_of(n, "loss")[0] for n in names},
        "flops": flops,
        "time_over_ours": ratio,
        "flops_over_ours": {n: flops[n] / flops[best] for n in names},
        "seen_as_time": {n: ratio[n] / (flops[n] / flops[best]) for n in names},
        "all_seconds": {n: all_of(n, "seconds") for n in names},
    }


def table(record: Record) -> str:
    """The record as Markdown."""
    lines = ["| side | s | GiB | time over ours | FLOPs over ours |", "|---|---|---|---|---|"]
    lines += [
        f"| {n} | {record['seconds'][n]:.1f} | {record['peak_bytes'][n] / 2**30:.2f} | "
        f"{record['time_over_ours'][n]:.2f} | {record['flops_over_ours'][n]:.2f} |"
        for n in record["seconds"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
