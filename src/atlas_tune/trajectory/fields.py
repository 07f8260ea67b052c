"""Fields of JSON objects, checked by name and type.

Strict on purpose: a field that is unknown here would be lost, so it is refused by name.
"""

from __future__ import annotations

from typing import Any

from atlas_tune.trajectory.model import InvalidTrajectory

_WORDS = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    type(None): "null",
}
Number = (int, float)


def typed(
    record: dict[str, Any],
    key: str,
    kind: type | tuple[type, ...],
    where: str,
    *,
    required: bool = False,
) -> Any:
    """The value of a field, of the type ``kind``; None where it is null or left out.

    Raises:
        InvalidTrajectory: the field has another type, or is missing and ``required``.
    """
    value = record.get(key)
    if value is None:
        if required:
            raise InvalidTrajectory(f"{where} has no '{key}'")
        return None
    kinds = kind if isinstance(kind, tuple) else (kind,)
    # True is an int to Python, but no number to JSON.
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise InvalidTrajectory(f"{where} has '{key}' as {called(value)}, not {_WORDS[kinds[-1]]}")
    return value


def an_object(record: Any, where: str, known: str) -> dict[str, Any]:
    """``record`` as an object of which every field is ``known`` (names between spaces).

    Raises:
        InvalidTrajectory: it is no object, or has another field.
    """
    if not isinstance(record, dict):
        raise InvalidTrajectory(f"{where} is a JSON object, found {called(record)}")
    unknown = sorted(set(record) - set(known.split()))
    if unknown:
        raise InvalidTrajectory(f"{where} has unknown field '{unknown[0]}'; known: {known}")
    return record


def called(value: Any) -> str:
    """The type of a JSON value in words."""
    return _WORDS.get(type(value), type(value).__name__)
