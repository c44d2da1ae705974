// One recorded block per type, so that every decoder is covered where there is no Python. Blocks
// and values were recorded from the `gguf` Python package (0.19) by gguf_blocks.py --golden; those
// of Q1_0 and Q2_0, which it cannot decode, from the decoders of ggml (llama.cpp, autumn 2026).
#include <gtest/gtest.h>

#include <algorithm>

#include "block_bytes.h"

namespace pome {
namespace {

struct Recorded {
  EncodingKind kind;
  std::string_view block;    // hexadecimal
  float first, third, last;  // values 0, n / 3 and n - 1
  uint64_t hash;             // FNV-1a of all values as little-endian float32
};

// clang-format off
const Recorded kRecorded[] = {
    {EncodingKind::kQ4_0,
     "7aa96ae4eb0eb3479ecafa42f5b50d767132",
     -0x1.5e80000000000p-4f, 0x1.06e0000000000p-3f, 0x1.b620000000000p-3f, 0xa7720b78d0e950c6},
    {EncodingKind::kQ4_1,
     "9205291f9fdad03f33a9c9857d80d73dc642bf68",
     0x1.0ee7000000000p-7f, 0x1.f13e000000000p-8f, 0x1.ebac000000000p-8f, 0xa592753cc56a3b00},
    {EncodingKind::kQ5_0,
     "2303235828f856124849d0084ce1551935199ba9eb64",
     0x1.2d20000000000p-12f, -0x1.1408000000000p-11f, 0x1.2d20000000000p-12f, 0x83dade1b37d260c5},
    {EncodingKind::kQ5_1,
     "a60d08aec76eaeb1867435ec363fdd72075bf98c98a0e2a3",
     -0x1.62ef000000000p-4f, -0x1.5eb2800000000p-4f, -0x1.5d49000000000p-4f, 0x819cc90f4c701277},
    {EncodingKind::kQ8_0,
     "1c9e8d67f8c13e45812d89b3bf9c474dac93288eb58bc612f5536c367c3f760da91b",
     0x1.5f4a000000000p-1f, 0x1.8d1c000000000p-2f, -0x1.49e8000000000p-3f, 0x5ad78e97e829238d},
    {EncodingKind::kQ2_K,
     "a4b0b6ce4c4605e14ac734d00712edebd0d1450116a9cec4cc817e54033fc4a56f65ce16b42b5138595e"
     "cb775ea8ca447de5209ef8fdfee7607c118d0d463feffde05122feea4471324bd3b3f4efa0262090eb9c",
     0x1.8970000000000p-5f, 0x1.af80000000000p-7f, 0x1.1368000000000p-4f, 0x8bc2f8c897cad4d0},
    {EncodingKind::kQ3_K,
     "b243b9683030a977b47bfa873686104c03fea2b390dc1bebeac9fd22d64d5c15791fd242b6340f253339"
     "17664a03ea60daa4f73b6e7e5c42ea0d1f4d14eabf9d491e23d5ff50ceb1e826701acd6a32b4d8c65ca9"
     "a4651dc6a5fbb0362f49dc2c10b7e602186e0ebff1d9bb645e0f",
     0x1.61a0000000000p-6f, 0x1.356c000000000p-6f, 0x1.26b0000000000p-7f, 0x70886434cb21fd70},
    {EncodingKind::kQ4_K,
     "912676aac5743789b8704c80d43d9e385e7aa12335adeacffe87e455dff89e1b2ed756e67e634b6e77f1"
     "0c7770603ba221e7aa77ee528ab2651acfe31e1b6a18bdf9d4587144effbd509eae44552384a39347d45"
     "5e814672d9c2adc6ceeccc4d0a52d2047ed1360a4140713246ba993e22ae0dfa9d5bb653a0c920edee63"
     "3e93dbdce70a09ffce11453d81ca367448ee",
     0x1.27d1800000000p+2f, 0x1.8feb000000000p+2f, 0x1.0217400000000p+4f, 0x679f957afeb4904d},
    {EncodingKind::kQ5_K,
     "f2197505c112e632ad48c88fea268787cbd6ff6fba09335b4098472ff097005cfed4cf8183a740e99450"
     "799b22f4a4e3f3214bfd265c439cf5ce9584ecc79d4712b2e4bb0ad2a027ff771a60c0f62077a8090a72"
     "d411722b2897cb85196b3e7faf1a8c8b444814122a80636d83e74b044c18793f14ff10889d6e4da5a145"
     "77646785a16152d812ffbabb36bf17f9e05fec81bfe4ae125988085423f6b3bec0638203bac010a30fc6"
     "15bd0683f29da660",
     0x1.a525e00000000p-5f, 0x1.52cc2c0000000p+1f, 0x1.c660e00000000p-2f, 0x15845abfc0f8b627},
    {EncodingKind::kQ6_K,
     "f7abb013ca76d0411a5379df6daf01755d90f8ffec8da9cd3fda3f20049aa3857327985b6035c4addbab"
     "0055a422279af7c31e4f62b13e3c961f3e1102de4e7b67db40a0d3ea9563e25ed8e1bc5804ccf2859ea2"
     "0015de4463180e62539d29d064386e141ac9905bffb24b85357dd7541e4a5238b9326deb8378cedf9120"
     "bdde17fea328b19d568ac3bb0e4be1d84bd3e2cf29ee5747f1ddb33ee5734315fac45ceac0320b7dfa95"
     "f13ab5363d38ebbc7dc5890c585e1d0e1d70a1e2c31cc55313c79ba8231a7f85e0ed340e7283a21f0c98",
     -0x1.ba1f000000000p-1f, 0x1.3ba8000000000p+0f, 0x1.785c000000000p-3f, 0x30c6f958cc912734},
    {EncodingKind::kIQ2_XXS,
     "e2b523351745218ace67312e6ab9d2a0afe56e3d9d10169b41280e5fb7e1e4d10bd6264a48c6304e95d3"
     "feec63f5560bebac55066771d4c87cf6c390f4f7aa62a832",
     0x1.ddfa800000000p+3f, -0x1.6fad000000000p+2f, 0x1.baae800000000p+3f, 0x80584335cc11f7c4},
    {EncodingKind::kIQ2_XS,
     "7e185c647120adb05a95067a92b73f51ab9d885e9088a0fcd234d2e71d7bfd9915f8a857eef510b4ae11"
     "27b6b02369107e5387bcd693ed61945d91ef4ebde93d9993919c055838e13298",
     0x1.af40000000000p-8f, -0x1.1f80000000000p-9f, -0x1.cac3c00000000p-3f, 0x618073606a46a15b},
    {EncodingKind::kIQ3_XXS,
     "5636e75bd0b33717cc8f3d3c462a05fff19655d89b2419cdababfc2e9ff7f920acc6f564037c841ce973"
     "c4e99739d343e2174b06b0198227e77f9027b059f062385f957febaa745fceb3257423ab3d9bdfbd27f9"
     "27568520dceed5e4579fc88788f2",
     -0x1.4ca3000000000p+5f, 0x1.8f2a000000000p+4f, 0x1.269f000000000p+5f, 0xbae6136253d4ac42},
    {EncodingKind::kIQ1_S,
     "a92c53b4b468f6074a16a62b467f862fd7235b105a02628e20ae957e9b910f6e0447ce7059cf07f7590f"
     "5f62a0e33476cb0c",
     -0x1.e951000000000p-1f, -0x1.179c000000000p-3f, 0x1.4f88000000000p-4f, 0x164e1447bd1e78c7},
    {EncodingKind::kIQ4_NL,
     "26a571f3df3e9748363ad72f421f24d310f9",
     0x1.0bb8000000000p+1f, 0x1.ab52000000000p+0f, -0x1.22e3000000000p+1f, 0x472b091225a57414},
    {EncodingKind::kIQ3_S,
     "be134d1a6582d1a4451beae40ac98cdc9ed3a5e142c0d6b43303dc108416979f4f966620796ebd2eb83d"
     "5914eca03317f717c4d1da60f30f8b0a8a1316b6b625249fd7c0decda83a634273592943563d6171aa1d"
     "00d92937214909eac2e0a47200e36e9898b758a6e463af99921c",
     -0x1.e004000000000p-6f, 0x1.016d800000000p-3f, 0x1.16b8000000000p-7f, 0xe3013f1ee1576ffb},
    {EncodingKind::kIQ2_S,
     "810e9dab70cd37e78e2e7cdf3d90a22d65f8affb3da891f63d27c19014079ea5758884731ae79f4e3f01"
     "cf31a4bc8ac46f1d0274d5321f42c10f03fa8e3c9bac064dd48489968c4bdbbfe3038810fd8c233e",
     0x1.6c38000000000p-9f, -0x1.ba44000000000p-8f, 0x1.1c8bc00000000p-7f, 0x40cdc3cd8487868a},
    {EncodingKind::kIQ4_XS,
     "ba117716e6ab3946be7ea9e886b14f5a09ac3a15ee3bbd75c34f4cc125e3908b6afd2742c56f87f72fe0"
     "133a656f6142b4784cf9b8c9e6f0235e98297a129c8a804a28c88ca4b8c1fa714d8abd00f7cd9aca884c"
     "cec96245c839f023768be2712cd53cf2c4112c87b94e5696d81c78a309b261e10f8113543f9bb8754524"
     "14a7054aba4b8a5ccd04",
     0x1.5e64e00000000p+0f, -0x1.a932800000000p-2f, 0x1.3e2ea00000000p+1f, 0x8e7882a0a6762ebf},
    {EncodingKind::kIQ1_M,
     "d598c5b3f2eec901214df6b600dbb5a972973b671494c528bbe1c079b2272ea43301f07ba62c0681ad48"
     "51f274f3cb2ac3e6e41aa983312d",
     0x1.0362000000000p-2f, -0x1.2870000000000p-5f, 0x1.ac30000000000p-5f, 0x0f768012889ec30f},
    {EncodingKind::kBF16,
     "f3886ba26a23692137957139ef368f0e",
     -0x1.e600000000000p-110f, 0x1.d400000000000p-57f, 0x1.1e00000000000p-98f, 0x325362441e024608},
    {EncodingKind::kTQ1_0,
     "900d86d219f60070ccac663796921196bed5f6f00a5f5f113c4298c8d296ba7c208c83c5464d8c07fcdc"
     "06df1b79e03a28f00b3474be",
     -0x0.0p+0f, -0x0.0p+0f, -0x0.0p+0f, 0xcc05948379d147b5},
    {EncodingKind::kTQ2_0,
     "427d153ee40767d371612c18ccea498320a5f5a09a36cdd8257c8bf6d57cd3a64e19572f396a7af0eba3"
     "7934031f3b250135337f255a7f346b4199f80f94c025263d",
     0x1.4980000000000p+0f, 0x1.4980000000000p+1f, -0x1.4980000000000p+0f, 0x05e8ffda380d0bb8},
    {EncodingKind::kMXFP4,
     "97b66561dbc14cbd1cbddb331130db8b1f",
     0x1.0000000000000p+26f, 0x1.8000000000000p+24f, 0x1.0000000000000p+23f, 0xc0325d9ee4da18f5},
    {EncodingKind::kNVFP4,
     "a16faec1af857eb90264b99c620054ecdfb073c74219716cb60e2049f863b56c125900e0",
     -0x1.b000000000000p-1f, 0x0.0p+0f, -0x1.2000000000000p+3f, 0xb550d79a50569dbe},
    {EncodingKind::kQ1_0,
     "b7231f469afbde143902a34eb732088c5afd",
     0x1.edc0000000000p-7f, 0x1.edc0000000000p-7f, 0x1.edc0000000000p-7f, 0xc0860eeb3bbeba25},
    {EncodingKind::kQ2_0,
     "f41dcbf92f7953231463268a965632d1e712",
     0x1.7d00000000000p-7f, -0x1.7d00000000000p-8f, -0x1.7d00000000000p-8f, 0x17a49e1e633cd12d},
};
// clang-format on

uint64_t fnv1a(const std::vector<float>& values) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const float value : values) {
    uint8_t bytes[4];
    std::memcpy(bytes, &value, sizeof bytes);
    for (const uint8_t byte : bytes) hash = (hash ^ byte) * 0x100000001b3u;
  }
  return hash;
}

TEST(EncodingGolden, RecordedBlocks) {
  for (const Recorded& recorded : kRecorded) {
    SCOPED_TRACE(traits(recorded.kind).name);
    const std::vector<float> values =
        testing::decode_blocks(recorded.kind, testing::from_hex(recorded.block));
    EXPECT_EQ(values.front(), recorded.first);
    EXPECT_EQ(values[values.size() / 3], recorded.third);
    EXPECT_EQ(values.back(), recorded.last);
    EXPECT_EQ(fnv1a(values), recorded.hash);
  }
}

TEST(EncodingGolden, EveryBlockTypeIsRecorded) {
  for (int k = 0; k < kEncodingKindCount; ++k) {
    const EncodingTraits& type = traits(static_cast<EncodingKind>(k));
    if (type.block_elements < 2) continue;
    EXPECT_TRUE(std::any_of(std::begin(kRecorded), std::end(kRecorded),
                            [&](const Recorded& recorded) { return recorded.kind == type.kind; }))
        << type.name;
  }
}

}  // namespace
}  // namespace pome
