// Steps of the primitives that no composite covers: straightforward loops over strided views.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "engine/step.h"
#include "kernels/elementwise/elementwise.h"

namespace pome {

namespace {

size_t element_bytes(DType dtype) { return static_cast<size_t>(bits_of(dtype)) / 8; }

// Calls body(index of the row in the result, offsets of the operands) for every innermost row of
// `out`; operands broadcast. body runs the row itself, with the innermost strides.
template <size_t N, typename Body>
void for_each_row(const View& out, const std::array<const View*, N>& in, const Body& body) {
  const int outer = std::max(out.rank - 1, 0);
  std::array<std::array<int64_t, kMaxRank>, N> strides{};
  for (size_t n = 0; n < N; ++n) {
    for (int axis = 0; axis < out.rank; ++axis) {
      const int own = axis - (out.rank - in[n]->rank);
      strides[n][static_cast<size_t>(axis)] =
          own < 0 || in[n]->dim(own) == 1 ? 0 : in[n]->stride(own);
    }
  }
  const int64_t length = out.rank ? out.dim(-1) : 1;
  if (length == 0) return;
  const int64_t rows = out.count() / length;
  std::array<int64_t, kMaxRank> at{};
  std::array<int64_t, N> offset{}, step{};
  for (size_t n = 0; n < N; ++n) step[n] = out.rank ? strides[n][static_cast<size_t>(outer)] : 0;
  for (int64_t row = 0; row < rows; ++row) {
    body(row * length, length, offset, step);
    for (int axis = outer - 1; axis >= 0; --axis) {
      const auto a = static_cast<size_t>(axis);
      for (size_t n = 0; n < N; ++n) offset[n] += strides[n][a];
      if (++at[a] < out.dims[a]) break;
      for (size_t n = 0; n < N; ++n) offset[n] -= strides[n][a] * out.dims[a];
      at[a] = 0;
    }
  }
}

template <typename T, typename F>
void map_view(const View& x, const View& out, F f) {
  using Out = std::decay_t<decltype(f(T{}))>;
  for_each_row<1>(out, {&x}, [&](int64_t at, int64_t n, const auto& offset, const auto& step) {
    const T* a = x.as<const T>() + offset[0];
    Out* y = out.as<Out>() + at;
    for (int64_t i = 0; i < n; ++i) y[i] = f(a[i * step[0]]);
  });
}

template <typename T, typename F>
void zip_view(const View& x, const View& y, const View& out, F f) {
  using Out = std::decay_t<decltype(f(T{}, T{}))>;
  for_each_row<2>(out, {&x, &y}, [&](int64_t at, int64_t n, const auto& offset, const auto& step) {
    const T* a = x.as<const T>() + offset[0];
    const T* b = y.as<const T>() + offset[1];
    Out* to = out.as<Out>() + at;
    for (int64_t i = 0; i < n; ++i) to[i] = f(a[i * step[0]], b[i * step[1]]);
  });
}

// Toward zero, saturating; NaN gives 0.
int32_t to_i32(float x) {
  if (!(x > -2147483648.0f)) return x <= -2147483648.0f ? INT32_MIN : 0;
  return x >= 2147483648.0f ? INT32_MAX : static_cast<int32_t>(x);
}

class UnaryStep final : public Step {
 public:
  UnaryStep(Isa isa, const Node& node, DType from)
      : x_(node.operands[0]), y_(node.result), kind_(std::get<UnaryOp>(node.op).kind), from_(from) {
    if (kind_ == UnaryKind::kExp) map_ = kernels::choose_map(isa, kernels::MapOp::kExp);
    if (kind_ == UnaryKind::kTanh) map_ = kernels::choose_map(isa, kernels::MapOp::kTanh);
    if (kind_ == UnaryKind::kRelu) map_ = kernels::choose_map(isa, kernels::MapOp::kRelu);
  }
  std::string describe() const override { return "unary"; }
  Status run(const Frame& frame) const override {
    const View &x = frame.view(x_), &y = frame.view(y_);
    if (map_ && x.contiguous()) {
      map_(x.as<const float>(), y.as<float>(), x.count());
    } else if (kind_ == UnaryKind::kToF32) {
      convert<float>(x, y, [](auto v) { return static_cast<float>(v); });
    } else if (kind_ == UnaryKind::kToI32) {
      convert<int32_t>(x, y, [](auto v) {
        if constexpr (std::is_same_v<decltype(v), float>) return to_i32(v);
        return static_cast<int32_t>(v);
      });
    } else {
      compute(x, y);
    }
    return {};
  }

 private:
  template <typename To, typename F>
  void convert(const View& x, const View& y, F f) const {
    if (from_ == DType::kBool) return map_view<bool>(x, y, f);
    if (from_ == DType::kI32) return map_view<int32_t>(x, y, f);
    map_view<float>(x, y, f);
  }
  void compute(const View& x, const View& y) const {
    switch (kind_) {
      case UnaryKind::kNeg:
        return map_view<float>(x, y, [](float v) { return -v; });
      case UnaryKind::kExp:
        return map_view<float>(x, y, [](float v) { return std::exp(v); });
      case UnaryKind::kLog:
        return map_view<float>(x, y, [](float v) { return std::log(v); });
      case UnaryKind::kSqrt:
        return map_view<float>(x, y, [](float v) { return std::sqrt(v); });
      case UnaryKind::kRsqrt:
        return map_view<float>(x, y, [](float v) { return 1.0f / std::sqrt(v); });
      case UnaryKind::kSigmoid:
        return map_view<float>(x, y, [](float v) { return 1.0f / (1.0f + std::exp(-v)); });
      case UnaryKind::kTanh:
        return map_view<float>(x, y, [](float v) { return std::tanh(v); });
      case UnaryKind::kErf:
        return map_view<float>(x, y, [](float v) { return std::erf(v); });
      case UnaryKind::kSin:
        return map_view<float>(x, y, [](float v) { return std::sin(v); });
      case UnaryKind::kCos:
        return map_view<float>(x, y, [](float v) { return std::cos(v); });
      case UnaryKind::kRelu:
        return map_view<float>(x, y, [](float v) { return v < 0 ? 0.0f : v; });
      case UnaryKind::kAbs:
        return map_view<float>(x, y, [](float v) { return std::fabs(v); });
      case UnaryKind::kToF32:
      case UnaryKind::kToI32:
        return;
    }
  }

  ValueId x_, y_;
  UnaryKind kind_;
  DType from_;
  kernels::MapKernel map_ = nullptr;
};

class BinaryStep final : public Step {
 public:
  BinaryStep(Isa isa, const Node& node, DType dtype)
      : x_(node.operands[0]),
        y_(node.operands[1]),
        out_(node.result),
        kind_(std::get<BinaryOp>(node.op).kind),
        dtype_(dtype) {
    if (dtype == DType::kF32 && kind_ == BinaryKind::kAdd)
      zip_ = kernels::choose_zip(isa, kernels::ZipOp::kAdd);
    if (dtype == DType::kF32 && kind_ == BinaryKind::kMul)
      zip_ = kernels::choose_zip(isa, kernels::ZipOp::kMul);
  }
  std::string describe() const override { return "binary"; }
  Status run(const Frame& frame) const override {
    const View &x = frame.view(x_), &y = frame.view(y_), &out = frame.view(out_);
    if (zip_ && x.rank && y.rank && x.dim(-1) == y.dim(-1) && x.stride(-1) == 1 &&
        y.stride(-1) == 1) {
      run_zip(x, y, out);
    } else if (dtype_ == DType::kBool) {
      if (kind_ == BinaryKind::kAnd)
        zip_view<bool>(x, y, out, [](bool a, bool b) { return a && b; });
      else
        zip_view<bool>(x, y, out, [](bool a, bool b) { return a || b; });
    } else if (dtype_ == DType::kI32) {
      compute<int32_t>(x, y, out);
    } else {
      compute<float>(x, y, out);
    }
    return {};
  }

 private:
  void run_zip(const View& x, const View& y, const View& out) const {
    if (x.contiguous() && y.contiguous() && x.count() == y.count())
      return zip_(x.as<const float>(), y.as<const float>(), out.as<float>(), x.count());
    for_each_row<2>(out, {&x, &y}, [&](int64_t at, int64_t n, const auto& offset, const auto&) {
      zip_(x.as<const float>() + offset[0], y.as<const float>() + offset[1], out.as<float>() + at,
           n);
    });
  }

  template <typename T>
  static T divide(T a, T b) {
    if constexpr (std::is_integral_v<T>) {
      if (b == 0) return 0;
      return static_cast<T>(static_cast<int64_t>(a) / b);
    } else {
      return a / b;
    }
  }
  // Integers wrap.
  template <typename T>
  using Wide = std::conditional_t<std::is_integral_v<T>, uint32_t, T>;

  template <typename T>
  void compute(const View& x, const View& y, const View& out) const {
    using W = Wide<T>;
    switch (kind_) {
      case BinaryKind::kAdd:
        return zip_view<T>(x, y, out, [](T a, T b) {
          return static_cast<T>(static_cast<W>(a) + static_cast<W>(b));
        });
      case BinaryKind::kSub:
        return zip_view<T>(x, y, out, [](T a, T b) {
          return static_cast<T>(static_cast<W>(a) - static_cast<W>(b));
        });
      case BinaryKind::kMul:
        return zip_view<T>(x, y, out, [](T a, T b) {
          return static_cast<T>(static_cast<W>(a) * static_cast<W>(b));
        });
      case BinaryKind::kDiv:
        return zip_view<T>(x, y, out, [](T a, T b) { return divide(a, b); });
      case BinaryKind::kMin:
        return zip_view<T>(x, y, out, [](T a, T b) { return std::min(a, b); });
      case BinaryKind::kMax:
        return zip_view<T>(x, y, out, [](T a, T b) { return std::max(a, b); });
      case BinaryKind::kPow:
        return zip_view<T>(x, y, out, [](T a, T b) { return static_cast<T>(std::pow(a, b)); });
      case BinaryKind::kLess:
        return zip_view<T>(x, y, out, [](T a, T b) { return a < b; });
      case BinaryKind::kLessEqual:
        return zip_view<T>(x, y, out, [](T a, T b) { return a <= b; });
      case BinaryKind::kEqual:
        return zip_view<T>(x, y, out, [](T a, T b) { return a == b; });
      case BinaryKind::kAnd:
      case BinaryKind::kOr:
        return;
    }
  }

  ValueId x_, y_, out_;
  BinaryKind kind_;
  DType dtype_;
  kernels::ZipKernel zip_ = nullptr;
};

class SelectStep final : public Step {
 public:
  SelectStep(const Node& node, DType dtype) : node_(node), dtype_(dtype) {}
  std::string describe() const override { return "select"; }
  Status run(const Frame& frame) const override {
    if (dtype_ == DType::kBool)
      select<bool>(frame);
    else if (dtype_ == DType::kI32)
      select<int32_t>(frame);
    else
      select<float>(frame);
    return {};
  }

 private:
  template <typename T>
  void select(const Frame& frame) const {
    const View &condition = frame.view(node_.operands[0]), &x = frame.view(node_.operands[1]),
               &y = frame.view(node_.operands[2]), &out = frame.view(node_.result);
    for_each_row<3>(out, {&condition, &x, &y},
                    [&](int64_t at, int64_t n, const auto& offset, const auto& step) {
                      const bool* c = condition.as<const bool>() + offset[0];
                      const T* a = x.as<const T>() + offset[1];
                      const T* b = y.as<const T>() + offset[2];
                      T* to = out.as<T>() + at;
                      for (int64_t i = 0; i < n; ++i)
                        to[i] = c[i * step[0]] ? a[i * step[1]] : b[i * step[2]];
                    });
  }
  Node node_;
  DType dtype_;
};

class ReduceStep final : public Step {
 public:
  explicit ReduceStep(const Node& node)
      : x_(node.operands[0]), y_(node.result), op_(std::get<ReduceOp>(node.op)) {}
  std::string describe() const override { return "reduce"; }
  Status run(const Frame& frame) const override {
    const View &x = frame.view(x_), &y = frame.view(y_);
    const int axis = op_.axis < 0 ? op_.axis + x.rank : op_.axis;
    const int64_t n = x.dim(axis), stride = x.stride(axis);
    View first = x;  // the operand with the reduced axis at 0
    first.dims[static_cast<size_t>(axis)] = 1;
    for_each_row<1>(y, {&first},
                    [&](int64_t at, int64_t count, const auto& offset, const auto& step) {
                      for (int64_t i = 0; i < count; ++i) {
                        const float* from = x.as<const float>() + offset[0] + i * step[0];
                        y.as<float>()[at + i] = reduce(from, n, stride);
                      }
                    });
    return {};
  }

 private:
  float reduce(const float* x, int64_t n, int64_t stride) const {
    if (op_.kind == ReduceKind::kMax) {
      float largest = -INFINITY;
      for (int64_t i = 0; i < n; ++i) largest = std::max(largest, x[i * stride]);
      return largest;
    }
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i * stride]);
    return static_cast<float>(op_.kind == ReduceKind::kMean ? sum / static_cast<double>(n) : sum);
  }
  ValueId x_, y_;
  ReduceOp op_;
};

// Copies `in` (any strides) into `out` (same dimensions, any strides).
void copy_view(const View& in, const View& out, size_t bytes) {
  const auto size = static_cast<int64_t>(bytes);
  const View* both[] = {&in, &out};
  View shape = in;
  for_each_row<2>(shape, {both[0], both[1]},
                  [&](int64_t, int64_t n, const auto& offset, const auto& step) {
                    const std::byte* from = in.data + offset[0] * size;
                    std::byte* to = out.data + offset[1] * size;
                    if ((step[0] == 1 && step[1] == 1) || n == 1) {
                      std::memcpy(to, from, static_cast<size_t>(n) * bytes);
                      return;
                    }
                    for (int64_t i = 0; i < n; ++i)
                      std::memcpy(to + i * step[1] * size, from + i * step[0] * size, bytes);
                  });
}

class CopyStep final : public Step {
 public:
  CopyStep(const Node& node, DType dtype) : node_(node), bytes_(element_bytes(dtype)) {}
  std::string describe() const override { return "copy"; }
  Status run(const Frame& frame) const override {
    View out = frame.view(node_.result);
    if (const auto* concat = std::get_if<ConcatOp>(&node_.op)) {
      const auto axis =
          static_cast<size_t>(concat->axis < 0 ? concat->axis + out.rank : concat->axis);
      for (const ValueId id : node_.operands) {
        const View& part = frame.view(id);
        out.dims[axis] = part.dims[axis];
        copy_view(part, out, bytes_);
        out.data += part.dims[axis] * out.strides[axis] * static_cast<int64_t>(bytes_);
      }
      return {};
    }
    View in = frame.view(node_.operands[0]);
    if (const auto* transpose = std::get_if<TransposeOp>(&node_.op)) {
      const View from = in;
      for (size_t i = 0; i < transpose->permutation.size(); ++i) {
        in.dims[i] = from.dim(transpose->permutation[i]);
        in.strides[i] = from.stride(transpose->permutation[i]);
      }
    } else if (const auto* slice = std::get_if<SliceOp>(&node_.op)) {
      const auto axis = static_cast<size_t>(slice->axis < 0 ? slice->axis + in.rank : slice->axis);
      in.data += slice->begin * in.strides[axis] * static_cast<int64_t>(bytes_);
      in.dims[axis] = out.dims[axis];
      in.strides[axis] *= slice->step;
    } else {
      // A reshape: the elements keep their order, so the result is written with the shape of `in`.
      out.rank = in.rank;
      out.dims = in.dims;
      int64_t stride = 1;
      for (size_t i = static_cast<size_t>(in.rank); i-- > 0;) {
        out.strides[i] = stride;
        stride *= in.dims[i];
      }
    }
    copy_view(in, out, bytes_);
    return {};
  }

 private:
  Node node_;
  size_t bytes_;
};

class GatherStep final : public Step {
 public:
  explicit GatherStep(const Node& node) : node_(node) {}
  std::string describe() const override { return "gather"; }
  Status run(const Frame& frame) const override {
    const View &table = frame.view(node_.operands[0]), &ids = frame.view(node_.operands[1]);
    const int64_t rows = table.dim(0), columns = table.dim(1), count = ids.count();
    float* y = frame.view(node_.result).as<float>();
    for (int64_t i = 0; i < count; ++i) {
      const int64_t id = ids.as<const int32_t>()[i];
      if (id < 0 || id >= rows) {
        return bad_input(Refusal::kRange, "id " + std::to_string(id) + " is outside the table of " +
                                              std::to_string(rows));
      }
      std::copy_n(table.as<const float>() + id * table.stride(0), columns, y + i * columns);
    }
    return {};
  }

 private:
  Node node_;
};

class IotaStep final : public Step {
 public:
  explicit IotaStep(const Node& node)
      : y_(node.result), start_{Dim(std::get<IotaOp>(node.op).start)} {}
  std::string describe() const override { return "iota"; }
  Status run(const Frame& frame) const override {
    const View& y = frame.view(y_);
    View start;
    set_contiguous(&start, start_, frame.bindings);
    const auto first = static_cast<int32_t>(start.dims[0]);
    for (int64_t i = 0; i < y.dim(0); ++i) y.as<int32_t>()[i] = first + static_cast<int32_t>(i);
    return {};
  }

 private:
  ValueId y_;
  SymShape start_;
};

class TopKMaskStep final : public Step {
 public:
  TopKMaskStep(const Node& node, Dim width)
      : x_(node.operands[0]), y_(node.result), k_(std::get<TopKMaskOp>(node.op).k), width_(width) {}
  std::string describe() const override { return "topk_mask"; }
  int64_t workspace_floats(const Limits& limits) const override {
    if (width_.is_static()) return width_.size;
    return std::max(limits.tokens, limits.capacity);
  }
  Status run(const Frame& frame) const override {
    const View& x = frame.view(x_);
    const int64_t n = x.dim(-1), rows = n ? x.count() / n : 0;
    bool* mask = frame.view(y_).as<bool>();
    std::fill(mask, mask + rows * n, false);
    auto* const order = reinterpret_cast<int32_t*>(frame.workspace);
    for (int64_t row = 0; row < rows; ++row) {
      const float* values = x.as<const float>() + row * n;
      for (int64_t i = 0; i < n; ++i) order[i] = static_cast<int32_t>(i);
      std::partial_sort(order, order + k_, order + n, [values](int32_t a, int32_t b) {
        return values[a] != values[b] ? values[a] > values[b] : a < b;
      });
      for (int64_t i = 0; i < k_; ++i) mask[row * n + order[i]] = true;
    }
    return {};
  }

 private:
  ValueId x_, y_;
  int64_t k_;
  Dim width_;
};

}  // namespace

StepPtr make_unary(Isa isa, const Node& node, const Graph& graph) {
  return std::make_unique<UnaryStep>(isa, node, graph.type(node.operands[0]).dtype);
}
StepPtr make_binary(Isa isa, const Node& node, const Graph& graph) {
  return std::make_unique<BinaryStep>(isa, node, graph.type(node.operands[0]).dtype);
}
StepPtr make_select(const Node& node, const Graph& graph) {
  return std::make_unique<SelectStep>(node, graph.type(node.result).dtype);
}
StepPtr make_reduce(const Node& node) { return std::make_unique<ReduceStep>(node); }
StepPtr make_copy(const Node& node, DType dtype) { return std::make_unique<CopyStep>(node, dtype); }
StepPtr make_gather(const Node& node) { return std::make_unique<GatherStep>(node); }
StepPtr make_iota(const Node& node) { return std::make_unique<IotaStep>(node); }
StepPtr make_topk_mask(const Node& node, Dim width) {
  return std::make_unique<TopKMaskStep>(node, width);
}

}  // namespace pome
