// Operators that move elements, and those that make indices.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "interp/onnx_ops.h"
#include "refops/refops.h"

namespace pome::onnx_ops {
namespace {

constexpr int64_t kMostElements = int64_t{1} << 40;

Tensor i64_tensor(Shape shape, const std::vector<int64_t>& values) {
  Tensor out = Tensor::zeros(DType::kI64, std::move(shape));
  std::copy(values.begin(), values.end(), out.mutable_as<int64_t>().begin());
  return out;
}

Status reshape(Call& call) {
  const Tensor& x = call.in(0);
  POME_ASSIGN_OR_RETURN(std::vector<int64_t> dims, call.ints(1));
  const bool keep_zero = call.integer("allowzero", 0) != 0;
  int64_t known = 1;
  std::optional<size_t> open;
  for (size_t i = 0; i < dims.size(); ++i) {
    if (dims[i] == 0 && !keep_zero) {
      if (i >= x.shape().size()) return bad_operand(1, "copies a dimension that is not there");
      dims[i] = x.shape()[i];
    }
    if (dims[i] == -1) {
      if (open) return bad_operand(1, "leaves two dimensions open");
      open = i;
    } else if (dims[i] < 0 ||
               (known != 0 && dims[i] > kMostElements / std::max<int64_t>(known, 1))) {
      return bad_operand(1, "has the dimension " + std::to_string(dims[i]));
    } else {
      known *= dims[i];
    }
  }
  if (open) {
    if (known == 0 || x.count() % known != 0) return bad_operand(1, "does not divide the tensor");
    dims[*open] = x.count() / known;
  }
  if (element_count(dims) != x.count())
    return bad_operand(1, "asks for " + to_string(Shape(dims)) + " of " + to_string(x.shape()));
  call.emit(x.reshaped(std::move(dims)));
  return {};
}

Status transpose(Call& call) {
  const int64_t rank = call.in(0).rank();
  std::vector<int64_t> order(static_cast<size_t>(rank));
  std::iota(order.rbegin(), order.rend(), 0);
  order = call.integers("perm").value_or(order);
  std::vector<int64_t> sorted = order;
  std::sort(sorted.begin(), sorted.end());
  for (size_t i = 0; i < sorted.size(); ++i)
    if (sorted[i] != static_cast<int64_t>(i)) return bad_operand(0, "has no such order of axes");
  if (static_cast<int64_t>(order.size()) != rank) return bad_operand(0, "has another rank");
  const std::vector<int32_t> permutation(order.begin(), order.end());
  call.emit(refops::transpose(call.in(0), permutation));
  return {};
}

Status slice(Call& call) {
  const Tensor& x = call.in(0);
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> starts, call.ints(1));
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> ends, call.ints(2));
  std::vector<int64_t> axes(starts.size()), steps(starts.size(), 1);
  std::iota(axes.begin(), axes.end(), 0);
  if (call.has(3)) {
    POME_ASSIGN_OR_RETURN(axes, call.ints(3));
  }
  if (call.has(4)) {
    POME_ASSIGN_OR_RETURN(steps, call.ints(4));
  }
  if (ends.size() != starts.size() || axes.size() != starts.size() || steps.size() != starts.size())
    return bad_operand(2, "has another number of bounds");
  const size_t rank = static_cast<size_t>(x.rank());
  std::vector<int64_t> begin(rank, 0), end(x.shape()), step(rank, 1);
  for (size_t i = 0; i < starts.size(); ++i) {
    POME_ASSIGN_OR_RETURN(const size_t axis, call.axis(axes[i], x.rank()));
    const int64_t n = x.shape()[axis];
    if (steps[i] < 1) return bad_operand(4, "has the step " + std::to_string(steps[i]));
    const auto place = [&](int64_t at) {
      return std::clamp<int64_t>(at < 0 ? (at < -n ? 0 : at + n) : at, 0, n);
    };
    begin[axis] = place(starts[i]);
    end[axis] = std::max(begin[axis], place(ends[i]));
    step[axis] = steps[i];
  }
  call.emit(refops::slice(x, begin, end, step));
  return {};
}

Status split(Call& call) {
  const Tensor& x = call.in(0);
  POME_ASSIGN_OR_RETURN(const size_t axis, call.axis(call.integer("axis", 0), x.rank()));
  const int64_t n = x.shape()[axis], outputs = static_cast<int64_t>(call.node().outputs.size());
  std::vector<int64_t> sizes;
  if (call.has(1)) {
    POME_ASSIGN_OR_RETURN(sizes, call.ints(1));
  } else {
    const int64_t each = (n + outputs - 1) / outputs;
    for (int64_t left = n; left > 0; left -= each) sizes.push_back(std::min(each, left));
  }
  if (std::accumulate(sizes.begin(), sizes.end(), int64_t{0}) != n ||
      std::any_of(sizes.begin(), sizes.end(), [](int64_t s) { return s < 0; }))
    return bad_operand(1, "does not add up to " + std::to_string(n));
  std::vector<int64_t> begin(x.shape().size(), 0), end(x.shape()), step(x.shape().size(), 1);
  for (const int64_t size : sizes) {
    end[axis] = begin[axis] + size;
    call.emit(refops::slice(x, begin, end, step));
    begin[axis] = end[axis];
  }
  return {};
}

Status concat(Call& call) {
  std::vector<Tensor> parts;
  POME_ASSIGN_OR_RETURN(const size_t axis, call.axis(call.integer("axis", 0), call.in(0).rank()));
  for (size_t i = 0; i < call.count(); ++i) {
    Shape a = call.in(0).shape(), b = call.has(i) ? call.in(i).shape() : Shape();
    if (!call.has(i) || call.in(i).dtype() != call.in(0).dtype() || a.size() != b.size())
      return bad_operand(i, "does not fit the first one");
    a[axis] = b[axis] = 0;
    if (a != b) return bad_shapes(call.in(0).shape(), call.in(i).shape());
    parts.push_back(call.in(i));
  }
  call.emit(refops::concat(parts, static_cast<int64_t>(axis)));
  return {};
}

// x[:axis] + indices + x[axis + 1:], for element types of whole bytes.
Status gather(Call& call) {
  const Tensor& x = call.in(0);
  POME_ASSIGN_OR_RETURN(const size_t axis, call.axis(call.integer("axis", 0), x.rank()));
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> ids, call.ints(1));
  if (bits_of(x.dtype()) < 8) return bad_operand(0, "has elements of less than a byte");
  const Shape& shape = x.shape();
  const auto at = static_cast<ptrdiff_t>(axis);
  Shape out_shape(shape.begin(), shape.begin() + at);
  out_shape.insert(out_shape.end(), call.in(1).shape().begin(), call.in(1).shape().end());
  out_shape.insert(out_shape.end(), shape.begin() + at + 1, shape.end());
  int64_t outer = 1, inner = bits_of(x.dtype()) / 8;
  for (size_t i = 0; i < axis; ++i) outer *= shape[i];
  for (size_t i = axis + 1; i < shape.size(); ++i) inner *= shape[i];
  Tensor out = Tensor::zeros(x.dtype(), std::move(out_shape));
  std::byte* to = out.mutable_bytes().data();
  for (int64_t o = 0; o < outer; ++o) {
    for (const int64_t id : ids) {
      const int64_t row = id < 0 ? id + shape[axis] : id;
      if (row < 0 || row >= shape[axis])
        return bad_operand(
            1, "holds " + std::to_string(id) + " for an axis of " + std::to_string(shape[axis]));
      std::memcpy(to, x.bytes().data() + (o * shape[axis] + row) * inner,
                  static_cast<size_t>(inner));
      to += inner;
    }
  }
  call.emit(std::move(out));
  return {};
}

Status shape_op(Call& call) {
  const Shape& shape = call.in(0).shape();
  const int64_t rank = static_cast<int64_t>(shape.size());
  const auto place = [&](int64_t at) {
    return std::clamp<int64_t>(at < 0 ? at + rank : at, 0, rank);
  };
  const int64_t start = place(call.integer("start", 0));
  const int64_t end = std::max(start, place(call.integer("end", rank)));
  call.emit(i64_tensor({end - start}, {shape.begin() + start, shape.begin() + end}));
  return {};
}

Status range(Call& call) {
  if (call.in(0).dtype() != DType::kI64) return bad_operand(0, "must be int64");
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> start, call.ints(0));
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> limit, call.ints(1));
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> delta, call.ints(2));
  if (start.size() != 1 || limit.size() != 1 || delta.size() != 1 || delta[0] != 1)
    return bad_operand(2, "must be the scalar 1");
  const int64_t count = std::max<int64_t>(limit[0] - start[0], 0);
  if (count > kMostElements) return bad_operand(1, "is too far away");
  std::vector<int64_t> values(static_cast<size_t>(count));
  std::iota(values.begin(), values.end(), start[0]);
  call.emit(i64_tensor({count}, values));
  return {};
}

Status unsqueeze(Call& call) {
  const Shape& from = call.in(0).shape();
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> axes, call.ints(1));
  const size_t rank = from.size() + axes.size();
  std::vector<bool> added(rank, false);
  for (const int64_t value : axes) {
    POME_ASSIGN_OR_RETURN(const size_t axis, call.axis(value, static_cast<int64_t>(rank)));
    if (added[axis]) return bad_operand(1, "names an axis twice");
    added[axis] = true;
  }
  Shape out;
  size_t next = 0;
  for (size_t i = 0; i < rank; ++i) out.push_back(added[i] ? 1 : from[next++]);
  call.emit(call.in(0).reshaped(std::move(out)));
  return {};
}

Status squeeze(Call& call) {
  const Shape& from = call.in(0).shape();
  std::vector<bool> gone(from.size(), !call.has(1));
  for (size_t i = 0; i < from.size() && !call.has(1); ++i) gone[i] = from[i] == 1;
  if (call.has(1)) {
    POME_ASSIGN_OR_RETURN(const std::vector<int64_t> axes, call.ints(1));
    for (const int64_t value : axes) {
      POME_ASSIGN_OR_RETURN(const size_t axis, call.axis(value, call.in(0).rank()));
      if (from[axis] != 1) return bad_operand(1, "names an axis that is not 1");
      gone[axis] = true;
    }
  }
  Shape out;
  for (size_t i = 0; i < from.size(); ++i)
    if (!gone[i]) out.push_back(from[i]);
  call.emit(call.in(0).reshaped(std::move(out)));
  return {};
}

Status expand(Call& call) {
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> wanted, call.ints(1));
  const auto shape = refops::broadcast_shape(call.in(0).shape(), wanted);
  if (!shape || !element_count(*shape)) return bad_shapes(call.in(0).shape(), wanted);
  call.emit(refops::broadcast_to(call.in(0), *shape));
  return {};
}

// The k largest of the last axis, the lower index first among equals.
Status top_k(Call& call) {
  POME_ASSIGN_OR_RETURN(const Tensor x, call.floats(0));
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> wanted, call.ints(1));
  POME_ASSIGN_OR_RETURN(const size_t axis, call.axis(call.integer("axis", -1), x.rank()));
  const int64_t n = x.shape()[axis], k = wanted.size() == 1 ? wanted[0] : -1;
  if (axis + 1 != x.shape().size() || call.integer("largest", 1) != 1 || k < 0 || k > n)
    return bad_operand(1, "asks for other than the k largest of the last axis");
  Shape shape = x.shape();
  shape.back() = k;
  Tensor values = Tensor::zeros(DType::kF32, shape), indices = Tensor::zeros(DType::kI64, shape);
  std::vector<int64_t> order(static_cast<size_t>(n));
  for (int64_t row = 0; n > 0 && row < x.count() / n; ++row) {
    const float* from = x.f32().data() + row * n;
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return from[a] > from[b]; });
    for (int64_t i = 0; i < k; ++i) {
      const int64_t which = order[static_cast<size_t>(i)];
      values.mutable_as<float>()[static_cast<size_t>(row * k + i)] = from[which];
      indices.mutable_as<int64_t>()[static_cast<size_t>(row * k + i)] = which;
    }
  }
  call.emit(rounded_to(values, call.in(0).dtype()));
  call.emit(std::move(indices));
  return {};
}

Status one_hot(Call& call) {
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> ids, call.ints(0));
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> depth, call.ints(1));
  POME_ASSIGN_OR_RETURN(const Tensor off_on, call.floats(2));
  if (call.integer("axis", -1) != -1 || depth.size() != 1 || depth[0] < 1 || off_on.count() != 2 ||
      depth[0] > kMostElements / std::max<int64_t>(call.in(0).count(), 1))
    return bad_operand(1, "must be one depth, with the new axis last");
  Shape shape = call.in(0).shape();
  shape.push_back(depth[0]);
  Tensor out = Tensor::zeros(DType::kF32, std::move(shape));
  auto to = out.mutable_as<float>();
  std::fill(to.begin(), to.end(), off_on.f32()[0]);
  for (size_t i = 0; i < ids.size(); ++i) {
    const int64_t id = ids[i] < 0 ? ids[i] + depth[0] : ids[i];
    if (id >= 0 && id < depth[0])
      to[i * static_cast<size_t>(depth[0]) + static_cast<size_t>(id)] = off_on.f32()[1];
  }
  call.emit(std::move(out));
  return {};
}

constexpr OpSpec kOps[] = {
    {"", "Reshape", 2, 2, reshape},     {"", "Transpose", 1, 1, transpose},
    {"", "Slice", 3, 5, slice},         {"", "Split", 1, 2, split},
    {"", "Concat", 1, 1 << 16, concat}, {"", "Gather", 2, 2, gather},
    {"", "Shape", 1, 1, shape_op},      {"", "Range", 3, 3, range},
    {"", "Unsqueeze", 2, 2, unsqueeze}, {"", "Squeeze", 1, 2, squeeze},
    {"", "Expand", 2, 2, expand},       {"", "TopK", 2, 2, top_k},
    {"", "OneHot", 3, 3, one_hot},
};

}  // namespace

std::span<const OpSpec> shape_ops() { return kOps; }

}  // namespace pome::onnx_ops
