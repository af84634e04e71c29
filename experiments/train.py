"""``python -m experiments.train``: the command line over ``conf/``."""

import logging

import hydra
from omegaconf import DictConfig

__all__ = ["main"]


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Run one configuration.

    Args:
        cfg: composed by Hydra from ``conf/train.yaml`` and the command line.

    Returns:
        The metric for sweepers.
    """
    # torch and lightning take seconds to import: --help and typing errors need not wait for them.
    from experiments.run import run

    # Lightning adds a handler of its own; Hydra's logging already shows and writes its messages.
    logging.getLogger("lightning").handlers.clear()
    return run(cfg)


if __name__ == "__main__":
    main()
