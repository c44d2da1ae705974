"""Draws small random models of every family and records what Hugging Face transformers makes of them.

A model is a folder as a checkpoint is published: config.json (in either style, with keys left out
where the class has a default, with nulls and keys that nobody reads), weights (f32, bf16 or f16; one
file or shards; names with or without the prefix of the base model; experts apart or stacked; tied
heads stored or not; buffers that old releases saved) and beside them ids.txt and logits.npy: what
AutoModelForCausalLM.from_pretrained(folder) gives in fp32 with eager attention. index.json lists
them; a configuration that transformers itself rejects is listed with its reason.

    python3 random_models.py OUT --count 3 --seed 1 [--families llama,phi3] [--first 0]
"""
import argparse
import json
import math
import os
import random
import shutil
import sys
import warnings

import numpy
import torch
import transformers
from safetensors.torch import save_file

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity(transformers.logging.CRITICAL)
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)


class Draw(random.Random):
    def chance(self, p):
        return self.random() < p

    def one(self, *options):
        return self.choice(options)

    def divisor(self, n):
        return self.choice([i for i in range(1, n + 1) if n % i == 0])

    def put(self, config, key, value, leave_out=0.0, null=0.0):
        """Sets a key, or leaves it to the default of the class, or sets it to null."""
        if self.chance(leave_out):
            return
        config[key] = None if self.chance(null) else value


# ---- what several families share ----------------------------------------------------------------

ACTIVATIONS = ["silu", "swish", "gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "relu",
               "gelu_python", "gelu_accurate", "gelu_python_tanh", "quick_gelu", "relu2", "tanh"]


def sizes(d, c, own_head_dim=False, default_kv=None, null_kv=True, default_head_dim=None):
    """hidden_size, heads, key heads and the size of a head; returns the latter. `default_kv`: what
    the class assumes; else it is the number of heads. `null_kv`: null means that number."""
    heads = d.one(1, 2, 3, 4, 6, 8)
    dim = d.one(4, 6, 8, 10, 16, 20)
    if default_kv and d.chance(0.15):
        heads, dim = default_kv * d.one(1, 2) if default_kv < 16 else default_kv, d.one(4, 6, 8)
    else:
        kv = d.divisor(heads)
        c["num_key_value_heads"] = None if null_kv and kv == heads and d.chance(0.4) else kv
        if default_kv is None and kv == heads and d.chance(0.4):
            del c["num_key_value_heads"]
    c["num_attention_heads"] = heads
    c["hidden_size"] = heads * dim
    if own_head_dim and d.chance(0.5):
        dim = d.one(4, 8, 12, 32)
        c["head_dim"] = dim
        c["hidden_size"] = heads * d.one(6, 8, 11)
    elif default_head_dim and d.chance(0.3):
        dim = default_head_dim
    elif default_head_dim:
        c["head_dim"] = dim
    elif own_head_dim and d.chance(0.3) and c["model_type"] != "mixtral":
        c["head_dim"] = None
    return dim


def frame(d, model_type, layers=(1, 2, 3)):
    c = {"model_type": model_type, "vocab_size": d.one(61, 96, 128), "pad_token_id": None,
         "num_hidden_layers": d.choice(layers), "intermediate_size": d.one(12, 24, 40, 64)}
    c["max_position_embeddings"] = d.one(48, 64, 100, 128)
    d.put(c, "rms_norm_eps", d.one(1e-6, 1e-5, 1e-3, 0.02), leave_out=0.2)
    d.put(c, "tie_word_embeddings", d.chance(0.5), leave_out=0.3)
    return c


def hidden_act(d, c, key="hidden_act", usual="silu"):
    d.put(c, key, usual if d.chance(0.5) else d.choice(ACTIVATIONS), leave_out=0.3)


def rope(d, c, dim, types=("default", "linear", "dynamic", "yarn", "llama3", "longrope"),
         partial=None, theta_key="rope_theta", partial_key="partial_rotary_factor"):
    """Rope keys in the old style (rope_theta, rope_scaling) or the new one (rope_parameters)."""
    kind = "default" if d.chance(0.3) else d.choice(types)
    top, inner = {}, {}
    if partial and (c["model_type"] == "phi" or d.chance(0.8)):
        factor = d.choice(partial)
        top[partial_key] = factor
        dim = int(dim * factor)
    elif partial:
        dim = int(dim * {"gpt_neox": 0.25}.get(c["model_type"], 1))
    if d.chance(0.8):
        top[theta_key] = d.one(10000, 10000.0, 500000.0, 1000, 150000, 123.5)
    original = d.one(8, 16, 24, 32)
    if kind in ("linear", "dynamic", "yarn", "llama3"):
        inner["factor"] = d.one(2, 4.0, 8, 32.0, 1.5)
    if kind == "dynamic" and d.chance(0.6):  # prompts may be longer then
        c["max_position_embeddings"] = d.one(12, 24, 30)
    if kind == "yarn":
        d.put(inner, "original_max_position_embeddings", original, leave_out=0.2)
        for key, options in (("beta_fast", (32, 16.0, 4)), ("beta_slow", (1, 2, 0.5)),
                             ("truncate", (True, False)), ("attention_factor", (1.0, 1.3)),
                             ("mscale", (1, 0.707, 1.2)), ("mscale_all_dim", (1.0, 0.707, 0))):
            d.put(inner, key, d.choice(options), leave_out=0.6)
    if kind == "llama3":
        d.put(inner, "original_max_position_embeddings", original, leave_out=0.1)
        inner["low_freq_factor"] = d.one(1, 1.0, 2)
        inner["high_freq_factor"] = d.one(4.0, 8)
    if kind == "longrope":
        for key in ("short_factor", "long_factor"):
            inner[key] = [round(d.uniform(1, 4), 3) for _ in range((dim + 1) // 2)]
        if c["model_type"] == "phi3" or d.chance(0.3):
            top["original_max_position_embeddings"] = original
        if d.chance(0.5):
            inner["original_max_position_embeddings"] = original
        d.put(inner, "factor", d.one(2.0, 4), leave_out=0.6)
        d.put(inner, "attention_factor", d.one(1.1, 1.5), leave_out=0.8)
    name = d.one("rope_type", "type")
    if kind != "default" or d.chance(0.3):
        inner[name] = kind
        if kind == "longrope" and c["model_type"] == "phi3" and d.chance(0.3):
            inner[name] = d.one("su", "yarn")
        if d.chance(0.2):
            inner["type"] = inner["rope_type"] = inner[name]
    if d.chance(0.5) or theta_key != "rope_theta":  # the old style
        c.update(top)
        if inner or d.chance(0.3):
            c["rope_scaling"] = inner or None
    else:
        for key in (theta_key, partial_key):
            if key in top and d.chance(0.8):
                inner[key] = top.pop(key)
        c.update(top)
        if inner or d.chance(0.3):
            c["rope_parameters"] = inner or None
    return dim


def layer_types(d, c, leave_out=0.5):
    if not d.chance(leave_out):
        c["layer_types"] = [d.one("sliding_attention", "full_attention")
                            for _ in range(c["num_hidden_layers"])]


def dense_layers(d, c, experts, per_token):
    """Experts of the Qwen line."""
    c["num_experts"] = experts
    c["num_experts_per_tok"] = per_token
    c["moe_intermediate_size"] = d.one(8, 20)
    d.put(c, "norm_topk_prob", d.chance(0.5), leave_out=0.3)
    d.put(c, "decoder_sparse_step", d.one(1, 2), leave_out=0.4)
    d.put(c, "mlp_only_layers", [i for i in range(3) if d.chance(0.2)], leave_out=0.5, null=0.2)


# ---- the families -------------------------------------------------------------------------------

def llama(d):
    c = frame(d, "llama")
    dim = sizes(d, c, own_head_dim=True)
    hidden_act(d, c)
    rope(d, c, dim)
    d.put(c, "attention_bias", d.chance(0.5), leave_out=0.5)
    d.put(c, "mlp_bias", d.chance(0.5), leave_out=0.5)
    d.put(c, "pretraining_tp", d.one(1, 2), leave_out=0.5)
    return c


def mistral(d):
    c = frame(d, "mistral")
    dim = sizes(d, c, own_head_dim=True, default_kv=8, null_kv=False)
    hidden_act(d, c)
    rope(d, c, dim)
    d.put(c, "sliding_window", d.one(3, 8, 16, 4096), leave_out=0.2, null=0.2)
    return c


def qwen(d, model_type):
    c = frame(d, model_type)
    dim = sizes(d, c, default_kv=32, default_head_dim=128 if model_type == "qwen3" else None)
    if model_type == "qwen2" and d.chance(0.1):
        c["head_dim"] = dim = d.one(8, 12)
    hidden_act(d, c)
    rope(d, c, dim)
    if model_type == "qwen3":
        d.put(c, "attention_bias", d.chance(0.5), leave_out=0.5)
    d.put(c, "use_sliding_window", d.chance(0.6), leave_out=0.3)
    d.put(c, "sliding_window", d.one(4, 9, 20), leave_out=0.2, null=0.1)
    d.put(c, "max_window_layers", d.one(0, 1, 2, 28), leave_out=0.2)
    if c.get("use_sliding_window") and c.get("sliding_window"):
        layer_types(d, c)
    return c


def smollm3(d):
    c = frame(d, "smollm3", layers=(2, 4, 5))
    dim = sizes(d, c, default_kv=4)
    if d.chance(0.1):
        c["head_dim"] = dim = d.one(8, 12)
    hidden_act(d, c)
    rope(d, c, dim)
    for key in ("attention_bias", "mlp_bias"):
        d.put(c, key, d.chance(0.5), leave_out=0.5)
    d.put(c, "no_rope_layer_interval", d.one(1, 2, 3, 4), leave_out=0.3)
    d.put(c, "no_rope_layers", [d.one(0, 1) for _ in range(c["num_hidden_layers"])],
          leave_out=0.5, null=0.2)
    d.put(c, "use_sliding_window", d.chance(0.5), leave_out=0.3)
    d.put(c, "sliding_window", d.one(4, 9), leave_out=0.2, null=0.2)
    if c.get("sliding_window"):
        layer_types(d, c)
    return c


def phi(d):
    c = frame(d, "phi")
    dim = sizes(d, c)
    c["layer_norm_eps"] = c.pop("rms_norm_eps", 1e-5)
    d.put(c, "qk_layernorm", True, leave_out=0.7)
    if d.chance(0.1) and not c.get("qk_layernorm"):
        c["head_dim"] = dim = d.one(8, 12)
    hidden_act(d, c, usual="gelu_new")
    rope(d, c, dim, partial=[p for p in (0.5, 0.4, 0.25, 1.0, 0.75) if int(dim * p) % 2 == 0])
    return c


def phi3(d):
    c = frame(d, "phi3")
    dim = sizes(d, c)
    hidden_act(d, c)
    rope(d, c, dim, ("default", "longrope"), partial=(1.0, 0.75, 0.5))
    d.put(c, "sliding_window", d.one(3, 8, 2047), leave_out=0.3, null=0.3)
    if "original_max_position_embeddings" not in c and d.chance(0.3):
        c["original_max_position_embeddings"] = 4096
    return c


def gemma(d, model_type):
    c = frame(d, model_type, layers=(1, 2, 3, 4))
    dim = sizes(d, c, default_kv={"gemma": 16}.get(model_type, 4), null_kv=False,
                default_head_dim=256)
    d.put(c, "attention_bias", d.chance(0.5), leave_out=0.6)
    if model_type == "gemma":
        d.put(c, "hidden_act", d.one("gelu", "gelu_pytorch_tanh", "gelu_new"), leave_out=0.3)
        d.put(c, "hidden_activation", "gelu_pytorch_tanh", leave_out=0.5, null=0.5)
        rope(d, c, dim)
        return c
    hidden_act(d, c, "hidden_activation", "gelu_pytorch_tanh")
    d.put(c, "query_pre_attn_scalar", d.one(8, 16, 24, 256), leave_out=0.2)
    d.put(c, "sliding_window", d.one(3, 8, 512), leave_out=0.1)
    d.put(c, "final_logit_softcapping", d.one(5.0, 30.0), leave_out=0.4, null=0.2)
    if model_type == "gemma2":
        d.put(c, "attn_logit_softcapping", d.one(3.0, 50.0), leave_out=0.4, null=0.2)
        rope(d, c, dim)
    else:
        d.put(c, "sliding_window_pattern", d.one(1, 2, 3, 6), leave_out=0.5)
        if d.chance(0.5):
            d.put(c, "rope_theta", d.one(1000000.0, 20000), leave_out=0.3)
            d.put(c, "rope_local_base_freq", d.one(10000, 500.0), leave_out=0.3)
            d.put(c, "rope_scaling", {"rope_type": "linear", "factor": 8.0}, leave_out=0.4, null=0.4)
        else:
            c["rope_parameters"] = {}
            for kind in ("full_attention", "sliding_attention"):
                keys = {"rope_type": "default"}
                d.put(keys, "rope_theta", d.one(1000000.0, 20000), leave_out=0.3)
                if d.chance(0.4):
                    keys.update({"rope_type": "linear", "factor": d.one(2, 8.0)})
                d.put(c["rope_parameters"], kind, keys, leave_out=0.1)
    layer_types(d, c)
    return c


def gemma3_images(d):
    text = gemma(d, "gemma3_text")
    text["vocab_size"] = 128
    text.pop("final_logit_softcapping", None)
    tied = text.pop("tie_word_embeddings", None)
    vision = {"model_type": "siglip_vision_model", "hidden_size": 8, "intermediate_size": 8,
              "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 16, "patch_size": 8}
    c = {"model_type": "gemma3", "text_config": text, "vision_config": vision,
         "mm_tokens_per_image": 4, "image_token_index": 120, "boi_token_index": 121,
         "eoi_token_index": 122}
    if tied is not None:
        c["tie_word_embeddings"] = text["tie_word_embeddings"] = tied
    return c


def gpt2(d):
    heads = d.one(1, 2, 3, 4)
    c = {"model_type": "gpt2", "vocab_size": d.one(61, 96), "n_embd": heads * d.one(4, 5, 8, 16),
         "n_layer": d.one(1, 2, 3), "n_head": heads}
    d.put(c, "n_positions", d.one(48, 64), leave_out=0.2)
    c["n_ctx"] = c.get("n_positions", 1024)
    d.put(c, "n_inner", d.one(20, 48), leave_out=0.3, null=0.3)
    d.put(c, "layer_norm_epsilon", d.one(1e-5, 1e-3), leave_out=0.3)
    hidden_act(d, c, "activation_function", "gelu_new")
    for key in ("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn",
                "tie_word_embeddings"):
        d.put(c, key, d.chance(0.5), leave_out=0.5)
    return c


def gpt_neo(d):
    heads = d.one(1, 2, 3, 4)
    c = {"model_type": "gpt_neo", "vocab_size": d.one(61, 96), "hidden_size": heads * d.one(4, 5, 8),
         "num_heads": heads, "max_position_embeddings": d.one(48, 64)}
    if d.chance(0.1):
        c["num_layers"], c["hidden_size"] = 24, heads * 4
    else:
        pattern = [d.one("global", "local") for _ in range(d.one(1, 2))]
        c["attention_types"] = [[pattern, d.one(1, 2)], [["local"], d.one(0, 1)]]
        c["num_layers"] = sum(len(names) * times for names, times in c["attention_types"])
        if d.chance(0.5):
            c["attention_layers"] = [n for names, times in c["attention_types"]
                                     for _ in range(times) for n in names]
    d.put(c, "window_size", d.one(3, 8, 20), leave_out=0.2)
    d.put(c, "intermediate_size", d.one(20, 48), leave_out=0.3, null=0.3)
    d.put(c, "layer_norm_epsilon", d.one(1e-5, 1e-3), leave_out=0.3)
    hidden_act(d, c, "activation_function", "gelu_new")
    d.put(c, "tie_word_embeddings", d.chance(0.5), leave_out=0.5)
    return c


def gpt_neox(d):
    c = frame(d, "gpt_neox")
    heads = d.one(1, 2, 4)
    dim = d.one(8, 12, 16, 20)
    c["num_attention_heads"], c["hidden_size"] = heads, heads * dim
    c["layer_norm_eps"] = c.pop("rms_norm_eps", 1e-5)
    hidden_act(d, c, usual="gelu")
    for key in ("use_parallel_residual", "attention_bias"):
        d.put(c, key, d.chance(0.5), leave_out=0.4)
    old = d.chance(0.6)
    rope(d, c, dim, partial=(0.25, 0.5, 1.0, 0.4),
         theta_key="rotary_emb_base" if old else "rope_theta",
         partial_key="rotary_pct" if old else "partial_rotary_factor")
    if not old:  # only within rope_parameters
        for key in ("rope_theta", "partial_rotary_factor"):
            if key in c:
                kept = "rope_scaling" if c.get("rope_scaling") else "rope_parameters"
                c[kept] = {**(c.get(kept) or {}), key: c.pop(key)}
    return c


def gpt_oss(d):
    c = frame(d, "gpt_oss")
    dim = sizes(d, c, default_kv=8, null_kv=False, default_head_dim=64)
    hidden_act(d, c, usual="silu")
    c.pop("hidden_act", None)
    rope(d, c, dim)
    if d.chance(0.3):  # wide enough for blocks of 32
        c["num_attention_heads"], c["num_key_value_heads"] = d.one((4, 2), (8, 8), (8, 1))
        c["hidden_size"], c["intermediate_size"] = d.one((32, 64), (64, 32))
        c["quantization_config"] = {"quant_method": "mxfp4"}
    d.put(c, "attention_bias", d.chance(0.5), leave_out=0.6)
    d.put(c, "sliding_window", d.one(3, 8), leave_out=0.1)
    c["num_local_experts"] = d.one(2, 4, 6)
    c["num_experts_per_tok"] = d.randint(1, min(4, c["num_local_experts"]))
    if c["num_experts_per_tok"] == 4 and d.chance(0.5):
        del c["num_experts_per_tok"]
    d.put(c, "swiglu_limit", d.one(7.0, 0.8), leave_out=0.3)
    d.put(c, "swiglu_alpha", d.one(1.702, 1.0), leave_out=0.6)
    layer_types(d, c)
    return c


def mixtral(d):
    c = frame(d, "mixtral")
    dim = sizes(d, c, own_head_dim=True, default_kv=8, null_kv=False)
    hidden_act(d, c)
    if c.get("hidden_act") in ("relu2", "tanh"):  # refused in a mixture of experts
        c["hidden_act"] = "gelu"
    rope(d, c, dim)
    d.put(c, "sliding_window", d.one(3, 8, 4096), leave_out=0.4, null=0.3)
    d.put(c, d.one("num_local_experts", "num_local_experts", "num_experts"), d.one(2, 4, 8),
          leave_out=0.1)
    d.put(c, "num_experts_per_tok", d.one(1, 2), leave_out=0.2)
    return c


def qwen_moe(d, model_type):
    c = frame(d, model_type)
    third = model_type == "qwen3_moe"
    dim = sizes(d, c, default_kv=4 if third else 16, null_kv=False)
    if d.chance(0.5):
        c["head_dim"] = dim = d.one(8, 12)
    hidden_act(d, c)
    if c.get("hidden_act") in ("relu2", "tanh"):  # refused in a mixture of experts
        c["hidden_act"] = "gelu"
    rope(d, c, dim)
    experts = d.one(4, 6, 8)
    dense_layers(d, c, experts, d.randint(1, 4))
    if model_type == "qwen2_moe":
        c["shared_expert_intermediate_size"] = d.one(8, 20)
        d.put(c, "qkv_bias", d.chance(0.5), leave_out=0.5)
        d.put(c, "max_window_layers", d.one(0, 1, 28), leave_out=0.3)
    else:
        d.put(c, "attention_bias", d.chance(0.5), leave_out=0.5)
    d.put(c, "use_sliding_window", d.chance(0.5), leave_out=0.4)
    d.put(c, "sliding_window", d.one(4, 9), leave_out=0.1)
    if model_type == "qwen2_moe" and c.get("use_sliding_window"):
        layer_types(d, c)
    return c


def deepseek(d, model_type):
    c = frame(d, model_type)
    heads = d.one(1, 2, 4)
    c["num_attention_heads"], c["hidden_size"] = heads, heads * d.one(8, 12, 20)
    c["num_key_value_heads"] = d.one(heads, None)
    third = model_type == "deepseek_v3"
    hidden_act(d, c)
    if c.get("hidden_act") in ("relu2", "tanh"):  # refused in a mixture of experts
        c["hidden_act"] = "gelu"
    c["kv_lora_rank"] = d.one(8, 12)
    c["q_lora_rank"] = d.one(None, 10, 16)
    c["qk_nope_head_dim"] = d.one(4, 8, 12)
    d.put(c, "qk_rope_head_dim", d.one(4, 8), leave_out=0.1)
    d.put(c, "v_head_dim", d.one(4, 8, 10), leave_out=0.1)
    rope(d, c, c.get("qk_rope_head_dim", 64))
    d.put(c, "attention_bias", d.chance(0.5), leave_out=0.5)
    d.put(c, "first_k_dense_replace", d.one(0, 1, 3), leave_out=0.2)
    groups = d.one(1, 2, 4)
    c["n_routed_experts"] = groups * d.one(2, 3)
    c["moe_intermediate_size"] = d.one(8, 12)
    d.put(c, "n_shared_experts", d.one(1, 2), leave_out=0.2)
    d.put(c, "routed_scaling_factor", d.one(1.0, 2.5, 16.0), leave_out=0.3)
    chosen = d.randint(1, groups)
    per_token = d.randint(1, chosen * c["n_routed_experts"] // groups)
    c["num_experts_per_tok"] = per_token
    if third:
        c["n_group"], c["topk_group"] = groups, chosen
        d.put(c, "norm_topk_prob", d.chance(0.5), leave_out=0.4)
        d.put(c, "rope_interleave", d.chance(0.5), leave_out=0.5)
        d.put(c, "scoring_func", "sigmoid", leave_out=0.5)
        d.put(c, "topk_method", "noaux_tc", leave_out=0.5)
        d.put(c, "num_nextn_predict_layers", d.one(0, 1), leave_out=0.5)
    else:
        d.put(c, "topk_method", d.one("greedy", "group_limited_greedy"), leave_out=0.3)
        c["n_group"], c["topk_group"] = groups, chosen
        d.put(c, "norm_topk_prob", False, leave_out=0.5)
        d.put(c, "scoring_func", "softmax", leave_out=0.5)
        d.put(c, "mlp_bias", d.chance(0.5), leave_out=0.7)
    d.put(c, "moe_layer_freq", 1, leave_out=0.5)
    return c


FAMILIES = {
    "llama": llama, "mistral": mistral, "qwen2": lambda d: qwen(d, "qwen2"),
    "qwen3": lambda d: qwen(d, "qwen3"), "smollm3": smollm3, "phi": phi, "phi3": phi3,
    "gemma": lambda d: gemma(d, "gemma"), "gemma2": lambda d: gemma(d, "gemma2"),
    "gemma3_text": lambda d: gemma(d, "gemma3_text"), "gemma3": gemma3_images, "gpt2": gpt2,
    "gpt_neo": gpt_neo, "gpt_neox": gpt_neox, "gpt_oss": gpt_oss, "mixtral": mixtral,
    "qwen2_moe": lambda d: qwen_moe(d, "qwen2_moe"),
    "qwen3_moe": lambda d: qwen_moe(d, "qwen3_moe"),
    "deepseek_v2": lambda d: deepseek(d, "deepseek_v2"),
    "deepseek_v3": lambda d: deepseek(d, "deepseek_v3"),
}


def dress(d, config):
    """Keys that published files have and that change nothing."""
    c = dict(config)
    extras = {"_name_or_path": "somewhere/else", "transformers_version": d.one("4.31.0", "5.0.0"),
              "use_cache": d.chance(0.5), "attention_dropout": 0.1, "initializer_range": 0.02,
              "bos_token_id": 1, "eos_token_id": d.one(2, [2, 3]), "pad_token_id": None,
              "an_unknown_key": {"a": [1]}, "output_router_logits": False, "auto_map": {},
              "torch_dtype": d.one("float32", "bfloat16", None), "max_length": 20}
    for key, value in extras.items():
        if d.chance(0.3):
            c.setdefault(key, value)
    keys = list(c)
    d.shuffle(keys)
    return {key: c[key] for key in keys}


# ---- weights ------------------------------------------------------------------------------------

def fill(d, name, tensor, config):
    """Values large enough that attention attends and routers route."""
    g = torch.Generator().manual_seed(d.getrandbits(48))
    noise = torch.randn(tensor.shape, generator=g)
    kind = config["model_type"]
    last = name.rsplit(".", 1)[-1]
    module = name.rsplit(".", 1)[0].rsplit(".", 1)[-1]
    if last == "weight" and ("norm" in module or module.startswith("ln_")):
        return noise * 0.3 + (0.0 if kind.startswith("gemma") else 1.0)
    if tensor.dim() == 1 or last.endswith("bias"):
        return noise * (1.0 if last == "sinks" else 0.3)
    if any(part in module for part in ("embed_tokens", "embed_in", "wte", "wpe")):
        return noise * 0.5
    conv1d = kind == "gpt2" and module in ("c_attn", "c_proj", "c_fc")
    inputs = tensor.shape[-2] if conv1d or (kind == "gpt_oss" and tensor.dim() == 3) \
        else tensor.shape[-1]
    gain = 1.0
    if module in ("q_proj", "k_proj", "qkv_proj", "query_key_value", "q_b_proj", "kv_b_proj"):
        gain = 0.9 if kind == "gpt_neo" else 1.6
    if module in ("gate", "router"):
        gain = 2.0
    return noise * gain / math.sqrt(inputs)


def split_experts(state, kind):
    """One tensor for every expert, as checkpoints of before transformers 5 have."""
    out = {}
    for name, tensor in state.items():
        head, _, last = name.rpartition(".")
        if kind == "mixtral":
            head = head.replace(".mlp", ".block_sparse_moe")
        if last not in ("gate_up_proj", "down_proj") or tensor.dim() != 3:
            out[f"{head}.{last}" if ".mlp." in name else name] = tensor
            continue
        names = ("w1", "w3", "w2") if kind == "mixtral" else ("gate_proj", "up_proj", "down_proj")
        for e, one in enumerate(tensor):
            if last == "down_proj":
                out[f"{head}.{e}.{names[2]}.weight"] = one
            else:
                gate, up = one.chunk(2)
                out[f"{head}.{e}.{names[0]}.weight"] = gate
                out[f"{head}.{e}.{names[1]}.weight"] = up
    return out


def stored_forms(d, state, config, tied):
    """The same weights under the names that one release or another used."""
    kind = config["model_type"]
    state = dict(state)
    if kind in ("mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v2", "deepseek_v3") \
            and d.chance(0.6):
        state = split_experts(state, kind)
    head = "lm_head.weight"
    if tied and d.chance(0.7):
        state.pop(head, None)
    elif tied and d.chance(0.8):  # else both stay, with different values: then they are not tied
        state[head] = next(t for n, t in state.items() if n.rsplit(".", 2)[-2] in
                           ("embed_tokens", "embed_in", "wte"))
    if kind == "gemma3" and d.chance(0.5):  # before transformers 4.52
        state = {name.replace("model.language_model.", "language_model.model.")
                 .replace("model.vision_tower", "vision_tower")
                 .replace("model.multi_modal_projector", "multi_modal_projector")
                 .replace("lm_head", "language_model.lm_head"): t for name, t in state.items()}
    if kind == "gpt_neox" and d.chance(0.6):  # before transformers 5
        state = {name.replace("lm_head", "embed_out"): t for name, t in state.items()}
    prefix = {"gpt2": "transformer.", "gpt_neo": "transformer.", "gpt_neox": "gpt_neox."}
    prefix = prefix.get(kind, "model.")
    if head not in state and "embed_out.weight" not in state and kind not in ("gemma3", "phi") and d.chance(0.4):
        state = {name.removeprefix(prefix): t for name, t in state.items()}
    if d.chance(0.3):
        layers = {".".join(n.split(".")[:n.split(".").index("0") + 1]) for n in state
                  if ".0." in n and "expert" not in n and "vision" not in n}
        for at in layers:
            if kind == "gpt2":
                state[f"{at}.attn.bias"] = torch.ones(1, 1, 4, 4)
                state[f"{at}.attn.masked_bias"] = torch.tensor(-1e4)
            elif kind == "gpt_neo":
                state[f"{at}.attn.attention.bias"] = torch.ones(1, 1, 4, 4)
                state[f"{at}.attn.attention.masked_bias"] = torch.tensor(-1e9)
            elif kind == "gpt_neox":
                state[f"{at}.attention.bias"] = torch.ones(1, 1, 4, 4)
                state[f"{at}.attention.masked_bias"] = torch.tensor(-1e9)
                state[f"{at}.attention.rotary_emb.inv_freq"] = torch.ones(4)
            else:
                state[f"{at}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    return state


E2M1 = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6])


def as_blocks(d, state):
    """Random experts in MXFP4: as they are published, and their values."""
    stored, values = {}, {}
    for name, tensor in state.items():
        if tensor.dim() != 3:
            stored[name] = values[name] = tensor
            continue
        experts, inputs, outputs = tensor.shape
        g = torch.Generator().manual_seed(d.getrandbits(48))
        blocks = torch.randint(0, 256, (experts, outputs, inputs // 32, 16), generator=g)
        scales = torch.randint(121, 126, (experts, outputs, inputs // 32), generator=g)
        pairs = torch.stack((E2M1[blocks & 15], E2M1[blocks >> 4]), -1).flatten(-2)
        rows = (pairs * torch.exp2(scales.float() - 127)[..., None]).flatten(-2)
        values[name] = rows.transpose(1, 2)
        stored[name + "_blocks"] = blocks.to(torch.uint8)
        stored[name + "_scales"] = scales.to(torch.uint8)
    return stored, values


def write_weights(d, folder, state, dtype):
    state = {name: (t.to(dtype) if t.is_floating_point() else t).contiguous().clone()
             for name, t in state.items()}
    if len(state) < 4 or d.chance(0.7):
        save_file(state, folder + "/model.safetensors", metadata={"format": "pt"})
        return
    names, places = sorted(state), {}
    for part, some in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{part:05}-of-00002.safetensors"
        save_file({n: state[n] for n in some}, f"{folder}/{file}", metadata={"format": "pt"})
        places.update({n: file for n in some})
    with open(folder + "/model.safetensors.index.json", "w") as f:
        json.dump({"metadata": {}, "weight_map": places}, f)


def stretch(config):
    """By how much a prompt may be longer than max_position_embeddings."""
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    kind = rope.get("rope_type", rope.get("type"))
    return rope["factor"] if kind == "dynamic" else 1


def load(folder, architecture):
    model, info = getattr(transformers, architecture).from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager",
        output_loading_info=True)
    # A model that starts without its weights is no reference.
    if info["missing_keys"] or info["mismatched_keys"]:
        raise RuntimeError(f"weights not found: {sorted(info['missing_keys'])[:3]}")
    return model.eval()


def make(folder, family, seed):
    d = Draw(seed)
    config = FAMILIES[family](d)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    with open(folder + "/config.json", "w") as f:
        json.dump(dress(d, config), f, indent=1)
    parsed = transformers.AutoConfig.from_pretrained(folder)
    parsed.quantization_config = None
    name = "Gemma3ForConditionalGeneration" if family == "gemma3" else \
        transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[family]
    parsed._attn_implementation = "eager"
    with torch.device("cpu"):
        model = getattr(transformers, name)(parsed)
    state = {n: fill(d, n, t, config) for n, t in model.state_dict().items()
             if t.is_floating_point()}
    tied = bool(parsed.tie_word_embeddings)
    dtype = d.one(torch.float32, torch.float32, torch.bfloat16, torch.float16)
    reference = folder
    if "quantization_config" in config:  # transformers gets the values
        stored, state = as_blocks(d, state)
        write_weights(d, folder, stored, dtype)
        reference = folder + "/values"
        os.makedirs(reference)
        with open(reference + "/config.json", "w") as f:
            json.dump({k: v for k, v in config.items() if k != "quantization_config"}, f)
    write_weights(d, reference, stored_forms(d, state, config, tied), dtype)
    text = parsed.get_text_config()
    model = load(reference, name)
    length = min(d.one(20, 40, 47), int(text.max_position_embeddings * stretch(config)))
    ids = [d.randrange(min(text.vocab_size, 110)) for _ in range(length)]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    logits = logits.float().numpy()
    if not numpy.isfinite(logits).all():
        raise RuntimeError("logits are not finite")
    numpy.save(folder + "/logits.npy", logits)
    with open(folder + "/ids.txt", "w") as f:
        f.write(" ".join(map(str, ids)) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--count", type=int, default=2)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    index = []
    for family in options.families.split(","):
        for number in range(options.first, options.first + options.count):
            name = f"{family}-{number:04}"
            entry = {"name": name, "family": family}
            try:
                make(f"{options.out}/{name}", family, f"{family} {number} {options.seed}")
            except Exception as error:  # transformers' own refusals
                entry["rejected"] = f"{type(error).__name__}: {error}"[:300]
            index.append(entry)
    with open(options.out + "/index.json", "w") as f:
        json.dump(index, f, indent=1)


if __name__ == "__main__":
    sys.exit(main())
