"""Selectors by name, as recipes and the command line ask for them.

A selector's module is light to import: what is heavy (torch, gymnasium) it imports where it is
used, so that reading a recipe costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from atlas_tune.errors import UsageError, nearest
from atlas_tune.select.base import Selector, SelectorOptions
from atlas_tune.select.context import Context
from atlas_tune.select.controls import (
    AllSteps,
    ComplementSteps,
    FirstSteps,
    LastSteps,
    RandomSteps,
)
from atlas_tune.select.imported import ImportedMask
from atlas_tune.select.oracle import OracleOptions, OracleSelector
from atlas_tune.select.replay import ReplaySelector


class NoOptions(SelectorOptions):
    """A selector without settings."""


class SeedOptions(SelectorOptions):
    """The settings of a random control."""

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
    "complement": (SeedOptions, _complement),
    "first": (NoOptions, lambda options, context: FirstSteps()),
    "import": (NoOptions, lambda options, context: ImportedMask(context.imported)),
    "last": (NoOptions, lambda options, context: LastSteps()),
    "oracle": (
        OracleOptions,
        lambda options, context: OracleSelector(
            options, share=context.share, journal=context.journal
        ),
    ),
    "random": (SeedOptions, lambda options, context: RandomSteps(options.seed, context.other)),
    "replay": (
        NoOptions,
        lambda options, context: ReplaySelector(context.environments("replay")),
    ),
}

SELECTOR_NAMES = tuple(sorted(_SELECTORS))


def selector_options(name: str, options: Mapping[str, Any] | None = None) -> BaseModel:
    """The checked options of a selector, without building it.

    Raises:
        UsageError: no such selector, no such option, or a value that does not fit.
    """
    if name not in _SELECTORS:
        raise UsageError(f"There is no selector '{name}': {nearest(name, _SELECTORS)}")
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
        raise UsageError(
            f"The option '{option}' of the selector '{name}' does not fit: {first['msg']}."
        ) from error


def make_selector(
    name: str, options: Mapping[str, Any] | None = None, context: Context | None = None
) -> Selector:
    """The selector of a name, with its options and what the run gives it.

    Raises:
        UsageError: no such selector or option, or the context lacks what the selector needs.
    """
    checked = selector_options(name, options)
    return _SELECTORS[name][1](checked, context or Context())
