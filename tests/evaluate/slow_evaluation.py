"""A process that evaluates a slow walker in corridors, to be killed by tests.

python slow_evaluation.py ROLLOUTS SECONDS_PER_TURN
"""

import sys
import time
from pathlib import Path

from agents.corridor import Corridor
from atlas_tune.evaluate.rollouts import evaluate

TASKS = [f"corridor/{1 + number % 4}{' ' * number}" for number in range(11)]


class Slow:
    def __init__(self, seconds):
        self.seconds = seconds

    def replies(self, conversations):
        time.sleep(self.seconds)
        return dict.fromkeys(conversations, "Action: forward")


def run(path, seconds):
    return evaluate(
        Corridor,
        TASKS,
        lambda: Slow(seconds),
        path,
        max_steps=3,
        batch_size=3,
        agent={"name": "slow", "version": "1"},
        model={"model": "m"},
    )


if __name__ == "__main__":
    run(Path(sys.argv[1]), float(sys.argv[2]))
