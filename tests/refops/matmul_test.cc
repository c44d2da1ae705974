#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "refops/refops.h"

namespace pome::refops {
namespace {

// Small deterministic noise in [-1, 1).
std::vector<float> noise(int64_t count, uint32_t seed) {
  std::vector<float> out(static_cast<size_t>(count));
  uint32_t s = seed * 2654435761u + 1;
  for (float& v : out) {
    s = s * 1664525u + 1013904223u;
    v = static_cast<float>(s >> 8) / 8388608.0f - 1.0f;
  }
  return out;
}
Tensor noise_tensor(Shape shape, uint32_t seed) {
  const int64_t count = *element_count(shape);
  return Tensor::from_f32(std::move(shape), noise(count, seed));
}
bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.bytes().size() == b.bytes().size() &&
         std::memcmp(a.bytes().data(), b.bytes().data(), a.bytes().size()) == 0;
}

TEST(Matmul, PlainIsTheDefinition) {
  const Tensor x = Tensor::from_f32({2, 3}, {1, 2, 3, 4, 5, 6});
  const Tensor y = Tensor::from_f32({3, 2}, {7, 8, 9, 10, 11, 12});
  const Tensor z = matmul_plain(x, y, false);
  EXPECT_EQ(z.shape(), (Shape{2, 2}));
  const std::vector<float> want = {58, 64, 139, 154};
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(z.f32()[i], want[i]);
  const Tensor yt = Tensor::from_f32({2, 3}, {7, 9, 11, 8, 10, 12});
  EXPECT_TRUE(same_bits(matmul_plain(x, yt, true), z));
}

TEST(Matmul, BitEqualToPlainAtAwkwardSizes) {
  ThreadPool pool(3);
  uint32_t seed = 1;
  for (const int64_t m : {1, 2, 5, 6, 7, 13, 193}) {
    for (const int64_t n : {1, 7, 8, 31, 32, 33, 65, 130}) {
      for (const int64_t k : {1, 3, 8, 17, 256, 259, 515}) {
        if (m == 193 && n * k > 20000) continue;
        for (const bool transposed : {false, true}) {
          const Tensor x = noise_tensor({m, k}, ++seed);
          const Tensor y = noise_tensor(transposed ? Shape{n, k} : Shape{k, n}, ++seed);
          const Tensor want = matmul_plain(x, y, transposed);
          ASSERT_TRUE(same_bits(matmul(x, y, transposed, nullptr), want))
              << m << "x" << n << "x" << k << (transposed ? " transposed" : "");
          ASSERT_TRUE(same_bits(matmul(x, y, transposed, &pool), want))
              << m << "x" << n << "x" << k << (transposed ? " transposed" : "");
        }
      }
    }
  }
}

TEST(Matmul, BatchAxesBroadcast) {
  ThreadPool pool(2);
  const std::vector<std::pair<Shape, Shape>> cases = {
      {{2, 3, 4, 5}, {5, 6}},       {{4, 5}, {2, 3, 5, 6}}, {{2, 1, 4, 5}, {1, 3, 5, 6}},
      {{1, 3, 4, 5}, {2, 1, 5, 6}}, {{3, 4, 5}, {3, 5, 6}}, {{2, 3, 1, 300}, {3, 300, 9}},
  };
  uint32_t seed = 100;
  for (const auto& [a, b] : cases) {
    const Tensor x = noise_tensor(a, ++seed);
    const Tensor y = noise_tensor(b, ++seed);
    EXPECT_TRUE(same_bits(matmul(x, y, false, &pool), matmul_plain(x, y, false)));
    Shape bt = b;
    std::swap(bt[bt.size() - 1], bt[bt.size() - 2]);
    const Tensor yt = noise_tensor(bt, ++seed);
    EXPECT_TRUE(same_bits(matmul(x, yt, true, &pool), matmul_plain(x, yt, true)));
  }
}

TEST(Matmul, EmptyAxes) {
  const Tensor none = matmul(noise_tensor({0, 4}, 1), noise_tensor({4, 3}, 2), false, nullptr);
  EXPECT_EQ(none.shape(), (Shape{0, 3}));
  const Tensor zero = matmul(noise_tensor({2, 0}, 1), noise_tensor({0, 3}, 2), false, nullptr);
  ASSERT_EQ(zero.shape(), (Shape{2, 3}));
  for (const float v : zero.f32()) EXPECT_EQ(v, 0.0f);
}

// Zeroed padding columns must not leak: infinity times padding is NaN, but outside the result.
TEST(Matmul, InfinitiesStayWhereTheyBelong) {
  Tensor x = noise_tensor({3, 9}, 5);
  x.mutable_as<float>()[9] = INFINITY;
  const Tensor y = noise_tensor({33, 9}, 6);
  EXPECT_TRUE(same_bits(matmul(x, y, true, nullptr), matmul_plain(x, y, true)));
}

// Not a pass/fail figure on shared machines: printed as a property so that a slow build is visible.
TEST(Matmul, Throughput) {
  const auto rate = [](int64_t m, int64_t n, int64_t k) {
    const Tensor x = noise_tensor({m, k}, 1), y = noise_tensor({n, k}, 2);
    double best = 0;
    for (int i = 0; i < 3; ++i) {
      const auto start = std::chrono::steady_clock::now();
      const Tensor z = matmul(x, y, true, nullptr);
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      best = std::max(best, 2e-9 * static_cast<double>(m * n * k) / took.count());
    }
    return best;
  };
  RecordProperty("gflops_64x1024x1024", std::to_string(rate(64, 1024, 1024)));
  RecordProperty("gflops_512x512x512", std::to_string(rate(512, 512, 512)));
  RecordProperty("gflops_1x2048x1024", std::to_string(rate(1, 2048, 1024)));
}

}  // namespace
}  // namespace pome::refops
