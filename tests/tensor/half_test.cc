#include "tensor/half.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "base/cpu_features.h"

namespace pome {
namespace {

uint32_t bits_of(float value) { return std::bit_cast<uint32_t>(value); }

// The value of a code by its definition: sign, exponent, mantissa as numbers.
double define(uint32_t code, int exponent_bits, int mantissa_bits) {
  const int exponent = static_cast<int>(code >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const double mantissa = static_cast<double>(code & ((1u << mantissa_bits) - 1));
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const double sign = (code >> (exponent_bits + mantissa_bits)) & 1 ? -1.0 : 1.0;
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp(1.0 + std::ldexp(mantissa, -mantissa_bits), exponent - bias);
}

// Nearest code by search in the sorted list of all magnitudes, ties to the even code; the code
// after the largest finite one stands for what lies beyond it.
class Rounder {
 public:
  Rounder(int exponent_bits, int mantissa_bits, uint32_t codes)
      : sign_(1u << (exponent_bits + mantissa_bits)) {
    for (uint32_t code = 0; code <= codes; ++code)
      values_.push_back(define(code, exponent_bits, mantissa_bits));
  }
  uint32_t operator()(double value) const {
    const double magnitude = std::fabs(value);
    const uint32_t sign = std::signbit(value) ? sign_ : 0;
    const auto above = std::lower_bound(values_.begin(), values_.end(), magnitude);
    if (above == values_.end()) return sign | static_cast<uint32_t>(values_.size() - 1);
    const uint32_t high = static_cast<uint32_t>(above - values_.begin());
    if (high == 0 || *above == magnitude) return sign | high;
    const double to_high = values_[high] - magnitude, to_low = magnitude - values_[high - 1];
    if (to_high != to_low) return sign | (to_high < to_low ? high : high - 1);
    return sign | (high % 2 == 0 ? high : high - 1);
  }

 private:
  uint32_t sign_;
  std::vector<double> values_;
};

const Rounder& f16_rounder() {
  static const Rounder kRounder(5, 10, 0x7C00);
  return kRounder;
}

TEST(F16, EveryCodeHasItsValueAndComesBack) {
  for (uint32_t code = 0; code < 0x10000; ++code) {
    const uint16_t h = static_cast<uint16_t>(code);
    const float f = f16_to_f32(h);
    const bool special = (code & 0x7C00u) == 0x7C00u;
    if (special && (code & 0x3FFu) != 0) {
      ASSERT_TRUE(std::isnan(f)) << code;
      ASSERT_EQ(std::signbit(f), (code & 0x8000u) != 0);
      ASSERT_EQ(f32_to_f16(f), h | 0x200u) << "payload kept, quiet";
      continue;
    }
    if (special) {
      ASSERT_EQ(f, code & 0x8000u ? -INFINITY : INFINITY);
    } else {
      ASSERT_EQ(bits_of(f), bits_of(static_cast<float>(define(code, 5, 10)))) << code;
    }
    ASSERT_EQ(f32_to_f16(f), h);
    ASSERT_EQ(f64_to_f16(f), h);
    ASSERT_EQ(bits_of(round_to_f16(f)), bits_of(f));
  }
}

// Each gap between two codes: the tie, and its neighbours on both sides.
TEST(F16, TiesAndTheirNeighbours) {
  for (uint32_t code = 0; code < 0x7C00; ++code) {
    const float tie = static_cast<float>(
        (define(code, 5, 10) + (code == 0x7BFF ? 65536.0 : define(code + 1, 5, 10))) / 2);
    for (const float f : {tie, std::nextafter(tie, 0.0f), std::nextafter(tie, INFINITY)}) {
      ASSERT_EQ(f32_to_f16(f), f16_rounder()(f)) << code << " " << f;
      ASSERT_EQ(f32_to_f16(-f), f16_rounder()(-f)) << code << " " << f;
    }
  }
}

TEST(F16, Extremes) {
  EXPECT_EQ(f32_to_f16(65504.0f), 0x7BFF);
  EXPECT_EQ(f32_to_f16(65519.996f), 0x7BFF);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7C00);
  EXPECT_EQ(f32_to_f16(std::numeric_limits<float>::max()), 0x7C00);
  EXPECT_EQ(f32_to_f16(-INFINITY), 0xFC00);
  EXPECT_EQ(f32_to_f16(std::ldexp(1.0f, -25)), 0);
  EXPECT_EQ(f32_to_f16(std::nextafter(std::ldexp(1.0f, -25), 1.0f)), 1);
  EXPECT_EQ(f32_to_f16(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(f32_to_f16(-0.0f), 0x8000);
  EXPECT_EQ(f32_to_f16(std::bit_cast<float>(0x7F800001u)), 0x7E00)
      << "a signalling NaN is no infinity";
  EXPECT_EQ(f32_to_f16(std::bit_cast<float>(0xFFFFFFFFu)), 0xFFFF);
}

TEST(F16, RandomFloats) {
  std::mt19937 random(1);
  for (int i = 0; i < 300'000; ++i) {
    // Mostly in the range where something happens.
    const uint32_t exponent =
        static_cast<uint32_t>(i % 4 == 0 ? random() % 255 : 100 + random() % 45);
    const uint32_t rest = static_cast<uint32_t>(random()) & 0x807FFFFFu;
    const float f = std::bit_cast<float>(rest | exponent << 23);
    ASSERT_EQ(f32_to_f16(f), f16_rounder()(f)) << f;
  }
}

TEST(F16, FromDoubleRoundsOnce) {
  // 1 + 2^-11 is a tie of f16; a little more than f32 can see must tip it upwards.
  const double tie = 1.0 + std::ldexp(1.0, -11);
  EXPECT_EQ(f64_to_f16(tie), 0x3C00);
  EXPECT_EQ(f64_to_f16(tie + std::ldexp(1.0, -40)), 0x3C01);
  EXPECT_EQ(f64_to_f16(tie - std::ldexp(1.0, -40)), 0x3C00);
  EXPECT_EQ(f32_to_f16(static_cast<float>(tie + std::ldexp(1.0, -40))), 0x3C00) << "rounds twice";
  std::mt19937_64 random(2);
  for (int i = 0; i < 100'000; ++i) {
    const uint32_t code = static_cast<uint32_t>(random() % 0x7BFF);
    const double middle = (define(code, 5, 10) + define(code + 1, 5, 10)) / 2;
    const double d = middle * (1.0 + std::ldexp(static_cast<double>(random() % 7) - 3, -45));
    ASSERT_EQ(f64_to_f16(d), f16_rounder()(d)) << d;
    ASSERT_EQ(f64_to_f16(-d), f16_rounder()(-d)) << d;
  }
  EXPECT_EQ(f64_to_f16(1e300), 0x7C00);
  EXPECT_EQ(f64_to_f16(1e-300), 0);
  EXPECT_EQ(f64_to_f16(-1e-300), 0x8000);
  EXPECT_TRUE(std::isnan(f16_to_f32(f64_to_f16(std::nan("")))));
}

TEST(F16, SpansEqualScalarsForEveryPattern) {
  std::vector<uint16_t> codes(0x10000);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint16_t>(i);
  std::vector<float> floats(codes.size());
  f16_to_f32(codes, floats);
  for (size_t i = 0; i < codes.size(); ++i)
    ASSERT_EQ(bits_of(floats[i]), bits_of(f16_to_f32(codes[i]))) << i;
  std::vector<uint16_t> back(codes.size());
  f32_to_f16(floats, back);
  for (size_t i = 0; i < codes.size(); ++i) ASSERT_EQ(back[i], f32_to_f16(floats[i])) << i;
}

// All exponents and signs, the low bits that decide rounding, NaNs of both kinds.
TEST(F16, SpansEqualScalarsForManyFloats) {
  std::vector<float> floats;
  std::mt19937 random(3);
  for (uint32_t top = 0; top < 0x200; ++top)
    for (int i = 0; i < 400; ++i) {
      uint32_t mantissa = static_cast<uint32_t>(random()) & 0x7FFFFFu;
      if (i % 4 == 1) mantissa = (mantissa & 0x7FE000u) | 0x1000u;
      if (i % 4 == 2) mantissa = ((mantissa & 0x7FE000u) | 0x1000u) + (i % 8 == 2 ? 1u : ~0u);
      floats.push_back(std::bit_cast<float>(top << 23 | (mantissa & 0x7FFFFFu)));
    }
  std::vector<uint16_t> fast(floats.size());
  f32_to_f16(floats, fast);
  for (size_t i = 0; i < floats.size(); ++i)
    ASSERT_EQ(fast[i], f32_to_f16(floats[i])) << std::hex << bits_of(floats[i]);
}

TEST(F16, SpansOfEveryShortLength) {
  for (size_t n = 0; n < 40; ++n) {
    // One canary behind the end.
    std::vector<uint16_t> codes(n + 1, 0x1234);
    std::vector<float> floats(n + 1, -77.0f);
    for (size_t i = 0; i < n; ++i) floats[i] = 0.1f * static_cast<float>(i);
    f32_to_f16(std::span<const float>(floats).first(n), std::span(codes).first(n));
    EXPECT_EQ(codes[n], 0x1234);
    f16_to_f32(std::span<const uint16_t>(codes).first(n), std::span(floats).first(n));
    EXPECT_EQ(floats[n], -77.0f);
    for (size_t i = 0; i < n; ++i) EXPECT_EQ(floats[i], round_to_f16(0.1f * static_cast<float>(i)));
  }
}

TEST(BF16, RoundsToNearestEven) {
  for (uint32_t code = 0; code < 0x10000; ++code) {
    const uint16_t h = static_cast<uint16_t>(code);
    const float f = bf16_to_f32(h);
    if (std::isnan(f)) {
      ASSERT_EQ(f32_to_bf16(f), h | 0x40u);
      continue;
    }
    ASSERT_EQ(f32_to_bf16(f), h);
    if (std::isinf(f)) continue;
    const uint32_t low = uint32_t{code} << 16;
    ASSERT_EQ(f32_to_bf16(std::bit_cast<float>(low | 0x7FFFu)), h);
    ASSERT_EQ(f32_to_bf16(std::bit_cast<float>(low | 0x8000u)), h + (h & 1u));
    ASSERT_EQ(f32_to_bf16(std::bit_cast<float>(low | 0x8001u)), h + 1u);
  }
  EXPECT_EQ(f32_to_bf16(std::numeric_limits<float>::max()), 0x7F80);
  EXPECT_EQ(f64_to_bf16(1.0 + std::ldexp(1.0, -8)), 0x3F80);
  EXPECT_EQ(f64_to_bf16(1.0 + std::ldexp(1.0, -8) + std::ldexp(1.0, -40)), 0x3F81);
  std::vector<float> floats = {1.0f, -2.5f, 3.14159f, 1e30f, NAN};
  std::vector<uint16_t> codes(5);
  std::vector<float> back(5);
  f32_to_bf16(floats, codes);
  bf16_to_f32(codes, back);
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(codes[i], f32_to_bf16(floats[i]));
    EXPECT_EQ(bits_of(back[i]), bits_of(bf16_to_f32(codes[i])));
  }
}

// OFP8: E4M3 has exponent bias 7, no infinity, 448 as its largest number and S.1111.111 as NaN.
TEST(F8, E4M3) {
  const Rounder rounder(4, 3, 0x7F);  // the last value stands for NaN: 480
  for (uint32_t code = 0; code < 256; ++code) {
    const float f = f8e4m3_to_f32(static_cast<uint8_t>(code));
    if ((code & 0x7F) == 0x7F) {
      EXPECT_TRUE(std::isnan(f));
      EXPECT_EQ(f64_to_f8e4m3(f), code);
      continue;
    }
    EXPECT_EQ(bits_of(f), bits_of(static_cast<float>(define(code, 4, 3)))) << code;
    EXPECT_EQ(f64_to_f8e4m3(f), code);
    if ((code & 0x7F) == 0x7E) continue;
    const double tie = (define(code, 4, 3) + define(code + 1, 4, 3)) / 2;
    for (const double d : {tie, std::nextafter(tie, 0.0), std::nextafter(tie, 2 * tie)})
      EXPECT_EQ(f64_to_f8e4m3(d), rounder(d)) << d;
  }
  EXPECT_EQ(f8e4m3_to_f32(0x7E), 448.0f);
  EXPECT_EQ(f8e4m3_to_f32(0x01), std::ldexp(1.0f, -9));
  EXPECT_EQ(f64_to_f8e4m3(464.0), 0x7E);
  EXPECT_EQ(f64_to_f8e4m3(464.1), 0x7F);
  EXPECT_EQ(f64_to_f8e4m3(-1e30), 0xFF);
  EXPECT_EQ(f64_to_f8e4m3(INFINITY), 0x7F);
}

TEST(F8, E5M2) {
  const Rounder rounder(5, 2, 0x7C);
  for (uint32_t code = 0; code < 256; ++code) {
    const float f = f8e5m2_to_f32(static_cast<uint8_t>(code));
    if ((code & 0x7C) == 0x7C) {
      EXPECT_EQ(std::isinf(f), (code & 3) == 0);
      EXPECT_EQ(std::isnan(f), (code & 3) != 0);
      continue;
    }
    EXPECT_EQ(bits_of(f), bits_of(static_cast<float>(define(code, 5, 2)))) << code;
    EXPECT_EQ(f64_to_f8e5m2(f), code);
    const double tie = (define(code, 5, 2) + ((code & 0x7F) == 0x7B ? std::copysign(65536.0, f)
                                                                    : define(code + 1, 5, 2))) /
                       2;
    for (const double d : {tie, std::nextafter(tie, 0.0), std::nextafter(tie, 2 * tie)})
      EXPECT_EQ(f64_to_f8e5m2(d), rounder(d)) << d;
  }
  EXPECT_EQ(f8e5m2_to_f32(0x7B), 57344.0f);
  EXPECT_EQ(f64_to_f8e5m2(INFINITY), 0x7C);
  EXPECT_EQ(f64_to_f8e5m2(1e9), 0x7C);
  EXPECT_TRUE(std::isnan(f8e5m2_to_f32(f64_to_f8e5m2(NAN))));
}

}  // namespace
}  // namespace pome
