"""Models by name: the registry, sizes against names, devices, and how little an import costs."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import plmjac.models
from plmjac.models import Architecture, load_model, loading, names, resolve_precision, size_of
from plmjac.models.architecture import Esm2Size
from plmjac.models.registry import options_of

CONF = Path(__file__).parents[2] / "conf" / "model"


def test_unknown_name_names_the_nearest_and_the_list() -> None:
    with pytest.raises(ValueError, match=r"no model 'esm2_650M'; did you mean 'esm2_650m'\?"):
        load_model("esm2_650M")
    with pytest.raises(ValueError, match=r"no model 'xyz'; there are: .*tiny"):
        size_of("xyz")


def test_debug_takes_a_seed_and_no_checkpoint(tmp_path: Path) -> None:
    assert load_model("debug", seed=1).weights_sha256 != load_model("debug").weights_sha256
    with pytest.raises(ValueError, match="and no checkpoint; name the size with it: model=esm2_8m, or model=tiny"):
        load_model("debug", checkpoint=tmp_path)


def test_a_checkpoint_of_another_size_than_the_name(oracle: Any, make_oracle: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has 3 layers of width 48 with 4 heads, but esm2_8m has 6 layers"):
        load_model("esm2_8m", checkpoint=oracle.folder)
    make_oracle(Architecture(6, 320, 20), tmp_path)
    with pytest.raises(ValueError, match=r"but esm2_35m has .*; use model=esm2_8m"):
        size_of("esm2_35m", checkpoint=tmp_path)


def test_architecture_without_weights(oracle: Any) -> None:
    assert size_of("esm2_650m", kind="cuda") == Esm2Size(Architecture(33, 1280, 20), True, "fp16", "cuda")
    assert size_of("debug", precision="fp16") == load_model("debug", precision="fp16").size
    assert size_of("tiny", checkpoint=oracle.folder) == load_model("tiny", checkpoint=oracle.folder).size


def test_the_bundled_model() -> None:
    bundled = Path(plmjac.models.__file__).with_name("tiny.safetensors")
    if not bundled.exists():
        pytest.skip("tiny.safetensors is not bundled yet")
    model = load_model("tiny")
    assert model.name == "tiny" and model.size == size_of("tiny")
    assert model.readouts == {"logits", "contact_head", "attention", "representation"}
    tokens = torch.arange(20)[None]
    assert all(value.isfinite().all() for value in model.read(tokens, model.readouts).values())


def test_a_package_without_the_bundled_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "TINY_FILE", "absent.safetensors")
    with pytest.raises(ValueError, match="use model=debug"):
        load_model("tiny")


def test_devices() -> None:
    assert load_model("debug", device="cpu").logits(torch.zeros((1, 3), dtype=torch.int64)).device.type == "cpu"
    with pytest.raises(ValueError, match="there is no device 'gpu'"):
        load_model("debug", device="gpu")
    with pytest.raises(ValueError, match=r"CUDA devices are visible; use device=cpu"):
        load_model("debug", device=f"cuda:{torch.cuda.device_count()}")


def test_precisions() -> None:
    assert [resolve_precision(None, kind) for kind in ("cpu", "cuda", "mps")] == ["fp32", "fp16", "fp32"]
    assert resolve_precision(None, "cuda", fast=False) == "fp32"
    with pytest.raises(ValueError, match="computes in fp32, not fp16; use fast=true"):
        load_model("debug", fast=False, precision="fp16")
    with pytest.raises(ValueError, match="tf32 exists on NVIDIA GPUs only, this run is on cpu"):
        resolve_precision("tf32", "cpu")
    with pytest.raises(ValueError, match="tf32 exists on NVIDIA GPUs only"):
        load_model("debug", precision="tf32").logits(torch.zeros((1, 3), dtype=torch.int64))
    with pytest.raises(ValueError, match="no precision 'bf16'; choose from fp32, tf32, fp16"):
        resolve_precision("bf16", "cuda")


def test_every_model_has_a_configuration_file() -> None:
    """It sets every option that the model takes, to the default that `load_model` has."""
    assert {path.stem for path in CONF.glob("*.yaml")} == set(names())
    for path in CONF.glob("*.yaml"):
        content = yaml.safe_load(path.read_text()) | ({"seed": 0} if path.stem == "debug" else {})
        assert content == {"name": path.stem, **options_of(path.stem)}


def test_importing_and_building_import_nothing_heavy() -> None:
    code = (
        "import sys, plmjac.models.registry; print(*sys.modules);plmjac.models.load_model('debug'); print(*sys.modules)"
    )
    root = Path(plmjac.models.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    imported, built = (set(line.split()) for line in done.stdout.splitlines())
    assert "plmjac.models.registry" in imported
    assert not imported & {"torch", "numpy", "esm", "huggingface_hub", "safetensors", "torch._dynamo"}
    assert "esm" in built and not built & {"torch._dynamo", "torch._inductor", "huggingface_hub"}
