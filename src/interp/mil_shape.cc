// Operations that move values without computing: shapes, joins, fills.
#include <algorithm>
#include <numeric>
#include <utility>

#include "base/checked.h"
#include "interp/mil_ops.h"
#include "refops/refops.h"

namespace pome::mil_ops {
namespace {

// Core ML's own limit is far lower; this one keeps a malformed shape from asking for all memory.
constexpr int64_t kMaxElements = int64_t{1} << 34;
Result<Shape> checked_shape(std::string_view parameter, std::vector<int64_t> dims) {
  const auto count = element_count(dims);
  if (!count || *count > kMaxElements)
    return bad_operand(parameter, "asks for the shape " + shape_text(dims));
  return dims;
}
Status want_tensor(const Value& value, std::string_view name) {
  if (value.is_text()) return bad_operand(name, "must be a tensor");
  return {};
}

Status reshape(Call& call) {
  POME_ASSIGN_OR_RETURN(std::vector<int64_t> shape, call.ints("shape"));
  Value x = call.take("x");
  POME_RETURN_IF_ERROR(want_tensor(x, "x"));
  int64_t wild = -1, known = 1;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == 0) {
      // Copies the matching dimension of x, counted from the right.
      const int64_t from = x.tensor.rank() - static_cast<int64_t>(shape.size() - i);
      if (from < 0) return bad_operand("shape", "copies a dimension that x does not have");
      shape[i] = x.tensor.dim(from);
    }
    if (shape[i] == -1) {
      if (wild >= 0) return bad_operand("shape", "holds -1 twice");
      wild = static_cast<int64_t>(i);
      continue;
    }
    const auto product = shape[i] < 0 ? std::nullopt : checked_mul(known, shape[i]);
    if (!product) return bad_operand("shape", "is " + shape_text(shape));
    known = *product;
  }
  if (wild >= 0) shape[static_cast<size_t>(wild)] = known == 0 ? 0 : x.tensor.count() / known;
  if (element_count(shape) != x.tensor.count())
    return bad_operand(
        "shape", "is " + shape_text(shape) + " for a value of shape " + shape_text(x.shape()));
  call.emit(x.tensor.reshaped(std::move(shape)), x.type);
  return {};
}

Status transpose(Call& call) {
  const Value& x = call.at("x");
  POME_RETURN_IF_ERROR(want_tensor(x, "x"));
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> axes, call.axes("perm", x.tensor.rank()));
  if (static_cast<int64_t>(axes.size()) != x.tensor.rank())
    return bad_operand("perm", "must name every axis once");
  const std::vector<int32_t> permutation(axes.begin(), axes.end());
  // Axes of size 1 may move without moving any element.
  std::vector<int64_t> moved;
  for (const int64_t axis : axes)
    if (x.tensor.dim(axis) != 1) moved.push_back(axis);
  if (std::is_sorted(moved.begin(), moved.end())) {
    Shape shape;
    for (const int64_t axis : axes) shape.push_back(x.tensor.dim(axis));
    call.emit(x.tensor.reshaped(std::move(shape)), x.type);
    return {};
  }
  call.emit(refops::transpose(x.tensor, permutation), x.type);
  return {};
}

Status expand_dims(Call& call) {
  Value x = call.take("x");
  POME_RETURN_IF_ERROR(want_tensor(x, "x"));
  const auto added = static_cast<int64_t>(call.at("axes").tensor.count());
  const int64_t rank = x.tensor.rank() + added;
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> axes, call.axes("axes", rank));
  Shape shape;
  size_t next = 0;
  for (int64_t i = 0; i < rank; ++i) {
    const bool is_new = std::find(axes.begin(), axes.end(), i) != axes.end();
    shape.push_back(is_new ? 1 : x.shape()[next++]);
  }
  call.emit(x.tensor.reshaped(std::move(shape)), x.type);
  return {};
}

Status squeeze(Call& call) {
  Value x = call.take("x");
  POME_RETURN_IF_ERROR(want_tensor(x, "x"));
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> axes, call.axes("axes", x.tensor.rank()));
  Shape shape;
  for (int64_t i = 0; i < x.tensor.rank(); ++i) {
    const bool named = std::find(axes.begin(), axes.end(), i) != axes.end();
    if (!named || x.tensor.dim(i) != 1) shape.push_back(x.tensor.dim(i));
  }
  call.emit(x.tensor.reshaped(std::move(shape)), x.type);
  return {};
}

Status split(Call& call) {
  const Value& x = call.at("x");
  POME_RETURN_IF_ERROR(want_tensor(x, "x"));
  POME_ASSIGN_OR_RETURN(const int64_t axis, call.axis("axis", 0, x.tensor.rank()));
  const int64_t size = x.tensor.dim(axis);
  std::vector<int64_t> sizes;
  if (call.has("split_sizes")) {
    POME_ASSIGN_OR_RETURN(sizes, call.ints("split_sizes"));
  } else {
    POME_ASSIGN_OR_RETURN(const int64_t parts, call.integer("num_splits", 0));
    if (parts <= 0 || parts > size || size % parts != 0)
      return bad_operand("num_splits",
                         "is " + std::to_string(parts) + " for an axis of " + std::to_string(size));
    sizes.assign(static_cast<size_t>(parts), size / parts);
  }
  int64_t left = size;
  for (const int64_t s : sizes) {
    if (s < 0 || s > left) return bad_operand("split_sizes", "must add up to the axis");
    left -= s;
  }
  if (left != 0) return bad_operand("split_sizes", "must add up to the axis");
  const auto at = static_cast<size_t>(axis);
  std::vector<int64_t> begin(x.shape().size(), 0), end = x.shape(), step(x.shape().size(), 1);
  for (const int64_t s : sizes) {
    end[at] = begin[at] + s;
    call.emit(refops::slice(x.tensor, begin, end, step), x.type);
    begin[at] = end[at];
  }
  return {};
}

// The list `values`, all of one type and rank; scalars become vectors of one.
Result<std::vector<Tensor>> list_of_values(const Call& call, DType* type) {
  std::vector<Tensor> parts;
  for (size_t i = 0; i < call.count("values"); ++i) {
    const Value& value = call.at("values", i);
    POME_RETURN_IF_ERROR(want_tensor(value, "values"));
    if (i == 0) *type = value.type;
    if (value.type != *type) return bad_types(*type, value.type);
    parts.push_back(value.tensor);
    if (parts.back().rank() != parts.front().rank())
      return bad_shapes(parts.front().shape(), parts.back().shape());
  }
  if (parts.empty()) return bad_operand("values", "must not be empty");
  return parts;
}
Status stack_at(Call& call, const std::vector<Tensor>& parts, int64_t axis, DType type,
                const Shape* shape) {
  std::vector<Tensor> expanded;
  for (const Tensor& part : parts) {
    if (part.shape() != parts.front().shape())
      return bad_shapes(parts.front().shape(), part.shape());
    Shape one = part.shape();
    one.insert(one.begin() + axis, 1);
    expanded.push_back(part.reshaped(std::move(one)));
  }
  Tensor out = refops::concat(expanded, axis);
  call.emit(shape == nullptr ? std::move(out) : out.reshaped(*shape), type);
  return {};
}
Status concat(Call& call) {
  DType type = DType::kF32;
  POME_ASSIGN_OR_RETURN(std::vector<Tensor> parts, list_of_values(call, &type));
  if (parts.front().rank() == 0)
    for (Tensor& part : parts) part = part.reshaped({1});
  POME_ASSIGN_OR_RETURN(const int64_t axis, call.axis("axis", 0, parts.front().rank()));
  POME_ASSIGN_OR_RETURN(const bool interleave, call.flag("interleave", false));
  if (interleave) {
    Shape shape = parts.front().shape();
    shape[static_cast<size_t>(axis)] *= static_cast<int64_t>(parts.size());
    return stack_at(call, parts, axis + 1, type, &shape);
  }
  for (const Tensor& part : parts)
    for (int64_t i = 0; i < part.rank(); ++i)
      if (i != axis && part.dim(i) != parts.front().dim(i))
        return bad_shapes(parts.front().shape(), part.shape());
  call.emit(refops::concat(parts, axis), type);
  return {};
}
Status stack(Call& call) {
  DType type = DType::kF32;
  POME_ASSIGN_OR_RETURN(const std::vector<Tensor> parts, list_of_values(call, &type));
  POME_ASSIGN_OR_RETURN(const int64_t axis, call.axis("axis", 0, parts.front().rank() + 1));
  return stack_at(call, parts, axis, type, nullptr);
}

Status tile(Call& call) {
  const Value& x = call.at("x");
  POME_RETURN_IF_ERROR(want_tensor(x, "x"));
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> reps, call.ints("reps"));
  if (static_cast<int64_t>(reps.size()) != x.tensor.rank())
    return bad_operand("reps", "must hold one number per axis");
  Shape split, repeated, shape;
  for (size_t i = 0; i < reps.size(); ++i) {
    const auto size = reps[i] < 1 ? std::nullopt : checked_mul(reps[i], x.shape()[i]);
    if (!size) return bad_operand("reps", "must be positive");
    split.insert(split.end(), {1, x.shape()[i]});
    repeated.insert(repeated.end(), {reps[i], x.shape()[i]});
    shape.push_back(*size);
  }
  POME_ASSIGN_OR_RETURN(shape, checked_shape("reps", std::move(shape)));
  call.emit(refops::broadcast_to(x.tensor.reshaped(std::move(split)), repeated)
                .reshaped(std::move(shape)),
            x.type);
  return {};
}

Status pad(Call& call) {
  POME_ASSIGN_OR_RETURN(const Value x, call.floats("x"));
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> amounts, call.ints("pad"));
  POME_ASSIGN_OR_RETURN(const std::string mode, call.text("mode", "constant"));
  POME_ASSIGN_OR_RETURN(const double fill, call.number("constant_val", 0));
  if (amounts.size() % 2 != 0 || amounts.size() / 2 > x.shape().size())
    return bad_operand("pad", "must hold two numbers per padded axis");
  if (mode != "constant" && mode != "reflect" && mode != "replicate")
    return bad_operand("mode", "is '" + mode + "'");
  // Where each index of an output axis comes from; -1 = the constant.
  const size_t rank = x.shape().size();
  std::vector<std::vector<int64_t>> source(rank);
  Shape shape = x.shape();
  for (size_t i = 0; i < rank; ++i) {
    const size_t padded = rank - amounts.size() / 2;
    const int64_t before = i < padded ? 0 : amounts[2 * (i - padded)];
    const int64_t after = i < padded ? 0 : amounts[2 * (i - padded) + 1];
    const int64_t n = x.shape()[i];
    if (before < 0 || after < 0 || before > kMaxElements || after > kMaxElements)
      return bad_operand("pad", "must not be negative");
    if ((mode == "reflect" && (before >= n || after >= n) && before + after > 0) ||
        (mode == "replicate" && n == 0))
      return bad_operand("pad", "is larger than the axis it reflects");
    shape[i] = n + before + after;
    POME_RETURN_IF_ERROR(checked_shape("pad", shape).status());
    for (int64_t k = -before; k < n + after; ++k) {
      const bool inside = k >= 0 && k < n;
      int64_t from = inside ? k : -1;
      if (!inside && mode == "reflect") from = k < 0 ? -k : 2 * (n - 1) - k;
      if (!inside && mode == "replicate") from = k < 0 ? 0 : n - 1;
      source[i].push_back(from);
    }
  }
  Tensor out = Tensor::zeros(DType::kF32, shape);
  const std::vector<int64_t> strides = refops::row_major_strides(x.shape());
  const std::vector<int64_t> out_strides = refops::row_major_strides(shape);
  auto to = out.mutable_as<float>();
  const auto from = x.tensor.f32();
  for (int64_t i = 0; i < out.count(); ++i) {
    int64_t offset = 0;
    for (size_t axis = 0; axis < rank && offset >= 0; ++axis) {
      const int64_t at = source[axis][static_cast<size_t>(i / out_strides[axis] % shape[axis])];
      offset = at < 0 ? -1 : offset + at * strides[axis];
    }
    to[static_cast<size_t>(i)] =
        offset < 0 ? static_cast<float>(fill) : from[static_cast<size_t>(offset)];
  }
  call.emit(std::move(out), x.type);
  return {};
}

Status reverse(Call& call) {
  const Value& x = call.at("x");
  POME_RETURN_IF_ERROR(want_tensor(x, "x"));
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> axes, call.axes("axes", x.tensor.rank()));
  std::vector<int64_t> begin(x.shape().size(), 0), end = x.shape(), step(x.shape().size(), 1);
  for (const int64_t axis : axes) {
    const auto at = static_cast<size_t>(axis);
    begin[at] = x.shape()[at] - 1;
    end[at] = -1;
    step[at] = -1;
  }
  call.emit(refops::slice(x.tensor, begin, end, step), x.type);
  return {};
}

Status shape_of(Call& call) {
  const Value& x = call.at("x");
  POME_RETURN_IF_ERROR(want_tensor(x, "x"));
  std::vector<int32_t> dims;
  for (const int64_t d : x.shape()) dims.push_back(static_cast<int32_t>(d));
  const auto rank = static_cast<int64_t>(dims.size());
  call.emit(Tensor::from_i32({rank}, std::move(dims)), DType::kI32);
  return {};
}

Status fill_shape(Call& call, const Shape& shape) {
  Value value;
  if (call.has("value"))
    value = call.at("value");
  else
    value = {DType::kF32, Tensor::from_f32({}, {0.0f}), {}};
  POME_RETURN_IF_ERROR(want_tensor(value, "value"));
  if (value.tensor.count() != 1) return bad_operand("value", "must be one number");
  call.emit(refops::broadcast_to(value.tensor.reshaped({}), shape), value.type);
  return {};
}
Status fill(Call& call) {
  POME_ASSIGN_OR_RETURN(std::vector<int64_t> dims, call.ints("shape"));
  POME_ASSIGN_OR_RETURN(const Shape shape, checked_shape("shape", std::move(dims)));
  return fill_shape(call, shape);
}
Status fill_like(Call& call) {
  POME_RETURN_IF_ERROR(want_tensor(call.at("ref_tensor"), "ref_tensor"));
  return fill_shape(call, call.at("ref_tensor").shape());
}

Status range_1d(Call& call) {
  const DType type = call.at("start").type;
  for (const char* name : {"end", "step"}) {
    POME_RETURN_IF_ERROR(want_tensor(call.at(name), name));
    if (call.at(name).type != type) return bad_types(type, call.at(name).type);
  }
  POME_ASSIGN_OR_RETURN(const double start, call.number("start", 0));
  POME_ASSIGN_OR_RETURN(const double end, call.number("end", 0));
  POME_ASSIGN_OR_RETURN(const double step, call.number("step", 1));
  if (step == 0) return bad_operand("step", "must not be 0");
  const double steps = (end - start) / step;
  const auto whole = static_cast<int64_t>(std::clamp(steps, 0.0, 1e9));
  const int64_t count = whole + (steps > static_cast<double>(whole) ? 1 : 0);
  if (count > 1000000000) return bad_operand("end", "makes the range too long");
  const bool floats = is_float(type);
  Tensor out = Tensor::zeros(floats ? DType::kF32 : DType::kI32, {count});
  for (int64_t i = 0; i < count; ++i) {
    const double v = start + static_cast<double>(i) * step;
    if (floats)
      out.mutable_as<float>()[static_cast<size_t>(i)] = static_cast<float>(v);
    else
      out.mutable_as<int32_t>()[static_cast<size_t>(i)] = static_cast<int32_t>(v);
  }
  call.emit(std::move(out), type);
  return {};
}

constexpr OpSpec kOps[] = {
    {"reshape", reshape, "x shape", "", kMoves},
    {"transpose", transpose, "x perm", "", kMoves},
    {"expand_dims", expand_dims, "x axes", "", kMoves},
    {"squeeze", squeeze, "x", "axes", kMoves},
    {"split", split, "x axis", "num_splits split_sizes", kMoves | kManyOutputs},
    {"concat", concat, "values* axis", "interleave", kMoves},
    {"stack", stack, "values* axis", "", kMoves},
    {"tile", tile, "x reps", "", kMoves},
    {"pad", pad, "x pad", "mode constant_val"},
    {"reverse", reverse, "x", "axes", kMoves},
    {"shape", shape_of, "x", ""},
    {"fill", fill, "shape", "value"},
    {"fill_like", fill_like, "ref_tensor", "value"},
    {"range_1d", range_1d, "start end step", ""},
};

}  // namespace

std::span<const OpSpec> shape_ops() { return kOps; }

}  // namespace pome::mil_ops
