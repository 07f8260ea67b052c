import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace

import pytest

from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.select import make_selector
from atlas_tune.select.selecting import choose_all
from atlas_tune.sole_writer import sole_writer
from atlas_tune.trajectory import Kind, LabelSource
from atlas_tune.trajectory.store import append_labels, read_labels
from atlas_tune.view import label_file
from atlas_tune.view.label_file import Judgement, LabelFile, Outdated
from view.labelled import JUDGE, JUDGED, OTHER, OWN, RUN, SCORED, SCORER, said, write_sidecar


@pytest.fixture
def sidecar(tmp_path):
    return write_sidecar(tmp_path / "labels.jsonl")


@pytest.fixture
def labels(sidecar):
    return LabelFile(sidecar, "ada")


def judge(labels, step_id, kind=Kind.NONE, source=OWN, run=RUN, **more):
    """A judgement by somebody who has seen what stands now."""
    now = [one for one in labels.said(run.trajectory_id, source) if one.step_id == step_id]
    seen = more.pop("seen", now[0].label_id if now else None)
    labels.judge(Judgement(run, step_id, source, seen, kind, **more))


def kinds(labels, source=OWN, run=RUN):
    return {one.step_id: one.kind for one in labels.said(run.trajectory_id, source)}


def chosen(labels, source):
    selector = SimpleNamespace(name="x", version="1", source=source, share=None)
    [selection] = choose_all([RUN], read_labels(labels.path), selector, 0.5)
    return selection.step_ids


def test_a_correction_supersedes_and_rewrites_nothing(labels):
    before = labels.path.read_bytes()
    judge(labels, 4, Kind.NONE, JUDGED)
    assert labels.path.read_bytes().startswith(before)
    *_, last = read_labels(labels.path)
    assert last.source == LabelSource("ada")
    assert last.supersedes == next(read_labels(labels.path)).label_id
    assert kinds(labels, JUDGED)[4] is Kind.NONE
    assert chosen(labels, JUDGE) == (6,)
    # It is no label of her own, and no other source hears of it.
    assert (kinds(labels), labels.sources) == ({}, {JUDGED: 4, SCORED: 4})
    assert chosen(labels, SCORER) == (6, 7)


@pytest.mark.parametrize(("source", "of"), [(JUDGE, JUDGED), (SCORER, SCORED)])
def test_what_a_person_calls_critical_is_taken_before_all_else(labels, source, of):
    judge(labels, 5, Kind.SELF_CORRECTION, of)
    assert 5 in chosen(labels, source)
    assert len(chosen(labels, source)) == 2
    scored = {one.step_id: one.score for one in labels.said(RUN.trajectory_id, of)}
    # Another word for the same step moves it no further.
    judge(labels, 5, Kind.CRITICAL_ACTION, of)
    again = {one.step_id: one.score for one in labels.said(RUN.trajectory_id, of)}
    assert scored[5] == again[5]


def test_her_own_labels_supersede_nobody_and_the_last_one_stands(labels):
    judge(labels, 4, Kind.CRITICAL_OBSERVATION)
    judge(labels, 4, Kind.SELF_CORRECTION, reason="it turns back")
    assert kinds(labels) == {4: Kind.SELF_CORRECTION}
    assert kinds(labels, JUDGED)[4] is Kind.PLAN_CREATION
    assert all(one.supersedes is None for one in read_labels(labels.path))
    assert labels.sources[OWN] == 2


def test_the_same_judgement_again_writes_nothing(labels):
    judge(labels, 4, Kind.SELF_CORRECTION)
    written = labels.path.read_bytes()
    judge(labels, 4, Kind.SELF_CORRECTION)
    judge(labels, 4, Kind.PLAN_CREATION, JUDGED, reason=None)
    # The oracle had said so without a score; the person's word goes first.
    assert labels.path.read_bytes().startswith(written)
    written = labels.path.read_bytes()
    judge(labels, 4, Kind.PLAN_CREATION, JUDGED)
    assert labels.path.read_bytes() == written


def test_an_earlier_label_stands_again(labels):
    first = labels.said(RUN.trajectory_id, SCORED)[0]
    judge(labels, 4, Kind.CRITICAL_ACTION, SCORED)
    judge(labels, 4, Kind.NONE, SCORED)
    judge(labels, 4, source=SCORED, restored=first.label_id)
    again = next(one for one in labels.said(RUN.trajectory_id, SCORED) if one.step_id == 4)
    assert (again.kind, again.score) == (None, first.score)
    assert chosen(labels, SCORER) == (6, 7)
    with pytest.raises(UsageError, match="has no label nonsense"):
        judge(labels, 4, source=SCORED, restored="nonsense")


def test_who_has_not_seen_what_stands_changes_nothing(labels, sidecar):
    bob = LabelFile(sidecar, "bob")
    seen = bob.said(RUN.trajectory_id, JUDGED)[0].label_id
    judge(labels, 4, Kind.NONE, JUDGED)
    before = sidecar.read_bytes()
    with pytest.raises(Outdated, match="Step 4 was labelled by somebody else meanwhile"):
        judge(bob, 4, Kind.CRITICAL_ACTION, JUDGED, seen=seen)
    assert sidecar.read_bytes() == before
    judge(bob, 4, Kind.CRITICAL_ACTION, JUDGED)
    labels.refresh()
    assert kinds(labels, JUDGED)[4] is Kind.CRITICAL_ACTION


def test_what_another_process_appends_is_read_when_its_line_is_whole(labels, sidecar):
    line = sidecar.read_bytes().splitlines(keepends=True)[0]
    more = line.replace(b'"step_id":4', b'"step_id":7').replace(b"oracle", b"second")
    with sidecar.open("ab") as stream:
        stream.write(more[:30])
    labels.refresh()
    assert "second@2,m" not in labels.sources
    with sidecar.open("ab") as stream:
        stream.write(more[30:])
    labels.refresh()
    assert labels.sources["second@2,m"] == 1
    sidecar.write_bytes(line)
    labels.refresh()
    assert labels.sources == {JUDGED: 1}


def test_nothing_is_written_while_another_process_writes(labels, sidecar, monkeypatch):
    monkeypatch.setattr(label_file, "PATIENCE_SECONDS", 0)
    before = sidecar.read_bytes()
    with sole_writer(sidecar), pytest.raises(AtlasError, match="Another process is writing"):
        judge(labels, 4, Kind.NONE)
    assert sidecar.read_bytes() == before


def test_what_is_written_in_a_moment_is_waited_for(labels, sidecar):
    with ExitStack() as held:
        held.enter_context(sole_writer(sidecar))
        threading.Timer(0.2, held.pop_all().close).start()
        judge(labels, 4, Kind.SELF_CORRECTION)
    assert kinds(labels) == {4: Kind.SELF_CORRECTION}


def test_people_who_judge_at_once_lose_nothing(labels, sidecar):
    people = [LabelFile(sidecar, name) for name in ("bob", "carol", "dan")]
    with ThreadPoolExecutor(len(people)) as pool:
        list(pool.map(lambda one: one.finish(OTHER), people))
    labels.refresh()
    assert {name: labels.sources[f"{name}@1"] for name in ("bob", "carol", "dan")} == {
        "bob": 10,
        "carol": 10,
        "dan": 10,
    }


def test_a_bad_line_that_comes_later_is_told_each_time_and_read_once_mended(labels, sidecar):
    whole = sidecar.read_bytes()
    sidecar.write_bytes(whole + whole.splitlines(keepends=True)[0] + b"{}\n")
    for _ in range(2):
        with pytest.raises(AtlasError, match="line 10"):
            labels.refresh()
    sidecar.write_bytes(whole + whole.splitlines(keepends=True)[0] + b"\n")
    labels.refresh()
    assert labels.sources == {JUDGED: 5, SCORED: 4}


def test_the_rest_of_a_run_is_called_uncritical_once(labels):
    judge(labels, 5, Kind.CRITICAL_ACTION)
    assert labels.finish(RUN) == 3
    assert labels.finish(RUN) == 0
    assert kinds(labels) == {4: Kind.NONE, 5: Kind.CRITICAL_ACTION, 6: Kind.NONE, 7: Kind.NONE}


def test_labels_of_a_person_can_be_trained_on(labels):
    judge(labels, 5, Kind.CRITICAL_ACTION, run=OTHER)
    labels.finish(OTHER)
    judge(labels, 4, Kind.NONE, JUDGED)
    selector = make_selector("labels", {"file": f"{labels.path}#ada"})
    [selection] = choose_all([OTHER], selector.label(OTHER), selector)
    assert selection.step_ids == (5,)
    assert selection.rule.startswith("labels ada 1 on file")
    corrected = make_selector("labels", {"file": f"{labels.path}#oracle"})
    [selection] = choose_all([RUN], corrected.label(RUN), corrected)
    assert selection.step_ids == (6,)


def test_blind_hides_what_others_say(sidecar):
    append_labels(sidecar, [said(RUN, 7, Kind.CRITICAL_ACTION, LabelSource("ada"))])
    labels = LabelFile(sidecar, "ada", is_blind=True)
    assert labels.sources == {OWN: 1}
    assert [one.step_id for one in labels.of_run(RUN.trajectory_id)] == [7]
    with pytest.raises(UsageError, match="nothing to correct"):
        judge(labels, 4, Kind.NONE, JUDGED, seen=None)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("replay", "'replay' is a selector"),
        ("oracle", "'oracle' is a selector"),
        ("", "is no name for labels"),
        ("a#b", "is no name for labels"),
        (" ada", "is no name for labels"),
    ],
)
def test_a_name_that_would_be_taken_for_another_is_refused(sidecar, name, words):
    with pytest.raises(UsageError, match=words):
        LabelFile(sidecar, name)


def test_a_persons_name_is_not_that_of_a_custom_selector(sidecar):
    append_labels(sidecar, [said(RUN, 4, Kind.NONE, LabelSource("mine", "3"))])
    with pytest.raises(UsageError, match="labels of a selector 'mine'"):
        LabelFile(sidecar, "mine")


def test_steps_that_are_not_the_agents_own_are_not_labelled(labels):
    before = labels.path.read_bytes()
    for step_id in (2, 3, 99):
        with pytest.raises(UsageError, match="not one of the agent's own"):
            judge(labels, step_id)
    assert labels.path.read_bytes() == before


def test_a_line_that_is_no_label_is_told_with_its_place(sidecar):
    with sidecar.open("a") as stream:
        stream.write('{"kind": "great"}\n')
    with pytest.raises(AtlasError, match=r"labels.jsonl, line 9: label has"):
        LabelFile(sidecar, "ada")


def test_a_file_that_is_not_there_yet_is_made(tmp_path):
    labels = LabelFile(tmp_path / "new" / "labels.jsonl", "ada")
    assert labels.sources == {}
    judge(labels, 4, Kind.PLAN_CREATION)
    [written] = read_labels(labels.path)
    assert replace(written, created_at="then") == said(
        RUN, 4, Kind.PLAN_CREATION, LabelSource("ada")
    )
