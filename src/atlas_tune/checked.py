"""Settings that a person wrote: YAML in, checked values out, and what is wrong in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from atlas_tune.errors import AtlasError, UsageError, nearest

Form = TypeVar("Form", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """YAML of which no key is lost: PyYAML takes the last of two equal keys and says nothing."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Here and not where the dict is made: merged keys (<<) are not in the node yet.
        node = super().compose_mapping_node(anchor)
        seen: dict[tuple[str, str], int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if (key.tag, key.value) in seen:
                raise UsageError(
                    f"line {line}: the key '{key.value}' stands here and in line "
                    f"{seen[key.tag, key.value]}: keep one of them."
                )
            seen[key.tag, key.value] = line
        return node


def parse_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        AtlasError: it is not YAML.
        UsageError: a key stands twice in one mapping. Both messages begin with the line.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise AtlasError(f"{line}this is not YAML: {error.problem}.") from error
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:
        # PyYAML lets out what its constructors raise: a date 2026-13-45, a bare !!timestamp.
        raise AtlasError(f"this is not YAML: {error}.") from error


def checked(form: type[Form], raw: Mapping[str, Any]) -> Form:
    """Settings as a value of ``form``.

    Raises:
        UsageError: a key is unknown or missing, or a value does not fit; the message names the
            place, and the nearest valid key.
    """
    try:
        return form.model_validate(raw)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        # A list whose every item is wrong is also reported as too short.
        causes = [found for found in problems if found["type"] != "too_short"]
        sentences = [_sentence(found, form) for found in causes or problems]
        raise UsageError("; ".join(sentences[:5])) from error


def _sentence(found: ErrorDetails, form: type[BaseModel]) -> str:
    place, section = _place(form, found["loc"])
    where = ".".join(place)
    if found["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in section.model_fields.items()]
        return f"unknown key '{where}': {nearest(place[-1], known)}"
    if found["type"] == "missing":
        return f"the key '{where}' is missing"
    text = _in_words(found)
    return f"{where}: {text}" if where else text


def _place(
    form: type[BaseModel], location: tuple[int | str, ...]
) -> tuple[list[str], type[BaseModel]]:
    """The place of a problem as its writer knows it, and the section whose key it is.

    Pydantic names the branch of a union too: ``data.0.Collect.tasks``.
    """
    place: list[str] = []
    section = form
    branches: list[type[BaseModel]] = []
    for part in location[:-1]:
        branch = next((one for one in branches if one.__name__ == part), None)
        if branch is not None:
            section = branch
            continue
        place.append(str(part))
        if isinstance(part, str) and part in section.model_fields:
            branches = _sections(section.model_fields[part].annotation)
            section = next(iter(branches), section)
    return [*place, *map(str, location[-1:])], section


_WANTED = {
    "bool": "true or false is wanted",
    "dict": "keys and values are wanted",
    "finite": "a finite number is wanted",
    "float": "a number is wanted",
    "greater_than": "a number above {gt} is wanted",
    "greater_than_equal": "a number from {ge} on is wanted",
    "int": "a whole number is wanted",
    "less_than": "a number below {lt} is wanted",
    "less_than_equal": "a number up to {le} is wanted",
    "list": "a list is wanted",
    "literal": "{expected} is wanted",
    "model": "keys and values are wanted",
    "path": "a path is wanted",
    "string": "a text is wanted",
    "string_pattern_mismatch": "letters, digits, '.', '_' and '-' are wanted, no sign first",
    "too_short": "at least {min_length} is wanted",
    "tuple": "a list is wanted",
}
"""Pydantic's error types, whole or up to the first underscore, in plain words."""


def _in_words(found: ErrorDetails) -> str:
    kind = found["type"]
    wanted = _WANTED.get(kind) or _WANTED.get(kind.partition("_")[0])
    if wanted is None:
        return found["msg"].removeprefix("Value error, ")
    value = found["input"]
    given = f"not {value!r}" if isinstance(value, str | int | float | None) else "not this"
    return f"{wanted.format(**found.get('ctx', {}))}, {given}"


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if get_origin(annotation) is None:
        is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
        return [annotation] if is_section else []
    return [section for arg in get_args(annotation) for section in _sections(arg)]
