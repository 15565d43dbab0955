"""Oracles for the model tests: transformers' EsmForMaskedLM with random weights, and the same weights in other files.

The mapping to fair-esm's names here is written module by module and shares nothing with `plmjac.models.layouts`.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from esm.model.esm2 import ESM2
from torch import Tensor

from plmjac.models import Architecture

transformers.utils.logging.disable_progress_bar()

SMALL = Architecture(num_layers=3, width=48, num_heads=4)
CONTACT_HEAD = ("contact_head.regression.weight", "contact_head.regression.bias")


@dataclass(frozen=True)
class Oracle:
    """An independent ESM-2, the folder that transformers saved it to, and what it predicts."""

    model: Any
    architecture: Architecture
    folder: Path

    def logits(self, ids: Tensor) -> Tensor:
        with torch.no_grad():
            out: Tensor = self.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        return out

    def contacts(self, ids: Tensor) -> Tensor:
        with torch.no_grad():
            out: Tensor = self.model.predict_contacts(ids, torch.ones_like(ids))
        return out


def hf_config(architecture: Architecture, **changes: Any) -> transformers.EsmConfig:
    options = dict(
        vocab_size=33,
        mask_token_id=32,
        pad_token_id=1,
        hidden_size=architecture.width,
        num_hidden_layers=architecture.num_layers,
        num_attention_heads=architecture.num_heads,
        intermediate_size=4 * architecture.width,
        layer_norm_eps=1e-5,
        position_embedding_type="rotary",
        token_dropout=True,
        emb_layer_norm_before=False,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="eager",
    )
    return transformers.EsmConfig(**(options | changes))


def make_oracle(architecture: Architecture, folder: Path, seed: int = 0, **changes: Any) -> Oracle:
    """Random weights far from the flat ones of initialisation, so that a swapped tensor cannot hide."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.EsmForMaskedLM(hf_config(architecture, **changes)).eval()
        for name, parameter in model.named_parameters():
            scale = 1.5 / parameter.shape[-1] ** 0.5 if parameter.ndim == 2 else 0.2
            scale = 1.0 if "word_embeddings" in name or "contact_head" in name else scale
            parameter.data.add_(torch.randn(parameter.shape), alpha=scale)
    model.save_pretrained(folder)
    return Oracle(model, architecture, folder)


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    return make_oracle(SMALL, tmp_path_factory.mktemp("oracle"))


def as_fair_esm_module(oracle: Oracle) -> ESM2:
    """Copy the oracle into fair-esm's module, part by part."""
    shape = oracle.architecture
    theirs = oracle.model
    with torch.random.fork_rng():
        ours = ESM2(shape.num_layers, shape.width, shape.num_heads).eval()
    pairs = [(ours.emb_layer_norm_after, theirs.esm.encoder.emb_layer_norm_after)]
    pairs += [(ours.lm_head.dense, theirs.lm_head.dense), (ours.lm_head.layer_norm, theirs.lm_head.layer_norm)]
    pairs += [(ours.contact_head.regression, theirs.esm.contact_head.regression)]
    for mine, layer in zip(ours.layers, theirs.esm.encoder.layer, strict=True):
        attention = layer.attention.self
        pairs += [(mine.self_attn.q_proj, attention.query), (mine.self_attn.k_proj, attention.key)]
        pairs += [(mine.self_attn.v_proj, attention.value), (mine.self_attn.out_proj, layer.attention.output.dense)]
        pairs += [(mine.self_attn_layer_norm, layer.attention.LayerNorm), (mine.final_layer_norm, layer.LayerNorm)]
        pairs += [(mine.fc1, layer.intermediate.dense), (mine.fc2, layer.output.dense)]
    with torch.no_grad():
        for mine, other in pairs:
            mine.weight.copy_(other.weight)
            mine.bias.copy_(other.bias)
        ours.embed_tokens.weight.copy_(theirs.esm.embeddings.word_embeddings.weight)
        ours.lm_head.bias.copy_(theirs.lm_head.bias)
    return ours


def fair_esm_data(module: ESM2, prefix: str = "encoder.sentence_encoder.") -> tuple[dict[str, Any], dict[str, Any]]:
    """A checkpoint and a contact regression as fair-esm distributes them: Namespace in cfg, prefixed names."""
    options = argparse.Namespace(
        arch="transformer_lm_esm2",
        encoder_layers=module.num_layers,
        encoder_embed_dim=module.embed_dim,
        encoder_attention_heads=module.attention_heads,
        token_dropout=True,
    )
    state = module.state_dict()
    weights = {}
    for name, tensor in state.items():
        if name not in CONTACT_HEAD:
            in_head = name.startswith("lm_head") and bool(prefix)
            weights[("encoder." if in_head else prefix) + name] = tensor
    return {"cfg": {"model": options}, "model": weights}, {"model": {name: state[name] for name in CONTACT_HEAD}}


@pytest.fixture(name="make_oracle")
def _make_oracle() -> Callable[..., Oracle]:
    return make_oracle


@pytest.fixture()
def fair_esm_module(oracle: Oracle) -> ESM2:
    """The oracle's weights in fair-esm's own module, ready for inference."""
    return as_fair_esm_module(oracle)


@pytest.fixture()
def write_fair_esm(oracle: Oracle, tmp_path: Path) -> Callable[..., Path]:
    """Write the oracle as `.pt`, with or without its contact regression; returns the main file."""

    def write(prefix: str = "encoder.sentence_encoder.", regression: bool = True) -> Path:
        data, head = fair_esm_data(as_fair_esm_module(oracle), prefix)
        path = tmp_path / "esm2_small.pt"
        torch.save(data, path)
        if regression:
            torch.save(head, tmp_path / "esm2_small-contact-regression.pt")
        return path

    return write
