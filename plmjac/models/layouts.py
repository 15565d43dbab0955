"""Names and shapes of ESM-2's tensors in the two published layouts, converted to those of fair-esm's module.

Reads no files. Other models (ESM-1, ESM C) and variants of ESM-2 (another layer norm or rotary base) are refused with a
ValueError rather than loaded to wrong numbers.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from plmjac.models.architecture import VOCABULARY_SIZE, Architecture

CONTACT_HEAD = ("contact_head.regression.weight", "contact_head.regression.bias")

_FAIR_ESM_PREFIX = re.compile(r"^(model\.)?(encoder\.)?(sentence_encoder\.)?")

_HF_LAYER = re.compile(r"^esm\.encoder\.layer\.(\d+)\.(.+)\.(weight|bias)$")
_HF_IN_LAYER = {
    "attention.self.query": "self_attn.q_proj",
    "attention.self.key": "self_attn.k_proj",
    "attention.self.value": "self_attn.v_proj",
    "attention.output.dense": "self_attn.out_proj",
    "attention.LayerNorm": "self_attn_layer_norm",
    "intermediate.dense": "fc1",
    "output.dense": "fc2",
    "LayerNorm": "final_layer_norm",
}
_HF_OUTSIDE = {
    "esm.embeddings.word_embeddings.weight": "embed_tokens.weight",
    "esm.encoder.emb_layer_norm_after.weight": "emb_layer_norm_after.weight",
    "esm.encoder.emb_layer_norm_after.bias": "emb_layer_norm_after.bias",
    "lm_head.decoder.weight": "lm_head.weight",
    "lm_head.bias": "lm_head.bias",
    "lm_head.dense.weight": "lm_head.dense.weight",
    "lm_head.dense.bias": "lm_head.dense.bias",
    "lm_head.layer_norm.weight": "lm_head.layer_norm.weight",
    "lm_head.layer_norm.bias": "lm_head.layer_norm.bias",
    "esm.contact_head.regression.weight": CONTACT_HEAD[0],
    "esm.contact_head.regression.bias": CONTACT_HEAD[1],
}
_HF_ROTARY = re.compile(r"^esm\.(?:encoder\.layer\.(\d+|\*)\.attention\.self\.)?rotary_embeddings\.inv_freq$")
# TensorFlow's names, which transformers 5 writes for some layer norms and all versions read.
_HF_LEGACY = {"gamma": "weight", "beta": "bias"}
# Left in published files by older versions of transformers; the forward of a rotary model does not use them.
_HF_UNUSED = re.compile(r"^esm\.(embeddings\.(position_ids|position_embeddings\.weight)|pooler\.dense\.(weight|bias))$")

# Defaults of transformers' EsmConfig for keys that config.json omits, and the values of every ESM-2.
_HF_DEFAULTS: dict[str, Any] = {
    "position_embedding_type": "absolute",
    "emb_layer_norm_before": None,
    "layer_norm_eps": 1e-12,
    "rope_theta": 10000.0,
    "hidden_act": "gelu",
    "token_dropout": False,
    "is_folding_model": False,
}
_ESM2_HAS: dict[str, Any] = {
    "position_embedding_type": "rotary",
    "emb_layer_norm_before": False,
    "rope_theta": 10000.0,
    "hidden_act": "gelu",
    "is_folding_model": False,
    "vocab_size": VOCABULARY_SIZE,
    "pad_token_id": 1,
    "mask_token_id": 32,
}


def is_hugging_face(names: Iterable[str]) -> bool:
    """True for tensor names of transformers' EsmForMaskedLM."""
    return any(name.startswith("esm.encoder.layer.") for name in names)


def from_fair_esm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop the prefixes of the training code (such as `encoder.sentence_encoder.`), as fair-esm's own loader does."""
    return {_FAIR_ESM_PREFIX.sub("", name): tensor for name, tensor in tensors.items()}


def from_hugging_face(tensors: Mapping[str, Tensor], num_layers: int) -> dict[str, Tensor]:
    """Rename the tensors of EsmForMaskedLM; unknown names are kept, so that `check_tensors` refuses them."""
    renamed: dict[str, Tensor] = {}
    for written, tensor in tensors.items():
        if _HF_UNUSED.match(written):
            continue
        stem, _, kind = written.rpartition(".")
        name = f"{stem}.{_HF_LEGACY.get(kind, kind)}"
        if rotary := _HF_ROTARY.match(name):
            # Recent transformers stores one for all layers (under a literal *), older versions one per layer.
            layers = range(num_layers) if rotary[1] in (None, "*") else [int(rotary[1])]
            renamed.update({f"layers.{layer}.self_attn.rot_emb.inv_freq": tensor for layer in layers})
            continue
        inside = _HF_LAYER.match(name)
        if inside and inside[2] in _HF_IN_LAYER:
            renamed[f"layers.{inside[1]}.{_HF_IN_LAYER[inside[2]]}.{inside[3]}"] = tensor
        else:
            renamed[_HF_OUTSIDE.get(name, written)] = tensor
    return renamed


def architecture_of_hf_config(config: Mapping[str, Any], where: str) -> tuple[Architecture, bool]:
    """Read architecture and token dropout from a Hugging Face config. Raises ValueError unless it is of an ESM-2.

    Keys missing from a config written by transformers have the defaults of transformers; keys missing from one written
    by hand are as in ESM-2.
    """
    written_by_transformers = "transformers_version" in config
    full = {
        **(_HF_DEFAULTS if written_by_transformers else {**_ESM2_HAS, "token_dropout": True, "layer_norm_eps": 1e-5}),
        **config,
    }
    if full.get("model_type", "esm") != "esm":
        raise ValueError(f"{where} is of model type {full['model_type']!r}, not an ESM-2 (model type 'esm')")
    if full["position_embedding_type"] == "absolute":
        raise ValueError(f"{where} is an ESM-1 model (absolute positions), no ESM-2; try model=masked_lm")
    try:
        architecture = Architecture(
            _size(full, "num_hidden_layers", where),
            _size(full, "hidden_size", where),
            _size(full, "num_attention_heads", where),
            _number(full, "layer_norm_eps", where),
        )
    except KeyError as missing:
        raise ValueError(f"the config of {where} lacks {missing.args[0]!r}; it must be that of an ESM-2") from None
    rope = full.get("rope_parameters") or {}
    found = {**full, **({"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {})}
    wanted = {**_ESM2_HAS, "intermediate_size": 4 * architecture.width}
    for key, value in wanted.items():
        if found.get(key, value) != value and not (value is False and not found[key]):
            raise ValueError(f"{where} is not a plain ESM-2: its config says {key}={found[key]!r}, not {value!r}")
    return architecture, bool(full["token_dropout"])


def architecture_of_fair_esm(checkpoint: Mapping[str, Any], where: str) -> tuple[Architecture, bool]:
    """Read architecture and token dropout from the training options in a fair-esm checkpoint."""
    cfg = checkpoint.get("cfg")
    options = cfg.get("model") if isinstance(cfg, Mapping) else checkpoint.get("args")
    if options is None:
        raise ValueError(f"{where} has no cfg['model'], so its architecture is unknown; is it a fair-esm ESM-2 file?")
    known = dict(options) if isinstance(options, Mapping) else getattr(options, "__dict__", {})
    arch = str(known.get("arch", ""))
    if arch in {"roberta_large", "protein_bert_base", "msa_transformer"} or "gvp" in arch:
        raise ValueError(f"{where} is an ESM-1 family checkpoint (arch {arch!r}), no ESM-2; try model=esm1b")
    try:
        architecture = Architecture(
            _size(known, "encoder_layers", where),
            _size(known, "encoder_embed_dim", where),
            _size(known, "encoder_attention_heads", where),
        )
    except KeyError as missing:
        raise ValueError(f"{where} does not say its {missing.args[0]}; is it a fair-esm ESM-2 file?") from None
    return architecture, bool(known.get("token_dropout", True))


def _size(config: Mapping[str, Any], key: str, where: str) -> int:
    """A positive whole number of a config. Raises ValueError for anything else."""
    number = _number(config, key, where)
    if number != int(number) or number < 1:
        raise ValueError(f"the config of {where} says {key}={config[key]!r}, where a whole number belongs")
    return int(number)


def _number(config: Mapping[str, Any], key: str, where: str) -> float:
    """A positive number of a config, at most 100,000 (the largest of an ESM-2 is 5,120). Raises ValueError."""
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 100_000:
        raise ValueError(f"the config of {where} says {key}={str(value)[:80]}, which no ESM-2 can have")
    return float(value)


def refuse_other_models(names: Iterable[str], where: str) -> None:
    """Raise ValueError for the tensor names of a well-known model that is not a masked-LM ESM-2."""
    found = set(names)
    if any(name.startswith(("transformer.blocks.", "sequence_head.")) for name in found):
        raise ValueError(f"{where} is an ESM C or ESM3 checkpoint; plmjac runs ESM-2 only")
    if any(name.startswith(("trunk.", "esm_s_combine")) for name in found):
        raise ValueError(f"{where} is an ESMFold checkpoint; give its ESM-2 language model (esm2_3b) instead")
    if any("embed_positions" in name or "emb_layer_norm_before" in name for name in found):
        raise ValueError(f"{where} is an ESM-1 family checkpoint (learned positions), no ESM-2; try model=esm1b")


def expected_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that every ESM-2 has, as in fair-esm's module."""
    d = architecture.width
    linear = {"self_attn.q_proj": (d, d), "self_attn.k_proj": (d, d), "self_attn.v_proj": (d, d)}
    linear |= {"self_attn.out_proj": (d, d), "fc1": (4 * d, d), "fc2": (d, 4 * d)}
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (VOCABULARY_SIZE, d)}
    for layer in range(architecture.num_layers):
        for name, shape in linear.items():
            shapes[f"layers.{layer}.{name}.weight"] = shape
            shapes[f"layers.{layer}.{name}.bias"] = shape[:1]
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            shapes[f"layers.{layer}.{name}.weight"] = shapes[f"layers.{layer}.{name}.bias"] = (d,)
    for name in ("emb_layer_norm_after", "lm_head.layer_norm"):
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (d,)
    shapes |= {"lm_head.dense.weight": (d, d), "lm_head.dense.bias": (d,), "lm_head.bias": (VOCABULARY_SIZE,)}
    return shapes


def optional_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Names and shapes of tensors that a file may omit: contact head, tied output matrix, rotary frequencies."""
    shapes: dict[str, tuple[int, ...]] = {
        CONTACT_HEAD[0]: (1, architecture.num_layers * architecture.num_heads),
        CONTACT_HEAD[1]: (1,),
        "lm_head.weight": (VOCABULARY_SIZE, architecture.width),
    }
    for layer in range(architecture.num_layers):
        shapes[f"layers.{layer}.self_attn.rot_emb.inv_freq"] = (architecture.head_width // 2,)
    return shapes


def rotary_frequencies(architecture: Architecture) -> Tensor:
    """Rotation angle per position of each pair of channels (base 10000), computed in float32 as by fair-esm."""
    steps = torch.arange(0, architecture.head_width, 2, device="cpu").float() / architecture.head_width
    return 1.0 / (10000**steps)


def check_tensors(tensors: Mapping[str, Tensor], architecture: Architecture, where: str) -> None:
    """Check that the tensors are exactly those of an ESM-2 of this size.

    Raises ValueError that names missing or unexpected tensors, or a wrong shape.
    """
    required, optional = expected_shapes(architecture), optional_shapes(architecture)
    present = set(tensors)
    if missing := sorted(set(required) - present):
        raise ValueError(f"{where} lacks {_some(missing)} of an ESM-2 with {architecture}; is it complete?")
    if len(heads := present & set(CONTACT_HEAD)) == 1:
        raise ValueError(f"{where} has only {heads.pop()} of the contact head; it needs weight and bias, or neither")
    if unexpected := sorted(present - set(required) - set(optional)):
        raise ValueError(f"{where} also holds {_some(unexpected)}, which an ESM-2 with {architecture} does not have")
    for name, shape in (required | optional).items():
        if name in present and tuple(tensors[name].shape) != shape:
            raise ValueError(f"{where}: {name} has shape {tuple(tensors[name].shape)}, {architecture} needs {shape}")
    for name, tensor in tensors.items():
        if tensor.dtype not in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
            raise ValueError(
                f"{where}: {name} holds {str(tensor.dtype).removeprefix('torch.')} numbers, not floating point ones; "
                "plmjac reads no quantized weights"
            )
    check_rotary(tensors, architecture, where)


def check_rotary(tensors: Mapping[str, Tensor], architecture: Architecture, where: str) -> None:
    """Raise ValueError for frequencies that are not ESM-2's, be it rounded to half precision as in its training."""
    frequencies = rotary_frequencies(architecture)
    for layer in range(architecture.num_layers):
        stored = tensors.get(f"layers.{layer}.self_attn.rot_emb.inv_freq")
        if stored is not None and not torch.allclose(stored.float(), frequencies, rtol=1e-3, atol=0):
            raise ValueError(f"{where}: the rotary frequencies of layer {layer} are not those of an ESM-2")


def _some(names: list[str]) -> str:
    """Up to three names and the number of further ones, for a message of one line."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more tensors" if len(names) > 3 else "")
