// What this machine can do at best: bytes read per second, and multiply-adds per second.
//
//   read      sum over i of word64[i], modulo 2^64, of memory read once from front to back
//   products  `rounds` rounds of independent multiply-adds of ones by ones in registers; the result
//             is their sum, which is the number of multiply-adds done, modulo 2^32 for integers and
//             exact up to 2^24 per lane for floats
//
// A roof is what speeds are stated as a fraction of. The kernels do nothing but what they measure
// and their results prove that they did it. Two things keep compilers honest: sums begin as values
// that are not known to be equal, and stay in registers (their address is not taken). An int8
// multiply-add counts as one whatever number of instructions the instruction set needs for it.
//
// Thread safety: pure functions over memory of the caller; measuring uses the pool it is given.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/thread_pool.h"
#include "kernels/isa.h"

namespace pome::kernels {

enum class RoofProduct : uint8_t { kInt8, kBf16, kF32 };
inline constexpr int kRoofProducts = 3;
std::string_view to_string(RoofProduct product);  // "int8", "bf16", "f32"

using ReadRoofKernel = uint64_t (*)(const std::byte* data, int64_t bytes);
using ReadRoofEntry = KernelEntry<ReadRoofKernel>;
inline constexpr int64_t kReadUnit = 512;  // bytes that a read must be a multiple of

using ProductRoofKernel = double (*)(int64_t rounds);
struct ProductRoofEntry {
  std::string_view name;
  Isa isa;
  RoofProduct product;
  int64_t macs;  // of a round
  ProductRoofKernel run;
};

std::span<const ReadRoofEntry> read_roof_kernels();
std::span<const ProductRoofEntry> product_roof_kernels();
ReadRoofKernel choose_read_roof(Isa isa);
// Null when the instruction set has no such products: then they are computed as f32.
const ProductRoofEntry* choose_product_roof(Isa isa, RoofProduct product);

// Bytes per second: the best of several passes over `memory` (aligned to 64 bytes, written before:
// pages that were never written are not there), each thread over a part of its own.
double measure_read_roof(Isa isa, std::span<const std::byte> memory, ThreadPool* pool);
// Multiply-adds per second of all threads together: the best of many short runs. 0 when the
// instruction set has no such products.
double measure_product_roof(Isa isa, RoofProduct product, ThreadPool* pool);

#define POME_READ_ROOF_KERNEL(isa, function) \
  uint64_t function(const std::byte* data, int64_t bytes);
#define POME_PRODUCT_ROOF_KERNEL(isa, product, macs, function) double function(int64_t rounds);
#include "kernels/roof/kernels.inc"

}  // namespace pome::kernels
