"""Both published formats load to the same numbers, and every other file is refused in a sentence and not executed."""

import argparse
import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import esm
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from plmjac.models import load_model
from plmjac.models.checkpoints import check_sha256, open_checkpoint, sha256_of_file, sha256_of_tensors

IDS = torch.tensor([[0, 20, 15, 11, 5, 32, 24, 27, 4, 2]])
TOKENS = torch.where(IDS == 32, torch.tensor(25), IDS - 4)[:, 1:-1]
READOUTS = ("logits", "contact_head")


def assert_predicts_like(oracle: Any, checkpoint: Path) -> None:
    out = load_model("tiny", checkpoint=checkpoint).read(TOKENS, READOUTS)
    torch.testing.assert_close(out["logits"], oracle.logits(IDS)[:, 1:-1, 4:24], atol=1e-4, rtol=0)
    torch.testing.assert_close(out["contact_head"], oracle.contacts(IDS), atol=1e-4, rtol=0)


def test_hugging_face_folder_and_file(oracle: Any) -> None:
    assert_predicts_like(oracle, oracle.folder)
    assert_predicts_like(oracle, oracle.folder / "model.safetensors")


@pytest.mark.parametrize("prefix", ["encoder.sentence_encoder.", "sentence_encoder.", "encoder.", ""])
def test_fair_esm_file(oracle: Any, write_fair_esm: Callable[..., Path], prefix: str) -> None:
    assert_predicts_like(oracle, write_fair_esm(prefix))


def test_fair_esm_loads_its_own_file_to_the_same_numbers(oracle: Any, write_fair_esm: Callable[..., Path]) -> None:
    path = write_fair_esm()
    with torch.serialization.safe_globals([argparse.Namespace]):
        data = torch.load(path)
        head = torch.load(path.with_name("esm2_small-contact-regression.pt"))
    theirs, _ = esm.pretrained.load_model_and_alphabet_core("esm2_small", data, head)
    with torch.no_grad():
        expected = theirs.eval()(IDS, return_contacts=True)
    out = load_model("tiny", checkpoint=path, fast=False).read(TOKENS, READOUTS)
    torch.testing.assert_close(out["logits"], expected["logits"][:, 1:-1, 4:24], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(out["contact_head"], expected["contacts"], atol=1e-6, rtol=0)


def test_without_contact_regression(write_fair_esm: Callable[..., Path]) -> None:
    model = load_model("tiny", checkpoint=write_fair_esm(regression=False))
    assert model.readouts == {"logits", "attention", "representation"}
    assert model.logits(TOKENS).isfinite().all()


def published_layout(oracle: Any) -> dict[str, torch.Tensor]:
    """The names of the published files: older transformers, frequencies per layer and in half precision."""
    tensors = {}
    for name, tensor in load_file(oracle.folder / "model.safetensors").items():
        if "inv_freq" not in name:
            tensors[name.replace(".gamma", ".weight").replace(".beta", ".bias")] = tensor
    frequencies = oracle.model.esm.rotary_embeddings.inv_freq.half().float()
    for layer in range(oracle.architecture.num_layers):
        name = f"esm.encoder.layer.{layer}.attention.self.rotary_embeddings.inv_freq"
        tensors[name] = frequencies.clone()
    tensors["esm.embeddings.position_embeddings.weight"] = torch.zeros(1026, oracle.architecture.width)
    tensors["esm.embeddings.position_ids"] = torch.arange(1026)[None]
    tensors["lm_head.decoder.weight"] = tensors["esm.embeddings.word_embeddings.weight"].clone()
    return tensors


def test_rounded_frequencies_of_the_published_files_are_used(
    make_oracle: Callable[..., Any], oracle: Any, tmp_path: Path
) -> None:
    other = make_oracle(oracle.architecture, tmp_path)
    tensors = published_layout(other)
    length = 300
    ids = torch.randint(4, 24, (1, length), generator=torch.Generator().manual_seed(0))
    ids = torch.cat([torch.tensor([[0]]), ids, torch.tensor([[2]])], dim=1)
    exact = other.logits(ids)
    other.model.esm.rotary_embeddings.inv_freq.copy_(other.model.esm.rotary_embeddings.inv_freq.half().float())
    rounded = other.logits(ids)
    assert (exact - rounded).abs().max() > 1e-2
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = load_model("tiny", checkpoint=tmp_path).logits(ids[:, 1:-1] - 4)
    torch.testing.assert_close(found, rounded[:, 1:-1, 4:24], atol=1e-4, rtol=0)


def test_config_inside_the_safetensors_file(oracle: Any, tmp_path: Path) -> None:
    """The form of the bundled model: one fp16 file and nothing beside it, a config with only what matters."""
    shape = oracle.architecture
    config = dict(num_hidden_layers=shape.num_layers, hidden_size=shape.width, num_attention_heads=shape.num_heads)
    tensors = {name: value.half() for name, value in published_layout(oracle).items() if "inv_freq" not in name}
    path = tmp_path / "one.safetensors"
    save_file(tensors, path, metadata={"config": json.dumps(config)})
    model = load_model("tiny", checkpoint=path)
    assert model.architecture == shape
    out = model.read(TOKENS, READOUTS)
    assert (out["logits"] - oracle.logits(IDS)[:, 1:-1, 4:24]).abs().max() < 0.1
    assert {value.dtype for value in out.values()} == {torch.float32}


def write_shards(oracle: Any, folder: Path, suffix: str) -> Path:
    tensors = published_layout(oracle)
    names = sorted(tensors)
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        shard = f"{stem}-0000{number}-of-00002.{suffix}"
        content = {name: tensors[name] for name in part}
        if suffix == "safetensors":
            save_file(content, folder / shard)
        else:
            torch.save(content, folder / shard)
        weight_map |= dict.fromkeys(part, shard)
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text((oracle.folder / "config.json").read_text())
    return index


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards(oracle: Any, tmp_path: Path, suffix: str) -> None:
    index = write_shards(oracle, tmp_path, suffix)
    from_index = load_model("tiny", checkpoint=index)
    from_folder = load_model("tiny", checkpoint=tmp_path)
    assert from_index.weights_sha256 == from_folder.weights_sha256
    torch.testing.assert_close(
        from_folder.logits(TOKENS), load_model("tiny", checkpoint=oracle.folder).logits(TOKENS), atol=2e-2, rtol=0
    )
    shard = next(tmp_path.glob("*-00002-of-*"))
    shard.unlink()
    with pytest.raises(ValueError, match=r"lists .*00002-of-00002.*, which is not beside it; download all 2 shards"):
        open_checkpoint(tmp_path)


def test_an_index_cannot_point_outside_its_folder(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
    with pytest.raises(ValueError, match="points outside its folder"):
        open_checkpoint(index)
    index.write_text("[]")
    with pytest.raises(ValueError, match="is not an index of weight shards"):
        open_checkpoint(index)


class Evil:
    """Unpickled by a loader that is not careful, it leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    trace, path = tmp_path / "trace", tmp_path / "esm2_evil.pt"
    torch.save({"model": {"a": Evil(trace)}}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"refused: the file wants to run code: (posix|nt)\.system"):
        open_checkpoint(path)
    path.write_bytes(pickle.dumps({"model": Evil(trace)}))
    with pytest.raises(ValueError, match="refused: damaged, or no checkpoint"):
        open_checkpoint(path)
    assert not trace.exists()


def test_a_malicious_contact_regression_is_refused(write_fair_esm: Callable[..., Path], tmp_path: Path) -> None:
    path = write_fair_esm()
    torch.save({"model": {"a": Evil(tmp_path / "trace")}}, tmp_path / "esm2_small-contact-regression.pt")
    with pytest.raises(ValueError, match="wants to run code"):
        open_checkpoint(path)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("kept", [20, 1000, -10])
def test_truncated_files(oracle: Any, write_fair_esm: Callable[..., Path], tmp_path: Path, kept: int) -> None:
    for source in (oracle.folder / "model.safetensors", write_fair_esm()):
        cut = tmp_path / f"cut{source.suffix}"
        cut.write_bytes(source.read_bytes()[:kept])
        with pytest.raises(ValueError, match="is truncated"):
            open_checkpoint(cut)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<html>404 not found</html>", "is not a checkpoint: neither safetensors nor"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a git-lfs pointer"),
        (b"\x1f\x8b\x08 gzip", "is not a checkpoint"),
    ],
)
def test_files_of_other_kinds(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "esm2_t6_8M_UR50D.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_checkpoint(path)


def test_no_file_or_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no checkpoint .*; model\.checkpoint is a \.pt or"):
        open_checkpoint(tmp_path / "missing.pt")
    with pytest.raises(ValueError, match=r"holds no weights; expected one of model\.safetensors"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"args": argparse.Namespace(arch="roberta_large"), "model": {}}, "ESM-1 family checkpoint"),
        ({"transformer.blocks.0.attn.q_ln.weight": torch.ones(1)}, "ESM C or ESM3"),
        ({"trunk.x": torch.ones(1)}, "ESMFold"),
        ({"epoch": 3, "state_dict": {}}, "holds no ESM-2: its first entries are epoch, state_dict"),
        ({"model": {"a": torch.ones(1)}}, r"has no cfg\['model'\]"),
        ({"cfg": {"model": argparse.Namespace(x=1)}, "model": {}}, "does not say its encoder_layers"),
        (torch.ones(3), "holds a Tensor instead of named tensors"),
    ],
)
def test_torch_files_of_other_models(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "esm2_other.pt"
    torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"position_embedding_type": "absolute"}, "is an ESM-1 model"),
        ({"model_type": "bert"}, "is of model type 'bert'"),
        ({"rope_theta": 500000.0}, r"rope_theta=500000\.0"),
        ({"vocab_size": 64}, "vocab_size=64, not 33"),
        ({"intermediate_size": 96}, "intermediate_size=96, not 192"),
        ({"num_hidden_layers": 4}, "lacks layers.3.* and 13 more tensors of an ESM-2 with 4 layers"),
        ({"num_hidden_layers": 2}, r"also holds layers\.2\."),
        ({"hidden_size": 96, "intermediate_size": 384}, r"has shape .* needs"),
        ({"num_attention_heads": 8}, r"contact_head\.regression\.weight has shape \(1, 12\)"),
        ({"num_attention_heads": 5}, "rotary heads need a width"),
        ({"hidden_size": None}, "lacks 'hidden_size'"),
    ],
)
def test_a_config_that_does_not_fit(oracle: Any, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    config = json.loads((oracle.folder / "config.json").read_text()) | change
    config = {key: value for key, value in config.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(oracle.folder / "model.safetensors")
    with pytest.raises(ValueError, match=message):
        open_checkpoint(tmp_path)


def test_a_config_that_is_missing_or_broken(oracle: Any, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to(oracle.folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"needs its config\.json beside it"):
        open_checkpoint(tmp_path)
    for text, message in (("{", "is not JSON"), ("[]", "is not the config of a model")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("encoder.lm_head.bias", None, r"lacks lm_head\.bias"),
        ("encoder.lm_head.extra", torch.ones(2), r"also holds lm_head\.extra"),
        ("encoder.lm_head.bias", torch.ones(34), r"lm_head\.bias has shape \(34,\)"),
        ("encoder.contact_head.regression.bias", torch.ones(1), "only contact_head.regression.bias of the contact"),
        (
            "encoder.sentence_encoder.layers.1.self_attn.rot_emb.inv_freq",
            torch.ones(6),
            "rotary frequencies of layer 1",
        ),
        ("encoder.sentence_encoder.embed_positions.weight", torch.ones(2), "ESM-1 family"),
        ("encoder.lm_head.bias", "text", r"lm_head\.bias is not a tensor"),
    ],
)
def test_tensors_that_do_not_fit(write_fair_esm: Callable[..., Path], name: str, value: Any, message: str) -> None:
    path = write_fair_esm(regression=False)
    with torch.serialization.safe_globals([argparse.Namespace]):
        data = torch.load(path)
    data["model"].pop(name, None)
    if value is not None:
        data["model"][name] = value
    torch.save(data, path)
    with pytest.raises(ValueError, match=message):
        open_checkpoint(path)


def test_an_output_matrix_that_is_not_tied_is_refused(oracle: Any, tmp_path: Path) -> None:
    tensors = published_layout(oracle)
    tensors["lm_head.decoder.weight"] += 1
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((oracle.folder / "config.json").read_text())
    with pytest.raises(ValueError, match="every ESM-2 ties the two"):
        load_model("tiny", checkpoint=tmp_path)


def test_opening_reads_no_weights(oracle: Any) -> None:
    opened = open_checkpoint(oracle.folder)
    assert opened.architecture == oracle.architecture and opened.token_dropout
    with safe_open(oracle.folder / "model.safetensors", framework="pt") as file:
        assert len(opened.tensors) >= len(file.keys())


def test_sha256(oracle: Any, tmp_path: Path) -> None:
    path = oracle.folder / "model.safetensors"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_model("tiny", checkpoint=oracle.folder).weights_sha256 == sha256_of_file(path) == digest
    check_sha256(path, ("0" * 64, digest))
    with pytest.raises(ValueError, match=f"its sha256 is {digest}, expected {'0' * 64}; delete "):
        check_sha256(path, ("0" * 64,))
    copy = tmp_path / "copy"
    copy.write_bytes(b"first")
    first = sha256_of_file(copy)
    copy.write_bytes(b"second")
    assert sha256_of_file(copy) != first


def test_sha256_of_tensors_sees_names_types_shapes_and_values() -> None:
    base = {"a": torch.arange(6.0), "b": torch.ones(2)}
    others: list[dict[str, torch.Tensor]] = [
        {"b": torch.ones(2), "c": torch.arange(6.0)},
        base | {"a": torch.arange(6.0).view(2, 3)},
        base | {"b": torch.tensor([1.0, 1.0000001])},
        base | {"b": torch.ones(2, dtype=torch.float16)},
        {"a": base["a"]},
    ]
    assert len({sha256_of_tensors(tensors) for tensors in [base, *others]}) == 6
    assert sha256_of_tensors(dict(reversed(base.items()))) == sha256_of_tensors(base)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 1e9),
        ("num_hidden_layers", [2]),
        ("hidden_size", "many"),
        ("num_attention_heads", 2.5),
        ("num_hidden_layers", -1),
        ("hidden_size", float("nan")),
        ("layer_norm_eps", True),
    ],
)
def test_a_size_that_no_model_can_have_is_refused_at_once(oracle: Any, tmp_path: Path, key: str, value: Any) -> None:
    config = json.loads((oracle.folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {key: value}))
    (tmp_path / "model.safetensors").write_bytes((oracle.folder / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=key):
        load_model("tiny", checkpoint=tmp_path)


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64])
def test_weights_that_are_no_floating_point_numbers_are_refused(
    oracle: Any, tmp_path: Path, dtype: torch.dtype
) -> None:
    tensors = load_file(oracle.folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("query.weight"))
    if dtype == torch.complex64:  # which safetensors may not write
        path = tmp_path / "pytorch_model.bin"
        torch.save(tensors | {name: tensors[name].to(dtype)}, path)
    else:
        save_file(tensors | {name: tensors[name].to(dtype)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((oracle.folder / "config.json").read_bytes())
    with pytest.raises(ValueError, match=r"holds (int8|complex64) numbers"):
        load_model("tiny", checkpoint=tmp_path)
