"""Tasks per minute of the acting model: one batch and a kept cache against a serial loop."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from kept import Kept, Record

from atlas_tune.agents.local_model import model_identity
from atlas_tune.agents.policy import Policy
from atlas_tune.agents.rollout import Episode, in_batches, run_policy
from atlas_tune.environments import make_environment
from atlas_tune.trajectory.messages import Message

EASY: dict[str, tuple[dict[str, Any], int]] = {
    "textcraft": ({"depth": 1, "commands": 3, "actions": 3}, 8),
    "babyai": ({"levels": ["GoToObjS4", "GoToRedBallNoDists", "GoToRedBallGrey"]}, 6),
}
"""Task options and step limits of recipes/quickstart.yaml, whose student acts here."""


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
    kept = Kept("rollouts-acting", setting)
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
