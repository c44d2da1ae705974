// The tile registers of AMX in plain code: what kernels written for AmxTiles can be run over on any
// machine. A use that the processor would refuse makes the test fail.
#pragma once

#include <gtest/gtest.h>

#include <cstring>

#include "kernels/amx.h"
#include "tensor/half.h"

namespace pome::kernels {

class EmulatedTiles {
 public:
  void configure(const AmxShapes& shapes) {
    shapes_ = shapes;
    std::memset(bytes_, 0, sizeof bytes_);
    EXPECT_EQ(shapes.palette, 1);
    for (int tile = 0; tile < kAmxTiles; ++tile) {
      EXPECT_LE(rows(tile), kAmxRows);
      EXPECT_LE(width(tile), kAmxRowBytes);
      EXPECT_EQ(rows(tile) == 0, width(tile) == 0) << "half a shape of tile " << tile;
    }
  }
  template <int kTile>
  void zero() {
    expect_shaped(kTile);
    std::memset(bytes_[kTile], 0, sizeof bytes_[kTile]);
  }
  template <int kTile>
  void load(const void* from, int64_t stride) {
    expect_shaped(kTile);
    zero<kTile>();
    for (int r = 0; r < rows(kTile); ++r)
      std::memcpy(bytes_[kTile][r], static_cast<const std::byte*>(from) + r * stride,
                  static_cast<size_t>(width(kTile)));
  }
  template <int kTile>
  void store(void* to, int64_t stride) {
    expect_shaped(kTile);
    for (int r = 0; r < rows(kTile); ++r)
      std::memcpy(static_cast<std::byte*>(to) + r * stride, bytes_[kTile][r],
                  static_cast<size_t>(width(kTile)));
  }
  template <int kC, int kA, int kB>
  void dot_int8() {
    for_lanes<int32_t>(kC, kA, kB, [&](int m, int n, int k, int32_t& sum) {
      for (int i = 0; i < 4; ++i)
        sum += at<int8_t>(kA, m, 4 * k + i) * at<int8_t>(kB, k, 4 * n + i);
    });
  }
  template <int kC, int kA, int kB>
  void dot_bf16() {
    for_lanes<float>(kC, kA, kB, [&](int m, int n, int k, float& sum) {
      for (int i = 0; i < 2; ++i)
        sum += bf16_to_f32(at<uint16_t>(kA, m, 2 * k + i)) *
               bf16_to_f32(at<uint16_t>(kB, k, 2 * n + i));
    });
  }

 private:
  int rows(int tile) const { return shapes_.rows[tile]; }
  int width(int tile) const { return shapes_.row_bytes[tile]; }
  void expect_shaped(int tile) const { EXPECT_GT(rows(tile), 0) << "tile " << tile; }
  template <typename T>
  T at(int tile, int row, int index) const {
    T value;
    std::memcpy(&value, bytes_[tile][row] + static_cast<size_t>(index) * sizeof value,
                sizeof value);
    return value;
  }
  // Lane n of row m of C takes lane k of row m of A and lane n of row k of B.
  template <typename T, typename Body>
  void for_lanes(int c, int a, int b, const Body& body) {
    EXPECT_EQ(rows(c), rows(a));
    EXPECT_EQ(width(c), width(b));
    EXPECT_EQ(width(a), 4 * rows(b));
    EXPECT_TRUE(c != a && a != b && b != c);
    for (int m = 0; m < rows(c); ++m) {
      for (int n = 0; n < width(c) / 4; ++n) {
        T sum = at<T>(c, m, n);
        for (int k = 0; k < rows(b); ++k) body(m, n, k, sum);
        std::memcpy(bytes_[c][m] + 4 * n, &sum, 4);
      }
    }
  }

  AmxShapes shapes_;
  std::byte bytes_[kAmxTiles][kAmxRows][kAmxRowBytes] = {};
};

}  // namespace pome::kernels
