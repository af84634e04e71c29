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

SIDE = 4096
VALUES = 1 << 26
MIB = 1 << 20
#: Most MiB that a process may have in memory, imports included (some 300).
LIMIT = 500
#: What the issue asks for: at least so many times numpy's rate, at most so many times cat's time.
RATES = {"numba": 5.0, "torch": 1.5}
TIMES = {"numba": 3.0, "torch": 8.0}


def use(path: str) -> None:
    """Count with numba, or without."""
    from jaynes_callbacks.counts import kernels

    if path == "torch":
        kernels._compiled_loops = lambda: None  # type: ignore[assignment]
    elif kernels._compiled_loops() is None:
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


def counting(repeats: str) -> None:
    """Codes, maximum and the paper's bins of one array, against one `numpy.histogram` of it."""
    import numpy as np
    import torch

    from jaynes_callbacks.counts import kernels
    from jaynes_callbacks.files.streaming import slice_counter

    values = torch.randn(VALUES, generator=torch.Generator().manual_seed(0)) * 0.02
    array = values.numpy()
    print(f"counting {VALUES:,} float32 values; times the rate of numpy.histogram(values, 100)")
    compiled, answers = kernels._compiled_loops, []
    for path in RATES:
        kernels._compiled_loops = compiled
        use(path)
        with slice_counter() as counter:
            answers.append(counter.count(values, mapped=False))
            ratios = []
            for _ in range(int(repeats)):
                numpy = seconds(lambda: np.histogram(array, 100))
                ours = seconds(lambda counter=counter: counter.count(values, mapped=False))  # type: ignore[misc]
                ratios.append(numpy / ours)
        print(f"  {path:6} {spread(ratios)}   (asked for: {RATES[path]})")
    kernels._compiled_loops = compiled
    assert all(torch.equal(*pair) for pair in zip(*answers, strict=True)), "the paths differ"
    assert answers[0].counts.sum() == VALUES


def make(path: str, gigabytes: str, name: str) -> None:
    """Write random layers of 4096×4096 of one dtype as safetensors."""
    import torch
    from safetensors.torch import save_file

    dtype = getattr(torch, name)
    source = torch.Generator().manual_seed(0)
    number = max(1, int(float(gigabytes) * 1e9 // (SIDE * SIDE * dtype.itemsize)))
    state = {
        f"layers.{layer}.mlp.weight": torch.randn(SIDE, SIDE, generator=source).to(dtype)
        for layer in range(number)
    }
    save_file(state, path)


def scales() -> None:
    """Counting the core of one weight, against counting the weight itself."""
    import torch

    from jaynes_callbacks.counts.counting import count
    from jaynes_callbacks.counts.two_way import two_way

    torch.set_num_threads(1)
    weights = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    # Gaussian values may be zero in float32, which would mean two passes more.
    weights[weights == 0] = 1
    count(weights), two_way(weights)
    ratios = [
        seconds(lambda: two_way(weights)) / seconds(lambda: count(weights)) for _ in range(15)
    ]
    print(f"core of a layer of {SIDE}×{SIDE}; times the counting pass: {spread(ratios)}")
    assert two_way(weights)[0].sum() == SIDE * SIDE
    assert statistics.median(ratios) < 3, "the core costs more than three counting passes"


def child(path: str, mode: str, with_scales: str = "yes") -> None:
    """Measure one file in this process; print what it took."""
    import_time = seconds(lambda: __import__("jaynes_callbacks.api"))
    from jaynes_callbacks import measure_checkpoint

    use(mode)
    start, busy = time.perf_counter(), time.process_time()
    records = measure_checkpoint(path, scales=with_scales == "yes")
    took, busy = time.perf_counter() - start, time.process_time() - busy
    answer = [[row.name, row.n + row.zeros, row.counts.tolist()] for row in records]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        json.dumps(
            {"took": took, "busy": busy, "import": import_time, "peak": peak, "answer": answer}
        )
    )


def in_process(part: str, *arguments: object) -> None:
    """Run a function of this file in a process of its own."""
    command = [sys.executable, __file__, "--part", part, *map(str, arguments)]
    subprocess.run(command, check=True)


def in_child(path: Path, mode: str, with_scales: str = "yes") -> dict[str, Any]:
    """Run `child` and give what it printed, with the seconds of the whole process."""
    command = [sys.executable, __file__, "--part", "child", str(path), mode, with_scales]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {**json.loads(done.stdout), "process": time.perf_counter() - start}


def cat(path: Path) -> float:
    """Seconds to read the file from the page cache."""
    with Path("/dev/null").open("wb") as nowhere:
        return seconds(lambda: subprocess.run(["cat", str(path)], stdout=nowhere, check=True))


def whole_file(path: Path, repeats: int) -> float:
    """Time over `cat`, and peak memory; the fast path's seconds."""
    size = path.stat().st_size
    print(f"a file of {size / 1e9:.2f} GB, layers of {SIDE}×{SIDE}; times cat's seconds")
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
            f"the process with its imports {spread(process)}; "
            f"{statistics.median(one['busy'] for one in found):.2f} s of CPU"
        )
        peak = max(one["peak"] for one in found) / MIB
        print(f"         peak memory {peak:.0f} MiB (asked for: below {LIMIT:.0f})")
    pairs = [(in_child(path, "numba"), in_child(path, "numba", "no")) for _ in range(repeats)]
    ratios = [one["took"] / other["took"] for one, other in pairs]
    peak = max(one["peak"] for one, _ in pairs) / MIB
    print(f"  with scales, times without: {spread(ratios)}; peak memory {peak:.0f} MiB")
    assert statistics.median(ratios) < 2.5, "scales cost more than 2.5 times the time without"
    assert peak < 500, "scales take more than 500 MiB"
    assert answers[0] == answers[1], "the paths differ"
    assert all(n == SIDE * SIDE for _, n, _ in answers[0]), "values were lost"
    return medians["numba"]


def weightwatcher(ours: float) -> None:
    """One layer in WeightWatcher against our whole file."""
    try:
        import weightwatcher
    except ImportError:
        print("WeightWatcher is not installed (pip install 'jaynes-callbacks[bench]'): no figure")
        return
    import torch

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
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        part, *arguments = options.part
        {"counting": counting, "scales": scales, "make": make, "child": child}[part](*arguments)
        return
    # In a process of its own: a child's peak begins with its parent's, so this one stays small.
    in_process("counting", options.repeats)
    in_process("scales")
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        path = Path(directory) / "model.safetensors"
        in_process("make", path, options.gigabytes, options.dtype)
        ours = whole_file(path, options.repeats)
    weightwatcher(ours)


if __name__ == "__main__":
    main()
