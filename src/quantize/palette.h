// Fitting a palette: the 2^bits binary16 values that stand best for a group of weights.
//
// Weights are rounded to binary16 first, so a group holds at most 63 489 distinct values: only the
// sum of the weights of importance at each value is needed, and neither the fit nor the assignment
// looks at single elements. Values are numbered by *key*, which counts binary16 values upwards:
// key order is value order.
//
// Thread safety: one object per thread; the free functions are pure.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quantize/kmeans.h"

namespace pome {

// Key of a finite binary16 value; both zeros have key 0x8000.
inline uint16_t key_of_f16(uint16_t bits) {
  const uint16_t code = bits == 0x8000 ? uint16_t{0} : bits;
  return static_cast<uint16_t>(code ^ ((code & 0x8000) != 0 ? 0xFFFF : 0x8000));
}
void keys_of_f16(std::span<uint16_t> codes);  // each in place
inline uint16_t f16_of_key(uint16_t key) {
  return static_cast<uint16_t>(key ^ ((key & 0x8000) != 0 ? 0x8000 : 0xFFFF));
}

// How much weight lies at each key.
class KeyHistogram {
 public:
  KeyHistogram();
  void clear();
  void add(std::span<const uint16_t> keys);                                  // weight 1 each
  void add(std::span<const uint16_t> keys, std::span<const float> weights);  // weights >= 0
  // Values with their sums of weights, ascending, zero weights left out.
  void collect(std::vector<double>* values, std::vector<double>* weights) const;

 private:
  std::vector<uint32_t> counts_;  // fewer than 2^32 elements between two clear()s
  std::vector<double> sums_;      // empty until weights are added
};

// 2^bits binary16 codes, strictly ascending as values. `values` are binary16 values. Fewer distinct
// values than entries: the table holds them all, and neighbours of the largest fill it up.
//
// Centroids lie within their clusters, whose ends are binary16 values, so rounding to binary16
// cannot make two of them equal.
std::vector<uint16_t> fit_palette(std::span<const double> values, std::span<const double> weights,
                                  int bits);
std::vector<uint16_t> fit_palette(std::span<const double> values, std::span<const double> weights,
                                  int bits, KMeansMethod method, int64_t bins = 512);

// index_of_key[key] = index of the nearest table entry (the lower one when it is a tie); `table` as
// from fit_palette, `index_of_key` has 65536 elements.
void build_index_map(std::span<const uint16_t> table, std::span<uint8_t> index_of_key);

}  // namespace pome
