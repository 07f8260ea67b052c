"""Benchmarks as data: a YAML file names environments, tasks, limits, metrics and roles.

What a result was measured on has to be known for good, so the file's content is hashed into every
result (:attr:`Benchmark.digest`). The shipped files lie in ``benchmarks/`` beside this module.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from atlas_tune.checked import checked, parse_yaml
from atlas_tune.errors import AtlasError, UsageError, nearest
from atlas_tune.trajectory.canonical import canonical_json

Role = Literal["held-in", "held-out"]
"""Whether runs of such tasks may be trained on."""
Metric = Literal["success", "reward"]
"""``success``: the share of tasks that are solved; ``reward``: the mean return of a task."""

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class BenchmarkPart(_Section):
    """Tasks of one environment."""

    name: str = Field("", pattern=_NAME)
    """In files and tables; the environment's where it is left out."""
    environment: str
    """The environment."""
    role: Role
    """Whether runs of such tasks may be trained on."""
    split: str = "test"
    """The split that the tasks come from."""
    tasks: int = Field(ge=1)
    """How many, from the start of the split."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What the environment's ``tasks`` takes, such as levels or a difficulty."""
    max_steps: int = Field(ge=1)
    """The step limit, in turns of the agent."""
    metric: Metric
    """What the part's score is."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and not raw.get("name") and "environment" in raw:
            return {**raw, "name": raw["environment"]}
        return raw


class Benchmark(_Section):
    """A benchmark: its parts, each evaluated by itself."""

    name: str = Field(pattern=_NAME)
    """In results and tables."""
    description: str = ""
    """What it is for, in a sentence."""
    environments: tuple[BenchmarkPart, ...] = Field(min_length=1)
    """The parts."""

    @model_validator(mode="after")
    def _names_differ(self) -> Benchmark:
        names = [part.name for part in self.environments]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"two parts are called '{twice}': give each a 'name' of its own")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of all that decides a result.

        Comments, the order of keys and the description have no say; the order of parts has none
        in a part's result either, but one file has one hash.
        """
        decisive = self.model_dump(mode="json", exclude={"description"})
        return hashlib.sha256(canonical_json(decisive).encode("ascii")).hexdigest()


def shipped() -> list[str]:
    """The names of the benchmarks that come with atlas-tune."""
    folder = files(__package__).joinpath("benchmarks")
    return sorted(
        file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")
    )


def load_benchmark(name_or_file: str) -> Benchmark:
    """A shipped benchmark by its name, or one from a file.

    Raises:
        UsageError: there is none, a key is unknown, or a value does not fit; the message names
            the file, the line and the nearest valid key.
        AtlasError: the file is not YAML.
    """
    if name_or_file in shipped():
        place = files(__package__).joinpath("benchmarks", f"{name_or_file}.yaml")
        return _parsed(place.read_text(encoding="utf-8"), name_or_file)
    path = Path(name_or_file)
    if not path.is_file():
        raise UsageError(
            f"There is no benchmark '{name_or_file}', neither a file nor a shipped one: "
            + nearest(name_or_file, shipped())
        )
    try:
        return _parsed(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not UTF-8 text, at byte {error.start}: save it as UTF-8."
        ) from error


def _parsed(text: str, where: str) -> Benchmark:
    try:
        raw = parse_yaml(text)
    except AtlasError as error:
        raise type(error)(f"{where}, {error}") from error
    if not isinstance(raw, dict):
        raise UsageError(f"{where} is not a benchmark: it should be a list of keys and values.")
    try:
        return checked(Benchmark, raw)
    except UsageError as error:
        line = _line(text, error.__cause__)
        raise UsageError(f"{where}{line}: {error}") from error


def _line(text: str, cause: BaseException | None) -> str:
    """ ", line 7" for where something is wrong, as far down as the file goes."""
    if not isinstance(cause, ValidationError):
        return ""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    places = [found["loc"] for found in cause.errors(include_url=False)]
    lines = sorted({_line_of(root, place) for place in places})
    return f", line{'s' if len(lines) > 1 else ''} {', '.join(map(str, lines))}"


def _line_of(node: yaml.Node | None, place: Sequence[int | str]) -> int:
    line = 1
    for step in place:
        found = _child(node, step)
        if found is None:
            break
        node, line = found
    return line


def _child(node: yaml.Node | None, step: int | str) -> tuple[yaml.Node, int] | None:
    """The node of a key or of a list's item, and the line where it begins."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == step:
                return value, key.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        item = node.value[step]
        return item, item.start_mark.line + 1
    return None
