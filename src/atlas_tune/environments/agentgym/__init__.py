"""Environments that run on AgentGym's HTTP servers, or on ours that speak the same way.

``make_environment("agentgym:babyai@http://127.0.0.1:36001")``, see docs/environments/agentgym.md.
A name is checked without gymnasium: import :class:`AgentGymEnv` from :mod:`.env`.
"""

from atlas_tune.environments.agentgym.address import FORM, PREFIX, Address
from atlas_tune.environments.agentgym.dialect import Dialect
from atlas_tune.environments.agentgym.dialects import DIALECTS

__all__ = ["DIALECTS", "FORM", "PREFIX", "Address", "Dialect"]
