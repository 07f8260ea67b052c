"""Which environments are told, what is told of those that lack something, and what it costs."""

import json
import os
import subprocess
import sys
import time

from atlas_tune.environments import ENVIRONMENT_NAMES

ENVS = [sys.executable, "-m", "atlas_tune", "envs", "--json"]


def test_each_environment_is_told_with_what_it_offers(call):
    code, printed, _ = call("envs", "textcraft", "--json")
    assert code == 0
    assert json.loads(printed) == [
        {
            "name": "textcraft",
            "available": True,
            "tasks": {"train": 1496, "test": 577},
            "max_steps": 20,
            "metric": "success",
        },
    ]
    _, printed, told = call("envs", "textcraft")
    assert "train 1,496, test 577" in printed
    assert told == ""


def test_nothing_is_started_and_what_is_missing_is_said(tmp_path):
    """On a machine without Java, data and packs; a java that is found leaves a mark if it runs."""
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexit 1\n")
    java.chmod(0o755)
    environment = {
        **os.environ,
        "ATLAS_TUNE_DATA": str(tmp_path / "none"),
        "ATLAS_TUNE_CACHE": str(tmp_path / "cache"),
        "PATH": f"{java.parent}:{os.environ['PATH']}",
    }
    environment.pop("ALFWORLD_DATA", None)
    started = time.monotonic()
    done = subprocess.run(ENVS, env=environment, capture_output=True, timeout=60)
    assert time.monotonic() - started < 30
    assert (done.returncode, done.stderr) == (0, b"")
    found = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert tuple(found) == ENVIRONMENT_NAMES
    assert found["alfworld"]["available"] is False
    assert "Set ALFWORLD_DATA" in found["alfworld"]["missing"]
    assert found["textcraft"]["available"] is True
    assert found["scienceworld"]["tasks"] == {"train": None, "dev": None, "test": None}
    assert not (tmp_path / "started").exists()


def test_games_that_would_have_to_be_packed_are_not_counted(tmp_path):
    (tmp_path / "json_2.1.1" / "train").mkdir(parents=True)
    environment = {
        **os.environ,
        "ALFWORLD_DATA": str(tmp_path),
        "ATLAS_TUNE_CACHE": str(tmp_path / "cache"),
    }
    done = subprocess.run([*ENVS, "alfworld"], env=environment, capture_output=True, timeout=60)
    assert json.loads(done.stdout)[0]["tasks"] == dict.fromkeys(
        ("train", "valid_train", "valid_seen", "test")
    )
    assert not (tmp_path / "cache").exists()


def test_a_missing_package_is_named_with_its_remedy(tmp_path):
    code = (
        "import sys\n"
        "class Without:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'minigrid':\n"
        "            raise ModuleNotFoundError(f'No module named {name}', name=name)\n"
        "sys.meta_path.insert(0, Without())\n"
        "from atlas_tune.cli.envs import describe\n"
        "import json; print(json.dumps([describe('babyai'), describe('textcraft')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    babyai, textcraft = json.loads(done.stdout)
    assert babyai["available"] is False
    assert "pip install 'atlas-tune[environments]'" in babyai["missing"]
    assert textcraft["available"] is True


def test_a_server_is_told_when_it_is_named(call):
    code, printed, _ = call("envs", "agentgym:alfworld@http://127.0.0.1:9", "--json")
    (entry,) = json.loads(printed)
    assert (code, entry["available"], entry["max_steps"]) == (0, True, 30)
    code, printed, _ = call("envs", "agentgym:plain@http://127.0.0.1:9", "--json")
    (entry,) = json.loads(printed)
    assert (code, entry["available"], "127.0.0.1:9" in entry["missing"]) == (0, False, True)
    code, _, told = call("envs", "textcrat")
    assert (code, "did you mean 'textcraft'?" in told) == (2, True)
