"""One optimiser step over several processes: each computes some of the rows, all get one gradient.

Every process knows the whole plan, so the normaliser of a step needs no communication. Gradients
are added up once at the end of the step rather than by DistributedDataParallel's hooks, which
expect one forward and one backward pass; a step over a prefix forest has many, and not as many in
each process.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import distributed
from torch.distributed.fsdp import FSDPModule

from atlas_tune.tune.rows import Row
from atlas_tune.tune.step_loss import StepLoss


def step_over_processes(model: Any, rows: Sequence[Row], way: StepLoss) -> torch.Tensor:
    """The loss of a step, a scalar; leaves its gradient in the parameters of every process.

    Args:
        model: as the Trainer wraps it.
        rows: those of the whole step, the same in every process.
        way: computes loss and gradients of this process's rows.
    """
    normaliser = sum(row.weight for row in rows)
    if not distributed.is_initialized():
        return way.backward(model, rows, normaliser)
    module = getattr(model, "module", model)
    own = parts_of(rows, distributed.get_world_size())[distributed.get_rank()]
    with _whole(module) if isinstance(module, FSDPModule) else nullcontext():
        loss = torch.zeros((), dtype=torch.float64)
        if own:
            loss = way.backward(module, own, normaliser)
        loss = loss.to(module.device)
    distributed.all_reduce(loss)
    if not isinstance(module, FSDPModule):
        _add_up([one for one in module.parameters() if one.requires_grad])
    return loss


def _add_up(parameters: Sequence[torch.nn.Parameter]) -> None:
    for parameter in parameters:
        if parameter.grad is None:  # in this process, but perhaps not in all of them
            parameter.grad = torch.zeros_like(parameter)
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    for work in [distributed.all_reduce(grad, async_op=True) for grad in grads]:
        work.wait()


@contextmanager
def _whole(model: Any) -> Iterator[None]:
    """Within it every process holds all weights; at its end the gradients are added up and dealt.

    Processes run different numbers of chunks, so nothing may be exchanged inside of a chunk: the
    weights are gathered once before the first one, and a pass without loss over a single token
    deals the gradients after the last one, in the same order everywhere. What stays dealt out all
    the time are the optimiser's state and the weights that it changes.
    """
    blocks = [module for module in model.modules() if isinstance(module, FSDPModule)]
    model.set_reshard_after_forward(False)
    _last_pass(model, False)
    for block in blocks:
        block.set_gradient_divide_factor(1.0)  # a sum; each block has its own
        block.unshard()
    yield
    _last_pass(model, True)
    token = torch.zeros((1, 1), dtype=torch.long, device=model.device)
    (model(input_ids=token, use_cache=False).logits.sum() * 0.0).backward()
    for block in blocks:
        block.reshard()


def _last_pass(model: Any, is_last: bool) -> None:
    model.set_requires_gradient_sync(is_last)
    model.set_is_last_backward(is_last)
    model.set_reshard_after_backward(is_last)


def first_says(what: bool, device: torch.device) -> bool:
    """What the first of the processes says."""
    if not distributed.is_initialized():
        return what
    said = torch.tensor(int(what), device=device)
    distributed.broadcast(said, src=0)
    return bool(said)


def parts_of(rows: Sequence[Row], processes: int) -> list[list[Row]]:
    """The rows of each process: about as many tokens, and rows that begin alike together.

    >>> from atlas_tune.tune.rows import Span
    >>> rows = [Row("t", ids, (Span(1, 1, 2),), 3) for ids in ((5, 1, 1), (2, 1), (5, 1, 2), (2,))]
    >>> [[row.input_ids for row in part] for part in parts_of(rows, 2)]
    [[(2,), (2, 1)], [(5, 1, 1), (5, 1, 2)]]
    """
    ordered = sorted(rows, key=lambda row: row.input_ids)
    ends = list(itertools.accumulate(len(row.input_ids) for row in ordered))
    # Where the tokens so far come nearest to each process's share.
    edges = [0]
    for part in range(1, processes):
        aim = ends[-1] * part / processes
        at = bisect.bisect_left(ends, aim)
        nearer = at + (at < len(ends) and aim - (ends[at - 1] if at else 0) > ends[at] - aim)
        edges.append(max(edges[-1], nearer))
    return [ordered[a:b] for a, b in itertools.pairwise([*edges, len(ordered)])]
