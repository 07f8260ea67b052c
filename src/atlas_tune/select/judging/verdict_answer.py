"""A yes or a no as the first token of an answer: which tokens say it, and how surely."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from atlas_tune.errors import AtlasError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

YES = ("Yes", "yes", "YES", " Yes", " yes", " YES")
NO = ("No", "no", "NO", " No", " no", " NO")


def yes_and_no_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The tokens that begin a yes and those that begin a no, none in both.

    Forms that are one token count; only where a side has no such form do the first tokens of its
    forms count, and never a token that may begin either (a lone space does).

    Raises:
        AtlasError: nothing is left of a side.
    """
    yes, no = _first_tokens(tokenizer, YES), _first_tokens(tokenizer, NO)
    if not yes - no or not no - yes:
        raise AtlasError(
            f"The tokenizer of {tokenizer.name_or_path} writes yes and no with the same first "
            "token, so the judge's next token does not tell them apart: ask another model."
        )
    return sorted(yes - no), sorted(no - yes)


def _first_tokens(tokenizer: PreTrainedTokenizerBase, forms: Sequence[str]) -> set[int]:
    encoded = [tokenizer(form, add_special_tokens=False)["input_ids"] for form in forms]
    # A text that the vocabulary cannot write is nothing, or the unknown token, which is no yes.
    known = [ids for ids in encoded if ids and tokenizer.unk_token_id not in ids]
    whole = {ids[0] for ids in known if len(ids) == 1}
    return whole or {ids[0] for ids in known}


@contextmanager
def in_float32(model: PreTrainedModel, tokens: Sequence[int]) -> Iterator[None]:
    """Compute the logits of some tokens in float32 where the model's own format is coarser.

    A logit of 20 is a multiple of 0.125 in bfloat16, and many steps would tie. Done by a hook on
    the head, so that what an architecture does to its logits afterwards stays in place.
    """
    import torch

    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if not isinstance(head, torch.nn.Linear) or head.weight.dtype in (torch.float32, torch.float64):
        yield
        return
    rows_FD = head.weight.detach()[list(tokens)].float()
    bias_F = None if head.bias is None else head.bias.detach()[list(tokens)].float()

    def finer(_: Any, given: tuple[torch.Tensor, ...], logits: torch.Tensor) -> torch.Tensor:
        fine = logits.float()
        fine[..., list(tokens)] = torch.nn.functional.linear(given[0].float(), rows_FD, bias_F)
        return fine

    handle = head.register_forward_hook(finer)
    try:
        yield
    finally:
        handle.remove()
