#include "quantize/grouped_constant.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "quantize/quantize.h"
#include "tensor/tensor.h"

namespace pome {

GroupedConstant::GroupedConstant(ConstantDataPtr source, const Encoding& encoding, std::string name,
                                 std::vector<FeedbackPtr> feedback)
    : ConstantData(source->shape(), encoding),
      source_(encoded_constant(std::move(source), Encoding::plain(EncodingKind::kF16), name)),
      name_(std::move(name)),
      feedback_(std::move(feedback)) {}

Status GroupedConstant::read_tile(int64_t row, int64_t rows, EncodedTile* tile) const {
  const int64_t rows_of_one = shape().size() >= 3 ? shape()[shape().size() - 2] : this->rows();
  std::vector<float> values;
  Encoded encoded;
  for (int64_t first = row; first < row + rows;) {
    const int64_t expert = first / rows_of_one;
    const int64_t count =
        std::min({rows_at_a_time(), row + rows - first, (expert + 1) * rows_of_one - first});
    values.resize(static_cast<size_t>(count * columns()));
    POME_RETURN_IF_ERROR(source_->read_f32(first, count, values.data()));
    const Feedback* const feedback =
        feedback_.empty()
            ? nullptr
            : feedback_[feedback_.size() == 1 ? 0 : static_cast<size_t>(expert)].get();
    encode(values, feedback, &encoded);
    first += count;
  }
  POME_ASSIGN_OR_RETURN(const EncodedLayout layout, encoded_layout(encoding(), rows, columns()));
  tile->row = row;
  tile->rows = rows;
  tile->storage.resize(layout.part_bytes.size());
  for (size_t i = 0; i < layout.part_bytes.size(); ++i)
    tile->storage[i].assign(static_cast<size_t>(layout.part_bytes[i]), std::byte{0});
  size_t part = 0;
  const auto halves = [&](const std::vector<uint16_t>& from) {
    POME_CHECK(from.size() * 2 == tile->storage[part].size());
    if (!from.empty()) std::memcpy(tile->storage[part].data(), from.data(), from.size() * 2);
    ++part;
  };
  if (encoding().is_sparse()) pack_bits(encoded.mask, 1, tile->storage[part++]);
  if (encoding().kind == EncodingKind::kSparseF16) {
    halves(encoded.halves);
  } else {
    pack_bits(encoded.codes, encoding().bits, tile->storage[part++]);
    halves(encoded.grids);
  }
  tile->parts.assign(tile->storage.begin(), tile->storage.end());
  return {};
}

}  // namespace pome
