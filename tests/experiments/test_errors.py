import pytest
from hydra.errors import CompactHydraException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import OmegaConf

from experiments.errors import ConfigError, one_sentence


def test_hydra_prints_it_without_a_traceback() -> None:
    assert issubclass(ConfigError, CompactHydraException)


@pytest.mark.parametrize(
    "mistake", [ValueError, TypeError, OSError, ImportError, MisconfigurationException]
)
def test_a_users_mistake_becomes_one_sentence(mistake: type[Exception]) -> None:
    sentence = r"^model: width is wrong; use 3$"
    with pytest.raises(ConfigError, match=sentence) as caught, one_sentence("model"):
        raise mistake("width is wrong\n   use 3\n")
    assert isinstance(caught.value.__cause__, mistake)


def test_a_mistake_without_words_is_named_by_its_kind() -> None:
    with pytest.raises(ConfigError, match=r"^data: FileNotFoundError$"), one_sentence("data"):
        raise FileNotFoundError


@pytest.mark.parametrize("defect", [RuntimeError, AttributeError, KeyboardInterrupt])
def test_a_defect_keeps_its_traceback(defect: type[BaseException]) -> None:
    with pytest.raises(defect), one_sentence("model"):
        raise defect("broken")


def raise_value_error() -> None:
    raise ValueError("sigma must be positive, got -1")


def raise_runtime_error() -> None:
    raise RuntimeError("broken")


def test_what_instantiation_wraps_is_unwrapped() -> None:
    sentence = r"^init: sigma must be positive, got -1$"
    with pytest.raises(ConfigError, match=sentence), one_sentence("init"):
        instantiate({"_target_": f"{__name__}.raise_value_error"})


def test_a_defect_inside_instantiation_passes() -> None:
    with pytest.raises(CompactHydraException, match="Error") as caught, one_sentence("init"):
        instantiate({"_target_": f"{__name__}.raise_runtime_error"})
    assert not isinstance(caught.value, ConfigError)


def test_a_target_that_does_not_exist_is_named() -> None:
    sentence = r"^model: Error loading 'no\.such\.Thing'"
    with pytest.raises(ConfigError, match=sentence), one_sentence("model"):
        instantiate({"_target_": "no.such.Thing"})


@pytest.mark.parametrize("value", ["???", "${missing}"])
def test_a_missing_value_is_said_once(value: str) -> None:
    cfg = OmegaConf.create({"data": {"name": value}})
    with pytest.raises(ConfigError, match=r"^data: [^\n]*$") as caught, one_sentence("data"):
        _ = cfg.data.name
    assert caught.value.__cause__ is None
