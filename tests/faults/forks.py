"""Many runs of plmjac's commands, each in a process of its own, without paying the start of Python for each.

One process imports everything that a run needs and then does nothing but fork: a fault may do to its child what it
likes. Run as a script it is that process: a JSON request a line on stdin, a JSON answer a line on stdout.
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Outcome:
    """End of a command: its exit code (minus the signal that killed it), its output, and the operations counted."""

    code: int
    said: str
    counts: dict[str, int]
    seconds: float


class Forks:
    """The warmed-up parent, as a context manager."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="plmjac-faults-")
        self._number = 0
        environment = {
            **os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
            "PLMJAC_CACHE": f"{self._folder.name}/cache",
        }  # fmt: skip
        self._parent = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> "Forks":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._parent.stdin is not None
        self._parent.stdin.close()
        try:
            self._parent.wait(timeout=30)
        except subprocess.TimeoutExpired:  # it only has to be gone
            self._parent.kill()
            self._parent.wait()
        self._folder.cleanup()

    def kill(self) -> None:
        """SIGKILL to the child that is at work, from another thread than that of `run`; none may be there any more."""
        path = Path(f"{self._folder.name}/{self._number}.pid")
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(path.read_text()), signal.SIGKILL)

    def compose(self, *arguments: str) -> None:
        """Have the parent remember a configuration of predict, for all stores: runs with it start at once."""
        assert self._parent.stdin is not None
        self._parent.stdin.write(json.dumps({"compose": arguments}) + "\n")

    def run(
        self,
        *arguments: str,
        module: str = "plmjac.predict",
        fault: Any = None,
        count_under: Path | None = None,
        condition: str = "",
        cwd: Path | None = None,
        environment: dict[str, str] | None = None,
        timeout: float = 60,
    ) -> Outcome:
        """Run a command to its end in a forked child, under a fault or a condition (a function of conditions.py)."""
        assert self._parent.stdin is not None and self._parent.stdout is not None
        self._number += 1
        request = {
            "module": module, "arguments": list(arguments), "fault": asdict(fault) if fault else None,
            "count_under": str(count_under) if count_under else None, "condition": condition,
            "cwd": str(cwd or self._folder.name), "environment": environment or {}, "timeout": timeout,
            "output": f"{self._folder.name}/{self._number}",
        }  # fmt: skip
        began = time.monotonic()
        self._parent.stdin.write(json.dumps(request) + "\n")
        self._parent.stdin.flush()
        answer = json.loads(self._parent.stdout.readline())
        output = Path(request["output"])
        said = output.read_text(errors="replace")
        counts = output.with_suffix(".counts")
        counted = json.loads(counts.read_text()) if counts.exists() else {}
        for path in (output, counts, output.with_suffix(".pid")):
            path.unlink(missing_ok=True)
        return Outcome(answer["code"], said, counted, time.monotonic() - began)


def _serve() -> None:
    """The parent: fork for each request, wait, answer."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for name in (
        "plmjac.predict", "plmjac.verify", "plmjac.inference.resolve", "plmjac.inference.session",
        "plmjac.inference.loop", "plmjac.inference.jacobian_task", "plmjac.store", "plmjac.models.esm2_fast",
        "plmjac.models.debug", "plmjac.datasets", "esm", "zarr", "lightning", "pyarrow.parquet", "pandas",
    ):  # fmt: skip
        try:
            importlib.import_module(name)
        except ImportError:
            continue  # a module that moved only makes the children slower
    _warm_up()
    for line in sys.stdin:
        request = json.loads(line)
        if "compose" in request:
            _compose("predict", request["compose"])
            continue
        child = os.fork()
        if child == 0:
            _child(request)
        answers.write(json.dumps({"code": _wait(child, request["timeout"])}) + "\n")
        answers.flush()


def _warm_up() -> None:
    """Run a command once in this process: what is imported late or made once is then there in every child."""
    from plmjac import interruption

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "in.fasta").write_text(">a\nMKV\n")
        for name, arguments in (
            ("plmjac.predict", ["+dataset=fasta", f"dataset.path={folder}/in.fasta", "model=debug", "threads=1"]),
            ("plmjac.verify", []),
        ):
            sys.argv = [name, *arguments, f"store={folder}/run.zarr"]
            handlers = {number: signal.getsignal(number) for number in interruption.SIGNALS}
            try:
                importlib.import_module(name).main()
            except SystemExit as stop:
                assert stop.code in (0, None), stop.code
            for number, handler in handlers.items():
                signal.signal(number, handler)
            interruption.uninstall()


def _wait(child: int, timeout: float) -> int:
    deadline = time.monotonic() + timeout
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return -1000  # it hung
        time.sleep(0.005)


def _child(request: dict[str, Any]) -> None:
    """Run the command as the shell would, and end."""
    code = 1
    try:
        os.setsid()
        Path(request["output"] + ".pid").write_text(str(os.getpid()))
        os.chdir(request["cwd"])
        os.environ.update(request["environment"])
        output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        code = _command(request)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _command(request: dict[str, Any]) -> int:
    from faults import conditions
    from faults.injection import Fault, Injection

    module = importlib.import_module(request["module"])
    sys.argv = [module.__file__ or request["module"], *request["arguments"]]
    if request["condition"]:
        getattr(conditions, request["condition"])()
    injection = None
    if request["fault"] is not None:
        fault = Fault(**request["fault"])
        injection = Injection(fault, fault.under)
    elif request["count_under"] is not None:
        injection = Injection(None, request["count_under"])
    if injection is not None:
        injection.install()
    _compose_once(module, request["module"].rsplit(".", 1)[1])
    try:
        module.main()
    finally:
        if injection is not None and request["count_under"] is not None:
            Path(request["output"] + ".counts").write_text(json.dumps(injection.counts))
    return 0


def _compose_once(module: Any, name: str) -> None:
    """Let the command take its configuration from the parent's memory where that composed the same but for the store.

    Hydra takes longer than all the rest of such a run. Arguments that it has not met go the ordinary way.
    """
    arguments = tuple(text for text in sys.argv[1:] if not text.startswith("store="))
    store = [text.removeprefix("store=") for text in sys.argv[1:] if text.startswith("store=")]
    known = _composed.get((name, arguments))
    if known is None or len(store) != 1:
        return
    from plmjac import config

    def run(_name: str, job: Any, *_: Any, **__: Any) -> int:
        config._set_up_logging()
        try:
            return int(job({**known, "store": store[0]}))
        except config.UsageError as error:
            config.log.error("error: %s", error)
            return config.USAGE

    module.run = run


_composed: dict[tuple[str, tuple[str, ...]], dict[str, Any]] = {}
"""In the parent: configurations by command and arguments, the store left out."""


def _compose(name: str, arguments: Sequence[str]) -> None:
    from support import composed

    _composed[name, tuple(arguments)] = composed(name, *arguments, "store=unnamed")


if __name__ == "__main__":
    _serve()
