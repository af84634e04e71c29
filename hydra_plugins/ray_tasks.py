"""Run the jobs of a sweep as tasks of Ray: ``launcher=ray``.

Hydra finds launchers in packages of this name, whatever folder of ``sys.path`` they are in.  The
plugin ``hydra-ray-launcher`` runs with current Ray, too, but asks for cloudpickle 2, which current
joblib refuses, and for boto3; and where one worker dies for good, it ends all other jobs.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

__all__ = ["RayTasks"]


class RayTasks(Launcher):
    """Launches each job as a task; jobs whose worker dies are tried again, then given up alone.

    Args:
        init: arguments of ``ray.init``.
        remote: options of each task, as ``ray.remote`` takes them.
    """

    def __init__(self, init: Mapping[str, Any], remote: Mapping[str, Any]) -> None:
        self._init: Any = OmegaConf.to_container(OmegaConf.create(dict(init)), resolve=True)
        self._remote: Any = OmegaConf.to_container(OmegaConf.create(dict(remote)), resolve=True)

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra knows of the sweep."""
        self._context, self._function, self._config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the jobs, as many at a time as there are resources, and wait for all of them.

        Returns:
            What each job returned or raised, in their order.
        """
        # Ray tells its makers of every start unless it is told not to.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        setup_globals()
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        Path(str(self._config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        with ray.init(**self._init):
            task = ray.remote(**self._remote)(_run)
            common = (self._context, self._function, self._config, Singleton.get_state())
            shared = ray.put((*common, Path.cwd()))
            jobs = [
                task.remote(shared, list(overrides), number)
                for number, overrides in enumerate(job_overrides, start=initial_job_idx)
            ]
            return [_returned(*each) for each in zip(jobs, job_overrides, strict=True)]


def _run(shared: Any, overrides: list[str], number: int) -> JobReturn:
    """Run one job in a worker, in the folder in which the sweep was started."""
    context, function, config, state, folder = shared
    os.chdir(folder)
    setup_globals()
    Singleton.set_state(state)
    sweep_config = context.config_loader.load_sweep_config(config, overrides)
    with open_dict(sweep_config):
        sweep_config.hydra.job.id = f"{sweep_config.hydra.job.name}_{number}"
        sweep_config.hydra.job.num = number
    return run_job(
        hydra_context=context,
        task_function=function,
        config=sweep_config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )


def _returned(job: Any, overrides: Sequence[str]) -> JobReturn:
    """Wait for a job; one whose worker died has failed, which does not concern the others."""
    import ray

    try:
        returned: JobReturn = ray.get(job)
    except ray.exceptions.RayError as error:
        returned = JobReturn(overrides=overrides, status=JobStatus.FAILED)
        returned.return_value = error
    return returned
