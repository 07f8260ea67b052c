"""torchrun with two processes gives what one process gives."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from atlas_tune.tune.processes import parts_of
from atlas_tune.tune.rows import Row
from tune import in_processes

SCRIPT = Path(in_processes.__file__)


@pytest.fixture(scope="module")
def by_two(tmp_path_factory):
    """What two processes left behind."""
    directory = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*command, "--nproc-per-node", "2", str(SCRIPT), str(directory)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ddp", "fsdp2"])
def test_two_processes_give_the_gradients_of_one(by_two, how):
    wanted = in_processes.gradients()
    for rank in (0, 1):
        found = torch.load(by_two / f"{how}-{rank}.pt", weights_only=True)
        for one, other in zip(found, wanted, strict=True):
            assert one.keys() == other.keys()
            for name, gradient in other.items():
                # Norms compute in float32 even so.
                torch.testing.assert_close(one[name], gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_two_processes_train_the_weights_of_one(by_two, tmp_path):
    in_processes.tuned(tmp_path)
    told, alone = (json.loads((at / "told.json").read_text()) for at in (by_two, tmp_path))
    assert [step["loss"] for step in told] == pytest.approx([s["loss"] for s in alone], rel=1e-6)
    assert ({s["processes"] for s in told}, {s["processes"] for s in alone}) == ({2}, {1})
    weights, others = (load_file(at / "model.safetensors") for at in (by_two, tmp_path))
    assert weights.keys() == others.keys()
    for name, weight in others.items():
        torch.testing.assert_close(weights[name], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(
    torch.accelerator.is_available(), reason="there is a GPU to deal weights out on"
)
def test_weights_are_not_dealt_out_over_cpus(by_two):
    for rank in (0, 1):
        assert "tune.sharded needs GPUs" in (by_two / f"refused-{rank}").read_text()


def row(*ids):
    return Row("t", ids, (), len(ids))


def test_processes_get_like_shares_of_rows_that_begin_alike():
    rows = [row(1, *[i] * 9) for i in range(6)] + [row(2, *[i] * 9) for i in range(6)]
    first, second = parts_of(rows[::-1], 2)
    assert {one.input_ids[0] for one in first} == {1}
    assert {one.input_ids[0] for one in second} == {2}
    assert [len(part) for part in parts_of(rows, 3)] == [4, 4, 4]
    assert sorted(r.input_ids for part in parts_of(rows, 5) for r in part) == sorted(
        r.input_ids for r in rows
    )


def test_fewer_rows_than_processes_leave_some_without():
    assert sorted(len(part) for part in parts_of([row(1, 2)], 3)) == [0, 0, 1]
    assert parts_of([row(1), row(2, *[3] * 50)], 2) == [[row(1)], [row(2, *[3] * 50)]]
