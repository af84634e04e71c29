"""The seven networks of the paper's Table II: where each comes from, and its rows from records.

A network is measured from its files or from the hub; nothing is downloaded unless it is asked for.
"""

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath

from jaynes_callbacks.files.entry import CheckpointError, one_sentence
from jaynes_callbacks.files.formats.archive import map_file, members_of, read_member
from jaynes_callbacks.files.hub.place import HubPlace
from jaynes_callbacks.files.limits import Limits
from jaynes_callbacks.files.opening import find_checkpoints
from jaynes_callbacks.files.roles import (
    RoleSummary,
    Spread,
    eligible_weights,
    summarise,
    summarise_roles,
)
from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.statistics.landmarks import GAUSSIAN_GAP
from jaynes_callbacks.statistics.paper import gaussian_paper_fit
from jaynes_callbacks.statistics.published import TABLE_TWO, PublishedRow

__all__ = ["NETWORKS", "Network", "network_files", "rows_of"]

#: Archives in which the members of a network are looked for; wheels are zip archives.
_ARCHIVES = (".whl", ".zip")


@dataclass(frozen=True)
class Network:
    """A network of the paper's Table II.

    Attributes:
        name: as the paper has it.
        source: what to do to have its weights, in one sentence.
        address: of the model on the hub; None where the network is not had from there.
        members: names of the files that together are the network; empty where it is one file or
            one directory.
        exclude: patterns of weights that were added for pretraining and are no part of it.
    """

    name: str
    source: str
    address: str | None = None
    members: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The name on the command line."""
        return self.name.lower()

    @property
    def published(self) -> PublishedRow:
        """The paper's row."""
        return TABLE_TWO[self.name]


#: BERT's heads for the two tasks of its pretraining.
_BERT_HEADS = ("*cls*",)
_LICENCE = "accept the licence on its page, set HF_TOKEN"

#: In the paper's order.
NETWORKS: tuple[Network, ...] = (
    Network(
        "BlazePose",
        "pip download --no-deps mediapipe==0.10.21, and name the wheel",
        members=("pose_detection.tflite", "pose_landmark_full.tflite"),
    ),
    Network("Xception", "name Keras' file xception_weights_tf_dim_ordering_tf_kernels.h5"),
    Network("VGG16", "name Keras' file vgg16_weights_tf_dim_ordering_tf_kernels.h5"),
    Network(
        "BERT-Small",
        "it is BERT base, of 109 million parameters",
        "hf://google-bert/bert-base-uncased",
        exclude=_BERT_HEADS,
    ),
    Network(
        "BERT-Large",
        "as the paper names it",
        "hf://google-bert/bert-large-uncased",
        exclude=_BERT_HEADS,
    ),
    Network("Llama-2-7B", f"gated: {_LICENCE}", "hf://meta-llama/Llama-2-7b-hf"),
    Network("Llama-2-13B", f"gated: {_LICENCE}", "hf://meta-llama/Llama-2-13b-hf"),
)


@contextmanager
def network_files(
    network: Network, path: str, limits: Limits
) -> Iterator[dict[str, Path | HubPlace]]:
    """Find the checkpoints that together are a network.

    Args:
        network: of the paper.
        path: a file, a directory, an address on the hub; or an archive that holds the network's
            members, which are copied to a temporary folder while the block runs.
        limits: on what is expanded in memory.

    Yields:
        Checkpoints by the names of the parts.

    Raises:
        CheckpointError: if there is nothing, or more than the network.
    """
    if network.members and Path(path).suffix.lower() in _ARCHIVES:
        with tempfile.TemporaryDirectory(prefix="jaynes-") as folder:
            yield {file.stem: file for file in _extract(network, Path(path), Path(folder), limits)}
        return
    try:
        found = find_checkpoints(path, limits)
    except FileNotFoundError as error:
        raise CheckpointError(str(error)) from error
    if network.members and len(found) > 1:
        found = [each for each in found if each.name in network.members]
        if len(found) != len(network.members):
            raise CheckpointError(f"{path} does not hold {' and '.join(network.members)}")
    elif len(found) > 1:
        names = ", ".join(each.name for each in found[:5])
        raise CheckpointError(f"{path} holds {len(found)} checkpoints ({names}); name one")
    yield {PurePosixPath(each.name).stem: each for each in found}


def _extract(network: Network, archive: Path, folder: Path, limits: Limits) -> list[Path]:
    """Copy the members of an archive that are the network into a folder."""
    with one_sentence(str(archive)):
        content = map_file(archive)
        inside = {PurePosixPath(name).name: each for name, each in members_of(content).items()}
        if missing := [name for name in network.members if name not in inside]:
            raise CheckpointError(
                f"{archive} holds no {missing[0]}, of which {network.name} consists; "
                f"{network.source}"
            )
        files = [folder / name for name in network.members]
        for file in files:
            file.write_bytes(read_member(content, inside[file.name], limits))
    return files


def rows_of(
    network: Network, parts: Mapping[str, Sequence[Record]]
) -> list[tuple[str, RoleSummary]]:
    """Return the rows of a network: the paper's, ours, and Gaussian weights of the same shapes.

    Ours are followed by those of the parts, where there are several, and of the roles, likewise.

    Args:
        network: of the paper.
        parts: records by the name of the part; none where the network was not measured.

    Returns:
        Rows with their headings.  The paper states no gaps and no number of measured weights.
    """
    row = network.published
    r2, mu, sigma = (Spread(*each) for each in (row.r2, row.mu, row.sigma))
    rows = [("paper", RoleSummary("paper", row.layers, row.layers, r2, mu, sigma, None, None, {}))]
    records = list(chain.from_iterable(parts.values()))
    if not records:
        return rows
    rows.append(("here", summarise("here", records)))
    groups = [summarise(name, part) for name, part in parts.items()] if len(parts) > 1 else []
    if len(roles := summarise_roles(records)) > 1:
        groups += roles[:-1]
    rows += [(group.role, group) for group in groups if group.eligible]
    return [*rows, ("Gaussian", _gaussian_summary(records))]


def _gaussian_summary(records: Sequence[Record]) -> RoleSummary:
    """Summarise Gaussian weights of the same shapes, as they are on average."""
    measured = summarise("Gaussian", records)
    sizes = [math.prod(record.shape) for record in eligible_weights(records)]
    if not sizes:
        return measured
    fit = gaussian_paper_fit(sizes)
    r2, mu, sigma = (Spread.of(each.tolist()) for each in (fit.r2_gaussian, fit.mu, fit.sigma))
    return measured._replace(
        measured=measured.eligible,
        r2=r2,
        mu=mu,
        sigma=sigma,
        r2_gaussian=r2,
        gap=GAUSSIAN_GAP,
        families={"half_normal": len(sizes)},
        core_gap=measured.core_gap_gaussian,
        scale_share=0.0,
    )
