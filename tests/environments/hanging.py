"""A corridor in which some actions do what environments should not."""

import os
import subprocess
import time

from agents.corridor import Corridor
from atlas_tune.environments.base import ExpertFailed
from atlas_tune.errors import AtlasError, UsageError


class Hanging(Corridor):
    """``hang`` never answers, ``exit`` ends the process, ``crash`` and ``refuse`` raise."""

    def reset(self, *, seed=None, options=None):
        if options["task_id"] == "corridor/never":
            time.sleep(1000)
        return super().reset(seed=seed, options=options)

    def step(self, action):
        if action.startswith("hang"):
            child = subprocess.Popen(["sleep", "1000"])
            with open(action.partition(" ")[2], "w") as stream:
                stream.write(str(child.pid))
            while True:
                pass
        if action == "exit":
            os._exit(7)
        if action == "crash":
            raise ValueError("boom")
        if action == "refuse":
            raise UsageError("no such thing")
        if action == "missing":
            raise ModuleNotFoundError("No module named 'minigrid'", name="minigrid")
        if action == "unsendable":
            return lambda: None, 0.0, False, False, {}
        return super().step(action)

    def expert(self, seed=0, habits=None):
        if seed == 13:
            raise ExpertFailed("at a loss")
        return super().expert(seed, habits)


def never_made():
    raise AtlasError("there is no such world: install it")


def slow_to_make():
    time.sleep(1000)
