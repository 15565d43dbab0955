"""The jobs that reproduce_paper.sh prints for SLURM: what a shell and sbatch make of them, and every command's keys."""

import json
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, composed

from plmjac.evaluate import parse_evaluate
from plmjac.inference.settings import parse_predict

SBATCH = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["JOBS"], "a+") as file:
    file.seek(0)
    number = 100 + len(file.readlines())
    file.write(json.dumps(sys.argv[1:]) + "\\n")
print(number)
"""


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """The arguments of each call of sbatch; job 100 is the first. Every analysis, and blanks in every path."""
    folder = tmp_path_factory.mktemp("some paper")
    fake = folder / "bin" / "sbatch"
    fake.parent.mkdir()
    fake.write_text(SBATCH)
    fake.chmod(fake.stat().st_mode | stat.S_IEXEC)
    paths = {name: str(folder / name.lower()) for name in (
        "OUT", "DATA", "STRUCTURES", "ALIGNMENTS", "KAIB", "FAMILY", "FAMILY_STRUCTURE", "ISOFORMS"
    )}  # fmt: skip
    environment = {
        **os.environ, **paths, "MODEL": "debug", "JOBS": str(folder / "jobs"), "PYTHON": str(folder / "python"),
        "PATH": f"{fake.parent}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip
    script = ROOT / "scripts" / "reproduce_paper.sh"
    printed = subprocess.run(
        ["bash", str(script), "sbatch"], env=environment, capture_output=True, text=True, check=True
    )
    assert not printed.stderr
    subprocess.run(["bash", "-n"], input=printed.stdout, text=True, check=True)
    done = subprocess.run(
        ["bash", "-eu"], input=printed.stdout, env=environment, capture_output=True, text=True, check=True
    )
    assert not done.stderr
    return [json.loads(line) for line in (folder / "jobs").read_text().splitlines()]


def words_of(job: list[str]) -> list[str]:
    """The command that a job runs: a script and its words, or what a shell makes of --wrap."""
    wrapped = [word.removeprefix("--wrap=") for word in job if word.startswith("--wrap=")]
    return shlex.split(wrapped[0]) if wrapped else [word for word in job if not word.startswith("--")]


def test_every_printed_command_is_one_that_runs(jobs: list[list[str]]) -> None:
    kinds = []
    for job in jobs:
        program, *words = words_of(job)
        if program.endswith(".sbatch"):
            assert Path(program).is_file()
            parse_predict(composed("predict", *words))
            kinds.append("predict")
        elif words[:2] == ["-m", "plmjac.evaluate"]:
            assert Path(program).name == "python"
            _, settings = parse_evaluate(composed("evaluate", *words[2:]))
            kinds.append(settings.evaluation.model_dump()["name"])
        else:
            assert Path(words[0]) == ROOT / "scripts" / "reproduction_table.py" and len(words) == 2
            kinds.append("table")
    assert kinds[-1] == "table" and kinds.count("predict") == 15 and kinds.count("contact_recovery") == 5
    assert set(kinds) >= {
        "contact_precision", "fingerprints", "linear_baselines", "coupling_correlation", "capacity", "false_discovery",
        "conformations", "relatives", "should_not_fold",
    }  # fmt: skip


def test_a_job_waits_for_those_that_write_what_it_reads(jobs: list[list[str]]) -> None:
    made: dict[str, int] = {}
    for number, job in enumerate(jobs, start=100):
        assert job[0] == "--parsable" or number == 99 + len(jobs)
        waits = [word for word in job if word.startswith("--dependency=")]
        ids = [int(each) for word in waits for each in word.removeprefix("--dependency=afterany:").split(":")]
        assert all(each < number for each in ids)
        stores = [word for word in words_of(job) if word.startswith("store=")]
        if words_of(job)[0].endswith(".sbatch"):
            assert not waits
            made[stores[0].removeprefix("store=")] = number
        elif stores:
            read = stores[0].removeprefix("store=").strip("[]").split(",")
            assert {made[store] for store in read} <= set(ids)
    assert sorted(ids) == list(range(100, 99 + len(jobs)))  # the table waits for all


@pytest.mark.timeout(1800)  # some twenty processes: a minute and a half of one core
def test_the_script_runs_on_the_demo_to_its_table(tmp_path: Path) -> None:
    """As `make reproduce-tiny` does, but for a model of random weights, which takes half the time."""
    done = subprocess.run(
        ["bash", str(ROOT / "scripts" / "reproduce_paper.sh"), "tiny"],
        env={**os.environ, "OUT": str(tmp_path), "MODEL": "debug", "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line.strip("| ").split(" | ") for line in (tmp_path / "reproduction.md").read_text().splitlines()[2:]]
    found = {analysis: ours for analysis, _, ours in rows}
    ran = {analysis for analysis, ours in found.items() if not ours.startswith("not run")}
    assert ran == {
        "Jacobian, long-range P@L/2", "contact head, long-range P@L/2", "parameters for all couplings",
        "single segments, half recovered at f", "close pairs that jump by 0.5",
        "control: shuffled sequences, false discovery rate", "strong pairs like the typical one",
    }  # fmt: skip
    assert all("needs" in ours for analysis, ours in found.items() if analysis not in ran)
    assert found["parameters for all couplings"] == "261,120,000,000"
