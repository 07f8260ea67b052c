"""One token for each row of a batch: rows in blocks, against all at once.

Both sides must choose the same tokens; they take turns in one process.

    .venv/bin/python benchmarks/sampling.py
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from atlas_tune.agents.sampling import gumbel, sample
from atlas_tune.pipeline.provenance import machine

RESULTS = Path(__file__).parent / "results"


def at_once(logits_BV: torch.Tensor, temperature: float, seeds_B: Sequence[int]) -> torch.Tensor:
    """What ``sample`` gives, of all rows at once."""
    noise_BV = gumbel(torch.tensor(seeds_B), logits_BV.shape[1])
    return (logits_BV.float() / temperature + noise_BV).argmax(-1)


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", type=int, default=49152, help="SmolLM2's")
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    sides = {"at once": at_once, "ours": sample}
    found = {}
    for rows in (8, 32, 96):
        generator = torch.Generator().manual_seed(rows)
        logits_BV = torch.randn(rows, options.vocabulary, generator=generator).to(torch.bfloat16)
        taken: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(options.rounds):
            chosen = []
            for name, side in sides.items():
                started = time.perf_counter()
                chosen.append(side(logits_BV, 0.7, list(range(rows))))
                taken[name].append(time.perf_counter() - started)
            assert torch.equal(*chosen)
        ms = {name: 1000 * statistics.median(seconds) for name, seconds in taken.items()}
        found[str(rows)] = {"milliseconds": ms, "ratio": ms["at once"] / ms["ours"]}
        print(f"{rows} rows: {ms['at once']:.1f} ms at once, {ms['ours']:.1f} ms ours, ", end="")
        print(f"{found[str(rows)]['ratio']:.1f} times as fast")
    now = datetime.now(UTC)
    record = {
        "benchmark": "sampling",
        "date": now.isoformat(timespec="seconds"),
        "command": " ".join(["benchmarks/sampling.py", *sys.argv[1:]]),
        "machine": machine(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "rounds": options.rounds,
        "rows": found,
    }
    path = RESULTS / f"sampling-{now:%Y-%m-%d}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"result in {path}")


if __name__ == "__main__":
    main()
