#include "base/cpu_features.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <set>

#include "base/thread_pool.h"

namespace pome {
namespace {

class Environment {
 public:
  explicit Environment(const char* value) { ::setenv("POME_ISA", value, 1); }
  ~Environment() { ::unsetenv("POME_ISA"); }
};

TEST(CpuFeatures, NamesGoBothWays) {
  std::set<std::string_view> names;
  for (int i = 0; i <= static_cast<int>(Isa::kNeonI8mm); ++i) {
    const Isa isa = static_cast<Isa>(i);
    names.insert(to_string(isa));
    ASSERT_TRUE(parse_isa(to_string(isa)).ok());
    EXPECT_EQ(*parse_isa(to_string(isa)), isa);
  }
  EXPECT_EQ(names.size(), 9u);
  EXPECT_EQ(parse_isa("avx3").status().code(), StatusCode::kUsage);
  EXPECT_EQ(parse_isa("").status().code(), StatusCode::kUsage);
  EXPECT_EQ(parse_isa("AVX2").status().code(), StatusCode::kUsage);
}

TEST(CpuFeatures, PortableIsFirstAndOrderIsAscending) {
  const auto isas = available_isas();
  ASSERT_FALSE(isas.empty());
  EXPECT_EQ(isas.front(), Isa::kPortable);
  EXPECT_TRUE(std::is_sorted(isas.begin(), isas.end()));
}

TEST(CpuFeatures, AgreesWithTheCompilersOwnDetection) {
#if defined(__x86_64__) && defined(__GNUC__)
  const auto isas = available_isas();
  const auto has = [&](Isa isa) { return std::count(isas.begin(), isas.end(), isa) == 1; };
  EXPECT_EQ(has(Isa::kAvx2), __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
  EXPECT_EQ(has(Isa::kAvx512),
            __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"));
  EXPECT_EQ(has(Isa::kAvx512Vnni), has(Isa::kAvx512) && __builtin_cpu_supports("avx512vnni"));
#else
  GTEST_SKIP() << "no second opinion on this processor";
#endif
}

TEST(CpuFeatures, EnvironmentForcesOne) {
  ::unsetenv("POME_ISA");
  EXPECT_EQ(*selected_isa(), available_isas().back());
  {
    const Environment forced("portable");
    EXPECT_EQ(*selected_isa(), Isa::kPortable);
  }
  {
    const Environment forced("nonsense");
    EXPECT_EQ(selected_isa().status().code(), StatusCode::kUsage);
    EXPECT_NE(selected_isa().status().to_string().find("POME_ISA"), std::string::npos);
  }
#if defined(__x86_64__)
  const Environment foreign("neon");
#else
  const Environment foreign("avx2");
#endif
  EXPECT_EQ(selected_isa().status().code(), StatusCode::kUsage);
}

TEST(CpuFeatures, ModelHasAName) { EXPECT_FALSE(cpu_model_name().empty()); }

TEST(CpuFeatures, ThreadCountIsPositive) { EXPECT_GE(default_thread_count(), 1); }

}  // namespace
}  // namespace pome
