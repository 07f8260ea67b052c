import base64
import hashlib
import json
import re
import signal
import subprocess
import sys

import httpx2
import pytest

from atlas_tune.trajectory import Kind, Selection, Step, Trajectory
from atlas_tune.trajectory.store import read_labels, write_selections, write_trajectories
from atlas_tune.view.documents import Runs
from atlas_tune.view.label_file import LabelFile
from atlas_tune.view.pages import shared_page
from cli.commands import atlas
from tiny_model import tiny_tokenizer
from view.labelled import JUDGED, OTHER, OWN, RUN, SCORED, write_sidecar

HOSTILE = Trajectory.create(
    (Step(1, "user", "</script><script>alert(1)</script><!--"), Step(2, "agent", "\ud800]]>"))
)


def held_in(page):
    """What a shared page holds, as a browser would read it."""
    [text] = re.findall(r'<script type="application/json" id="held">(.*?)</script>', page)
    return json.loads(text)


@pytest.fixture
def labels(tmp_path):
    return LabelFile(write_sidecar(tmp_path / "labels.jsonl"), "ada")


def test_a_shared_page_holds_everything_and_loads_nothing(labels):
    page = shared_page(Runs([RUN, OTHER, HOSTILE], labels))
    held = held_in(page)
    assert set(held["documents"]) == {run.trajectory_id for run in (RUN, OTHER, HOSTILE)}
    assert held["documents"][RUN.trajectory_id]["said"][JUDGED]["4"]
    assert len(held["runs"]) == 3 and held["about"]["is_shared"]
    assert not re.search(r"\b(src|href)=", page.partition("<style>")[0])
    assert page.count("<script") == 2, "what a run says ends no element and begins none"
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    for element, text in re.findall(r"<(script|style)>(.*?)</\1>", page, flags=re.DOTALL):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{element}-src &#39;sha256-{digest}&#39;" in policy
    assert "unsafe" not in policy


def write_runs(folder):
    write_trajectories(folder / "runs.jsonl", [RUN, OTHER])
    write_sidecar(folder / "chosen.jsonl.labels.jsonl")
    write_selections(folder / "chosen.jsonl", [Selection(RUN.trajectory_id, (6,), "by hand")])


def test_the_command_writes_a_page_to_share(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_runs(tmp_path)
    words = ("view", "runs.jsonl", "--selection", "chosen.jsonl", "--html", "page.html")
    code, _, said = atlas(monkeypatch, capsys, *words, "--name", "ada")
    assert (code, "2 runs in page.html" in said) == (0, True)
    held = held_in((tmp_path / "page.html").read_text())
    assert set(held["about"]["sources"]) == {JUDGED, SCORED, "selection"}
    assert held["about"]["own"] == OWN


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--budget", "0"), 2, "A budget is a share"),
        (("--name", "replay"), 2, "'replay' is a selector"),
        (("--html", "page.html", "--blind"), 2, "leave --blind and --model out"),
        (("--labels", "other.jsonl"), 1, "names step 99"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_served(
    tmp_path, monkeypatch, capsys, words, code, told
):
    monkeypatch.chdir(tmp_path)
    write_runs(tmp_path)
    line = (tmp_path / "chosen.jsonl.labels.jsonl").read_text().splitlines()[0]
    (tmp_path / "other.jsonl").write_text(line.replace('"step_id":4', '"step_id":99') + "\n")
    ended, _, said = atlas(monkeypatch, capsys, "view", "runs.jsonl", *words, "--port", "0")
    assert (ended, told in said) == (code, True)


def test_the_tokens_that_are_trained_are_those_of_the_labels_as_they_stand(tmp_path, labels):
    from atlas_tune.view.trained import trained_tokens

    tiny_tokenizer().save_pretrained(tmp_path / "tiny")
    runs = Runs([RUN], labels, budget=0.5)
    [row] = trained_tokens(runs, str(tmp_path / "tiny"))(RUN, JUDGED)
    assert {piece["step"] for piece in row["pieces"]} == {None, 4, 6}
    assert sum(piece["tokens"] for piece in row["pieces"]) == row["tokens"]
    marked = sum(piece["tokens"] for piece in row["pieces"] if piece["step"])
    assert marked == row["supervised"] < row["computed"] < row["tokens"]


def test_the_command_serves_this_machine_until_ctrl_c(tmp_path):
    write_runs(tmp_path)
    words = ("runs.jsonl", "--selection", "chosen.jsonl", "--name", "ada", "--port", "0")
    with subprocess.Popen(
        [sys.executable, "-m", "atlas_tune", "view", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        url = server.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        assert httpx2.get(f"{url}/api/about").json()["annotator"] == "ada"
        body = {"run": OTHER.trajectory_id, "step": 4, "kind": "plan_creation", "source": OWN}
        assert httpx2.post(f"{url}/api/label", json=body).json()["chosen"] == {OWN: [4]}
        server.send_signal(signal.SIGINT)
        _, said = server.communicate(timeout=20)
    assert (server.returncode, "Stopped." in said) == (0, True)
    last = list(read_labels(tmp_path / "chosen.jsonl.labels.jsonl"))[-1]
    assert (last.source.name, last.step_id, last.kind) == ("ada", 4, Kind.PLAN_CREATION)
