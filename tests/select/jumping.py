"""A corridor with trap doors, whose every value can be worked out by hand.

Task ``trapdoor/f^f``: at an ``f`` one goes ``forward``, at a ``^`` one must ``jump``, or falls and
the episode ends. A jump over a trap earns 0.25, the end of the corridor 1.0. ``look`` changes
nothing. A policy that only goes forward succeeds from wherever no trap is left.
"""

from atlas_tune.agents.react import format_turn
from atlas_tune.environments.base import TextEnv
from atlas_tune.errors import UsageError
from atlas_tune.trajectory import Observation, Outcome, Step, Trajectory

ACTIONS = {"f": "forward", "^": "jump", "l": "look"}


class Trapdoor(TextEnv):
    name = "trapdoor"
    instruction = "Go forward, and jump over trap doors."
    max_steps = 8
    metric = "success"

    def tasks(self, split, **options):
        return ("trapdoor/f^f",)

    def reset(self, *, seed=None, options=None):
        task = (options or {})["task_id"]
        if not task.startswith("trapdoor/"):
            raise UsageError(f"trapdoor has no task '{task}'")
        self.cells = task.removeprefix("trapdoor/")
        self.at = 0
        return f"Before you: {self.cells}", {"success": False, "valid": True}

    def step(self, action):
        here = self.cells[self.at]
        if action == "forward" and here == "^":
            return "You fall.", 0.0, True, False, {"success": False, "valid": True}
        moved = action in ("forward", "jump") and ACTIONS[here] == action
        self.at += moved
        reward = 0.25 * (moved and action == "jump")
        won = self.at == len(self.cells)
        info = {"success": won, "valid": moved or action == "look"}
        return f"Before you: {self.cells[self.at :]}", reward + won, won, False, info

    def expert(self, seed=0, habits=None):
        raise NotImplementedError


def walk(signs, cells=None, environment="trapdoor", prelude=""):
    """A run that does ``signs``; its agent steps have the ids 2, 3, …"""
    cells = cells or signs.replace("l", "")
    env = Trapdoor()
    first, info = env.reset(options={"task_id": f"trapdoor/{cells}"})
    steps = [Step(1, "user", f"{env.instruction}\n{prelude}{first}")]
    for sign in signs:
        observation, _, _, _, info = env.step(ACTIONS[sign])
        text = format_turn("I go on.", ACTIONS[sign])
        answer = Observation.of(observation)
        steps.append(Step(len(steps) + 1, "agent", text, observation=answer))
    return Trajectory.create(
        tuple(steps),
        environment=environment,
        task_id=f"trapdoor/{cells}",
        outcome=Outcome(success=info["success"]),
    )


class Forward:
    """A policy that always goes forward. It keeps the keys and lengths that it was asked."""

    def __init__(self):
        self.asked = []

    def replies(self, conversations):
        self.asked += list(conversations)
        return dict.fromkeys(conversations, "Thought:\non\n\nAction:\nforward")


class Always:
    """Makes one policy whatever the seed; a scripted class is a policy like any other."""

    identity = "forward"

    def __init__(self, policy):
        self.policy, self.made = policy, []

    def __call__(self, seed, temperature):
        self.made.append((seed, temperature))
        return self.policy
