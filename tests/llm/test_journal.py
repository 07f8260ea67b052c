import json
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atlas_tune.llm import Journal, JournalError, request_key

BODY = {"model": "m", "messages": [{"role": "user", "content": "half a pair \ud83d"}]}


def answer(text="Hi.", finish="stop", **usage) -> str:
    choice = {"message": {"content": text}, "finish_reason": finish}
    return json.dumps({"model": "m-1", "choices": [choice], "usage": usage})


@pytest.fixture
def journal(tmp_path):
    book = Journal(tmp_path / "deep" / "j.sqlite")
    yield book
    book.close()


def test_the_states_of_a_request(journal):
    journal.plan("k", BODY)
    journal.plan("k", BODY)
    assert journal.states() == {"k": "planned"}
    assert journal.claim("k", BODY) is None
    assert journal.states() == {"k": "sent"}
    journal.answered("k", answer(prompt_tokens=7, completion_tokens=3), latency_s=0.5)
    assert journal.states() == {"k": "answered"}
    stored = journal.claim("k", BODY)
    assert stored.raw == answer(prompt_tokens=7, completion_tokens=3)
    assert (stored.model, stored.finish_reason, stored.latency_s) == ("m-1", "stop", 0.5)
    for judge in ("parsed", "accepted"):
        getattr(journal, judge)("k")
        assert journal.states() == {"k": judge}
    journal.rejected("k", "no such step")
    assert journal.claim("k", BODY).state == "rejected"
    assert journal.stored("other") is None


def test_what_was_never_answered_cannot_be_accepted(journal):
    journal.plan("k", BODY)
    with pytest.raises(JournalError, match="holds no answer to k"):
        journal.accepted("k")


def test_nothing_is_made_by_looking(tmp_path):
    book = Journal(tmp_path / "j.sqlite")
    assert book.unknown() == book.batches() == []
    assert book.stored("k") is None
    assert book.summary().calls == 0
    assert list(tmp_path.iterdir()) == []


def test_a_failed_request_is_asked_again_and_all_its_tokens_count(journal):
    journal.claim("k", BODY)
    journal.failed("k", "cut off", answer(prompt_tokens=7, completion_tokens=1))
    assert journal.claim("k", BODY) is None
    journal.answered("k", answer(prompt_tokens=7, completion_tokens=30), latency_s=2.0)
    journal.claim("k", BODY)
    found = journal.summary()
    assert (found.calls, found.retried, found.answered, found.failed, found.cached) == (
        (2, 1, 1, 1, 1)
    )
    assert (found.prompt_tokens, found.completion_tokens) == (14, 31)
    assert (found.failed_prompt_tokens, found.failed_completion_tokens) == (7, 1)
    assert found.by_state == {"answered": 1}
    assert found.call_s == 2.0
    assert found.unmeasured == 0
    assert Journal(journal.path).summary(own=True).calls == 0


def test_an_answer_that_was_none_is_struck_out(journal):
    journal.claim("k", BODY)
    journal.answered("k", '{"error": "overloaded"}')
    journal.failed("k", "an error page")
    assert journal.stored("k") is None
    assert journal.claim("k", BODY) is None


def test_a_second_answer_under_one_key(journal):
    journal.claim("k", BODY)
    journal.answered("k", answer("half", "length"))
    assert journal.claim("k", BODY).answers == 1
    assert journal.claim("k", BODY, answers=1) is None
    journal.answered("k", answer("whole"))
    assert journal.claim("k", BODY, answers=1).raw == answer("whole")
    assert journal.stored("k").answers == 2


def test_reading_results_twice_is_one_answer(journal):
    for _ in range(2):
        journal.answered("k", answer())
    assert journal.summary().calls == 1


def test_one_thread_asks_and_the_others_get_its_answer(journal):
    asked = []
    together = threading.Barrier(8, timeout=10)

    def ask(_):
        together.wait()
        stored = journal.claim("k", BODY)
        if stored is None:
            asked.append(1)
            journal.answered("k", answer())
            return answer()
        return stored.raw

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [answer()] * 8
    assert asked == [1]


def test_what_somebody_alive_is_at_is_not_unknown_and_what_he_left_is(journal):
    other = Journal(journal.path)
    other.claim("k", BODY)
    other.claim("waiting", BODY, send=False)
    assert journal.unknown() == []
    other.close()
    [lost] = journal.unknown()
    assert (lost.key, lost.is_asked_again) == ("k", False)
    assert journal.claim("k", BODY) is None
    assert journal.claim("waiting", BODY) is None
    [lost] = journal.unknown()
    assert lost.is_asked_again
    assert journal.summary().unknown == 1


def test_a_claim_that_came_to_nothing_is_free_again(journal):
    journal.claim("sent", BODY)
    journal.claim("not sent", BODY, send=False)
    journal.release("sent")
    journal.release("not sent")
    assert [lost.key for lost in journal.unknown()] == ["sent"]
    assert journal.claim("sent", BODY) is None
    assert journal.claim("not sent", BODY) is None


def test_a_batch_is_read_back_in_any_order_and_its_rest_may_be_asked_again(journal):
    journal.open_batch("b1", ["a", "b", "c"], "https://api.example/v1")
    assert journal.unknown() == []
    with pytest.raises(JournalError, match="is in the batch b1"):
        journal.claim("b", BODY)
    with journal.together():
        journal.answered("c", answer("c"))
        journal.answered("a", answer("a"))
    journal.close_batch("b1", "expired")
    [batch] = journal.batches()
    assert (batch.id, batch.state, batch.keys) == ("b1", "expired", ("a", "b", "c"))
    assert journal.states() == {"a": "answered", "b": "failed", "c": "answered"}
    assert journal.claim("a", BODY).raw == answer("a")
    assert journal.claim("b", BODY) is None


odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
ODD_ANSWERS = st.text(st.characters(codec=None)) | st.fixed_dictionaries(
    {"model": odd, "usage": odd | st.fixed_dictionaries({"prompt_tokens": odd})},
    optional={"choices": odd | st.lists(st.fixed_dictionaries({"finish_reason": odd}))},
).map(json.dumps)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ODD_ANSWERS)
def test_whatever_a_server_sends_is_stored_as_it_came(journal, raw):
    key = request_key("m", [], raw)
    journal.claim(key, BODY)
    journal.answered(key, raw)
    assert journal.stored(key).raw == raw
    journal.failed(key, raw, raw)


@pytest.mark.parametrize("raw", ["[" * 100_000, '{"usage": {"prompt_tokens": 1' + "0" * 30 + "}}"])
def test_deep_nesting_and_huge_counts_are_stored_too(journal, raw):
    journal.answered("k", raw)
    assert journal.stored("k").raw == raw
    assert journal.summary().unmeasured == 1


def test_a_write_beyond_the_largest_size_is_an_error_and_the_rest_stays(journal):
    journal.answered("k", answer())
    # SQLite's own limit on its file, in place of the disk's.
    with journal._file.reading() as database:
        database.execute("PRAGMA max_page_count = 1")
    with pytest.raises(JournalError, match=r"cannot be written .*full.* every answer .* is kept"):
        journal.answered("big", "x" * 100_000)
    assert journal.stored("k").raw == answer()
    assert journal.stored("big") is None
    with journal._file.reading() as database:
        database.execute("PRAGMA max_page_count = 100000")
    journal.answered("big", "x" * 100_000)
    assert len(journal.stored("big").raw) == 100_000


def test_a_claim_that_could_not_be_written_is_nobodys(journal):
    journal.answered("k", answer())
    with journal._file.reading() as database:
        database.execute("PRAGMA max_page_count = 1")
    with pytest.raises(JournalError):
        journal.claim("big", {"text": "x" * 100_000})
    with journal._file.reading() as database:
        database.execute("PRAGMA max_page_count = 100000")
    assert journal.claim("big", BODY) is None


def test_a_file_that_is_no_journal_is_refused(tmp_path):
    page = tmp_path / "page.sqlite"
    page.write_bytes(b"<html>" * 1000)
    with pytest.raises(JournalError, match="damaged or no journal"):
        Journal(page).plan("k", BODY)
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as database:
        database.execute("CREATE TABLE theirs (x)")
    with pytest.raises(JournalError, match="not a journal of ours"):
        Journal(foreign).plan("k", BODY)
    newer = tmp_path / "newer.sqlite"
    with sqlite3.connect(newer) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(JournalError, match="of version 99"):
        Journal(newer).plan("k", BODY)


def test_every_write_is_flushed(journal):
    journal.plan("k", BODY)
    with journal._file.reading() as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("PRAGMA synchronous").fetchone() == (2,)


@given(st.text(), st.text())
def test_equal_requests_share_a_key_and_others_do_not(one, other):
    def key(text):
        return request_key("m", [{"role": "user", "content": text}], {"temperature": 0})

    assert (key(one) == key(other)) == (one == other)
