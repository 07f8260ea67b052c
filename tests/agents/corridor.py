"""The smallest environment: walk a corridor of n cells."""

from atlas_tune.environments.base import TextEnv, Turn


class Walker:
    def act(self, observation):
        return Turn("I go on.", "forward")


class Corridor(TextEnv):
    """Task ``corridor/n`` is won by n times ``forward``."""

    name = "corridor"
    instruction = "Say forward until you are there."
    max_steps = 8
    metric = "success"

    def tasks(self, split, **options):
        self.check_split(split)
        return [f"corridor/{n}" for n in ((1, 2, 3, 4) if split == "train" else (5, 6))]

    def reset(self, *, seed=None, options=None):
        self.left = int(options["task_id"].rpartition("/")[2])
        return f"{self.left} cells ahead.", {}

    def step(self, action):
        valid = action == "forward"
        self.left -= valid
        done = self.left == 0
        info = {"valid": valid, "success": done}
        return f"{self.left} cells ahead.", float(done), done, False, info

    def expert(self, seed=0, habits=None):
        return Walker()
