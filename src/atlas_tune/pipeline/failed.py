"""The episodes that failed, by kind, with a few of them in full."""

from __future__ import annotations

from collections import Counter

from atlas_tune.evaluate.failures import failure_of
from atlas_tune.evaluate.rollouts import Rollout
from atlas_tune.pipeline.evaluations import Evaluations
from atlas_tune.report.results import Failures, Transcript, TranscriptTurn

PER_KIND = 1
"""Transcripts of an arm per kind of failure."""


def failures(done: Evaluations) -> tuple[tuple[Failures, ...], tuple[Transcript, ...]]:
    """Counts by arm, environment and kind over all seeds, and the first episode of each kind."""
    counted, shown = [], []
    for arm in done.arms:
        shown_kinds: Counter[str] = Counter()
        for place in done.places:
            kinds: Counter[str] = Counter()
            episodes = solved = 0
            for seed, rollouts in done.of(arm, place).items():
                for rollout in rollouts:
                    episodes += 1
                    kind = failure_of(rollout, done.limits[place])
                    if kind is None:
                        solved += 1
                        continue
                    kinds[kind] += 1
                    shown_kinds[kind] += 1
                    if shown_kinds[kind] <= PER_KIND:
                        shown.append(_transcript(arm, seed, place, kind, rollout))
            if episodes:
                counted.append(
                    Failures(
                        arm=arm,
                        environment=place,
                        episodes=episodes,
                        solved=solved,
                        by_kind=dict(kinds),
                    )
                )
    return tuple(counted), tuple(shown)


def _transcript(arm: str, seed: int | None, place: str, kind: str, rollout: Rollout) -> Transcript:
    return Transcript(
        transcript_id="-".join([arm, str(seed), place, rollout.task_id]),
        arm=arm,
        seed=seed,
        environment=place,
        task_id=rollout.task_id,
        kind=kind,
        reward=rollout.reward,
        turns=tuple(
            TranscriptTurn(
                text=step.message,
                observation=step.observation.text if step.observation else "",
                reward=reward,
            )
            for step, reward in zip(rollout.steps, rollout.rewards, strict=True)
        ),
    )
