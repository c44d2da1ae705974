#!/usr/bin/env python3
"""Random blocks of every type that the `gguf` package can decode, with the values it gives.

gguf_blocks.py FOLDER    for each type FOLDER/<ggml type id>.blocks and .f32: first blocks with
                         finite scales, then as many of arbitrary bytes; missing.txt lists the type
                         ids among those asked for (further arguments) that the package lacks
gguf_blocks.py --golden  one block per type, as the rows of encoding_golden_test.cc
"""
import sys
import warnings

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

warnings.filterwarnings("ignore")
SCALES = {  # offsets of the binary16 fields
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
    "IQ2_XXS": [0], "IQ2_XS": [0], "IQ2_S": [0], "IQ3_XXS": [0], "IQ3_S": [0], "IQ1_S": [0],
    "IQ1_M": [54], "IQ4_NL": [0], "IQ4_XS": [0], "TQ1_0": [52], "TQ2_0": [64], "BF16": [0],
    "Q1_0": [0], "Q2_0": [0],
}


def random_blocks(kind, count, rng):
    return rng.integers(0, 256, (count, GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)


def make_finite(kind, blocks):
    for offset in SCALES.get(kind.name, []):
        blocks[:, offset + 1] &= 0xBF
    if kind.name == "MXFP4":
        blocks[:, 0] = blocks[:, 0] % 64 + 96
    return blocks


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


kinds = sorted(quants._type_traits)
if sys.argv[1] == "--golden":
    rng = np.random.default_rng(20)
    for kind in kinds:
        count = 8 if kind.name == "BF16" else 1
        block = make_finite(kind, random_blocks(kind, count, rng)).reshape(1, -1)
        out = quants.dequantize(block, kind).reshape(-1)
        text = block.tobytes().hex()
        lines = "\n     ".join(f'"{text[i:i + 84]}"' for i in range(0, len(text), 84))
        picks = ", ".join(float(out[i]).hex() + "f" for i in (0, len(out) // 3, len(out) - 1))
        print(f"    {{EncodingKind::k{kind.name},\n     {lines},\n     {{{picks}}}, 0x{fnv1a(out.tobytes()):016x}}},")
else:
    rng = np.random.default_rng(1)
    for kind in kinds:
        finite = make_finite(kind, random_blocks(kind, 200, rng))
        blocks = np.concatenate([finite, random_blocks(kind, 200, rng)])
        out = quants.dequantize(blocks.reshape(1, -1), kind)
        blocks.tofile(f"{sys.argv[1]}/{kind.value}.blocks")
        out.astype(np.float32).tofile(f"{sys.argv[1]}/{kind.value}.f32")
    with open(f"{sys.argv[1]}/missing.txt", "w") as file:
        known = {kind.value for kind in kinds}
        file.writelines(f"{t}\n" for t in map(int, sys.argv[2:]) if t not in known)
