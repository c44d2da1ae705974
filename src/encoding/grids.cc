#include "encoding/grids.h"

#include <cstddef>

#include "base/status.h"

namespace pome {
namespace {

#include "encoding/grids.inc"

// Point i of a grid is the i-th number in the set, its digits standing for levels, lowest digit
// first.
template <size_t kPoints, size_t kDimensions, size_t kLevels, size_t kWords>
std::array<std::array<int8_t, kDimensions>, kPoints> expand(
    const uint64_t (&set)[kWords], const std::array<int8_t, kLevels>& levels) {
  std::array<std::array<int8_t, kDimensions>, kPoints> grid{};
  size_t point = 0;
  for (size_t word = 0; word < kWords; ++word) {
    for (uint64_t left = set[word]; left != 0; left &= left - 1) {
      POME_CHECK(point < kPoints);
      size_t number = word * 64 + static_cast<size_t>(std::countr_zero(left));
      for (int8_t& coordinate : grid[point]) {
        coordinate = levels[number % kLevels];
        number /= kLevels;
      }
      ++point;
    }
  }
  POME_CHECK(point == kPoints);
  return grid;
}

constexpr std::array<int8_t, 3> kIq2Levels = {8, 25, 43};
constexpr std::array<int8_t, 8> kIq3XxsLevels = {4, 12, 20, 28, 36, 44, 52, 62};
constexpr std::array<int8_t, 8> kIq3SLevels = {1, 3, 5, 7, 9, 11, 13, 15};
constexpr std::array<int8_t, 3> kIq1Levels = {-1, 0, 1};

}  // namespace

std::span<const GridPoint8, 256> iq2_xxs_grid() {
  static const auto kGrid = expand<256, 8>(kIq2XxsPoints, kIq2Levels);
  return kGrid;
}
std::span<const GridPoint8, 512> iq2_xs_grid() {
  static const auto kGrid = expand<512, 8>(kIq2XsPoints, kIq2Levels);
  return kGrid;
}
std::span<const GridPoint8, 1024> iq2_s_grid() {
  static const auto kGrid = expand<1024, 8>(kIq2SPoints, kIq2Levels);
  return kGrid;
}
std::span<const GridPoint4, 256> iq3_xxs_grid() {
  static const auto kGrid = expand<256, 4>(kIq3XxsPoints, kIq3XxsLevels);
  return kGrid;
}
std::span<const GridPoint4, 512> iq3_s_grid() {
  static const auto kGrid = expand<512, 4>(kIq3SPoints, kIq3SLevels);
  return kGrid;
}
std::span<const GridPoint8, 2048> iq1_grid() {
  static const auto kGrid = expand<2048, 8>(kIq1SPoints, kIq1Levels);
  return kGrid;
}

}  // namespace pome
