"""A mistake is answered before anything slow is imported: what a process has loaded by then is looked up, not timed."""

import re
import subprocess
import sys

import pytest
from support import ROOT

SLOW = ("torch", "lightning", "zarr", "pandas", "pyarrow", "matplotlib", "wandb", "esm", "httpx", "scipy")
"""Each takes 0.1 s to 3 s to import, and none is needed to read a configuration."""

SCRIPT = """
import sys, runpy
module, lines = sys.argv[1], {lines!r}
for line in lines:
    sys.argv = [module, *line]
    try:
        runpy.run_module(module, run_name="__main__")
        code = None
    except SystemExit as stop:
        code = stop.code
    print("code", code, flush=True)
    print("code", code, file=sys.stderr, flush=True)
print("slow", *(name for name in {slow!r} if name in sys.modules))
"""

MISTAKES = [
    (["+dataset=demo", "keep=foo"], "no readout 'foo'; there are: "),
    (["+dataset=demo", "keep=[contacts,logit]"], "did you mean 'logits'?"),
    (["+dataset=demo", "max_lenght=5"], "did you mean 'max_length'?"),
    (["+dataset=demo", "max_length=five"], "valid integer"),
    (["+dataset=pbd"], "did you mean 'pdb'?"),
    ([], "which dataset?"),
    (["+dataset=fasta", "dataset.path=nowhere.fasta"], "nowhere.fasta does not exist"),
    (["+dataset=demo", "+dataset.pth=x"], "dataset.pth"),
]


@pytest.mark.parametrize("module", ["plmjac.predict", "plmjac.plan"])
def test_help_and_mistakes_are_answered_before_anything_slow_is_imported(module: str) -> None:
    lines = [line for line, _ in MISTAKES] + [["--help"]]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(lines=lines, slow=SLOW), module],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "slow", done.stdout[-300:] + done.stderr
    answers = re.split(r"code (\d)\n", done.stderr)
    for (line, says), said, code in zip(MISTAKES, answers[::2], answers[1::2], strict=False):
        assert code == "2" and says in said, (line, said)
    assert "code 0" in done.stdout and "Exit codes" in done.stdout and answers[-2] == "0"


def test_opening_a_store_waits_for_no_tensors() -> None:
    script = f"import sys, plmjac; plmjac.open_store; print(*(name for name in {SLOW!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert set(done.stdout.split()) <= {"zarr", "pyarrow"}, done.stdout + done.stderr
