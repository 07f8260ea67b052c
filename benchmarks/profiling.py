"""Where the time of a training step goes: PyTorch's operations of ours, all savings on.

    python benchmarks/profiling.py --rows-per-step 8 --threads 1
    python benchmarks/profiling.py --rows-per-step 8 --threads 1 --attention fused

``fused`` puts PyTorch's own attention in the place of ``tune/blocked_attention.py``, which is what
docs/performance.md compares. The profiler itself takes time, so seconds compare within one table.
The step runs once before it is profiled, so that its memory is there. The last lines hold linear
layers and attention against their counted operations (``tune/flops.py``).
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import torch
from torch import nn
from training import rows_of
from training_sides import Ours

from atlas_tune.agents.local_model import DEFAULT_MODEL, load_model
from atlas_tune.tune import tree_attention
from atlas_tune.tune.flops import Shape, savings
from atlas_tune.tune.packed_loss import PackedLoss
from atlas_tune.tune.prefixes import LEAST_SHARED

ATTENTION = {
    "blocked": ["_Blocked", "_BlockedBackward"],
    "fused": [
        "aten::scaled_dot_product_attention",
        "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
    ],
}
"""The operations that attention is, forward and backward, by name."""


def fused(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    at_S: torch.Tensor,
    window: int | None = None,
    scaling: float | None = None,
) -> torch.Tensor:
    """The attention of ``blocked_attention``, by PyTorch's fused kernel with a mask."""
    keys_L = torch.arange(key.shape[2])
    mask_SL = keys_L <= at_S[:, None]
    if window is not None:
        mask_SL &= keys_L > at_S[:, None] - window
    return nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask_SL, scale=scaling, enable_gqa=True
    )


def main() -> None:
    """Profile one step and print its dearest operations."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--rows-per-step", type=int, default=8)
    parser.add_argument("--share", type=float, default=0.3, help="of the steps")
    parser.add_argument("--tokens", type=int, default=2048, help="that run at once")
    parser.add_argument("--attention", choices=["blocked", "fused"], default="blocked")
    parser.add_argument("--threads", type=int, help="torch's; by default its own choice")
    parser.add_argument("--operations", type=int, default=20, help="how many are listed")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.attention == "fused":
        tree_attention.blocked_attention = fused  # type: ignore[attr-defined]
    step = rows_of(options.model, 1, options.rows_per_step, options.share)[: options.rows_per_step]
    bf16 = partial(torch.autocast, "cpu", dtype=torch.bfloat16)
    model = load_model(options.model).train()
    ours = Ours(model, PackedLoss(options.tokens, True, True, LEAST_SHARED, bf16), True)
    print("rows of", *[len(cut.input_ids) for cut, _ in step], "tokens")
    ours(step)
    model.zero_grad(set_to_none=True)
    with torch.profiler.profile() as profile:
        started = time.perf_counter()
        loss = ours(step)
        seconds = time.perf_counter() - started
    averages = profile.key_averages()
    print(averages.table(sort_by="self_cpu_time_total", row_limit=options.operations))
    print(f"{options.attention}: loss {loss:.4f}, {seconds:.1f} s under the profiler")
    counted = savings(Shape.of(model.config), [[cut for cut, _ in step]])["shared prefixes"]
    took = {one.key: one.cpu_time_total / 1e6 for one in averages}
    for what, operations, names in (
        ("linear layers", counted.blocks + counted.head, ["aten::mm"]),
        ("attention", counted.attention, ATTENTION[options.attention]),
    ):
        spent = sum(took[name] for name in names)
        print(
            f"{what}: {operations / 1e12:.1f} TFLOP counted, {spent:.1f} s, "
            f"{operations / 1e9 / spent:.0f} GFLOP/s"
        )


if __name__ == "__main__":
    main()
