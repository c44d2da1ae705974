// Products in bfloat16 against plain sums of the rounded factors.
#include <gtest/gtest.h>

#include "kernels/bf16_test_util.h"

namespace pome::kernels {
namespace {

TEST(Bf16, RoundingIsThatOfTheType) {
  for (const Bf16Entry& entry : bf16_kernels()) {
    if (!runs_here(entry.isa)) continue;
    for (const int64_t columns : {1, 31, 32, 33, 100}) {
      const auto x = random_floats(columns, 5);
      std::vector<uint16_t> got(static_cast<size_t>(bf16_padded(columns)) + 1, 7);
      auto expected = got;
      entry.round(x.data(), columns, got.data());
      bf16_round_portable(x.data(), columns, expected.data());
      EXPECT_EQ(got, expected) << entry.name << " columns " << columns;
    }
  }
}

TEST(Bf16, ProductsAgreeWithPlainSumsAtAwkwardSizes) {
  for (const EncodingKind kind : {EncodingKind::kF32, EncodingKind::kF16, EncodingKind::kBF16}) {
    for (const int64_t columns : {1, 30, 32, 65, 128, 320}) {
      for (const int64_t rows : {1, 15, 17, 32, 50}) {
        const RandomWeight weight(Encoding::plain(kind), rows, columns, 3);
        ASSERT_TRUE(weight.valid);
        for (const int64_t m : {1, 3, 12, 29}) {
          const Bf16Product product(weight, m);
          const std::vector<float> expected = product.run(bf16_multiply_portable);
          for (const Bf16Entry& entry : bf16_kernels()) {
            if (!runs_here(entry.isa)) continue;
            const std::vector<float> got = product.run(entry.multiply);
            for (size_t i = 0; i < got.size(); ++i)
              ASSERT_NEAR(got[i], expected[i], 1e-5 * static_cast<double>(columns) + 1e-5)
                  << entry.name << " " << traits(kind).name << " columns " << columns << " rows "
                  << rows << " m " << m << " element " << i;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace pome::kernels
