// The kernels for AMX over tiles in plain code, on machines with or without AMX. Where the machine
// has it, the tests of every family run them over the real ones.
#include "kernels/bf16/amx.h"

#include "kernels/bf16_test_util.h"
#include "kernels/emulated_tiles.h"
#include "kernels/packed/gemm_amx.h"
#include "kernels/packed_test_util.h"

#if defined(POME_HAVE_AMX_KERNELS)
namespace pome::kernels {
namespace {

TEST(Amx, ShapesOfTilesAreThoseOfTheInstruction) {
  const AmxShapes shapes = amx_shapes({16, 5});
  const auto* bytes = reinterpret_cast<const uint8_t*>(&shapes);
  EXPECT_EQ(bytes[0], 1);
  for (int tile = 0; tile < kAmxTiles; ++tile) EXPECT_EQ(bytes[16 + 2 * tile], 64);
  const uint8_t rows[] = {16, 16, 5, 5, 16, 5, 16, 16, 0};
  EXPECT_EQ(0, std::memcmp(bytes + 48, rows, sizeof rows));
}

TEST(Amx, PackedProductsHaveTheBitsOfAvx512) {
  if (!runs_here(Isa::kAvx512Vnni)) GTEST_SKIP() << "no AVX-512 VNNI, which AMX code builds on";
  for_packed([](const Encoding& encoding, const RandomWeight&, const Packed& packed) {
    for (const int64_t m : {1, 16, 37}) {
      Product product(packed, ActivationBits::kCoarse,
                      random_floats(m * packed.layout.columns, 31));
      ASSERT_EQ(product.run(packed_gemm_tiles<EmulatedTiles>), product.run(packed_gemm_avx512vnni))
          << to_string(encoding) << " columns " << packed.layout.columns << " m " << m;
    }
  });
}

TEST(Amx, PackedProductsOfPartialTiles) {
  if (!runs_here(Isa::kAvx512Vnni)) GTEST_SKIP() << "no AVX-512 VNNI, which AMX code builds on";
  const RandomWeight weight(Encoding::plain(EncodingKind::kQ4_0), 53, 96, 9);
  ASSERT_TRUE(weight.valid);
  const Packed packed(weight, *packed_format(weight.view.encoding, 96));
  Product product(packed, ActivationBits::kCoarse, random_floats(19 * 96, 11));
  EXPECT_EQ(product.run(packed_gemm_tiles<EmulatedTiles>), product.run(packed_gemm_avx512vnni));
}

TEST(Amx, Bf16ProductsAgreeWithPlainSums) {
  if (!runs_here(Isa::kAvx512Bf16)) GTEST_SKIP() << "no AVX-512 BF16, which AMX code builds on";
  for (const EncodingKind kind : {EncodingKind::kF32, EncodingKind::kF16, EncodingKind::kBF16})
    for (const int64_t columns : {1, 32, 65, 320})
      for (const int64_t rows : {1, 16, 17, 50})
        for (const int64_t m : {1, 16, 29, 70}) {
          const RandomWeight weight(Encoding::plain(kind), rows, columns, 3);
          ASSERT_TRUE(weight.valid);
          const Bf16Product product(weight, m);
          const std::vector<float> expected = product.run(bf16_multiply_portable);
          const std::vector<float> got = product.run(bf16_multiply_tiles<EmulatedTiles>);
          for (size_t i = 0; i < got.size(); ++i)
            ASSERT_NEAR(got[i], expected[i], 1e-5 * static_cast<double>(columns) + 1e-5)
                << traits(kind).name << " columns " << columns << " rows " << rows << " m " << m
                << " element " << i;
        }
}

TEST(Amx, RunsOnThisMachine) {
  if (!runs_here(Isa::kAmx))
    GTEST_SKIP() << "this processor has no AMX: its kernels were only run over tiles in plain code";
  AmxTiles tiles;
  tiles.configure(amx_shapes({16, 16}));
  int8_t a[16][64], b[16][64];
  int32_t c[16][16];
  std::memset(a, 2, sizeof a);
  std::memset(b, -3, sizeof b);
  tiles.load<4>(a, 64);
  tiles.load<6>(b, 64);
  tiles.zero<0>();
  tiles.dot_int8<0, 4, 6>();
  tiles.store<0>(c, 64);
  for (const auto& row : c)
    for (const int32_t sum : row) ASSERT_EQ(sum, -6 * 64);
}

}  // namespace
}  // namespace pome::kernels
#endif
