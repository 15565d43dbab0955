"""The notebook in examples/: its cells run in order, and show what they say."""

import json
import warnings

import matplotlib.pyplot as plt
import pytest
from support import ROOT

from plmjac.plots import Figure


def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = json.loads((ROOT / "examples/pair.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    names: dict[str, object] = {}
    monkeypatch.setattr(plt, "show", lambda: None)
    with warnings.catch_warnings(), plt.rc_context({"backend": "agg"}):
        for number, source in enumerate(cells):
            exec(compile(source, f"cell {number}", "exec"), names)
    assert names["jacobian"].shape == (47, 20, 47, 20) and isinstance(names["figure"], Figure)
    assert 0 <= names["i"] <= names["j"] - 6 and names["limit"] == abs(names["couplings"]).max() > 0
    plt.close("all")
