#include "quantize/repack.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

namespace pome {
namespace {

// Blocks as they lie in a file.
class StoredBlocks final : public ConstantData {
 public:
  StoredBlocks(Shape shape, EncodingKind kind, std::vector<std::byte> bytes)
      : ConstantData(std::move(shape), Encoding::plain(kind)), bytes_(std::move(bytes)) {}
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    const size_t row_bytes = bytes_.size() / static_cast<size_t>(this->rows());
    tile->row = row;
    tile->rows = rows;
    tile->parts.assign(1, std::span(bytes_).subspan(static_cast<size_t>(row) * row_bytes,
                                                    static_cast<size_t>(rows) * row_bytes));
    return {};
  }

 private:
  std::vector<std::byte> bytes_;
};

std::vector<std::byte> random_blocks(size_t blocks, size_t width, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> out(blocks * (2 + width));
  for (std::byte& byte : out) byte = static_cast<std::byte>(random() & 0xFF);
  for (size_t b = 0; b < blocks; ++b) {
    const uint16_t scale = static_cast<uint16_t>(0x2400 + random() % 0x400);
    std::memcpy(out.data() + b * (2 + width), &scale, 2);
  }
  return out;
}

std::vector<float> decode(const ConstantData& data) {
  std::vector<float> out(static_cast<size_t>(data.rows() * data.columns()));
  EXPECT_TRUE(data.read_f32(0, data.rows(), out.data()).ok());
  return out;
}

TEST(Repack, KeepsEveryValue) {
  for (const auto& [kind, bits] :
       {std::pair(EncodingKind::kQ4_0, 4), std::pair(EncodingKind::kQ8_0, 8)}) {
    const auto blocks = random_blocks(15, bits == 4 ? 16 : 32, 3);
    const auto stored = std::make_shared<StoredBlocks>(Shape{5, 96}, kind, blocks);
    const auto kept = repacked_integers(stored, Encoding::int_blocks(bits, 32), "w");
    ASSERT_NE(kept, nullptr);
    EXPECT_EQ(decode(*kept), decode(*stored));
    EXPECT_EQ(&kept->canonical(), stored.get());
    EXPECT_EQ(repacked_integers(stored, Encoding::int_blocks(bits, 16), "w"), nullptr);
    EXPECT_EQ(repacked_integers(stored, Encoding::int_blocks(12 - bits, 32), "w"), nullptr);
  }
}

TEST(Repack, RefusesScalesThatAreNoNumbers) {
  auto blocks = random_blocks(4, 32, 5);
  const uint16_t infinity = 0x7C00;
  std::memcpy(blocks.data() + 2 * 34, &infinity, 2);
  const auto stored = std::make_shared<StoredBlocks>(Shape{2, 64}, EncodingKind::kQ8_0, blocks);
  const auto kept = repacked_integers(stored, Encoding::int_blocks(8, 32), "w");
  EncodedTile tile;
  const Status status = kept->read_tile(0, 2, &tile);
  EXPECT_EQ(status.refusal(), Refusal::kRange);
  EXPECT_NE(status.to_string().find("row 1"), std::string::npos) << status.to_string();
}

}  // namespace
}  // namespace pome
