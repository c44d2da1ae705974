#include "base/memory.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <string>
#include <string_view>

#include "base/byte_source.h"

namespace pome {
namespace {

// The number behind `key` at the start of a line; 0 when it is not there.
uint64_t number_after(const std::string& text, std::string_view key) {
  size_t at = 0;
  while (at < text.size() && text.compare(at, key.size(), key) != 0) {
    at = text.find('\n', at);
    if (at == std::string::npos) return 0;
    ++at;
  }
  if (at >= text.size()) return 0;
  return std::strtoull(text.c_str() + at + key.size(), nullptr, 10);
}

std::string read_if_there(const char* path) {
  auto text = read_text_file(path, 1 << 20);
  return text.ok() ? *text : std::string();
}

uint64_t machine_memory() {
  if (const uint64_t kib = number_after(read_if_there("/proc/meminfo"), "MemAvailable:")) {
    return kib * 1024;
  }
  const long pages = ::sysconf(_SC_PHYS_PAGES), size = ::sysconf(_SC_PAGESIZE);
  return pages > 0 && size > 0 ? static_cast<uint64_t>(pages) * static_cast<uint64_t>(size) / 2
                               : std::numeric_limits<uint64_t>::max();
}

}  // namespace

uint64_t available_memory() {
  const uint64_t machine = machine_memory();
  const std::string folder = "/sys/fs/cgroup/";
  const uint64_t limit = number_after(read_if_there((folder + "memory.max").c_str()), "");
  if (limit == 0) return machine;
  const uint64_t used = number_after(read_if_there((folder + "memory.current").c_str()), "");
  const uint64_t cached =
      number_after(read_if_there((folder + "memory.stat").c_str()), "inactive_file ");
  const uint64_t taken = used - std::min(used, cached);
  return std::min(machine, limit - std::min(limit, taken));
}

}  // namespace pome
