#include "refops/refops.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

namespace pome::refops {
namespace {

Tensor iota(Shape shape) {
  std::vector<float> values(static_cast<size_t>(*element_count(shape)));
  std::iota(values.begin(), values.end(), 0.0f);
  return Tensor::from_f32(std::move(shape), std::move(values));
}
std::vector<float> values(const Tensor& t) { return {t.f32().begin(), t.f32().end()}; }

TEST(Broadcast, Shapes) {
  EXPECT_EQ(broadcast_shape({2, 1, 3}, {4, 1}), (Shape{2, 4, 3}));
  EXPECT_EQ(broadcast_shape({}, {2}), (Shape{2}));
  EXPECT_EQ(broadcast_shape({0}, {1}), (Shape{0}));
  EXPECT_FALSE(broadcast_shape({2}, {3}).has_value());
  EXPECT_FALSE(broadcast_shape({0}, {2}).has_value());
  EXPECT_EQ(row_major_strides({2, 3, 4}), (std::vector<int64_t>{12, 4, 1}));
  EXPECT_EQ(broadcast_strides({3, 1}, {2, 3, 4}), (std::vector<int64_t>{0, 1, 0}));
}

TEST(Broadcast, ForEachOffsetIsInOrder) {
  std::vector<int64_t> a, b;
  for_each_offset({2, 2, 2}, {4, 2, 1}, {0, 1, 0}, [&](int64_t i, int64_t pa, int64_t pb) {
    EXPECT_EQ(i, pa);
    a.push_back(pa);
    b.push_back(pb);
  });
  EXPECT_EQ(a.size(), 8u);
  EXPECT_EQ(b, (std::vector<int64_t>{0, 0, 1, 1, 0, 0, 1, 1}));
  int calls = 0;
  for_each_offset({}, {}, {}, [&](int64_t, int64_t, int64_t) { ++calls; });
  EXPECT_EQ(calls, 1);
  for_each_offset({3, 0}, {0, 1}, {0, 1}, [&](int64_t, int64_t, int64_t) { ++calls; });
  EXPECT_EQ(calls, 1);
}

TEST(Map, ChangesTypes) {
  const Tensor x = Tensor::from_f32({3}, {-1, 0, 2});
  const Tensor positive = map<float, bool>(x, [](float v) { return v > 0; });
  EXPECT_EQ(positive.dtype(), DType::kBool);
  EXPECT_EQ(positive.as<bool>()[0], false);
  EXPECT_EQ(positive.as<bool>()[2], true);
}

TEST(Zip, Broadcasts) {
  const auto minus = [](float a, float b) { return a - b; };
  EXPECT_EQ(values(zip<float, float>(iota({2, 3}), iota({2, 1}), minus)),
            (std::vector<float>{0, 1, 2, 2, 3, 4}));
  EXPECT_EQ(values(zip<float, float>(iota({3}), iota({2, 1}), minus)),
            (std::vector<float>{0, 1, 2, -1, 0, 1}));
  const Tensor scalar = Tensor::from_f32({}, {5});
  EXPECT_EQ((zip<float, float>(scalar, scalar, minus).f32()[0]), 0);
  EXPECT_EQ((zip<float, float>(iota({0, 3}), scalar, minus).shape()), (Shape{0, 3}));
}

TEST(Select, AllThreeBroadcast) {
  Tensor c = Tensor::zeros(DType::kBool, {2, 1});
  c.mutable_as<bool>()[1] = true;
  const Tensor out = select(c, Tensor::from_f32({}, {9}), iota({3}));
  EXPECT_EQ(out.shape(), (Shape{2, 3}));
  EXPECT_EQ(values(out), (std::vector<float>{0, 1, 2, 9, 9, 9}));
  const Tensor ints = select(c, Tensor::from_i32({1}, {7}), Tensor::from_i32({1}, {8}));
  EXPECT_EQ(ints.as<int32_t>()[0], 8);
  EXPECT_EQ(ints.as<int32_t>()[1], 7);
}

TEST(Transpose, EveryPermutationOfThreeAxes) {
  const Tensor x = iota({2, 3, 4});
  std::vector<int32_t> perm = {0, 1, 2};
  do {
    const Tensor out = transpose(x, perm);
    int64_t at[3];
    const auto axis = [&](int i) { return static_cast<size_t>(perm[static_cast<size_t>(i)]); };
    for (at[0] = 0; at[0] < 2; ++at[0])
      for (at[1] = 0; at[1] < 3; ++at[1])
        for (at[2] = 0; at[2] < 4; ++at[2]) {
          const int64_t i = (at[axis(0)] * out.dim(1) + at[axis(1)]) * out.dim(2) + at[axis(2)];
          ASSERT_EQ(out.f32()[static_cast<size_t>(i)], at[0] * 12 + at[1] * 4 + at[2]);
        }
  } while (std::next_permutation(perm.begin(), perm.end()));
  const std::vector<int32_t> swap = {1, 0};
  Tensor half = Tensor::zeros(DType::kU16, {1, 2});
  half.mutable_as<uint16_t>()[1] = 7;
  EXPECT_EQ(transpose(half, swap).shape(), (Shape{2, 1}));
  EXPECT_EQ(transpose(half, swap).as<uint16_t>()[1], 7);
}

TEST(Slice, StepsAndReversal) {
  const Tensor x = iota({3, 5});
  const auto cut = [&](std::vector<int64_t> b, std::vector<int64_t> e, std::vector<int64_t> s) {
    return slice(x, b, e, s);
  };
  EXPECT_EQ(values(cut({1, 1}, {3, 5}, {1, 2})), (std::vector<float>{6, 8, 11, 13}));
  EXPECT_EQ(values(cut({2, 4}, {-1, 1}, {-2, -2})), (std::vector<float>{14, 12, 4, 2}));
  EXPECT_EQ(cut({1, 2}, {1, 5}, {1, 1}).shape(), (Shape{0, 3}));
  EXPECT_EQ(values(cut({0, 0}, {3, 5}, {1, 1})), values(x));
  EXPECT_EQ(values(cut({0, 4}, {3, -1}, {1, -4})), (std::vector<float>{4, 0, 9, 5, 14, 10}));
}

TEST(Concat, AnyAxis) {
  const std::vector<Tensor> parts = {iota({2, 1, 2}), iota({2, 2, 2})};
  const Tensor out = concat(parts, -2);
  EXPECT_EQ(out.shape(), (Shape{2, 3, 2}));
  EXPECT_EQ(values(out), (std::vector<float>{0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 6, 7}));
  const std::vector<Tensor> ints = {Tensor::from_i32({1}, {4}), Tensor::from_i32({0}, {}),
                                    Tensor::from_i32({2}, {5, 6})};
  EXPECT_EQ(concat(ints, 0).as<int32_t>()[2], 6);
}

TEST(BroadcastTo, RepeatsRows) {
  EXPECT_EQ(values(broadcast_to(iota({2, 1}), {2, 2, 2})),
            (std::vector<float>{0, 0, 1, 1, 0, 0, 1, 1}));
  EXPECT_EQ(values(broadcast_to(iota({2}), {2, 2})), (std::vector<float>{0, 1, 0, 1}));
}

TEST(Reduce, KeepsTheAxis) {
  const Tensor x = Tensor::from_f32({2, 3}, {1, -2, 3, 4, 5, -6});
  EXPECT_EQ(reduce(x, Reduce::kSum, 0).shape(), (Shape{1, 3}));
  EXPECT_EQ(values(reduce(x, Reduce::kSum, 0)), (std::vector<float>{5, 3, -3}));
  EXPECT_EQ(values(reduce(x, Reduce::kMean, -1)), (std::vector<float>{2.0f / 3.0f, 1}));
  EXPECT_EQ(values(reduce(x, Reduce::kMax, 1)), (std::vector<float>{3, 5}));
  EXPECT_EQ(values(reduce(x, Reduce::kMin, 1)), (std::vector<float>{-2, -6}));
  EXPECT_EQ(values(reduce(x, Reduce::kProd, 1)), (std::vector<float>{-6, -120}));
}

TEST(Reduce, SumsInDoubleAndNanWins) {
  const Tensor big = Tensor::from_f32({3}, {1e8f, 1.0f, -1e8f});
  EXPECT_EQ(reduce(big, Reduce::kSum, 0).f32()[0], 1.0f);
  for (size_t at = 0; at < 3; ++at) {
    Tensor x = iota({3});
    x.mutable_as<float>()[at] = NAN;
    EXPECT_TRUE(std::isnan(reduce(x, Reduce::kMax, 0).f32()[0]));
    EXPECT_TRUE(std::isnan(reduce(x, Reduce::kMin, 0).f32()[0]));
  }
}

TEST(GatherRows, AnyIdShape) {
  const Tensor out = gather_rows(iota({3, 2}), Tensor::from_i32({2, 1}, {2, 0}));
  EXPECT_EQ(out.shape(), (Shape{2, 1, 2}));
  EXPECT_EQ(values(out), (std::vector<float>{4, 5, 0, 1}));
}

}  // namespace
}  // namespace pome::refops
