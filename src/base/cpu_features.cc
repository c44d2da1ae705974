#include "base/cpu_features.h"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#define POME_X86 1
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__aarch64__)
#include <sys/auxv.h>
#endif
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace pome {
namespace {

constexpr std::array<std::string_view, 9> kIsaNames = {"portable",   "avx2",         "avx512",
                                                       "avx512vnni", "avx512bf16",   "amx",
                                                       "neon",       "neon_dotprod", "neon_i8mm"};

#if defined(POME_X86)
struct Cpuid {
  unsigned a = 0, b = 0, c = 0, d = 0;
};
Cpuid cpuid(unsigned leaf, unsigned subleaf = 0) {
  Cpuid r;
  __get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d);
  return r;
}
bool bit(unsigned word, int index) { return (word >> index) & 1u; }

// XCR0: which register files the operating system saves (Intel SDM vol. 1, 13.3).
uint64_t enabled_states() {
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

// Linux grants the AMX tile registers only to processes that ask.
bool request_amx() {
#if defined(__linux__) && defined(__x86_64__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

struct Detected {
  std::vector<Isa> isas{Isa::kPortable};
  CpuFlags flags;
};

Detected detect() {
  Detected out;
#if defined(POME_X86)
  const Cpuid one = cpuid(1), seven = cpuid(7), seven1 = cpuid(7, 1);
  out.flags.sha_ni = bit(seven.b, 29) && bit(one.c, 19) && bit(one.c, 9);
  const bool xsave = bit(one.c, 27);
  const uint64_t states = xsave ? enabled_states() : 0;
  const bool avx = xsave && (states & 0x6) == 0x6 && bit(one.c, 28);
  out.flags.f16c = avx && bit(one.c, 29);
  if (!(avx && bit(seven.b, 5) && bit(one.c, 12) && out.flags.f16c)) return out;
  out.isas.push_back(Isa::kAvx2);
  // F, DQ, CD, BW, VL: what every AVX-512 server and desktop part since Skylake has.
  const bool avx512 = (states & 0xE6) == 0xE6 && bit(seven.b, 16) && bit(seven.b, 17) &&
                      bit(seven.b, 28) && bit(seven.b, 30) && bit(seven.b, 31);
  if (!avx512) return out;
  out.isas.push_back(Isa::kAvx512);
  if (!bit(seven.c, 11)) return out;
  out.isas.push_back(Isa::kAvx512Vnni);
  if (!bit(seven1.a, 5)) return out;
  out.isas.push_back(Isa::kAvx512Bf16);
  const bool amx =
      (states & 0x60000) == 0x60000 && bit(seven.d, 22) && bit(seven.d, 24) && bit(seven.d, 25);
  if (amx && request_amx()) out.isas.push_back(Isa::kAmx);
#elif defined(__aarch64__)
  out.isas.push_back(Isa::kNeon);
  bool dotprod = false, i8mm = false;
#if defined(__linux__)
  dotprod = (::getauxval(AT_HWCAP) >> 20) & 1u;  // HWCAP_ASIMDDP
  i8mm = (::getauxval(AT_HWCAP2) >> 13) & 1u;    // HWCAP2_I8MM
#elif defined(__APPLE__)
  const auto has = [](const char* name) {
    int value = 0;
    size_t size = sizeof value;
    return ::sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
  };
  dotprod = has("hw.optional.arm.FEAT_DotProd");
  i8mm = has("hw.optional.arm.FEAT_I8MM");
#endif
  if (dotprod) out.isas.push_back(Isa::kNeonDotprod);
  if (dotprod && i8mm) out.isas.push_back(Isa::kNeonI8mm);
#endif
  return out;
}

const Detected& detected() {
  static const Detected kDetected = detect();
  return kDetected;
}

std::string join_names(const std::vector<Isa>& isas) {
  std::string text;
  for (const Isa isa : isas) text += (text.empty() ? "" : " ") + std::string(to_string(isa));
  return text;
}

}  // namespace

std::string_view to_string(Isa isa) { return kIsaNames[static_cast<size_t>(isa)]; }

std::vector<Isa> available_isas() { return detected().isas; }

const CpuFlags& cpu_flags() { return detected().flags; }

Result<Isa> parse_isa(std::string_view name) {
  for (size_t i = 0; i < kIsaNames.size(); ++i)
    if (kIsaNames[i] == name) return static_cast<Isa>(i);
  std::string known;
  for (const std::string_view each : kIsaNames)
    known += (known.empty() ? "" : " ") + std::string(each);
  return usage_error("there is no instruction set \"" + std::string(name) + "\"")
      .hint("known names: " + known);
}

Result<Isa> selected_isa() {
  const char* forced = std::getenv("POME_ISA");
  if (forced == nullptr || *forced == '\0') return detected().isas.back();
  Result<Isa> isa = parse_isa(forced);
  if (!isa.ok()) return Status(isa.status()).at("POME_ISA");
  for (const Isa each : detected().isas)
    if (each == *isa) return isa;
  return usage_error("this processor lacks \"" + std::string(forced) + "\"")
      .at("POME_ISA")
      .hint("it has: " + join_names(detected().isas));
}

std::string cpu_model_name() {
#if defined(POME_X86)
  if (cpuid(0x80000000u).a >= 0x80000004u) {
    char name[49] = {};
    for (unsigned i = 0; i < 3; ++i) {
      const Cpuid part = cpuid(0x80000002u + i);
      std::memcpy(name + 16 * i, &part, 16);
    }
    std::string text(name);
    while (!text.empty() && text.back() == ' ') text.pop_back();
    text.erase(0, text.find_first_not_of(' '));
    if (!text.empty()) return text;
  }
  return "x86 processor";
#elif defined(__APPLE__)
  char name[128] = {};
  size_t size = sizeof name - 1;
  if (::sysctlbyname("machdep.cpu.brand_string", name, &size, nullptr, 0) == 0) return name;
  return "Apple processor";
#elif defined(__aarch64__)
  // Linux names implementer and part by number only (Arm: MIDR_EL1).
  std::string text = "Arm processor";
  if (FILE* file = std::fopen("/proc/cpuinfo", "re")) {
    char line[256];
    while (std::fgets(line, sizeof line, file) != nullptr)
      if (std::strncmp(line, "CPU part", 8) == 0)
        if (const char* value = std::strstr(line, "0x")) {
          text += " part " + std::string(value, std::strcspn(value, "\n"));
          break;
        }
    std::fclose(file);
  }
  return text;
#else
  return "unknown processor";
#endif
}

}  // namespace pome
