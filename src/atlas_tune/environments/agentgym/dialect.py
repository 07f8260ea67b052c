"""What differs between AgentGym's servers, as data.

AgentGym (Xi et al., arXiv 2406.04151) runs one HTTP server per environment. All of them have
``POST /create``, ``POST /reset``, ``POST /step`` and ``GET /observation``; the names of the
fields and a few manners differ.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from atlas_tune.errors import UsageError

_STRIPPED = re.compile(r"[^A-Za-z0-9, ]+")
_FULL = (1, 100)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind of server is spoken to. The defaults are what most of them do."""

    name: str
    instruction: str
    """What the agent is told before the first observation; our own words."""
    max_steps: int
    """The step limit of AgentGym's evaluation, in agent turns; ours where it gives none."""
    metric: Literal["success", "reward"] = "success"
    root: str = ""
    """What stands before every path: two environments may share a server."""
    episode: str = "id"
    """The field that names the remote environment."""
    create: Mapping[str, Any] = field(default_factory=dict)
    """The body of ``/create``."""
    task: str = "data_idx"
    """The field of ``/reset`` that names the task."""
    reset: Mapping[str, Any] = field(default_factory=dict)
    """What else ``/reset`` wants."""
    asks_observation: bool = False
    """Whether the first observation comes from ``GET /observation``, not from ``/reset``."""
    preface: str | None = None
    """A field of the reset's reply that stands before the first observation."""
    choices: str | None = None
    """A field of the reset's reply that lists the actions; they follow the first observation."""
    vocabulary: str | None = None
    """A path whose lines follow the first observation: the words that may be guessed."""
    observation: str = "observation"
    reward: str = "reward"
    """The field of ``/step`` that holds the reward so far: a run's reward is its last one."""
    done: tuple[str, ...] = ("done",)
    """Fields of ``/step``; any of them true ends the episode."""
    pays_at_end: bool = False
    """Whether a reward counts only in the reply that ends the episode."""
    any_reward_wins: bool = False
    """Whether an episode that ended with any reward is a success, not only a full one."""
    closes: bool = False
    """Whether there is a ``POST /close``."""
    strips: bool = False
    """Whether signs outside ``[A-Za-z0-9, ]`` leave an action, as in AgentGym's client."""
    fence: str | None = None
    """The language of a Markdown fence around the action, which is taken off."""
    wording: str = "{action}"
    """How an action is put to the server."""
    refusals: tuple[str, ...] = ()
    """How observations begin that say an action was not understood or not possible."""
    broken_reset: str | None = None
    """The first observation of a reset that failed without saying so."""
    item: str = ""
    """How AgentGym's task ids begin, where not with the name."""
    ranges: Mapping[str, range] = field(default_factory=dict)
    """The task indices of a split, where AgentGym's code tells them."""
    ours: bool = False
    """Whether it is the dialect of our own server, which lists its tasks and names them itself."""

    def said(self, action: str) -> str:
        """The action as the server wants to read it.

        >>> Dialect("d", "", 1, strips=True).said('get 1 "oak-log"!')
        'get 1 oaklog'
        """
        if self.fence:
            action = action.split(f"```{self.fence}")[-1].split("```")[0].strip()
        if self.strips:
            action = " ".join(_STRIPPED.sub("", action).split())
        return self.wording.format(action=action)

    def is_success(self, reward: float, ended: bool) -> bool:
        """Whether a run that has this reward reached the goal.

        AgentGym counts a run whose last reward is 1, or 100 where the scale ends there.
        """
        if self.any_reward_wins:
            return ended and reward > 0
        return reward in _FULL

    def is_refusal(self, observation: str) -> bool:
        """Whether an observation says that the action was none that could be taken."""
        return observation.startswith(self.refusals)

    def task_id(self, index: int) -> str:
        """AgentGym's id of the task with this index.

        >>> Dialect("babyai", "", 1).task_id(41)
        'babyai_41'
        """
        return f"{self.item or self.name}_{index}"

    def index_of(self, task_id: str) -> int:
        """The index that an id names.

        Raises:
            UsageError: it is no id of this dialect.
        """
        head, _, tail = task_id.rpartition("_")
        if head != (self.item or self.name) or not (tail.isascii() and tail.isdigit()):
            raise UsageError(
                f"agentgym:{self.name} has no task '{task_id}': its tasks are named "
                f"by their index, for example {self.task_id(0)}."
            )
        return int(tail)
