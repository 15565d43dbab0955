"""Models of transformers and of ESM-1 through the commands; tokenizers and folders that are refused."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from random_checkpoints import Reference, bert, esm1, hf_esm, roberta
from support import composed, tree
from tokenizers import Tokenizer, models, pre_tokenizers

import plmjac
from plmjac.alphabet import AMINO_ACIDS, encode
from plmjac.config import DONE, UsageError
from plmjac.evaluate import evaluate
from plmjac.models import load_model, size_of
from plmjac.models.vocabulary import vocabulary_of
from plmjac.plan import plan
from plmjac.report import report
from plmjac.store import open_store, read_manifest
from plmjac.verify import verify

MADE: dict[str, tuple[str, Callable[[Path], Reference]]] = {
    "bert": ("masked_lm", bert),
    "roberta": ("masked_lm", roberta),
    "esm1b": ("esm1b", lambda path: esm1(path, norm_before=True)),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", MADE)
def test_a_random_checkpoint_runs_through_every_command(
    kind: str, predict: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """1BXY_A has 60 residues and is computed; 1TEN_A has 90, over the 62 learned positions, and is skipped."""
    name, make = MADE[kind]
    checkpoint, store = tmp_path / ("model" if name == "masked_lm" else "esm1b.pt"), tmp_path / "run.zarr"
    reference = make(checkpoint)
    line = (
        "+dataset=demo", "dataset.ids=[1BXY_A,1GUU_A,1TEN_A]", f"model={name}", f"model.checkpoint={checkpoint}",
        f"store={store}", "threads=1", "max_tokens=2000",
    )  # fmt: skip
    assert plan(composed("plan", *line)) == DONE
    said = capsys.readouterr().out
    assert "2 will be computed" in said and "62" in said
    assert predict(*line, "keep=[contacts,logits,jacobian]") == 3
    skipped = {row.id: row.reason for row in read_manifest(store) if row.status == "skipped"}
    assert list(skipped) == ["1TEN_A"] and "62" in skipped["1TEN_A"]
    opened, before = open_store(store), tree(store)
    sequence = opened["1BXY_A"].sequence
    wild_type = reference(torch.from_numpy(encode(sequence))[None])[0].numpy()
    np.testing.assert_allclose(opened["1BXY_A"].logits, wild_type, atol=1e-3)
    jacobian = plmjac.categorical_jacobian(load_model(name, checkpoint=checkpoint), sequence)
    np.testing.assert_allclose(opened["1BXY_A"].jacobian, jacobian, atol=1e-3 * float(jacobian.abs().max()))
    mutant = encode(sequence)
    mutant[7] = 3
    change = reference(torch.from_numpy(mutant)[None])[0].numpy() - wild_type
    np.testing.assert_allclose(opened["1BXY_A"].jacobian[7, 3], change, atol=2e-3 * float(jacobian.abs().max()))
    assert predict(*line, "keep=[contacts,logits,jacobian]") == 3 and tree(store) == before
    assert verify(composed("verify", f"store={store}", "deep=true")) == DONE
    out = tmp_path / "evaluation"
    assert evaluate(composed("evaluate", "+evaluation=contact_precision", f"store={store}", f"out={out}")) in (DONE, 3)
    assert report(composed("report", f"store={store}", f"out={tmp_path / 'report'}")) in (DONE, 3)
    identity = open_store(store).attributes["model"]
    assert identity["name"] == name and len(identity["weights_sha256"]) == 64
    assert ("config_sha256" in identity) == (name == "masked_lm")


def test_other_weights_or_another_config_do_not_continue_a_store(
    predict: Callable[..., int], fasta: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    bert(folder)
    line = ("+dataset=fasta", f"dataset.path={fasta}", "model=masked_lm", f"model.checkpoint={folder}", "threads=1",
            f"store={tmp_path / 'a.zarr'}", "max_tokens=2000")  # fmt: skip
    assert predict(*line) == DONE
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-3}))
    with pytest.raises(UsageError, match="config_sha256"):
        predict(*line)


def test_chains_are_set_apart_where_positions_are_taken(tmp_path: Path) -> None:
    """By transformers' own position_ids; a rotary ESM of transformers takes none and says so."""
    tokens, gapped = torch.arange(12)[None], torch.arange(12) + 20 * (torch.arange(12) > 5)
    for make, first in ((bert, 0), (roberta, 2)):
        make(tmp_path / make.__name__)
        model: Any = load_model("masked_lm", checkpoint=tmp_path / make.__name__)
        ids = model._to_ids(tokens)
        places = torch.cat([torch.zeros(1), gapped + 1, gapped[-1:] + 2]).long()[None] + first
        with torch.no_grad():
            expected = model.net(input_ids=ids, position_ids=places).logits[:, 1:-1][..., model._ids[:20]]
        torch.testing.assert_close(model.logits(tokens, gapped), expected, atol=1e-5, rtol=1e-5)
        with pytest.raises(ValueError, match="learned positions for 62 residues; make the gap smaller"):
            model.logits(tokens, gapped * 3)
    hf_esm(tmp_path / "rotary")
    with pytest.raises(ValueError, match="takes no residue indices"):
        load_model("masked_lm", checkpoint=tmp_path / "rotary").logits(tokens, gapped)
    path = tmp_path / "esm1v.pt"
    esm1(path, norm_before=False)
    with pytest.raises(ValueError, match=r"learned positions for 62 residues, gaps .* included; these take 73"):
        load_model("esm1v", checkpoint=path).logits(tokens, gapped * 2 + 10 * (torch.arange(12) > 5))


def test_fp16_is_near_fp32(tmp_path: Path) -> None:
    bert(tmp_path)
    tokens = torch.arange(20)[None]
    full, half = (
        load_model("masked_lm", checkpoint=tmp_path, precision=each).logits(tokens) for each in ("fp32", "fp16")
    )
    assert 0 < float((full - half).abs().max()) < 0.01 * float(full.abs().max())


def words(*tokens: str, split: bool = True, **special: str) -> Any:
    """A tokenizer of whole words."""
    made = Tokenizer(models.WordLevel({token: at for at, token in enumerate(tokens)}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated") if split else pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, **{"unk_token": "?", "mask_token": "#", **special}
    )


def test_tokens_are_found_by_asking() -> None:
    shuffled = "".join(sorted(AMINO_ACIDS))
    found = vocabulary_of(words("?", "#", *shuffled, "B"), "x")
    assert [found.ids[AMINO_ACIDS.index(letter)] for letter in shuffled] == list(range(2, 22))
    assert found.before == found.after == () and found.ids[-1] == 1
    assert found.ids[20:25] == (0, 22, 0, 0, 0) and found.strangers == "XUZO"
    spaced = vocabulary_of(words("?", "#", *shuffled, split=False), "x")
    assert spaced.ids[:20] == found.ids[:20]


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (lambda: words("?", "#", *AMINO_ACIDS[:-1]), "C has no token"),
        (lambda: words("?", *AMINO_ACIDS, mask_token=None), "has no mask token"),
        (lambda: words("?", "#", *AMINO_ACIDS.lower()), "has no token"),
        (lambda: merging(), "residue"),
    ],
)
def test_a_tokenizer_that_does_not_fit_is_refused(tokenizer: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vocabulary_of(tokenizer(), "x")


def merging() -> Any:
    """A byte-pair tokenizer that makes one token of two residues."""
    vocabulary = {letter: at for at, letter in enumerate(["?", "#", *AMINO_ACIDS, "LA"])}
    made = Tokenizer(models.BPE(vocabulary, [("L", "A")], unk_token="?"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="?", mask_token="#")


def test_what_is_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bert(tmp_path / "model")
    for checkpoint, message in (
        (None, "needs model.checkpoint=FOLDER"),
        (tmp_path / "nowhere", "is no folder, and no repository"),
        (tmp_path / "model/config.json", "is no folder, and no repository"),
    ):
        with pytest.raises(ValueError, match=message):
            size_of("masked_lm", checkpoint=checkpoint)
    with pytest.raises(ValueError, match=r"model\.revision has no effect on the local folder"):
        load_model("masked_lm", checkpoint=tmp_path / "model", revision="abc")
    with pytest.raises(ValueError, match="trust_remote_code=yes: it is False by default"):
        load_model("masked_lm", checkpoint=tmp_path / "model", trust_remote_code="yes")
    with pytest.raises(ValueError, match=r"needs model\.checkpoint=FILE"):
        size_of("esm1b")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"cannot get nobody/nothing .*model\.checkpoint=FOLDER"):
        load_model("masked_lm", checkpoint="nobody/nothing")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"needs transformers, an optional part: pip install 'plmjac\[transformers\]'"):
        load_model("masked_lm", checkpoint=tmp_path / "model")


def test_a_checkpoint_without_its_head_is_refused(tmp_path: Path) -> None:
    """transformers would draw the head at random and go on."""
    bert(tmp_path)
    transformers.BertModel.from_pretrained(tmp_path).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lacks cls\.predictions.* at random"):
        load_model("masked_lm", checkpoint=tmp_path)


def test_an_esm_without_its_contact_regression_has_no_contact_head(tmp_path: Path) -> None:
    hf_esm(tmp_path)
    from safetensors.torch import load_file, save_file

    kept = {
        name: each for name, each in load_file(tmp_path / "model.safetensors").items() if "contact_head" not in name
    }
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert "contact_head" not in load_model("masked_lm", checkpoint=tmp_path).readouts
    esm1(tmp_path / "a.pt", norm_before=True, regression=False)
    with pytest.raises(ValueError, match="has no trained contact head"):
        load_model("esm1b", checkpoint=tmp_path / "a.pt").read(torch.arange(5)[None], ["contact_head"])


def test_contact_heads_are_the_librarys(tmp_path: Path) -> None:
    import esm

    reference = esm1(tmp_path / "a.pt", norm_before=True)
    module: Any = reference.module  # type: ignore[attr-defined]
    tokens = torch.arange(20)[None]
    ids = esm.data.Alphabet.from_architecture("ESM-1b").get_batch_converter()([("x", AMINO_ACIDS)])[2]
    with torch.no_grad():
        expected = module.predict_contacts(ids)
    contacts = load_model("esm1b", checkpoint=tmp_path / "a.pt").read(tokens, ["contact_head"])["contact_head"]
    torch.testing.assert_close(contacts, expected, atol=1e-5, rtol=0)
    hf_esm(tmp_path / "hf")
    model: Any = load_model("masked_lm", checkpoint=tmp_path / "hf")
    theirs = transformers.EsmForMaskedLM.from_pretrained(tmp_path / "hf", attn_implementation="eager").eval()
    with torch.no_grad():
        expected = theirs.predict_contacts(ids, torch.ones_like(ids))
    torch.testing.assert_close(model.read(tokens, ["contact_head"])["contact_head"], expected, atol=1e-5, rtol=0)


def test_code_of_a_repository_runs_only_when_it_is_told_to(tmp_path: Path) -> None:
    bert(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {
        "model_type": "homemade",
        "auto_map": {"AutoConfig": "code.Config", "AutoModelForMaskedLM": "code.Model"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text(
        "import pathlib, transformers\n"
        f"pathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
        "class Config(transformers.BertConfig):\n    model_type = 'homemade'\n"
        "class Model(transformers.BertForMaskedLM):\n    config_class = Config\n"
    )
    for call in (load_model, size_of):
        with pytest.raises(ValueError, match=r"not loaded unless model\.trust_remote_code=true is given"):
            call("masked_lm", checkpoint=tmp_path)
    assert not (tmp_path / "ran").exists()
    assert load_model("masked_lm", checkpoint=tmp_path, trust_remote_code=True).max_length == 62
    assert (tmp_path / "ran").exists()
