"""The shipped file: float16 safetensors under the names of Hugging Face's EsmForMaskedLM, facts of training in it."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from esm.model.esm2 import ESM2
from safetensors.torch import save_file
from torch import Tensor

from tiny.contacts import fit_contact_head, load_domain, table, write_table
from tiny.data import MASK_TOKEN, PAD
from tiny.network import masked_loss, new_model
from tiny.training import Settings, corpus_of, load_checkpoint


def finish(folder: Path, run: Path, export: Path, fit_families: list[str]) -> list[dict[str, Any]]:
    """Fit the contact head, measure, and write the shipped file; the table comes from that file's float16 weights."""
    checkpoint = load_checkpoint(run / "last.ckpt")
    settings = Settings(**checkpoint["settings"])
    model = new_model(settings.layers, settings.width, settings.heads, settings.seed)
    model.load_state_dict(as_shipped(checkpoint["state_dict"]))
    model.eval()
    corpus = corpus_of(folder, settings)
    with torch.no_grad():
        loss = float(masked_loss(model, *corpus.held_out()))
    names = [family.name for family in corpus.families]
    domains = [load_domain(folder, name) for name in names]
    fitted = set(fit_families or names[::2])
    if unknown := fitted - set(names):
        raise SystemExit(f"train_tiny: {run} was not taught {', '.join(sorted(unknown))}")
    weights, bias = fit_contact_head(model, [domain for domain in domains if domain.family in fitted], settings.seed)
    with torch.no_grad():
        model.contact_head.regression.weight.copy_(torch.from_numpy(weights)[None])
        model.contact_head.regression.bias.fill_(bias)
    rows = table(model, domains, (weights, bias), fitted)
    facts = {**checkpoint["settings"], "steps_done": int(checkpoint["global_step"]), "held_out_loss": round(loss, 4),
             "contact_head_fitted_on": sorted(fitted)}  # fmt: skip
    write_file(model, export, facts)
    write_table(rows, run / "contacts.csv")
    return rows


def as_shipped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The model's weights as float16 leaves them, in float32; not the rotary frequencies, which are computed anew."""
    named = {name.removeprefix("model."): value for name, value in state.items() if not name.startswith("column_head.")}
    return {name: value if name.endswith("inv_freq") else value.half().float() for name, value in named.items()}


_LAYER_NAMES = {
    "self_attn.q_proj": "attention.self.query",
    "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value",
    "self_attn.out_proj": "attention.output.dense",
    "self_attn_layer_norm": "attention.LayerNorm",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "final_layer_norm": "LayerNorm",
}


def hugging_face_name(name: str) -> str | None:
    """The name in EsmForMaskedLM of a tensor of fair-esm's ESM2; None for what that computes or ties itself."""
    if name.endswith("inv_freq") or name == "lm_head.weight":
        return None
    if name.startswith("layers."):
        _, index, rest = name.split(".", 2)
        stem, kind = rest.rsplit(".", 1)
        return f"esm.encoder.layer.{index}.{_LAYER_NAMES[stem]}.{kind}"
    if name == "embed_tokens.weight":
        return "esm.embeddings.word_embeddings.weight"
    if name.startswith("emb_layer_norm_after"):
        return f"esm.encoder.{name}"
    return f"esm.{name}" if name.startswith("contact_head") else name


def hugging_face_config(model: ESM2) -> dict[str, Any]:
    """Keys of EsmConfig for this model."""
    return {
        "model_type": "esm", "num_hidden_layers": model.num_layers, "hidden_size": model.embed_dim,
        "num_attention_heads": model.attention_heads, "intermediate_size": 4 * model.embed_dim, "vocab_size": 33,
        "pad_token_id": PAD, "mask_token_id": MASK_TOKEN, "token_dropout": True, "layer_norm_eps": 1e-5,
        "position_embedding_type": "rotary", "emb_layer_norm_before": False, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0, "max_position_embeddings": 1026,
    }  # fmt: skip


def write_file(model: ESM2, path: Path, facts: dict[str, Any]) -> None:
    """Write float16 safetensors with config and training facts in the header; readers never see half a file."""
    tensors = {}
    for name, value in model.state_dict().items():
        if (renamed := hugging_face_name(name)) is not None:
            tensors[renamed] = value.half().contiguous().clone()
    metadata = {"format": "pt", "config": json.dumps(hugging_face_config(model)), "training": json.dumps(facts)}
    temporary = path.with_suffix(".part")
    save_file(tensors, temporary, metadata=metadata)
    temporary.chmod(0o644)  # safetensors leaves files that only their owner can read
    os.replace(temporary, path)
