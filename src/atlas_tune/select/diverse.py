"""``diverse``: steps that are about the goal, and unlike each other.

Weasel's objective (arXiv 2605.20291): of the steps of a trajectory choose the set S with the
greatest Σ relevance(t) + λ Σ distance(s, t), over the steps and over the pairs of S. It is grown
greedily from the empty set, and the order in which steps come is the ranking: the budget cuts it
anywhere. What is ours: a step is one text (what the agent wrote and the observation that answered
it) where Weasel keeps states and turns apart; texts are compared by TF-IDF or by a sentence encoder
and not by BERTScore; the first step is the most relevant one and not one of the best pair, so that
the ranking suits a budget of one step too; relevances are stretched to [0, 1] within a trajectory,
so that λ = 1 weighs one step's relevance like one distance whatever the texts are.

No reward, no model: a baseline of what words alone tell.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import Field

from atlas_tune.errors import UsageError
from atlas_tune.select.base import Alone, CannotLabel, SelectorOptions, labels_of_scores
from atlas_tune.trajectory import Step, StepLabel, Trajectory
from atlas_tune.trajectory.messages import arguments_text

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float64]

DECIMALS = 9
"""Cosines are rounded to so many, so that equal texts are equal on every machine."""
_WORD = re.compile(r"\w+")


class DiverseOptions(SelectorOptions):
    """The settings of the relevance-and-diversity selector."""

    trade_off: float = Field(1.0, ge=0, allow_inf_nan=False)
    """λ: the weight of distances; 0 ranks by relevance alone."""
    encoder: str | None = None
    """A model of sentence-transformers that compares the texts; TF-IDF where it is left out."""


class DiverseSelector(Alone):
    """Scores steps by when a greedy choice of relevant and diverse steps takes them."""

    name = "diverse"

    def __init__(
        self, options: DiverseOptions | None = None, trajectories: Sequence[Trajectory] = ()
    ) -> None:
        """``trajectories`` tell how rare a word is; without them each trajectory does for itself.

        Raises:
            UsageError: an encoder is named and sentence-transformers is not installed.
        """
        self.options = options or DiverseOptions()
        self._trajectories = {t.trajectory_id: t for t in trajectories}
        encoder = self.options.encoder
        if encoder is None:
            compared = "tf-idf"
            if self._trajectories:
                runs = hashlib.sha256("\n".join(sorted(self._trajectories)).encode()).hexdigest()
                compared += f" over {runs[:12]}"
        elif importlib.util.find_spec("sentence_transformers") is None:
            raise UsageError(
                "The option 'encoder' of the selector 'diverse' needs the package "
                "sentence-transformers: pip install sentence-transformers, or leave the option "
                "out to compare texts by TF-IDF."
            )
        else:
            compared = f"encoder={encoder}"
        self.version = f"1+trade_off={self.options.trade_off:g},{compared}"

    def label(self, trajectory: Trajectory) -> list[StepLabel]:
        """Scores 1, (T-1)/T, … 1/T in the order in which the greedy choice takes the steps.

        Raises:
            CannotLabel: no user says anything before the first step, so there is no goal.
        """
        steps = trajectory.agent_steps
        goal = goal_of(trajectory)
        if goal is None:
            raise CannotLabel(
                "no user says anything before the agent's first step, so nothing tells its goal"
            )
        texts = [text_of(step) for step in steps]
        vectors_TD, goal_D = self._embed(texts, goal)
        cosines_TT = (vectors_TD @ vectors_TD.T).round(DECIMALS)
        relevance = (vectors_TD @ goal_D).round(DECIMALS).tolist()
        distance = (1.0 - cosines_TT).clip(min=0.0).round(DECIMALS).tolist()
        order = greedy_order(
            _stretched(relevance),
            distance,
            self.options.trade_off,
            [_lot(trajectory, step) for step in steps],
        )
        scores, reasons = {}, {}
        for rank, place in enumerate(order):
            step_id = steps[place].step_id
            scores[step_id] = (len(steps) - rank) / len(steps)
            reasons[step_id] = f"relevance {relevance[place]:.2f} to the goal"
            if rank:
                mean = sum(distance[place][other] for other in order[:rank]) / rank
                before = f"{rank} steps" if rank > 1 else "step"
                reasons[step_id] += f", mean distance {mean:.2f} from the {before} chosen before it"
        return labels_of_scores(trajectory, self.source, scores, reasons)

    def _embed(self, texts: Sequence[str], goal: str) -> tuple[Vectors, Vectors]:
        """Unit vectors of the steps (T, D) and of the goal (D); zeros where a text has no word."""
        if self.options.encoder is not None:
            return self._encode([*texts, goal])
        rarity = self._rarity or Rarity.of(texts)
        return tf_idf(texts, goal, rarity)

    @cached_property
    def _rarity(self) -> Rarity | None:
        """How rare each word is among the steps of all trajectories."""
        if not self._trajectories:
            return None
        return Rarity.of([text_of(s) for t in self._trajectories.values() for s in t.agent_steps])

    @cached_property
    def _encoder(self) -> Callable[[list[str]], Any]:
        # Imported by name: it is no dependency, so a type checker does not find it.
        library: Any = importlib.import_module("sentence_transformers")
        try:
            model = library.SentenceTransformer(self.options.encoder)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"The encoder {self.options.encoder} of the selector 'diverse' cannot be loaded: "
                f"{error}"
            ) from error
        return lambda texts: model.encode(
            texts, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
        )

    def _encode(self, texts: list[str]) -> tuple[Vectors, Vectors]:
        import numpy as np

        vectors = np.asarray(self._encoder(texts), dtype=np.float64)
        return vectors[:-1], vectors[-1]


class Rarity:
    """The inverse document frequency of words, smoothed: ln((1 + N) / (1 + df)) + 1."""

    def __init__(self, documents: int, containing: Counter[str]) -> None:
        """``containing`` counts for each word the documents that have it."""
        self._documents = documents
        self._containing = containing

    @classmethod
    def of(cls, texts: Sequence[str]) -> Rarity:
        """The rarity of words among texts."""
        containing: Counter[str] = Counter()
        for text in texts:
            containing.update(set(words(text)))
        return cls(len(texts), containing)

    def __call__(self, word: str) -> float:
        """The weight of a word; 0 for one that no document has."""
        found = self._containing[word]
        return math.log((1 + self._documents) / (1 + found)) + 1 if found else 0.0


def tf_idf(texts: Sequence[str], goal: str, rarity: Rarity) -> tuple[Vectors, Vectors]:
    """Vectors of texts (T, D) and of the goal (D) over the words D of the texts, of length 1.

    The weight of a word is its count in the text times its rarity (Salton and Buckley 1988, with
    smoothed inverse document frequency). Words of the goal that no step has count for its length
    too, where the rarity knows them: a goal that is mostly about something else is less near.
    """
    import numpy as np

    counts = [Counter(words(text)) for text in [*texts, goal]]
    vocabulary = {word: place for place, word in enumerate(sorted(set().union(*counts)))}
    vectors = np.zeros((len(counts), len(vocabulary)))
    for row, found in zip(vectors, counts, strict=True):
        for word, count in found.items():
            row[vocabulary[word]] = count * rarity(word)
    lengths = np.sqrt((vectors**2).sum(axis=1, keepdims=True))
    vectors /= np.where(lengths > 0, lengths, 1.0)
    return vectors[:-1], vectors[-1]


def greedy_order(
    relevance: Sequence[float],
    distance: Sequence[Sequence[float]],
    trade_off: float,
    lots: Sequence[str],
) -> list[int]:
    """Places in the order in which each adds most to Σ relevance + λ Σ distance over pairs.

    Args:
        relevance: of each of T steps.
        distance: T by T, symmetrical.
        trade_off: λ.
        lots: break ties, so that no place in the trajectory is preferred.

    >>> greedy_order([1.0, 0.9, 0.0], [[0, 0, 1], [0, 0, 1], [1, 1, 0]], 1.0, "abc")
    [0, 2, 1]
    >>> greedy_order([1.0, 0.9, 0.0], [[0, 0, 1], [0, 0, 1], [1, 1, 0]], 0.5, "abc")
    [0, 1, 2]
    """
    gain = list(relevance)
    left = set(range(len(gain)))
    order: list[int] = []
    while left:
        best = min(left, key=lambda place: (-round(gain[place], DECIMALS), lots[place]))
        order.append(best)
        left.remove(best)
        for place in left:
            gain[place] += trade_off * distance[best][place]
    return order


def goal_of(trajectory: Trajectory) -> str | None:
    """What the user says last before the agent's first own step; None where that is nothing.

    AgentGym opens with the instruction of a whole environment; the task's own goal comes after it.
    """
    goal = None
    for step in trajectory.steps:
        if step.source == "agent" and not step.is_copied_context:
            break
        if step.source == "user" and step.message.strip():
            goal = step.message
    return goal


def text_of(step: Step) -> str:
    """What an agent step says, calls and is answered."""
    calls = [f"{call.function_name} {arguments_text(call)}" for call in step.tool_calls]
    answer = step.observation.text if step.observation else ""
    return "\n".join([step.reasoning_content or "", step.message, *calls, answer])


def words(text: str) -> list[str]:
    """
    >>> words("Get 2 iron-ingots!")
    ['get', '2', 'iron', 'ingots']
    """
    return _WORD.findall(text.lower())


def _stretched(values: Sequence[float]) -> list[float]:
    """
    >>> _stretched([0.25, 0.5, 0.75])
    [0.0, 0.5, 1.0]
    >>> _stretched([0.25, 0.25])
    [0.0, 0.0]
    """
    least, most = min(values), max(values)
    return [(value - least) / (most - least) if most > least else 0.0 for value in values]


def _lot(trajectory: Trajectory, step: Step) -> str:
    text = f"diverse:{trajectory.trajectory_id}:{step.step_id}"
    return hashlib.sha256(text.encode()).hexdigest()
