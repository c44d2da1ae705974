// gather and scatter. An index outside its axis is an error whether or not validate_indices asks
// for the check: Core ML leaves such reads undefined, and an interpreter that verifies packages
// must not hide them. Negative indices count from the end, as they did before iOS 17.
#include <algorithm>
#include <cstring>
#include <utility>

#include "interp/mil_ops.h"
#include "refops/refops.h"

namespace pome::mil_ops {
namespace {

int64_t product(const Shape& shape, size_t from, size_t to) {
  int64_t out = 1;
  for (size_t i = from; i < to; ++i) out *= shape[i];
  return out;
}
size_t element_bytes(const Tensor& x) { return static_cast<size_t>(bits_of(x.dtype()) / 8); }

Result<Tensor> indices_of(const Call& call) {
  const Value& value = call.at("indices");
  if (value.is_text() || !is_integer(value.type)) return bad_operand("indices", "must be integers");
  return value.tensor;
}
Result<int64_t> checked_index(int64_t index, int64_t size) {
  const int64_t at = index < 0 ? index + size : index;
  if (at < 0 || at >= size)
    return bad_operand(
        "indices", "holds " + std::to_string(index) + " for an axis of " + std::to_string(size));
  return at;
}

// out = x[:axis] + indices[batch_dims:] + x[axis+1:]
Status gather(Call& call) {
  const Value& x = call.at("x");
  if (x.is_text()) return bad_operand("x", "must be a tensor");
  POME_ASSIGN_OR_RETURN(const Tensor indices, indices_of(call));
  POME_ASSIGN_OR_RETURN(const int64_t axis_value, call.axis("axis", 0, x.tensor.rank()));
  POME_ASSIGN_OR_RETURN(const int64_t batch_value, call.integer("batch_dims", 0));
  if (batch_value < 0 || batch_value > axis_value || batch_value > indices.rank())
    return bad_operand("batch_dims", "is " + std::to_string(batch_value));
  const auto axis = static_cast<size_t>(axis_value), batch = static_cast<size_t>(batch_value);
  const Shape& shape = x.shape();
  if (!std::equal(shape.begin(), shape.begin() + batch_value, indices.shape().begin()))
    return bad_shapes(shape, indices.shape());
  Shape out_shape(shape.begin(), shape.begin() + axis_value);
  out_shape.insert(out_shape.end(), indices.shape().begin() + batch_value, indices.shape().end());
  out_shape.insert(out_shape.end(), shape.begin() + axis_value + 1, shape.end());
  const int64_t batches = product(shape, 0, batch), outer = product(shape, batch, axis);
  const int64_t n = shape[axis];
  const size_t run =
      static_cast<size_t>(product(shape, axis + 1, shape.size())) * element_bytes(x.tensor);
  const int64_t picks = product(indices.shape(), batch, indices.shape().size());
  Tensor out = Tensor::zeros(x.tensor.dtype(), std::move(out_shape));
  const std::byte* from = x.tensor.bytes().data();
  std::byte* to = out.mutable_bytes().data();
  const auto ids = indices.as<int32_t>();
  for (int64_t b = 0; b < batches; ++b) {
    for (int64_t o = 0; o < outer; ++o) {
      const std::byte* block = from + static_cast<size_t>((b * outer + o) * n) * run;
      for (int64_t i = 0; i < picks; ++i, to += run) {
        POME_ASSIGN_OR_RETURN(const int64_t at,
                              checked_index(ids[static_cast<size_t>(b * picks + i)], n));
        if (run > 0) std::memcpy(to, block + static_cast<size_t>(at) * run, run);
      }
    }
  }
  call.emit(std::move(out), x.type);
  return {};
}

// Calls body(position in `indices`, offset into a tensor of shape `shape`), where indices has that
// shape but for `axis`, and its elements replace the coordinate on `axis` (numpy's
// take_along_axis).
template <typename F>
Status along_axis(const Shape& shape, const Tensor& indices, size_t axis, F body) {
  if (indices.shape().size() != shape.size()) return bad_shapes(shape, indices.shape());
  for (size_t i = 0; i < shape.size(); ++i)
    if (i != axis && indices.shape()[i] > shape[i]) return bad_shapes(shape, indices.shape());
  const std::vector<int64_t> strides = refops::row_major_strides(shape);
  const std::vector<int64_t> steps = refops::row_major_strides(indices.shape());
  const auto ids = indices.as<int32_t>();
  for (int64_t i = 0; i < indices.count(); ++i) {
    int64_t offset = 0;
    for (size_t d = 0; d < shape.size(); ++d)
      if (d != axis) offset += i / steps[d] % indices.shape()[d] * strides[d];
    POME_ASSIGN_OR_RETURN(const int64_t at,
                          checked_index(ids[static_cast<size_t>(i)], shape[axis]));
    body(i, offset + at * strides[axis]);
  }
  return {};
}
Status gather_along_axis(Call& call) {
  const Value& x = call.at("x");
  if (x.is_text()) return bad_operand("x", "must be a tensor");
  POME_ASSIGN_OR_RETURN(const Tensor indices, indices_of(call));
  POME_ASSIGN_OR_RETURN(const int64_t axis, call.axis("axis", 0, x.tensor.rank()));
  Tensor out = Tensor::zeros(x.tensor.dtype(), indices.shape());
  const size_t size = element_bytes(x.tensor);
  const std::byte* from = x.tensor.bytes().data();
  std::byte* to = out.mutable_bytes().data();
  POME_RETURN_IF_ERROR(
      along_axis(x.shape(), indices, static_cast<size_t>(axis), [&](int64_t i, int64_t offset) {
        std::memcpy(to + static_cast<size_t>(i) * size, from + static_cast<size_t>(offset) * size,
                    size);
      }));
  call.emit(std::move(out), x.type);
  return {};
}

// Offsets into `shape` that the rows of `indices` [.., K] name after `batch` leading axes.
Result<std::vector<int64_t>> nd_offsets(const Shape& shape, const Tensor& indices, size_t batch) {
  if (indices.rank() < 1 || static_cast<size_t>(indices.rank()) <= batch)
    return bad_operand("indices", "must have an axis of coordinates");
  const auto depth = static_cast<size_t>(indices.dim(-1));
  if (batch + depth > shape.size() || depth == 0 ||
      !std::equal(shape.begin(), shape.begin() + static_cast<int64_t>(batch),
                  indices.shape().begin()))
    return bad_shapes(shape, indices.shape());
  const std::vector<int64_t> strides = refops::row_major_strides(shape);
  const int64_t rows = indices.count() / static_cast<int64_t>(depth);
  const int64_t batches = product(shape, 0, batch);
  const int64_t per_batch = batches == 0 ? 0 : rows / batches;
  const int64_t block = product(shape, batch, shape.size());
  const auto ids = indices.as<int32_t>();
  std::vector<int64_t> offsets;
  for (int64_t r = 0; r < rows; ++r) {
    int64_t offset = per_batch == 0 ? 0 : r / per_batch * block;
    for (size_t d = 0; d < depth; ++d) {
      POME_ASSIGN_OR_RETURN(const int64_t at, checked_index(ids[static_cast<size_t>(r) * depth + d],
                                                            shape[batch + d]));
      offset += at * strides[batch + d];
    }
    offsets.push_back(offset);
  }
  return offsets;
}
Status gather_nd(Call& call) {
  const Value& x = call.at("x");
  if (x.is_text()) return bad_operand("x", "must be a tensor");
  POME_ASSIGN_OR_RETURN(const Tensor indices, indices_of(call));
  POME_ASSIGN_OR_RETURN(const int64_t batch, call.integer("batch_dims", 0));
  if (batch < 0 || batch >= x.tensor.rank()) return bad_operand("batch_dims", "is out of range");
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> offsets,
                        nd_offsets(x.shape(), indices, static_cast<size_t>(batch)));
  const auto used = static_cast<size_t>(batch + indices.dim(-1));
  Shape shape(indices.shape().begin(), indices.shape().end() - 1);
  shape.insert(shape.end(), x.shape().begin() + static_cast<int64_t>(used), x.shape().end());
  const size_t size = element_bytes(x.tensor);
  const size_t run = static_cast<size_t>(product(x.shape(), used, x.shape().size())) * size;
  Tensor out = Tensor::zeros(x.tensor.dtype(), std::move(shape));
  std::byte* to = out.mutable_bytes().data();
  for (const int64_t offset : offsets) {
    if (run > 0) std::memcpy(to, x.tensor.bytes().data() + static_cast<size_t>(offset) * size, run);
    to += run;
  }
  call.emit(std::move(out), x.type);
  return {};
}

// ---- scatter

enum class Mode { kAdd, kDiv, kMax, kMin, kMul, kSub, kUpdate };
Result<Mode> mode_of(const Call& call) {
  POME_ASSIGN_OR_RETURN(const std::string name, call.text("mode", "add"));
  constexpr std::pair<std::string_view, Mode> kModes[] = {
      {"add", Mode::kAdd}, {"div", Mode::kDiv}, {"max", Mode::kMax},      {"min", Mode::kMin},
      {"mul", Mode::kMul}, {"sub", Mode::kSub}, {"update", Mode::kUpdate}};
  for (const auto& [text, mode] : kModes)
    if (name == text) return mode;
  return bad_operand("mode", "is '" + name + "'");
}
template <typename T>
T merge(Mode mode, T old, T update) {
  switch (mode) {
    case Mode::kAdd:
      return old + update;
    case Mode::kSub:
      return old - update;
    case Mode::kMul:
      return old * update;
    case Mode::kDiv:
      if constexpr (std::is_integral_v<T>)
        return update == 0 ? 0 : static_cast<T>(int64_t{old} / update);
      else
        return old / update;
    case Mode::kMax:
      return std::max(old, update);
    case Mode::kMin:
      return std::min(old, update);
    case Mode::kUpdate:
      break;
  }
  return update;
}
// data and updates of one numeric type.
Status check_scatter(const Call& call) {
  const Value& data = call.at("data");
  const Value& updates = call.at("updates");
  if (data.is_text() || updates.is_text() || data.type == DType::kBool)
    return bad_operand("data", "must be a tensor of numbers");
  if (data.type != updates.type) return bad_types(data.type, updates.type);
  return {};
}
// Merges update element `from` into data element `to`, in order.
class Scatter {
 public:
  Scatter(Call& call, Mode mode)
      : type_(call.at("data").type),
        mode_(mode),
        updates_(call.at("updates").tensor),
        out_(call.at("data").tensor.clone()) {}
  void operator()(int64_t from, int64_t to) {
    const auto f = static_cast<size_t>(from), t = static_cast<size_t>(to);
    if (is_float(type_)) {
      float& v = out_.mutable_as<float>()[t];
      v = merge(mode_, v, updates_.f32()[f]);
    } else {
      int32_t& v = out_.mutable_as<int32_t>()[t];
      v = merge(mode_, v, updates_.as<int32_t>()[f]);
    }
  }
  Tensor result() { return std::move(out_); }

 private:
  DType type_;
  Mode mode_;
  Tensor updates_, out_;
};

// data[.., indices[i], ..] (mode)= updates[.., i, ..]
Status scatter(Call& call) {
  POME_RETURN_IF_ERROR(check_scatter(call));
  const Value& data = call.at("data");
  const Value& updates = call.at("updates");
  POME_ASSIGN_OR_RETURN(const Tensor indices, indices_of(call));
  POME_ASSIGN_OR_RETURN(const int64_t axis_value, call.axis("axis", 0, data.tensor.rank()));
  POME_ASSIGN_OR_RETURN(const Mode mode, mode_of(call));
  const auto axis = static_cast<size_t>(axis_value);
  Shape expected = data.shape();
  expected[axis] = indices.count();
  if (indices.rank() != 1 || updates.shape() != expected)
    return bad_shapes(expected, updates.shape());
  const int64_t outer = product(data.shape(), 0, axis), n = data.shape()[axis];
  const int64_t inner = product(data.shape(), axis + 1, data.shape().size());
  Scatter write(call, mode);
  for (int64_t o = 0; o < outer; ++o) {
    for (int64_t i = 0; i < indices.count(); ++i) {
      POME_ASSIGN_OR_RETURN(const int64_t at,
                            checked_index(indices.as<int32_t>()[static_cast<size_t>(i)], n));
      for (int64_t k = 0; k < inner; ++k)
        write((o * indices.count() + i) * inner + k, (o * n + at) * inner + k);
    }
  }
  call.emit(write.result(), data.type);
  return {};
}
Status scatter_along_axis(Call& call) {
  POME_RETURN_IF_ERROR(check_scatter(call));
  const Value& data = call.at("data");
  POME_ASSIGN_OR_RETURN(const Tensor indices, indices_of(call));
  POME_ASSIGN_OR_RETURN(const int64_t axis, call.axis("axis", 0, data.tensor.rank()));
  POME_ASSIGN_OR_RETURN(const Mode mode, mode_of(call));
  if (call.at("updates").shape() != indices.shape())
    return bad_shapes(indices.shape(), call.at("updates").shape());
  Scatter write(call, mode);
  POME_RETURN_IF_ERROR(along_axis(data.shape(), indices, static_cast<size_t>(axis),
                                  [&](int64_t i, int64_t offset) { write(i, offset); }));
  call.emit(write.result(), data.type);
  return {};
}
Status scatter_nd(Call& call) {
  POME_RETURN_IF_ERROR(check_scatter(call));
  const Value& data = call.at("data");
  const Value& updates = call.at("updates");
  POME_ASSIGN_OR_RETURN(const Tensor indices, indices_of(call));
  POME_ASSIGN_OR_RETURN(const Mode mode, mode_of(call));
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> offsets, nd_offsets(data.shape(), indices, 0));
  const auto depth = static_cast<size_t>(indices.dim(-1));
  Shape expected(indices.shape().begin(), indices.shape().end() - 1);
  expected.insert(expected.end(), data.shape().begin() + static_cast<int64_t>(depth),
                  data.shape().end());
  if (updates.shape() != expected) return bad_shapes(expected, updates.shape());
  const int64_t run = product(data.shape(), depth, data.shape().size());
  Scatter write(call, mode);
  for (size_t r = 0; r < offsets.size(); ++r)
    for (int64_t k = 0; k < run; ++k) write(static_cast<int64_t>(r) * run + k, offsets[r] + k);
  call.emit(write.result(), data.type);
  return {};
}

// An index outside the vector gives a row of off_value (as in numpy comparisons).
Status one_hot(Call& call) {
  POME_ASSIGN_OR_RETURN(const Tensor indices, indices_of(call));
  POME_ASSIGN_OR_RETURN(const int64_t size, call.integer("one_hot_vector_size", 0));
  POME_ASSIGN_OR_RETURN(const int64_t axis, call.axis("axis", -1, indices.rank() + 1));
  POME_ASSIGN_OR_RETURN(const double on, call.number("on_value", 1));
  POME_ASSIGN_OR_RETURN(const double off, call.number("off_value", 0));
  const DType type = call.has("on_value")    ? call.at("on_value").type
                     : call.has("off_value") ? call.at("off_value").type
                                             : DType::kI32;
  if (call.has("off_value") && call.at("off_value").type != type)
    return bad_types(type, call.at("off_value").type);
  if (size < 0 || size > (int64_t{1} << 31)) return bad_operand("one_hot_vector_size", "is wrong");
  Shape shape = indices.shape();
  shape.insert(shape.begin() + axis, size);
  if (!element_count(shape)) return bad_operand("one_hot_vector_size", "is too large");
  const int64_t inner = product(indices.shape(), static_cast<size_t>(axis), indices.shape().size());
  Tensor out = Tensor::zeros(DType::kF32, shape);
  auto to = out.mutable_as<float>();
  const auto ids = indices.as<int32_t>();
  for (int64_t i = 0; i < out.count(); ++i) {
    const int64_t k = i / inner % size;
    const int64_t from = i / (inner * size) * inner + i % inner;
    const bool hit = ids[static_cast<size_t>(from)] == k;
    to[static_cast<size_t>(i)] = static_cast<float>(hit ? on : off);
  }
  if (is_float(type))
    call.emit(std::move(out), type);
  else
    call.emit(refops::map<float, int32_t>(out, [](float v) { return static_cast<int32_t>(v); }),
              type);
  return {};
}

constexpr OpSpec kOps[] = {
    {"gather", gather, "x indices", "axis batch_dims validate_indices", kMoves},
    {"gather_along_axis", gather_along_axis, "x indices", "axis validate_indices", kMoves},
    {"gather_nd", gather_nd, "x indices", "batch_dims validate_indices", kMoves},
    {"scatter", scatter, "data indices updates", "axis mode validate_indices"},
    {"scatter_along_axis", scatter_along_axis, "data indices updates",
     "axis mode validate_indices"},
    {"scatter_nd", scatter_nd, "data indices updates", "mode validate_indices"},
    {"one_hot", one_hot, "indices one_hot_vector_size", "axis on_value off_value"},
};

}  // namespace

std::span<const OpSpec> gather_ops() { return kOps; }

}  // namespace pome::mil_ops
