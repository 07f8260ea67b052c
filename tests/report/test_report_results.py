import json

import pytest
import synthetic_results as synthetic

from atlas_tune.errors import AtlasError
from atlas_tune.report import load_results, write_report


def broken(change):
    record = synthetic.results().model_dump(mode="json")
    change(record)
    return record


def test_what_is_written_is_read_back(tmp_path):
    results = synthetic.results(seeds=(0, 1))
    index = write_report(results, tmp_path / "report")
    assert index == tmp_path / "report" / "index.html"
    assert load_results(index.with_name("results.json")) == results


def test_a_plain_dict_is_as_good_and_the_file_is_canonical(tmp_path):
    record = synthetic.results().model_dump(mode="json")
    write_report(record, tmp_path)
    text = (tmp_path / "results.json").read_text(encoding="utf-8")
    assert text == json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    files = ["index.html", "results.json", "results.md", "tables.tex"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files


def test_the_same_results_json_gives_the_same_bytes_in_every_file(tmp_path):
    write_report(synthetic.results(), tmp_path / "first")
    write_report(load_results(tmp_path / "first" / "results.json"), tmp_path / "second")
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda r: r.pop("recipe"), "recipe: Field required"),
        (lambda r: r.update(recipee=""), "recipee: Extra inputs are not permitted"),
        (lambda r: r["results"][3].update(success_rate=1.5), "results[3].success_rate: Input"),
        (lambda r: r["results"][0].update(arm="untunde"), "did you mean 'untuned'?"),
        (lambda r: r["comparisons"][0].update(environment="maze"), "no environment of this run"),
        (lambda r: r["arms"].append(r["arms"][0]), "two arms have the same name"),
        (lambda r: r["arms"][1].update(positions=[0.5, 0.5]), "positions are 10 shares or none"),
        (lambda r: r["losses"][0]["points"][0].update(loss=float("nan")), "finite number"),
        (lambda r: r["task_scores"][0]["scores"][1]["values"].pop(), "99 scores for 100 tasks"),
        (lambda r: r["task_scores"][0]["scores"][1].update(arm="al"), "did you mean 'all'?"),
        (lambda r: r["failures"][1].update(solved=99), "does not add up"),
        (lambda r: r["failures"][0].update(by_kind={"loops": 78}), "did you mean 'loop'?"),
        (lambda r: r["transcripts"][0].update(environment="maze"), "no environment of this run"),
        (lambda r: r.update(schema_version=1), "schema_version: Input should be 2"),
    ],
)
def test_a_broken_file_is_told_in_a_sentence(tmp_path, change, sentence):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(broken(change)))
    with pytest.raises(AtlasError) as caught:
        load_results(path)
    assert str(path) in str(caught.value)
    assert sentence in str(caught.value)


def test_many_mistakes_are_not_all_recited(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("{}")
    with pytest.raises(AtlasError, match=r"\(and 6 more\)\.$"):
        load_results(path)


def test_half_a_file_and_no_file_are_told_in_a_sentence(tmp_path):
    path = tmp_path / "results.json"
    with pytest.raises(AtlasError, match="There is no file"):
        load_results(path)
    path.write_text('{"name": "syn')
    with pytest.raises(AtlasError, match="is not JSON"):
        load_results(path)


def test_nothing_is_written_for_broken_results(tmp_path):
    with pytest.raises(AtlasError, match="cannot be reported"):
        write_report(broken(lambda r: r.pop("name")), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_tail_cut_saving_is_the_share_that_never_entered():
    training = next(arm.training for arm in synthetic.results().arms if arm.name == "critical")
    assert training.tail_cut_saving == pytest.approx(1 - 674_825 / 812_345)
