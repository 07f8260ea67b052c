import gzip
import json
import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_tune.errors import AtlasError
from atlas_tune.trajectory import Kind, LabelSource, StepLabel, dump_trajectory, standing
from atlas_tune.trajectory.labels import dump_label, parse_label
from atlas_tune.trajectory.store import (
    BadRecord,
    append_jsonl,
    append_labels,
    read_labels,
    read_lines,
    read_trajectories,
    write_trajectories,
)
from trajectory.runs import craft_run


def test_a_store_gives_back_what_was_written(tmp_path):
    runs = [craft_run(steps=n) for n in (1, 3, 5)]
    assert write_trajectories(tmp_path / "runs.jsonl", runs) == 3
    assert list(read_trajectories(tmp_path / "runs.jsonl")) == runs


@pytest.mark.parametrize(("suffix", "opener"), [(".gz", gzip.open), (".xz", lzma.open)])
def test_compressed_stores_are_read(tmp_path, suffix, opener):
    path = tmp_path / f"runs.jsonl{suffix}"
    with opener(path, "wt") as stream:
        stream.write(json.dumps(dump_trajectory(craft_run())) + "\n")
    assert list(read_trajectories(path)) == [craft_run()]


def test_bad_lines_go_to_the_quarantine_with_their_place_and_the_rest_is_read(tmp_path):
    good = json.dumps(dump_trajectory(craft_run())).encode()
    lines = [
        b"\xef\xbb\xbf" + good,
        b"",
        b"{broken",
        b'{"a": NaN}',
        good + b"\r",
        b"[1]",
        good[:50],
    ]
    path = tmp_path / "runs.jsonl"
    path.write_bytes(b"\n".join(lines))
    rejected = []
    assert list(read_trajectories(path, rejected.append)) == [craft_run()] * 2
    assert [bad.line for bad in rejected] == [3, 4, 6, 7]
    for bad in rejected:
        assert path.read_bytes()[bad.byte_offset :].startswith(lines[bad.line - 1])
    assert "NaN is not a JSON value" in rejected[1].reason
    assert "ends in the middle" in rejected[3].reason


def test_without_a_quarantine_a_bad_line_is_an_error(tmp_path):
    (tmp_path / "runs.jsonl").write_text("{}\n")
    with pytest.raises(BadRecord, match=r"runs.jsonl, line 1: trajectory has no 'steps'"):
        list(read_trajectories(tmp_path / "runs.jsonl"))


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(AtlasError, match="There is no file"):
        list(read_trajectories(tmp_path / "none.jsonl"))


def test_line_separators_inside_strings_do_not_split_a_record(tmp_path):
    values = [{"text": "a\u2028b"}, {"text": "a\u2029b"}, {"text": "a\x85b\x0cc"}]
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b"\n".join(json.dumps(v, ensure_ascii=False).encode() for v in values))
    assert [line.value for line in read_lines(path, pytest.fail)] == values


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers()), max_size=4), st.binary())
def test_half_a_line_left_by_a_kill_is_cut_off(tmp_path_factory, records, torn):
    path = tmp_path_factory.mktemp("torn") / "log.jsonl"
    append_jsonl(path, records)
    with path.open("ab") as stream:
        stream.write(torn.replace(b"\n", b""))
    append_jsonl(path, [{"last": 1}])
    assert [line.value for line in read_lines(path, pytest.fail)] == [*records, {"last": 1}]


def label(step_id, kind=Kind.CRITICAL_ACTION, source="replay", **fields):
    return StepLabel("t", step_id, kind, LabelSource(source), **fields)


def test_labels_survive_their_file(tmp_path):
    labels = [label(1, score=0.5, reason="why"), label(2, Kind.NONE), label(3, None, quote="…")]
    append_labels(tmp_path / "labels.jsonl", labels[:1])
    append_labels(tmp_path / "labels.jsonl", labels[1:])
    assert list(read_labels(tmp_path / "labels.jsonl")) == labels
    assert [parse_label(dump_label(one)) for one in labels] == labels


def test_a_superseded_label_no_longer_stands():
    first, other = label(1), label(2)
    correction = label(1, Kind.NONE, source="ada", supersedes=first.label_id)
    assert standing([first, other, correction]) == {"t": [other, correction]}


def test_of_one_source_the_last_label_stands():
    assert standing([label(1, score=1.0), label(1, score=2.0)])["t"][0].score == 2.0
