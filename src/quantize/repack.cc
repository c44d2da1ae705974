#include "quantize/repack.h"

#include <cstring>
#include <utility>

#include "encoding/blocks.h"

namespace pome {
namespace {

constexpr int64_t kBlock = 32;

class RepackedConstant final : public ConstantData {
 public:
  RepackedConstant(ConstantDataPtr source, const Encoding& encoding, std::string name)
      : ConstantData(source->shape(), encoding),
        source_(std::move(source)),
        name_(std::move(name)) {}

  const ConstantData& canonical() const override { return source_->canonical(); }

  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    EncodedTile from;
    POME_RETURN_IF_ERROR(source_->read_tile(row, rows, &from));
    const size_t blocks = static_cast<size_t>(rows * (columns() / kBlock));
    const bool nibbles = encoding().bits == 4;
    const size_t width = nibbles ? kBlock / 2 : kBlock, stride = 2 + width;
    POME_CHECK(from.parts.size() == 1 && from.parts[0].size() == blocks * stride);
    tile->row = row;
    tile->rows = rows;
    tile->storage.resize(2);
    tile->storage[0].resize(blocks * width);
    tile->storage[1].resize(blocks * 2);
    for (size_t b = 0; b < blocks; ++b) {
      const std::byte* block = from.parts[0].data() + b * stride;
      uint16_t scale;
      std::memcpy(&scale, block, 2);
      if ((scale & 0x7C00u) == 0x7C00u)
        return bad_input(Refusal::kRange,
                         "a scale of row " +
                             std::to_string(row + static_cast<int64_t>(b) * kBlock / columns()) +
                             " is not a finite number")
            .at("tensor " + name_);
      std::memcpy(tile->storage[1].data() + b * 2, &scale, 2);
      std::byte* to = tile->storage[0].data() + b * width;
      if (nibbles)
        to_codes(reinterpret_cast<const uint8_t*>(block + 2), reinterpret_cast<uint8_t*>(to));
      else
        std::memcpy(to, block + 2, width);
    }
    tile->parts = {tile->storage[0], tile->storage[1]};
    return {};
  }

 private:
  // q4_0 keeps element i in the low half of byte i and element i + 16 in its high half, with 8
  // added; a stream of codes keeps neighbours in a byte, as two's complement.
  static void to_codes(const uint8_t* in, uint8_t* out) {
    const auto code = [&](int i) { return (i < 16 ? in[i] & 15 : in[i - 16] >> 4) ^ 8; };
    for (int i = 0; i < kBlock / 2; ++i)
      out[i] = static_cast<uint8_t>(code(2 * i) | code(2 * i + 1) << 4);
  }

  ConstantDataPtr source_;
  std::string name_;
};

static_assert(sizeof(BlockQ4_0) == 2 + kBlock / 2 && sizeof(BlockQ8_0) == 2 + kBlock);

}  // namespace

ConstantDataPtr repacked_integers(const ConstantDataPtr& data, const Encoding& wished,
                                  std::string name) {
  const EncodingKind kind = data->encoding().kind;
  const bool same = (kind == EncodingKind::kQ4_0 && wished == Encoding::int_blocks(4, kBlock)) ||
                    (kind == EncodingKind::kQ8_0 && wished == Encoding::int_blocks(8, kBlock));
  if (!same) return nullptr;
  return std::make_shared<RepackedConstant>(data, wished, std::move(name));
}

}  // namespace pome
