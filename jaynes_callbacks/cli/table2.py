"""``jaynes table2``: the paper's Table II beside what is found in its networks here."""

import argparse
from typing import TYPE_CHECKING

from jaynes_callbacks.cli.measuring import measure_survey, open_survey
from jaynes_callbacks.cli.options import DONE, FAILED, UsageError, check_device
from jaynes_callbacks.cli.output import print_error, print_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaynes_callbacks.files.table2 import Network
    from jaynes_callbacks.instruments.record import Records

__all__ = ["add_parser", "run"]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "table2",
        help="the paper's Table II beside its networks as they are measured here",
        description="Print the paper's Table II, and beside its rows what is measured here. "
        "Without arguments: the paper's rows, and how to have each network.",
        epilog="example: jaynes table2 vgg16=vgg16_weights_tf_dim_ordering_tf_kernels.h5 "
        "--fetch bert-small",
    )
    parser.add_argument(
        "networks",
        nargs="*",
        metavar="NETWORK=PATH",
        help="measure a network of the table: a file, a directory, hf://org/name, or for blazepose "
        "the wheel of mediapipe",
    )
    parser.add_argument(
        "--fetch",
        action="append",
        default=[],
        metavar="NETWORK",
        help="measure a network at its address on the hub, keeping nothing (repeatable)",
    )
    parser.add_argument(
        "--device", default="cpu", help="where values are counted: cpu (default), cuda, cuda:1, …"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure what is asked for, print an error for each network that fails, and the table.

    Raises:
        UsageError: for networks that the table does not have, or that are named twice.
    """
    from jaynes_callbacks.cli.tables import network_table

    asked = _asked(options.networks, options.fetch)
    check_device(options.device)
    measured: dict[Network, Mapping[str, Records]] = {}
    complete = True
    try:
        for network, path in asked.items():
            parts = _measure(network, path, options.device)
            complete = complete and parts is not None
            if parts is not None:
                measured[network] = parts
    finally:
        # An interrupt costs the network that is being measured, and none before it.
        print_text(network_table(measured) + "\n")
    return DONE if complete else FAILED


def _asked(named: "Sequence[str]", fetched: "Sequence[str]") -> "dict[Network, str | None]":
    """Return the networks to measure, each with its path; None where it has no address.

    Raises:
        UsageError: for a name that the table does not have, or has twice.
    """
    from jaynes_callbacks.files.table2 import NETWORKS

    by_key = {network.key: network for network in NETWORKS}
    pairs: list[tuple[str, str | None]] = []
    for argument in named:
        name, equals, path = argument.partition("=")
        if not equals or not path:
            raise UsageError(f"expected NETWORK=PATH, such as vgg16=vgg16.h5, got {argument}")
        pairs.append((name, path))
    pairs += [(name, None) for name in fetched]
    asked: dict[Network, str | None] = {}
    for name, place in pairs:
        network = by_key.get(name.lower())
        if network is None:
            raise UsageError(f"the table has no {name}; it has {', '.join(by_key)}")
        if network in asked:
            raise UsageError(f"{network.key} is named twice; name one place of it")
        asked[network] = network.address if place is None else place
    return asked


def _measure(network: "Network", path: str | None, device: str) -> "dict[str, Records] | None":
    """Measure the parts of a network; print an error and return None where one cannot be had."""
    from jaynes_callbacks.counts.threads import one_thread
    from jaynes_callbacks.files import CheckpointError, Limits
    from jaynes_callbacks.files.table2 import network_files
    from jaynes_callbacks.probes.selection import MIN_SIZE, Selection
    from jaynes_callbacks.records.stream import WEIGHT

    if path is None:
        print_error(f"{network.key} is not had from the hub: {network.source}")
        return None
    selection, limits = Selection.of(WEIGHT, "*", network.exclude, MIN_SIZE), Limits()
    parts: dict[str, Records] = {}
    try:
        with network_files(network, path, limits) as places, one_thread() as threads:
            for name, place in places.items():
                survey = open_survey(place, selection, limits)
                if survey is None:
                    return None
                parts[name] = measure_survey(survey, device, threads, len)
                if not parts[name] or survey.problems:
                    return None
    except CheckpointError as error:
        print_error(error)
        return None
    return parts
