"""On a CUDA device: the numbers of the CPU, the store of a whole run, and a map that stays on the device."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support import run_command

import plmjac
from plmjac.config import UsageError
from plmjac.store import open_store

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device here"),
]
SEQUENCE = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQXB"


@pytest.mark.parametrize(("fast", "compiled"), [(False, False), (True, False), (True, True)])
def test_the_jacobian_is_that_of_the_cpu(fast: bool, compiled: bool) -> None:
    on_cpu = plmjac.categorical_jacobian(plmjac.load_model("debug", fast=False), SEQUENCE)
    model = plmjac.load_model("debug", fast=fast, compiled=compiled, precision="fp32", device="cuda")
    on_gpu = plmjac.categorical_jacobian(model, SEQUENCE)
    assert on_gpu.device.type == "cuda"
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=1e-4, rtol=0)
    ours, theirs = plmjac.contact_map(on_gpu).cpu(), plmjac.contact_map(on_cpu)
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_a_run_on_one_gpu(predict: Callable[..., int], fasta: Path, tmp_path: Path) -> None:
    arguments = (
        "+dataset=fasta",
        f"dataset.path={fasta}",
        "model=debug",
        "model.precision=fp32",
        "keep=[contacts,jacobian]",
    )
    assert predict(*arguments, "trainer=cpu", f"store={tmp_path / 'cpu.zarr'}") == 0
    assert predict(*arguments, "trainer=gpu", f"store={tmp_path / 'gpu.zarr'}") == 0
    for name in open_store(tmp_path / "cpu.zarr"):
        on_cpu, on_gpu = (open_store(tmp_path / f"{kind}.zarr")[name].contacts for kind in ("cpu", "gpu"))
        np.testing.assert_allclose(on_gpu, on_cpu, atol=1e-5 * max(1e-9, float(np.abs(on_cpu).max())))
    assert open_store(tmp_path / "gpu.zarr").attributes["run"]["device"] == "cuda"


def test_a_cpu_store_goes_on_on_a_gpu_with_a_word_of_warning(fasta: Path, tmp_path: Path) -> None:
    arguments = [
        "+dataset=fasta",
        f"dataset.path={fasta}",
        "model=debug",
        "model.precision=fp32",
        f"store={tmp_path / 'run.zarr'}",
    ]
    assert run_command(*arguments, "trainer=cpu", "dataset.ids=[a]").returncode == 0
    more = run_command(*arguments, "trainer=gpu")
    assert more.returncode == 0 and "not to the last bit" in more.stderr


@pytest.mark.parametrize("precision", ["fp16", "tf32"])
def test_lower_precision_keeps_the_map(precision: str) -> None:
    full, lower = (
        plmjac.contact_map(
            plmjac.categorical_jacobian(plmjac.load_model("tiny", precision=each, device="cuda"), SEQUENCE)
        )
        for each in ("fp32", precision)
    )
    assert torch.corrcoef(torch.stack([full.flatten(), lower.flatten()]))[0, 1] >= 0.9999


def test_half_precision_is_the_default_and_its_store_is_not_continued_in_another(
    predict: Callable[..., int], fasta: Path, tmp_path: Path
) -> None:
    assert plmjac.load_model("debug", device="cuda").precision == "fp16"
    arguments = ["+dataset=fasta", f"dataset.path={fasta}", "model=debug", f"store={tmp_path / 'run.zarr'}"]
    assert predict(*arguments, "trainer=gpu") == 0
    assert open_store(tmp_path / "run.zarr").attributes["model"]["precision"] == "fp16"
    with pytest.raises(UsageError, match="precision"):
        predict(*arguments, "trainer=cpu")
