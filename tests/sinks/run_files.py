"""Read the run files of W&B, as W&B's own messages."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["File"]


def messages(path: Path) -> Iterator[Any]:
    """The records of a run file: LevelDB's log format, each a protobuf message of W&B's.

    W&B's reader of the frames is in its program; of the messages, in Python.
    """
    from wandb.proto.wandb_internal_pb2 import Record as Message

    data, position, message = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        room = 32768 - position % 32768
        if room < 7:
            position += room
            continue
        _, length, part = struct.unpack_from("<IHB", data, position)
        message += data[position + 7 : position + 7 + length]
        position += 7 + length
        if part in (1, 4):  # whole, or the last fragment
            yield Message.FromString(message)
            message = b""


def values(items: Any) -> dict[str, Any]:
    """Entries by tag; those of several parts (histograms, tables, images) as mappings."""
    found: dict[str, Any] = {}
    for item in items:
        tag, *parts = item.nested_key or [item.key]
        value = json.loads(item.value_json)
        if parts:
            found.setdefault(tag, {})["/".join(parts)] = value
        else:
            found[tag] = value
    return found


class File:
    """What the run files below a directory hold, the oldest run first."""

    def __init__(self, directory: Path) -> None:
        self.rows: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.axes: dict[str, str] = {}
        self.ids: list[str] = []
        for path in sorted(directory.glob("wandb/offline-run-*/*.wandb")):
            for message in messages(path):
                self._take(message)

    def _take(self, message: Any) -> None:
        kind = message.WhichOneof("record_type")
        if kind == "history":
            self.rows.append(values(message.history.item))
        elif kind == "summary":
            self.summary |= values(message.summary.update)
        elif kind == "metric":
            name = message.metric.name or message.metric.glob_name
            self.axes[name] = message.metric.step_metric
        elif kind == "run":
            self.ids.append(message.run.run_id)

    def curve(self, tag: str) -> list[tuple[int, Any]]:
        return [(row["trainer/global_step"], row[tag]) for row in self.rows if tag in row]
