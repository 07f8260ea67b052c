"""What the parts of a recipe are made of: unknown keys are refused, values do not change."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""What becomes part of a path."""
ShareOfSteps = Annotated[float, Field(ge=0, le=1)]
"""A share of a trajectory's steps."""


class Section(BaseModel):
    """Keys and values that are all known, and do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
