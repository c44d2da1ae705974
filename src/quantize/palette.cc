#include "quantize/palette.h"

#include <algorithm>
#include <cstring>

#include "base/status.h"
#include "tensor/half.h"

namespace pome {
namespace {

constexpr size_t kKeys = 65536;
constexpr int kLargestKey = 0x8000 + 0x7BFF;   // 65504
constexpr int kSmallestKey = 0x7FFF - 0x7BFF;  // -65504
constexpr int kMinusZeroKey = 0x7FFF;          // no value has it: key_of_f16 folds the zeros

double value_of_key(int key) { return f16_to_f32(f16_of_key(static_cast<uint16_t>(key))); }

// Largest key whose value is <= value, for a value within the range of binary16.
int key_at_or_below(double value) {
  int key = key_of_f16(f32_to_f16(static_cast<float>(value)));
  if (value_of_key(key) > value) --key;
  return key;
}

// Adds unused neighbours of the largest key (above it, then below) until there are `size`.
void fill_up(std::vector<int>* keys, size_t size) {
  if (keys->empty()) keys->push_back(0x8000);
  const int top = keys->back();
  for (int key = top + 1; keys->size() < size && key <= kLargestKey; ++key) {
    if (key != kMinusZeroKey) keys->push_back(key);
  }
  for (int key = top - 1; keys->size() < size && key >= kSmallestKey; --key) {
    if (key != kMinusZeroKey && std::find(keys->begin(), keys->end(), key) == keys->end()) {
      keys->push_back(key);
    }
  }
  std::sort(keys->begin(), keys->end());
}

}  // namespace

void keys_of_f16(std::span<uint16_t> codes) {
  // Without branches and in blocks of known size, so that the compiler uses wide registers.
  constexpr size_t kWidth = 32;
  size_t i = 0;
  for (; i + kWidth <= codes.size(); i += kWidth) {
    uint16_t block[kWidth];
    std::memcpy(block, codes.data() + i, sizeof block);
    for (uint16_t& code : block) {
      const auto sign = static_cast<uint16_t>(-(code >> 15));
      const auto plus_zero = static_cast<uint16_t>(code == 0x8000 ? 0 : sign & 0x7FFF);
      code = static_cast<uint16_t>((code == 0x8000 ? 0x8000 : code ^ 0x8000) ^ plus_zero);
    }
    std::memcpy(codes.data() + i, block, sizeof block);
  }
  for (; i < codes.size(); ++i) codes[i] = key_of_f16(codes[i]);
}

KeyHistogram::KeyHistogram() : counts_(kKeys) {}

void KeyHistogram::clear() {
  std::fill(counts_.begin(), counts_.end(), 0);
  std::fill(sums_.begin(), sums_.end(), 0.0);
}

void KeyHistogram::add(std::span<const uint16_t> keys) {
  for (const uint16_t key : keys) ++counts_[key];
}

void KeyHistogram::add(std::span<const uint16_t> keys, std::span<const float> weights) {
  POME_CHECK(keys.size() == weights.size());
  sums_.resize(kKeys);
  for (size_t i = 0; i < keys.size(); ++i) sums_[keys[i]] += static_cast<double>(weights[i]);
}

void KeyHistogram::collect(std::vector<double>* values, std::vector<double>* weights) const {
  values->clear();
  weights->clear();
  const auto add = [&](size_t key, double sum) {
    values->push_back(value_of_key(static_cast<int>(key)));
    weights->push_back(sum);
  };
  if (!sums_.empty()) {
    for (size_t key = 0; key < kKeys; ++key) {
      const double sum = counts_[key] + sums_[key];
      if (sum > 0) add(key, sum);
    }
    return;
  }
  // Most keys are empty, in long runs.
  constexpr size_t kRun = 16;
  for (size_t first = 0; first < kKeys; first += kRun) {
    uint32_t any = 0;
    for (size_t i = 0; i < kRun; ++i) any |= counts_[first + i];
    if (any == 0) continue;
    for (size_t key = first; key < first + kRun; ++key) {
      if (counts_[key] != 0) add(key, counts_[key]);
    }
  }
}

std::vector<uint16_t> fit_palette(std::span<const double> values, std::span<const double> weights,
                                  int bits) {
  return fit_palette(values, weights, bits,
                     default_kmeans_method(1 << bits, static_cast<int64_t>(values.size())));
}

std::vector<uint16_t> fit_palette(std::span<const double> values, std::span<const double> weights,
                                  int bits, KMeansMethod method, int64_t bins) {
  POME_CHECK(bits >= 1 && bits <= 8);
  const size_t size = size_t{1} << bits;
  const Clustering clustering = kmeans(values, weights, static_cast<int>(size), method, bins);
  std::vector<int> keys;
  for (const double centroid : clustering.centroids) {
    keys.push_back(key_of_f16(f32_to_f16(static_cast<float>(centroid))));
  }
  fill_up(&keys, size);
  std::vector<uint16_t> table(size);
  for (size_t i = 0; i < size; ++i) {
    POME_CHECK(i == 0 || keys[i - 1] < keys[i]);
    table[i] = f16_of_key(static_cast<uint16_t>(keys[i]));
  }
  return table;
}

void build_index_map(std::span<const uint16_t> table, std::span<uint8_t> index_of_key) {
  POME_CHECK(index_of_key.size() == kKeys && !table.empty());
  size_t key = 0;
  for (size_t a = 0; a + 1 < table.size(); ++a) {
    const double left = f16_to_f32(table[a]), right = f16_to_f32(table[a + 1]);
    const size_t end = static_cast<size_t>(key_at_or_below((left + right) / 2)) + 1;
    std::fill(index_of_key.begin() + static_cast<std::ptrdiff_t>(key),
              index_of_key.begin() + static_cast<std::ptrdiff_t>(end), static_cast<uint8_t>(a));
    key = end;
  }
  std::fill(index_of_key.begin() + static_cast<std::ptrdiff_t>(key), index_of_key.end(),
            static_cast<uint8_t>(table.size() - 1));
}

}  // namespace pome
