"""A file or a directory has one writer, and a killed one is none."""

import subprocess
import sys

import pytest

from atlas_tune.errors import AtlasError
from atlas_tune.sole_writer import sole_writer

HOLD = """
import sys, time
from pathlib import Path
from atlas_tune.sole_writer import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("name", ["rollouts.jsonl", "run"])
def test_another_process_is_refused_until_the_first_is_gone(tmp_path, name):
    (tmp_path / "run").mkdir()
    path = tmp_path / name
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with (
            pytest.raises(AtlasError, match=rf"Another process is writing .*{name}: wait"),
            sole_writer(path),
        ):
            pass
        other.kill()
    with sole_writer(path):
        pass
    with sole_writer(path):
        pass
