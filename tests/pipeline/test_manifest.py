import pytest

from atlas_tune.errors import AtlasError
from atlas_tune.pipeline.manifest import Manifest


class Stage:
    """Writes one file from another and counts how often it ran."""

    def __init__(self, directory):
        self.directory, self.runs = directory, 0
        self.source, self.target = directory / "in.txt", directory / "out.txt"
        self.source.write_text("1")

    def work(self):
        self.runs += 1
        self.target.write_text(self.source.read_text() * 2)
        return {"runs": self.runs}

    def go(self, settings=None, work=None):
        manifest = Manifest(self.directory)
        manifest.stage("s", settings or {}, [self.source], [self.target], work or self.work)
        return manifest.returned("s")


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path)


def test_a_stage_runs_once_and_keeps_what_it_returned(stage):
    assert [stage.go(), stage.go(), stage.go()] == [{"runs": 1}] * 3


def test_a_changed_setting_runs_it_again(stage):
    stage.go({"budget": 0.3})
    stage.go({"budget": 0.5})
    assert stage.runs == 2


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
    Manifest(stage.directory).stage(
        "s",
        {},
        [stage.source],
        [stage.target],
        lambda: found.append(stage.target.exists()),
        appended=[stage.target] if appended else [],
    )
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
        manifest.stage("s", {}, [stage.source], [stage.target], stage.work)
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

    for _ in range(2):
        manifest.stage("m", {}, [], [folder], work)
    (folder / "weights").write_text("other")
    manifest.stage("m", {}, [], [folder], work)
    assert len(runs) == 2
