#include "quantize/row_grid.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>
#include <utility>

#include "base/status.h"
#include "encoding/blocks.h"
#include "tensor/half.h"

namespace pome {

namespace {

void add_middles(Levels* levels) {
  for (size_t i = 1; i < levels->values.size(); ++i)
    levels->middles.push_back(0.5f * (levels->values[i - 1] + levels->values[i]));
  levels->middles.resize(std::bit_ceil(levels->values.size()) - 1,
                         std::numeric_limits<float>::infinity());
}

// Levels that stand in a table of codes in any order, some maybe twice.
Levels of_codes(std::span<const int8_t> table) {
  Levels out;
  std::vector<uint8_t> order(table.size());
  std::iota(order.begin(), order.end(), uint8_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](uint8_t a, uint8_t b) { return table[a] < table[b]; });
  for (const uint8_t code : order) {
    if (!out.values.empty() && out.values.back() == table[code]) continue;
    out.values.push_back(table[code]);
    out.codes.push_back(code);
  }
  add_middles(&out);
  return out;
}

}  // namespace

Levels Levels::of_integers(int low, int high, int shift) {
  Levels out;
  for (int level = low; level <= high; ++level) {
    out.values.push_back(static_cast<float>(level));
    out.codes.push_back(static_cast<uint8_t>(level + shift));
  }
  add_middles(&out);
  out.integers = true;
  return out;
}

Levels Levels::of_table(std::span<const float> ascending) {
  Levels out;
  out.values.assign(ascending.begin(), ascending.end());
  for (size_t i = 0; i < ascending.size(); ++i) out.codes.push_back(static_cast<uint8_t>(i));
  add_middles(&out);
  return out;
}

Levels Levels::of_blocks(EncodingKind kind) {
  switch (kind) {
    case EncodingKind::kQ4_1:
    case EncodingKind::kQ4_K:
      return of_integers(0, 15, 0);
    case EncodingKind::kQ5_1:
    case EncodingKind::kQ5_K:
      return of_integers(0, 31, 0);
    case EncodingKind::kQ2_K:
      return of_integers(0, 3, 0);
    case EncodingKind::kQ3_K:
      return of_integers(-4, 3, 4);
    case EncodingKind::kQ4_0:
      return of_integers(-8, 7, 8);
    case EncodingKind::kQ5_0:
      return of_integers(-16, 15, 16);
    case EncodingKind::kQ6_K:
      return of_integers(-32, 31, 32);
    case EncodingKind::kQ8_0:
      return of_integers(-127, 127, 128);
    case EncodingKind::kMXFP4:
      return of_codes(kFp4Doubled);
    default:
      POME_CHECK(kind == EncodingKind::kIQ4_NL || kind == EncodingKind::kIQ4_XS);
      return of_codes(kIq4Levels);
  }
}

RowGrid::RowGrid(LevelsPtr levels)
    : levels_(std::move(levels)), scales_{1.0f}, inverses_{1.0f}, offsets_{0.0f} {}

RowGrid::RowGrid(LevelsPtr levels, int64_t block, std::vector<float> scales,
                 std::vector<float> offsets)
    : levels_(std::move(levels)),
      block_(block),
      scales_(std::move(scales)),
      inverses_(scales_.size(), 0.0f),
      offsets_(std::move(offsets)) {
  offsets_.resize(scales_.size(), 0.0f);
  for (size_t i = 0; i < scales_.size(); ++i)
    if (scales_[i] != 0) inverses_[i] = 1 / scales_[i];
}

BlockRule BlockRule::of_blocks(EncodingKind kind) {
  const int64_t size = traits(kind).block_elements;
  switch (kind) {
    case EncodingKind::kQ2_K:
      return {.columns = size, .sub = 16, .low = 0, .high = 15, .most_min = 15};
    case EncodingKind::kQ4_K:
    case EncodingKind::kQ5_K:
      return {.columns = size, .sub = 32, .low = 0, .high = 63, .most_min = 63};
    case EncodingKind::kQ3_K:
      return {.columns = size, .sub = 16, .low = -32, .high = 31};
    case EncodingKind::kIQ4_XS:
      return {.columns = size, .sub = 32, .low = -32, .high = 31};
    case EncodingKind::kQ6_K:
      return {.columns = size, .sub = 16, .low = -128, .high = 127};
    case EncodingKind::kQ4_1:
    case EncodingKind::kQ5_1:
      return {.columns = size, .sub = size, .offset = true};
    default:
      return {.columns = size, .sub = size, .power = kind == EncodingKind::kMXFP4};
  }
}

RowGrid::RowGrid(LevelsPtr levels, const BlockRule& rule, std::span<const BlockScales> blocks)
    : levels_(std::move(levels)), block_(rule.sub) {
  const size_t subs = blocks.size() * static_cast<size_t>(rule.columns / rule.sub);
  scales_.resize(subs);
  inverses_.resize(subs);
  offsets_.resize(subs);
  for (size_t i = 0; i < blocks.size(); ++i) set(i, rule, blocks[i]);
}

// With the same operations as the decoders, so that values are equal to theirs.
void RowGrid::set(size_t block, const BlockRule& rule, const BlockScales& scales) {
  const auto subs = static_cast<size_t>(rule.columns / rule.sub);
  const float d = rule.power ? e8m0_half(static_cast<uint8_t>(scales.d)) : f16_to_f32(scales.d);
  const float dmin = f16_to_f32(scales.dmin);
  for (size_t j = 0, at = block * subs; j < subs; ++j, ++at) {
    scales_[at] = rule.integers() ? d * static_cast<float>(scales.scales[j]) : d;
    offsets_[at] = rule.offset ? dmin : -(dmin * static_cast<float>(scales.mins[j]));
    inverses_[at] = scales_[at] != 0 ? 1 / scales_[at] : 0.0f;
  }
}

}  // namespace pome
