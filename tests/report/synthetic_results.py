"""Invented results: plausible in shape, measured nowhere. For tests and for looking at the page."""

import math
import random

from atlas_tune.evaluate.statistics import wilson_interval
from atlas_tune.report import (
    Arm,
    Comparison,
    Data,
    Environment,
    Example,
    ExampleStep,
    Failures,
    LossCurve,
    LossPoint,
    Needed,
    Quarantined,
    Result,
    Results,
    RewardCurve,
    SeedScores,
    TaskScores,
    Training,
    Transcript,
    TranscriptTurn,
)

ARMS = {"untuned": 0.22, "all": 0.58, "critical": 0.64, "random": 0.55, "complement": 0.41}
KINDS = {
    "critical": {
        "plan_creation": 310,
        "critical_observation": 150,
        "critical_action": 960,
        "self_correction": 42,
    },
    "all": {"none": 4900},
}
TASKS = {"textcraft": 100, "babyai": 90}
SELECTED = {"untuned": 0, "all": 4900, "critical": 1462, "random": 1470, "complement": 1470}
RECIPE = """name: synthetic
model: Qwen/Qwen2.5-0.5B-Instruct
environments: [textcraft, babyai]
arms:
  all: {selector: all}
  critical: {selector: oracle, budget: 0.3}
"""


def results(seeds=(0,), noise=0):
    draw = random.Random(noise)
    return Results(
        name="synthetic",
        created_at="2026-01-31T12:00:00+00:00",
        recipe=RECIPE,
        machine={"cpu": "invented, 2 cores", "memory": "8 GiB", "gpu": "none"},
        versions={"atlas-tune": "0.1.0", "python": "3.11.9", "torch": "2.9.0"},
        command="atlas-tune run recipes/synthetic.yaml",
        environments=[
            Environment(
                name="textcraft",
                split="test",
                tasks=100,
                max_steps=20,
                metric="success",
                role="held-in",
            ),
            Environment(
                name="babyai",
                split="test",
                tasks=90,
                max_steps=20,
                metric="reward",
                role="held-out",
            ),
        ],
        data=[
            Data(
                environment="textcraft",
                trajectories=374,
                steps=2900,
                collected_seconds=12.5,
                mean_steps=7.75,
                success_share=1.0,
            ),
            Data(
                environment="babyai",
                trajectories=220,
                steps=2000,
                collected_seconds=75.0,
                mean_steps=9.09,
                success_share=0.95,
            ),
        ],
        arms=[arm(name) for name in ARMS],
        results=[
            result(name, seed, environment, tasks, draw)
            for name in ARMS
            for seed in (seeds if name != "untuned" else [None])
            for environment, tasks in TASKS.items()
        ],
        comparisons=[
            comparison(*row)
            for row in (
                ("untuned", "textcraft", 100, 44, 2, 0.0000012, "better"),
                ("all", "textcraft", 100, 17, 11, 0.345, "cannot tell"),
                ("random", "textcraft", 100, 19, 10, 0.136, "cannot tell"),
                ("untuned", "babyai", 90, 31, 4, 0.0000032, "better"),
                ("all", "babyai", 90, 9, 13, 0.524, "cannot tell"),
            )
        ],
        losses=[
            loss_curve(name, seed, draw) for name in ARMS if name != "untuned" for seed in seeds
        ],
        reward_per_step=[
            RewardCurve(
                environment=environment,
                arm=name,
                points=[rate * (1 - math.exp(-k / 5)) for k in range(1, 21)],
            )
            for environment in ("textcraft", "babyai")
            for name, rate in ARMS.items()
        ],
        cells=[],
        task_scores=[task_scores(name, tasks) for name, tasks in TASKS.items()],
        failures=[failures(name, place, len(seeds)) for name in ARMS for place in TASKS],
        transcripts=[transcript(name, kind) for name in ARMS for kind in ("format", "loop")],
        examples=[example(number) for number in range(5)],
        notes=[
            "These numbers are invented. They show what the report looks like, nothing else.",
            "One seed: differences between arms include the luck of one training run.",
        ],
        quarantined=[Quarantined(place="textcraft.jsonl, line 17", reason="not JSON: '}' missing")],
    )


def comparison(against, environment, tasks, wins, losses, p_value, verdict, arm="critical"):
    difference = (wins - losses) / tasks
    plan = Needed(tasks=900, seeds=1) if verdict == "cannot tell" else None
    return Comparison(
        arm=arm,
        against=against,
        environment=environment,
        metric="reward" if environment == "babyai" else "success",
        seeds=1,
        tasks=tasks,
        wins=wins,
        losses=losses,
        ties=tasks - wins - losses,
        difference=difference,
        interval=(difference - 0.1, difference + 0.1),
        bootstrap=(difference - 0.09, difference + 0.09),
        test="McNemar's exact test",
        p_value=p_value,
        adjusted_p_value=min(1, 2 * p_value),
        delta=0.05,
        adjusted_equivalence_p_value=0.4,
        detectable=0.14,
        needed=plan,
        verdict=verdict,
        words=f"{verdict.capitalize()} ({100 * difference:+.1f} points; {wins} tasks better, "
        f"{losses} worse of {tasks}; p {p_value:.3f}, McNemar's exact test). "
        + ("A difference of 5 points would need 900 tasks x 1 seed. " if plan else "")
        + "One seed: this holds for these trained models, not for another training.",
    )


def task_scores(environment, tasks):
    return TaskScores(
        environment=environment,
        tasks=[f"{environment}/{number}" for number in range(tasks)],
        scores=[
            SeedScores(
                arm=name,
                seed=None if name == "untuned" else 0,
                values=[float((number * 37 + 11) % 100 < 100 * rate) for number in range(tasks)],
            )
            for name, rate in ARMS.items()
        ],
    )


def failures(name, environment, seeds):
    episodes = TASKS[environment] * (1 if name == "untuned" else seeds)
    solved = round(ARMS[name] * episodes)
    lost = episodes - solved
    by_kind = {"format": lost // 2, "loop": lost // 4, "step limit": lost // 8}
    by_kind["wrong action"] = lost - sum(by_kind.values())
    return Failures(
        arm=name, environment=environment, episodes=episodes, solved=solved, by_kind=by_kind
    )


def transcript(name, kind):
    return Transcript(
        transcript_id="f" * 64,
        arm=name,
        seed=None if name == "untuned" else 0,
        environment="textcraft",
        task_id="textcraft/7",
        kind=kind,
        reward=0.0,
        turns=[
            TranscriptTurn(text="I want wood.", observation="No action was found.", reward=0.0),
            TranscriptTurn(
                text="Thought: wood.\nAction: get 1 oak log", observation="Got 1 oak log"
            ),
        ],
    )


def arm(name):
    selected = SELECTED[name]
    early = [0.18, 0.15, 0.12, 0.09, 0.08, 0.07, 0.07, 0.07, 0.08, 0.09]
    return Arm(
        name=name,
        selector={"untuned": "", "critical": "oracle"}.get(name, name),
        budget=None if name in ("untuned", "all") else 0.3,
        reference=name != "critical",
        selected_steps=selected,
        total_steps=4900,
        trajectories=594 if selected else 0,
        training=None
        if name == "untuned"
        else Training(
            optimiser_steps=225,
            rows=594,
            tokens=812_345 - 40 * (4900 - selected),
            tokens_before_tail_cut=812_345,
            supervised_tokens=41 * selected,
            seconds=1_234.5,
            flops=6.1e14 + 1e11 * selected,
            epochs=3,
            first_loss=1.432,
            last_loss=0.211,
        ),
        kinds=KINDS.get(name, {"none": selected} if selected else {}),
        positions=() if not selected else early if name == "critical" else [0.1] * 10,
    )


def result(name, seed, environment, tasks, draw):
    rate = ARMS[name] + (0.09 if (environment, name) == ("babyai", "all") else 0)
    successes = round(tasks * min(1, max(0, rate + draw.gauss(0, 0.02) * bool(seed))))
    rate = successes / tasks
    graded = environment == "babyai"
    return Result(
        arm=name,
        seed=seed,
        environment=environment,
        tasks=tasks,
        successes=successes,
        success_rate=rate,
        interval=wilson_interval(successes, tasks),
        mean_reward=rate * 0.87 if graded else rate,
        reward_interval=(rate * 0.87 - 0.08, rate * 0.87 + 0.08) if graded else None,
        mean_turns=20 - 10 * rate,
        invalid_share=0.3 * (1 - rate),
        seconds=312.0,
    )


def loss_curve(name, seed, draw):
    floor = {"all": 0.15, "critical": 0.24}.get(name, 0.18)
    return LossCurve(
        arm=name,
        seed=seed,
        points=[
            LossPoint(
                step=step,
                loss=floor
                + 1.3 * math.exp(-step / 40) * draw.uniform(0.85, 1.15)
                + draw.uniform(-0.03, 0.03),
                supervised_tokens=step * SELECTED[name] // 3,
                seconds=5.5 * step,
            )
            for step in range(1, 226)
        ],
    )


def example(number):
    opening = ExampleStep(
        step_id=1,
        source="user",
        text="Craft 1 minecraft:chest.\n\n"
        "craft 4 oak planks using 1 oak log\ncraft 1 chest using 8 oak planks",
    )
    prefill = ExampleStep(step_id=2, source="agent", text="OK.", copied=True)
    turns = [
        (
            "Thought: I need 8 planks, so 2 logs. First the logs, then the planks.\n"
            "Action: get 2 oak log",
            "Got 2 oak log",
            "plan_creation",
        ),
        ("Thought: Let me see what I hold.\nAction: inventory", "Inventory: [oak log] (2)", None),
        (
            "Thought: Now planks.\nAction: craft 4 oak planks using 1 oak log",
            "Crafted 4 minecraft:oak_planks",
            None,
        ),
        (
            "Thought: And once more.\nAction: craft 4 oak planks using 1 oak log",
            "Crafted 4 minecraft:oak_planks",
            None,
        ),
        (
            "Thought: Eight planks make the chest.\nAction: craft 1 chest using 8 oak planks",
            "Crafted 1 minecraft:chest",
            "critical_action",
        ),
    ]
    steps = [
        ExampleStep(
            step_id=i,
            source="agent",
            text=text,
            observation=observation,
            critical={"all": True, "critical": bool(kind), "random": i % 4 == 0},
            kind=kind,
            score=0.9 if kind else 0.1,
            reason="Without this step the goal is out of reach." if kind else None,
        )
        for i, (text, observation, kind) in enumerate(turns, start=3)
    ]
    return Example(
        trajectory_id=f"{number:x}" * 64,
        environment="textcraft",
        task_id=f"textcraft/chest/{number}",
        reward=1.0,
        success=True,
        steps=[opening, prefill, *steps],
    )
