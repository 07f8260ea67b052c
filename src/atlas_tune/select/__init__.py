"""Selecting: which steps of an expert trajectory are worth training on.

A selector labels steps; labels and a budget make a selection. Nothing here trains, evaluates or
needs torch.
"""

from atlas_tune.select.base import CannotLabel, Cost, Selector
from atlas_tune.select.context import Context
from atlas_tune.select.labelling import LabelReport, Unlabelled, label_all
from atlas_tune.select.registry import (
    SELECTOR_NAMES,
    make_selector,
    selector_options,
)
from atlas_tune.select.selecting import Selections, choose_all, select

__all__ = [
    "SELECTOR_NAMES",
    "CannotLabel",
    "Context",
    "Cost",
    "LabelReport",
    "Selections",
    "Selector",
    "Unlabelled",
    "choose_all",
    "label_all",
    "make_selector",
    "select",
    "selector_options",
]
