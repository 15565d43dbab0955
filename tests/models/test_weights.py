"""Trained models that are not in the repository, AntiBERTy and the published esm2_8m (make test-weights)."""

import os
from pathlib import Path

import pytest
import torch
import transformers
from support import ROOT
from torch import Tensor

from plmjac.alphabet import AMINO_ACIDS, NONCANONICAL, encode
from plmjac.api import categorical_jacobian, contact_map
from plmjac.datasets.structure_file import read_chains
from plmjac.metrics import chance, hits_in, precision_at, ranking
from plmjac.models import load_model
from plmjac.models.conformance import faults
from plmjac.records import Protein

pytestmark = pytest.mark.weights

ANTIBERTY = ROOT / "weights" / "antiberty"
VH = (
    "EVKLQESGGDLVQPGGSLKLSCAASGFTFSSYTMSWVRQTPEKRLEWVASINNGGGRTYY"
    "PDTVKGRFTISRDNAKNTLYLQMSSLKSEDTAMYYCVRHEYYYAMDYWGQGTTVTVSS"
)
"""The heavy chain's variable domain of 1MQK."""


@pytest.fixture
def antiberty() -> Path:
    if not (ANTIBERTY / "model.safetensors").is_file():
        pytest.skip("AntiBERTy's weights are not here: make test-weights fetches them (100 MB)")
    return ANTIBERTY


def test_antiberty_names_the_residues_of_an_antibody(antiberty: Path) -> None:
    """114 of 118 residues of the wild type are the likeliest where they stand; of shuffled ones far fewer."""
    model, tokens = load_model("masked_lm", checkpoint=antiberty), torch.from_numpy(encode(VH))[None]
    named = (model.logits(tokens).argmax(-1) == tokens).sum().item()
    assert named == 114 and len(VH) == 118
    assert model.num_parameters == pytest.approx(25.76e6, rel=1e-3) and model.max_length == 510
    shuffled = tokens[:, torch.randperm(118, generator=torch.Generator().manual_seed(0))]
    assert (model.logits(shuffled).argmax(-1) == shuffled).sum().item() < 110


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_antiberty_knows_little_of_the_structure(antiberty: Path) -> None:
    """3 of the 59 best pairs of its Jacobian's map touch (C-beta < 8 A, |i - j| >= 6), as many as by chance."""
    record = read_chains(ROOT / "tests" / "data" / "1mqk_H.pdb")[0].record
    assert isinstance(record, Protein) and record.structure is not None and record.sequence == VH
    scores = contact_map(categorical_jacobian(load_model("masked_lm", checkpoint=antiberty), VH)).numpy()
    found = hits_in(ranking(scores), record.structure.contacts("cb", 8.0))
    assert precision_at(found, len(VH) // 2) == pytest.approx(3 / 59)
    assert chance(found) == pytest.approx(294 / 6328)


@pytest.mark.slow
def test_antiberty_conforms(antiberty: Path) -> None:
    net = transformers.BertForMaskedLM.from_pretrained(antiberty).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(antiberty)
    columns = [tokenizer.convert_tokens_to_ids(letter) for letter in AMINO_ACIDS]
    words = [*AMINO_ACIDS, *["[UNK]"] * len(NONCANONICAL), "[MASK]"]

    def reference(tokens: Tensor) -> Tensor:
        texts = [" ".join(words[token] for token in row) for row in tokens.tolist()]
        with torch.no_grad():
            logits: Tensor = net(**tokenizer(texts, return_tensors="pt")).logits
        return logits[:, 1:-1, columns]

    assert faults(load_model("masked_lm", checkpoint=antiberty), reference) == []


@pytest.mark.parametrize("options", [{"fast": False}, {}, {"compiled": True}], ids=["plain", "fast", "compiled"])
def test_the_published_8m_gives_the_numbers_that_transformers_records(options: dict[str, bool]) -> None:
    """Those of transformers' own integration test of facebook/esm2_t6_8M_UR50D, at the first residues of GLDALQITV.

    There they are at tokens 1 and 2 of the tokenized text, <cls> being token 0.
    """
    if not os.environ.get("PLMJAC_TEST_WEIGHTS"):
        pytest.skip("the published esm2_8m is downloaded (30 MB) by make test-weights only")
    try:
        model = load_model("esm2_8m", **options)  # type: ignore[arg-type]
    except ValueError as error:
        pytest.skip(str(error))
    tokens = torch.from_numpy(encode("GLDALQITV"))[None]
    found = model.read(tokens, ["representation"])["representation"][0, :2, :3]
    expected = torch.tensor([[0.3034, 0.0053, 0.3108], [0.3228, -0.2499, 0.3415]])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
