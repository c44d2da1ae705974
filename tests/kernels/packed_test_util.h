// Packed weights and quantised activations of tests, and products of both.
#pragma once

#include <gtest/gtest.h>

#include "kernels/kernel_test_util.h"
#include "kernels/packed/products.h"

namespace pome::kernels {

inline std::vector<Encoding> packable() {
  std::vector<Encoding> out;
  for (const EncodingKind kind :
       {EncodingKind::kQ4_0, EncodingKind::kQ4_1, EncodingKind::kQ5_0, EncodingKind::kQ5_1,
        EncodingKind::kQ8_0, EncodingKind::kQ2_K, EncodingKind::kQ3_K, EncodingKind::kQ4_K,
        EncodingKind::kQ5_K, EncodingKind::kQ6_K, EncodingKind::kIQ4_NL, EncodingKind::kIQ4_XS,
        EncodingKind::kMXFP4})
    out.push_back(Encoding::plain(kind));
  for (const int bits : {4, 8})
    for (const int64_t block : {32, 64, 48, 256}) out.push_back(Encoding::int_blocks(bits, block));
  for (const int bits : {1, 2, 3, 4, 6, 8})
    for (const int64_t group : {1, 4, 16}) out.push_back(Encoding::lut(bits, group));
  return out;
}

struct Aligned {
  explicit Aligned(int64_t bytes) : memory(static_cast<size_t>(bytes) + 64) {}
  std::byte* data() {
    const auto at = reinterpret_cast<uintptr_t>(memory.data());
    return memory.data() + (64 - at % 64) % 64;
  }
  std::vector<std::byte> memory;
};

struct Packed {
  Packed(const RandomWeight& weight, const PackedFormat& format)
      : layout(packed_layout(format, weight.view.rows, weight.view.columns)),
        memory(layout.tiles * layout.tile_bytes),
        view{format, layout, memory.data()} {
    for (int64_t tile = 0; tile < layout.tiles; ++tile)
      pack_tile(view, weight.view, tile * kTileRows, memory.data() + tile * layout.tile_bytes);
  }
  PackedLayout layout;
  Aligned memory;
  PackedView view;
};

struct Quantised {
  Quantised(QuantizeKernel kernel, const std::vector<float>& x, int64_t m, int64_t columns,
            ActivationBits bits)
      : memory(activation_bytes(m, columns)),
        view(activations_in(memory.data(), m, columns, bits)) {
    for (int64_t row = 0; row < m; ++row) kernel(x.data() + row * columns, columns, view, row);
  }
  Aligned memory;
  Activations view;
};

// Calls check(encoding, weight, packed) for every encoding that packs at shapes of all kinds, or
// at one that all of them take.
template <typename Check>
void for_packed(const Check& check, bool one_shape = false) {
  std::vector<int64_t> all_columns = {16, 32, 48, 96, 256, 288, 512}, all_rows = {16, 48};
  if (one_shape) all_columns = {256}, all_rows = {16};
  int seen = 0;
  for (const Encoding& encoding : packable()) {
    for (const int64_t columns : all_columns) {
      for (const int64_t rows : all_rows) {
        const auto format = packed_format(encoding, columns);
        const RandomWeight weight(encoding, rows, columns, static_cast<uint32_t>(rows + columns));
        if (!format || !weight.valid) continue;
        check(encoding, weight, Packed(weight, *format));
        ++seen;
      }
    }
  }
  EXPECT_GT(seen, one_shape ? 25 : 100);
}

// One product: random activations and biases, what portable code makes of them, and how far from
// it other code may be.
struct Product {
  Product(const Packed& weights, ActivationBits precision, std::vector<float> values)
      : packed(weights),
        bits(precision),
        rows(packed.layout.rows),
        columns(packed.layout.columns),
        m(static_cast<int64_t>(values.size()) / columns),
        ldy(rows + 3),
        x(std::move(values)),
        bias(random_floats(rows, 12)),
        acts(quantize_portable, x, m, columns, bits),
        scratch(gemm_panel_bytes(columns)) {}

  std::vector<float> run(PackedKernel kernel) {
    std::vector<float> y(static_cast<size_t>(m * ldy), -77.0f);
    kernel(args(y.data()));
    return y;
  }
  ProductArgs args(float* y) {
    return {packed.view, 0, packed.layout.tiles, acts.view, bias.data(), y, ldy, scratch.data()};
  }
  std::vector<float> run(const PackedEntry& entry) {
    return run(bits == ActivationBits::kCoarse ? entry.gemm : entry.gemv);
  }
  // Sums of |x w|, and of |x| times the largest |w| of the row where weights are rounded: in
  // panels, and where the second level of a table is left out.
  std::vector<double> bounds() const {
    std::vector<double> out(static_cast<size_t>(m * ldy), 0);
    std::vector<double> size(static_cast<size_t>(m * columns));
    for (int64_t i = 0; i < m * columns; ++i)
      size[static_cast<size_t>(i)] = std::fabs(activation(acts.view, i / columns, i % columns));
    std::vector<float> row(static_cast<size_t>(columns));
    for (int64_t r = 0; r < rows; ++r) {
      unpack_row(packed.view, r, row.data());
      float largest = 0;
      for (const float w : row) largest = std::max(largest, std::fabs(w));
      const bool rounds = bits == ActivationBits::kCoarse ||
                          (bits == ActivationBits::kByte && columns < kWideColumns &&
                           packed.view.format.table == PackedTable::kTile);
      const double rounding = rounds ? panel_step * largest : 0;
      for (int64_t i = 0; i < m; ++i) {
        double& bound = out[static_cast<size_t>(i * ldy + r)];
        bound = 1e-5;
        for (int64_t k = 0; k < columns; ++k)
          bound += size[static_cast<size_t>(i * columns + k)] *
                   (1e-5 * std::fabs(row[static_cast<size_t>(k)]) + rounding);
      }
    }
    return out;
  }

  // Of the weights that the scale of a panel allows for, the row should hold the largest.
  double panel_step = 0.01;
  const Packed& packed;
  ActivationBits bits;
  int64_t rows, columns, m, ldy;
  std::vector<float> x, bias;
  Quantised acts;
  Aligned scratch;
};

}  // namespace pome::kernels
