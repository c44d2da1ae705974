"""Reads MLC packages on its own: names and shapes that MLC's models expect, sums, sizes, and values.

Input: {"cases": [{"folder": package, "dump": folder with index.json and f32 files of the graph that
pome reads from it}]}. Output: {"problems": [...], "tensors": n}. The rules below follow MLC's model
definitions and loaders; nothing comes from pome's own tables.
"""
import hashlib
import json
import os
import sys

import numpy as np

SHARD = 32 << 20


def llama_like(c, attention="qkv_proj", biased=False, norms=False, four=False, separate=False,
               prefix=""):
    h, d = c["hidden_size"], c["head_dim"]
    q, kv = c["num_attention_heads"] * d, c["num_key_value_heads"] * d
    out = {prefix + "model.embed_tokens.weight": ([c["vocab_size"], h], "matrix",
                                                  ["model.embed_tokens.weight"])}
    for i in range(c["num_hidden_layers"]):
        at, hf = f"{prefix}model.layers.{i}.", f"model.layers.{i}."
        parts = [hf + f"self_attn.{n}_proj" for n in "qkv"]
        if separate:
            for name, rows in (("q", q), ("k", kv), ("v", kv)):
                out[at + f"self_attn.{name}_proj.weight"] = (
                    [rows, h], "matrix", [hf + f"self_attn.{name}_proj.weight"])
        else:
            out[at + f"self_attn.{attention}.weight"] = (
                [q + 2 * kv, h], "matrix", [p + ".weight" for p in parts])
        if biased:
            out[at + f"self_attn.{attention}.bias"] = (
                [q + 2 * kv], "plain", [p + ".bias" for p in parts])
        out[at + "self_attn.o_proj.weight"] = ([h, q], "matrix", [hf + "self_attn.o_proj.weight"])
        if norms:
            for n in "qk":
                out[at + f"self_attn.{n}_norm.weight"] = (
                    [d], "plain", [hf + f"self_attn.{n}_norm.weight"])
        names = ["input_layernorm", "post_attention_layernorm"]
        if four:
            names += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
        for n in names:
            out[at + n + ".weight"] = ([h], "plain", [hf + n + ".weight"])
    out[prefix + "model.norm.weight"] = ([h], "plain", ["model.norm.weight"])
    return out


def add_mlp(out, c, prefix=""):
    h, f = c["hidden_size"], c["intermediate_size"]
    for i in range(c["num_hidden_layers"]):
        at, hf = f"{prefix}model.layers.{i}.mlp.", f"model.layers.{i}.mlp."
        out[at + "gate_up_proj.weight"] = (
            [2 * f, h], "matrix", [hf + "gate_proj.weight", hf + "up_proj.weight"])
        out[at + "down_proj.weight"] = ([h, f], "matrix", [hf + "down_proj.weight"])


def add_head(out, c, tied):
    source = "model.embed_tokens.weight" if tied else "lm_head.weight"
    out["lm_head.weight"] = ([c["vocab_size"], c["hidden_size"]], "matrix", [source])


def add_experts(out, c, mlc, hf, names, width, count):
    h = c["hidden_size"]
    gate, up, down = names
    for i in range(c["num_hidden_layers"]):
        at, src = f"model.layers.{i}.{mlc[0]}.", f"model.layers.{i}.{hf}."
        one = src + "experts.*."
        # Mixtral's router has a new name since transformers 5.
        out[at + "gate.weight"] = ([count, h], "plain",
                                   [src + "gate.weight", f"model.layers.{i}.mlp.gate.weight"])
        out[at + mlc[1] + ".weight"] = ([count, 2 * width, h], "matrix",
                                        [one + gate + ".weight", one + up + ".weight"])
        out[at + mlc[2] + ".weight"] = ([count, h, width], "matrix", [one + down + ".weight"])


def expected(chat, tied):
    c, kind = chat["model_config"], chat["model_type"]
    if kind in ("llama", "mistral"):
        out = llama_like(c)
        add_mlp(out, c)
        if kind == "mistral" or not c["tie_word_embeddings"]:
            add_head(out, c, tied)
    elif kind in ("qwen2", "qwen3"):
        out = llama_like(c, "c_attn", biased=kind == "qwen2" or c["attention_bias"],
                         norms=kind == "qwen3")
        add_mlp(out, c)
        if not c["tie_word_embeddings"]:
            add_head(out, c, tied)
    elif kind in ("gemma", "gemma2"):
        out = llama_like(c, four=kind == "gemma2")
        add_mlp(out, c)
    elif kind == "gemma3_text":
        text = dict(c["text_config"], vocab_size=c["vocab_size"])
        out = llama_like(text, norms=True, four=True, separate=True, prefix="language_model.")
        add_mlp(out, text, "language_model.")
    elif kind == "mixtral":
        out = llama_like(c)
        add_experts(out, c, ("moe", "e1_e3", "e2"), "block_sparse_moe", ("w1", "w3", "w2"),
                    c["intermediate_size"], c["num_local_experts"])
        if not c["tie_word_embeddings"]:
            add_head(out, c, tied)
    elif kind in ("qwen2_moe", "qwen3_moe"):
        second = kind == "qwen2_moe"
        out = llama_like(c, "c_attn", biased=second or c["attention_bias"], norms=not second)
        add_experts(out, c, ("mlp", "moe_gate_up_proj", "moe_down_proj"), "mlp",
                    ("gate_proj", "up_proj", "down_proj"), c["moe_intermediate_size"],
                    c["num_experts"])
        h, s = c["hidden_size"], c.get("shared_expert_intermediate_size")
        for i in range(c["num_hidden_layers"] if second else 0):
            at = f"model.layers.{i}.mlp.shared_expert"
            out[at + ".gate_up_proj.weight"] = (
                [2 * s, h], "matrix", [at + ".gate_proj.weight", at + ".up_proj.weight"])
            out[at + ".down_proj.weight"] = ([h, s], "matrix", [at + ".down_proj.weight"])
            out[at + "_gate.weight"] = ([1, h], "plain", [at + "_gate.weight"])
        add_head(out, c, tied)
    elif kind == "phi3":
        out = phi3(c, tied)
    elif kind == "phi":
        out = phi(c)
    elif kind == "gpt2":
        out = gpt2(c)
    elif kind == "gpt_neox":
        out = gpt_neox(c)
    else:
        raise ValueError("no rules for " + kind)
    return out


def phi3(c, tied):
    h, d, f = c["hidden_size"], c["head_dim"], c["intermediate_size"]
    q, kv = c["num_attention_heads"] * d, c["num_key_value_heads"] * d
    out = {"transformer.embd.weight": ([c["vocab_size"], h], "matrix", ["model.embed_tokens.weight"]),
           "transformer.norm.weight": ([h], "plain", ["model.norm.weight"])}
    for i in range(c["num_hidden_layers"]):
        at, hf = f"transformer.h.{i}.", f"model.layers.{i}."
        out[at + "ln.weight"] = ([h], "plain", [hf + "input_layernorm.weight"])
        out[at + "post_attention_layernorm.weight"] = (
            [h], "plain", [hf + "post_attention_layernorm.weight"])
        out[at + "mixer.qkv_proj.weight"] = (
            [q + 2 * kv, h], "matrix", [hf + "self_attn.qkv_proj.weight"])
        out[at + "mixer.out_proj.weight"] = ([h, q], "matrix", [hf + "self_attn.o_proj.weight"])
        out[at + "mlp.gate_up_proj.weight"] = (
            [2 * f, h], "matrix", [hf + "mlp.gate_up_proj.weight"])
        out[at + "mlp.down_proj.weight"] = ([h, f], "matrix", [hf + "mlp.down_proj.weight"])
    if not c["tie_word_embeddings"]:
        add_head(out, c, tied)
    return out


def linear(out, name, rows, columns, sources, wide=False):
    out[name + ".weight"] = ([rows, columns], "matrix", [s + ".weight" for s in sources])
    out[name + ".bias"] = ([rows], "wide" if wide else "plain", [s + ".bias" for s in sources])


def norm(out, name, size, source):
    for end in (".weight", ".bias"):
        out[name + end] = ([size], "plain", [source + end])


def phi(c):
    h, f = c["hidden_size"], c["intermediate_size"]
    d = h // c["num_attention_heads"]
    rows = (c["num_attention_heads"] + 2 * c["num_key_value_heads"]) * d
    out = {"transformer.embd.weight": ([c["vocab_size"], h], "matrix", ["model.embed_tokens.weight"])}
    for i in range(c["num_hidden_layers"]):
        at, hf = f"transformer.h.{i}.", f"model.layers.{i}."
        norm(out, at + "ln", h, hf + "input_layernorm")
        linear(out, at + "mixer.Wqkv", rows, h, [hf + f"self_attn.{n}_proj" for n in "qkv"])
        linear(out, at + "mixer.out_proj", h, h, [hf + "self_attn.dense"])
        linear(out, at + "mlp.fc1", f, h, [hf + "mlp.fc1"])
        linear(out, at + "mlp.fc2", h, f, [hf + "mlp.fc2"])
    norm(out, "lm_head.ln", h, "model.final_layernorm")
    linear(out, "lm_head.linear", c["vocab_size"], h, ["lm_head"])
    return out


def gpt2(c):
    h, f = c["n_embd"], c["n_inner"]
    out = {"transformer.wte.weight": ([c["vocab_size"], h], "matrix", ["transformer.wte.weight"]),
           "transformer.wpe.weight": ([c["context_window_size"], h], "matrix",
                                      ["transformer.wpe.weight"]),
           "lm_head.weight": ([c["vocab_size"], h], "matrix", ["transformer.wte.weight"])}
    for i in range(c["n_layer"]):
        at = f"transformer.h.{i}."
        norm(out, at + "ln_1", h, at + "ln_1")
        norm(out, at + "ln_2", h, at + "ln_2")
        linear(out, at + "attn.c_attn", 3 * h, h, [at + "attn.c_attn"])
        linear(out, at + "attn.c_proj", h, h, [at + "attn.c_proj"])
        linear(out, at + "mlp.c_fc", f, h, [at + "mlp.c_fc"])
        linear(out, at + "mlp.c_proj", h, f, [at + "mlp.c_proj"])
    norm(out, "transformer.ln_f", h, "transformer.ln_f")
    return out


def gpt_neox(c):
    h, f = c["hidden_size"], c["intermediate_size"]
    out = {"gpt_neox.embed_in.weight": ([c["vocab_size"], h], "matrix", ["gpt_neox.embed_in.weight"]),
           "embed_out.weight": ([c["vocab_size"], h], "matrix", ["embed_out.weight"])}
    for i in range(c["num_hidden_layers"]):
        at = f"gpt_neox.layers.{i}."
        norm(out, at + "input_layernorm", h, at + "input_layernorm")
        norm(out, at + "post_attention_layernorm", h, at + "post_attention_layernorm")
        linear(out, at + "attention.query_key_value", 3 * h, h, [at + "attention.query_key_value"])
        linear(out, at + "attention.dense", h, h, [at + "attention.dense"])
        linear(out, at + "mlp.dense_h_to_4h", f, h, [at + "mlp.dense_h_to_4h"], wide=True)
        linear(out, at + "mlp.dense_4h_to_h", h, f, [at + "mlp.dense_4h_to_h"], wide=True)
    norm(out, "gpt_neox.final_layer_norm", h, "gpt_neox.final_layer_norm")
    return out


def read_package(folder, problems):
    """name -> array as stored; sizes and sums checked."""
    text = open(os.path.join(folder, "tensor-cache.json")).read()
    if text != open(os.path.join(folder, "ndarray-cache.json")).read():
        problems.append(folder + ": the two lists differ")
    cache, out = json.loads(text), {}
    for n, shard in enumerate(cache["records"]):
        if shard["dataPath"] != f"params_shard_{n}.bin" or shard["format"] != "raw-shard":
            problems.append(f"{folder}: shard {n} is called {shard['dataPath']}")
        data = open(os.path.join(folder, shard["dataPath"]), "rb").read()
        if len(data) != shard["nbytes"] or hashlib.md5(data).hexdigest() != shard["md5sum"]:
            problems.append(f"{folder}: size or sum of {shard['dataPath']}")
        if len(data) > SHARD and len(shard["records"]) > 1:
            problems.append(f"{folder}: {shard['dataPath']} is too large")
        end = 0
        for record in shard["records"]:
            if record["byteOffset"] != end or record["format"] != "raw":
                problems.append(f"{folder}: place of {record['name']}")
            end += record["nbytes"]
            array = np.frombuffer(data[record["byteOffset"]:end], dtype=record["dtype"])
            out[record["name"]] = array.reshape(record["shape"])
        if end != len(data):
            problems.append(f"{folder}: bytes behind the last tensor of {shard['dataPath']}")
    if cache["metadata"]["ParamSize"] != len(out):
        problems.append(folder + ": ParamSize")
    return out


def dequantize(words, scales, columns):
    """As _dequantize of MLC's group quantisation, in f32: (code - 7) * scale."""
    shifts = np.arange(8, dtype=np.uint32) * 4
    codes = (words[..., None] >> shifts) & 15
    codes = codes.reshape(words.shape[:-1] + (-1,)).astype(np.float32)
    values = (codes - 7) * np.repeat(scales.astype(np.float32), 32, axis=-1)
    return values[..., :columns]


def check(case, problems):
    folder = case["folder"]
    chat = json.load(open(os.path.join(folder, "mlc-chat-config.json")))
    config = json.load(open(os.path.join(folder, "config.json")))
    quantised = chat["quantization"] == "q4f16_1"
    plain = "float32" if chat["quantization"] == "q0f32" else "float16"
    tensors = read_package(folder, problems)
    dump = {}
    for entry in json.load(open(os.path.join(case["dump"], "index.json"))):
        array = np.fromfile(os.path.join(case["dump"], entry["file"]), dtype=np.float32)
        dump.setdefault(entry["hf_name"], []).append(array.reshape(entry["shape"]))
    wanted, count = expected(chat, config.get("tie_word_embeddings", False)), 0
    for name, (shape, kind, sources) in wanted.items():
        stored = [name]
        if kind == "matrix" and quantised:
            stored = [name[:-6] + "q_weight", name[:-6] + "q_scale"]
        arrays = [tensors.pop(n, None) for n in stored]
        if any(a is None for a in arrays):
            problems.append(f"{folder}: {stored} is missing")
            continue
        count += len(arrays)
        groups = (shape[-1] + 31) // 32
        if len(arrays) == 2:
            good = (list(arrays[0].shape) == shape[:-1] + [groups * 4] and
                    arrays[0].dtype == np.uint32 and
                    list(arrays[1].shape) == shape[:-1] + [groups] and
                    arrays[1].dtype == np.float16)
        else:
            good = list(arrays[0].shape) == shape and arrays[0].dtype == (
                "float32" if kind == "wide" else plain)
        if not good:
            problems.append(f"{folder}: {name} has shape {[a.shape for a in arrays]}, not {shape}")
            continue
        values = dequantize(*arrays, shape[-1]) if len(arrays) == 2 else arrays[0].astype(np.float32)
        ours = [part for source in dict.fromkeys(sources) for part in dump.get(source, [])]
        axis = 0 if len(shape) < 3 else 1
        if not ours or not np.array_equal(np.concatenate(ours, axis=axis), values):
            problems.append(f"{folder}: {name} is not what pome reads")
    for name in tensors:
        problems.append(f"{folder}: {name} is no parameter of MLC's model")
    return count


def main():
    problems, count = [], 0
    for case in json.load(open(sys.argv[1]))["cases"]:
        count += check(case, problems)
    json.dump({"problems": problems, "tensors": count}, open(sys.argv[2], "w"))


main()
