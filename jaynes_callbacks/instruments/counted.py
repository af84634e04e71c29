"""The activations that were counted since the last record, as a checkpoint holds them.

A run that is resumed between two records goes on counting where it was.  Only this process' counts:
no rank waits for the others while a checkpoint is made.
"""

from typing import Any

from jaynes_callbacks.watch.ledger import NO_ROW, Ledger

__all__ = ["pack_counts", "restore_counts"]


def pack_counts(ledger: Ledger) -> list[dict[str, Any]]:
    """One entry per stream: its occupied codes, group by group, with their counts.

    CPU tensors and builtins.
    """
    counts = ledger.grouped.cpu()
    return [
        {
            "name": stream.name,
            "shape": stream.shape,
            "variable": stream.variable,
            "places": (places := row.flatten().nonzero().squeeze(-1)),
            "counts": row.flatten()[places],
        }
        for stream, row in zip(ledger.streams, counts, strict=True)
    ]


def restore_counts(ledger: Ledger, packed: list[dict[str, Any]], group: int) -> None:
    """Add what was packed to the counts of these streams; streams no longer watched are dropped.

    Args:
        ledger: to add to.
        packed: by `pack_counts`.
        group: that was counted in.
    """
    ledger.reserve(len(ledger.streams) + len(packed), ledger.table.device)
    for entry in packed:
        row = ledger.row(entry["name"], tuple(entry["shape"]), entry["variable"])
        if row != NO_ROW:
            ledger.resume(row, entry["places"], entry["counts"])
    ledger.group = group % ledger.grouped.shape[1]
