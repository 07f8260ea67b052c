"""Reading a recipe from its file; paths in it are relative to that file."""

from __future__ import annotations

import os
from pathlib import Path

from atlas_tune.checked import checked, parse_yaml
from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.recipe.arms import ArmSettings
from atlas_tune.recipe.data import Import
from atlas_tune.recipe.whole import Recipe
from atlas_tune.select.registry import located_selector


def load_recipe(path: Path) -> Recipe:
    """The recipe of a YAML file.

    Raises:
        AtlasError: there is no such file, or it is not YAML.
        UsageError: a key is unknown or a value does not fit; the message names the place, and
            the nearest valid key.
    """
    if not path.is_file():
        raise AtlasError(f"There is no recipe {path}. Check the path.")
    try:
        raw = parse_yaml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise AtlasError(
            f"{path} is not UTF-8 text, at byte {error.start}: save it as UTF-8."
        ) from error
    except AtlasError as error:
        raise type(error)(f"{path}, {error}") from error
    if not isinstance(raw, dict):
        raise UsageError(f"{path} is not a recipe: it should be a list of keys and values.")
    try:
        return _resolved(checked(Recipe, raw), path.parent)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _resolved(recipe: Recipe, base: Path) -> Recipe:
    """The recipe with its file paths made relative to the working directory."""
    data = tuple(
        source.model_copy(update={"path": _placed(source.path, base)})
        if isinstance(source, Import)
        else source
        for source in recipe.data
    )
    arms = tuple(_located(arm, base) for arm in recipe.arms)
    oracle = recipe.oracle
    if oracle.prices is not None:
        oracle = oracle.model_copy(update={"prices": base / oracle.prices.expanduser()})
    return recipe.model_copy(update={"data": data, "arms": arms, "oracle": oracle})


def _placed(path: Path, base: Path) -> Path:
    """A path with ``~`` and environment variables in place; one that is not set stays as it is,
    so that a recipe can be read where its data are not."""
    expanded = Path(os.path.expandvars(path.expanduser()))
    return expanded if expanded.parts[0].startswith("$") else base / expanded


def _located(arm: ArmSettings, base: Path) -> ArmSettings:
    selector, options = located_selector(arm.selector, arm.options, base)
    return arm.model_copy(update={"selector": selector, "options": options})
