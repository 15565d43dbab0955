"""The checks that need a GPU, in under four minutes and on one page: `make gpu`.

    python scripts/gpu_check.py gather wheels         # where there is a network: what a GPU machine lacks of ours
    make gpu PYTHON=python3 ARGS="--wheels wheels"    # on the GPU machine, which needs PyTorch and no network

Four parts, each in a process of its own and within its time: the tests marked gpu; scripts/benchmark.py with its
precision table (authors' loop sampled, transformers eager and compiled, our paths; weights made on the device);
scripts/gpu_candidates.py, one forward with and without each candidate for a faster one, which keeps what is faster and
right for later runs on this card; and one whole `plmjac.predict` run of a model of 150M's size, with the share of its
time that the device was busy. A part that cannot run here is skipped by name; one that fails or runs out of time takes
no other with it. Prints a page and writes gpu_check.json; ends with 1 where a part failed. `--device cpu` rehearses the
parts on small models.
"""

import argparse
import importlib.util
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LACKS = (
    "annotated-types", "antlr4-python3-runtime", "backports.zstd", "beartype", "biopython", "donfig", "fair-esm",
    "gemmi", "google-crc32c", "httpx", "hydra-core", "isal", "numcodecs", "omegaconf", "pydantic", "pydantic_core",
    "pydssp", "stamina", "tenacity", "typing-inspection", "xopen", "zarr", "zlib-ng",
)  # fmt: skip
"""Needed by plmjac and its tests beside PyTorch, Lightning, transformers, pandas, pytest and their like. Not pyarrow,
which is over half as large again as all of these: what writes a store is skipped where it is not there."""
MOST_BYTES = 40e6
PLATFORMS = ("manylinux2014_x86_64", *(f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 17, 12, 5)))
SHARES = {"tests": 0.3, "speed": 0.5, "candidates": 0.5, "run": 1.0}
"""The parts in order, and how much of the time that is left each may take."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a part: done, failed, out of time or skipped, what it said of that, its seconds and numbers."""

    state: str
    said: str
    seconds: float
    found: dict[str, Any]


def gather(folder: Path, python: str) -> int:
    """Fill a folder with wheels for a Python on x86-64 Linux, in the versions of constraints.txt; returns bytes."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {_plain(line.split("==")[0]): line for line in lines if "==" in line}
    wanted = [pins.get(_plain(name), name) for name in LACKS]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    binary = [name for name in wanted if not name.startswith("antlr4")]
    where = [word for name in PLATFORMS for word in ("--platform", name)]
    subprocess.run(
        [*pip, "download", "--no-deps", "--only-binary=:all:", "--python-version", python, "--implementation", "cp",
         *where, "--dest", str(folder), *binary], check=True,
    )  # fmt: skip
    sources = [name for name in wanted if name.startswith("antlr4")]  # pure Python, published without a wheel
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), *sources], check=True)
    total = sum(path.stat().st_size for path in folder.glob("*.whl"))
    if total > MOST_BYTES:
        raise SystemExit(f"gpu_check: the wheels in {folder} are {total / 1e6:.1f} MB, over {MOST_BYTES / 1e6:.0f}")
    return total


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def why_not(part: str, device: str) -> str:
    """Reason why a part cannot run here; empty if it can."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        return f"PyTorch {torch.__version__} sees no CUDA device"
    needs = {
        "tests": ["pytest", "hydra"],
        "speed": ["transformers", "esm"],
        "candidates": ["esm"],
        "run": ["pyarrow", "zarr", "lightning"],
    }
    missing = [name for name in needs[part] if importlib.util.find_spec(name) is None]
    return f"{', '.join(missing)} not installed" if missing else ""


def words(part: str, device: str, out: Path, seconds: float) -> list[str]:
    """The command line of a part."""
    if part == "tests":
        # Other versions than ours warn of other things, which the project's own settings would make errors.
        here = [str(path) for path in sorted(ROOT.glob("tests/**/test_gpu*.py"))]
        return ["-m", "pytest", "-m", "gpu", "-q", "-o", "filterwarnings=", "-p", "no:cacheprovider", *here]
    if part == "run":
        return [__file__, "run", "--device", device, "--out", str(out)]
    if part == "candidates":
        few = ["--cases", "650m:256", "8m:50"] if device == "cuda" else ["--cases", "debug:24"]
        return [str(ROOT / "scripts" / "gpu_candidates.py"), "--device", device, *few, "--out", str(out)]
    few = ["--cases", "650m:256", "8m:256"] if device == "cuda" else ["--quick", "--cases", "debug:24"]
    minutes = f"{seconds / 60 / 3:.2f}"  # the rest is for what comes before and after the rounds
    script = str(ROOT / "scripts" / "benchmark.py")
    return [script, "--device", device, *few, "--minutes", minutes, "--precision-table", "--out", str(out)]


def carried_out(part: str, device: str, out: Path, seconds: float, site: str) -> Outcome:
    """Run a part for so many seconds at most, all processes that it starts included."""
    if reason := why_not(part, device):
        return Outcome("skipped", reason, 0.0, {})
    paths = [
        str(ROOT),
        str(ROOT / "scripts"),
        str(ROOT / "tests"),
        *[site] * bool(site),
        os.environ.get("PYTHONPATH", ""),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "HF_HUB_OFFLINE": "1"}
    if part != "candidates" or device != "cuda":  # whose finding is for later runs
        environment["PLMJAC_CACHE"] = str(out / "cache")
    began = time.monotonic()
    command = [sys.executable, *words(part, device, out, seconds)]
    log = out / f"{part}.log"
    with log.open("w") as file:
        child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True)
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            code = None
    spent, lines = time.monotonic() - began, log.read_text(errors="replace").strip().splitlines()
    result = out / {"speed": "benchmark.json"}.get(part, f"{part}.json")
    found = json.loads(result.read_text()) if result.exists() else {}
    if code is None:
        return Outcome("out of time", f"after {spent:.0f} s; see {log}", spent, found)
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    said = "\n".join([*failed, *lines[-1:]]) if part == "tests" or code else ""
    return Outcome("failed" if code else "done", said, spent, found)


def whole_run(device: str, out: Path) -> dict[str, Any]:
    """One `predict` run that keeps Jacobians: seconds, and the share of the loop that the device was busy."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from plmjac.models import Architecture, debug
    from plmjac.predict import main as predict

    on_gpu = device == "cuda"
    count, length = (6, 256) if on_gpu else (2, 24)
    if on_gpu:
        debug.DEBUG_ARCHITECTURE = Architecture(30, 640, 20)
    with tempfile.TemporaryDirectory() as folder:
        fasta = Path(folder) / "some.fasta"
        letters = "ACDEFGHIKLMNPQRSTVWY"
        fasta.write_text(
            "".join(f">p{k}\n{''.join(letters[(i * i + k * i) % 19] for i in range(length))}\n" for k in range(count))
        )
        sys.argv[1:] = [
            "+dataset=fasta", f"dataset.path={fasta}", "model=debug", "keep=[contacts,jacobian]",
            f"trainer={'gpu' if on_gpu else 'cpu'}", f"store={folder}/run.zarr",
        ]  # fmt: skip
        began = time.perf_counter()
        with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as found:
            try:
                predict()
            except SystemExit as ended:
                if ended.code:
                    raise
        seconds = time.perf_counter() - began
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in found.events()
        if event.device_type.name == device.upper()
    ]
    return {
        "proteins": count, "length": length, "seconds": seconds, **busy(spans),
        "peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
    }  # fmt: skip


def busy(spans: Iterable[tuple[float, float]]) -> dict[str, float]:
    """Seconds from the first of these spans (microseconds) to the end of the last, and the share that any covers."""
    ordered = sorted(spans)
    covered, reached = 0.0, ordered[0][0]
    for start, stop in ordered:
        covered += max(0.0, stop - max(start, reached))
        reached = max(reached, stop)
    loop = reached - ordered[0][0]
    return {"loop_seconds": loop / 1e6, "busy": covered / loop}


def page(parts: dict[str, Outcome], device: str, seconds: float, out: Path) -> str:
    """The results as text."""
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() and device == "cuda" else platform.machine()
    lines = [
        f"GPU check, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {name}, PyTorch {torch.__version__}, Python "
        f"{platform.python_version()}, {seconds:.0f} s",
        "",
    ]
    for part, outcome in parts.items():
        first, *rest = outcome.said.splitlines() or [""]
        lines += [f"{part:10s} {outcome.state:11s} {outcome.seconds:4.0f} s  {first}".rstrip(), *rest]
    run = parts["run"].found
    if run:
        lines += [
            "",
            f"A whole run, {run['proteins']} proteins of {run['length']}: {run['seconds']:.1f} s, its loop "
            f"{run['loop_seconds']:.1f} s, the device busy {run['busy']:.0%} of that.",
        ]
    if parts["candidates"].found:
        lines += ["", "Candidates for a faster forward:", parts["candidates"].found["text"]]
    if parts["speed"].found and (out / "benchmark.md").exists():
        lines += ["", (out / "benchmark.md").read_text()]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Gather wheels, do one part, or check everything; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", nargs="?", choices=["check", "gather", "run"], default="check")
    parser.add_argument("folder", nargs="?", type=Path, help="for gather: where the wheels go")
    parser.add_argument("--python", default="3.12", help="for gather: the Python of the GPU machine")
    parser.add_argument("--wheels", type=Path, help="a folder that gather filled; installed for this check alone")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: a rehearsal")
    parser.add_argument("--seconds", type=float, default=230.0, help="for all parts together")
    parser.add_argument("--out", type=Path, default=Path("benchmark"))
    given = parser.parse_args(arguments)
    began = time.monotonic()
    if given.what == "gather":
        if given.folder is None:
            parser.error("gather needs the folder that the wheels go to")
        print(f"{given.folder}: {gather(given.folder, given.python) / 1e6:.1f} MB")
        return 0
    out = given.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    if given.what == "run":
        (out / "run.json").write_text(json.dumps(whole_run(given.device, out)))
        return 0
    for name in ("run.json", "benchmark.json", "benchmark.md", "candidates.json"):  # of an earlier check
        (out / name).unlink(missing_ok=True)
    parts = {}
    with tempfile.TemporaryDirectory() as site:
        if given.wheels:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
            wheels = sorted(str(path) for path in given.wheels.glob("*.whl"))
            subprocess.run([*pip, "--no-cache-dir", "--target", site, *wheels], check=True)
            sys.path.insert(0, site)
        for part, share in SHARES.items():
            left = given.seconds - (time.monotonic() - began)
            parts[part] = carried_out(part, given.device, out, max(1.0, share * left), site if given.wheels else "")
    seconds = time.monotonic() - began
    print(page(parts, given.device, seconds, out))
    numbers = {name: vars(outcome) for name, outcome in parts.items()}
    (out / "gpu_check.json").write_text(json.dumps({"seconds": seconds, "parts": numbers}, indent=1) + "\n")
    return int(any(outcome.state in ("failed", "out of time") for outcome in parts.values()))


if __name__ == "__main__":
    sys.exit(main())
