"""The records of the yardsticks that no import knows, as runs with their marked steps."""

from __future__ import annotations

import ast
from typing import Any

from atlas_tune.trajectory import InvalidTrajectory, Observation, Outcome, Step, Trajectory
from atlas_tune.trajectory.fields import typed

Marked = tuple[Trajectory, frozenset[int]]
"""A run and the ids of its marked steps."""


def necessity_run(record: Any) -> Marked:
    """A game with, for each action, whether the others still win without it.

    The file keeps actions alone, so the run has neither a task's text nor observations. Its turns
    are rendered as ``Action:`` over the action, so that it can be played again.

    Raises:
        InvalidTrajectory: the record is no such game.
    """
    record = _object(record)
    task = typed(record, "id", str, "the game", required=True)
    actions = typed(record, "actions", list, "the game", required=True)
    necessary = typed(record, "necessary", list, "the game", required=True)
    won = typed(record, "won_full", bool, "the game", required=True)
    well_formed = all(isinstance(action, str) for action in actions) and all(
        isinstance(needed, bool) for needed in necessary
    )
    if len(actions) != len(necessary) or not well_formed:
        raise InvalidTrajectory("the game needs one true or false in 'necessary' for each action")
    if not won:
        raise InvalidTrajectory("the game is not won by all of its actions: none can be necessary")
    return Trajectory.create(
        tuple(
            Step(number, "agent", f"Action:\n{action}")
            for number, action in enumerate(actions, start=1)
        ),
        environment="alfworld",
        task_id=task,
        outcome=Outcome(success=True),
        agent={"name": "alfworld-expert", "version": "unknown"},
    ), frozenset(number for number, needed in enumerate(necessary, start=1) if needed)


def failed_run(record: Any, version: str) -> Marked:
    """A failed run of Who&When; ``mistake_step`` counts its history from 0.

    Raises:
        InvalidTrajectory: the record is no such run, or the error lies outside of it.
    """
    record = _object(record)
    where = "the run"
    history = typed(record, "history", list, where, required=True)
    number = typed(record, "mistake_step", str, where, required=True)
    if not (number.isascii() and number.isdigit() and int(number) < len(history)):
        raise InvalidTrajectory(
            f"'mistake_step' is {number!r:.20}, which is no place in a history of {len(history)}"
        )
    steps = [Step(1, "user", typed(record, "question", str, where, required=True))]
    for entry in map(_object, history):
        said = typed(entry, "content", str, "an entry of the history") or ""
        extra = {key: entry[key] for key in ("name", "role") if isinstance(entry.get(key), str)}
        # Every entry is a step, the terminal's answers too: annotators could mark any of them.
        steps.append(Step(len(steps) + 1, "agent", said, extra=extra or None))
    return Trajectory.create(
        tuple(steps),
        environment="who-and-when",
        task_id=typed(record, "question_ID", str, where),
        outcome=Outcome(success=False),
        agent={"name": "who-and-when", "version": version},
    ), frozenset({int(number) + 2})


def web_run(record: Any) -> Marked:
    """A run of WebCanvas; marked are the steps that brought its score up.

    Raises:
        InvalidTrajectory: the record is no such run.
    """
    record = _object(record)
    where = "the run"
    turns = [_object(t) for t in typed(record, "step_list", list, where, required=True)]
    steps = [Step(1, "user", typed(record, "task_name", str, where, required=True))]
    marked = set()
    before, seen = 0.0, ""
    for turn in turns:
        number = len(steps) + 1
        score = _share(turn.get("task_score_rate"))
        told = turn.get("trace_description")
        thought = told.get("thought") if isinstance(told, dict) else None
        url = typed(turn, "url", str, "a step")
        steps.append(
            Step(
                number,
                "agent",
                typed(turn, "action", str, "a step") or "",
                reasoning_content=thought if isinstance(thought, str) else None,
                observation=None if url is None else Observation.of(url),
            )
        )
        matches = str(turn.get("match_result") or "")
        if score > before:
            # The page is judged before the step acts on it: what a url tells, the step before did.
            own = number == 2 or _of_element(matches, seen)
            marked.add(number if own else number - 1)
        before, seen = score, matches
    return Trajectory.create(
        tuple(steps),
        environment="webcanvas",
        task_id=str(record.get("task_id")),
        outcome=Outcome(before, before >= 1.0),
        agent={"name": "webcanvas", "version": "unknown"},
    ), frozenset(marked)


def _share(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidTrajectory("a step has no number in 'task_score_rate'")
    return float(value)


def _of_element(matches: str, seen: str) -> bool:
    """Whether a key node that is matched now and was not before is one of an element."""
    try:
        now, before = (ast.literal_eval(text or "[]") for text in (matches, seen))
        return any(key.startswith("element") for one in now if one not in before for key in one)
    except (ValueError, SyntaxError, TypeError, AttributeError, RecursionError, MemoryError):
        return False


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidTrajectory("a record is not a JSON object")
    return value
