"""On a CUDA device: stores of whole runs, which go on and are written as on a CPU, and memory as forecast."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("pyarrow", reason="a store's manifest needs pyarrow")

from support import composed, run_command

import plmjac
from plmjac.files import UsageError
from plmjac.inference.memory import forecast
from plmjac.inference.settings import parse_predict
from plmjac.models import Architecture, Precision, debug
from plmjac.models.architecture import Esm2Size
from plmjac.store import open_store

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device here"),
]


@pytest.mark.parametrize(
    "keys",
    [
        ("keep=[contacts,jacobian,logits,contact_head,representation]", "rows_per_chunk=3"),
        ("keep=[contacts,attention_heads]", "max_tokens=64"),
        ("substitutions=subset", "keep=[contacts,jacobian]"),
        ("substitutions=mask", "keep=[contacts,jacobian]"),
        ("substitutions=none", "keep=[contact_head,logits]", "model.bos_eos=mask"),
        ("+experiment=single_segment", "segments.size=6", "segments.margin=1", "segments.threshold=0"),
        (
            "+experiment=single_segment",
            "segments.size=6",
            "segments.margin=1",
            "segments.threshold=0",
            "readout=jacobian",
        ),
    ],
    ids=" ".join,
)
def test_a_run_on_one_gpu(keys: tuple[str, ...], predict: Callable[..., int], fasta: Path, tmp_path: Path) -> None:
    """Every array of every protein, as copied to the host beside the next forward, written and read again."""
    arguments = ("+dataset=fasta", f"dataset.path={fasta}", "model=debug", "model.precision=fp32", *keys)
    assert predict(*arguments, "trainer=cpu", f"store={tmp_path / 'cpu.zarr'}") == 0
    assert predict(*arguments, "trainer=gpu", f"store={tmp_path / 'gpu.zarr'}") == 0
    there, here = open_store(tmp_path / "cpu.zarr"), open_store(tmp_path / "gpu.zarr")
    assert list(there) == list(here) and here.attributes["run"]["device"] == "cuda"
    for identifier in there:
        assert there[identifier].names == here[identifier].names
        for name in there[identifier].names:
            on_cpu, on_gpu = there[identifier].array(name), here[identifier].array(name)
            # A Jacobian is stored in float16, of which one step is 1e-3 of the value; a float32 map is up to 6e-5 of
            # its largest entry from the exact one on either device (docs/benchmarks.md, Rounding).
            atol = (2e-3 if on_cpu.dtype == np.float16 else 2e-4) * float(np.abs(on_cpu).max(initial=1e-9))
            np.testing.assert_allclose(on_gpu, on_cpu, atol=atol, rtol=0, err_msg=f"{identifier} {name}")


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


def test_half_precision_is_the_default_and_its_store_is_not_continued_in_another(
    predict: Callable[..., int], fasta: Path, tmp_path: Path
) -> None:
    assert plmjac.load_model("debug", device="cuda").precision == "fp16"
    arguments = ["+dataset=fasta", f"dataset.path={fasta}", "model=debug", f"store={tmp_path / 'run.zarr'}"]
    assert predict(*arguments, "trainer=gpu") == 0
    assert open_store(tmp_path / "run.zarr").attributes["model"]["precision"] == "fp16"
    with pytest.raises(UsageError, match="precision"):
        predict(*arguments, "trainer=cpu")


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_device_memory_is_as_forecast(
    precision: Precision, predict: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a tenth, cuBLAS's workspace (up to 64 MB) apart."""
    size = Architecture(4, 640, 20)
    monkeypatch.setattr(debug, "DEBUG_ARCHITECTURE", size)
    fasta = tmp_path / "long.fasta"
    fasta.write_text(">a\n" + "".join("ACDEFGHIKLMNPQRSTVWY"[k * k % 19] for k in range(300)) + "\n")
    words = (
        "+dataset=fasta", f"dataset.path={fasta}", "model=debug", f"model.precision={precision}", "trainer=gpu",
        "keep=[contacts,jacobian]", "max_tokens=32768", f"store={tmp_path / 'a.zarr'}",
    )  # fmt: skip
    torch.cuda.reset_peak_memory_stats()
    assert predict(*words) == 0
    settings = parse_predict(composed("predict", *words))
    told = forecast(
        Esm2Size(size, True, precision, "cuda"), 300, settings.substitutions, settings.keep, 32768, kind="cuda"
    )
    assert told.peak == pytest.approx(torch.cuda.max_memory_allocated(), rel=0.1, abs=64e6)
