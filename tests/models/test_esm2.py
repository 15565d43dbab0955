"""Our ESM-2 against transformers' and fair-esm's own, and the promises of the LanguageModel protocol."""

import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import esm
import pytest
import torch
from torch import Tensor

from plmjac.alphabet import AMINO_ACIDS, MASK, NONCANONICAL, NUM_TOKENS, encode
from plmjac.models import Architecture, LanguageModel, load_model
from plmjac.models.debug import debug_model
from plmjac.models.esm2 import Esm2
from plmjac.models.fair_esm import import_fair_esm

ALPHABET = esm.data.Alphabet.from_architecture("ESM-1b")
UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"


def our_tokens(sequence: str, masked: tuple[int, ...] = ()) -> Tensor:
    tokens = torch.from_numpy(encode(sequence))[None]
    tokens[0, list(masked)] = MASK
    return tokens


def esm_tokens(sequence: str, masked: tuple[int, ...] = ()) -> Tensor:
    """The same through fair-esm's own tokenizer, which knows nothing of our tokens."""
    letters = "".join("<mask>" if i in masked else letter for i, letter in enumerate(sequence))
    ids: Tensor = ALPHABET.get_batch_converter()([("", letters)])[2]
    assert ids.shape == (1, len(sequence) + 2)
    return ids


CASES = [
    ("M", ()),
    ("M", (0,)),
    ("MK", ()),
    (AMINO_ACIDS, ()),
    (AMINO_ACIDS + NONCANONICAL, (3, 21)),
    (UBIQUITIN, ()),
    (UBIQUITIN, (0, 5, 6, 75)),
    (UBIQUITIN, tuple(range(5, 76))),
]


@pytest.mark.parametrize(("sequence", "masked"), CASES)
def test_logits_and_contacts_equal_transformers(oracle: Any, sequence: str, masked: tuple[int, ...]) -> None:
    model = load_model("tiny", checkpoint=oracle.folder, fast=False)
    ids = esm_tokens(sequence, masked)
    out = model.read(our_tokens(sequence, masked), ["logits", "contact_head"])
    columns = [ALPHABET.get_idx(letter) for letter in AMINO_ACIDS]
    torch.testing.assert_close(out["logits"], oracle.logits(ids)[:, 1:-1, columns], atol=1e-4, rtol=0)
    torch.testing.assert_close(out["contact_head"], oracle.contacts(ids), atol=1e-4, rtol=0)
    if len(sequence) > 2:
        assert out["logits"].std() > 0.5 and out["contact_head"].std() > 0.01


def test_architecture_of_the_8m_model(make_oracle: Callable[..., Any], tmp_path: Path) -> None:
    oracle = make_oracle(Architecture(6, 320, 20), tmp_path, seed=1)
    model = load_model("esm2_8m", checkpoint=tmp_path, fast=False)
    ids = esm_tokens(UBIQUITIN, (4,))
    out = model.read(our_tokens(UBIQUITIN, (4,)), ["logits", "contact_head"])
    assert oracle.logits(ids).std() > 1
    torch.testing.assert_close(out["logits"], oracle.logits(ids)[:, 1:-1, 4:24], atol=1e-4, rtol=0)
    torch.testing.assert_close(out["contact_head"], oracle.contacts(ids), atol=1e-4, rtol=0)


def test_the_layer_norms_are_those_of_the_file(make_oracle: Callable[..., Any], tmp_path: Path) -> None:
    """transformers' default eps for a new model is not that of the published ones; with small weights it matters."""
    reference = make_oracle(Architecture(2, 16, 4), tmp_path, layer_norm_eps=0.05)
    model = load_model("tiny", checkpoint=tmp_path, fast=False)
    ids = esm_tokens(UBIQUITIN)
    columns = [ALPHABET.get_idx(letter) for letter in AMINO_ACIDS]
    torch.testing.assert_close(
        model.logits(our_tokens(UBIQUITIN)), reference.logits(ids)[:, 1:-1, columns], atol=1e-4, rtol=0
    )


def test_token_dropout_can_be_switched_off(make_oracle: Callable[..., Any], tmp_path: Path) -> None:
    oracle = make_oracle(Architecture(2, 32, 4), tmp_path, token_dropout=False)
    sequence, masked = UBIQUITIN, (1, 2, 3)
    expected = oracle.logits(esm_tokens(sequence, masked))[:, 1:-1, 4:24]
    tokens = our_tokens(sequence, masked)
    as_trained = load_model("tiny", checkpoint=tmp_path, fast=False).logits(tokens)
    torch.testing.assert_close(as_trained, expected, atol=1e-4, rtol=0)
    switched_on = load_model("tiny", checkpoint=tmp_path, token_dropout=True, fast=False).logits(tokens)
    assert (switched_on - expected).abs().max() > 0.1


def test_bos_and_eos_as_mask(oracle: Any) -> None:
    model = load_model("tiny", checkpoint=oracle.folder, bos_eos="mask", fast=False)
    ids = esm_tokens(UBIQUITIN, (7,))
    ids[:, [0, -1]] = ALPHABET.mask_idx
    out = model.read(our_tokens(UBIQUITIN, (7,)), ["logits", "contact_head"])
    torch.testing.assert_close(out["logits"], oracle.logits(ids)[:, 1:-1, 4:24], atol=1e-4, rtol=0)
    torch.testing.assert_close(out["contact_head"], oracle.contacts(ids), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="at least one residue must be visible"):
        model.logits(our_tokens("MK", (0, 1)))


def test_every_token_is_the_letter_that_fair_esm_means() -> None:
    model = debug_model()
    letters = AMINO_ACIDS + NONCANONICAL
    torch.testing.assert_close(model._to_esm(our_tokens(letters)), esm_tokens(letters), rtol=0, atol=0)
    mask = model._to_esm(torch.full((1, 3), MASK))
    assert mask.tolist() == esm_tokens("AAA", (0, 1, 2)).tolist()
    assert len({int(token) for token in model._to_esm(torch.arange(NUM_TOKENS)[None])[0]}) == NUM_TOKENS + 2


@pytest.mark.parametrize("wrong", [-1, NUM_TOKENS])
def test_a_token_out_of_range_is_refused(wrong: int) -> None:
    with pytest.raises(IndexError):
        debug_model().logits(torch.tensor([[1, wrong]]))


def test_no_residues_are_refused() -> None:
    with pytest.raises(ValueError, match="no residues"):
        debug_model().logits(torch.zeros((1, 0), dtype=torch.int64))


def test_one_forward_gives_all_readouts_and_the_same_as_three() -> None:
    model = debug_model()
    tokens = torch.stack([our_tokens("MKTAYIAKQR")[0], our_tokens("MKTAYIAKQR", (3,))[0]])
    forwards: list[int] = []
    model.esm.register_forward_hook(lambda *_: forwards.append(1))
    together = model.read(tokens, model.readouts)
    assert len(forwards) == 1
    assert {name: tuple(value.shape) for name, value in together.items()} == {
        "logits": (2, 10, 20),
        "contact_head": (2, 10, 10),
        "attention": (2, 2, 4, 10, 10),
        "representation": (2, 10, 32),
    }
    for name, value in together.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, model.read(tokens, [name])[name])
        value += 1  # an inference tensor would refuse
    assert torch.equal(together["logits"] - 1, model.logits(tokens) + 1 - 1)


def test_attention_is_between_residues_only() -> None:
    attention = debug_model().read(our_tokens("MKTAY"), ["attention"])["attention"]
    rows = attention.sum(-1)
    assert (attention >= 0).all() and (rows < 1).all() and rows.mean() > 0.1


@pytest.mark.parametrize("readout", ["logits", "contact_head", "attention", "representation"])
def test_results_do_not_depend_on_the_batch(readout: str) -> None:
    model = debug_model()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, NUM_TOKENS, (30, 21), generator=generator)
    whole = model.read(tokens, [readout])[readout]
    for size in (1, 7):
        parts = torch.cat([model.read(part, [readout])[readout] for part in tokens.split(size)])
        torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)


def test_unavailable_and_unknown_readouts_are_refused() -> None:
    full = debug_model()
    bare = {name: value for name, value in full.esm.state_dict().items() if not name.startswith("contact_head")}
    model = Esm2(name="bare", architecture=full.architecture, tensors=bare, weights_sha256="")
    tokens = our_tokens("MKTAY")
    assert model.readouts == {"logits", "attention", "representation"}
    assert torch.equal(model.logits(tokens), full.logits(tokens))
    with pytest.raises(ValueError, match=r"no trained contact head.*contact-regression\.pt"):
        model.read(tokens, ["contact_head"])
    with pytest.raises(ValueError, match="no readout 'contacts'; choose from logits"):
        model.read(tokens, ["contacts"])


def test_it_is_a_frozen_language_model() -> None:
    model = debug_model()
    assert isinstance(model, LanguageModel)
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    assert model.esm.lm_head.weight is model.esm.embed_tokens.weight
    with pytest.raises(ValueError, match="ruins its rotary positions"):
        model.half().logits(our_tokens("MKTAY"))


def test_two_packages_named_esm_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.distribution
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: real("fair-esm" if name == "esm" else name))
    with pytest.raises(ValueError, match=r"overwrite each other's package `esm`; run `pip uninstall esm fair-esm`"):
        import_fair_esm()


@pytest.mark.parametrize(
    ("there", "message"), [("esm", "is EvolutionaryScale's, not fair-esm"), ("", "fair-esm cannot be imported")]
)
def test_the_wrong_or_no_esm_is_explained(monkeypatch: pytest.MonkeyPatch, there: str, message: str) -> None:
    def distribution(name: str) -> None:
        if name != there:
            raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    monkeypatch.setitem(sys.modules, "esm.model.esm2", None)
    with pytest.raises(ValueError, match=message):
        load_model("debug")
