"""Base skills: the comparison by hand, and a real task on real tiny models."""

import importlib.util
import json

import pytest

from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.evaluate.skills import SkillScores, compare_skills, scores_of
from atlas_tune.evaluate.skills_harness import ask, skill_tasks
from atlas_tune.evaluate.statistics import sign_flips
from cli.commands import atlas
from tiny_model import tiny_llama, tiny_tokenizer

needs_harness = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed"
)
TASK = """\
task: capitals
dataset_path: json
dataset_kwargs: {data_files: {test: capitals.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "Capital of {{country}}:"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


def scores(values, metric="acc", higher=True):
    return SkillScores(
        "t", metric, higher, {str(i): float(value) for i, value in enumerate(values)}
    )


def sample(number, content="q", filter_name="none", metrics=("acc",), **values):
    return {
        "doc_id": number,
        "doc_hash": f"{content}{number}",
        "filter": filter_name,
        "metrics": list(metrics),
        **values,
    }


def test_accuracy_is_compared_by_mcnemar():
    # Six lost and none won: a two-sided binomial test of 0 of 6 gives 2 / 2**6.
    found = compare_skills(scores([1] * 6 + [0, 1]), scores([0] * 6 + [0, 1]))
    assert (found.test, found.p_value, found.verdict) == ("exact McNemar", 2 / 64, "worse")
    assert (found.before, found.after, found.difference) == (7 / 8, 1 / 8, -6 / 8)
    again = compare_skills(scores([0] * 6), scores([1] * 6))
    assert again.verdict == "better"
    # Five of five have p = 2 / 2**5, above 0.05.
    few = compare_skills(scores([0] * 5), scores([1] * 5))
    assert (few.p_value, few.verdict) == (2 / 32, "cannot tell")


def test_of_a_metric_that_should_be_low_less_is_better():
    assert compare_skills(scores([1] * 6, higher=False), scores([0] * 6, higher=False)).verdict == (
        "better"
    )
    losses = scores([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "loss", higher=False)
    more = scores([0.3, 0.5, 0.7, 0.8, 0.9, 1.1], "loss", higher=False)
    assert compare_skills(losses, more).verdict == "worse"


def test_other_scores_are_compared_by_sign_flips():
    # All six rise. Of 2**6 sign patterns two have a mean as far from zero: all plus, all minus.
    found = compare_skills(
        scores([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], "f1"), scores([0.1, 0.3, 0.5, 0.7, 0.5, 0.6], "f1")
    )
    assert (found.test, found.p_value, found.verdict) == ("sign flips", 2 / 64, "better")
    assert found.difference == pytest.approx(1.2 / 6)
    assert 0.1 <= found.interval[0] < found.difference < found.interval[1] <= 0.4
    # One falls by 0.1, the least: of all patterns those with one 0.1 turned, or none, are as far.
    assert sign_flips([0.4, 0.3, 0.2, -0.1]) == 4 / 16


def test_few_questions_tell_nothing_however_alike_they_are():
    found = compare_skills(scores([0.5, 0.25, 0.75], "f1"), scores([0.75, 0.5, 1.0], "f1"))
    assert (found.p_value, found.verdict, found.interval) == (2 / 8, "cannot tell", None)
    same = compare_skills(scores([0.5, 0.25], "f1"), scores([0.5, 0.25], "f1"))
    assert (same.p_value, same.verdict, same.interval) == (1.0, "cannot tell", None)


def test_many_questions_are_flipped_by_lot_the_same_every_time():
    differences = [0.1 * (n % 7) - 0.2 for n in range(70)]
    assert sign_flips(differences) == sign_flips(differences) < 0.001
    assert sign_flips([0.3, -0.3] * 50) > 0.9


def test_other_questions_are_not_compared():
    with pytest.raises(AtlasError, match="did not ask the same questions"):
        compare_skills(scores([1, 0]), scores([1]))


def test_scores_are_the_first_metric_with_a_number_and_the_first_filter():
    found = scores_of(
        "t",
        [
            sample(0, metrics=("bleu", "f1", "em"), bleu=("a", "b"), f1=0.5, em=1.0),
            sample(0, filter_name="strict", metrics=("f1",), f1=0.0),
            sample(1, metrics=("bleu", "f1", "em"), bleu=("a", "b"), f1=1, em=0.0),
        ],
        {"f1": True},
    )
    assert (found.metric, found.values) == ("f1", {"0:q0": 0.5, "1:q1": 1.0})
    with pytest.raises(AtlasError, match=r"number for each question \(bleu\)"):
        scores_of("t", [sample(0, metrics=("bleu",), bleu=("a", "b"))], {})
    with pytest.raises(AtlasError, match="holds no question"):
        scores_of("t", [], {})


def task_file(folder, questions=8):
    folder.mkdir(exist_ok=True)
    (folder / "capitals.yaml").write_text(TASK)
    lines = [
        json.dumps({"country": f"Land {i}", "choices": ["go to", "get craft"], "answer": i % 2})
        for i in range(questions)
    ]
    (folder / "capitals.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "capitals.yaml"


def test_data_files_lie_beside_their_task(tmp_path, monkeypatch):
    path = task_file(tmp_path / "tasks")
    monkeypatch.chdir(tmp_path)
    (found, name) = skill_tasks(["tasks/capitals.yaml", "arc_easy"]).asked
    assert found["dataset_kwargs"]["data_files"]["test"] == str(tmp_path / "tasks/capitals.jsonl")
    assert name == "arc_easy"
    path.with_suffix(".jsonl").unlink()
    with pytest.raises(UsageError, match=r"data file .*capitals.jsonl is not there"):
        skill_tasks([str(path)])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("task: [", "not YAML"),
        ("group: x", "needs the key 'task'"),
        ("task: x\nprocess_docs: !function f.g", "!function"),
    ],
)
def test_a_wrong_task_file_is_told(tmp_path, text, told):
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(UsageError, match=told):
        skill_tasks([str(tmp_path / "t.yaml")])
    with pytest.raises(UsageError, match="There is no task file"):
        skill_tasks([str(tmp_path / "none.yaml")])


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="lm-eval is here")
def test_without_the_harness_the_extra_is_named(tmp_path):
    with pytest.raises(AtlasError, match=r"pip install 'atlas-tune\[skills\]'"):
        ask("nowhere", skill_tasks(["arc_easy"]))


@needs_harness
def test_a_real_task_on_real_models(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for seed in (0, 1):
        tiny_llama(seed).save_pretrained(tmp_path / str(seed))
        tiny_tokenizer().save_pretrained(tmp_path / str(seed))
    path = task_file(tmp_path / "tasks")
    found = ask(str(tmp_path / "0"), skill_tasks([str(path)]))
    values = list(found["capitals"].values.values())
    assert len(values) == 8 and set(values) <= {0.0, 1.0}
    code, told, _ = atlas(
        monkeypatch, capsys, "skills", "--before", tmp_path / "0", "--after", tmp_path / "1",
        "--tasks", path, "-o", tmp_path / "out.json", "--json",
    )  # fmt: skip
    (row,) = json.loads(told.splitlines()[-1])["tasks"]
    kept = json.loads((tmp_path / "out.json").read_text())["scores"]
    assert code == 0
    assert list(kept["before"]["capitals"].values()) == values
    assert row["before"] == sum(values) / 8
    assert row["after"] == sum(kept["after"]["capitals"].values()) / 8
    same = compare_skills(found["capitals"], found["capitals"])
    assert (same.difference, same.p_value, same.verdict) == (0.0, 1.0, "cannot tell")


@needs_harness
def test_what_the_harness_refuses_is_a_sentence(tmp_path):
    tiny_llama().save_pretrained(tmp_path / "m")
    tiny_tokenizer().save_pretrained(tmp_path / "m")
    path = task_file(tmp_path / "tasks")
    path.write_text(TASK.replace("multiple_choice", "no_such_type"))
    with pytest.raises(AtlasError, match="lm-evaluation-harness cannot run these tasks"):
        ask(str(tmp_path / "m"), skill_tasks([str(path)]))
