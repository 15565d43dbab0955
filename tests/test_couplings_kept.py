"""keep=couplings: the best pairs' blocks, the same as from the whole Jacobian, through the same call."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support import tree

from plmjac.config import UsageError
from plmjac.jacobian import num_pairs
from plmjac.store import StoreError, open_store, verify


def test_kept_couplings_are_those_of_the_jacobian(tmp_path: Path, predict: Callable[..., int]) -> None:
    path = tmp_path / "three.fasta"
    path.write_text(">a\nMKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ\n>b\nGSHMLEDPVDAFKLAAQWERTYXKV\n>short\nMKVLA\n")
    common = ("+dataset=fasta", f"dataset.path={path}", "model=debug", "max_tokens=512", "threads=1")
    whole, some, cut = (tmp_path / f"{name}.zarr" for name in ("whole", "some", "cut"))
    assert predict(*common, "keep=[contacts,jacobian]", f"store={whole}") == 0
    assert predict(*common, "keep=[couplings]", "couplings_per_residue=1.5", f"store={some}") == 0
    assert predict(*common, "keep=[couplings]", "couplings_per_residue=1.5", "rows_per_chunk=7", f"store={cut}") == 0
    exact, kept = open_store(whole), open_store(some)
    for identifier in ("a", "b", "short"):
        protein, all_of_it = kept[identifier], exact[identifier]
        assert protein.names == ("coupled_pairs", "couplings")
        pairs = protein.array("coupled_pairs")
        number = num_pairs(len(protein), 1.5)
        assert protein.array("couplings").shape == (number, 20, 20)
        first, second = np.triu_indices(len(protein), 6)
        scores = all_of_it.contacts[first, second]
        best = np.argsort(-scores, kind="stable")[:number]
        assert pairs.tolist() == np.stack([first[best], second[best]], axis=1).tolist()
        for i, j in pairs[:5].tolist():
            expected = all_of_it.couplings(i, j)
            tolerance = 2e-3 * np.abs(expected).max() + 1e-6  # both are float16 on disk
            np.testing.assert_allclose(protein.couplings(i, j), expected, atol=tolerance)
            np.testing.assert_allclose(protein.couplings(j, i), expected.T, atol=tolerance)
        with pytest.raises(StoreError, match=r"couplings of \(0, 1\) were not kept"):
            protein.couplings(0, 1)
        np.testing.assert_allclose(
            open_store(cut)[identifier].array("couplings"), protein.array("couplings"), rtol=2e-3, atol=1e-4
        )
    assert num_pairs(5, 1.5) == 0
    assert not any(damage for _, damage in verify(kept, deep=True))
    before = tree(some)
    (some / "proteins" / "a").rename(tmp_path / "gone")
    assert predict(*common, "keep=[couplings]", "couplings_per_residue=1.5", f"store={some}") == 0
    assert tree(some) == before
    with pytest.raises(UsageError, match="no effect; add couplings"):
        predict(*common, "couplings_per_residue=1.5", f"store={tmp_path}/x.zarr")
    with pytest.raises(UsageError, match="needs all 20 amino acids"):
        predict(*common, "keep=[couplings]", "substitutions=mask", f"store={tmp_path}/x.zarr")
