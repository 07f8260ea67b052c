"""Selectors by name, as recipes and the command line ask for them.

A selector's module is light to import: what is heavy (torch, gymnasium) it imports where it is
used, so that reading a recipe costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from atlas_tune.errors import UsageError, nearest
from atlas_tune.select.base import Selector, SelectorOptions
from atlas_tune.select.combine import CombinedSelector, CombineOptions, located_parts
from atlas_tune.select.context import Context
from atlas_tune.select.controls.controls import (
    AllSteps,
    ComplementSteps,
    FirstSteps,
    LastSteps,
)
from atlas_tune.select.controls.matched import RandomOptions, random_control
from atlas_tune.select.custom import CustomSelector, custom_options
from atlas_tune.select.custom_function import custom_names, is_custom, load_custom, located
from atlas_tune.select.diverse import DiverseOptions, DiverseSelector
from atlas_tune.select.imported import ImportedMask
from atlas_tune.select.judging.verdict import VerdictOptions, VerdictSelector
from atlas_tune.select.likelihoods.excess import ExcessOptions, ExcessSelector
from atlas_tune.select.likelihoods.hindsight import HindsightOptions, HindsightSelector
from atlas_tune.select.likelihoods.surprisal import SurprisalOptions, SurprisalSelector
from atlas_tune.select.on_file import OnFileOptions, OnFileSelector
from atlas_tune.select.oracle import OracleOptions, OracleSelector
from atlas_tune.select.replaying.progress import ProgressOptions, ProgressSelector
from atlas_tune.select.replaying.replay import ReplayOptions, ReplaySelector
from atlas_tune.select.rollouts.acting import local_policies
from atlas_tune.select.rollouts.disagreement import DisagreementOptions, DisagreementSelector
from atlas_tune.select.rollouts.leverage import LeverageOptions, LeverageSelector
from atlas_tune.select.rollouts.value_jump import ValueJumpOptions, ValueJumpSelector


class NoOptions(SelectorOptions):
    """A selector without settings."""


class SeedOptions(SelectorOptions):
    """The settings of a control that draws."""

    seed: int = 0
    """The draw; the same seed gives the same steps on every machine."""


def _complement(options: SeedOptions, context: Context) -> Selector:
    if context.other is None:
        raise UsageError(
            "The selector 'complement' takes what another arm leaves out, and no other arm is "
            "given: select with that arm first and name it."
        )
    return ComplementSteps(context.other, options.seed)


_SELECTORS: dict[str, tuple[type[BaseModel], Callable[[Any, Context], Selector]]] = {
    "all": (NoOptions, lambda options, context: AllSteps()),
    "combine": (
        CombineOptions,
        lambda options, context: CombinedSelector(options, context, make_selector),
    ),
    "complement": (SeedOptions, _complement),
    "disagreement": (
        DisagreementOptions,
        lambda options, context: DisagreementSelector(
            options, local_policies(context.base_model("disagreement", options.model), options)
        ),
    ),
    "diverse": (
        DiverseOptions,
        lambda options, context: DiverseSelector(options, context.trajectories),
    ),
    "excess": (ExcessOptions, lambda options, context: ExcessSelector(options, context)),
    "first": (NoOptions, lambda options, context: FirstSteps()),
    "hindsight": (
        HindsightOptions,
        lambda options, context: HindsightSelector(
            options, context.base_model("hindsight", options.model)
        ),
    ),
    "import": (NoOptions, lambda options, context: ImportedMask(context.imported)),
    "labels": (OnFileOptions, lambda options, context: OnFileSelector(options)),
    "last": (NoOptions, lambda options, context: LastSteps()),
    "leverage": (
        LeverageOptions,
        lambda options, context: LeverageSelector(
            options,
            local_policies(context.base_model("leverage", options.policy), options),
            context.environments("leverage"),
        ),
    ),
    "oracle": (
        OracleOptions,
        lambda options, context: OracleSelector(
            options, share=context.share, journal=context.journal
        ),
    ),
    "progress": (
        ProgressOptions,
        lambda options, context: ProgressSelector(options, context.make_environment),
    ),
    "random": (RandomOptions, random_control),
    "replay": (
        ReplayOptions,
        lambda options, context: ReplaySelector(context.environments("replay"), options),
    ),
    "surprisal": (
        SurprisalOptions,
        lambda options, context: SurprisalSelector(
            options, context.base_model("surprisal", options.model)
        ),
    ),
    "value-jump": (
        ValueJumpOptions,
        lambda options, context: ValueJumpSelector(
            options,
            local_policies(context.base_model("value-jump", options.policy), options),
            context.environments("value-jump"),
        ),
    ),
    "verdict": (
        VerdictOptions,
        lambda options, context: VerdictSelector(
            options, context.base_model("verdict", options.model)
        ),
    ),
}

SELECTOR_NAMES = tuple(sorted(_SELECTORS))
"""The selectors that come with atlas-tune; users' own have other names, see :mod:`.custom`."""


def selector_options(name: str, options: Mapping[str, Any] | None = None) -> BaseModel:
    """The checked options of a selector, without building it or importing a user's file.

    Raises:
        UsageError: no such selector, no such option, or a value that does not fit.
    """
    if name not in _SELECTORS:
        if is_custom(name):
            return custom_options(name, options or {})
        names = [*SELECTOR_NAMES, *custom_names()]
        raise UsageError(f"There is no selector '{name}': {nearest(name, names)}")
    form = _SELECTORS[name][0]
    for option in options or {}:
        if option not in form.model_fields:
            known = nearest(option, form.model_fields) if form.model_fields else "it has none."
            raise UsageError(f"The selector '{name}' has no option '{option}': {known}")
    try:
        return form.model_validate(dict(options or {}))
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(map(str, first["loc"]))
        what = f"The option '{option}'" if option else "What is set"
        said = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{what} of the selector '{name}' does not fit: {said}.") from error


def make_selector(
    name: str, options: Mapping[str, Any] | None = None, context: Context | None = None
) -> Selector:
    """The selector of a name, with its options and what the run gives it.

    Raises:
        UsageError: no such selector or option, or the context lacks what the selector needs.
    """
    checked = selector_options(name, options)
    if name not in _SELECTORS:
        return CustomSelector(load_custom(name), checked.model_dump())
    return _SELECTORS[name][1](checked, context or Context())


def located_selector(
    name: str, options: Mapping[str, Any], base: Path
) -> tuple[str, dict[str, Any]]:
    """A selector's name and options with file paths made relative to the working directory.

    Args:
        name: of a selector.
        options: its options, checked before.
        base: the directory that the paths are relative to, such as a recipe's.

    Raises:
        UsageError: there is no such file.
    """
    if name == CombinedSelector.name:
        return name, located_parts(options, base, located_selector)
    if name == OracleSelector.name and options.get("tokenizer") is not None:
        place = base / Path(options["tokenizer"]).expanduser()
        return name, {**options, "tokenizer": str(place)}
    if name == "labels":
        return name, {**options, "file": str(base / Path(options["file"]).expanduser())}
    return located(name, base), dict(options)
