"""Addresses on the Hugging Face hub: ``hf://org/name[@revision][/file]``."""

import re
from dataclasses import dataclass

__all__ = ["SCHEME", "HubPlace", "is_hub_address", "looks_like_repository"]

SCHEME = "hf://"
_NAME = r"[A-Za-z0-9][\w.-]*"
_REPOSITORY = re.compile(rf"{_NAME}/{_NAME}")
#: A revision may have slashes, which an address spells as the hub's own do.
_ADDRESS = re.compile(
    rf"(?P<repository>{_NAME}/{_NAME})(?:@(?P<revision>[^/@]+))?(?:/(?P<file>[^/].*))?"
)


def is_hub_address(text: str) -> bool:
    """Tell whether a text names something on the hub."""
    return text.startswith(SCHEME)


def looks_like_repository(text: str) -> bool:
    """Tell whether a text could be the name of a repository, for which somebody forgot the scheme.

    >>> looks_like_repository("EleutherAI/pythia-14m"), looks_like_repository("runs/a/model.pt")
    (True, False)
    """
    return bool(_REPOSITORY.fullmatch(text))


@dataclass(frozen=True)
class HubPlace:
    """A model on the hub.

    Attributes:
        repository: ``org/name``.
        revision: branch, tag or commit; None for the main branch.
        file: path of one file in it; None for the model that the repository holds.
    """

    repository: str
    revision: str | None = None
    file: str | None = None

    @classmethod
    def parse(cls, address: str) -> "HubPlace":
        """Read an address.

        Raises:
            ValueError: saying what one looks like.

        >>> HubPlace.parse("hf://EleutherAI/pythia-14m@step1000")
        HubPlace(repository='EleutherAI/pythia-14m', revision='step1000', file=None)
        >>> str(HubPlace.parse("hf://org/name/unet/model.safetensors"))
        'hf://org/name/unet/model.safetensors'
        """
        match = _ADDRESS.fullmatch(address.removeprefix(SCHEME))
        if match is None:
            raise ValueError(
                f"expected {SCHEME}org/name, {SCHEME}org/name@revision or "
                f"{SCHEME}org/name@revision/file, got {address!r}"
            )
        revision = match["revision"]
        return cls(match["repository"], revision and revision.replace("%2F", "/"), match["file"])

    @property
    def name(self) -> str:
        """The last part: of a file its name, else that of the repository, with the revision."""
        if self.file is not None:
            return self.file.rsplit("/", 1)[-1]
        return self.repository.split("/")[-1] + self._at

    def __str__(self) -> str:
        file = "" if self.file is None else f"/{self.file}"
        return f"{SCHEME}{self.repository}{self._at}{file}"

    @property
    def _at(self) -> str:
        return "" if self.revision is None else "@" + self.revision.replace("/", "%2F")
