import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from atlas_tune.llm import AnswerLog, request_key


def test_many_threads_write_whole_lines(tmp_path: Path):
    log = AnswerLog(tmp_path / "deep" / "answers.jsonl")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: log.append(str(n), {"text": "x" * 5000}, 0.1), range(40)))
    records = [json.loads(line) for line in log.path.read_bytes().splitlines()]
    assert sorted(int(record["request"]) for record in records) == list(range(40))


def test_a_line_cut_by_a_kill_swallows_no_answer(tmp_path: Path):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b'{"request": "kil')
    AnswerLog(path).append("next", {"text": "one\u2028line \ud83d"}, 0.1)
    torn, whole = path.read_bytes().split(b"\n")[:2]
    assert torn == b'{"request": "kil'
    assert json.loads(whole)["response"] == {"text": "one\u2028line \ud83d"}


@given(st.text(), st.text())
def test_equal_requests_share_a_key_and_others_do_not(one, other):
    def key(text):
        return request_key("m", [{"role": "user", "content": text}], {"temperature": 0})

    assert (key(one) == key(other)) == (one == other)
