// slice_by_index, slice_by_size and slice_update.
//
// Per axis: begin : end : stride as in numpy (negative counts from the end, out-of-range bounds are
// clamped); a set begin_mask or end_mask means "from the start" or "to the end" in the direction of
// the stride; a set squeeze_mask takes the single index `begin` and drops the axis.
#include <algorithm>
#include <cstring>
#include <utility>

#include "base/checked.h"
#include "interp/mil_ops.h"
#include "refops/refops.h"

namespace pome::mil_ops {
namespace {

struct Region {
  std::vector<int64_t> begin, end, step;
  Shape full;      // elements taken per axis
  Shape squeezed;  // without the squeezed axes
};

int64_t elements_between(int64_t begin, int64_t end, int64_t step) {
  const int64_t span = step > 0 ? end - begin : begin - end;
  const int64_t size = step > 0 ? step : -step;
  return span > 0 ? ceil_div(span, size) : 0;
}

Result<Region> region_of(const Call& call, const Shape& shape) {
  const size_t rank = shape.size();
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> begin, call.ints("begin"));
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> end, call.ints("end"));
  std::vector<int64_t> step(rank, 1);
  if (call.has("stride")) {
    POME_ASSIGN_OR_RETURN(step, call.ints("stride"));
  }
  if (begin.size() != rank || end.size() != rank || step.size() != rank)
    return bad_operand("begin", "must, as end and stride, hold one number per axis");
  POME_ASSIGN_OR_RETURN(const std::vector<bool> begin_mask, call.flags("begin_mask", rank));
  POME_ASSIGN_OR_RETURN(const std::vector<bool> end_mask, call.flags("end_mask", rank));
  POME_ASSIGN_OR_RETURN(const std::vector<bool> squeeze, call.flags("squeeze_mask", rank));
  Region region;
  for (size_t i = 0; i < rank; ++i) {
    const int64_t n = shape[i];
    int64_t b = begin[i] < 0 ? begin[i] + n : begin[i];
    int64_t e = end[i] < 0 ? end[i] + n : end[i];
    int64_t s = step[i];
    if (s == 0) return bad_operand("stride", "must not be 0");
    if (squeeze[i]) {
      if (begin_mask[i]) b = 0;
      if (b < 0 || b >= n)
        return bad_operand("begin", "takes index " + std::to_string(begin[i]) + " of an axis of " +
                                        std::to_string(n));
      e = b + 1;
      s = 1;
    } else {
      const int64_t low = s > 0 ? 0 : -1;
      const int64_t high = s > 0 ? n : n - 1;
      b = begin_mask[i] ? (s > 0 ? low : high) : std::clamp(b, low, high);
      e = end_mask[i] ? (s > 0 ? high : low) : std::clamp(e, low, high);
    }
    region.begin.push_back(b);
    region.end.push_back(e);
    region.step.push_back(s);
    region.full.push_back(elements_between(b, e, s));
    if (!squeeze[i]) region.squeezed.push_back(region.full.back());
  }
  return region;
}

// The part of x as a view when it is one run of bytes, else a copy. Views keep caches from being
// copied when a layer takes its own slice.
Tensor cut(const Tensor& x, const Region& region) {
  const std::vector<int64_t> strides = refops::row_major_strides(x.shape());
  bool dense = element_count(region.full).value_or(0) > 0;
  bool inside = false;  // an outer axis takes more than one index: all inner ones must be whole
  int64_t start = 0;
  for (size_t i = 0; i < region.full.size() && dense; ++i) {
    start += region.begin[i] * strides[i];
    if (region.full[i] == 1) {
      dense = !inside || x.shape()[i] == 1;
      continue;
    }
    dense = region.step[i] == 1 && (!inside || region.full[i] == x.shape()[i]);
    inside = true;
  }
  if (!dense) return refops::slice(x, region.begin, region.end, region.step);
  const size_t size = static_cast<size_t>(bits_of(x.dtype()) / 8);
  const auto count = static_cast<size_t>(*element_count(region.full));
  return Tensor::view(x.dtype(), region.full,
                      x.bytes().subspan(static_cast<size_t>(start) * size, count * size),
                      std::make_shared<const Tensor>(x));
}

Status slice_by_index(Call& call) {
  const Value& x = call.at("x");
  if (x.is_text()) return bad_operand("x", "must be a tensor");
  POME_ASSIGN_OR_RETURN(const Region region, region_of(call, x.shape()));
  call.emit(cut(x.tensor, region).reshaped(region.squeezed), x.type);
  return {};
}

Status slice_by_size(Call& call) {
  const Value& x = call.at("x");
  if (x.is_text()) return bad_operand("x", "must be a tensor");
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> begin, call.ints("begin"));
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> size, call.ints("size"));
  const size_t rank = x.shape().size();
  if (begin.size() != rank || size.size() != rank)
    return bad_operand("begin", "must, as size, hold one number per axis");
  Region region;
  for (size_t i = 0; i < rank; ++i) {
    const int64_t n = x.shape()[i];
    const int64_t b = begin[i] < 0 ? begin[i] + n : begin[i];
    const int64_t count = size[i] == -1 ? n - b : size[i];
    if (b < 0 || b > n || count < 0 || count > n - b)
      return bad_operand("size", "takes [" + std::to_string(begin[i]) + ", +" +
                                     std::to_string(size[i]) + ") of an axis of " +
                                     std::to_string(n));
    region.begin.push_back(b);
    region.end.push_back(b + count);
    region.step.push_back(1);
    region.full.push_back(count);
  }
  call.emit(cut(x.tensor, region), x.type);
  return {};
}

Status slice_update(Call& call) {
  POME_ASSIGN_OR_RETURN(const Region region, region_of(call, call.at("x").shape()));
  const Value& update = call.at("update");
  Value x = call.take("x");
  if (x.is_text() || update.is_text()) return bad_operand("update", "must be a tensor");
  if (x.type != update.type) return bad_types(x.type, update.type);
  if (update.shape() != region.squeezed)
    return bad_operand("update", "has shape " + shape_text(update.shape()) +
                                     ", the slice has shape " + shape_text(region.squeezed));
  Tensor out = x.tensor.sole_owner() ? std::move(x.tensor) : x.tensor.clone();
  if (update.tensor.count() > 0) {
    const auto size = static_cast<int64_t>(bits_of(out.dtype()) / 8);
    std::vector<int64_t> strides = refops::row_major_strides(out.shape());
    int64_t start = 0;
    for (size_t i = 0; i < strides.size(); ++i) {
      start += region.begin[i] * strides[i];
      strides[i] *= region.step[i];
    }
    // The innermost axis in one run where it is dense.
    Shape outer = region.full;
    int64_t run = 1;
    if (!outer.empty() && region.step.back() == 1) {
      run = outer.back();
      outer.back() = 1;
    }
    const std::byte* from = update.tensor.bytes().data();
    std::byte* to = out.mutable_bytes().data();
    refops::for_each_offset(outer, strides, strides, [&](int64_t i, int64_t offset, int64_t) {
      std::memcpy(to + (start + offset) * size, from + i * run * size,
                  static_cast<size_t>(run * size));
    });
  }
  call.emit(std::move(out), x.type);
  return {};
}

constexpr OpSpec kOps[] = {
    {"slice_by_index", slice_by_index, "x begin end", "stride begin_mask end_mask squeeze_mask",
     kMoves},
    {"slice_by_size", slice_by_size, "x begin size", "", kMoves},
    {"slice_update", slice_update, "x update begin end", "stride begin_mask end_mask squeeze_mask",
     kMoves},
};

}  // namespace

std::span<const OpSpec> slice_ops() { return kOps; }

}  // namespace pome::mil_ops
