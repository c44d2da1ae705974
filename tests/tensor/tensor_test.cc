#include "tensor/tensor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <set>

#include "tensor/half.h"

namespace pome {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

Tensor of_f64(const std::vector<double>& values) {
  Tensor t = Tensor::zeros(DType::kF64, {static_cast<int64_t>(values.size())});
  std::copy(values.begin(), values.end(), t.mutable_as<double>().begin());
  return t;
}
template <typename T>
Tensor of(DType dtype, const std::vector<T>& values) {
  Tensor t = Tensor::zeros(dtype, {static_cast<int64_t>(values.size())});
  std::copy(values.begin(), values.end(), t.mutable_as<T>().begin());
  return t;
}
template <typename T>
std::vector<T> values_of(const Tensor& t) {
  const auto span = t.as<T>();
  return {span.begin(), span.end()};
}

TEST(DType, TableIsConsistent) {
  std::set<std::string_view> names;
  for (int i = 0; i < kDTypeCount; ++i) {
    const DType dtype = static_cast<DType>(i);
    names.insert(to_string(dtype));
    EXPECT_EQ(parse_dtype(to_string(dtype)), dtype);
  }
  EXPECT_EQ(names.size(), static_cast<size_t>(kDTypeCount));
  EXPECT_EQ(parse_dtype("F32"), std::nullopt);
  EXPECT_EQ(parse_dtype(""), std::nullopt);
  EXPECT_EQ(to_string(DType::kI4), "i4");
  EXPECT_EQ(to_string(DType::kF8E5M2), "f8e5m2");
  EXPECT_EQ(bits_of(DType::kU3), 3);
  EXPECT_EQ(bits_of(DType::kBool), 8);
  EXPECT_EQ(bits_of(DType::kU64), 64);
  EXPECT_EQ(bits_of(DType::kBF16), 16);
  EXPECT_TRUE(is_float(DType::kF8E4M3));
  EXPECT_TRUE(is_float(DType::kBF16));
  EXPECT_FALSE(is_float(DType::kBool));
  EXPECT_FALSE(is_float(DType::kU6));
}

TEST(DType, StorageBytes) {
  EXPECT_EQ(storage_bytes(DType::kF32, 3), 12u);
  EXPECT_EQ(storage_bytes(DType::kU3, 0), 0u);
  for (uint64_t n = 0; n < 100; ++n) {
    EXPECT_EQ(storage_bytes(DType::kU1, n), (n + 7) / 8);
    EXPECT_EQ(storage_bytes(DType::kU3, n), (3 * n + 7) / 8);
    EXPECT_EQ(storage_bytes(DType::kI4, n), (n + 1) / 2);
    EXPECT_EQ(storage_bytes(DType::kU6, n), (6 * n + 7) / 8);
  }
  EXPECT_EQ(storage_bytes(DType::kF64, UINT64_MAX / 8), UINT64_MAX - 7);
  EXPECT_EQ(storage_bytes(DType::kF64, UINT64_MAX / 8 + 1), std::nullopt);
  EXPECT_EQ(storage_bytes(DType::kF16, UINT64_MAX), std::nullopt);
  EXPECT_EQ(storage_bytes(DType::kU8, UINT64_MAX), UINT64_MAX);
  EXPECT_EQ(storage_bytes(DType::kU4, UINT64_MAX), (UINT64_MAX / 2) + 1);
}

TEST(Shape, CountAndText) {
  EXPECT_EQ(element_count({}), 1);
  EXPECT_EQ(element_count({2, 3, 5}), 30);
  EXPECT_EQ(element_count({2, 0, 5}), 0);
  EXPECT_EQ(element_count({-1}), std::nullopt);
  EXPECT_EQ(element_count({0, -1}), std::nullopt);
  EXPECT_EQ(element_count({-1, 0}), std::nullopt);
  EXPECT_EQ(element_count({int64_t{1} << 32, int64_t{1} << 31}), std::nullopt);
  EXPECT_EQ(element_count({int64_t{1} << 32, int64_t{1} << 30}), int64_t{1} << 62);
  EXPECT_EQ(element_count({INT64_MAX}), INT64_MAX);
  EXPECT_EQ(element_count({int64_t{1} << 62, int64_t{1} << 62, 0}), 0);
  EXPECT_EQ(to_string(Shape{2, 3}), "[2, 3]");
  EXPECT_EQ(to_string(Shape{}), "[]");
  EXPECT_EQ(to_string(Shape{7}), "[7]");
}

TEST(Tensor, MakesAndShares) {
  Tensor none;
  EXPECT_FALSE(none.defined());
  EXPECT_FALSE(none.clone().defined());
  Tensor a = Tensor::from_f32({2, 3}, {1, 2, 3, 4, 5, 6});
  EXPECT_TRUE(a.defined());
  EXPECT_EQ(a.rank(), 2);
  EXPECT_EQ(a.dim(-1), 3);
  EXPECT_EQ(a.dim(0), 2);
  EXPECT_EQ(a.count(), 6);
  EXPECT_EQ(a.bytes().size(), 24u);
  Tensor shared = a, own = a.clone();
  Tensor flat = a.reshaped({3, 2, 1});
  a.mutable_as<float>()[5] = 60;
  EXPECT_EQ(shared.f32()[5], 60);
  EXPECT_EQ(flat.f32()[5], 60);
  EXPECT_EQ(own.f32()[5], 6);
  EXPECT_EQ(flat.shape(), (Shape{3, 2, 1}));
  EXPECT_EQ(Tensor::zeros(DType::kI64, {4}).as<int64_t>()[3], 0);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(Tensor::zeros(DType::kU8, {3}).bytes().data()) % 64, 0u);
  EXPECT_EQ(values_of<int32_t>(Tensor::from_i32({2}, {-1, 7})), (std::vector<int32_t>{-1, 7}));
}

TEST(Tensor, ScalarsAndEmptyOnes) {
  const Tensor scalar = Tensor::from_f32({}, {2.5f});
  EXPECT_EQ(scalar.rank(), 0);
  EXPECT_EQ(scalar.count(), 1);
  const Tensor empty = Tensor::zeros(DType::kF32, {0, 5});
  EXPECT_TRUE(empty.defined());
  EXPECT_EQ(empty.count(), 0);
  EXPECT_TRUE(empty.clone().defined());
  EXPECT_EQ(empty.to(DType::kF16).bytes().size(), 0u);
  const Tensor view = Tensor::view(DType::kF32, {0}, {}, nullptr);
  EXPECT_TRUE(view.defined());
  EXPECT_EQ(view.f32().size(), 0u);
}

TEST(Tensor, ViewsKeepTheirOwnerAndAreConstant) {
  auto owner = std::make_shared<std::vector<float>>(std::vector<float>{1, 2, 3, 4});
  const std::weak_ptr<std::vector<float>> watch = owner;
  Tensor view = Tensor::view(DType::kF32, {2, 2}, std::as_bytes(std::span(*owner)), owner);
  const float* const data = owner->data();
  owner.reset();
  EXPECT_FALSE(watch.expired());
  EXPECT_EQ(view.f32().data(), data);
  EXPECT_EQ(view.f32()[3], 4);
  EXPECT_DEATH((void)view.mutable_bytes(), "internal error");
  Tensor copy = view.clone();
  copy.mutable_as<float>()[0] = 9;
  EXPECT_EQ(view.f32()[0], 1);
  view = Tensor();
  EXPECT_TRUE(watch.expired());
}

TEST(Tensor, UnalignedBytesAreCopied) {
  auto owner = std::make_shared<std::vector<std::byte>>(9);
  const float values[2] = {1.5f, -2.0f};
  std::memcpy(owner->data() + 1, values, 8);
  const Tensor view =
      Tensor::view(DType::kF32, {2}, std::span<const std::byte>(*owner).subspan(1), owner);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(view.bytes().data()) % alignof(float), 0u);
  EXPECT_EQ(view.f32()[0], 1.5f);
  EXPECT_EQ(view.f32()[1], -2.0f);
  const Tensor bytes =
      Tensor::view(DType::kU8, {8}, std::span<const std::byte>(*owner).subspan(1), owner);
  EXPECT_EQ(bytes.bytes().data(), owner->data() + 1) << "bytes are aligned anywhere";
}

TEST(TensorDeath, MisuseIsCaught) {
  EXPECT_DEATH((void)Tensor::from_f32({2}, {1.0f}), "internal error");
  EXPECT_DEATH((void)Tensor::zeros(DType::kF32, {-1}), "internal error");
  EXPECT_DEATH((void)Tensor::zeros(DType::kF32, {3}).reshaped({2}), "internal error");
  EXPECT_DEATH((void)Tensor::zeros(DType::kF32, {3}).dim(1), "internal error");
  EXPECT_DEATH((void)Tensor::zeros(DType::kF32, {3}).dim(-2), "internal error");
  EXPECT_DEATH((void)Tensor::zeros(DType::kF32, {3}).as<double>(), "internal error");
  EXPECT_DEATH((void)Tensor::view(DType::kF32, {3}, {}, nullptr), "internal error");
}

TEST(TensorTo, FloatsToIntegersTruncateAndSaturate) {
  const Tensor t = of_f64(
      {0, 1.9, -1.9, 127.5, 128, -128.9, -129, 255.9, 256, -0.5, 1e30, -1e30, kInf, -kInf, NAN});
  EXPECT_EQ(
      values_of<int8_t>(t.to(DType::kI8)),
      (std::vector<int8_t>{0, 1, -1, 127, 127, -128, -128, 127, 127, 0, 127, -128, 127, -128, 0}));
  EXPECT_EQ(values_of<uint8_t>(t.to(DType::kU8)),
            (std::vector<uint8_t>{0, 1, 0, 127, 128, 0, 0, 255, 255, 0, 255, 0, 255, 0, 0}));
  const Tensor big = of_f64({9.3e18, -9.3e18, 9223372036854774784.0, 1.9e19, 2147483647.5,
                             -2147483648.5, 4294967295.5, 2e9, NAN});
  EXPECT_EQ(values_of<int64_t>(big.to(DType::kI64)),
            (std::vector<int64_t>{INT64_MAX, INT64_MIN, 9223372036854774784, INT64_MAX, 2147483647,
                                  -2147483648LL, 4294967295LL, 2000000000, 0}));
  EXPECT_EQ(values_of<uint64_t>(big.to(DType::kU64)),
            (std::vector<uint64_t>{9300000000000000000u, 0, 9223372036854774784u, UINT64_MAX,
                                   2147483647, 0, 4294967295u, 2000000000, 0}));
  EXPECT_EQ(values_of<int32_t>(big.to(DType::kI32)),
            (std::vector<int32_t>{INT32_MAX, INT32_MIN, INT32_MAX, INT32_MAX, INT32_MAX, INT32_MIN,
                                  INT32_MAX, 2000000000, 0}));
  EXPECT_EQ(values_of<uint32_t>(big.to(DType::kU32)),
            (std::vector<uint32_t>{UINT32_MAX, 0, UINT32_MAX, UINT32_MAX, 2147483647, 0, UINT32_MAX,
                                   2000000000, 0}));
  const Tensor f32 = Tensor::from_f32({3}, {2147483648.0f, -2147483648.0f, 16777216.0f});
  EXPECT_EQ(values_of<int32_t>(f32.to(DType::kI32)),
            (std::vector<int32_t>{INT32_MAX, INT32_MIN, 16777216}));
}

TEST(TensorTo, IntegersSaturate) {
  const Tensor i64 = of<int64_t>(DType::kI64, {0, -1, 300, -300, INT64_MAX, INT64_MIN, 65535});
  EXPECT_EQ(values_of<int8_t>(i64.to(DType::kI8)),
            (std::vector<int8_t>{0, -1, 127, -128, 127, -128, 127}));
  EXPECT_EQ(values_of<uint16_t>(i64.to(DType::kU16)),
            (std::vector<uint16_t>{0, 0, 300, 0, 65535, 0, 65535}));
  EXPECT_EQ(values_of<uint64_t>(i64.to(DType::kU64)),
            (std::vector<uint64_t>{0, 0, 300, 0, INT64_MAX, 0, 65535}));
  const Tensor u64 = of<uint64_t>(DType::kU64, {0, 5, UINT64_MAX});
  EXPECT_EQ(values_of<int64_t>(u64.to(DType::kI64)), (std::vector<int64_t>{0, 5, INT64_MAX}));
  EXPECT_EQ(values_of<int16_t>(u64.to(DType::kI16)), (std::vector<int16_t>{0, 5, 32767}));
  EXPECT_EQ(values_of<double>(u64.to(DType::kF64)),
            (std::vector<double>{0, 5, 18446744073709551616.0}));
}

TEST(TensorTo, IntegersToFloatsRoundOnce) {
  // 2^62 + 2^38 is a tie of f32 (24 bits); one more must go up though a double cannot hold it.
  const int64_t tie = (int64_t{1} << 62) + (int64_t{1} << 38);
  const Tensor t = of<int64_t>(DType::kI64, {tie, tie + 1, -tie - 1, INT64_MIN, INT64_MAX, 7});
  const auto f32 = values_of<float>(t.to(DType::kF32));
  EXPECT_EQ(f32[0], std::ldexp(1.0f, 62));
  EXPECT_EQ(f32[1], std::ldexp(1.0f, 62) + std::ldexp(1.0f, 39));
  EXPECT_EQ(f32[2], -f32[1]);
  EXPECT_EQ(f32[3], -std::ldexp(1.0f, 63));
  EXPECT_EQ(f32[5], 7.0f);
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(f32[i], static_cast<float>(t.as<int64_t>()[i]));
  // The same for bf16: 8 bits.
  const int64_t tie8 = (int64_t{1} << 62) + (int64_t{1} << 54);
  const Tensor b = of<int64_t>(DType::kI64, {tie8, tie8 + 1}).to(DType::kBF16);
  EXPECT_EQ(bf16_to_f32(b.as<uint16_t>()[0]), std::ldexp(1.0f, 62));
  EXPECT_EQ(bf16_to_f32(b.as<uint16_t>()[1]), std::ldexp(1.0f, 62) + std::ldexp(1.0f, 55));
  EXPECT_EQ(f16_to_f32(of<int32_t>(DType::kI32, {2049}).to(DType::kF16).as<uint16_t>()[0]),
            2048.0f);
  EXPECT_EQ(f16_to_f32(of<int32_t>(DType::kI32, {2051}).to(DType::kF16).as<uint16_t>()[0]),
            2052.0f);
}

TEST(TensorTo, BetweenFloats) {
  const std::vector<double> values = {0.0,   -0.0, 1.0 / 3, -65504,
                                      65520, 1e-8, 5.96e-8, 1e300,
                                      -kInf, kInf, 0.1,     1.0 + 1.0 / 2048 + 1e-12};
  const Tensor t = of_f64(values);
  const auto f32 = values_of<float>(t.to(DType::kF32));
  const auto f16 = values_of<uint16_t>(t.to(DType::kF16));
  const auto bf16 = values_of<uint16_t>(t.to(DType::kBF16));
  const auto e4m3 = values_of<uint8_t>(t.to(DType::kF8E4M3));
  const auto e5m2 = values_of<uint8_t>(t.to(DType::kF8E5M2));
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(f32[i], static_cast<float>(values[i]));
    EXPECT_EQ(f16[i], f64_to_f16(values[i]));
    EXPECT_EQ(bf16[i], f64_to_bf16(values[i]));
    EXPECT_EQ(e4m3[i], f64_to_f8e4m3(values[i]));
    EXPECT_EQ(e5m2[i], f64_to_f8e5m2(values[i]));
  }
  EXPECT_EQ(f16.back(), 0x3C01) << "not through f32";
  EXPECT_TRUE(std::signbit(f32[1]));
  // The fast pairs against the slow way through f64.
  std::vector<float> many(1003);
  std::mt19937 random(4);
  for (float& f : many)
    f = std::ldexp(static_cast<float>(random()) - 2e9f, static_cast<int>(random() % 60) - 60);
  const Tensor source = Tensor::from_f32({17, 59}, many);
  for (const DType half : {DType::kF16, DType::kBF16}) {
    const Tensor direct = source.to(half), detour = source.to(DType::kF64).to(half);
    EXPECT_EQ(direct.shape(), (Shape{17, 59}));
    EXPECT_TRUE(std::equal(direct.bytes().begin(), direct.bytes().end(), detour.bytes().begin()));
    const Tensor back = direct.to(DType::kF32),
                 back_detour = direct.to(DType::kF64).to(DType::kF32);
    EXPECT_TRUE(std::equal(back.bytes().begin(), back.bytes().end(), back_detour.bytes().begin()));
  }
}

TEST(TensorTo, Bool) {
  const Tensor t = of_f64({0, -0.0, 0.25, NAN, -3}).to(DType::kBool);
  EXPECT_EQ(values_of<uint8_t>(t), (std::vector<uint8_t>{0, 0, 1, 1, 1}));
  // A byte of a file may hold anything.
  const Tensor odd = of<uint8_t>(DType::kBool, {0, 1, 2, 255});
  EXPECT_EQ(values_of<int32_t>(odd.to(DType::kI32)), (std::vector<int32_t>{0, 1, 1, 1}));
  EXPECT_EQ(values_of<float>(odd.to(DType::kF32)), (std::vector<float>{0, 1, 1, 1}));
}

TEST(TensorTo, SubByteTypes) {
  const Tensor t = of_f64({-100, -8, -1.5, 0, 1, 3.7, 7, 8, 15, 63, 64, 1e9, NAN});
  const std::vector<std::pair<DType, std::vector<int32_t>>> expected = {
      {DType::kI4, {-8, -8, -1, 0, 1, 3, 7, 7, 7, 7, 7, 7, 0}},
      {DType::kU1, {0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0}},
      {DType::kU2, {0, 0, 0, 0, 1, 3, 3, 3, 3, 3, 3, 3, 0}},
      {DType::kU3, {0, 0, 0, 0, 1, 3, 7, 7, 7, 7, 7, 7, 0}},
      {DType::kU4, {0, 0, 0, 0, 1, 3, 7, 8, 15, 15, 15, 15, 0}},
      {DType::kU6, {0, 0, 0, 0, 1, 3, 7, 8, 15, 63, 63, 63, 0}}};
  for (const auto& [dtype, values] : expected) {
    const Tensor packed = t.to(dtype);
    EXPECT_EQ(packed.bytes().size(), *storage_bytes(dtype, 13)) << to_string(dtype);
    EXPECT_EQ(values_of<int32_t>(packed.to(DType::kI32)), values) << to_string(dtype);
    EXPECT_EQ(values_of<int32_t>(packed.to(DType::kF16).to(DType::kI32)), values);
    for (int64_t i = 0; i < 13; ++i)
      EXPECT_EQ(read_packed(packed.bytes(), dtype, i), values[static_cast<size_t>(i)]);
  }
}

// Every pair of types keeps the numbers that both can hold.
TEST(TensorTo, AllPairsKeepSmallNumbers) {
  const std::vector<int32_t> values = {0, 1, 1, 0, 1, 0, 0, 1, 1};
  const Tensor base = Tensor::from_i32({9}, values);
  for (int a = 0; a < kDTypeCount; ++a)
    for (int b = 0; b < kDTypeCount; ++b) {
      const Tensor t = base.to(static_cast<DType>(a)).to(static_cast<DType>(b));
      EXPECT_EQ(t.dtype(), static_cast<DType>(b));
      EXPECT_EQ(values_of<int32_t>(t.to(DType::kI32)), values)
          << to_string(static_cast<DType>(a)) << " to " << to_string(static_cast<DType>(b));
    }
  EXPECT_EQ(base.to(DType::kI32).bytes().data(), base.bytes().data()) << "same type: shared";
}

TEST(PackBits, LayoutIsLowestBitFirst) {
  const std::vector<uint8_t> codes = {5, 2, 7, 1, 0, 6, 3, 4, 5};
  std::vector<std::byte> out(4);
  pack_bits(codes, 3, out);
  // 5 | 2<<3 | 7<<6 | 1<<9 | 0<<12 | 6<<15 | 3<<18 | 4<<21 | 5<<24, by hand.
  const uint32_t expected =
      5u | 2u << 3 | 7u << 6 | 1u << 9 | 6u << 15 | 3u << 18 | 4u << 21 | 5u << 24;
  uint32_t word;
  std::memcpy(&word, out.data(), 4);
  EXPECT_EQ(word, expected);
  const std::vector<uint8_t> nibbles = {0xA, 0x3};
  std::vector<std::byte> one(1);
  pack_bits(nibbles, 4, one);
  EXPECT_EQ(one[0], std::byte{0x3A});
}

TEST(PackBits, RoundTripsAtEveryWidthLengthAndStart) {
  std::mt19937 random(6);
  for (int bits = 1; bits <= 8; ++bits) {
    for (size_t n = 0; n <= 41; ++n) {
      std::vector<uint8_t> codes(n);
      for (auto& code : codes) code = static_cast<uint8_t>(random() & ((1u << bits) - 1));
      // Exactly as long as needed, full of ones before: unused bits must become zero.
      std::vector<std::byte> stream((n * static_cast<size_t>(bits) + 7) / 8, std::byte{0xFF});
      pack_bits(codes, bits, stream);
      for (size_t first = 0; first <= n; ++first) {
        std::vector<uint8_t> back(n - first, 0xEE);
        unpack_bits(stream, bits, static_cast<int64_t>(first), back);
        ASSERT_TRUE(
            std::equal(back.begin(), back.end(), codes.begin() + static_cast<ptrdiff_t>(first)))
            << bits << " bits, " << n << " codes from " << first;
      }
      const size_t tail = n * static_cast<size_t>(bits) % 8;
      if (tail != 0) {
        EXPECT_EQ(std::to_integer<int>(stream.back()) >> tail, 0);
      }
      const DType dtype = bits == 1   ? DType::kU1
                          : bits == 2 ? DType::kU2
                          : bits == 3 ? DType::kU3
                          : bits == 4 ? DType::kU4
                                      : DType::kU6;
      if (pome::bits_of(dtype) == bits) {
        for (size_t i = 0; i < n; ++i)
          ASSERT_EQ(read_packed(stream, dtype, static_cast<int64_t>(i)), codes[i]);
      }
    }
  }
}

TEST(PackBits, OutOfRangeIsOurBug) {
  std::vector<std::byte> stream(3);
  std::vector<uint8_t> codes(9);
  EXPECT_DEATH(unpack_bits(stream, 3, 0, codes), "internal error");
  EXPECT_DEATH(pack_bits(codes, 3, stream), "internal error");
  EXPECT_DEATH((void)read_packed(stream, DType::kU6, 4), "internal error");
  EXPECT_DEATH((void)read_packed(stream, DType::kU8, 0), "internal error");
  EXPECT_DEATH((void)read_packed(stream, DType::kU4, -1), "internal error");
}

TEST(ReadPacked, SignOfInt4) {
  const std::vector<std::byte> stream = {std::byte{0x80}, std::byte{0x7F}};
  EXPECT_EQ(read_packed(stream, DType::kI4, 0), 0);
  EXPECT_EQ(read_packed(stream, DType::kI4, 1), -8);
  EXPECT_EQ(read_packed(stream, DType::kI4, 2), -1);
  EXPECT_EQ(read_packed(stream, DType::kI4, 3), 7);
}

}  // namespace
}  // namespace pome
