"""Every selector on real runs: what it costs, where its steps lie, how necessary they are.

On runs of AgentTraj-L that `replay` can label, drawn by lot. What a step is worth is measured by
removing it (docs/agreement.md); docs/selectors.md reads the table. All of it goes through the
command line, as a user's work does; seconds are those of `atlas-tune select`, start and loading of
the model included. What is done is not done again, so a killed run goes on.

    python benchmarks/selecting.py --work runs/selectors --policy runs/quickstart/models/all/0
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from atlas_tune.agents.local_model import DEFAULT_MODEL, resolve_model
from atlas_tune.pipeline.provenance import machine, versions
from atlas_tune.trajectory.store import read_selections, read_trajectories, write_trajectories

RESULTS = Path(__file__).parent / "results"
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "selectors-overlap.svg"
ENVIRONMENTS = ("textcraft", "babyai")


@dataclass(frozen=True, slots=True)
class Entry:
    """A selector with its settings, on so many runs."""

    name: str
    selector: str
    runs: str
    settings: tuple[str, ...] = ()


def entries(policy: str) -> list[Entry]:
    """What the table holds; the groups differ in how many runs can be paid for."""
    bfloat16 = ("precision=bfloat16",)
    acting = (*bfloat16, "max_new_tokens=64")
    rolling = (*acting, f"policy={policy}", "rollouts_min=2", "rollouts_max=4")
    necessary = '{"selector": "replay", "require": true}'
    novel = '{"selector": "surprisal", "options": {"precision": "bfloat16"}}'
    return [
        Entry("replay", "replay", "all"),
        Entry("replay, pairs", "replay", "all", ("measure=pairs",)),
        Entry("replay, minimal", "replay", "all", ("measure=minimal",)),
        Entry("first", "first", "all"),
        Entry("last", "last", "all"),
        Entry("random", "random", "all"),
        Entry("diverse", "diverse", "all"),
        Entry("progress", "progress", "all", ("source=replay",)),
        Entry("surprisal", "surprisal", "all", bfloat16),
        Entry("surprisal, low", "surprisal", "all", (*bfloat16, "variant=low")),
        Entry("surprisal, action", "surprisal", "all", (*bfloat16, "tokens=action")),
        Entry("hindsight", "hindsight", "all", bfloat16),
        Entry("excess", "excess", "all",
              (*bfloat16, "tune={epochs: 2, learning_rate: 0.0001}")),
        Entry("verdict", "verdict", "all"),
        Entry("necessary, then surprising", "combine", "all",
              (f"parts=[{necessary}, {novel}]", "how=lexicographic")),
        Entry("disagreement", "disagreement", "acted", acting),
        Entry("leverage", "leverage", "rolled", rolling),
        Entry("value-jump", "value-jump", "rolled",
              (*acting, f"policy={policy}", "rollouts=2")),
    ]  # fmt: skip


def command(*words: str) -> tuple[float, str]:
    """Run the command line; seconds and what it printed. Exit code 3 (some left out) is fine."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "atlas_tune", *words], capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 3):
        raise SystemExit(f"atlas-tune {' '.join(words)}\n{done.stderr[-2000:]}")
    return time.perf_counter() - started, done.stdout


def draw_runs(data: Path, work: Path, environment: str, sizes: dict[str, int]) -> None:
    """Files of as many runs as each group has, the smaller ones within the larger."""
    whole = work / f"{environment}.jsonl"
    if not whole.is_file():
        command("import", str(data / f"{environment}.jsonl.xz"), "-o", str(whole))
        command("select", str(whole), "--selector", "replay", "-o", f"{whole}.necessary")
    labelled = read_selections(Path(f"{whole}.necessary"))
    runs = [run for run in read_trajectories(whole) if run.trajectory_id in labelled]
    runs.sort(key=lambda run: hashlib.sha256(run.trajectory_id.encode()).hexdigest())
    for group, size in sizes.items():
        write_trajectories(work / f"{environment}.{group}.jsonl", runs[:size])


def label(work: Path, environment: str, entry: Entry, model: str) -> dict[str, Any]:
    """Select with one selector; its cost as counted beforehand and the seconds it took."""
    runs = work / f"{environment}.{entry.runs}.jsonl"
    chosen = work / environment / f"{entry.name}.jsonl"
    record = chosen.with_suffix(".seconds.json")
    if not record.is_file():
        chosen.parent.mkdir(parents=True, exist_ok=True)
        words = ["select", str(runs), "-o", str(chosen), "--selector", entry.selector,
                 "--model", model, "--json"]  # fmt: skip
        for setting in entry.settings:
            words += ["--set", setting]
        cost = json.loads(command(*words, "--dry-run")[1])
        seconds, told = command(*words)
        found = {"seconds": seconds, "cost": cost, **json.loads(told.splitlines()[-1])}
        record.write_text(json.dumps(found))
        print(f"{environment}: {entry.name} {seconds:.0f} s", flush=True)
    found = json.loads(record.read_text())
    keep = ("seconds", "cost", "trajectories", "selected_steps", "steps")
    return {**{key: found[key] for key in keep}, "unlabelled": len(found["unlabelled"])}


def measure(work: Path, environment: str, group: str, names: list[str]) -> dict[str, Any]:
    """``audit --measure`` of the selections of one group of runs."""
    runs = work / f"{environment}.{group}.jsonl"
    chosen = [str(work / environment / f"{name}.jsonl") for name in names]
    page = work / environment / f"measured-{group}"
    _, told = command("audit", *chosen, "--runs", str(runs), "--measure", str(page), "--json")
    found: dict[str, Any] = json.loads(told)
    return found


def tables(record: dict[str, Any]) -> str:
    """The tables of docs/selectors.md, in Markdown."""
    lines = []
    for environment, found in record["environments"].items():
        for group, measured in found["measured"].items():
            figures = {one["name"]: one for one in measured["selections"]}
            names = [
                name
                for name, row in found["selectors"].items()
                if row["group"] == group or name in ("replay", "first", "last", "random")
            ]
            lines += [
                f"**{environment}**, {measured['trajectories']} runs, {measured['steps']} steps, "
                f"{measured['necessary']} of them necessary",
                "",
                "| selector | seconds | work | first / middle / last third | precision "
                "| over matched random | F1 | average precision |",
                "|---|---:|---|---|---|---|---|---|",
            ]
            for name in names:
                lines.append(_row(name, found["selectors"][name], figures[name]))
            lines.append("")
    return "\n".join(lines)


def _row(name: str, row: dict[str, Any], one: dict[str, Any]) -> str:
    units = (("read_tokens", "tokens read"), ("written_tokens", "written"),
             ("tuned_tokens", "tuned on"), ("rollouts", "rollouts"),
             ("env_steps", "actions played"))  # fmt: skip
    work = ", ".join(f"{row['cost'][key]:,} {unit}" for key, unit in units if row["cost"][key])
    tenths = one["positions"]
    thirds = [sum(tenths[i] for i in range(10) if i * 3 // 10 == part) for part in range(3)]
    position = " / ".join(f"{100 * part / max(1, sum(thirds)):.0f}" for part in thirds) + " %"
    scores = one["necessity"]["scores"]
    return (
        f"| {name} | {row['seconds']:.0f} | {work or '—'} | {position} "
        f"| {_figure(scores['precision'])} | {_figure(one['necessity']['precision_gain'], '+')} "
        f"| {_figure(scores['f1'])} "
        f"| {_figure(one['necessity']['average_precision'])} |"
    )


def _figure(figure: dict[str, Any], sign: str = "") -> str:
    if figure["value"] is None:
        return "—"
    value = f"{figure['value']:{sign}.2f}"
    if figure["low"] is None:
        return value
    return f"{value} ({figure['low']:{sign}.2f} to {figure['high']:{sign}.2f})"


def draw_overlaps(record: dict[str, Any], target: Path) -> None:
    """Kappa of every two selections on the same runs, one panel per environment."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "selectors"  # the same bytes every time
    import matplotlib.pyplot as plt
    import numpy as np

    figure, panels = plt.subplots(1, len(record["environments"]), figsize=(15, 7.5))
    for panel, (environment, found) in zip(
        np.atleast_1d(panels), record["environments"].items(), strict=True
    ):
        measured = found["measured"]["all"]
        names = [one["name"] for one in measured["selections"]]
        kappa = np.eye(len(names))
        for pair in measured["overlaps"]:
            i, j = names.index(pair["one"]), names.index(pair["other"])
            kappa[i, j] = kappa[j, i] = pair["kappa"]["value"] or 0.0
        panel.imshow(kappa, vmin=-1, vmax=1, cmap="RdBu_r")
        panel.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
        panel.set_yticks(range(len(names)), names, fontsize=8)
        panel.set_title(f"{environment}: Cohen's kappa on {measured['trajectories']} runs")
        for i, j in np.ndindex(*kappa.shape):
            dark = abs(kappa[i, j]) > 0.6
            panel.text(j, i, f"{kappa[i, j]:.2f}".replace("0.", "."), ha="center", va="center",
                       fontsize=6, color="white" if dark else "black")  # fmt: skip
    figure.tight_layout()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, required=True, help="files are kept here")
    parser.add_argument("--policy", required=True, help="the model that rollouts are of")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--runs", type=int, default=60, help="per environment")
    parser.add_argument(
        "--acted", type=int, default=20, help="of these, for sampled actions; 0 leaves them out"
    )
    parser.add_argument(
        "--rolled", type=int, default=8, help="of these, for rollouts; 0 leaves them out"
    )
    options = parser.parse_args()
    data = Path(os.environ.get("ATLAS_TUNE_DATA", options.data)) / "agenttraj-l"
    options.work.mkdir(parents=True, exist_ok=True)
    asked = {"all": options.runs, "acted": options.acted, "rolled": options.rolled}
    sizes = {group: size for group, size in asked.items() if size}
    results: dict[str, Any] = {}
    for environment in ENVIRONMENTS:
        draw_runs(data, options.work, environment, sizes)
        table = [entry for entry in entries(options.policy) if entry.runs in sizes]
        rows = {
            entry.name: {
                "group": entry.runs,
                "settings": [s for s in entry.settings if not s.startswith("policy=")],
                **label(options.work, environment, entry, options.model),
            }
            for entry in table
        }
        base = [entry.name for entry in table if entry.runs == "all"]
        measured = {}
        for group in sizes:
            names = base + [e.name for e in table if e.runs == group and group != "all"]
            measured[group] = measure(options.work, environment, group, names)
        results[environment] = {"selectors": rows, "measured": measured}
    now = datetime.now(UTC)
    record = {
        "benchmark": "selecting",
        "date": now.isoformat(timespec="seconds"),
        "command": " ".join(["benchmarks/selecting.py", *sys.argv[1:]]),
        "machine": machine(),
        "versions": versions(options.model, resolve_model(options.model)),
        "runs": sizes,
        "environments": results,
    }
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"selecting-{now:%Y-%m-%d}.json"
    target.write_text(json.dumps(record, indent=1) + "\n")
    draw_overlaps(record, PICTURE)
    print(tables(record))
    print(target)


if __name__ == "__main__":
    main()
