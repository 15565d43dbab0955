"""Models that benchmark.py compares with: the authors' loop and transformers' module, with the same random weights."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plmjac.models import Architecture
from plmjac.models.debug import random_tensors
from plmjac.models.esm2 import Esm2
from plmjac.models.layouts import CONTACT_HEAD, expected_shapes, optional_shapes

ARCHITECTURES = {
    "debug": Architecture(2, 32, 4),
    "8m": Architecture(6, 320, 20),
    "35m": Architecture(12, 480, 20),
    "150m": Architecture(30, 640, 20),
    "650m": Architecture(33, 1280, 20),
    "3b": Architecture(36, 2560, 40),
}

_INSIDE = {
    "self_attn.q_proj": "attention.self.query", "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value", "self_attn.out_proj": "attention.output.dense",
    "self_attn_layer_norm": "attention.LayerNorm", "fc1": "intermediate.dense", "fc2": "output.dense",
    "final_layer_norm": "LayerNorm",
}  # fmt: skip


def trained_like(architecture: Architecture, device: str = "cpu") -> dict[str, Tensor]:
    """Random weights under which logits spread over a few units at any width, as a trained ESM-2's do.

    Drawn on the device: 651 M numbers take a GPU no time.
    """
    shapes = expected_shapes(architecture)
    shapes |= {name: optional_shapes(architecture)[name] for name in CONTACT_HEAD}
    generator = torch.Generator(device=device).manual_seed(1)
    drawn = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator, device=device)
        if name.endswith("layer_norm.weight") or name == "emb_layer_norm_after.weight":
            drawn[name] = 1 + 0.1 * noise
        elif name.endswith("bias"):
            drawn[name] = 0.1 * noise
        elif name == "embed_tokens.weight":
            drawn[name] = noise * (32 / max(32, architecture.width)) ** 0.5
        else:
            twice = not (architecture.width > 100 and name.startswith("layers"))
            drawn[name] = noise * ((2 if twice else 1) / shape[-1] ** 0.5)
    return drawn


def untrained(architecture: Architecture) -> dict[str, Tensor]:
    """Weights as transformers draws them for a new model: standard deviation 0.02, norms 1, biases 0."""
    generator = torch.Generator().manual_seed(2)
    drawn = {}
    for name, tensor in random_tensors(architecture, 1).items():
        if tensor.ndim == 2:
            drawn[name] = torch.randn(tensor.shape, generator=generator) * 0.02
        else:
            drawn[name] = torch.ones_like(tensor) if "norm" in name and "weight" in name else torch.zeros_like(tensor)
    return drawn


def authors_rows(model: Esm2, tokens: Tensor, start: int, stop: int) -> np.ndarray:
    """Logits (R, 20, L, 20) as the published loop gets them: 20 copies of the sequence a forward, fair-esm's module."""
    ids = model._to_esm(tokens[None])
    letters = model._esm_ids[:20]
    rows = []
    with torch.no_grad():
        for position in range(start, stop):
            batch = ids.repeat(20, 1)
            batch[:, position + 1] = letters
            rows.append(model.esm(batch)["logits"][:, 1:-1, 4:24].cpu().numpy())
    return np.stack(rows)


def authors_map(jacobian: np.ndarray) -> np.ndarray:
    """Zhang et al. (2024) in numpy: center, symmetrize, center, norm, zero diagonal, APC, zero diagonal, symmetrize."""
    couplings = np.array(jacobian, dtype=np.float64)
    for axis in range(4):
        couplings -= couplings.mean(axis, keepdims=True)
    couplings = (couplings + couplings.transpose(2, 3, 0, 1)) / 2
    for axis in range(4):
        couplings -= couplings.mean(axis, keepdims=True)
    norms = np.sqrt(np.square(couplings).sum((1, 3)))
    np.fill_diagonal(norms, 0)
    contacts: np.ndarray = norms - norms.sum(0, keepdims=True) * norms.sum(1, keepdims=True) / norms.sum()
    np.fill_diagonal(contacts, 0)
    symmetric: np.ndarray = (contacts + contacts.T) / 2
    return symmetric


def transformers_logits(
    architecture: Architecture, tensors: dict[str, Tensor], device: str, precision: str, *, compiled: bool = False
) -> Callable[[Tensor], Tensor]:
    """EsmForMaskedLM with sdpa and these weights, as our loop calls a model: tokens (B, L) to logits (B, L, 20).

    `compiled`: each of its layers by torch.compile, which one compilation serves; the whole of it takes a minute.
    """
    import transformers

    new_config: Any = transformers.EsmConfig
    config = new_config(
        vocab_size=33, mask_token_id=32, pad_token_id=1, hidden_size=architecture.width,
        num_hidden_layers=architecture.num_layers, num_attention_heads=architecture.num_heads,
        intermediate_size=4 * architecture.width, layer_norm_eps=architecture.layer_norm_eps,
        position_embedding_type="rotary", token_dropout=True, emb_layer_norm_before=False, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, attn_implementation="sdpa",
    )  # fmt: skip
    new_module: Any = transformers.EsmForMaskedLM
    module = new_module(config).eval()
    state = {_hugging_face_name(name): tensor for name, tensor in tensors.items()}
    state["lm_head.decoder.weight"] = tensors["embed_tokens.weight"]
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected and all("inv_freq" in name or name == "lm_head.decoder.bias" for name in missing), missing
    module.to(device, torch.float64 if precision == "fp64" else torch.float32)
    for layer in module.esm.encoder.layer if compiled else ():
        layer.compile()

    def logits(tokens: Tensor) -> Tensor:
        ids = torch.nn.functional.pad(tokens + 4, (1, 1))
        ids[:, 0], ids[:, -1] = 0, 2
        with torch.inference_mode(), torch.autocast(device, torch.float16, enabled=precision == "fp16"):
            found: Tensor = module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        return found[:, 1:-1, 4:24].clone()

    return logits


def _hugging_face_name(name: str) -> str:
    if name.startswith("layers."):
        _, layer, inside = name.split(".", 2)
        part, kind = inside.rsplit(".", 1)
        return f"esm.encoder.layer.{layer}.{_INSIDE[part]}.{kind}"
    if name.startswith("emb_layer_norm_after"):
        return f"esm.encoder.{name}"
    if name.startswith("contact_head"):
        return f"esm.{name}"
    return {"embed_tokens.weight": "esm.embeddings.word_embeddings.weight"}.get(name, name)
