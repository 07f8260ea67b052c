import threading
import time

import pytest
from vault import Vault, record

from atlas_tune.errors import UsageError
from atlas_tune.recipe import load_recipe
from atlas_tune.select import CannotLabel, Context, Cost, make_selector, select
from atlas_tune.select.base import Alone, labels_of_scores
from atlas_tune.select.combine import CombinedSelector, CombineOptions
from atlas_tune.select.on_file import LabelsOnFile
from atlas_tune.trajectory import Kind, LabelSource, Step, StepLabel, Trajectory
from atlas_tune.trajectory.store import append_labels

RUN = Trajectory.create(
    (Step(1, "user", "Go."), *(Step(i, "agent", f"Action: {i}") for i in range(2, 6)))
)
"""Agent steps 2, 3, 4, 5."""


class Said(Alone):
    """A scorer that says what it is told to: step id → score; the others are none."""

    def __init__(self, name, scores, cost=None):
        self.name = name
        self.scores = scores
        self._cost = cost or Cost()

    def label(self, trajectory):
        return labels_of_scores(trajectory, self.source, self.scores)

    def cost(self, trajectories):
        return self._cost


class Judge(Alone):
    """A judge that names these steps, in this order."""

    name = "judge"

    def __init__(self, *named):
        self.named = named

    def label(self, trajectory):
        rest = [s.step_id for s in trajectory.agent_steps if s.step_id not in self.named]
        return [
            StepLabel(trajectory.trajectory_id, i, kind, self.source)
            for kind, ids in ((Kind.CRITICAL_ACTION, self.named), (Kind.NONE, rest))
            for i in ids
        ]


class Silent(Alone):
    """Cannot label anything."""

    name = "silent"

    def label(self, trajectory):
        raise CannotLabel("there is nothing to go by")


ONE = Said("one", {2: 1.0, 3: 5.0, 4: 5.0, 5: 9.0})  # ranks 1/8, 4/8, 4/8, 7/8
TWO = Said("two", {2: 8.0, 3: 7.0, 4: 6.0, 5: 5.0})  # ranks 7/8, 5/8, 3/8, 1/8


def combined(*parts, how="weighted"):
    """A combination of (selector, what its part says besides)."""
    selectors = {selector.name: selector for selector, _ in parts}
    options = CombineOptions(
        parts=[{"selector": "first", **settings} for _, settings in parts], how=how
    )
    made = iter(selectors.values())
    return CombinedSelector(options, Context(), lambda name, options, context: next(made))


def scores(selector):
    """The scores of candidates by step."""
    return {
        label.step_id: label.score for label in selector.label(RUN) if label.kind is not Kind.NONE
    }


def test_a_weighted_score_is_the_sum_of_weighted_mid_ranks():
    both = combined((ONE, {"weight": 2}), (TWO, {}))
    assert scores(both) == {
        2: 2 * 1 / 8 + 7 / 8,
        3: 2 * 4 / 8 + 5 / 8,
        4: 2 * 4 / 8 + 3 / 8,
        5: 2 * 7 / 8 + 1 / 8,
    }


def test_a_negative_weight_turns_a_part_around():
    assert scores(combined((ONE, {}), (TWO, {"weight": -1}))) == {
        2: -0.75,
        3: -0.125,
        4: 0.125,
        5: 0.75,
    }


def test_lexicographic_lets_the_second_part_decide_what_the_first_leaves_equal():
    # By the first 5, then 3 and 4, then 2; of 3 and 4 the second prefers 3.
    found = scores(combined((ONE, {}), (TWO, {}), how="lexicographic"))
    assert found == {5: 7 / 8, 3: 5 / 8, 4: 3 / 8, 2: 1 / 8}


def test_what_all_parts_leave_equal_stays_equal():
    same = Said("same", {2: 0.0, 3: 0.0, 4: 0.0, 5: 0.0})
    assert scores(combined((ONE, {}), (same, {}), how="lexicographic")) == {
        5: 7 / 8,
        3: 0.5,
        4: 0.5,
        2: 1 / 8,
    }


def test_steps_that_a_part_labels_none_are_equal_and_last_in_it():
    some = Said("some", {4: 0.0})
    # 4 is first of four (7/8); 2, 3 and 5 share the ranks 1, 2, 3 (mean 2: 3/8).
    assert scores(combined((ONE, {}), (some, {}))) == {
        2: 1 / 8 + 3 / 8,
        3: 4 / 8 + 3 / 8,
        4: 4 / 8 + 7 / 8,
        5: 7 / 8 + 3 / 8,
    }


def test_a_judges_steps_rank_in_its_order_above_those_it_leaves_out():
    # 4 then 2: ranks 7/8 and 5/8; 3 and 5 share 1 and 2 (mean 1.5: 2/8).
    nothing = Said("nothing", dict.fromkeys(range(2, 6), 1.0))  # all 4/8
    assert scores(combined((Judge(4, 2), {}), (nothing, {}))) == {
        4: 7 / 8 + 0.5,
        2: 5 / 8 + 0.5,
        3: 2 / 8 + 0.5,
        5: 2 / 8 + 0.5,
    }


def test_steps_that_every_part_labels_none_are_no_candidates():
    assert set(scores(combined((Said("some", {3: 1.0}), {}), (Judge(4), {})))) == {3, 4}


def test_required_steps_are_candidates_and_ranked_by_the_other_part():
    necessary = Said("necessary", {2: 1.0, 3: 1.0})
    found = scores(combined((necessary, {"require": True, "weight": 0}), (TWO, {})))
    assert found == {2: 7 / 8, 3: 5 / 8}


def test_above_is_a_limit_that_is_not_a_candidate_itself():
    found = scores(combined((TWO, {"require": True, "above": 6.0}), (ONE, {})))
    assert set(found) == {2, 3}
    with pytest.raises(CannotLabel, match="'judge' names steps without a score, so 'above'"):
        combined((Judge(2), {"require": True, "above": 0.5}), (ONE, {})).label(RUN)


def test_all_that_is_required_must_hold():
    parts = [(Said("a", {2: 1.0, 3: 1.0}), {"require": True}), (Judge(3, 4), {"require": True})]
    assert set(scores(combined(*parts))) == {3}
    nothing = combined((Judge(2), {"require": True}), (Said("a", {3: 1.0}), {"require": True}))
    [selection] = select([RUN], nothing).selections
    assert selection.step_ids == ()


def test_reasons_have_rank_and_score_of_each_part():
    labels = {label.step_id: label for label in combined((TWO, {}), (Judge(3), {})).label(RUN)}
    assert labels[3].reason == "two: rank 0.62, score 7; judge: rank 0.88"
    assert labels[2].reason == "two: rank 0.88, score 8; judge: none"


def test_a_part_that_cannot_label_is_named():
    [missing] = select([RUN], combined((ONE, {}), (Silent(), {}))).unlabelled
    assert missing.reason == "the part 'silent' cannot label it: there is nothing to go by"


def test_the_cost_is_that_of_all_parts():
    one = Said("one", {}, Cost(read_tokens=3, rollouts=1))
    two = Said("two", {}, Cost(read_tokens=4, env_steps=7))
    runs = iter([RUN])  # parts must not take the runs from each other
    assert combined((one, {}), (two, {})).cost(runs) == Cost(read_tokens=7, rollouts=1, env_steps=7)


class Counting(Alone):
    """Notes how many trajectories are in it at once."""

    def __init__(self, name, concurrency):
        self.name, self.concurrency = name, concurrency
        self.inside = self.most = 0
        self.lock = threading.Lock()

    def label(self, trajectory):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        time.sleep(0.02)
        with self.lock:
            self.inside -= 1
        return labels_of_scores(trajectory, self.source, {})


def test_each_part_is_asked_at_most_as_often_at_once_as_it_bears():
    server, local = Counting("server", 4), Counting("local", 1)
    both = combined((server, {}), (local, {}))
    runs = [
        Trajectory.create((Step(1, "agent", f"Action: {task}"),), task_id=str(task))
        for task in range(12)
    ]
    assert both.concurrency == 4
    assert len(select(runs, both).selections) == 12
    assert local.most == 1
    assert 2 <= server.most <= 4


def real(*parts, context=None, **options):
    return make_selector("combine", {"parts": list(parts), **options}, context)


def test_the_source_changes_with_all_that_decides_the_labels():
    versions = [
        real({"selector": "first"}, {"selector": "last"}),
        real({"selector": "last"}, {"selector": "first"}),
        real({"selector": "first"}, {"selector": "last"}, how="lexicographic"),
        real({"selector": "first", "weight": 2}, {"selector": "last"}),
        real({"selector": "first", "require": True}, {"selector": "last"}),
        real({"selector": "first"}, {"selector": "random"}),
        real({"selector": "first"}, {"selector": "random", "options": {"seed": 1}}),
    ]
    assert len({selector.source for selector in versions}) == 7
    assert versions[0].source == real({"selector": "first"}, {"selector": "last"}).source


def test_combinations_combine():
    inner = {"selector": "combine", "options": {"parts": [{"selector": "first"}]}}
    ranks = {label.step_id: label.score for label in real(inner).label(RUN)}
    assert ranks == {2: 7 / 8, 3: 5 / 8, 4: 3 / 8, 5: 1 / 8}


def test_only_necessary_steps_are_ranked_by_another_selector_in_a_real_replay():
    run = record("look", "take red key", "light lamp", "open door", "take gold")
    context = Context(make_environment=lambda name: Vault())
    replay = {"selector": "replay", "require": True, "above": 0.5, "weight": 0}
    both = real(replay, {"selector": "last"}, context=context)
    labels = {label.step_id: label for label in both.label(run)}
    # Without the lamp (step 4) the gold is still worth 0.6; looking (step 2) is worth nothing.
    candidates = {key: label.score for key, label in labels.items() if label.kind is None}
    assert candidates == {3: 0.3, 5: 0.7, 6: 0.9}
    assert labels[4].reason.startswith("replay: rank 0.30, score 0.4; last: rank 0.50")
    [selection] = select([run], both, share=0.4).selections
    assert selection.step_ids == (5, 6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"parts": []}, "at least 1 item"),
        ({"parts": [{}]}, "a part has either 'selector' or 'labels'"),
        ({"parts": [{"selector": "first", "labels": "x"}]}, "either 'selector' or 'labels'"),
        ({"parts": [{"labels": "x", "options": {"a": 1}}]}, "labels on file take no 'options'"),
        ({"parts": [{"selector": "first", "above": 1}]}, "'above' goes with 'require: true'"),
        ({"parts": [{"selector": "frist"}]}, "no selector 'frist': did you mean 'first'"),
        ({"parts": [{"selector": "random", "options": {"sed": 1}}]}, "no option 'sed'"),
        ({"parts": [{"selector": "first", "weight": 0}]}, "every weight is 0"),
        (
            {"parts": [{"selector": "first", "weight": 2}], "how": "lexicographic"},
            "weights have no part in 'lexicographic'",
        ),
        ({"parts": [{"selector": "first"}], "how": "both"}, "'weighted' or 'lexicographic'"),
        ({"parts": [{"selector": "replay"}]}, "Part 1 of the selector 'combine': .*environments"),
        ({"parts": [{"labels": "none.jsonl"}]}, "Part 1 .*There is no labels file none.jsonl"),
    ],
)
def test_what_does_not_fit_is_said(options, words):
    with pytest.raises(UsageError, match=words):
        make_selector("combine", options)


ORACLE = LabelSource("oracle", "2+budget=0.3", model="m")


def said(source, step_id, kind=Kind.NONE, **fields):
    return StepLabel(RUN.trajectory_id, step_id, kind, source, **fields)


@pytest.fixture
def sidecar(tmp_path):
    """An oracle that names 4, then 2; a person who takes back 4; and a scorer beside them."""
    path = tmp_path / "labels.jsonl"
    named = [said(ORACLE, 4, Kind.CRITICAL_ACTION), said(ORACLE, 2, Kind.PLAN_CREATION)]
    append_labels(path, [*named, said(ORACLE, 3), said(ORACLE, 5)])
    append_labels(path, [said(LabelSource("Ada"), 4, Kind.NONE, supersedes=named[0].label_id)])
    append_labels(
        path, [said(LabelSource("surprisal"), i, None, score=float(i)) for i in range(2, 6)]
    )
    return path


def test_labels_on_file_are_a_part_with_peoples_corrections(sidecar):
    part = LabelsOnFile(f"{sidecar}#oracle")
    assert {label.step_id for label in part.label(RUN) if label.kind is not Kind.NONE} == {2}
    found = real({"labels": f"{sidecar}#oracle", "require": True}, {"selector": "last"})
    # The oracle: 2 is first of four (7/8). The position: 2 is the last (1/8).
    assert scores(found) == {2: 1.0}
    assert found.label(RUN)[0].reason == "oracle: rank 0.88; last: rank 0.12, score 0.25"


def test_labels_on_file_are_read_by_the_name_of_their_source(sidecar):
    assert scores(LabelsOnFile(f"{sidecar}#surprisal")) == {2: 2.0, 3: 3.0, 4: 4.0, 5: 5.0}
    with pytest.raises(
        UsageError, match=r"of several sources: oracle 2\+budget=0.3 m, surprisal 1"
    ):
        LabelsOnFile(str(sidecar))
    with pytest.raises(UsageError, match="holds no labels of 'oracel': did you mean 'oracle'"):
        LabelsOnFile(f"{sidecar}#oracel")


def test_a_source_with_several_settings_is_named_with_its_version(sidecar):
    other = LabelSource("oracle", "2+budget=0.5", model="m")
    append_labels(sidecar, [said(other, i, Kind.CRITICAL_ACTION) for i in range(2, 6)])
    with pytest.raises(UsageError, match=r"Name one of them .*#oracle 2\+budget=0.3 m"):
        LabelsOnFile(f"{sidecar}#oracle")
    assert len(scores(LabelsOnFile(f"{sidecar}#oracle 2+budget=0.5"))) == 4
    append_labels(sidecar, [said(LabelSource("oracle", "2+budget=0.5", model="n"), 2)])
    with pytest.raises(UsageError, match="several sources"):
        LabelsOnFile(f"{sidecar}#oracle 2+budget=0.5")
    assert len(scores(LabelsOnFile(f"{sidecar}#oracle 2+budget=0.5 m"))) == 4


def test_a_file_without_labels_is_refused(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(UsageError, match="holds no labels at all"):
        LabelsOnFile(str(tmp_path / "empty.jsonl"))


def test_a_run_without_all_its_labels_on_file_is_left_out(sidecar, tmp_path):
    other = Trajectory.create(RUN.steps, task_id="other")
    [missing] = select([other], real({"labels": f"{sidecar}#oracle"})).unlabelled
    assert "has no label of oracle of this trajectory" in missing.reason
    append_labels(tmp_path / "torn.jsonl", [said(ORACLE, 2), said(ORACLE, 3)])
    [missing] = select([RUN], real({"labels": str(tmp_path / "torn.jsonl")})).unlabelled
    assert "has no label of oracle of its step 4" in missing.reason


def test_new_labels_on_file_are_another_source(sidecar):
    before = real({"labels": f"{sidecar}#oracle"}).source
    append_labels(sidecar, [said(LabelSource("surprisal"), 2, None, score=0.0)])
    assert real({"labels": f"{sidecar}#oracle"}).source == before
    append_labels(sidecar, [said(ORACLE, 5, Kind.CRITICAL_ACTION)])
    assert real({"labels": f"{sidecar}#oracle"}).source != before


RECIPE = """
name: small
data: [{import: runs.jsonl}]
arms:
  - name: mix
    selector: combine
    options:
      parts:
        - {labels: oracle.labels.jsonl#oracle, require: true}
        - {selector: ./mine.py:label}
        - {selector: combine, options: {parts: [{labels: more.jsonl}]}}
evaluate: {environments: [{environment: textcraft, tasks: 4}]}
"""


def test_paths_of_parts_are_relative_to_the_recipe(tmp_path):
    (tmp_path / "mine.py").write_text("def label(trajectory): return {}")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    parts = load_recipe(tmp_path / "recipe.yaml").arms[0].options["parts"]
    assert parts[0]["labels"] == f"{tmp_path}/oracle.labels.jsonl#oracle"
    assert parts[1]["selector"] == f"{tmp_path}/mine.py:label"
    assert parts[2]["options"]["parts"][0]["labels"] == f"{tmp_path}/more.jsonl"
