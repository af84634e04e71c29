"""Several processes as ranks of one run."""

import multiprocessing
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

#: A collective that another rank never enters is an error after so long, and a test after twice it.
_PATIENCE = timedelta(seconds=60)

# Processes are forked from one that has imported all this, and has run nothing.
multiprocessing.set_forkserver_preload(
    ["torch.distributed.fsdp", "lightning", "jaynes_callbacks.run.monitor", "pandas"]
)

Ranks = Callable[..., list[Any]]


def _rank(rank: int, function: Callable[..., Any], size: int, path: Path, args: Any) -> None:
    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank)}  # Lightning then starts no processes of its own
    dist.init_process_group("gloo", f"file://{path}/store", _PATIENCE, rank=rank, world_size=size)
    torch.save(function(*args), path / f"result-{rank}")
    dist.destroy_process_group()


@pytest.fixture
def ranks(tmp_path: Path) -> Ranks:
    """Call a function in several processes of one gloo group; what each of them returned."""

    def call(function: Callable[..., Any], *args: Any, size: int = 2) -> list[Any]:
        path = tmp_path / f"ranks-{len(list(tmp_path.glob('ranks-*')))}"
        path.mkdir()
        context = mp.start_processes(
            _rank, (function, size, path, args), size, join=False, start_method="forkserver"
        )
        assert context is not None
        deadline = time.monotonic() + 2 * _PATIENCE.total_seconds()
        while not context.join(timeout=1):
            if time.monotonic() > deadline:
                for process in context.processes:
                    process.kill()
                pytest.fail(f"{function.__name__} hangs")
        return [torch.load(path / f"result-{rank}", weights_only=False) for rank in range(size)]

    return call
