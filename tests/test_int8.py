"""The Jacobian in int8: within half a step of what was computed, read through the same calls, resumed and checked."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support import tree

from plmjac.jacobian import contact_map, in_steps, steps
from plmjac.readouts import kept_for
from plmjac.store import CorruptStoreError, open_store, verify

BOUND = 0.5 + 127 * 2**-11
"""Steps: half of one by rounding, and what the largest value of a block loses by the step's own rounding to float16."""


def test_steps_are_kept_block_by_block() -> None:
    """Blocks from 1e-4 to 1e3 in size, one of zeros, one too small for a step; every value against a loop."""
    source = torch.Generator().manual_seed(0)
    rows = torch.randn(5, 20, 6, 20, generator=source) * 10 ** (torch.rand(5, 1, 6, 1, generator=source) * 7 - 4)
    rows[1, :, 2, :] = 0
    rows[3, :, 4, :] *= 1e-9
    whole, step = in_steps(rows), steps(rows)
    assert whole.abs().max() == 127
    assert (whole == whole.round()).all()
    for i in range(5):
        for j in range(6):
            block, back = rows[i, :, j, :], whole[i, :, j, :] * step[i, j]
            assert step[i, j] == pytest.approx(float(block.abs().max()) / 127, rel=2**-11, abs=3e-8)
            assert (back - block).abs().max() <= max(BOUND * float(step[i, j]), 4e-6)
    assert (whole[1, :, 2, :] == 0).all()


@pytest.fixture
def stores(tmp_path: Path, predict: Callable[..., int]) -> tuple[Path, Path]:
    """Two proteins of the debug model with the Jacobian in float16, and in int8; several chunks each."""
    path = tmp_path / "two.fasta"
    path.write_text(">a\nMKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ\n>b\nGSHMLEDPVDAFKLAAQWERTYXKV\n")
    made = []
    for name, kept in (("half", "jacobian"), ("int8", "jacobian_int8")):
        made.append(tmp_path / f"{name}.zarr")
        keys = (f"keep=[contacts,{kept}]", "rows_per_chunk=7", "max_tokens=512", "threads=1", f"store={made[-1]}")
        assert predict("+dataset=fasta", f"dataset.path={path}", "model=debug", *keys) == 0
    return made[0], made[1]


def test_an_int8_store_reads_as_the_other(stores: tuple[Path, Path], predict: Callable[..., int]) -> None:
    half, int8 = (open_store(path) for path in stores)
    for identifier in ("a", "b"):
        exact, found = half[identifier], int8[identifier]
        assert {"jacobian", "jacobian_int8", "jacobian_scale"} <= set(found.names)
        step = found.array("jacobian_scale").astype(np.float32)[:, None, :, None]
        assert found.jacobian_int8.dtype == np.int8
        away = np.abs(found.jacobian - exact.jacobian.astype(np.float32))
        assert (away <= BOUND * step + np.abs(exact.jacobian.astype(np.float32)) * 2**-10 + 1e-7).all()
        np.testing.assert_array_equal(found.contacts, exact.contacts)  # of the float32 rows in both
        again = contact_map(torch.from_numpy(found.jacobian)).numpy()
        apart = np.triu_indices(len(found), 6)
        assert np.corrcoef(again[apart], exact.contacts[apart])[0, 1] > 0.999
        largest = float(np.abs(exact.couplings(2, 19)).max())
        np.testing.assert_allclose(found.couplings(2, 19), exact.couplings(2, 19), atol=0.05 * largest)
        np.testing.assert_allclose(found.completed, found.jacobian)
    assert not any(damage for _, damage in verify(open_store(stores[1]), deep=True))

    # Resumed: a protein that is lost comes back with the same bytes.
    before = tree(stores[1])
    shutil.rmtree(stores[1] / "proteins" / "a")
    path = stores[1].parent / "two.fasta"
    keys = ("keep=[contacts,jacobian_int8]", "rows_per_chunk=7", "max_tokens=512", "threads=1", f"store={stores[1]}")
    assert predict("+dataset=fasta", f"dataset.path={path}", "model=debug", *keys) == 0
    assert tree(stores[1]) == before

    # Damaged: a flipped byte of either array is an error and not a number.
    for name in ("jacobian_int8", "jacobian_scale"):
        chunk = max((stores[1] / "proteins" / "b" / name).rglob("c/*/**/*"), key=lambda each: each.stat().st_size)
        data = bytearray(chunk.read_bytes())
        data[len(data) // 2] ^= 1
        chunk.write_bytes(bytes(data))
        with pytest.raises(CorruptStoreError):
            _ = open_store(stores[1])["b"].jacobian
        data[len(data) // 2] ^= 1
        chunk.write_bytes(bytes(data))
    assert open_store(stores[1])["b"].jacobian.shape == (25, 20, 25, 20)


def test_what_the_format_promises_of_the_demo(tmp_path: Path, predict: Callable[..., int]) -> None:
    """The figures of docs/format.md: bytes, and the map of what is read back beside that of the float16 array.

    Of three of the ten domains, among them the two whose correlations were lowest.
    """
    path = tmp_path / "demo.zarr"
    keys = (
        "dataset.ids=[2O9S_A,1WVN_A,1TEN_A]",
        "model=tiny",
        "max_tokens=1024",
        "threads=1",
        "keep=[contacts,jacobian,jacobian_int8]",
    )
    assert predict("+dataset=demo", *keys, f"store={path}") == 0
    taken = {"jacobian": 0, "jacobian_int8": 0, "jacobian_scale": 0}
    all_pairs: list[float] = []
    apart: list[float] = []
    same, ratios = [], []
    store = open_store(path)
    for protein in (store[identifier] for identifier in store):
        size = {
            name: sum(each.stat().st_size for each in (protein.folder / name).rglob("*") if each.is_file())
            for name in taken
        }
        taken = {name: taken[name] + size[name] for name in taken}
        ratios.append((size["jacobian_int8"] + size["jacobian_scale"]) / size["jacobian"])
        half = torch.from_numpy(protein.jacobian.astype(np.float32))
        step = torch.from_numpy(protein.array("jacobian_scale").astype(np.float32))[:, None, :, None]
        back = torch.from_numpy(protein.array("jacobian_int8").astype(np.float32)) * step
        expected, found = contact_map(half).numpy(), contact_map(back).numpy()
        for separation, into in ((1, all_pairs), (6, apart)):
            chosen = np.triu_indices(len(protein), separation)
            into.append(float(np.corrcoef(expected[chosen], found[chosen])[0, 1]))
        chosen = np.triu_indices(len(protein), 6)
        best = [set(np.argsort(-each[chosen])[: len(protein) // 2].tolist()) for each in (expected, found)]
        same.append(len(best[0] - best[1]))
    measured = f"r of all pairs {all_pairs}, from 6 apart {apart}, other best pairs {same}, bytes {ratios}, {taken}"
    assert len(same) == 3
    assert min(all_pairs) >= 0.999996 and min(apart) >= 0.99998, measured
    assert max(same) <= 1 and max(ratios) < 0.48, measured


def test_the_forecast_knows_its_bytes() -> None:
    sizes = {"L": 100, "R": 100, "A": 20}
    assert sum(spec.num_bytes(sizes) for spec in kept_for(["jacobian"])) == 100 * 20 * 100 * 20 * 2
    assert sum(spec.num_bytes(sizes) for spec in kept_for(["jacobian_int8"])) == 100 * 20 * 100 * 20 + 2 * 100 * 100
