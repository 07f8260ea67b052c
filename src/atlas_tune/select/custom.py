"""Selectors that users write: one function in one Python file, or in an installed package.

``./mine.py:label`` names the function ``label`` of a file. A package gives a selector a plain name
through the entry point group ``atlas_tune.selectors``. Either way the function is

    label(trajectory, **options) -> dict[int, float] | list[float | None] | list[StepLabel]

and docs/custom_selectors.md says what it may return.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ConfigDict

from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.select.base import Alone, CannotLabel, SelectorOptions, labels_of_scores
from atlas_tune.select.custom_function import Custom, is_in_file, place_of, split_name
from atlas_tune.trajectory import Kind, StepLabel, Trajectory
from atlas_tune.trajectory.canonical import canonical_json


class CustomOptions(SelectorOptions):
    """Whatever the function takes as keywords."""

    model_config = ConfigDict(extra="allow")


class CustomSelector(Alone):
    """Labels that a user's function gives, checked."""

    def __init__(self, custom: Custom, options: Mapping[str, Any]) -> None:
        """``options`` go to the function as keywords.

        Raises:
            UsageError: the function does not take them.
        """
        self.name = custom.name
        self._custom = custom
        self._options = dict(options)
        _check_call(custom, self._options)
        said = hashlib.sha256(_json_of(self.name, self._options).encode()).hexdigest()
        self.version = f"1+code={custom.code[:12]},options={said[:8]}"

    def label(self, trajectory: Trajectory) -> list[StepLabel]:
        """What the function says of the trajectory, under this selector's source.

        Raises:
            CannotLabel: the function raised an exception (the reason names its line), or what it
                returned is no labels.
        """
        try:
            found = self._custom.function(trajectory, **self._options)
        except AtlasError:
            raise  # It says by itself whether one trajectory is meant (CannotLabel) or all.
        except (Exception, SystemExit) as error:
            raise CannotLabel(
                f"{self.name} failed: {place_of(error, self._custom.path)}"
            ) from error
        try:
            return self._labels(trajectory, found)
        except _NoLabels as problem:
            raise CannotLabel(f"what {self.name} returned is no labels: {problem}") from problem

    def _labels(self, trajectory: Trajectory, found: Any) -> list[StepLabel]:
        own = [step.step_id for step in trajectory.agent_steps]
        if hasattr(found, "tolist"):  # An array or a tensor.
            found = found.tolist()
        if isinstance(found, Mapping):
            scores = {_own_step(key, own): _score(value, key) for key, value in found.items()}
        elif not isinstance(found, list | tuple):
            raise _NoLabels(
                f"it is a {type(found).__name__}, and wanted is a dict of scores by step id, a "
                "list of one score for each agent step, or a list of StepLabel"
            )
        elif all(isinstance(one, StepLabel) for one in found):
            return self._own_labels(trajectory, found, own)
        elif len(found) != len(own):
            raise _NoLabels(
                f"it is a list of {len(found)}, and the trajectory has {len(own)} agent steps"
            )
        else:
            scores = {key: _score(value, key) for key, value in zip(own, found, strict=True)}
        said = {key: score for key, score in scores.items() if score is not None}
        return labels_of_scores(trajectory, self.source, said)

    def _own_labels(
        self, trajectory: Trajectory, found: Sequence[StepLabel], own: list[int]
    ) -> list[StepLabel]:
        """The function's labels in its order, then ``Kind.NONE`` for the steps it left out."""
        labels = []
        left = list(own)
        for label in found:
            step_id = _own_step(label.step_id, own)
            if step_id not in left:
                raise _NoLabels(f"step {step_id} has two labels")
            left.remove(step_id)
            if label.trajectory_id not in ("", trajectory.trajectory_id):
                raise _NoLabels(f"the label of step {step_id} is of another trajectory")
            for text in (label.reason, label.quote):
                if not isinstance(text, str | None):
                    raise _NoLabels(f"step {step_id} has {text!r} where a text is wanted")
            kind = label.kind
            if kind is not None and kind not in tuple(Kind):
                raise _NoLabels(f"step {step_id} has the kind {kind!r}; known: {', '.join(Kind)}")
            labels.append(
                replace(
                    label,
                    trajectory_id=trajectory.trajectory_id,
                    step_id=step_id,
                    kind=None if kind is None else Kind(kind),
                    score=_score(label.score, step_id),
                    # Labels are found again by their source, so it is always this selector's.
                    source=self.source,
                    created_at="",
                    supersedes=None,
                )
            )
        rest = [StepLabel(trajectory.trajectory_id, key, Kind.NONE, self.source) for key in left]
        return labels + rest


def custom_options(name: str, options: Mapping[str, Any]) -> CustomOptions:
    """Options for a user's function. Nothing is imported; the function is asked when it is made.

    Raises:
        UsageError: the name has no function, or an option is no JSON value.
    """
    if is_in_file(name):
        split_name(name)
    _json_of(name, options)
    return CustomOptions.model_validate(dict(options))


def _check_call(custom: Custom, options: Mapping[str, Any]) -> None:
    """Refuse options that the function does not take, before any trajectory is labelled."""
    try:
        signature = inspect.signature(custom.function)
    except ValueError:
        return  # Compiled code need not tell; then the first call does.
    try:
        signature.bind(None, **options)
    except TypeError as error:
        raise UsageError(
            f"The selector {custom.name} is called with a trajectory and the options "
            f"{', '.join(sorted(options)) or '(none)'}, and its function is "
            f"{custom.function.__name__}{signature}: {error}."
        ) from error


def _json_of(name: str, options: Mapping[str, Any]) -> str:
    """The options as canonical JSON, which the source of labels has a hash of."""
    for option, value in options.items():
        try:
            canonical_json(value)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"The option '{option}' of the selector '{name}' is a {type(value).__name__}, "
                "which cannot be kept beside labels: give a number, a text, a list or a mapping."
            ) from error
    return canonical_json(dict(options))


class _NoLabels(Exception):
    """What of a function's return value is wrong."""


def _plain(value: Any) -> Any:
    """A number out of an array as Python's own."""
    return value.item() if getattr(value, "shape", None) == () else value


def _own_step(key: Any, own: list[int]) -> int:
    key = _plain(key)
    if isinstance(key, bool) or not isinstance(key, int):
        raise _NoLabels(f"{key!r} is no step id")
    if key not in own:
        raise _NoLabels(
            f"step {key} is not one of the agent's own steps, which are {', '.join(map(str, own))}"
        )
    return key


def _score(value: Any, step_id: Any) -> float | None:
    value = _plain(value)
    if value is None:
        return None
    if isinstance(value, bool):
        raise _NoLabels(
            f"step {step_id} has the score {value}: give a number, or None for a step that is not "
            "critical"
        )
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise _NoLabels(f"step {step_id} has the score {value!r}, which is no finite number")
    return float(value)
