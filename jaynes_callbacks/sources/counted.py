"""The activations that were counted since the last record, as a checkpoint holds them.

A run that is resumed between two records goes on counting where it was.  Only this process' counts:
no rank waits for the others while a checkpoint is made.
"""

from typing import Any

from jaynes_callbacks.sources.ledger import NO_ROW, Ledger

__all__ = ["pack_counts", "restore_counts"]


def pack_counts(ledger: Ledger) -> list[dict[str, Any]]:
    """One entry per stream, its occupied codes and their counts: CPU tensors and builtins."""
    counts = ledger.counts.cpu()
    return [
        {
            "name": stream.name,
            "shape": stream.shape,
            "variable": stream.variable,
            "codes": (codes := row.nonzero().squeeze(-1)),
            "counts": row[codes],
        }
        for stream, row in zip(ledger.streams, counts, strict=True)
    ]


def restore_counts(ledger: Ledger, packed: list[dict[str, Any]]) -> None:
    """Add what was packed to the counts of these streams; streams no longer watched are dropped."""
    device = ledger.table.device
    ledger.reserve(len(ledger.streams) + len(packed), device)
    for entry in packed:
        row = ledger.row(entry["name"], tuple(entry["shape"]), entry["variable"])
        if row != NO_ROW:
            ledger.table[row].index_add_(0, entry["codes"].to(device), entry["counts"].to(device))
