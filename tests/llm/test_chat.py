import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from atlas_tune.errors import UsageError
from atlas_tune.llm import (
    AnswerLog,
    ChatClient,
    KeyRefused,
    QuotaSpent,
    RequestRefused,
    ServerBusy,
    ServerUnreachable,
    WrongServer,
)
from scripted_server import RESET, Reply, ScriptedServer, failure, good

HELLO = [{"role": "user", "content": "Hello?"}]
KEY = "sk-test-0123456789abcdef"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def client(server: ScriptedServer, **settings) -> ChatClient:
    return ChatClient(server.url, "m", **{"first_wait": 0.01, "retries": 3, **settings})


def test_an_answer_comes_with_what_the_server_reports():
    with ScriptedServer([good("Hi.", model="m-2026")]) as server, client(server) as chat:
        answer = chat.complete(HELLO, temperature=0)
    assert answer.text == "Hi."
    assert answer.finish_reason == "stop"
    assert answer.model == "m-2026"
    assert answer.usage == {"prompt_tokens": 7, "completion_tokens": 3}
    assert answer.latency_s > 0
    [asked] = server.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.body == {"model": "m", "messages": HELLO, "temperature": 0}


def test_null_content_is_an_empty_answer():
    with ScriptedServer([good(None)]) as server, client(server) as chat:
        assert chat.complete(HELLO).text == ""


def test_lone_surrogates_of_recordings_are_sent():
    message = {"role": "user", "content": "half a pair: \ud83d, and \u2028"}
    with ScriptedServer([good("Hi.")]) as server, client(server) as chat:
        chat.complete([message])
    assert server.asked[0].body["messages"] == [message]


def test_the_key_comes_from_the_environment_and_is_shown_nowhere(monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    refusal = failure(401, f"Incorrect API key provided: {KEY}.")
    with ScriptedServer([refusal]) as server, client(server, api_key_env="MY_KEY") as chat:
        with pytest.raises(KeyRefused, match="environment variable MY_KEY") as caught:
            chat.complete(HELLO)
        assert KEY not in repr(chat)
    assert KEY not in str(caught.value)
    assert server.asked[0].headers["Authorization"] == f"Bearer {KEY}"


def test_without_a_key_none_is_sent():
    with ScriptedServer([good("Hi.")]) as server, client(server) as chat:
        chat.complete(HELLO)
    assert "Authorization" not in server.asked[0].headers


def test_a_garbled_key_is_refused_without_being_printed(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test\nSecond: line")
    with (
        ScriptedServer([]) as server,
        client(server) as chat,
        pytest.raises(UsageError, match="OPENAI_API_KEY holds characters") as caught,
    ):
        chat.complete(HELLO)
    assert "sk-test" not in str(caught.value)
    assert not server.asked


def test_a_placeholder_key_garbles_no_answer(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    with ScriptedServer([good("six boxes")]) as server, client(server) as chat:
        assert chat.complete(HELLO).text == "six boxes"


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_passing_failures_are_tried_again(status):
    with ScriptedServer([failure(status, "later"), good("Hi.")]) as server, client(server) as chat:
        assert chat.complete(HELLO).text == "Hi."
    assert len(server.asked) == 2


def test_a_reset_connection_is_tried_again():
    with ScriptedServer([RESET, RESET, good("Hi.")]) as server, client(server) as chat:
        assert chat.complete(HELLO).text == "Hi."
    assert len(server.asked) == 3


def test_retry_after_in_seconds_is_obeyed():
    script = [failure(429, "slow down", {"Retry-After": "0.3"}), good("Hi.")]
    with ScriptedServer(script) as server, client(server) as chat:
        started = time.monotonic()
        chat.complete(HELLO)
    assert time.monotonic() - started >= 0.3


def test_retry_after_as_a_date_is_obeyed():
    # HTTP dates have whole seconds: two ahead is more than one from now.
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    script = [failure(503, "restarting", {"Retry-After": moment}), good("Hi.")]
    with ScriptedServer(script) as server, client(server) as chat:
        started = time.monotonic()
        chat.complete(HELLO)
    assert time.monotonic() - started >= 0.9


def test_a_server_that_wants_too_long_a_wait_ends_it():
    script = [failure(429, "come back tomorrow", {"Retry-After": "86400"})]
    with (
        ScriptedServer(script) as server,
        client(server) as chat,
        pytest.raises(ServerBusy, match=r"come back tomorrow.*asks to wait 86400 s"),
    ):
        chat.complete(HELLO)
    assert len(server.asked) == 1


def test_patience_ends_and_says_how_often_it_tried():
    script = [failure(500, "CUDA out of memory")] * 9
    with (
        ScriptedServer(script) as server,
        client(server, retries=2) as chat,
        pytest.raises(ServerBusy, match=r"500: CUDA out of memory. Given up after 3 attempts."),
    ):
        chat.complete(HELLO)
    assert len(server.asked) == 3


def test_nobody_there():
    with ScriptedServer([]) as server:
        url = server.url
    with (
        ChatClient(url, "m", retries=1, first_wait=0.01) as chat,
        pytest.raises(ServerUnreachable, match="Check that the server runs"),
    ):
        chat.complete(HELLO)


def test_no_answer_in_time():
    def slow(_):
        time.sleep(0.5)
        return good("late")

    with (
        ScriptedServer(slow) as server,
        client(server, timeout=0.1, retries=0) as chat,
        pytest.raises(ServerUnreachable, match="ReadTimeout"),
    ):
        chat.complete(HELLO)


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (failure(403, "country not supported"), KeyRefused, "country not supported"),
        (failure(429, "no money", code="insufficient_quota"), QuotaSpent, "Top up"),
        (failure(429, "no money", type="insufficient_quota"), QuotaSpent, "no money"),
        (failure(402, "pay"), QuotaSpent, "402: pay"),
        (failure(400, "context is 8192 tokens"), RequestRefused, "context is 8192 tokens"),
        (failure(404, "no model m"), WrongServer, "no model m. Check that base_url"),
        (Reply(b'{"detail": "Not Found"}', 404), WrongServer, "Not Found"),
        (failure(200, "upstream has no credit", code=402), QuotaSpent, "no credit"),
        (Reply(b'{"error": "model not loaded"}'), RequestRefused, "200: model not loaded"),
        (Reply(b"<!DOCTYPE html><title>Sign in</title>"), WrongServer, "titled 'Sign in'"),
        (Reply(b""), WrongServer, "200: nothing"),
        (Reply(b"[1, 2]"), WrongServer, "no JSON object"),
        (Reply(b'{"choices": []}'), WrongServer, "without choices"),
        (Reply(b"", 302, {"Location": "/login"}), WrongServer, "redirects elsewhere"),
    ],
)
def test_final_failures_are_asked_once_and_say_why(reply, error, words):
    with (
        ScriptedServer([reply]) as server,
        client(server) as chat,
        pytest.raises(error, match=words) as caught,
    ):
        chat.complete(HELLO)
    assert len(server.asked) == 1
    assert server.url in str(caught.value)


def test_a_gateways_hidden_overload_is_tried_again():
    script = [failure(200, "upstream is overloaded", code=503), good("Hi.")]
    with ScriptedServer(script) as server, client(server) as chat:
        assert chat.complete(HELLO).text == "Hi."


def test_an_html_error_page_is_told_by_its_title():
    page = Reply(b"<html><head><title>502 Bad Gateway</title></head></html>", 502)
    with (
        ScriptedServer([page] * 2) as server,
        client(server, retries=1) as chat,
        pytest.raises(ServerBusy, match="an HTML page titled '502 Bad Gateway'"),
    ):
        chat.complete(HELLO)


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_a_cut_answer_is_asked_for_once_more_with_twice_the_limit(limit):
    script = [good("half", "length"), good("half of a wh", "length"), good("never")]
    with ScriptedServer(script) as server, client(server) as chat:
        answer = chat.complete(HELLO, **{limit: 100})
    assert (answer.text, answer.finish_reason) == ("half of a wh", "length")
    assert [asked.body[limit] for asked in server.asked] == [100, 200]


def test_a_cut_answer_is_enough_where_nothing_can_or_should_be_enlarged():
    script = [good("half", "length"), good("half", "length")]
    with ScriptedServer(script) as server, client(server) as chat:
        assert chat.complete(HELLO).text == "half"
        assert chat.complete(HELLO, enlarge=False, max_tokens=9).text == "half"
    assert len(server.asked) == 2


def test_every_answer_is_kept_before_it_is_read(tmp_path: Path):
    log = AnswerLog(tmp_path / "answers.jsonl")
    script = [good("half", "length"), good("whole"), Reply(b'{"choices": [], "usage": {}}')]
    with ScriptedServer(script) as server, client(server, answers=log) as chat:
        chat.complete(HELLO, key="first", max_tokens=5)
        with pytest.raises(WrongServer):
            chat.complete(HELLO, key="second")
    kept = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert [record["request"] for record in kept] == ["first", "first", "second"]
    assert kept[1]["response"] == json.loads(good("whole").body)
    assert kept[2]["response"] == {"choices": [], "usage": {}}


def test_base_url_must_be_an_address():
    with pytest.raises(UsageError, match="must begin with http"):
        ChatClient("localhost:8000", "m")


def test_base_url_may_name_the_whole_path():
    url = "http://localhost:8000/v1/chat/completions"
    assert ChatClient(url, "m").url == ChatClient("http://localhost:8000/v1/", "m").url == url
