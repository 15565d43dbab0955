"""Surroundings that a child can be put in before the command starts; `Forks.run(condition=...)` names one of these."""

import errno
import fcntl
import os
import resource
import shutil
import signal
import threading
import time
from typing import Any


def small_files() -> None:
    """No file may be larger than 100 bytes (`ulimit -f`)."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def few_handles() -> None:
    """Sixteen open files and no more (`ulimit -n`)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (16, hard))


def no_flock() -> None:
    """A file system that knows no flock, as some NFS and Lustre mounts."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    fcntl.flock = refuse


def cwd_deleted() -> None:
    """The folder that the command was started in is gone."""
    folder = "gone"
    os.makedirs(folder, exist_ok=True)
    os.chdir(folder)
    shutil.rmtree(os.getcwd())


def no_home() -> None:
    """Neither HOME nor a cache folder that could be written to."""
    os.environ["HOME"] = "/proc/nowhere"
    os.environ.pop("PLMJAC_CACHE", None)


def stdout_closed() -> None:
    """Whoever read the output is gone (`| head`)."""
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)


def store_deleted() -> None:
    """Somebody deletes the store as soon as it holds a protein; its path is in the environment."""
    store = os.environ["FAULT_STORE"]

    def delete() -> None:
        while not os.path.isdir(f"{store}/proteins/a"):
            time.sleep(0.001)
        shutil.rmtree(store, ignore_errors=True)

    threading.Thread(target=delete, daemon=True).start()


def killed_in_forward() -> None:
    """The process dies for lack of memory in the forward of the protein that FAULT_PROTEIN names by its length."""
    import torch

    from plmjac.models.esm2_fast import Esm2Fast

    read, length = Esm2Fast.read, int(os.environ["FAULT_LENGTH"])

    def die(self: Any, tokens: torch.Tensor, *rest: Any, **more: Any) -> Any:
        if tokens.shape[1] == length and len(tokens) > 1:
            time.sleep(1.0)  # what was computed before it is in the store by then
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, tokens, *rest, **more)

    Esm2Fast.read = die  # type: ignore[method-assign]
