// Plain reference maths on tensors: slow, obvious, exact in f32. Interpreters and the oracle are
// made of these.
//
// Callers have checked types and shapes (a violated precondition is our bug: POME_CHECK). Results
// are new tensors. Broadcasting is numpy's. Thread safety: pure functions; `pool` may be null.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "tensor/tensor.h"

namespace pome::refops {

template <typename T>
inline constexpr DType kDTypeOf = DType::kF32;
template <>
inline constexpr DType kDTypeOf<int32_t> = DType::kI32;
template <>
inline constexpr DType kDTypeOf<int64_t> = DType::kI64;
template <>
inline constexpr DType kDTypeOf<uint8_t> = DType::kU8;
template <>
inline constexpr DType kDTypeOf<bool> = DType::kBool;
template <>
inline constexpr DType kDTypeOf<double> = DType::kF64;

std::optional<Shape> broadcast_shape(const Shape& a, const Shape& b);
std::vector<int64_t> row_major_strides(const Shape& shape);
// Element strides of a tensor of shape `from` seen as `to` (0 along broadcast axes).
std::vector<int64_t> broadcast_strides(const Shape& from, const Shape& to);
// Calls body(linear index in `shape`, offset by strides_a, offset by strides_b) for all elements,
// in order.
void for_each_offset(const Shape& shape, const std::vector<int64_t>& strides_a,
                     const std::vector<int64_t>& strides_b,
                     const std::function<void(int64_t, int64_t, int64_t)>& body);

// out[i] = f(x[i])
template <typename In, typename Out, typename F>
Tensor map(const Tensor& x, F f) {
  Tensor out = Tensor::zeros(kDTypeOf<Out>, x.shape());
  auto in = x.as<In>();
  auto to = out.template mutable_as<Out>();
  for (size_t i = 0; i < in.size(); ++i) to[i] = f(in[i]);
  return out;
}
// out = f(x, y), broadcast
template <typename In, typename Out, typename F>
Tensor zip(const Tensor& x, const Tensor& y, F f) {
  const auto shape = broadcast_shape(x.shape(), y.shape());
  POME_CHECK(shape.has_value());
  Tensor out = Tensor::zeros(kDTypeOf<Out>, *shape);
  auto a = x.as<In>();
  auto b = y.as<In>();
  auto to = out.template mutable_as<Out>();
  if (x.shape() == y.shape()) {
    for (size_t i = 0; i < to.size(); ++i) to[i] = f(a[i], b[i]);
    return out;
  }
  // The innermost axis runs in a plain loop; only the outer index needs offset arithmetic.
  if (shape->empty()) {
    to[0] = f(a[0], b[0]);
    return out;
  }
  const std::vector<int64_t> sa = broadcast_strides(x.shape(), *shape),
                             sb = broadcast_strides(y.shape(), *shape);
  const int64_t inner = shape->back();
  Shape outer(shape->begin(), shape->end() - 1);
  const std::vector<int64_t> oa(sa.begin(), sa.end() - 1), ob(sb.begin(), sb.end() - 1);
  const int64_t ia = sa.back(), ib = sb.back();
  if (inner == 0) return out;
  for_each_offset(outer, oa, ob, [&](int64_t index, int64_t pa, int64_t pb) {
    for (int64_t k = 0; k < inner; ++k)
      to[static_cast<size_t>(index * inner + k)] =
          f(a[static_cast<size_t>(pa + k * ia)], b[static_cast<size_t>(pb + k * ib)]);
  });
  return out;
}

// condition ? x : y, all three broadcast. f32 or i32.
Tensor select(const Tensor& condition, const Tensor& x, const Tensor& y);
// Copies (any whole-byte dtype).
Tensor transpose(const Tensor& x, std::span<const int32_t> permutation);
Tensor slice(const Tensor& x, std::span<const int64_t> begin, std::span<const int64_t> end,
             std::span<const int64_t> step);  // numpy per axis; step may be negative (then end may
                                              // be -1: before the first)
Tensor concat(std::span<const Tensor> parts, int64_t axis);
Tensor broadcast_to(const Tensor& x, const Shape& shape);
// axis kept with size 1
enum class Reduce : uint8_t { kSum, kMean, kMax, kMin, kProd };
Tensor reduce(const Tensor& x, Reduce kind, int64_t axis);  // f32, sums in f64
// table [N, ..], ids i32 [..]: rows; the caller has checked the ids
Tensor gather_rows(const Tensor& table, const Tensor& ids);

// x [.., M, K] times y [.., K, N], or y [.., N, K] with transpose_y; batch axes broadcast. f32 in,
// f32 sums in a fixed order that does not depend on the thread count. matmul_plain is the
// definition, matmul the blocked, threaded form.
Tensor matmul_plain(const Tensor& x, const Tensor& y, bool transpose_y);
Tensor matmul(const Tensor& x, const Tensor& y, bool transpose_y, ThreadPool* pool);

}  // namespace pome::refops
