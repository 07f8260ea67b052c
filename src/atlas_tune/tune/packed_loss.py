"""Loss and gradients of one optimiser step over a prefix forest, exactly and computed once.

The same sum as :func:`atlas_tune.tune.loss.supervised_loss_sum` gives for padded rows, with the
same gradients (``tests/tune/test_exactness.py`` holds both to 1e-9 in float64):

- tokens that rows share are computed once (:mod:`atlas_tune.tune.prefixes`);
- there is no padding (:mod:`atlas_tune.tune.chunks`);
- the last block, the final norm and the head see supervised rows only
  (:mod:`atlas_tune.tune.sparse_block`).

Shapes: N tokens of a chunk, R supervised rows of it, W width of the model, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from atlas_tune.tune.chunks import Chunk, cut
from atlas_tune.tune.loss import log_losses
from atlas_tune.tune.prefixes import LEAST_SHARED, Forest, forest_of
from atlas_tune.tune.rows import Row
from atlas_tune.tune.sparse_block import last_block, sparse
from atlas_tune.tune.tree_attention import NAME, Pair, Running, merged, sequence_of


@dataclass(frozen=True, slots=True)
class PackedLoss:
    """How a step is computed: what fits at once, and which savings are on."""

    most_tokens: int
    """New tokens of a chunk."""
    supervised_rows: bool = True
    """Final norm, head and loss on supervised rows only."""
    sparse_last_block: bool = True
    """Run the last block on supervised rows only too, where its arithmetic is known."""
    least_shared: int | None = LEAST_SHARED
    """The fewest tokens worth sharing; None shares nothing."""
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Makes the context of a forward pass, such as autocast."""

    def backward(self, model: Any, rows: Sequence[Row], normaliser: float) -> torch.Tensor:
        """Add the gradients of Σ weight · −log π / normaliser to the parameters'.

        Args:
            model: a causal language model of transformers whose attention goes through the
                attention interface, wrapped by peft or not.
            rows: those of the step.
            normaliser: what the sum is divided by.

        Returns:
            The loss, a scalar without a graph.
        """
        forest = forest_of(rows, least_shared=self.least_shared)
        with packed_attention(model), ExitStack() as stack:
            wanted = self.supervised_rows and self.sparse_last_block
            block = last_block(model) if wanted else None
            if block is not None:
                stack.enter_context(sparse(block))
            total = torch.zeros((), dtype=torch.float64)
            for chunk in cut(forest, self.most_tokens):
                total += self._run(model, forest, chunk, {}, normaliser, block is not None)
        return total

    def _run(
        self,
        model: Any,
        forest: Forest,
        chunk: Chunk,
        outer: dict[int, dict[int, Pair]],
        normaliser: float,
        is_sparse: bool,
    ) -> torch.Tensor:
        running = Running.of(forest, chunk, outer, model.device)
        with self.precision():
            loss = self._loss(model, forest, chunk, running, is_sparse) / normaliser
        total = loss.detach().double().cpu()
        for later in chunk.then:
            total = total + self._run(
                model, forest, later, merged(outer, running.leaves), normaliser, is_sparse
            )
        tensors, gradients = running.to_go_back()
        if loss.requires_grad or tensors:
            torch.autograd.backward([loss, *tensors], [torch.ones_like(loss), *gradients])
        return total

    def _loss(
        self, model: Any, forest: Forest, chunk: Chunk, running: Running, is_sparse: bool
    ) -> torch.Tensor:
        ids, positions = sequence_of(forest, chunk.nodes)
        rows, targets, weights = _targets(forest, running)
        few_before_norm = self.supervised_rows and not is_sparse
        with rows_before_norm(model, running) if few_before_norm else nullcontext():
            logits_RV = model(
                input_ids=torch.tensor([ids], device=model.device),
                position_ids=torch.tensor([positions], device=model.device),
                use_cache=False,
                running=running,
            ).logits[0]
        if not self.supervised_rows:
            logits_RV = logits_RV[running.rows_R]
        if not targets:
            nothing: torch.Tensor = logits_RV.sum() * 0.0
            return nothing
        if rows != list(range(len(logits_RV))):
            logits_RV = logits_RV[torch.tensor(rows, device=model.device)]
        losses_R = log_losses(logits_RV, torch.tensor(targets, device=model.device))
        weights_R = torch.tensor(weights, dtype=losses_R.dtype, device=model.device)
        return (losses_R * weights_R).sum()


def _targets(forest: Forest, running: Running) -> tuple[list[int], list[int], list[float]]:
    """Per target of a chunk: the row that predicts it, its token, its weight."""
    rows: list[int] = []
    tokens: list[int] = []
    weights: list[float] = []
    first = 0
    for place in running.places:
        offsets = sorted({target.offset for target in forest[place.node].targets})
        row_of = {offset: first + i for i, offset in enumerate(offsets)}
        for target in sorted(forest[place.node].targets, key=lambda t: (t.offset, t.token)):
            rows.append(row_of[target.offset])
            tokens.append(target.token)
            weights.append(target.weight)
        first += len(offsets)
    return rows, tokens, weights


@contextmanager
def packed_attention(model: Any) -> Iterator[None]:
    """Within it, the model's attention is that of a prefix forest."""
    config = model.config.get_text_config(decoder=True)
    before: Any = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


@contextmanager
def rows_before_norm(model: Any, running: Running) -> Iterator[None]:
    """Let the final norm and the head see supervised rows only."""
    decoder = getattr(model.get_decoder(), "model", model.get_decoder())
    norm = getattr(decoder, "norm", None) or model.get_output_embeddings()

    def gather(_: nn.Module, args: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return (args[0][:, running.rows_R], *args[1:])

    handle = norm.register_forward_pre_hook(gather)
    try:
        yield
    finally:
        handle.remove()
