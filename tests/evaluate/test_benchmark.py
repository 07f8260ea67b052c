"""Benchmark files, their hash, and what rollouts on them score."""

import json

import pytest

from agents.corridor import Corridor
from atlas_tune import environments
from atlas_tune.agents.opening import OPENINGS
from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.evaluate.benchmark import Benchmark, load_benchmark, shipped
from atlas_tune.evaluate.benchmark_run import plan, run_benchmark
from atlas_tune.evaluate.benchmark_scores import Episode, part_score, role_means
from atlas_tune.evaluate.rollouts import read_rollouts, settings_path
from cli.commands import atlas
from tiny_model import tiny_llama, tiny_tokenizer

FILE = """\
name: mine
environments:
  - environment: textcraft
    role: held-in
    tasks: 3
    max_steps: 4
    metric: success
  - name: doors
    environment: babyai
    role: held-out
    options: {levels: [GoToDoor]}
    tasks: 2
    max_steps: 3
    metric: reward
"""


class Waiting:
    def replies(self, conversations):
        return dict.fromkeys(conversations, "Action: inventory")


def written(tmp_path, text=FILE):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_file_is_read_and_parts_have_names(tmp_path):
    benchmark = load_benchmark(written(tmp_path))
    assert [(p.name, p.environment, p.role) for p in benchmark.environments] == [
        ("textcraft", "textcraft", "held-in"),
        ("doors", "babyai", "held-out"),
    ]


def test_the_hash_is_of_what_decides_results(tmp_path):
    digest = load_benchmark(written(tmp_path)).digest
    same = FILE.replace("role: held-in\n    tasks: 3", "tasks: 3   # few\n    role: held-in")
    assert load_benchmark(written(tmp_path, "description: words\n" + same)).digest == digest
    other = FILE.replace("max_steps: 4", "max_steps: 5")
    assert load_benchmark(written(tmp_path, other)).digest != digest
    assert len(digest) == 64


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "    tasks: 3",
            "    tsks: 3",
            r"lines 3, 5: .*'environments.0.tsks'.*mean 'tasks'",
        ),
        ("tasks: 2", "tasks: 0", r"line 12: .*from 1 on is wanted, not 0"),
        ("role: held-out", "role: heldout", r"line 10: .*'held-in' or 'held-out' is wanted"),
        ("name: doors", "name: textcraft", r"two parts are called 'textcraft'"),
        ("    metric: reward\n", "", r"line 8: .*'environments.1.metric' is missing"),
        ("name: mine", "name: [", r"mine.yaml, line .*not YAML"),
        (FILE, "- 1", "is not a benchmark"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_line(tmp_path, old, new, told):
    with pytest.raises(AtlasError, match=told):
        load_benchmark(written(tmp_path, FILE.replace(old, new)))


def test_an_unknown_benchmark_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'quick'"):
        load_benchmark("quik")


def test_the_shipped_ones_can_be_read():
    assert {"paper-offline", "quick"} <= set(shipped())
    paper = load_benchmark("paper-offline")
    held_in = [p.environment for p in paper.environments if p.role == "held-in"]
    held_out = [p.name for p in paper.environments if p.role == "held-out"]
    assert held_in == ["textcraft", "babyai", "wordle", "alfworld", "scienceworld"]
    assert held_out == ["cookingworld", "twc", "coin", "mapreader", "babyai-unseen"]


def test_limits_and_metrics_of_the_shipped_ones_are_the_environments_own():
    for name in shipped():
        for part in load_benchmark(name).environments:
            if part.environment not in ("textcraft", "babyai", "wordle"):
                continue
            env = environments.make_environment(part.environment)
            assert (part.max_steps, part.metric) == (env.max_steps, env.metric)
            assert len(env.tasks(part.split, **part.options)) >= part.tasks


def test_scores_by_hand(tmp_path):
    benchmark = load_benchmark(written(tmp_path))
    craft, doors = benchmark.environments
    crafted = [Episode(1.0, True), Episode(0.0, False), Episode(0.0, False), Episode(1.0, True)]
    opened = [Episode(0.9, True), Episode(0.3, False)]
    one = part_score(benchmark, craft, crafted)
    assert (one.successes, one.score, one.metric) == (2, 0.5, "success")
    # Wilson by hand for 2 of 4: (0.5 + z²/8 ± z·sqrt(0.25/4 + z²/64)) / (1 + z²/4), z = 1.96.
    assert one.score_interval == pytest.approx((0.1500, 0.8500), abs=1e-4)
    assert one.benchmark == benchmark.digest
    lost = [*crafted[:2], Episode(0.0, False, "the server died")]
    assert part_score(benchmark, craft, lost).errors == 1
    two = part_score(benchmark, doors, opened)
    assert (two.success_rate, two.score) == (0.5, pytest.approx(0.6))
    # t with one degree of freedom, 12.7, times the error, 0.3, leaves [0, 1] on both sides.
    assert two.score_interval == (0.0, 1.0)
    held_in, held_out = role_means(benchmark, {"textcraft": crafted, "doors": opened})
    assert (held_in.score, held_out.score) == (0.5, pytest.approx(0.6))
    (alone,) = role_means(benchmark, {"textcraft": crafted})
    assert (alone.role, alone.parts, alone.of) == ("held-in", 1, 1)


def test_a_mean_counts_every_environment_the_same():
    part = {"environment": "textcraft", "role": "held-in", "max_steps": 1, "metric": "success"}
    benchmark = Benchmark.model_validate(
        {"name": "b", "environments": [{**part, "name": n, "tasks": 1} for n in ("x", "y")]}
    )
    many = [Episode(1.0, True)] * 9
    (mean,) = role_means(benchmark, {"x": many, "y": [Episode(0.0, False)]})
    # No two tasks of a part differ, so a bootstrap would give a range of no width.
    assert (mean.score, mean.interval) == (0.5, None)


def test_equal_rewards_do_not_say_what_the_next_task_gives(tmp_path):
    benchmark = load_benchmark(written(tmp_path))
    doors = benchmark.environments[1]
    score = part_score(benchmark, doors, [Episode(0.1, False)] * 3)
    low, high = score.score_interval
    assert score.score == pytest.approx(0.1)
    assert low < 0.1 and high > 0.5
    assert score.success_interval == (0.0, pytest.approx(0.5615, abs=1e-4))


def test_a_benchmark_runs_resumes_and_carries_its_hash(tmp_path):
    benchmark = load_benchmark(written(tmp_path))
    planned = plan(benchmark)
    told = []

    def run(policy):
        return run_benchmark(
            benchmark,
            planned,
            policy,
            tmp_path / "out",
            batch_size=2,
            agent={"name": "waiting", "version": "1"},
            model={"model": "m"},
            on_standing=lambda part, standing: told.append((part, standing.of)),
        )

    first = run(Waiting)
    assert [(s.name, s.tasks, s.successes) for s in first.scores] == [
        ("textcraft", 3, 0),
        ("doors", 2, 0),
    ]
    assert told[0] == ("textcraft", 3) and told[-1] == ("doors", 2)
    settings = json.loads(settings_path(tmp_path / "out" / "doors.jsonl").read_text())
    assert (settings["benchmark"], settings["max_steps"]) == (benchmark.digest, 3)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["benchmark_sha256"] == benchmark.digest
    assert {row["benchmark"] for row in results["parts"]} == {benchmark.digest}
    assert run(lambda: pytest.fail("nothing is left to run")) == first


def test_results_of_another_benchmark_are_not_mixed_in(tmp_path):
    def run(text):
        benchmark = load_benchmark(written(tmp_path, text))
        return run_benchmark(
            benchmark, plan(benchmark), Waiting, tmp_path / "out", batch_size=2,
            agent={"name": "w", "version": "1"}, model={"model": "m"},
        )  # fmt: skip

    run(FILE)
    with pytest.raises(AtlasError, match="made with another benchmark"):
        run(FILE.replace("tasks: 3", "tasks: 2"))


class NoData(Corridor):
    def tasks(self, split, **options):
        raise AtlasError("There is no corridor data: build a corridor.")


def test_what_cannot_run_here_is_refused_before_anything_runs_or_left_out(tmp_path, monkeypatch):
    known = {**environments._ENVIRONMENTS, "corridor": (__name__, "NoData", "environments")}
    monkeypatch.setattr(environments, "_ENVIRONMENTS", known)
    text = FILE + FILE.partition("environments:\n")[2].replace("textcraft", "corridor").replace(
        "doors", "doors2"
    )
    benchmark = load_benchmark(written(tmp_path, text))
    with pytest.raises(AtlasError, match=r"1 of 4 parts .*build a corridor.*--skip-missing"):
        plan(benchmark)
    planned = plan(benchmark, skip_missing=True)
    assert [part.name for part, _ in planned.parts] == ["textcraft", "doors", "doors2"]
    assert planned.left_out == {"corridor": "There is no corridor data: build a corridor."}


def test_a_mistake_in_the_file_is_not_skipped(tmp_path):
    wrong = load_benchmark(written(tmp_path, FILE.replace("GoToDoor", "GoToDor")))
    with pytest.raises(UsageError, match="'doors': BabyAI has no level 'GoToDor'"):
        plan(wrong, skip_missing=True)
    unknown = load_benchmark(written(tmp_path, FILE.replace("babyai", "babai")))
    with pytest.raises(UsageError, match="did you mean 'babyai'"):
        plan(unknown, skip_missing=True)


def test_the_command_runs_a_benchmark_with_the_models_own_opening(tmp_path, monkeypatch, capsys):
    model = tmp_path / "model"
    tiny_llama().save_pretrained(model)
    tiny_tokenizer().save_pretrained(model)
    first = {"role": "user", "content": "Recorded instruction."}
    recorded = {"messages": [first], "lead": "", "anchored": False}
    (model / OPENINGS).write_text(json.dumps({"form": 1, "openings": {"textcraft": recorded}}))
    words = ("benchmark", written(tmp_path), "--model", model, "-o", tmp_path / "out",
             "--max-new-tokens", 4, "--precision", "float32")  # fmt: skip
    code, told, _ = atlas(monkeypatch, capsys, *words)
    assert code == 0
    assert "textcraft" in told and "doors" in told and "mean of all" in told
    (start, *_) = read_rollouts(tmp_path / "out" / "textcraft.jsonl")
    assert start.trajectory.steps[0].message == "Recorded instruction."
    (own, *_) = read_rollouts(tmp_path / "out" / "doors.jsonl")
    assert own.trajectory.steps[0].message.startswith("Reach the goal in a grid of rooms.")
    code, told, _ = atlas(monkeypatch, capsys, *words, "--json")
    assert code == 0
    assert [mean["role"] for mean in json.loads(told)["means"]] == ["held-in", "held-out"]


def test_the_command_lists_and_says_what_it_needs(monkeypatch, capsys):
    code, told, _ = atlas(monkeypatch, capsys, "benchmark", "--list")
    assert code == 0 and "quick (" in told and "babyai-unseen: 60 unseen tasks" in told
    code, _, error = atlas(monkeypatch, capsys, "benchmark", "quick")
    assert code == 2 and "-o with a directory" in error
