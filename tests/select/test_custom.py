import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.recipe import load_recipe
from atlas_tune.select import CannotLabel, make_selector, select, selector_options
from atlas_tune.select.custom_function import GROUP
from atlas_tune.trajectory import Kind, Observation, Step, Trajectory
from atlas_tune.trajectory.store import read_labels, read_selections, write_trajectories

DOCS = Path(__file__).parents[2] / "docs" / "custom_selectors.md"
RUN = Trajectory.create(
    (
        Step(1, "user", "Go."),
        Step(2, "agent", "look", observation=Observation.of("a red door")),
        Step(3, "agent", "look", observation=Observation.of("a red door")),
        Step(4, "agent", "open", observation=Observation.of("a room with a chest")),
    )
)
"""Agent steps 2, 3, 4."""


@pytest.fixture
def mine(tmp_path):
    """Writes a file and gives the name of its function ``label``."""

    def write(body, function="label", file="mine.py"):
        (tmp_path / file).write_text(body)
        return f"{tmp_path / file}:{function}"

    return write


def returning(text):
    return f"def label(trajectory):\n    return {text}\n"


def labels(name, **options):
    return {label.step_id: label for label in make_selector(name, options).label(RUN)}


def reason(name, **options):
    """Why the run cannot be labelled."""
    [missing] = select([RUN], make_selector(name, options)).unlabelled
    return missing.reason


def test_a_dict_scores_the_steps_that_it_names(mine):
    found = labels(mine(returning("{2: 0.5, 4: 3}")))
    assert {key: label.score for key, label in found.items()} == {2: 0.5, 3: None, 4: 3.0}
    assert {key: label.kind for key, label in found.items()} == {2: None, 3: Kind.NONE, 4: None}


@pytest.mark.parametrize(
    "text",
    [
        "[0.5, None, 3]",
        "(0.5, None, 3.0)",
        "{2: 0.5, 3: None, 4: 3}",
        "__import__('numpy').array([0.5, None, 3], dtype=object)",
        "[__import__('numpy').float32(0.5), None, __import__('numpy').int64(3)]",
        "{__import__('numpy').int64(2): 0.5, 4: 3.0}",
    ],
)
def test_lists_tuples_and_arrays_have_one_score_for_each_step(mine, text):
    found = labels(mine(returning(text)))
    assert {key: label.score for key, label in found.items()} == {2: 0.5, 3: None, 4: 3.0}
    assert found[3].kind is Kind.NONE


def test_an_array_of_scores_is_a_list(mine):
    text = "__import__('numpy').arange(3) / 2"
    assert [label.score for label in labels(mine(returning(text))).values()] == [0.0, 0.5, 1.0]


LABELS = """
from atlas_tune.trajectory import Kind, LabelSource, StepLabel

def label(trajectory):
    me = LabelSource("me")
    return [
        StepLabel(trajectory.trajectory_id, 4, Kind.CRITICAL_ACTION, me, None, "opens", "open"),
        StepLabel("", 2, "plan_creation", me),
    ]
"""


def test_own_labels_keep_order_kind_reason_and_quote(mine):
    selector = make_selector(mine(LABELS))
    one, two, three = selector.label(RUN)
    assert (one.step_id, one.kind, one.reason, one.quote) == (4, "critical_action", "opens", "open")
    assert (two.step_id, two.kind, two.trajectory_id) == (2, "plan_creation", RUN.trajectory_id)
    assert (three.step_id, three.kind) == (3, Kind.NONE)
    assert {label.source for label in (one, two, three)} == {selector.source}
    [selection] = select([RUN], selector, share=0.4).selections
    assert selection.step_ids == (4,)


def test_an_empty_answer_says_that_nothing_is_critical(mine):
    for text in ("{}", "[]"):
        [selection] = select([RUN], make_selector(mine(returning(text)))).selections
        assert selection.step_ids == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("None", "it is a NoneType, and wanted is a dict of scores by step id"),
        ("'high'", "it is a str"),
        ("(i for i in [1.0])", "it is a generator"),
        ("[1.0, 2.0]", "it is a list of 2, and the trajectory has 3 agent steps"),
        ("{1: 1.0}", "step 1 is not one of the agent's own steps, which are 2, 3, 4"),
        ("{'2': 1.0}", "'2' is no step id"),
        ("{True: 1.0}", "True is no step id"),
        ("{2: float('nan')}", "step 2 has the score nan, which is no finite number"),
        ("[0, 1, float('inf')]", "step 4 has the score inf"),
        ("{2: 'high'}", "step 2 has the score 'high', which is no finite number"),
        ("[[1], [2], [3]]", "step 2 has the score [1], which is no finite number"),
        ("[True, False, True]", "step 2 has the score True: give a number, or None"),
        ("[SAID(2), SAID(2)]", "step 2 has two labels"),
        ("[SAID(9)]", "step 9 is not one of the agent's own steps"),
        ("[SAID(2, 'vital')]", "step 2 has the kind 'vital'; known: plan_creation, "),
        ("[SAID(2, None, 'x')]", "step 2 has the score 'x'"),
        ("[SAID(2, None, 1.0, 5)]", "step 2 has 5 where a text is wanted"),
        ("[SAID(2, trajectory='other')]", "the label of step 2 is of another trajectory"),
    ],
)
def test_what_is_no_labels_leaves_the_run_out_with_the_reason(mine, text, words):
    head = (
        "from atlas_tune.trajectory import LabelSource, StepLabel\n"
        "def SAID(step, kind=None, score=None, reason=None, trajectory=''):\n"
        "    return StepLabel(trajectory, step, kind, LabelSource('me'), score, reason)\n"
    )
    told = reason(mine(head + returning(text)))
    assert told.startswith("what mine.py:label returned is no labels: ")
    assert words in told


FAILING = """
def deeper(step):
    return step.observations

def label(trajectory):
    return [deeper(step) for step in trajectory.agent_steps]
"""


def test_an_exception_is_told_with_its_line_and_the_other_runs_go_on(mine, tmp_path):
    told = reason(mine(FAILING))
    assert told.startswith(f"mine.py:label failed: {tmp_path}/mine.py:3: AttributeError: 'Step'")
    # An error raised inside a library is told at the line of the user's file that called it.
    json_error = "import json\ndef label(trajectory):\n    return json.loads('{')\n"
    assert f"{tmp_path}/mine.py:3: JSONDecodeError: Expecting" in reason(mine(json_error))
    assert "mine.py:2: SystemExit: 3" in reason(mine("def label(t):\n    raise SystemExit(3)\n"))
    picky = (
        "def label(t):\n    if t.task_id == 'bad': raise ValueError('no\\nthanks')\n    return {}"
    )
    bad = Trajectory.create(RUN.steps, task_id="bad")
    chosen = select([bad, RUN], make_selector(mine(picky)))
    assert [s.trajectory_id for s in chosen.selections] == [RUN.trajectory_id]
    assert chosen.unlabelled[0].reason.endswith("ValueError: no")


def test_a_function_can_leave_a_run_out_or_stop_all(mine):
    leave = "from atlas_tune.select import CannotLabel\ndef label(t): raise CannotLabel('too odd')"
    assert reason(mine(leave)) == "too odd"
    stop = "from atlas_tune.errors import AtlasError\ndef label(t): raise AtlasError('no server')"
    with pytest.raises(AtlasError, match="no server") as raised:
        select([RUN], make_selector(mine(stop)))
    assert not isinstance(raised.value, CannotLabel)


OPTIONS = "def label(trajectory, window=3, *, weight): return [window, weight, 0]"


def test_options_are_keywords_of_the_function(mine):
    found = labels(mine(OPTIONS), weight=2.5)
    assert [label.score for label in found.values()] == [3.0, 2.5, 0.0]


def test_options_that_the_function_does_not_take_are_refused_at_once(mine):
    with pytest.raises(UsageError, match=r"mine.py:label .*label\(trajectory, window=3.*'widow'"):
        make_selector(mine(OPTIONS), {"weight": 1, "widow": 2})
    with pytest.raises(UsageError, match=r"missing a required argument: 'weight'"):
        make_selector(mine(OPTIONS))
    with pytest.raises(UsageError, match=r"options trajectory, weight.*multiple values"):
        make_selector(mine(OPTIONS), {"trajectory": 1, "weight": 1})
    every = mine("def label(trajectory, **options): return [len(options)] * 3")
    assert labels(every, a=1, b=[2], c={"d": None})[2].score == 3.0


def test_an_option_that_is_no_json_value_is_refused(mine):
    name = mine("def label(trajectory, **options): return {}")
    with pytest.raises(UsageError, match=r"option 'day' .* is a date, which cannot be kept"):
        selector_options(name, {"day": __import__("datetime").date(2026, 1, 1)})


@pytest.mark.parametrize(
    ("body", "function", "words"),
    [
        ("def lable(t): pass", "label", "does not exist: did you mean 'lable'?"),
        ("x = 1", "label", r"mine.py:label does not exist\."),
        ("label = 5", "label", "mine.py:label is not a function"),
        ("import nothing_there", "label", "mine.py:1: ModuleNotFoundError: No module named"),
        ("\ndef label(:\n", "label", "mine.py:2: SyntaxError: "),
        ("1 / 0", "label", "mine.py:1: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(2)", "label", "mine.py:2: SystemExit: 2"),
        ("", "two words", "names no function: write the file, a colon and the function"),
    ],
)
def test_what_cannot_be_imported_is_said(mine, body, function, words):
    with pytest.raises(UsageError, match=words):
        make_selector(mine(body, function))


def test_bytes_that_are_no_python_and_files_that_are_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"There is no file .*none.py"):
        make_selector(f"{tmp_path}/none.py:label")
    (tmp_path / "odd.py").write_bytes(b"x = '\xff'")
    with pytest.raises(UsageError, match=r"odd.py.*SyntaxError"):
        make_selector(f"{tmp_path}/odd.py:label")


def test_a_name_that_is_nobodys_lists_the_known_ones():
    with pytest.raises(UsageError, match="no selector 'replya': did you mean 'replay'"):
        make_selector("replya")


def test_a_file_can_import_what_lies_beside_it_and_define_dataclasses(mine, tmp_path):
    (tmp_path / "beside_mine.py").write_text("SCORE = 4.0")
    body = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "import beside_mine\n@dataclass\nclass A:\n    score: float\n"
        "def label(trajectory): return [A(beside_mine.SCORE).score] * 3"
    )
    assert labels(mine(body))[2].score == 4.0
    assert str(tmp_path) not in sys.path


def test_the_source_is_the_text_and_the_options_and_not_the_place(mine, tmp_path):
    one = make_selector(mine(OPTIONS), {"weight": 1}).source
    assert one.name == "mine.py:label"
    (tmp_path / "sub").mkdir()
    assert make_selector(mine(OPTIONS, file="sub/mine.py"), {"weight": 1}).source == one
    assert make_selector(mine(OPTIONS), {"weight": 2}).source != one
    assert make_selector(mine(OPTIONS + "\n# another text"), {"weight": 1}).source != one


def test_checking_options_runs_nothing(mine):
    name = mine("raise SystemExit('I was run')")
    assert selector_options(name, {"a": 1}).model_dump() == {"a": 1}


PLUGIN = """
from atlas_tune.trajectory import Trajectory

def last(trajectory: Trajectory, by=1.0):
    return [by * place for place in range(len(trajectory.agent_steps))]

not_a_function = 5
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """An installed package, as its files lie on disk, that gives selectors by entry points."""

    def install(points, name="atlas-plugin", version="1.5"):
        (tmp_path / "atlas_plugin_code.py").write_text(PLUGIN)
        info = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[atlas_tune.selectors]\n{points}\n")

    monkeypatch.syspath_prepend(tmp_path)
    yield install
    sys.modules.pop("atlas_plugin_code", None)


def test_an_installed_package_gives_a_selector_a_name(plugin):
    plugin("plugged = atlas_plugin_code:last")
    selector = make_selector("plugged", {"by": 2.0})
    assert [label.score for label in selector.label(RUN)] == [0.0, 2.0, 4.0]
    assert selector.name == "plugged"
    with pytest.raises(UsageError, match=r"did you mean 'plugged'.*replay"):
        make_selector("pluged")
    with pytest.raises(UsageError, match=r"The selector plugged is called .*'bye'"):
        make_selector("plugged", {"bye": 2.0})


def test_the_packages_version_is_part_of_the_source(plugin, tmp_path):
    plugin("plugged = atlas_plugin_code:last")
    before = make_selector("plugged").source
    for file in (tmp_path / "atlas_plugin-1.5.dist-info").iterdir():
        file.unlink()
    (tmp_path / "atlas_plugin-1.5.dist-info").rmdir()
    plugin("plugged = atlas_plugin_code:last", version="1.6")
    assert make_selector("plugged").source != before


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ("plugged = atlas_plugin_code:first", "'plugged' .* cannot be imported: .*AttributeError"),
        ("plugged = no_such_module:last", "'plugged' .* cannot be imported: .*No module named"),
        ("plugged = atlas_plugin_code:not_a_function", "is not a function"),
    ],
)
def test_a_package_that_is_broken_is_named(plugin, points, words):
    plugin(points)
    with pytest.raises(UsageError, match=words):
        make_selector("plugged")


def test_a_name_that_two_packages_give_is_refused_and_own_names_come_first(plugin):
    plugin("plugged = atlas_plugin_code:last\nfirst = atlas_plugin_code:last")
    plugin("plugged = atlas_plugin_code:last", name="other-plugin")
    with pytest.raises(UsageError, match="given by atlas-plugin and by other-plugin: remove one"):
        make_selector("plugged")
    assert make_selector("first").version == "1"


RECIPE = """
name: small
data: [{import: runs.jsonl}]
arms:
  - {name: mine, selector: ./mine.py:label, options: {window: 5}}
evaluate: {environments: [{environment: textcraft, tasks: 4}]}
"""


def test_a_recipe_names_a_file_relative_to_itself_and_runs_nothing(tmp_path, monkeypatch):
    place = tmp_path / "recipes"
    place.mkdir()
    (place / "recipe.yaml").write_text(RECIPE)
    with pytest.raises(UsageError, match=r"recipe.yaml: There is no file .*recipes/mine.py"):
        load_recipe(place / "recipe.yaml")
    (place / "mine.py").write_text("raise SystemExit('I was run')")
    [arm] = load_recipe(place / "recipe.yaml").arms
    assert (arm.selector, arm.options) == (f"{place}/mine.py:label", {"window": 5})
    monkeypatch.chdir(tmp_path)
    assert load_recipe(Path("recipes/recipe.yaml")).arms[0].selector == "recipes/mine.py:label"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


def test_the_example_of_the_docs_runs_on_the_command_line(tmp_path):
    [code] = blocks("python")
    [command] = blocks("sh")
    (tmp_path / "mine.py").write_text(code)
    write_trajectories(tmp_path / "runs.jsonl", [RUN])
    words = command.split()
    assert words[0] == "atlas-tune"
    ended = subprocess.run(
        [sys.executable, "-m", "atlas_tune", *words[1:], "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(ended.stdout)["selected_steps"] == 1
    # By hand: "a red door" is three new words, then none, then "room with chest" three of five.
    said = {
        label.step_id: label.score
        for label in read_labels(tmp_path / "selection.jsonl.labels.jsonl")
    }
    assert said == {2: 3.0, 3: 0.0, 4: 3.0}
    [selection] = read_selections(tmp_path / "selection.jsonl").values()
    assert selection.step_ids in ((2,), (4,))


def test_the_recipes_of_the_docs_are_valid(tmp_path):
    (tmp_path / "mine.py").write_text(blocks("python")[0])
    arms = "arms:\n" + "".join(block.removeprefix("arms:\n") for block in blocks("yaml"))
    path = tmp_path / "recipe.yaml"
    path.write_text(re.sub(r"arms:\n.*?\n(?=evaluate)", lambda _: arms, RECIPE, flags=re.DOTALL))
    names = [arm.name for arm in load_recipe(path).arms]
    assert names == ["news", "necessary-news"]
    [package] = blocks("toml")
    assert package.startswith(f'[project.entry-points."{GROUP}"]\n')
