"""Report a wrong configuration in one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import CompactHydraException, InstantiationException
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf.errors import OmegaConfBaseException

__all__ = ["ConfigError", "one_sentence"]

_USERS_MISTAKES = (
    ImportError,
    MisconfigurationException,
    OSError,
    TypeError,
    ValueError,
)


class ConfigError(CompactHydraException):
    """An error in the configuration, which Hydra prints without a traceback.

    ``HYDRA_FULL_ERROR=1`` shows the traceback of the cause all the same.
    """


@contextmanager
def one_sentence(where: str, *more: type[Exception]) -> Iterator[None]:
    """Turn exceptions that wrong arguments raise into a `ConfigError`; pass on all others.

    Args:
        where: the part of the configuration that is at work, such as ``model``.
        more: exceptions that are the user's mistake in this part.

    Raises:
        ConfigError: ``where``, a colon, and what the cause says, on one line.
    """
    mistakes: tuple[type[Exception], ...] = (*_USERS_MISTAKES, *more)
    try:
        yield
    except InstantiationException as error:
        cause = error.__cause__
        if cause is not None and not isinstance(cause, mistakes):
            raise
        raise ConfigError(f"{where}: {_one_line(cause or error)}") from error
    except OmegaConfBaseException as error:
        # Its further lines repeat the key; as a cause Hydra would print it once more.
        raise ConfigError(f"{where}: {str(error).splitlines()[0]}") from None
    except mistakes as error:
        raise ConfigError(f"{where}: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines) or type(error).__name__
