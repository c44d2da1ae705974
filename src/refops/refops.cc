#include "refops/refops.h"

#include <cmath>
#include <cstring>

namespace pome::refops {

namespace {

int64_t count_of(const Shape& shape) {
  const auto count = element_count(shape);
  POME_CHECK(count.has_value());
  return *count;
}

size_t whole_bytes(DType dtype) {
  const int bits = bits_of(dtype);
  POME_CHECK(bits % 8 == 0);
  return static_cast<size_t>(bits / 8);
}

// Copies `count` elements of `size` bytes from a strided source to a dense target. The common sizes
// are constants so that each copy is a single load and store.
template <size_t kSize>
void copy_strided(const std::byte* from, int64_t stride, int64_t count, std::byte* to) {
  const int64_t step = stride * static_cast<int64_t>(kSize);
  for (int64_t i = 0; i < count; ++i, to += kSize) std::memcpy(to, from + i * step, kSize);
}
void copy_strided(const std::byte* from, int64_t stride, int64_t count, std::byte* to,
                  size_t size) {
  if (stride == 1) {
    if (count > 0) std::memcpy(to, from, static_cast<size_t>(count) * size);
    return;
  }
  switch (size) {
    case 1:
      return copy_strided<1>(from, stride, count, to);
    case 2:
      return copy_strided<2>(from, stride, count, to);
    case 4:
      return copy_strided<4>(from, stride, count, to);
    default:
      return copy_strided<8>(from, stride, count, to);
  }
}

// out[index] = x[start + index . strides]: transposes, slices and broadcasts are all this.
Tensor gather_strided(const Tensor& x, const Shape& shape, const std::vector<int64_t>& strides,
                      int64_t start) {
  const size_t size = whole_bytes(x.dtype());
  Tensor out = Tensor::zeros(x.dtype(), shape);
  if (out.count() == 0) return out;
  // Trailing axes that are dense in the source collapse into one run.
  size_t axes = shape.size();
  int64_t inner = 1;
  int64_t inner_stride = 1;
  if (axes > 0) {
    --axes;
    inner = shape[axes];
    inner_stride = inner == 1 ? 1 : strides[axes];
    while (axes > 0 && inner_stride == 1 && (shape[axes - 1] == 1 || strides[axes - 1] == inner)) {
      --axes;
      inner *= shape[axes];
    }
  }
  const std::byte* from = x.bytes().data();
  std::byte* to = out.mutable_bytes().data();
  const Shape outer(shape.begin(), shape.begin() + static_cast<int64_t>(axes));
  const std::vector<int64_t> outer_strides(strides.begin(),
                                           strides.begin() + static_cast<int64_t>(axes));
  const auto bytes = static_cast<int64_t>(size);
  for_each_offset(outer, outer_strides, outer_strides, [&](int64_t i, int64_t offset, int64_t) {
    copy_strided(from + (start + offset) * bytes, inner_stride, inner, to + i * inner * bytes,
                 size);
  });
  return out;
}

template <size_t kSize>
void select_bytes(const Shape& shape, const Tensor& condition, const Tensor& x, const Tensor& y,
                  Tensor& out) {
  const auto sc = broadcast_strides(condition.shape(), shape);
  const auto sx = broadcast_strides(x.shape(), shape);
  const auto sy = broadcast_strides(y.shape(), shape);
  const std::byte* c = condition.bytes().data();
  const std::byte* a = x.bytes().data();
  const std::byte* b = y.bytes().data();
  std::byte* to = out.mutable_bytes().data();
  const size_t rank = shape.size();
  std::vector<int64_t> at(rank, 0);
  int64_t pc = 0, px = 0, py = 0;
  const int64_t count = out.count();
  const auto step = static_cast<int64_t>(kSize);
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(to + i * step, c[pc] != std::byte{0} ? a + px * step : b + py * step, kSize);
    for (size_t axis = rank; axis-- > 0;) {
      pc += sc[axis];
      px += sx[axis];
      py += sy[axis];
      if (++at[axis] < shape[axis]) break;
      pc -= sc[axis] * shape[axis];
      px -= sx[axis] * shape[axis];
      py -= sy[axis] * shape[axis];
      at[axis] = 0;
    }
  }
}

}  // namespace

std::optional<Shape> broadcast_shape(const Shape& a, const Shape& b) {
  const size_t rank = std::max(a.size(), b.size());
  Shape out(rank);
  for (size_t i = 0; i < rank; ++i) {
    const int64_t x = i < rank - a.size() ? 1 : a[i - (rank - a.size())];
    const int64_t y = i < rank - b.size() ? 1 : b[i - (rank - b.size())];
    if (x != y && x != 1 && y != 1) return std::nullopt;
    out[i] = x == 1 ? y : x;
  }
  return out;
}

std::vector<int64_t> row_major_strides(const Shape& shape) {
  std::vector<int64_t> strides(shape.size());
  int64_t step = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    strides[i] = step;
    step *= shape[i];
  }
  return strides;
}

std::vector<int64_t> broadcast_strides(const Shape& from, const Shape& to) {
  POME_CHECK(from.size() <= to.size());
  const std::vector<int64_t> dense = row_major_strides(from);
  const size_t lead = to.size() - from.size();
  std::vector<int64_t> out(to.size(), 0);
  for (size_t i = 0; i < from.size(); ++i) {
    POME_CHECK(from[i] == to[i + lead] || from[i] == 1);
    out[i + lead] = from[i] == 1 ? 0 : dense[i];
  }
  return out;
}

void for_each_offset(const Shape& shape, const std::vector<int64_t>& strides_a,
                     const std::vector<int64_t>& strides_b,
                     const std::function<void(int64_t, int64_t, int64_t)>& body) {
  const size_t rank = shape.size();
  POME_CHECK(strides_a.size() == rank && strides_b.size() == rank);
  const int64_t count = count_of(shape);
  std::vector<int64_t> at(rank, 0);
  int64_t pa = 0, pb = 0;
  for (int64_t i = 0; i < count; ++i) {
    body(i, pa, pb);
    for (size_t axis = rank; axis-- > 0;) {
      pa += strides_a[axis];
      pb += strides_b[axis];
      if (++at[axis] < shape[axis]) break;
      pa -= strides_a[axis] * shape[axis];
      pb -= strides_b[axis] * shape[axis];
      at[axis] = 0;
    }
  }
}

Tensor select(const Tensor& condition, const Tensor& x, const Tensor& y) {
  POME_CHECK(condition.dtype() == DType::kBool && x.dtype() == y.dtype());
  auto shape = broadcast_shape(x.shape(), y.shape());
  POME_CHECK(shape.has_value());
  shape = broadcast_shape(*shape, condition.shape());
  POME_CHECK(shape.has_value());
  Tensor out = Tensor::zeros(x.dtype(), *shape);
  switch (whole_bytes(x.dtype())) {
    case 1:
      select_bytes<1>(*shape, condition, x, y, out);
      break;
    case 2:
      select_bytes<2>(*shape, condition, x, y, out);
      break;
    case 4:
      select_bytes<4>(*shape, condition, x, y, out);
      break;
    default:
      select_bytes<8>(*shape, condition, x, y, out);
  }
  return out;
}

Tensor transpose(const Tensor& x, std::span<const int32_t> permutation) {
  POME_CHECK(static_cast<int64_t>(permutation.size()) == x.rank());
  const std::vector<int64_t> dense = row_major_strides(x.shape());
  Shape shape(permutation.size());
  std::vector<int64_t> strides(permutation.size());
  std::vector<bool> seen(permutation.size(), false);
  for (size_t i = 0; i < permutation.size(); ++i) {
    const auto axis = static_cast<size_t>(permutation[i]);
    POME_CHECK(axis < dense.size() && !seen[axis]);
    seen[axis] = true;
    shape[i] = x.shape()[axis];
    strides[i] = dense[axis];
  }
  return gather_strided(x, shape, strides, 0);
}

Tensor slice(const Tensor& x, std::span<const int64_t> begin, std::span<const int64_t> end,
             std::span<const int64_t> step) {
  const auto rank = static_cast<size_t>(x.rank());
  POME_CHECK(begin.size() == rank && end.size() == rank && step.size() == rank);
  const std::vector<int64_t> dense = row_major_strides(x.shape());
  Shape shape(rank);
  std::vector<int64_t> strides(rank);
  int64_t start = 0;
  for (size_t i = 0; i < rank; ++i) {
    POME_CHECK(step[i] != 0);
    const int64_t span = step[i] > 0 ? end[i] - begin[i] : begin[i] - end[i];
    const int64_t size = step[i] > 0 ? step[i] : -step[i];
    shape[i] = span > 0 ? (span + size - 1) / size : 0;
    if (shape[i] > 0) {
      const int64_t last = begin[i] + (shape[i] - 1) * step[i];
      POME_CHECK(begin[i] >= 0 && begin[i] < x.shape()[i] && last >= 0 && last < x.shape()[i]);
    }
    strides[i] = dense[i] * step[i];
    start += dense[i] * begin[i];
  }
  return gather_strided(x, shape, strides, start);
}

Tensor concat(std::span<const Tensor> parts, int64_t axis) {
  POME_CHECK(!parts.empty());
  const Tensor& first = parts.front();
  if (axis < 0) axis += first.rank();
  POME_CHECK(axis >= 0 && axis < first.rank());
  const auto at = static_cast<size_t>(axis);
  Shape shape = first.shape();
  shape[at] = 0;
  for (const Tensor& part : parts) {
    POME_CHECK(part.dtype() == first.dtype() && part.rank() == first.rank());
    for (size_t i = 0; i < shape.size(); ++i)
      POME_CHECK(i == at || part.shape()[i] == first.shape()[i]);
    shape[at] += part.shape()[at];
  }
  Tensor out = Tensor::zeros(first.dtype(), shape);
  int64_t outer = 1, inner = static_cast<int64_t>(whole_bytes(first.dtype()));
  for (size_t i = 0; i < at; ++i) outer *= shape[i];
  for (size_t i = at + 1; i < shape.size(); ++i) inner *= shape[i];
  std::byte* to = out.mutable_bytes().data();
  const int64_t row = shape[at] * inner;
  int64_t offset = 0;
  for (const Tensor& part : parts) {
    const int64_t run = part.shape()[at] * inner;
    for (int64_t o = 0; run > 0 && o < outer; ++o)
      std::memcpy(to + o * row + offset, part.bytes().data() + o * run, static_cast<size_t>(run));
    offset += run;
  }
  return out;
}

Tensor broadcast_to(const Tensor& x, const Shape& shape) {
  if (x.shape() == shape) return x.clone();
  return gather_strided(x, shape, broadcast_strides(x.shape(), shape), 0);
}

Tensor reduce(const Tensor& x, Reduce kind, int64_t axis) {
  POME_CHECK(x.dtype() == DType::kF32);
  if (axis < 0) axis += x.rank();
  POME_CHECK(axis >= 0 && axis < x.rank());
  const auto at = static_cast<size_t>(axis);
  Shape shape = x.shape();
  const int64_t n = shape[at];
  shape[at] = 1;
  int64_t outer = 1, inner = 1;
  for (size_t i = 0; i < at; ++i) outer *= shape[i];
  for (size_t i = at + 1; i < shape.size(); ++i) inner *= shape[i];
  POME_CHECK(n > 0 || kind == Reduce::kSum || kind == Reduce::kProd);
  Tensor out = Tensor::zeros(DType::kF32, shape);
  const float* in = x.f32().data();
  float* to = out.mutable_as<float>().data();
  for (int64_t o = 0; o < outer; ++o) {
    for (int64_t k = 0; k < inner; ++k) {
      const float* p = in + o * n * inner + k;
      if (kind == Reduce::kMax || kind == Reduce::kMin) {
        float best = p[0];
        for (int64_t i = 1; i < n; ++i) {
          const float v = p[i * inner];
          // A NaN wins and stays: the comparison with it is false from then on.
          if (std::isnan(v) || (kind == Reduce::kMax ? v > best : v < best)) best = v;
        }
        to[o * inner + k] = best;
        continue;
      }
      double sum = kind == Reduce::kProd ? 1.0 : 0.0;
      for (int64_t i = 0; i < n; ++i) {
        const double v = p[i * inner];
        sum = kind == Reduce::kProd ? sum * v : sum + v;
      }
      if (kind == Reduce::kMean) sum /= static_cast<double>(n);
      to[o * inner + k] = static_cast<float>(sum);
    }
  }
  return out;
}

Tensor gather_rows(const Tensor& table, const Tensor& ids) {
  POME_CHECK(table.rank() >= 1 && ids.dtype() == DType::kI32);
  Shape shape = ids.shape();
  shape.insert(shape.end(), table.shape().begin() + 1, table.shape().end());
  Tensor out = Tensor::zeros(table.dtype(), shape);
  int64_t row = static_cast<int64_t>(whole_bytes(table.dtype()));
  for (size_t i = 1; i < table.shape().size(); ++i) row *= table.shape()[i];
  std::byte* to = out.mutable_bytes().data();
  if (row == 0) return out;
  for (const int32_t id : ids.as<int32_t>()) {
    POME_CHECK(id >= 0 && id < table.dim(0));
    std::memcpy(to, table.bytes().data() + id * row, static_cast<size_t>(row));
    to += row;
  }
  return out;
}

}  // namespace pome::refops
