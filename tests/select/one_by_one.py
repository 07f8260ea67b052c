"""The plain way to a step's likelihood: its whole prompt and itself, read at once, no cache."""

import torch

from atlas_tune.trajectory.messages import to_messages
from tiny_model import CHATML, tiny_llama, tiny_tokenizer

# Drops what the agent said in earlier turns, as templates of thinking models do.
FORGETFUL = CHATML.replace(
    "message['content'] +",
    "(message['content'] if loop.last or message['role'] != 'assistant' else '…') +",
)


def plain_log_probs(model, tokenizer, trajectory):
    """Per agent step the log-probabilities of its text and its end of turn, as lists."""
    rendered = to_messages(trajectory)
    found = []
    for index, step_id in enumerate(rendered.step_ids):
        if step_id is None:
            continue
        prompt = tokenizer.apply_chat_template(
            rendered.messages[:index], tokenize=False, add_generation_prompt=True
        )
        text = rendered.messages[index]["content"] + "<|im_end|>"
        ids = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in (prompt, text)]
        with torch.no_grad():
            logits = model(torch.tensor([ids[0] + ids[1]]), use_cache=False).logits[0]
        rows = logits.log_softmax(-1)[len(ids[0]) - 1 : -1]
        found.append([float(row[token]) for row, token in zip(rows, ids[1], strict=True)])
    return found


def saved_llama(directory, template=CHATML, seed=0, **changes):
    """A tiny model on file; returns its directory as recipes name it."""
    model = tiny_llama(seed, **changes)
    with torch.no_grad():
        model.lm_head.weight.mul_(5)  # likelihoods that differ from token to token
    model.save_pretrained(directory)
    tiny_tokenizer(template).save_pretrained(directory)
    return str(directory)
