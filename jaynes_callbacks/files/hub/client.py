"""Ask the Hugging Face hub: refs, the files of a revision, ranges of their bytes.

Each request is tried a few times where the server is busy or the connection breaks, within bounds;
what does not succeed becomes one sentence, in which no token is ever printed.
"""

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from huggingface_hub import HfApi, get_session, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, get_token, hf_raise_for_status

from jaynes_callbacks.files.entry import CheckpointError
from jaynes_callbacks.files.hub.place import SCHEME

__all__ = ["Hub", "Revision"]

#: Seconds before each further try, and the most that a busy server may ask to wait instead.
_WAITS, _LONGEST = (0.5, 1.0, 2.0, 4.0), 120.0
#: Longer waits are said.
_SHORT = 5.0
#: What a server answers that is busy or has a fault, which may pass.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
#: Seconds without a byte after which a connection counts as broken.
_SILENCE = 20.0
#: Bytes of one request.
_RANGE = 1 << 24

_log = logging.getLogger("jaynes_callbacks")
_Result = TypeVar("_Result")


class Revision(NamedTuple):
    """A state of a repository, which never changes.

    Attributes:
        commit: its hash.
        files: sizes in bytes by path.
    """

    commit: str
    files: Mapping[str, int]


class _ChangedError(Exception):
    """A file is not what the hub said before."""


class Hub:
    """One repository of models on the hub.

    The hub is that of huggingface_hub: ``HF_ENDPOINT``, ``HF_TOKEN`` or the login it knows.

    Attributes:
        repository: ``org/name``.
        moved: bytes of files received so far.

    Args:
        repository: likewise.
    """

    def __init__(self, repository: str) -> None:
        self.repository = repository
        self.moved = 0
        self._api = HfApi()

    def revision(self, name: str | None) -> Revision:
        """Return the state that a branch, a tag or a commit names; of None the main branch.

        Raises:
            CheckpointError: if it cannot be had.
        """
        what = f"{SCHEME}{self.repository}" + ("" if name is None else f"@{name}")

        def ask() -> Revision:
            info = self._api.model_info(
                self.repository, revision=name, files_metadata=True, timeout=_SILENCE
            )
            siblings = info.siblings or ()
            return Revision(str(info.sha), {each.rfilename: each.size or 0 for each in siblings})

        return self._try(what, ask)

    def refs(self) -> dict[str, str]:
        """Return the commits of all branches and tags by their names.

        Raises:
            CheckpointError: if they cannot be had.
        """

        def ask() -> dict[str, str]:
            found = self._api.list_repo_refs(self.repository)
            return {each.name: each.target_commit for each in (*found.tags, *found.branches)}

        return self._try(f"{SCHEME}{self.repository}", ask)

    def read(self, file: str, at: Revision, start: int, size: int) -> bytearray:
        """Return some bytes of a file, without keeping the file.

        Raises:
            CheckpointError: if they cannot be had.
        """
        found = bytearray(size)
        what = f"{SCHEME}{self.repository}/{file}"
        view = memoryview(found)
        for first in range(0, size, _RANGE):
            part = view[first : first + _RANGE]
            self._try(what, partial(self._fill, part, file, at, start + first))
        return found

    def download(self, file: str, at: Revision, folder: Path) -> Path:
        """Put a whole file into a folder, and return its path.

        Raises:
            CheckpointError: if it cannot be had.
        """
        what = f"{SCHEME}{self.repository}/{file}"

        def ask() -> Path:
            found = hf_hub_download(self.repository, file, revision=at.commit, local_dir=folder)
            return Path(found)

        path = self._try(what, ask)
        self.moved += path.stat().st_size
        return path

    def _fill(self, part: memoryview, file: str, at: Revision, start: int) -> None:
        """Receive bytes into their place."""
        last, whole = start + len(part) - 1, at.files[file]
        headers = build_hf_headers() | {"Range": f"bytes={start}-{last}"}
        # Compressed, the bytes would not be those that were asked for.
        headers["Accept-Encoding"] = "identity"
        url = hf_hub_url(self.repository, file, revision=at.commit)
        with get_session().stream(
            "GET", url, headers=headers, timeout=_SILENCE, follow_redirects=True
        ) as answer:
            hf_raise_for_status(answer)
            said = answer.headers.get("content-range", "")
            if answer.status_code != 206 or said != f"bytes {start}-{last}/{whole}":
                raise _ChangedError(
                    f"expected bytes {start}-{last} of {whole:,}, got status {answer.status_code} "
                    f"and {said or 'no range'}"
                )
            place = 0
            for chunk in answer.iter_bytes():
                self.moved += len(chunk)
                if place + len(chunk) > len(part):
                    raise _ChangedError(f"more than the {len(part):,} bytes asked for")
                part[place : place + len(chunk)] = chunk
                place += len(chunk)
        if place < len(part):
            raise ConnectionError(f"{place:,} of {len(part):,} bytes came")

    def _try(self, what: str, ask: Callable[[], _Result]) -> _Result:
        """Ask, several times if need be.

        Raises:
            CheckpointError: with one sentence.
        """
        for wait in (*_WAITS, None):
            try:
                return ask()
            except Exception as error:
                if wait is None or not _may_pass(error):
                    raise CheckpointError(self._sentence(what, error)) from None
                wait = min(_LONGEST, max(wait, _asked_wait(error)))
                if wait > _SHORT:
                    _log.warning("the hub asks to wait %.0f s before %s is read", wait, what)
                time.sleep(wait)
        raise AssertionError("the last try returns or raises")

    def _sentence(self, what: str, error: Exception) -> str:
        """Say what failed and what to do."""
        repository = f"{SCHEME}{self.repository}"
        if isinstance(error, OfflineModeIsEnabled):
            return f"{what} cannot be read: HF_HUB_OFFLINE is set; unset it, or name a local file"
        if isinstance(error, GatedRepoError):
            return (
                f"{repository} is gated: accept its terms on its page of the hub, then log in "
                "(hf auth login) or set HF_TOKEN"
            )
        if isinstance(error, RevisionNotFoundError):
            return (
                f"{what} does not exist: the repository has no such revision; a pattern such as "
                "--revisions '*' --dry-run lists them"
            )
        if isinstance(error, EntryNotFoundError):
            return f"{what} does not exist: the repository has no such file"
        if isinstance(error, RepositoryNotFoundError):
            return (
                f"{repository} does not exist, or is private: check its name; for a private one "
                "log in (hf auth login) or set HF_TOKEN"
            )
        if isinstance(error, _ChangedError):
            return f"{what} changed while it was read, or its server gives no ranges: {error}"
        return f"{what} cannot be read: {_without_token(error)}; try again later"


def _may_pass(error: Exception) -> bool:
    if isinstance(error, HfHubHTTPError):
        return error.response is not None and error.response.status_code in _PASSING
    # What else is raised while a request is under way is of the transport.
    return not isinstance(error, OfflineModeIsEnabled | _ChangedError | ValueError | TypeError)


def _asked_wait(error: Exception) -> float:
    """Return the seconds that a busy server asks to wait; 0 if it does not."""
    headers: Any = getattr(getattr(error, "response", None), "headers", {})
    asked = str(headers.get("retry-after", ""))
    return float(asked) if asked.isdecimal() else 0.0


def _without_token(error: Exception) -> str:
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".rstrip(":. ")
    token = get_token()
    return said.replace(token, "***") if token else said
