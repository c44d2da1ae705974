// Duplicate names among many, in n log n whatever the names are (a hash set can be made slow by
// whoever chooses the names).
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <optional>
#include <string_view>
#include <vector>

namespace pome {

// Index of the earliest name that repeats an earlier one; name_of(i) for i in [0, count).
template <typename NameOf>
std::optional<size_t> first_duplicate(size_t count, NameOf name_of) {
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const std::string_view x = name_of(a), y = name_of(b);
    return x != y ? x < y : a < b;
  });
  std::optional<size_t> first;
  for (size_t i = 1; i < count; ++i) {
    if (std::string_view(name_of(order[i])) != std::string_view(name_of(order[i - 1]))) continue;
    if (!first || order[i] < *first) first = order[i];
  }
  return first;
}

}  // namespace pome
