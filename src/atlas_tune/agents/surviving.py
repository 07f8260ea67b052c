"""Rollouts that outlive what goes wrong in one of them.

- **An environment that fails** (any exception of its ``reset`` or ``step``) ends that episode
  alone. The task is started once more, in a fresh environment and after the others have ended, so
  that nobody's batch changes by it. Where it fails again, the episode stays broken off.
- **A conversation longer than the model's context** ends that episode alone. It is not tried again:
  it would come to the same.
- **What no episode is to blame for** stops everything: a policy that cannot answer, an environment
  that cannot be made, a package that is missing, a wrong use of the environment. So does an
  environment in which nothing can be started at all, for a reason that the user can mend (a server
  that does not run).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from atlas_tune.agents.making import ConversationTooLong
from atlas_tune.agents.policy import Policy
from atlas_tune.agents.rollout import Episode
from atlas_tune.agents.streams import episode_key
from atlas_tune.agents.style import Style
from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.trajectory.messages import Message

if TYPE_CHECKING:
    from atlas_tune.agents.opening import Opening
    from atlas_tune.environments.base import TextEnv

TRIES = 2
"""How often a task is started at most."""
_UNSTARTED = 3
"""After so many tasks in a row, and none before them, the set-up is to blame and not a task."""

OnTurn = Callable[[list[Episode]], None]
OnDone = Callable[[], None]


class Surviving:
    """Lets one policy act in fresh environments."""

    def __init__(
        self,
        make_env: Callable[[], TextEnv],
        policy: Policy,
        max_steps: int,
        style: Style,
        opening: Opening | None,
        *,
        tasks: int,
        has_started: bool = False,
        loop_limit: int | None = None,
    ) -> None:
        """
        Args:
            make_env: makes one environment; each episode has its own, which is closed at the end.
            policy: answers all running episodes together.
            max_steps: the step limit, in agent turns.
            style: how the agent acts.
            opening: told instead of the environment's own instruction.
            tasks: how many are to be played in all.
            has_started: whether a task is known to start in such an environment.
            loop_limit: an episode ends after so many turns in a row that are the same, in word and
                in answer; None lets it go on to the step limit.
        """
        self._make_env = make_env
        self._policy = policy
        self._max_steps = max_steps
        self._style = style
        self._opening = opening
        self._has_started = has_started
        self._loop_limit = loop_limit
        self._patience = min(_UNSTARTED, tasks)
        self._crashed: set[str] = set()

    def play(self, tasks: Sequence[tuple[str, str]], on_turn: OnTurn) -> list[Episode]:
        """Play tasks to their ends.

        Args:
            tasks: the stream and the id of each; the episodes come in this order.
            on_turn: called after each turn with all episodes.

        Raises:
            AtlasError: what no episode is to blame for.
        """
        # A stream's name ends where an episode's begins, so it may not hold the sign between them.
        keyed = {
            episode_key(stream.replace("#", "%23"), str(number)): task
            for number, (stream, task) in enumerate(tasks)
        }
        episodes: dict[str, Episode] = {}
        try:
            for _ in range(TRIES):
                again = [key for key in keyed if key not in episodes or key in self._crashed]
                if not again:
                    break
                self._crashed.clear()
                for key in again:
                    _close(episodes.get(key))
                    episodes[key] = self._start(key, keyed[key])
                self._play(episodes, again, lambda: on_turn(list(episodes.values())))
        finally:
            for episode in episodes.values():
                _close(episode)
        return [episodes[key] for key in keyed]

    def _start(self, key: str, task_id: str) -> Episode:
        """An episode of a task; one that has broken off where the environment fails."""
        env = self._made()
        try:
            episode = Episode.start(env, task_id, self._opening, self._style)
        except Exception as error:
            _refuse_what_is_no_crash(error)
            self._patience -= 1
            self._refuse_if_nothing_starts(error)
            episode = Episode(env, task_id, "", style=self._style)
            self._crash(key, episode, error)
        else:
            self._has_started = True
        return episode

    def _made(self) -> TextEnv:
        """A fresh environment; one whose process or server is lost meanwhile is made once more."""
        from atlas_tune.environments.base import EnvironmentLost

        try:
            return self._make_env()
        except EnvironmentLost:
            return self._make_env()

    def _refuse_if_nothing_starts(self, error: Exception) -> None:
        from atlas_tune.environments.base import EnvironmentLost

        is_mendable = isinstance(error, AtlasError) and not isinstance(error, EnvironmentLost)
        if is_mendable and not self._has_started and self._patience <= 0:
            raise AtlasError(f"No task could be started, so nothing was run: {error}") from error

    def _play(self, episodes: dict[str, Episode], keys: Sequence[str], told: OnDone) -> None:
        while running := {
            key: episodes[key]
            for key in keys
            if not episodes[key].ended and len(episodes[key].turns) < self._max_steps
        }:
            for key, message in self._replies(running).items():
                try:
                    running[key].act(message)
                    self._end_loop(running[key])
                except Exception as error:
                    _refuse_what_is_no_crash(error)
                    self._crash(key, running[key], error)
            told()

    def _end_loop(self, episode: Episode) -> None:
        if self._loop_limit is not None and episode.is_in_loop(self._loop_limit):
            episode.ended = True

    def _replies(self, running: dict[str, Episode]) -> dict[str, Message]:
        """The next messages of the episodes whose conversations fit; the others break off."""
        asked = {key: episode.messages() for key, episode in running.items()}
        while asked:
            try:
                return self._style.ask(self._policy, asked)
            except ConversationTooLong as error:
                if not error.keys:
                    raise
                for key in error.keys:
                    running[key].break_off(f"conversation too long: {error}")
                    del asked[key]
        return {}

    def _crash(self, key: str, episode: Episode, error: Exception) -> None:
        self._crashed.add(key)
        told = str(error) if isinstance(error, AtlasError) else _named(error)
        episode.break_off(f"environment failed: {told}")


def _refuse_what_is_no_crash(error: Exception) -> None:
    """Raise what another episode or another try would meet as well."""
    if isinstance(error, UsageError):
        raise error
    if isinstance(error, ModuleNotFoundError):
        raise AtlasError(
            f"The environment needs the package '{error.name}', which is not installed: install "
            "it, or the extra of atlas-tune that brings it (docs/dependencies.md)."
        ) from error


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _close(episode: Episode | None) -> None:
    # What ends an episode's environment badly has no say in its result any more.
    if episode is not None:
        with suppress(Exception):
            episode.env.close()
