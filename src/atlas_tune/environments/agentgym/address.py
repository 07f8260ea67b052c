"""The name of an environment on a server: ``agentgym:<dialect>@http://host:port``."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from atlas_tune.environments.agentgym.dialect import Dialect
from atlas_tune.environments.agentgym.dialects import DIALECTS
from atlas_tune.errors import UsageError, nearest

PREFIX = "agentgym:"
FORM = f"{PREFIX}<dialect>@http://host:port"


@dataclass(frozen=True, slots=True)
class Address:
    """A server and the dialect that it speaks."""

    dialect: Dialect
    url: str
    """Without a slash at its end."""

    @property
    def name(self) -> str:
        """The environment's name."""
        return f"{PREFIX}{self.dialect.name}@{self.url}"

    @classmethod
    def parse(cls, name: str) -> Address:
        """The address that an environment's name holds.

        Raises:
            UsageError: the name has another form, or names no dialect or no address.
        """
        dialect, sign, url = name.removeprefix(PREFIX).partition("@")
        if dialect not in DIALECTS:
            raise UsageError(f"AgentGym has no dialect '{dialect}': {nearest(dialect, DIALECTS)}")
        if not sign:
            raise UsageError(
                f"'{name}' does not say where the server is: write {PREFIX}{dialect}@http://"
                "host:port."
            )
        _check(url, name)
        return cls(DIALECTS[dialect], url.rstrip("/"))


def _check(url: str, name: str) -> None:
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # A port that is no number, a bracket that does not close.
        is_address = False
    if not is_address or parts.query or parts.fragment:
        raise UsageError(
            f"'{url}' in '{name}' is no server's address: write {FORM}, for example "
            f"{PREFIX}textcraft@http://127.0.0.1:36001."
        )
    if "@" in parts.netloc:
        # The name of an environment stands in rollouts, reports and logs.
        raise UsageError(
            "The address of an environment holds a user name or password: take it out."
        )
