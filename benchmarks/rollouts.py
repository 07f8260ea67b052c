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
import hashlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from atlas_tune.agents.local_model import DEFAULT_MODEL, model_identity, resolve_model
from atlas_tune.agents.policy import Policy
from atlas_tune.agents.rollout import Episode, in_batches, run_expert, run_policy
from atlas_tune.agents.streams import stream_of
from atlas_tune.environments import ENVIRONMENT_NAMES, make_environment
from atlas_tune.environments.base import ExpertFailed, TextEnv
from atlas_tune.errors import AtlasError
from atlas_tune.pipeline.provenance import machine, versions
from atlas_tune.trajectory.messages import Message

HERE = Path(__file__).parent
RESULTS = HERE / "results"
EASY: dict[str, tuple[dict[str, Any], int]] = {
    "textcraft": ({"depth": 1, "commands": 3, "actions": 3}, 8),
    "babyai": ({"levels": ["GoToObjS4", "GoToRedBallNoDists", "GoToRedBallGrey"]}, 6),
}
"""Task options and step limits of recipes/quickstart.yaml, whose student acts here."""
Record = dict[str, Any]


class Kept:
    """What was measured under one setting: one JSON line a measurement, on disk at once."""

    def __init__(self, part: str, setting: Record) -> None:
        digest = hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()
        self.path = HERE.parent / "runs" / "benchmarks" / f"rollouts-{part}-{digest[:12]}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = self.path.read_text().split("\n")[:-1] if self.path.exists() else []
        # A kill can leave half a line, which the next one must not be written behind.
        self.path.write_text("".join(f"{line}\n" for line in whole))
        self.done: list[Record] = [json.loads(line) for line in whole]

    def measured(self, key: Record, measure: Callable[[], Record]) -> Record:
        """The measurement of this key: from the file, or made now and written there."""
        for one in self.done:
            if all(one[name] == value for name, value in key.items()):
                return one
        found = {**key, **measure()}
        with self.path.open("a") as file:
            file.write(json.dumps(found) + "\n")
        self.done.append(found)
        shown = {name: value for name, value in found.items() if name != "said"}
        print(json.dumps(shown), flush=True)
        return found


# acting


class Serial:
    """The plain way: one conversation at a time, its whole history read anew at every turn."""

    def __init__(self, model: Any, tokenizer: Any, ends: set[int], max_new_tokens: int) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.ends, self.max_new_tokens = ends, max_new_tokens

    def replies(self, conversations: Mapping[str, Sequence[Message]]) -> dict[str, str]:
        """The next message of each conversation, one after the other."""
        return {key: self._reply(messages) for key, messages in conversations.items()}

    def _reply(self, messages: Sequence[Message]) -> str:
        from atlas_tune.agents.chat_template import render_text

        text = render_text(self.tokenizer, messages, generation_prompt=True)
        asked = self.tokenizer(text, add_special_tokens=False, return_tensors="pt")
        asked = asked.to(self.model.device)
        written = self.model.generate(
            input_ids=asked["input_ids"],
            attention_mask=asked["attention_mask"],
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=sorted(self.ends),
            pad_token_id=self.tokenizer.pad_token_id,
        )[0, asked["input_ids"].shape[1] :].tolist()
        kept = written[:-1] if written[-1] in self.ends else written
        return str(self.tokenizer.decode(kept, clean_up_tokenization_spaces=False))


def play(
    environment: str, tasks: Sequence[str], policy: Policy, batch: int, limit: int
) -> list[Episode]:
    """The episodes of all tasks, so many at once."""
    played: list[Episode] = []
    for some in in_batches(tasks, batch):
        played += run_policy(lambda: make_environment(environment), some, policy, limit)
    return played


def acting(options: argparse.Namespace) -> Record:
    """Both ways on the same tasks, in turn, round by round."""
    import torch

    from atlas_tune.agents.local_policy import load_policy

    if options.threads:
        torch.set_num_threads(options.threads)
    ours = load_policy(options.model, options.max_new_tokens, options.precision)
    serial = Serial(ours.model, ours.tokenizer, ours.ends, options.max_new_tokens)

    def measure(environment: str, side: str) -> Record:
        settings, limit = EASY[environment]
        tasks = make_environment(environment).tasks("test", **settings)[: options.tasks]
        ours.forget()
        policy: Policy = ours if side == "ours" else serial
        started = time.perf_counter()
        # One after the other is the serial loop's way; only ours has a use for a batch.
        batch = options.batch if side == "ours" else 1
        episodes = play(environment, tasks, policy, batch, limit)
        seconds = time.perf_counter() - started
        return {
            "seconds": seconds,
            "tasks": len(tasks),
            "turns": sum(len(one.turns) for one in episodes),
            "solved": sum(one.success for one in episodes),
            "said": [[said for said, _, _ in one.turns] for one in episodes],
        }

    setting = {
        "model": model_identity(options.model),
        "threads": torch.get_num_threads(),
        "precision": options.precision,
        "tasks": options.tasks,
        "batch": options.batch,
        "max_new_tokens": options.max_new_tokens,
        "easy": EASY,
    }
    kept = Kept("acting", setting)
    found = {}
    for number in range(options.rounds):
        for environment in EASY:
            for side in ("ours", "serial")[:: 1 if number % 2 == 0 else -1]:
                key = {"round": number, "environment": environment, "side": side}
                kept.measured(key, lambda e=environment, s=side: measure(e, s))  # type: ignore[misc]
            found[environment] = compared(kept.done, environment)
            differing = found[environment]["differing"]
            if differing and options.precision == "float32":
                raise SystemExit(
                    f"In {environment} {differing} of {found[environment]['tasks']} episodes "
                    f"differ in float32; the replies are in {kept.path}. Either ours is wrong, or "
                    "two tokens were equally likely, or the model wrote tokens that its tokenizer "
                    "would not choose: the serial loop then reads others."
                )
    return {"setting": setting, "rounds": options.rounds, "environments": found}


def compared(done: Sequence[Record], environment: str) -> Record:
    """Medians over the rounds of both sides in one environment, and their ratio."""
    both: dict[str, list[Record]] = {"ours": [], "serial": []}
    for one in done:
        if one["environment"] == environment:
            both[one["side"]].append(one)
    ours, serial = both["ours"], both["serial"]
    per_minute = {
        side: 60 * ones[0]["tasks"] / statistics.median(one["seconds"] for one in ones)
        for side, ones in both.items()
    }
    pairs = zip(ours, serial, strict=False)
    return {
        "tasks": ours[0]["tasks"],
        "turns": ours[0]["turns"],
        "solved": {"ours": ours[0]["solved"], "serial": serial[0]["solved"]},
        "differing": max(
            sum(a != b for a, b in zip(one["said"], other["said"], strict=True))
            for one, other in pairs
        ),
        "tasks_per_minute": per_minute,
        "ratio": per_minute["ours"] / per_minute["serial"],
        "all_seconds": {side: [one["seconds"] for one in ones] for side, ones in both.items()},
    }


# environments and growth


def recorded(environment: str, count: int) -> dict[str, tuple[str, ...]]:
    """What an expert says in tasks drawn by lot, by task; those are left out that it gives up.

    Raises:
        AtlasError: the environment is not available here.
    """
    env = make_environment(environment)
    split = "train" if "train" in env.splits else env.splits[0]
    found: dict[str, tuple[str, ...]] = {}
    tasks = list(env.tasks(split))
    # Else the first would be the easiest, and a larger number of episodes would be harder ones.
    random.Random(0).shuffle(tasks)
    for task in tasks:
        if len(found) == count:
            break
        try:
            episode = run_expert(env, task, lambda: env.expert(0), env.max_steps)
        except ExpertFailed:
            continue
        found[task] = tuple(said for said, _, _ in episode.turns)
    env.close()
    return found


def steps_of(environment: str, tasks: int) -> Record:
    """Seconds of resets and of steps, each by itself; why, where there is no such environment."""
    from atlas_tune.agents.react import parse_turn

    try:
        said = recorded(environment, tasks)
    except AtlasError as error:
        return {"missing": str(error)}
    env = make_environment(environment)
    resets = steps = 0.0
    count = 0
    for task, replies in said.items():
        actions = [parse_turn(reply).action for reply in replies]
        started = time.perf_counter()
        env.reset(options={"task_id": task})
        begun = time.perf_counter()
        for action in actions:
            if action is not None:
                env.step(action)
                count += 1
        steps += time.perf_counter() - begun
        resets += begun - started
    env.close()
    return {
        "tasks": len(said),
        "steps": count,
        "steps_per_second": count / steps,
        "reset_milliseconds": 1000 * resets / len(said),
        "steps_per_second_with_resets": count / (steps + resets),
    }


def environments(options: argparse.Namespace) -> Record:
    """Steps per second of each environment; medians over the rounds."""
    kept = Kept("environments", {"tasks": options.tasks})
    for number in range(options.rounds):
        for name in options.only or ENVIRONMENT_NAMES:
            key = {"round": number, "environment": name}
            kept.measured(key, lambda e=name: steps_of(e, options.tasks))  # type: ignore[misc]
    found: Record = {}
    for name in options.only or ENVIRONMENT_NAMES:
        rounds = [one for one in kept.done if one["environment"] == name]
        # What was missing may have been installed since: the last round says what there is.
        played = [one for one in rounds if "missing" not in one]
        found[name] = _medians(played) if played else {"missing": rounds[-1]["missing"]}
    return {"rounds": options.rounds, "environments": found}


class Recorded:
    """A policy that costs nothing: it says what an expert said in the same task."""

    def __init__(self, said: Mapping[str, Sequence[str]]) -> None:
        self.said = said

    def replies(self, conversations: Mapping[str, Sequence[Message]]) -> dict[str, str]:
        """The recorded message of each episode's turn; its key begins with the task's name."""
        found = {}
        for key, messages in conversations.items():
            # The prefill is an assistant message too.
            turn = sum(message["role"] == "assistant" for message in messages) - 1
            found[key] = self.said[stream_of(key).replace("%23", "#")][turn]
        return found


def grown(environment: str, episodes: int) -> Record:
    """One evaluation of so many episodes, in this process: its seconds and memory."""
    from atlas_tune.evaluate.rollouts import evaluate

    said = recorded(environment, episodes)
    env: TextEnv = make_environment(environment)
    # What is imported at the first episode is no part of any size.
    play(environment, list(said)[:2], Recorded(said), 2, env.max_steps)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        rollouts = evaluate(
            lambda: make_environment(environment),
            list(said),
            lambda: Recorded(said),
            Path(folder) / "rollouts.jsonl",
            max_steps=env.max_steps,
            batch_size=10,
            agent={"name": "recorded", "version": "1"},
            model={"model": "recorded"},
        )
        seconds = time.perf_counter() - started
    turns = sum(one.turns for one in rollouts)
    return {
        "seconds": seconds,
        "tasks": len(rollouts),
        "turns": turns,
        "solved": sum(one.success for one in rollouts),
        "milliseconds_per_episode": 1000 * seconds / len(rollouts),
        "milliseconds_per_turn": 1000 * seconds / turns,
        "bytes_gained": _status("VmHWM") - before,
    }


def growth(options: argparse.Namespace) -> Record:
    """Seconds per episode and memory at several sizes; medians over the rounds."""
    kept = Kept("growth", {"sizes": options.sizes, "environments": options.only})

    def alone(environment: str, size: int) -> Record:
        words = [sys.executable, str(Path(__file__)), "one-growth", environment, str(size)]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        found: Record = json.loads(done.stdout.splitlines()[-1])
        return found

    for number in range(options.rounds):
        for environment in options.only:
            for size in options.sizes:
                key = {"round": number, "environment": environment, "size": size}
                kept.measured(key, lambda e=environment, s=size: alone(e, s))  # type: ignore[misc]
    found = {
        environment: {
            str(size): _medians(
                [o for o in kept.done if (o["environment"], o["size"]) == (environment, size)]
            )
            for size in options.sizes
        }
        for environment in options.only
    }
    return {"rounds": options.rounds, "environments": found}


def _medians(rounds: Sequence[Record]) -> Record:
    names = [n for n in rounds[0] if n not in ("round", "environment", "size")]
    return {name: statistics.median(one[name] for one in rounds) for name in names}


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


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
    one = parts.add_parser("one-growth")  # what growth starts for each measurement
    one.add_argument("environment")
    one.add_argument("size", type=int)
    return whole


def main() -> None:
    """Measure one part, write its record to benchmarks/results and print its table."""
    options = parser().parse_args()
    if options.part == "one-growth":
        print(json.dumps(grown(options.environment, options.size)))
        return
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
