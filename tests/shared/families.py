"""Small modules of every family that people bring, each with samples: what per-sample gradients are tried on.

`FAMILIES` maps a family to its modules by name, and each to a function that draws module and samples from torch's
global generator. `peers` has those of Hugging Face and timm, from configuration, where these are installed.
"""

from __future__ import annotations

import warnings

import torch
from families_layers import N, Net, attention, convolutions, drawn, mlps, normalisations
from families_parameters import bare, recurrent, steered, tables
from torch import nn

FAMILIES = {
    "dense": mlps(),
    "convolutions": convolutions(),
    "normalisations": normalisations(),
    "attention": attention(),
    "tables": tables(),
    "recurrent": recurrent(),
    "bare parameters": bare(),
    "control flow": steered(),
}

CASES = [(family, name) for family, modules in FAMILIES.items() for name in modules]


def hugging_face():
    """Classifiers from small configurations, without weights."""
    import transformers as t

    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    text = {**small, "vocab_size": 20, "max_position_embeddings": 12}
    picture = {**small, "image_size": 8, "patch_size": 4, "num_channels": 2}
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

    def by_words(kind, config):
        model = kind(config).eval()
        return Net(lambda s, x: s.model(input_ids=x).logits, model=model), torch.randint(3, 20, (N, 5))

    def by_pixels(kind, config):
        return Net(lambda s, x: s.model(pixel_values=x).logits, model=kind(config).eval()), torch.randn(N, 2, 8, 8)

    gpt = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 20, "n_positions": 12, **ends}
    distil = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "vocab_size": 20, "max_position_embeddings": 12}
    t5 = {
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 24,
        "num_layers": 1,
        "num_heads": 2,
        "vocab_size": 20,
        "decoder_start_token_id": 0,
    }
    llama = {**text, "num_key_value_heads": 1, **ends}

    def t5_body(config):
        body = t.T5EncoderModel(config).eval()
        return Net(lambda s, x: s.head(s.body(input_ids=x).last_hidden_state.mean(1)), body=body, head=nn.Linear(16, 3))

    return {
        "bert": lambda: by_words(t.BertForSequenceClassification, t.BertConfig(num_labels=3, **text)),
        "roberta": lambda: by_words(t.RobertaForSequenceClassification, t.RobertaConfig(num_labels=3, **text)),
        "distilbert": lambda: by_words(
            t.DistilBertForSequenceClassification, t.DistilBertConfig(num_labels=3, **distil)
        ),
        "albert": lambda: by_words(
            t.AlbertForSequenceClassification, t.AlbertConfig(num_labels=3, embedding_size=8, **text)
        ),
        "electra": lambda: by_words(
            t.ElectraForSequenceClassification, t.ElectraConfig(num_labels=3, embedding_size=8, **text)
        ),
        "gpt2": lambda: by_words(t.GPT2ForSequenceClassification, t.GPT2Config(num_labels=3, **gpt)),
        "llama": lambda: by_words(t.LlamaForSequenceClassification, t.LlamaConfig(num_labels=3, **llama)),
        "t5 encoder": lambda: (t5_body(t.T5Config(**t5)), torch.randint(3, 20, (N, 5))),
        "vit": lambda: by_pixels(t.ViTForImageClassification, t.ViTConfig(num_labels=3, **picture)),
        "convnext": lambda: by_pixels(
            t.ConvNextForImageClassification,
            t.ConvNextConfig(
                num_labels=3, num_channels=2, patch_size=2, hidden_sizes=[8, 12], depths=[1, 1], num_stages=2
            ),
        ),
    }


def timm_models():
    """Picture classifiers of timm, narrow and shallow."""
    import timm
    from timm.models.mlp_mixer import MlpMixer as mixer

    def model(name, **options):
        return lambda: (
            drawn(timm.create_model(name, num_classes=3, in_chans=2, **options).eval()),
            torch.randn(N, 2, 32, 32),
        )

    return {
        "resnet": model("resnet10t"),
        "vision transformer": model("vit_tiny_patch16_224", img_size=32, depth=1),
        "mixer": lambda: (drawn(mixer(3, 32, 2, 8, num_blocks=2, embed_dim=16).eval()), torch.randn(N, 2, 32, 32)),
        "convnext": model("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 12, 16, 20)),
        "mobilenet": model("mobilenetv3_small_050"),
    }


def peers():
    """What is installed of Hugging Face and timm, as further families."""
    found = {}
    for name, build in (("hugging face", hugging_face), ("timm", timm_models)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found[name] = build()
            except Exception:  # noqa: BLE001 - not installed, or installed beside what it does not work with
                continue
    return found
