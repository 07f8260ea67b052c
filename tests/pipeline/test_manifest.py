import pytest

from atlas_tune.errors import AtlasError
from atlas_tune.pipeline.manifest import Manifest, State
from atlas_tune.pipeline.stage import Stage


class Doubling:
    """Writes one file from another and counts how often it ran."""

    def __init__(self, directory):
        self.directory, self.runs = directory, 0
        self.source, self.target = directory / "in.txt", directory / "out.txt"
        self.source.write_text("1")

    def work(self):
        self.runs += 1
        self.target.write_text(self.source.read_text() * 2)
        return {"runs": self.runs}

    def stage(self, settings=None, work=None, appended=()):
        return Stage(
            "s",
            lambda: settings or {},
            work or self.work,
            inputs=(self.source,),
            outputs=(self.target,),
            appended=appended,
            like=("doubling",),
        )

    def go(self, settings=None, work=None):
        manifest = Manifest(self.directory)
        manifest.do(self.stage(settings, work))
        return manifest.returned("s")

    def state(self, settings=None):
        return Manifest(self.directory).state(self.stage(settings))


@pytest.fixture
def stage(tmp_path):
    return Doubling(tmp_path)


def test_a_stage_runs_once_and_keeps_what_it_returned(stage):
    assert [stage.go(), stage.go(), stage.go()] == [{"runs": 1}] * 3


def test_a_changed_setting_runs_it_again(stage):
    stage.go({"budget": 0.3})
    stage.go({"budget": 0.5})
    assert stage.runs == 2


def test_what_people_have_added_to_stays_when_a_setting_changes(stage):
    stage.go({"budget": 0.3})
    stage.target.write_text("corrected")
    found = []
    look = lambda: found.append(stage.target.read_text())  # noqa: E731
    changed = stage.stage({"budget": 0.5}, work=look, appended=(stage.target,))
    Manifest(stage.directory).do(changed)
    assert found == ["corrected"]


def test_a_stage_holds_while_nothing_it_rests_on_has_changed(stage):
    assert not Manifest(stage.directory).holds(stage.stage())
    stage.go()
    assert Manifest(stage.directory).holds(stage.stage())
    assert not Manifest(stage.directory).holds(stage.stage({"budget": 0.5}))
    stage.source.write_text("2")
    assert not Manifest(stage.directory).holds(stage.stage())


def test_a_changed_input_runs_it_again(stage):
    stage.go()
    stage.source.write_text("2")
    stage.go()
    assert (stage.runs, stage.target.read_text()) == (2, "22")


def test_a_lost_or_edited_output_is_made_again(stage):
    stage.go()
    stage.target.unlink()
    stage.go()
    stage.target.write_text("edited")
    stage.go()
    assert (stage.runs, stage.target.read_text()) == (3, "11")


@pytest.mark.parametrize(("appended", "left"), [(False, False), (True, True)])
def test_what_was_edited_after_the_stage_is_not_gone_on_with(stage, appended, left):
    stage.go()
    stage.target.write_text("edited")
    found = []
    kept = (stage.target,) if appended else ()
    look = lambda: found.append(stage.target.exists())  # noqa: E731
    Manifest(stage.directory).do(stage.stage(work=look, appended=kept))
    assert found == [left]


def test_a_reopened_stage_goes_on_with_what_is_there(stage):
    stage.go()
    manifest = Manifest(stage.directory)
    manifest.reopen("s")
    assert manifest.returned("s") == {"runs": 1}
    found = []
    stage.go(work=lambda: found.append(stage.target.read_text()))
    assert found == ["11"]


def test_the_circumstances_of_the_last_work_are_kept(stage):
    for command in ("first", "again"):
        manifest = Manifest(stage.directory, {"command": command})
        manifest.do(stage.stage())
    assert manifest.latest()["command"] == "first"


def test_a_broken_manifest_is_one_sentence(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(AtlasError, match="remove it"):
        Manifest(tmp_path)


def kill(stage):
    def work():
        stage.target.write_text("half")
        raise KeyboardInterrupt

    return work


def test_a_killed_stage_finds_its_unfinished_output(stage):
    with pytest.raises(KeyboardInterrupt):
        stage.go(work=kill(stage))
    found = []
    stage.go(work=lambda: found.append(stage.target.read_text()))
    assert found == ["half"]


def test_a_killed_stage_whose_settings_change_starts_from_nothing(stage):
    with pytest.raises(KeyboardInterrupt):
        stage.go({"seed": 0}, work=kill(stage))
    found = []
    stage.go({"seed": 1}, work=lambda: found.append(stage.target.exists()))
    assert found == [False]


def test_a_directory_is_an_output_too(tmp_path):
    manifest, folder, runs = Manifest(tmp_path), tmp_path / "model", []

    def work():
        runs.append(1)
        folder.mkdir(exist_ok=True)
        (folder / "weights").write_text("w")

    model = Stage("m", dict, work, outputs=(folder,))
    for _ in range(2):
        manifest.do(model)
    (folder / "weights").write_text("other")
    manifest.do(model)
    assert len(runs) == 2


def test_weights_may_go_and_the_stage_stays_done_until_it_is_forgotten(tmp_path):
    manifest, folder = Manifest(tmp_path), tmp_path / "model"

    def work():
        folder.mkdir(exist_ok=True)
        (folder / "w.safetensors").write_text("w")
        (folder / "metrics.jsonl").write_text("{}")
        return {"digest": "d"}

    model = Stage("m", dict, work, outputs=(folder,))
    manifest.do(model)
    manifest.thin(model, "*.safetensors")
    assert [path.name for path in folder.iterdir()] == ["metrics.jsonl"]
    again = Manifest(tmp_path)
    assert (again.do(model), again.was_thinned("m"), again.state(model)) == (
        False,
        True,
        State.DONE,
    )
    assert again.returned("m") == {"digest": "d"}
    again.forget("m")
    assert (again.do(model), again.was_thinned("m")) == (True, False)
    assert (folder / "w.safetensors").is_file()


def test_the_state_of_a_stage_is_told_without_changing_anything(stage):
    assert stage.state() is State.NEW
    with pytest.raises(KeyboardInterrupt):
        stage.go(work=kill(stage))
    assert stage.state() is State.BEGUN
    stage.go()
    assert stage.state() is State.DONE
    assert stage.state({"budget": 0.5}) is State.CHANGED
    stage.source.write_text("2")
    assert stage.state() is State.CHANGED
    assert stage.runs == 1
    stage.source.unlink()
    assert stage.state() is State.CHANGED


def test_a_stage_that_comes_after_an_unfinished_one_is_to_do(tmp_path):
    manifest, asked = Manifest(tmp_path), []
    later = Stage("later", lambda: asked.append(1) or {}, dict, after=("first",))
    manifest.do(later)
    assert (manifest.state(later), len(asked)) == (State.NEW, 1)
    manifest.do(Stage("first", dict, dict))
    assert manifest.state(later) is State.DONE


def test_a_duration_is_kept_under_what_it_is_like(stage):
    stage.go()
    (seconds,) = Manifest(stage.directory).seconds_like("doubling")
    assert 0 <= seconds < 10
    assert Manifest(stage.directory).seconds_like("halving") == []
