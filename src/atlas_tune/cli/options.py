"""What commands share: their options, how they read trajectories, how they tell a result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.progress import say

if TYPE_CHECKING:
    from atlas_tune.trajectory import Trajectory

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Runs = Annotated[Path, typer.Argument(help="Trajectories, as collect or import write them.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="An option; the value is read as YAML."),
]


def read_runs(path: Path) -> tuple[Sequence[Trajectory], int]:
    """The good trajectories of a store; the bad ones are told and counted."""
    from atlas_tune.trajectory.store import Rejected, read_trajectories

    rejected: list[Rejected] = []
    trajectories = list(read_trajectories(path, rejected.append))
    for bad in rejected[:5]:
        say(str(bad))
    if not trajectories:
        raise AtlasError(f"{path} holds no trajectory. Make some with collect or import.")
    return trajectories, len(rejected)


def parse_options(pairs: Sequence[str] | None) -> dict[str, Any]:
    """The options of ``--set KEY=VALUE``, each value read as YAML."""
    import yaml

    found = {}
    for pair in pairs or ():
        key, sign, value = pair.partition("=")
        if not sign:
            raise UsageError(f"--set takes KEY=VALUE, not '{pair}'.")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError(f"--set {pair}: the value is not YAML ({error}).") from error
    return found


def tell(summary: dict[str, Any], as_json: bool, sentence: str) -> None:
    """Print a result: as JSON, or as a sentence with the summary's fields in it."""
    print(json.dumps(summary) if as_json else sentence.format(**summary))
