"""Invented results of twenty arms, three seeds and four environments, to look at a full page."""

import math
import random
from statistics import fmean

from synthetic_results import ARMS, SELECTED, arm, comparison, results, transcript

from atlas_tune.evaluate.statistics import wilson_interval
from atlas_tune.report import (
    Cell,
    Environment,
    Failures,
    LossCurve,
    LossPoint,
    Result,
    Results,
    RewardCurve,
    SeedScores,
    Started,
    TaskScores,
)

MANY_TASKS = {"textcraft": 200, "babyai": 200, "scienceworld-measurement": 120, "wordle": 100}
RATIOS = (10, 20, 50, 70)


def experiment(seeds=(0, 1, 2)):
    """As many arms, seeds and environments as a full experiment has."""
    draw = random.Random(7)
    rates = dict(ARMS)
    rates |= {f"critical-{ratio}": 0.5 + 0.002 * ratio for ratio in RATIOS}
    rates |= {f"random-{kind}-{n}": 0.54 for kind in ("position", "token") for n in (1, 2, 3)}
    rates |= dict.fromkeys(("surprisal", "excess-loss", "leverage"), 0.57)
    rates |= {"critical-replay-equal-epochs": 0.61, "critical-by-a-very-long-oracle-name": 0.6}
    small = results(seeds)
    arms = [many_arm(name, number) for number, name in enumerate(rates)]
    scores = {
        (name, place, seed): min(1, max(0, rate + draw.gauss(0, 0.03) - 0.05 * where))
        for name, rate in rates.items()
        for where, place in enumerate(MANY_TASKS)
        for seed in (seeds if name != "untuned" else [None])
    }
    means = {
        (name, place): fmean(v for (n, p, _), v in scores.items() if (n, p) == (name, place))
        for name, place, _ in scores
    }
    graded = ("babyai", "scienceworld-measurement")
    return Results.model_validate(
        small.model_dump()
        | {
            "name": "experiment",
            "complete": {"done": 228, "of": 240},
            "environments": [
                Environment(
                    name=place,
                    split="test",
                    tasks=tasks,
                    max_steps=20,
                    metric="reward" if place in graded else "success",
                    role="held-in" if place in ("textcraft", "babyai") else "held-out",
                )
                for place, tasks in MANY_TASKS.items()
            ],
            "arms": arms,
            "results": [
                measured(name, seed, place, rate) for (name, place, seed), rate in scores.items()
            ],
            "cells": [
                Cell(
                    arm=name,
                    environment=place,
                    seeds=1 if name == "untuned" else len(seeds),
                    tasks=MANY_TASKS[place],
                    value=value,
                    interval=(max(0, value - 0.07), min(1, value + 0.07)),
                )
                for (name, place), value in means.items()
            ],
            "comparisons": [
                comparison(against, place, tasks, 40, 31, 0.2, verdict, arm)
                for arm in rates
                for against in ("untuned", "all", "random")
                for (place, tasks), verdict in zip(
                    MANY_TASKS.items(),
                    ("better", "cannot tell", "equivalent", "worse"),
                    strict=True,
                )
                if arm not in (against, "untuned")
            ],
            "task_scores": [
                TaskScores(
                    environment=place,
                    tasks=[f"{place}/{n}" for n in range(tasks)],
                    scores=[
                        SeedScores(
                            arm=arm,
                            seed=0,
                            values=[round(draw.random() * 3 * (r + 0.3)) / 3 for _ in range(tasks)],
                        )
                        for arm, r in rates.items()
                    ],
                )
                for place, tasks in MANY_TASKS.items()
            ],
            "losses": [
                many_losses(name, seed, draw)
                for name in rates
                if name != "untuned"
                for seed in seeds
            ],
            "reward_per_step": [
                RewardCurve(
                    environment=place,
                    arm=name,
                    points=[value * (1 - math.exp(-k / 5)) for k in range(1, 21)],
                )
                for (name, place), value in means.items()
            ],
            "failures": [
                Failures(
                    arm=name,
                    environment=place,
                    episodes=100,
                    solved=round(100 * value),
                    by_kind={"loop": 100 - round(100 * value)},
                )
                for (name, place), value in means.items()
            ],
            "transcripts": [transcript(name, "loop") for name in rates],
            "criticality": [
                Started(
                    selection=name,
                    environment="textcraft",
                    policy="base",
                    runs=90,
                    steps=140,
                    from_start=0.21,
                    before=0.4,
                    after=0.52,
                    gain=0.12,
                    gain_interval=(0.05, 0.19),
                    after_random=0.47,
                    after_difference=0.05,
                    after_interval=(-0.02, 0.12),
                    matched_random=0.06,
                    difference=0.06,
                    interval=(-0.01, 0.13),
                )
                for name in ("critical", "random")
            ],
        }
    )


def many_arm(name, number):
    known = name if name in ARMS else "random"
    last = name.rpartition("-")[2]
    ratio = int(last) / 100 if name.startswith("critical-") and last.isdigit() else 0.3
    selected = SELECTED[name] if name in ARMS else int(4900 * ratio)
    like = arm(known)
    training = like.training and like.training.model_copy(
        update={
            "flops": 4e14 + 8e10 * selected + 1e12 * number,
            "seconds": 800 + 0.4 * selected + 5 * number,
            "supervised_tokens": 41 * selected,
        }
    )
    update = {
        "name": name,
        "selector": "oracle" if name.startswith("critical") else like.selector,
        "of": "critical" if name.startswith("random-") else None,
        "options": {"match": name.split("-")[1]} if name.startswith("random-") else {},
        "reference": not name.startswith("critical"),
        "selected_steps": selected,
        "training": training,
    }
    return like.model_copy(update=update)


def measured(name, seed, place, rate):
    tasks = MANY_TASKS[place]
    successes = round(tasks * rate)
    return Result(
        arm=name,
        seed=seed,
        environment=place,
        tasks=tasks,
        successes=successes,
        success_rate=successes / tasks,
        interval=wilson_interval(successes, tasks),
        mean_reward=rate,
        reward_interval=(max(0, rate - 0.06), rate + 0.06),
        mean_turns=12.0,
        invalid_share=0.1,
        seconds=300.0,
    )


def many_losses(name, seed, draw):
    return LossCurve(
        arm=name,
        seed=seed,
        points=[
            LossPoint(
                step=step,
                loss=0.2 + 1.3 * math.exp(-step / 40) * draw.uniform(0.85, 1.15),
                supervised_tokens=step * 800,
                seconds=5.5 * step,
            )
            for step in range(1, 226)
        ],
    )
