#include "models/mlc_weights.h"

#include <utility>

#include "base/checked.h"
#include "encoding/mlc_groups.h"
#include "graph/columns.h"
#include "models/models.h"
#include "models/moe.h"
#include "models/weights.h"

namespace pome {

namespace {

// Groups of 32 with f16 scales, read in place.
class GroupedConstant final : public ConstantData {
 public:
  GroupedConstant(ConstantDataPtr words, ConstantDataPtr scales, Shape shape)
      : ConstantData(std::move(shape), Encoding::int_blocks(4, kMlcGroup)),
        words_(std::move(words)),
        scales_(std::move(scales)) {}
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    EncodedTile words, scales;
    POME_RETURN_IF_ERROR(words_->read_tile(row, rows, &words));
    POME_RETURN_IF_ERROR(scales_->read_tile(row, rows, &scales));
    tile->row = row;
    tile->rows = rows;
    tile->storage.resize(2);
    tile->storage[0].assign(words.parts[0].begin(), words.parts[0].end());
    tile->storage[1].assign(scales.parts[0].begin(), scales.parts[0].end());
    mlc_to_int4(tile->storage[0], {reinterpret_cast<uint16_t*>(tile->storage[1].data()),
                                   tile->storage[1].size() / sizeof(uint16_t)});
    tile->parts.assign(tile->storage.begin(), tile->storage.end());
    return {};
  }

 private:
  ConstantDataPtr words_, scales_;
};

// A part of a plain tensor: other bytes of the same file.
CheckpointTensor part_of(const CheckpointTensor& tensor, int64_t first_row, const Shape& shape) {
  CheckpointTensor out = tensor;
  const uint64_t rows = static_cast<uint64_t>(tensor.shape[0]);
  const uint64_t row_bytes = tensor.bytes / std::max<uint64_t>(1, rows);
  out.shape = shape;
  out.offset += static_cast<uint64_t>(first_row) * row_bytes;
  out.bytes = static_cast<uint64_t>(shape[0]) * row_bytes;
  return out;
}

class Finder {
 public:
  Finder(const Checkpoint& checkpoint, const MlcPlace& place, const Shape& shape)
      : checkpoint_(checkpoint), place_(place), shape_(shape), whole_(shape) {
    if (place.rows > 0) whole_[shape.size() > 1 ? shape.size() - 2 : 0] = place.rows;
  }

  MlcWeight find() {
    if (const CheckpointTensor* plain = checkpoint_.find(place_.name)) return take(*plain);
    if (place_.name.ends_with(".weight") && shape_.size() > 1) {
      const std::string module = place_.name.substr(0, place_.name.size() - 6);
      const CheckpointTensor *words = checkpoint_.find(module + "q_weight"),
                             *scales = checkpoint_.find(module + "q_scale");
      if (words && scales) return take_groups(*words, *scales);
    }
    return fail("missing: " + place_.name + " " + to_string(whole_));
  }

 private:
  MlcWeight fail(std::string problem) {
    out_.problem = std::move(problem);
    return std::move(out_);
  }
  MlcWeight wrong(const CheckpointTensor& tensor, const Shape& shape, const char* what) {
    return fail("wrong shape or dtype: " + tensor.name + " must be " + to_string(shape) + what +
                ", is " + to_string(tensor.shape) + " " + to_string(tensor.encoding));
  }

  // Rows of the fused tensor that are ours; the encoding stays.
  ConstantDataPtr rows_of(ConstantDataPtr data, Shape shape) const {
    if (place_.rows == 0) return data;
    return (shape.size() > 2 ? take_expert_rows(place_.first_row, 1, shape)
                             : take_rows(place_.first_row, shape))(std::move(data));
  }

  MlcWeight take(const CheckpointTensor& tensor) {
    out_.tensors.push_back(tensor.name);
    if (tensor.shape != whole_) return wrong(tensor, whole_, "");
    out_.data = place_.rows > 0 && shape_.size() < 3
                    ? stored_constant(part_of(tensor, place_.first_row, shape_))
                    : rows_of(stored_constant(tensor), shape_);
    return std::move(out_);
  }

  MlcWeight take_groups(const CheckpointTensor& words, const CheckpointTensor& scales) {
    out_.tensors = {words.name, scales.name};
    const int64_t groups = ceil_div(shape_.back(), kMlcGroup);
    Shape word_shape = whole_, scale_shape = whole_;
    word_shape.back() = groups * kMlcGroupBytes / 4;
    scale_shape.back() = groups;
    if (words.shape != word_shape || words.encoding.kind != EncodingKind::kI32)
      return wrong(words, word_shape, " of 32-bit words (groups of 32 codes of 4 bits)");
    if (scales.shape != scale_shape || scales.encoding.kind != EncodingKind::kF16)
      return wrong(scales, scale_shape, " float16");
    Shape padded = whole_, ours = shape_;
    padded.back() = ours.back() = groups * kMlcGroup;
    out_.data = rows_of(
        std::make_shared<GroupedConstant>(stored_constant(words), stored_constant(scales), padded),
        ours);
    if (ours != shape_) out_.data = cut_columns(std::move(out_.data), shape_.back());
    return std::move(out_);
  }

  const Checkpoint& checkpoint_;
  const MlcPlace& place_;
  const Shape& shape_;
  Shape whole_;
  MlcWeight out_;
};

}  // namespace

MlcWeight find_mlc_weight(const Checkpoint& checkpoint, const MlcPlace& place, const Shape& shape) {
  return Finder(checkpoint, place, shape).find();
}

}  // namespace pome
