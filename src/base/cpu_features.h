// What this processor can run, and the one switch that forces less: POME_ISA.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace pome {

// Ordered: on one architecture a later entry implies the earlier ones.
enum class Isa : uint8_t {
  kPortable,
  kAvx2,
  kAvx512,
  kAvx512Vnni,
  kAvx512Bf16,
  kAmx,
  kNeon,
  kNeonDotprod,
  kNeonI8mm
};
std::string_view to_string(
    Isa isa);  // "portable", "avx2", "avx512", "avx512vnni", "avx512bf16", "amx", "neon", ...
std::vector<Isa> available_isas();  // of this machine, best last; always holds kPortable
// The best one, or the one named by the environment variable POME_ISA; kUsage when that name is
// unknown or this machine lacks it.
Result<Isa> selected_isa();
Result<Isa> parse_isa(std::string_view name);
std::string cpu_model_name();

// Single features for code whose results do not depend on them (so POME_ISA does not switch them).
struct CpuFlags {
  bool f16c = false;
  bool sha_ni = false;
};
const CpuFlags& cpu_flags();

}  // namespace pome
