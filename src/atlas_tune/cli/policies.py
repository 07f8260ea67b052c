"""The policy that a command's ``--model`` names: a model on this machine, or one on a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from atlas_tune.agents.local_model import model_digest, resolve_model
from atlas_tune.errors import AtlasError, UsageError, nearest
from atlas_tune.progress import say

if TYPE_CHECKING:
    from atlas_tune.agents.making import HttpPolicies, PolicyMaker

_ADDRESSES = ("http://", "https://")


@dataclass(frozen=True, slots=True)
class Served:
    """The options that only a model on a server has; they are named as the oracle's are."""

    served_model: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    context_tokens: int | None = None
    concurrency: int = 32
    timeout: float = 300.0
    retries: int = 6
    params: str | None = None
    budget_usd: float | None = None
    prices: Path | None = None
    journal: Path | None = None

    def check(self, model: str) -> None:
        """Refuse what does not fit the model.

        Raises:
            UsageError: an address without the model's name, or a local model with an option of
                servers.
        """
        if is_served(model):
            if not self.served_model:
                raise UsageError(
                    f"Which model shall act at {model}? Name it with --served-model, as the "
                    "server calls it."
                )
            return
        usual = Served()
        given = [f.name for f in fields(self) if getattr(self, f.name) != getattr(usual, f.name)]
        if given:
            option = "--" + given[0].replace("_", "-")
            raise UsageError(
                f"{option} is for a model on a server, and '{model}' is none: give --model an "
                "address such as http://localhost:8000/v1."
            )


@dataclass(frozen=True, slots=True)
class Actor:
    """A model that can act, and what is recorded of it."""

    name: str
    """As it goes into trajectories."""
    policies: PolicyMaker
    answers: dict[str, Any]
    """What decides its replies besides seed and temperature, as JSON values."""
    place: Path | None
    """The directory of its weights; None for a model on a server."""

    def usage(self) -> dict[str, Any] | None:
        """What its replies took; None for a model on this machine."""
        from dataclasses import asdict

        from atlas_tune.agents.making import HttpPolicies

        if not isinstance(self.policies, HttpPolicies):
            return None
        return asdict(self.policies.usage.total)


def is_served(model: str) -> bool:
    """Whether a model is named by the address of its server.

    >>> is_served("http://localhost:8000/v1"), is_served("models/all")
    (True, False)
    """
    return model.startswith(_ADDRESSES)


@contextmanager
def acting(model: str, served: Served, max_new_tokens: int, precision: str) -> Iterator[Actor]:
    """The model of ``--model``, with nothing loaded yet; its connections are closed at the end.

    With a server, the first Ctrl-C inside lets the calls under way end, see
    :mod:`atlas_tune.llm.draining`.

    Raises:
        UsageError: an option does not fit, or there is no such precision.
        AtlasError: the model cannot be found.
        KeyboardInterrupt: a stop was asked for.
    """
    from atlas_tune.agents.making import LocalPolicies
    from atlas_tune.tune.settings import Precision

    served.check(model)
    if precision not in get_args(Precision):
        known = nearest(precision, get_args(Precision))
        raise UsageError(f"There is no precision '{precision}': {known}")
    if not is_served(model):
        place = resolve_model(model)
        # What outgrows the context loses old observations rather than the whole episode.
        policies = LocalPolicies(place, max_new_tokens, precision, overlong="drop")
        answers = {
            "model": model_digest(place),
            "max_new_tokens": max_new_tokens,
            "precision": precision,
        }
        yield Actor(Path(model).name, policies, answers, Path(place))
        return
    from atlas_tune.llm.draining import draining

    with draining(), ExitStack() as stack:
        asked = _server(model, served, max_new_tokens, stack)
        answers = {
            "model": asked.identity,
            "max_new_tokens": max_new_tokens,
            "context_tokens": served.context_tokens,
            "params": dict(asked.settings.params),
        }
        yield Actor(served.served_model or "", asked, answers, None)


def _server(model: str, served: Served, max_new_tokens: int, stack: ExitStack) -> HttpPolicies:
    from contextlib import closing

    from atlas_tune.agents.http_policy import ReplySettings
    from atlas_tune.agents.making import HttpPolicies
    from atlas_tune.llm import Journal

    settings = ReplySettings(
        max_new_tokens=max_new_tokens,
        context=served.context_tokens,
        concurrency=served.concurrency,
        params=_params(served.params),
    )
    journal = stack.enter_context(closing(Journal(served.journal))) if served.journal else None
    return stack.enter_context(
        HttpPolicies(
            model,
            served.served_model or "",
            settings,
            api_key_env=served.api_key_env,
            timeout=served.timeout,
            retries=served.retries,
            journal=journal,
            prices=served.prices,
            budget_usd=served.budget_usd,
        )
    )


def _params(text: str | None) -> dict[str, Any]:
    """The fields of ``--params``, an object as JSON or YAML writes it."""
    from atlas_tune.checked import parse_yaml

    if text is None:
        return {}
    try:
        found = parse_yaml(text)
    except AtlasError as error:
        raise UsageError(f"--params: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise UsageError(f"--params takes an object such as '{{\"top_p\": 0.9}}', not '{text}'.")
    return found


def tell_usage(usage: dict[str, Any]) -> None:
    """Say what the replies of a server took."""
    spent = usage["spent_usd"]
    cost = "at an unknown price" if spent is None else f"for ${spent:.4f}"
    cached = f", {usage['cached']:,} more from the journal" if usage["cached"] else ""
    say(
        f"{usage['calls']:,} replies{cached}: {usage['prompt_tokens']:,} prompt and "
        f"{usage['completion_tokens']:,} completion tokens {cost}."
    )
    if usage["cut_short"]:
        say(f"{usage['cut_short']:,} replies were cut short: give --max-new-tokens more.")
