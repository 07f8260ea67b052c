import json

import pytest
from starlette.testclient import TestClient

from atlas_tune.sole_writer import sole_writer
from atlas_tune.trajectory import Observation, Selection, Step, ToolCall, Trajectory
from atlas_tune.view import label_file
from atlas_tune.view.app import make_view_app
from atlas_tune.view.documents import SELECTION, Runs
from atlas_tune.view.label_file import LabelFile
from view.labelled import JUDGED, OTHER, OWN, RUN, SCORED, write_sidecar

HERE = "http://127.0.0.1:8350"
STRANGE = Trajectory.create(
    (
        Step(1, "user", "<script>alert(1)</script>\x1b[31m"),
        Step(
            2,
            "agent",
            "half a pair: \ud800",
            reasoning_content="I think",
            tool_calls=(ToolCall("c", "run", {"cmd": "ls </script>"}),),
            observation=Observation.of("a\u202eb"),
        ),
    )
)


@pytest.fixture
def runs(tmp_path):
    labels = LabelFile(write_sidecar(tmp_path / "labels.jsonl"), "ada")
    selections = {RUN.trajectory_id: Selection(RUN.trajectory_id, (6,), "by hand")}
    return Runs([RUN, OTHER, STRANGE], labels, selections, 0.5)


@pytest.fixture
def page(runs):
    return TestClient(make_view_app(runs), base_url=HERE)


def run_of(page, run=RUN):
    return page.get("/api/run", params={"run": run.trajectory_id}).json()


def label(page, step, kind, source=OWN, run=RUN, **more):
    seen = run_of(page, run)["said"].get(source, {}).get(str(step))
    fields = {"run": run.trajectory_id, "step": step, "kind": kind, "source": source, "seen": seen}
    return page.post("/api/label", json={**fields, **more})


def test_the_page_loads_its_own_files_and_nothing_else(page):
    html = page.get("/")
    assert html.headers["content-type"].startswith("text/html")
    policy = html.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy
    assert "http" not in policy and "unsafe" not in policy
    for name in ("page.js", "page.css"):
        assert f'"{name}"' in html.text
        assert page.get(f"/{name}").status_code == 200
    for header, value in (("cache-control", "no-store"), ("x-content-type-options", "nosniff")):
        assert page.get("/api/about").headers[header] == value
    assert page.get("/page.html").status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:9000"}, 200),
        ({"host": "[::1]:8350"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": "[nonsense"}, 403),
        ({"origin": HERE}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate"}, 403),
    ],
)
def test_only_our_own_page_on_this_machine_is_answered(page, headers, status):
    assert page.get("/api/runs", headers=headers).status_code == status


def test_a_link_from_elsewhere_opens_the_page_alone(page):
    followed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert page.get("/", headers=followed).status_code == 200
    assert page.get("/", headers={**followed, "sec-fetch-mode": "no-cors"}).status_code == 403


def test_a_form_of_another_page_changes_nothing(page, runs):
    before = runs.labels.path.read_bytes()
    body = json.dumps({"run": RUN.trajectory_id, "step": 4, "kind": "none", "source": OWN})
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        sent = page.post("/api/label", content=body, headers={"content-type": kind})
        assert sent.status_code == 403
    assert page.get("/api/label", params=json.loads(body)).status_code == 405
    assert runs.labels.path.read_bytes() == before


def test_the_list_counts_what_each_source_marks(page):
    first, second, third = page.get("/api/runs").json()
    # The scorer scores all four; a budget of half takes two of them.
    assert first["counts"] == {JUDGED: [4, 2], SCORED: [4, 2], SELECTION: [4, 1]}
    assert (second["counts"], third["counts"]) == ({}, {})
    assert (first["task"], first["steps"], first["success"]) == ("one", 4, True)


def test_a_run_comes_with_its_labels_and_what_they_select(page):
    run = run_of(page)
    assert [step["id"] for step in run["steps"] if step["own"]] == [4, 5, 6, 7]
    assert run["chosen"] == {JUDGED: [4, 6], SCORED: [6, 7], SELECTION: [6]}
    assert run["budget"] == 2
    stands = run["labels"][run["said"][JUDGED]["4"]]
    assert (stands["kind"], stands["by"], stands["reason"]) == ("plan_creation", "oracle", "so")


def test_labels_are_kept_and_shown_at_once(page, runs):
    answered = label(page, 5, "self_correction", reason="it turns back")
    assert answered.status_code == 200
    run = answered.json()
    assert run["labels"][run["said"][OWN]["5"]]["reason"] == "it turns back"
    assert run["chosen"][OWN] == [5]
    assert page.get("/api/about").json()["sources"][OWN] == 1
    rest = page.post("/api/finish", json={"run": RUN.trajectory_id}).json()
    assert set(rest["said"][OWN]) == {"4", "5", "6", "7"}
    assert LabelFile(runs.labels.path, "bob").sources[OWN] == 4


def test_a_correction_changes_what_its_source_selects(page):
    assert label(page, 6, "none", JUDGED).json()["chosen"][JUDGED] == [4]
    run = label(page, 5, "critical_action", SCORED).json()
    assert run["chosen"][SCORED] == [5, 7]


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"seen": "what I saw"}, 409, "labelled by somebody else meanwhile"),
        ({"step": 99}, 400, "not one of the agent's own"),
        ({"step": "5"}, 400, "'step' is the number of a step"),
        ({"step": True}, 400, "'step' is the number of a step"),
        ({"kind": "great"}, 400, "'kind' is one of plan_creation"),
        ({"kind": ["none"]}, 400, "'kind' is one of"),
        ({"run": "nowhere"}, 400, "no trajectory nowhere"),
        ({"run": 3}, 400, "'run' is missing, or is no text"),
        ({"source": SELECTION}, 400, "nothing to correct"),
        ({"restored": "nonsense"}, 400, "has no label nonsense"),
        ({"reason": "x" * 70_000}, 400, "larger than"),
    ],
)
def test_what_cannot_be_said_is_told_and_changes_nothing(page, runs, fields, status, words):
    before = runs.labels.path.read_bytes()
    sent = {"run": RUN.trajectory_id, "step": 5, "kind": "none", "source": OWN, **fields}
    answer = page.post("/api/label", json=sent)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True)
    assert runs.labels.path.read_bytes() == before


@pytest.mark.parametrize("body", [b"{", b"[]", b"[" * 50_000])
def test_what_is_no_json_object_is_told(page, body):
    sent = page.post("/api/label", content=body, headers={"content-type": "application/json"})
    assert (sent.status_code, "JSON" in sent.json()["error"]) == (400, True)


def test_a_file_that_another_process_writes_is_told(page, runs, monkeypatch):
    monkeypatch.setattr(label_file, "PATIENCE_SECONDS", 0)
    with sole_writer(runs.labels.path):
        answer = label(page, 5, "none")
    assert (answer.status_code, "Another process" in answer.json()["error"]) == (400, True)


def test_signs_that_act_or_hide_are_shown(page):
    run = run_of(page, STRANGE)
    first, second = run["steps"]
    assert first["message"] == "<script>alert(1)</script>␛[31m"
    assert second["message"] == "half a pair: ⟨U+D800⟩"
    assert second["results"] == ["a⟨U+202E⟩b"]
    assert second["calls"] == [{"name": "run", "arguments": '{"cmd": "ls </script>"}'}]
    assert second["reasoning"] == "I think"
    raw = page.get("/api/raw", params={"run": STRANGE.trajectory_id}).json()
    assert raw["trajectory_id"] == STRANGE.trajectory_id


def test_agreement_is_counted_and_differences_are_listed(page):
    for step, kind in ((4, "none"), (5, "none"), (6, "critical_action"), (7, "none")):
        label(page, step, kind)
    found = page.get("/api/agreement", params={"one": JUDGED, "other": OWN}).json()
    assert (found["steps"], found["observed"]["value"]) == (4, 0.75)
    # p_o = 3/4; the oracle marks 2 of 4 and she 1: p_e = 1/2 · 1/4 + 1/2 · 3/4 = 1/2.
    assert found["kappa"]["value"] == pytest.approx(0.5)
    assert found["differ"] == [
        {"run": RUN.trajectory_id, "step": 4, "said": ["plan_creation", "none"]}
    ]
    # A scorer is held against others by what the budget takes: 6 and 7.
    found = page.get("/api/agreement", params={"one": SCORED, "other": OWN}).json()
    assert [one["step"] for one in found["differ"]] == [7]
    for other, words in ((OWN, "agrees with itself"), ("nobody", "no labels of 'nobody'")):
        answer = page.get("/api/agreement", params={"one": OWN, "other": other})
        assert (answer.status_code, words in answer.json()["error"]) == (400, True)


def test_blind_tells_nothing_of_others(tmp_path):
    labels = LabelFile(write_sidecar(tmp_path / "labels.jsonl"), "ada", is_blind=True)
    selections = {RUN.trajectory_id: Selection(RUN.trajectory_id, (6,), "by hand")}
    page = TestClient(make_view_app(Runs([RUN], labels, selections)), base_url=HERE)
    label(page, 5, "critical_action")
    answers = [
        page.get(f"/api/{path}", params={"run": RUN.trajectory_id}).text
        for path in ("about", "runs", "run")
    ]
    assert not [text for text in answers if "oracle" in text or "surprisal" in text]
    assert run_of(page)["chosen"] == {OWN: [5]}
    for other in (JUDGED, SELECTION):
        answer = page.get("/api/agreement", params={"one": OWN, "other": other})
        assert "no labels of" in answer.json()["error"]
    assert label(page, 4, "none", JUDGED).status_code == 400


def test_what_is_trained_needs_a_model(page, runs):
    answer = page.get("/api/tokens", params={"run": RUN.trajectory_id, "source": JUDGED})
    assert (answer.status_code, "--model" in answer.json()["error"]) == (400, True)
