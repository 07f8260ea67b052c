"""What the prompts of a batch have in common, so that it is read once."""

from __future__ import annotations


def shared_prefix(prompts: list[list[int]]) -> list[int]:
    """The tokens with which all prompts begin, short of the last token of any prompt."""
    limit = min(len(prompt) for prompt in prompts) - 1
    first = prompts[0]
    length = 0
    while length < limit and all(prompt[length] == first[length] for prompt in prompts):
        length += 1
    return first[:length]


def longest_of_each(prompts: list[list[int]]) -> list[int]:
    """For each prompt, the place of the longest one that begins with all of it but its last token.

    The last token is fed to every row anew, because its logits are what the row needs.
    """
    found = list(range(len(prompts)))
    last: list[int] | None = None
    holder = 0
    # In falling order a prompt comes right after those that begin with it.
    for i in sorted(range(len(prompts)), key=lambda i: (prompts[i], -i), reverse=True):
        ids = prompts[i]
        if last is None or last[: len(ids) - 1] != ids[:-1]:
            last, holder = ids, i
        found[i] = holder
    return found
