"""What measuring a checkpoint costs: counting, a file of 4 GB, memory, and beside WeightWatcher.

The file is made of random tensors and deleted at the end.  Each measurement of it is a process of
its own, in turn with `cat` of the same file, which is in the page cache; the answers are asserted.

    python benchmarks/bench_checkpoints.py [--gigabytes 4] [--repeats 5] [--dtype float32]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jaynes_callbacks import passes
from jaynes_callbacks.sources.streaming import slice_counter

SIDE = 4096
VALUES = 1 << 26
MIB = 1 << 20
#: What the issue asks for: at least so many times numpy's rate, at most so many times cat's time.
RATES = {"numba": 5.0, "torch": 1.5}
TIMES = {"numba": 3.0, "torch": 8.0}


def use(path: str) -> None:
    """Count with numba, or without."""
    if path == "torch":
        passes._compiled_loops = lambda: None  # type: ignore[assignment]
    elif passes._compiled_loops() is None:
        raise SystemExit("numba is not installed: pip install 'jaynes-callbacks[fast]'")


def seconds(action: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def spread(values: Sequence[float]) -> str:
    """Median and half the interquartile range."""
    quarter, _, three_quarters = statistics.quantiles(values, n=4)
    return f"{statistics.median(values):.2f} ± {(three_quarters - quarter) / 2:.2f}"


def counting(repeats: int) -> None:
    """Codes, maximum and the paper's bins of one array, against one `numpy.histogram` of it."""
    values = torch.randn(VALUES, generator=torch.Generator().manual_seed(0)) * 0.02
    array = values.numpy()
    print(f"counting {VALUES:,} float32 values; times the rate of numpy.histogram(values, 100)")
    compiled, answers = passes._compiled_loops, []
    for path in RATES:
        passes._compiled_loops = compiled
        use(path)
        with slice_counter() as counter:
            answers.append(counter.count(values, mapped=False))
            ratios = []
            for _ in range(repeats):
                numpy = seconds(lambda: np.histogram(array, 100))
                ours = seconds(lambda counter=counter: counter.count(values, mapped=False))  # type: ignore[misc]
                ratios.append(numpy / ours)
        print(f"  {path:6} {spread(ratios)}   (asked for: {RATES[path]})")
    passes._compiled_loops = compiled
    assert all(torch.equal(*pair) for pair in zip(*answers, strict=True)), "the paths differ"
    assert answers[0].counts.sum() == VALUES


def make(path: Path, gigabytes: float, dtype: torch.dtype) -> int:
    """Write random layers of 4096×4096 as safetensors; how many."""
    from safetensors.torch import save_file

    source = torch.Generator().manual_seed(0)
    number = max(1, int(gigabytes * 1e9 // (SIDE * SIDE * dtype.itemsize)))
    state = {
        f"layers.{layer}.mlp.weight": torch.randn(SIDE, SIDE, generator=source).to(dtype)
        for layer in range(number)
    }
    save_file(state, path)
    return number


def child(path: str, mode: str) -> None:
    """Measure one file in this process; print what it took."""
    import_time = seconds(lambda: __import__("jaynes_callbacks.checkpoint"))
    from jaynes_callbacks.checkpoint import measure_checkpoint

    use(mode)
    start = time.perf_counter()
    records = measure_checkpoint(path)
    took = time.perf_counter() - start
    answer = [[row.name, row.n + row.zeros, row.counts.tolist()] for row in records]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"took": took, "import": import_time, "peak": peak, "answer": answer}))


def in_child(path: Path, mode: str) -> dict[str, Any]:
    """Run `child` and give what it printed, with the seconds of the whole process."""
    command = [sys.executable, __file__, "--child", str(path), mode]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {**json.loads(done.stdout), "process": time.perf_counter() - start}


def cat(path: Path) -> float:
    """Seconds to read the file from the page cache."""
    with Path("/dev/null").open("wb") as nowhere:
        return seconds(lambda: subprocess.run(["cat", str(path)], stdout=nowhere, check=True))


def whole_file(path: Path, layers: int, repeats: int) -> float:
    """Time over `cat`, and peak memory; the fast path's seconds."""
    size = path.stat().st_size
    print(f"a file of {size / 1e9:.2f} GB, {layers} layers of {SIDE}×{SIDE}; times cat's seconds")
    cat(path)
    answers, medians = [], {}
    for mode in TIMES:
        in_child(path, mode)
        cats, found = [], []
        for _ in range(repeats):
            cats.append(cat(path))
            found.append(in_child(path, mode))
        answers.append(found[0]["answer"])
        ratios = [one["took"] / read for one, read in zip(found, cats, strict=True)]
        process = [one["process"] / read for one, read in zip(found, cats, strict=True)]
        medians[mode] = statistics.median(one["took"] for one in found)
        print(
            f"  {mode:6} {spread(ratios)}   (asked for: {TIMES[mode]}), "
            f"{medians[mode]:.2f} s against {statistics.median(cats):.2f} s of cat; "
            f"the process with its imports {spread(process)}"
        )
        peak = max(one["peak"] for one in found) / MIB
        print(f"         peak memory {peak:.0f} MiB (asked for: below {limit(size, layers):.0f})")
    assert answers[0] == answers[1], "the paths differ"
    assert all(n == SIDE * SIDE for _, n, _ in answers[0]), "values were lost"
    return medians["numba"]


def limit(size: int, layers: int) -> float:
    """1.2 × the largest slice, one tensor here, and 400 MiB."""
    return 1.2 * size / layers / MIB + 400


def weightwatcher(ours: float) -> None:
    """One layer in WeightWatcher against our whole file."""
    try:
        import weightwatcher
    except ImportError:
        print("WeightWatcher is not installed (pip install 'jaynes-callbacks[bench]'): no figure")
        return
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(SIDE, SIDE, bias=False))
    watcher = weightwatcher.WeightWatcher(model=model)
    theirs = seconds(lambda: watcher.analyze())
    print(
        f"WeightWatcher, one layer of {SIDE}×{SIDE}: {theirs:.1f} s, "
        f"{theirs / ours:.1f} times our whole file"
    )


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--directory", type=Path, help="where the file is made")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    counting(options.repeats)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        path = Path(directory) / "model.safetensors"
        layers = make(path, options.gigabytes, getattr(torch, options.dtype))
        ours = whole_file(path, layers, options.repeats)
    weightwatcher(ours)


if __name__ == "__main__":
    main()
