"""What a policy sees of a conversation that is longer than its context."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_local_policy import Alone, sharp_llama

from atlas_tune.agents.history import (
    LEFT_OUT,
    History,
    number_to_leave_out,
    old_observations,
    opening_length,
    without_oldest,
)
from atlas_tune.agents.local_policy import LocalPolicy
from atlas_tune.agents.making import ConversationTooLong
from atlas_tune.errors import UsageError
from tiny_model import tiny_tokenizer

NOTE = len(LEFT_OUT)


def user(text):
    return {"role": "user", "content": text}


def agent(text):
    return {"role": "assistant", "content": text}


def characters(messages):
    return sum(len(message["content"]) for message in messages)


def run_of(*observations):
    """An opening of 13 characters, then a turn of one character before each observation."""
    messages = [user("Rules."), agent("OK."), user("Goal")]
    for observation in observations:
        messages += [agent("!"), user(observation)]
    return messages


def contents(messages):
    return [message["content"][:1] for message in messages]


def test_the_opening_ends_before_the_first_own_turn():
    assert opening_length(run_of()) == 3
    assert opening_length(run_of("a", "b")) == 3
    assert (
        opening_length([{"role": "system", "content": "R"}, user("G"), agent("!"), user("a")]) == 2
    )
    # Without a prefill the first turn looks like one, and one observation more is kept.
    assert opening_length([user("R"), agent("!"), user("a"), agent("!"), user("b")]) == 3


def test_old_observations_are_neither_short_nor_last_nor_the_agents():
    said = run_of("a" * 99, "b" * NOTE, "c" * 99, "d" * 99)
    assert old_observations(said) == [4, 8]
    assert contents(without_oldest(said, 1)) == list("ROG![!b!c!d")
    assert contents(without_oldest(said, 2)) == list("ROG![!b![!d")
    assert without_oldest(said, 0) == said
    # After the agent's last turn there may be several answers; all of them are the last.
    tool = {"role": "tool", "tool_call_id": "1", "content": "x" * 99}
    assert old_observations([*said, agent("!"), tool, {**tool, "tool_call_id": "2"}]) == [4, 8, 10]
    [left_out] = [
        m
        for m in without_oldest([*run_of("a")[:4], tool, agent("!"), user("z")], 1)
        if m["role"] == "tool"
    ]
    assert left_out == {"role": "tool", "tool_call_id": "1", "content": LEFT_OUT}


def test_a_chunk_is_left_out_down_to_three_quarters():
    # 13 + 5 turns of 1 + 5 observations of 200 = 1018. A note saves 200 − 70 = 130.
    assert NOTE == 70
    said = run_of(*("abcde"[i] * 200 for i in range(5)))
    assert characters(said) == 1018
    assert number_to_leave_out(said, characters, 1018) == 0
    # 3/4 of 1017 is 762.75: one leaves 888, two leave 758.
    assert number_to_leave_out(said, characters, 1017) == 2
    # What was left out before counts first: 888 fit, so nothing more goes.
    assert number_to_leave_out(said, characters, 1017, before=1) == 1
    # Four can go, the last one never: 498 is too long still.
    assert number_to_leave_out(said, characters, 400) == 4


def test_a_history_shown_turn_by_turn_changes_rarely():
    history = History(characters, 1000)
    said = run_of()
    numbers = []
    for turn in range(12):
        said += [agent("!"), user(chr(97 + turn) * 200)]
        numbers.append(contents(history.shown("7", said)).count("["))
    # 1018 at turn 5: three make it 628. 1030 at turn 7: six of six make it 640. 1042 at turn 9:
    # eight of eight make it 782, which is above 3/4 and fits. 1184 at turn 11, 1125 at turn 12.
    assert numbers == [0, 0, 0, 0, 3, 3, 6, 6, 8, 8, 10, 11]
    assert history.shown("7", said) == History(characters, 1000).shown("7", said)


def test_a_refused_episode_has_less_room_from_then_on():
    history = History(characters, None)
    said = run_of("a" * 200, "b" * 200, "c" * 200)
    assert history.shown("7", said) == said
    # 616 was refused: one left out leaves 486, two leave 356; 3/4 of 615 is 461.
    assert contents(history.refused("7", said)) == list("ROG![![!c")
    assert contents(history.shown("7", said)) == list("ROG![![!c")
    longer = [*said, agent("!"), user("d" * 200)]
    assert contents(history.shown("7", longer)) == list("ROG![![!c!d")
    assert history.shown("8", said) == said
    # 356 was refused as well, and nothing more can go.
    other = History(characters, None)
    other.refused("7", said)
    assert other.refused("7", said) is None
    assert History(characters, None).refused("7", run_of("a" * 200)) is None


def test_another_conversation_under_the_same_key_starts_afresh():
    history = History(characters, 700)
    history.shown("0", run_of("a" * 400, "b" * 400))
    other = run_of("x" * 200, "y" * 200)
    assert history.shown("0", other) == other


texts = st.text("ab ", max_size=260)
conversations = st.builds(
    lambda first, turns: [
        user("Rules."),
        agent("OK."),
        user(first),
        *(m for said, seen in turns for m in (agent(said), user(seen))),
    ],
    texts,
    st.lists(st.tuples(st.text("xy", max_size=30), texts), max_size=12),
)
rooms = st.integers(1, 2500)


@given(conversations, rooms)
def test_only_old_observations_go_and_as_few_as_needed(said, room):
    shown = History(characters, room).shown("k", said)
    assert len(shown) == len(said)
    changed = [at for at, (one, other) in enumerate(zip(said, shown, strict=True)) if one != other]
    may = old_observations(said)
    assert changed == may[: len(changed)]
    assert all(shown[at] == {"role": "user", "content": LEFT_OUT} for at in changed)
    assert not set(changed) & {0, 1, 2, len(said) - 1}
    if characters(said) <= room:
        assert shown == said
    else:
        assert characters(shown) <= room or changed == may


@given(conversations, rooms)
def test_turn_by_turn_is_as_at_once_and_what_is_gone_stays_gone(said, room):
    history = History(characters, room)
    before = 0
    for end in range(3, len(said) + 1, 2):
        shown = history.shown("k", said[:end])
        assert shown == History(characters, room).shown("k", said[:end])
        assert shown == history.shown("k", said[:end])
        gone = sum(one != other for one, other in zip(said, shown, strict=False))
        assert gone >= before
        before = gone


def test_a_local_policy_answers_the_shortened_conversation_as_if_it_were_the_whole():
    model, tokenizer, context = sharp_llama(), tiny_tokenizer(), 1300
    policy = LocalPolicy(model, tokenizer, 8, context=context, overlong="drop")
    history = History(policy._tokens, context - 8)
    said = {str(i): run_of() for i in range(3)}
    for turn in range(6):
        for i, messages in enumerate(said.values()):
            messages += [agent("get"), user(f"Turn {turn}: " + "zebra quay 42. " * (1 + 14 * i))]
        replies = policy.replies(said)
        for key, messages in said.items():
            shown = history.shown(key, messages)
            assert policy._tokens(shown) + 8 <= context
            assert replies[key] == Alone(model, tokenizer, 8).reply(shown), (turn, key)
    left_out = [str(history.shown(key, m)).count(LEFT_OUT) for key, m in said.items()]
    assert left_out[0] == 0 < left_out[1] < left_out[2]


def test_a_local_policy_goes_on_from_its_cache_while_nothing_is_left_out():
    model, tokenizer = sharp_llama(), tiny_tokenizer()
    policy = LocalPolicy(model, tokenizer, 8, context=1500, overlong="drop")
    starts = []
    begin = policy._begun
    policy._begun = lambda texts: starts.append(len(numbers)) or begin(texts)
    plain = Alone(model, tokenizer, 8)
    messages, numbers = run_of(), []
    for turn in range(10):
        reply = policy.replies({"k": messages})["k"]
        shown = policy._history.shown("k", messages)
        assert reply == plain.reply(shown), turn
        numbers.append(contents(shown).count("["))
        messages = [*messages, agent(reply), user(f"{turn} " + "zebra quay 42. " * 24)]
    assert numbers[-1] > 0
    changes = [at for at in range(1, 10) if numbers[at] != numbers[at - 1]]
    assert set(changes) <= set(starts)
    # Not at every turn, which is what leaving out one observation at a time would cost.
    assert len(starts) < 6


def test_a_local_policy_refuses_what_no_leaving_out_makes_fit():
    model, tokenizer = sharp_llama(), tiny_tokenizer()
    policy = LocalPolicy(model, tokenizer, 8, context=200, overlong="drop")
    short, long = run_of(), run_of("zebra quay 42. " * 30)
    with pytest.raises(ConversationTooLong, match="exceeds the 200") as caught:
        policy.replies({"short": short, "long": long})
    assert caught.value.keys == ("long",)
    expected = Alone(model, tokenizer, 8).reply(short)
    assert policy.replies({"short": short}) == {"short": expected}
    with pytest.raises(UsageError, match="not 'cut'"):
        LocalPolicy(model, tokenizer, overlong="cut")


def spelling_llama(tokenizer):
    """A model that writes letter by letter what its tokenizer would write in fewer tokens."""
    model = sharp_llama()
    letters = tokenizer.convert_tokens_to_ids(list("redgoti"))
    others = [i for i in range(len(tokenizer)) if i not in letters]
    with torch.no_grad():
        model.lm_head.weight[others] = 0
    return model


def test_a_reply_of_more_tokens_than_its_text_is_read_again_from_the_text():
    tokenizer = tiny_tokenizer()
    model = spelling_llama(tokenizer)
    before = run_of()
    reply = Alone(model, tokenizer, 8).reply(before)
    assert len(tokenizer(reply)["input_ids"]) < 8
    longer = [*before, agent(reply), user("zebra")]
    context = LocalPolicy(model, tokenizer, 8)._tokens(longer) + 8
    # As the model wrote it, the conversation is longer than the context, and as text it is not.
    refusing = LocalPolicy(model, tokenizer, 8, context=context)
    assert refusing.replies({"k": before}) == {"k": reply}
    with pytest.raises(ConversationTooLong):
        refusing.replies({"k": longer})
    policy = LocalPolicy(model, tokenizer, 8, context=context, overlong="drop")
    assert policy.replies({"k": before}) == {"k": reply}
    assert policy.replies({"k": longer}) == {"k": Alone(model, tokenizer, 8).reply(longer)}
