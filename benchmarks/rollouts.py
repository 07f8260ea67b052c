"""What rollouts cost: the acting model, the environments alone, and many episodes.

    python benchmarks/rollouts.py acting --model runs/quickstart/models/all/0
    python benchmarks/rollouts.py acting --model runs/quickstart/models/all/0 --precision float32
    python benchmarks/rollouts.py environments
    python benchmarks/rollouts.py growth

- **acting**: tasks per minute of ours (`LocalPolicy`: one batch, a kept cache) against a serial
  loop of transformers' `generate` over the whole history, which is what AgentGym's evaluator does.
  Both sides have the same weights, precision, greedy choice, end of turn and longest reply. In
  float32 they must say the same, else the benchmark fails; in bfloat16 the episodes that differ are
  counted, because there the rounding decides now and then.
- **environments**: steps per second of each environment that is available here, without a model.
  An expert's actions are recorded first and played again, so that its thinking is not counted.
- **growth**: seconds per episode, and memory, of the evaluation of many episodes by a policy that
  costs nothing (recorded actions of an expert). Each size runs in a process of its own.

One process and sides in turn within a round, so that what disturbs one disturbs the other. What is
measured is kept in runs/benchmarks at once: a killed run goes on, and --rounds may be raised.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from kept import Record
from rollouts_acting import acting
from rollouts_environments import environments, growth

from atlas_tune.agents.local_model import DEFAULT_MODEL, resolve_model
from atlas_tune.pipeline.provenance import machine, versions

RESULTS = Path(__file__).parent / "results"


def table(part: str, record: Record) -> str:
    """The record as Markdown."""
    rows: list[str] = []
    if part == "acting":
        rows = ["| environment | ours, tasks/min | serial | ratio | episodes that differ |"]
        for name, one in record["environments"].items():
            speed = one["tasks_per_minute"]
            rows.append(
                f"| {name} | {speed['ours']:.2f} | {speed['serial']:.2f} | {one['ratio']:.1f} "
                f"| {one['differing']} of {one['tasks']} |"
            )
    elif part == "environments":
        rows = ["| environment | steps/s | a reset, ms | steps/s with resets |"]
        for name, one in record["environments"].items():
            rows.append(
                f"| {name} | not here: {one['missing']} | | |"
                if "missing" in one
                else f"| {name} | {one['steps_per_second']:.0f} | {one['reset_milliseconds']:.1f} "
                f"| {one['steps_per_second_with_resets']:.0f} |"
            )
    else:
        rows = ["| environment | episodes | ms per episode | ms per turn | MiB gained |"]
        for name, sizes in record["environments"].items():
            rows += [
                f"| {name} | {one['tasks']:.0f} | {one['milliseconds_per_episode']:.1f} "
                f"| {one['milliseconds_per_turn']:.2f} | {one['bytes_gained'] / 2**20:.1f} |"
                for one in sizes.values()
            ]
    columns = rows[0].count("|") - 1
    return "\n".join([rows[0], "|" + "---|" * columns, *rows[1:]])


def parser() -> argparse.ArgumentParser:
    """The command line: one subcommand a part."""
    whole = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = whole.add_subparsers(dest="part", required=True)
    act = parts.add_parser("acting", help="the model, against a serial loop")
    act.add_argument("--model", default=DEFAULT_MODEL)
    act.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16")
    act.add_argument("--tasks", type=int, default=32)
    act.add_argument("--batch", type=int, default=32)
    act.add_argument("--max-new-tokens", type=int, default=64)
    act.add_argument("--threads", type=int, help="torch's; by default its own choice")
    envs = parts.add_parser("environments", help="steps per second without a model")
    envs.add_argument("--tasks", type=int, default=30)
    envs.add_argument("--only", nargs="*", help="names; all where it is left out")
    grow = parts.add_parser("growth", help="time per episode of many episodes")
    grow.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000])
    grow.add_argument("--only", nargs="+", default=["textcraft", "babyai"])
    for part in (act, envs, grow):
        part.add_argument("--rounds", type=int, default=3)
    return whole


def main() -> None:
    """Measure one part, write its record to benchmarks/results and print its table."""
    options = parser().parse_args()
    found = {"acting": acting, "environments": environments, "growth": growth}[options.part](
        options
    )
    now = datetime.now(UTC)
    model = getattr(options, "model", DEFAULT_MODEL)
    name = Path(model).name
    record = {
        "benchmark": f"rollouts, {options.part}",
        "date": now.isoformat(timespec="seconds"),
        "command": " ".join(["benchmarks/rollouts.py", *sys.argv[1:]]),
        "machine": machine(),
        "versions": versions(name, resolve_model(model)) if options.part == "acting" else {},
        **found,
    }
    precision = f"-{options.precision}" if options.part == "acting" else ""
    target = RESULTS / f"rollouts-{options.part}{precision}-{now:%Y-%m-%d}.json"
    RESULTS.mkdir(exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(table(options.part, record))
    print(target)


if __name__ == "__main__":
    main()
