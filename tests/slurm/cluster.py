"""Start a Slurm cluster of this one machine, run a command on it, and stop all of it.

    apt-get install --no-install-recommends slurmctld slurmd slurm-client munge
    python -m tests.slurm.cluster python -m experiments.train -m launcher=slurm seed=1,2,3,4

The daemons are Debian's, run by root, each in the foreground with its files in a temporary folder,
on free ports of the loopback.  Nothing of a cluster that the machine may belong to is read or
written: ``SLURM_CONF`` names the configuration.  A container without writable cgroups will do.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["CannotStartError", "cluster"]

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "sinfo", "scancel")
#: Seconds until a daemon answers, and until jobs that are cancelled have ended.
_PATIENCE = 30

# Processes are found by their parents, not by cgroups; a killed job may run again after six seconds
# (the life of a credential, 120 by default, and one more).
_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=1,sched_interval=2
KillWait=2
ReturnToService=2
{node} NodeAddr=127.0.0.1 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=60 State=UP
"""


class CannotStartError(Exception):
    """Says in a sentence why there is no cluster."""


@contextlib.contextmanager
def cluster() -> Iterator[dict[str, str]]:
    """Run munge, the controller and one node while the block runs.

    Yields:
        The environment of a process that is to use it.

    Raises:
        CannotStartError: if a program is missing, is not allowed, or does not answer in time.
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    missing = [program for program in _PROGRAMS if shutil.which(program, path=path) is None]
    if missing:
        raise CannotStartError(f"Slurm is not installed: there is no {', '.join(missing)}")
    if os.geteuid() != 0:
        raise CannotStartError("Slurm's daemons start jobs as their users, which only root may do")
    with TemporaryDirectory(prefix="slurm-") as name, contextlib.ExitStack() as running:
        folder = Path(name)
        environment = {**os.environ, "PATH": path, "SLURM_CONF": f"{folder}/slurm.conf"}
        _configure(folder, environment)
        munge = ["munged", "--foreground", "--force", f"--key-file={folder}/munge.key"]
        munge += [f"--{each}-file={folder}/munged.{each}" for each in ("log", "pid", "seed")]
        start = _Starter(running, folder, environment)
        start([*munge, f"--socket={folder}/munge.socket"], (folder / "munge.socket").exists)
        start(["slurmctld", "-D", "-i"], lambda: _says(environment, "scontrol", "ping", "UP"))
        start(["slurmd", "-D"], lambda: _says(environment, "sinfo", "--format=%t", "idle"))
        running.callback(_cancel_all, environment)
        yield environment


def _configure(folder: Path, environment: Mapping[str, str]) -> None:
    """Write the configuration of this host, and a key."""
    asked = ["slurmd", "-C"]
    found = subprocess.run(asked, env=environment, capture_output=True, text=True, check=True)
    node, *_ = found.stdout.splitlines()
    host = node.split()[0].removeprefix("NodeName=")
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        ports = one.getsockname()[1], two.getsockname()[1]
    # The socket's folder must be open to all, as for any user of munge.
    folder.chmod(0o755)
    for each in ("state", "spool"):
        (folder / each).mkdir()
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o400)
    (folder / "slurm.conf").write_text(
        _CONFIGURATION.format(
            folder=folder, host=host, node=node, controller_port=ports[0], node_port=ports[1]
        )
    )


class _Starter:
    """Starts daemons, which are stopped in the opposite order when the stack is closed."""

    def __init__(
        self, running: contextlib.ExitStack, folder: Path, environment: Mapping[str, str]
    ) -> None:
        self._running, self._folder, self._environment = running, folder, environment

    def __call__(self, command: list[str], answers: Callable[[], bool]) -> None:
        """Start a daemon and wait until it answers."""
        said = self._folder / f"{command[0]}.out"
        with said.open("w") as file:
            daemon = subprocess.Popen(
                command, env=self._environment, stdout=file, stderr=subprocess.STDOUT
            )
        self._running.callback(_stop, daemon)
        if not _waited(lambda: daemon.poll() is not None or answers()) or not answers():
            raise CannotStartError(f"{command[0]} does not answer: {said.read_text()[-2000:]}")


def _stop(daemon: "subprocess.Popen[bytes]") -> None:
    daemon.terminate()
    try:
        daemon.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _cancel_all(environment: Mapping[str, str]) -> None:
    """End all jobs, so that none outlives the daemons."""
    subprocess.run(["scancel", "--user=root"], env=environment, capture_output=True, check=False)
    _waited(lambda: not _output(environment, "squeue", "--noheader"))


def _says(environment: Mapping[str, str], *command: str) -> bool:
    """Tell whether a command's output has the text that is the last argument."""
    *command_, text = command
    return text in _output(environment, *command_)


def _output(environment: Mapping[str, str], *command: str) -> str:
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=_PATIENCE
    )
    return done.stdout


def _waited(until: Callable[[], bool]) -> bool:
    """Wait until something is true; return False if it takes too long."""
    deadline = time.monotonic() + _PATIENCE
    while not until():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def main() -> int:
    """Run the command of the command line; return its exit status."""
    if not sys.argv[1:]:
        print("usage: python -m tests.slurm.cluster COMMAND ...", file=sys.stderr)  # noqa: T201
        return 2
    try:
        with cluster() as environment:
            return subprocess.run(sys.argv[1:], env=environment, check=False).returncode
    except CannotStartError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1


if __name__ == "__main__":
    sys.exit(main())
