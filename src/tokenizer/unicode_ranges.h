// How the generated Unicode tables are laid out: sorted ranges that do not overlap, and the search
// in them. For unicode*.cc only.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pome {

struct PointRange {
  uint32_t first, last;
};
// Every `step`-th character of the range maps to itself plus `delta`.
struct CaseRange {
  uint32_t first, last;
  int32_t delta;
  uint8_t step;
};

template <typename Range, size_t N>
constexpr const Range* find_range(const Range (&ranges)[N], char32_t point) {
  size_t low = 0, high = N;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (ranges[middle].last < point) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < N && ranges[low].first <= point ? &ranges[low] : nullptr;
}

template <size_t N>
char32_t map_case(const CaseRange (&ranges)[N], char32_t point) {
  const CaseRange* range = find_range(ranges, point);
  if (range == nullptr || (point - range->first) % range->step != 0) return point;
  return static_cast<char32_t>(static_cast<int32_t>(point) + range->delta);
}

}  // namespace pome
