#include "models/weights.h"

#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "models/mlc_names.h"
#include "models/mlc_weights.h"
#include "models/models.h"

namespace pome {

namespace {

// A tensor of a checkpoint, read in place.
class StoredConstant final : public ConstantData {
 public:
  explicit StoredConstant(const CheckpointTensor& tensor)
      : ConstantData(tensor.shape, tensor.encoding),
        source_(tensor.source),
        offset_(tensor.offset),
        bytes_(tensor.bytes) {
    row_bytes_ = rows() > 0 ? bytes_ / static_cast<uint64_t>(rows()) : 0;
  }
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    tile->row = row;
    tile->rows = rows;
    tile->storage.resize(1);
    tile->storage[0].resize(static_cast<size_t>(rows) * row_bytes_);
    tile->parts.assign(1, tile->storage[0]);
    return source_->read(offset_ + static_cast<uint64_t>(row) * row_bytes_, tile->storage[0]);
  }
  std::optional<std::span<const std::byte>> view() const override {
    return source_->view(offset_, bytes_);
  }

 private:
  ByteSourcePtr source_;
  uint64_t offset_, bytes_, row_bytes_;
};

// Stands in for a weight that is missing, so that the rest of the checkpoint can still be judged.
class AbsentConstant final : public ConstantData {
 public:
  explicit AbsentConstant(Shape shape)
      : ConstantData(std::move(shape), Encoding::plain(EncodingKind::kF32)) {}
  Status read_tile(int64_t, int64_t, EncodedTile*) const override {
    return bad_input(Refusal::kRange, "this weight is missing from the checkpoint");
  }
};

// Rows of q and k that GGUF stores as rotated pairs (2i, 2i + 1) go back to halves (i, i + d/2).
ConstantDataPtr unpermute_heads(ConstantDataPtr in, const Shape& shape, int64_t heads) {
  // A bias [N] is permuted element by element: it is read as N rows of one column.
  const int64_t head_rows = shape[0] / heads, half = head_rows / 2;
  const auto order = [head_rows, half](int64_t out) {
    const int64_t head = out / head_rows, within = out % head_rows;
    return head * head_rows + within % half * 2 + within / half;
  };
  return shape.size() == 1 ? permute_elements(std::move(in), order)
                           : permute_rows(std::move(in), shape, order);
}

bool is_weight_type(const Encoding& encoding) {
  switch (encoding.kind) {
    case EncodingKind::kI8:
    case EncodingKind::kI16:
    case EncodingKind::kI32:
    case EncodingKind::kI64:
      return false;
    default:
      return true;
  }
}

}  // namespace

ConstantDataPtr stored_constant(const CheckpointTensor& tensor) {
  return std::make_shared<StoredConstant>(tensor);
}

Result<bool> stored_apart(const Checkpoint& checkpoint, const std::string& base,
                          const std::string& a, const std::string& b) {
  const CheckpointTensor* first = checkpoint.find(a);
  if (!first && a.rfind(base, 0) == 0) first = checkpoint.find(a.substr(base.size()));
  const CheckpointTensor* second = checkpoint.find(b);
  if (!first || !second) return false;
  if (first->shape != second->shape) return true;
  const ConstantDataPtr x = stored_constant(*first), y = stored_constant(*second);
  const int64_t step =
      std::max<int64_t>(1, (int64_t{1} << 18) / std::max<int64_t>(1, x->columns()));
  std::vector<float> left(static_cast<size_t>(step * x->columns())), right(left.size());
  for (int64_t row = 0; row < x->rows(); row += step) {
    const int64_t rows = std::min(step, x->rows() - row);
    POME_RETURN_IF_ERROR(x->read_f32(row, rows, left.data()));
    POME_RETURN_IF_ERROR(y->read_f32(row, rows, right.data()));
    if (!std::equal(left.begin(), left.begin() + rows * x->columns(), right.begin())) return true;
  }
  return false;
}

WeightSet::WeightSet(const Checkpoint& checkpoint, GraphBuilder& builder, std::string base,
                     const std::string& embedding)
    : checkpoint_(checkpoint),
      builder_(builder),
      gguf_(checkpoint.format == "gguf"),
      mlc_(checkpoint.format == "mlc") {
  if (mlc_) return;  // another model's names, and no scales beside the weights
  if (!gguf_ && embedding.rfind(base, 0) == 0 && !checkpoint.find(embedding) &&
      checkpoint.find(embedding.substr(base.size())))
    dropped_prefix_ = std::move(base);
  float8_ = read_scaled_float8(checkpoint);
  if (float8_) ignore("activation_scale");  // of static schemes: activations are not quantised here
}

std::string WeightSet::stored_name(const std::string& hf_name, const std::string& gguf_name) const {
  if (gguf_) return gguf_name;
  if (!dropped_prefix_.empty() && hf_name.rfind(dropped_prefix_, 0) == 0)
    return hf_name.substr(dropped_prefix_.size());
  return hf_name;
}

bool WeightSet::has(const std::string& hf_name, const std::string& gguf_name) const {
  const std::string name = stored_name(hf_name, gguf_name);
  return !mlc_ && !name.empty() && checkpoint_.find(name);
}

Shape WeightSet::stored_shape(const std::string& hf_name, const std::string& gguf_name) const {
  const std::string name = stored_name(hf_name, gguf_name);
  const CheckpointTensor* tensor = name.empty() ? nullptr : checkpoint_.find(name);
  return tensor ? tensor->shape : Shape{};
}

ConstantDataPtr WeightSet::stored(const std::string& hf_name, const std::string& gguf_name,
                                  const Shape& shape) {
  const std::string name = stored_name(hf_name, gguf_name);
  const CheckpointTensor* tensor = name.empty() ? nullptr : checkpoint_.find(name);
  if (!tensor) {
    problems_.push_back("missing: " + name + " " + to_string(shape));
    return nullptr;
  }
  used_.insert(name);
  if (tensor->shape != shape) {
    problems_.push_back("wrong shape: " + name + " must be " + to_string(shape) + ", is " +
                        to_string(tensor->shape));
    return nullptr;
  }
  return with_scales(*tensor);
}

// Floats of 8 bits have their scales beside them where the configuration says so; without it they
// are the values themselves.
ConstantDataPtr WeightSet::with_scales(const CheckpointTensor& tensor) {
  const EncodingKind kind = tensor.encoding.kind;
  ConstantDataPtr codes = stored_constant(tensor);
  if (!float8_ || (kind != EncodingKind::kF8E4M3 && kind != EncodingKind::kF8E5M2)) return codes;
  const std::string name = tensor.name + "_scale_inv";
  const CheckpointTensor* scales = checkpoint_.find(name);
  if (!scales) {
    problems_.push_back("missing: " + name + ", the scales of " + tensor.name);
    return nullptr;
  }
  used_.insert(name);
  const bool whole = float8_->block_rows == 0;
  const int64_t down = whole ? 1 : ceil_div(codes->rows(), float8_->block_rows);
  const int64_t across = whole ? 1 : ceil_div(codes->columns(), float8_->block_columns);
  const bool single = down * across == 1 && element_count(scales->shape) == 1;
  if (tensor.shape.size() != 2 || !is_weight_type(scales->encoding) ||
      (!single && scales->shape != Shape{down, across})) {
    problems_.push_back("wrong scales: " + name + " must be " + to_string(Shape{down, across}) +
                        ", is " + to_string(scales->shape) + " " + to_string(scales->encoding));
    return nullptr;
  }
  return scaled_constant(std::move(codes), stored_constant(*scales), *float8_);
}

ValueId WeightSet::add(const WeightRow& row, ConstantDataPtr data) {
  Constant constant{row.name, row.hf_name, row.gguf_name, std::move(data), row.gguf, row.role};
  if (constant.data && !is_weight_type(constant.data->encoding()))
    problems_.push_back("wrong dtype: " + stored_name(row.hf_name, row.gguf_name) + " is " +
                        to_string(constant.data->encoding()) + ", weights are floating point");
  if (!constant.data) constant.data = std::make_shared<AbsentConstant>(row.shape);
  return builder_.constant(std::move(constant));
}

ConstantDataPtr WeightSet::from_gguf(const WeightRow& row) {
  const GgufPlace& place = row.gguf;
  Shape shape = row.shape;
  if (place.rows) shape[0] = place.rows;
  const bool turned = place.vector && stored_shape("", row.gguf_name).size() == 1;
  ConstantDataPtr data = stored("", row.gguf_name, turned ? Shape{shape.back()} : shape);
  if (data && (place.rows || turned)) data = take_rows(place.first_row, row.shape)(std::move(data));
  if (data && place.paired_heads)
    data = unpermute_heads(std::move(data), row.shape, place.paired_heads);
  return data;
}

ConstantDataPtr WeightSet::from_mlc(const WeightRow& row) {
  const MlcPlace place = mlc_place(builder_.info(), row.name, row.shape);
  if (place.name.empty()) {
    problems_.push_back("MLC's model of this family has no place for " + row.name);
    return nullptr;
  }
  MlcWeight found = find_mlc_weight(checkpoint_, place, row.shape);
  used_.insert(found.tensors.begin(), found.tensors.end());
  if (!found.problem.empty()) problems_.push_back(std::move(found.problem));
  return std::move(found.data);
}

ValueId WeightSet::get(const WeightRow& row) {
  ConstantDataPtr data;
  if (mlc_) {
    data = from_mlc(row);
  } else if (gguf_) {
    data = from_gguf(row);
  } else {
    data = stored(row.hf_name, "", row.stored_shape.empty() ? row.shape : row.stored_shape);
    if (data && row.transform) data = row.transform(std::move(data));
  }
  POME_CHECK(!data || data->shape() == row.shape);
  return add(row, std::move(data));
}

ValueId WeightSet::get_stack(const WeightRow& row,
                             const std::function<std::string(int64_t)>& hf_name) {
  if (gguf_ || mlc_) return get(row);
  std::vector<ConstantDataPtr> parts;
  bool complete = true;
  const Shape one(row.shape.begin() + 1, row.shape.end());
  for (int64_t e = 0; e < row.shape[0]; ++e) {
    // One missing part stands for all: a configuration may declare any number of experts.
    if (!complete && !has(hf_name(e), "")) continue;
    parts.push_back(stored(hf_name(e), "", one));
    complete = complete && parts.back();
    if (e == 0 && !complete) break;
  }
  return add(row, complete ? concat_rows(std::move(parts), row.shape) : nullptr);
}

WeightTransform take_rows(int64_t first, Shape shape) {
  return [first, shape = std::move(shape)](ConstantDataPtr in) {
    return shape.size() == 1 ? slice_elements(std::move(in), first, shape[0])
                             : slice_rows(std::move(in), first, shape);
  };
}

WeightTransform move_rows(std::function<int64_t(int64_t)> order, Shape shape) {
  return [order = std::move(order), shape = std::move(shape)](ConstantDataPtr in) {
    if (shape.size() > 1) return permute_rows(std::move(in), shape, order);
    // Every stored element needs a source, also those that are cut off afterwards.
    const auto all = [order, count = shape[0]](int64_t i) { return i < count ? order(i) : i; };
    return slice_elements(permute_elements(std::move(in), all), 0, shape[0]);
  };
}

WeightTransform add_one() {
  return [](ConstantDataPtr in) { return add_scalar(std::move(in), 1.0f); };
}

Result<std::vector<float>> WeightSet::read_vector(const std::string& hf_name,
                                                  const std::string& gguf_name) {
  const std::string name = stored_name(hf_name, gguf_name);
  const CheckpointTensor* tensor = name.empty() ? nullptr : checkpoint_.find(name);
  if (!tensor) return std::vector<float>{};
  used_.insert(name);
  const ConstantDataPtr data = stored_constant(*tensor);
  if (data->rows() != 1 || data->columns() > 65536) {
    return bad_input(Refusal::kRange, "must be a short vector, is " + to_string(tensor->shape))
        .in(checkpoint_.path)
        .at(name);
  }
  std::vector<float> values(static_cast<size_t>(data->columns()));
  POME_RETURN_IF_ERROR(data->read_f32(0, 1, values.data()));
  return values;
}

Result<std::vector<float>> WeightSet::read_rope_factors(const std::string& gguf_name,
                                                        int64_t count) {
  POME_ASSIGN_OR_RETURN(std::vector<float> factors, read_vector("", gguf_name));
  const auto refuse = [&](std::string message) {
    return bad_input(Refusal::kRange, std::move(message)).in(checkpoint_.path).at(gguf_name);
  };
  if (!factors.empty() && static_cast<int64_t>(factors.size()) != count)
    return refuse("has " + std::to_string(factors.size()) + " factors, expected " +
                  std::to_string(count));
  if (std::any_of(factors.begin(), factors.end(),
                  [](float f) { return !(f > 0) || !std::isfinite(f); }))
    return refuse("factors must be positive and finite");
  return factors;
}

Status WeightSet::finish() const {
  std::vector<std::string> problems = problems_;
  for (const CheckpointTensor& tensor : checkpoint_.tensors) {
    const bool prefixed =
        std::any_of(ignored_prefixes_.begin(), ignored_prefixes_.end(),
                    [&](const std::string& prefix) { return tensor.name.rfind(prefix, 0) == 0; });
    const bool ignored =
        prefixed || std::any_of(ignored_.begin(), ignored_.end(), [&](const std::string& suffix) {
          return tensor.name.size() >= suffix.size() &&
                 tensor.name.compare(tensor.name.size() - suffix.size(), suffix.size(), suffix) ==
                     0;
        });
    if (mlc_ && is_mlc_extra(builder_.info(), tensor.name)) continue;
    if (!ignored && !used_.count(tensor.name))
      problems.push_back("unused: " + tensor.name + " " + to_string(tensor.shape));
  }
  if (problems.empty()) return {};
  std::string text = std::to_string(problems.size()) + " tensor(s) do not match the configuration:";
  constexpr size_t kShown = 100;
  for (size_t i = 0; i < problems.size() && i < kShown; ++i)
    text += "\n  " + escape_for_terminal(problems[i], 256);
  if (problems.size() > kShown)
    text += "\n  and " + std::to_string(problems.size() - kShown) + " more";
  return bad_input(Refusal::kRange, std::move(text))
      .in(checkpoint_.path)
      .hint("is this the configuration that belongs to these weights?");
}

}  // namespace pome
