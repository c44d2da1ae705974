#!/usr/bin/env python3
"""Writes grids.inc from the `gguf` Python package: make_grids.py > grids.inc

A grid of the IQ types is a sorted list of points; a point has 8 coordinates out of 3 levels (IQ1,
IQ2) or 4 out of 8 (IQ3). Read as digits, the first coordinate lowest, a point is a number below
3^8 or 8^4, and since the list ascends, the set of numbers is the grid: one bit per number.
"""
import numpy as np
from gguf import quants

print("// Written by make_grids.py: the point sets of the IQ types, bit n of a set (from the lowest bit of")
print("// the first word on) says whether the point whose digits are n belongs to it.")
for name in ["IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S"]:
    cls = getattr(quants, name)
    cls.init_grid()
    points = cls.grid.reshape(cls.grid_shape)
    levels = {value: digit for digit, value in enumerate(cls.grid_map)}
    digits = np.vectorize(lambda value: levels[int(value)])(points)
    base = len(levels)
    numbers = (digits * base ** np.arange(points.shape[1])).sum(axis=1)
    assert (np.diff(numbers) > 0).all(), name
    words = np.zeros(-(-base ** points.shape[1] // 64), dtype=np.uint64)
    for number in numbers.tolist():
        words[number // 64] |= np.uint64(1 << (number % 64))
    print(f"\n// {len(numbers)} points.")
    print(f"constexpr uint64_t k{name.title().replace('_', '')}Points[{len(words)}] = {{")
    for i in range(0, len(words), 4):
        print("    " + " ".join(f"0x{int(w):016x}," for w in words[i : i + 4]))
    print("};")
