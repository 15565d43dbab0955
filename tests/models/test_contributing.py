"""The model that CONTRIBUTING.md adds in one file: it conforms, and runs."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support import ROOT

import plmjac
from plmjac.models import load_model, registry
from plmjac.store import open_store


def test_the_model_of_contributing_conforms_and_runs(
    predict: Callable[..., int], fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:  # the file, and the check
        exec(compile(block, "CONTRIBUTING.md", "exec"), {"__name__": "neighbours"})
    store = tmp_path / "a.zarr"
    assert predict(
        "+dataset=fasta", f"dataset.path={fasta}", "model=neighbours", "model.strength=2", "threads=1",
        f"store={store}", "keep=[contacts,jacobian]",
    ) == 0  # fmt: skip
    opened = open_store(store)
    assert opened.attributes["model"]["strength"] == 2
    jacobian = plmjac.categorical_jacobian(load_model("neighbours", strength=2), opened["d"].sequence)
    np.testing.assert_allclose(opened["d"].jacobian, jacobian, atol=1e-2)
    assert float(jacobian[3, :, 6].abs().max()) == 0 < float(jacobian[3, :, 4].abs().max())
