"""The formats by name, in the order in which a record's shape is held against them."""

from __future__ import annotations

from atlas_tune.trajectory.formats import (
    alfworld,
    anthropic,
    atif,
    claude_code,
    inspect,
    intercode,
    llamafactory,
    mini_swe_agent,
    openai,
    openhands,
    react,
    scienceworld,
    sharegpt,
    swe_agent,
    tau2,
    tau_bench,
    verifiers,
)
from atlas_tune.trajectory.formats.base import Format

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (
        atif,
        # Before sharegpt, whose turns it has.
        alfworld,
        sharegpt,
        inspect,
        swe_agent,
        mini_swe_agent,
        openhands,
        tau_bench,
        tau2,
        intercode,
        scienceworld,
        react,
        verifiers,
        llamafactory,
        claude_code,
        anthropic,
        # Last: many formats are its messages with a mark of their own.
        openai,
    )
}
