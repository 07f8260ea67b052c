"""What the oracle would be asked, by the very code that asks it, without asking anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from atlas_tune.llm import ChatAnswer, ChatClient, ChatError, Message, Stored, request_key
from atlas_tune.llm.limits import enlarged
from atlas_tune.select.base import CannotLabel
from atlas_tune.select.labelling import Unlabelled, label_all
from atlas_tune.select.oracle.options import OracleOptions
from atlas_tune.select.oracle.selector import OracleSelector
from atlas_tune.trajectory import StepLabel, Trajectory

Look = Callable[[str], Stored | None]
"""The answer that a request's key has already, None where it has none: ``Journal.stored``."""


class NotAsked(CannotLabel):
    """A trajectory whose next question is planned and not asked."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One request: its key, and its body as ``/v1/chat/completions`` takes it."""

    key: str
    body: dict[str, Any]


@dataclass(slots=True)
class Plan:
    """What is left to be asked of a set of trajectories.

    One pass sees the *next* question of each trajectory: whether an answer will need a second
    question cannot be known before it is there.
    """

    requests: list[Planned] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    """The keys of all requests that were looked at, answered ones too."""
    cached: int = 0
    """Requests whose answers are stored; they are not paid again."""
    labelled: int = 0
    """Trajectories that the sidecar has labelled (or that stand twice)."""
    ready: int = 0
    """Trajectories that stored answers label."""
    unlabelled: list[Unlabelled] = field(default_factory=list)
    """Trajectories that no answer can label: too long, refused, or two unusable answers."""


class PlanningClient(ChatClient):
    """Stands where the client stands that asks: gives stored answers and notes the rest."""

    def __init__(self, options: OracleOptions, look: Look, plan: Plan) -> None:
        super().__init__(options.base_url, options.model, api_key_env=options.api_key_env)
        self._look = look
        self._plan = plan
        self._noted: set[str] = set()

    def complete(
        self,
        messages: Sequence[Message],
        *,
        key: str | None = None,
        enlarge: bool = True,
        largest: int | None = None,
        **params: Any,
    ) -> ChatAnswer:
        """The stored answer.

        Raises:
            NotAsked: there is none; the request is in the plan now.
        """
        key = key or request_key(self.model, messages, params)
        stored = self._look(key)
        if stored is not None:
            answer = self._answer_of(stored)
            is_first = key not in self._plan.seen
            self._plan.seen.add(key)
            is_cut_short = answer is not None and answer.finish_reason == "length"
            larger = enlarged(params, largest) if is_cut_short and enlarge else {}
            if larger and stored.answers == 1:
                params = {**params, **larger}
            elif answer is not None:
                self._plan.cached += is_first
                return answer
        self._plan.seen.add(key)
        if key not in self._noted:
            self._noted.add(key)
            body = {"model": self.model, "messages": [dict(m) for m in messages], **params}
            self._plan.requests.append(Planned(key, body))
        raise NotAsked("not asked yet")

    def _answer_of(self, stored: Stored) -> ChatAnswer | None:
        """None where what is stored turns out to be no answer, as the asking client sees it."""
        try:
            return self._read(200, stored.raw, stored.latency_s)
        except ChatError:
            return None


def plan_requests(
    trajectories: Iterable[Trajectory],
    options: OracleOptions,
    share: float,
    *,
    done: Iterable[StepLabel] = (),
    look: Look = lambda key: None,
) -> Plan:
    """The requests that labelling would begin with now.

    Trajectories that ``done`` shows as labelled, and requests that ``look`` finds an answer to,
    are not asked about. Each body carries a nonce of its own, drawn here; the key does not
    depend on it.
    """
    plan = Plan()
    client = PlanningClient(options, look, plan)
    selector = OracleSelector(options, share=share, client=client)
    # The order of the plan is the order of the trajectories.
    selector.concurrency = 1
    with client:
        report = label_all(trajectories, selector, lambda labels: None, done=done)
    plan.labelled, plan.ready = report.skipped, report.labelled
    plan.unlabelled = [one for one in report.unlabelled if one.reason != "not asked yet"]
    return plan
