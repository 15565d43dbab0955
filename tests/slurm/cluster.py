"""A SLURM of one node on loopback, in a folder of its own: Debian's slurm-wlm and munge, no root's configuration."""

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel")
SBIN = os.pathsep.join(["/usr/sbin", "/sbin"])


def missing() -> list[str]:
    """The programs that are needed and not there."""
    return [name for name in PROGRAMS if not _program(name)]


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=SBIN)


class Cluster:
    """Daemons from `start` to `stop`; commands that find them by the environment."""

    def __init__(self, folder: Path, cpus: int = 4) -> None:
        self.folder = folder
        self.cpus = cpus
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Write the configuration and wait until the node is idle. Raises RuntimeError with the logs if it never is."""
        user, (control, node) = getpass.getuser(), _free_ports(2)
        for name in ("state", "spool", "munge"):
            (self.folder / name).mkdir(mode=0o700, parents=True)
        munge = self.folder / "munge"
        (munge / "key").write_bytes(secrets.token_bytes(128))
        (munge / "key").chmod(0o400)
        (self.folder / "slurm.conf").write_text(
            f"""ClusterName=loopback
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={control}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={munge}/socket,cred_expire=5
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/slurmd.pid
SlurmctldLogFile={self.folder}/slurmctld.log
SlurmdLogFile={self.folder}/slurmd.log
PlugStackConfig=/dev/null
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
JobRequeue=1
KillWait=5
SchedulerParameters=sched_interval=2,batch_sched_delay=1
NodeName=localhost NodeHostname=localhost NodeAddr=127.0.0.1 CPUs={self.cpus} RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE OverSubscribe=FORCE:4 State=UP
"""
        )
        self._daemon(
            "munged", "--foreground", "--force", f"--key-file={munge}/key", f"--socket={munge}/socket",
            f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed",
        )  # fmt: skip
        _wait_for(lambda: (munge / "socket").exists(), 20, "munged has no socket", self.logs)
        self._daemon("slurmctld", "-D", "-i")
        self._daemon("slurmd", "-D", "-N", "localhost")
        _wait_for(lambda: "idle" in self.command("sinfo", "-h", "-o", "%t"), 60, "the node is not idle", self.logs)

    def stop(self) -> None:
        """End every job and every daemon."""
        self.command("scancel", "--user", getpass.getuser())
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(timeout=15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def submit(self, *arguments: str, environment: Mapping[str, str], output: Path) -> str:
        """sbatch; returns the number of the job."""
        line = [_program("sbatch") or "sbatch", "--parsable", f"--output={output}", "--open-mode=append", *arguments]
        done = subprocess.run(
            line, capture_output=True, text=True, timeout=60, cwd=self.folder, env={**self.environment, **environment}
        )
        if done.returncode:
            raise RuntimeError(f"{done.stderr}\n{self.logs()}")
        return done.stdout.strip()

    def command(self, *arguments: str) -> str:
        """Output of one of SLURM's commands."""
        line = [_program(arguments[0]) or arguments[0], *arguments[1:]]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, env=self.environment)
        return done.stdout + done.stderr

    def state(self, job: str) -> dict[str, str]:
        """Fields of `scontrol show job` (JobState, ExitCode, Restarts ...), one dictionary per task of an array."""
        words = self.command("scontrol", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def states(self, job: str) -> list[dict[str, str]]:
        """The same for every task of an array that there is."""
        blocks = self.command("scontrol", "show", "job", job).split("\n\n")
        return [
            dict(word.split("=", 1) for word in block.split() if "=" in word) for block in blocks if "JobId" in block
        ]

    def wait(self, job: str, seconds: float) -> list[dict[str, str]]:
        """Until every task of a job has come to an end that it will not leave; returns their states."""
        ends = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL")

        def ended() -> bool:
            there = self.states(job)
            return bool(there) and all(state.get("JobState") in ends for state in there)

        _wait_for(ended, seconds, f"job {job} does not end", lambda: f"{self.states(job)}\n{self.logs()}")
        return self.states(job)

    def logs(self) -> str:
        """The ends of the daemons' logs, for a message."""
        names = ("slurmctld.log", "slurmd.log", "munge/log")
        paths = [self.folder / name for name in names if (self.folder / name).exists()]
        return "\n".join(f"{path.name}: {path.read_text(errors='replace')[-1500:]}" for path in paths)

    def _daemon(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.out").open("wb") as out:
            self._daemons.append(
                subprocess.Popen(
                    [_program(name) or name, *arguments], stdout=out, stderr=out, env=self.environment,
                    start_new_session=True,
                )
            )  # fmt: skip


def _wait_for(condition: Callable[[], bool], seconds: float, problem: str, more: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{problem} after {seconds:.0f} s\n{more()}")
        time.sleep(0.5)


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
