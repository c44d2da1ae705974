#include "base/units.h"

#include <cstdio>
#include <iterator>

namespace pome {

std::string human_bytes(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1000 && unit + 1 < std::size(kUnits)) {
    value /= 1000;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, "%.*f %s",
                unit == 0    ? 0
                : value < 10 ? 2
                             : 1,
                value, kUnits[unit]);
  return text;
}

Result<uint64_t> parse_bytes(std::string_view text, const std::string& what) {
  struct Unit {
    std::string_view name;
    double bytes;
  };
  static constexpr Unit kUnits[] = {
      {"", 1},     {"B", 1},     {"kB", 1e3},   {"KB", 1e3},      {"MB", 1e6},
      {"GB", 1e9}, {"TB", 1e12}, {"KiB", 1024}, {"MiB", 1048576}, {"GiB", 1073741824.0}};
  const Status refused = usage_error(what + " '" + escape_for_terminal(text, 64) +
                                     "' is no size, such as 3GB or 800MB");
  double value = 0, step = 1;
  size_t at = 0;
  bool digits = false, fraction = false;
  for (; at < text.size(); ++at) {
    if (text[at] == '.' && !fraction) {
      fraction = true;
      continue;
    }
    if (text[at] < '0' || text[at] > '9') break;
    digits = true;
    if (fraction) step /= 10;
    value = fraction ? value + step * (text[at] - '0') : value * 10 + (text[at] - '0');
    if (value > 1e18) return refused;
  }
  std::string_view rest = text.substr(at);
  while (rest.starts_with(' ')) rest.remove_prefix(1);
  for (const Unit& unit : kUnits) {
    if (rest != unit.name) continue;
    const double bytes = value * unit.bytes;
    if (!digits || bytes < 1 || bytes > 1e18) return refused;
    return static_cast<uint64_t>(bytes + 0.5);
  }
  return refused;
}

}  // namespace pome
