"""What the values of the report are made of: their base, and the types of their fields."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _encodable(value: Any) -> Any:
    """Half a surrogate pair, which JSON can carry and UTF-8 cannot, becomes U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


Words = Annotated[str, BeforeValidator(_encodable)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
Interval = tuple[float, float]
Metric = Literal["success", "reward"]
"""What counts in an environment: the share of solved tasks, or the mean reward."""


class Value(BaseModel):
    """A value that does not change and knows all of its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
