// Reductions, normalisations, ordering.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <utility>

#include "interp/mil_ops.h"
#include "refops/refops.h"

namespace pome::mil_ops {
namespace {

// x seen as [outer, n] with the reduced axes last (moved there when they are not).
struct Rows {
  Tensor tensor;
  int64_t outer = 1, n = 1;
  Shape kept, squeezed;  // result shapes with and without the reduced axes
};
Rows rows_of(const Tensor& x, const std::vector<int64_t>& axes) {
  Rows rows;
  std::vector<int32_t> order, last;
  for (int64_t i = 0; i < x.rank(); ++i) {
    const bool reduced = std::find(axes.begin(), axes.end(), i) != axes.end();
    (reduced ? last : order).push_back(static_cast<int32_t>(i));
    (reduced ? rows.n : rows.outer) *= x.dim(i);
    rows.kept.push_back(reduced ? 1 : x.dim(i));
    if (!reduced) rows.squeezed.push_back(x.dim(i));
  }
  order.insert(order.end(), last.begin(), last.end());
  rows.tensor = std::is_sorted(order.begin(), order.end()) ? x : refops::transpose(x, order);
  return rows;
}
// Keys to compare by: doubles, which hold every f32 and int32 exactly.
Result<Tensor> keys_of(const Call& call, std::string_view name) {
  const Value& x = call.at(name);
  if (x.is_text() || (!is_float(x.type) && x.type != DType::kI32))
    return bad_operand(name, "must be fp16, fp32 or int32");
  if (is_float(x.type))
    return refops::map<float, double>(x.tensor, [](float v) { return static_cast<double>(v); });
  return refops::map<int32_t, double>(x.tensor, [](int32_t v) { return static_cast<double>(v); });
}

// f(row of n elements) -> double; T is float or int32_t.
template <typename T, typename F>
Tensor reduce_rows(const Rows& rows, const Shape& shape, F f) {
  Tensor out = Tensor::zeros(refops::kDTypeOf<T>, shape);
  const auto in = rows.tensor.as<T>();
  auto to = out.mutable_as<T>();
  for (int64_t i = 0; i < rows.outer; ++i)
    to[static_cast<size_t>(i)] =
        static_cast<T>(f(in.subspan(static_cast<size_t>(i * rows.n), static_cast<size_t>(rows.n))));
  return out;
}
template <typename F>
Status reduce(Call& call, bool needs_elements, F f) {
  const Value& x = call.at("x");
  if (x.is_text() || (!is_float(x.type) && x.type != DType::kI32))
    return bad_operand("x", "must be fp16, fp32 or int32");
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> axes, call.axes("axes", x.tensor.rank()));
  POME_ASSIGN_OR_RETURN(const bool keep, call.flag("keep_dims", false));
  const Rows rows = rows_of(x.tensor, axes);
  if (needs_elements && rows.n == 0) return bad_operand("x", "has no elements to reduce");
  const Shape& shape = keep ? rows.kept : rows.squeezed;
  if (is_float(x.type))
    call.emit(reduce_rows<float>(rows, shape, f), x.type);
  else
    call.emit(reduce_rows<int32_t>(rows, shape, f), x.type);
  return {};
}

template <typename Row, typename F>
double sum_of(const Row& row, F f) {
  double sum = 0;
  for (const auto v : row) sum += f(static_cast<double>(v));
  return sum;
}
template <typename Row, typename Better>
double best_of(const Row& row, Better better) {
  double best = static_cast<double>(row[0]);
  for (const auto v : row)
    if (better(static_cast<double>(v), best) || std::isnan(static_cast<double>(v)))
      best = static_cast<double>(v);
  return best;
}
Status reduce_sum(Call& call) {
  return reduce(call, false,
                [](const auto& row) { return sum_of(row, [](double v) { return v; }); });
}
Status reduce_mean(Call& call) {
  return reduce(call, true, [](const auto& row) {
    return sum_of(row, [](double v) { return v; }) / static_cast<double>(row.size());
  });
}
Status reduce_max(Call& call) {
  return reduce(call, true, [](const auto& row) { return best_of(row, std::greater<double>()); });
}
Status reduce_min(Call& call) {
  return reduce(call, true, [](const auto& row) { return best_of(row, std::less<double>()); });
}
Status reduce_prod(Call& call) {
  return reduce(call, false, [](const auto& row) {
    double product = 1;
    for (const auto v : row) product *= static_cast<double>(v);
    return product;
  });
}
Status reduce_sum_square(Call& call) {
  return reduce(call, false,
                [](const auto& row) { return sum_of(row, [](double v) { return v * v; }); });
}
Status reduce_l1_norm(Call& call) {
  return reduce(call, false,
                [](const auto& row) { return sum_of(row, [](double v) { return std::fabs(v); }); });
}
Status reduce_l2_norm(Call& call) {
  return reduce(call, false, [](const auto& row) {
    return std::sqrt(sum_of(row, [](double v) { return v * v; }));
  });
}
Status reduce_log_sum(Call& call) {
  return reduce(call, false,
                [](const auto& row) { return std::log(sum_of(row, [](double v) { return v; })); });
}
Status reduce_log_sum_exp(Call& call) {
  return reduce(call, true, [](const auto& row) {
    const double top = best_of(row, std::greater<double>());
    if (!std::isfinite(top)) return top;
    return top + std::log(sum_of(row, [top](double v) { return std::exp(v - top); }));
  });
}

// ---- along one axis

// x as [outer, n, inner] around `axis`.
struct Lines {
  int64_t outer = 1, n = 1, inner = 1;
};
Lines lines_of(const Shape& shape, int64_t axis) {
  Lines lines;
  for (int64_t i = 0; i < static_cast<int64_t>(shape.size()); ++i) {
    int64_t& part = i < axis ? lines.outer : i == axis ? lines.n : lines.inner;
    part *= shape[static_cast<size_t>(i)];
  }
  return lines;
}
// body(offset of the line's first element, stride) for each line.
template <typename F>
void each_line(const Lines& lines, F body) {
  for (int64_t o = 0; o < lines.outer; ++o)
    for (int64_t k = 0; k < lines.inner; ++k) body(o * lines.n * lines.inner + k, o, k);
}
Result<DType> index_type(const Call& call, std::string_view parameter) {
  POME_ASSIGN_OR_RETURN(const std::string name, call.text(parameter, "int32"));
  if (name == "int32") return DType::kI32;
  if (name == "uint16") return DType::kU16;
  return bad_operand(parameter, "is '" + name + "', int32 and uint16 are known");
}

template <bool kMax>
Status reduce_arg(Call& call) {
  POME_ASSIGN_OR_RETURN(const Tensor x, keys_of(call, "x"));
  POME_ASSIGN_OR_RETURN(const int64_t axis, call.axis("axis", -1, x.rank()));
  POME_ASSIGN_OR_RETURN(const bool keep, call.flag("keep_dims", false));
  POME_ASSIGN_OR_RETURN(const DType type, index_type(call, "output_dtype"));
  const Lines lines = lines_of(x.shape(), axis);
  if (lines.n == 0) return bad_operand("x", "has no elements to reduce");
  Shape shape = x.shape();
  if (keep)
    shape[static_cast<size_t>(axis)] = 1;
  else
    shape.erase(shape.begin() + axis);
  Tensor out = Tensor::zeros(DType::kI32, shape);
  const double* in = x.as<double>().data();
  auto to = out.mutable_as<int32_t>();
  each_line(lines, [&](int64_t first, int64_t o, int64_t k) {
    int64_t best = 0;
    for (int64_t i = 1; i < lines.n; ++i) {
      const double v = in[first + i * lines.inner], b = in[first + best * lines.inner];
      // Strictly better, so the lowest index wins a tie; the first NaN wins over all (as in numpy).
      if ((kMax ? v > b : v < b) || (std::isnan(v) && !std::isnan(b))) best = i;
    }
    to[static_cast<size_t>(o * lines.inner + k)] = static_cast<int32_t>(best);
  });
  call.emit(std::move(out), type);
  return {};
}

// Positions along a line in order of value; equal values by position. NaN counts as the largest.
void order_line(const double* line, int64_t stride, bool ascending, std::vector<int32_t>& order) {
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    const double x = line[a * stride], y = line[b * stride];
    if (std::isnan(x) || std::isnan(y))
      return ascending ? !std::isnan(x) && std::isnan(y) : std::isnan(x) && !std::isnan(y);
    return ascending ? x < y : x > y;
  });
}
Status topk(Call& call) {
  const Value& value = call.at("x");
  POME_ASSIGN_OR_RETURN(const Tensor x, keys_of(call, "x"));
  POME_ASSIGN_OR_RETURN(const int64_t axis, call.axis("axis", -1, x.rank()));
  POME_ASSIGN_OR_RETURN(int64_t k, call.integer("k", 1));
  POME_ASSIGN_OR_RETURN(const bool ascending, call.flag("ascending", false));
  POME_ASSIGN_OR_RETURN(const bool sort, call.flag("sort", true));
  POME_ASSIGN_OR_RETURN(const bool with_indices, call.flag("return_indices", true));
  POME_ASSIGN_OR_RETURN(const DType type, index_type(call, "output_indices_dtype"));
  const Lines lines = lines_of(x.shape(), axis);
  if (k == -1) k = lines.n;
  if (k < 0 || k > lines.n)
    return bad_operand("k",
                       "is " + std::to_string(k) + " for an axis of " + std::to_string(lines.n));
  Shape shape = x.shape();
  shape[static_cast<size_t>(axis)] = k;
  Tensor values = Tensor::zeros(storage_of(value.type), shape);
  Tensor indices = Tensor::zeros(DType::kI32, shape);
  std::vector<int32_t> order(static_cast<size_t>(lines.n));
  each_line(lines, [&](int64_t first, int64_t o, int64_t inner) {
    order_line(x.as<double>().data() + first, lines.inner, ascending, order);
    if (!sort) std::sort(order.begin(), order.begin() + k);
    for (int64_t i = 0; i < k; ++i) {
      const int32_t from = order[static_cast<size_t>(i)];
      const auto at = static_cast<size_t>((o * k + i) * lines.inner + inner);
      const auto source = static_cast<size_t>(first + from * lines.inner);
      indices.mutable_as<int32_t>()[at] = from;
      if (is_float(value.type))
        values.mutable_as<float>()[at] = value.tensor.f32()[source];
      else
        values.mutable_as<int32_t>()[at] = value.tensor.as<int32_t>()[source];
    }
  });
  call.emit(std::move(values), value.type);
  if (with_indices) call.emit(std::move(indices), type);
  return {};
}
Status argsort(Call& call) {
  POME_ASSIGN_OR_RETURN(const Tensor x, keys_of(call, "x"));
  POME_ASSIGN_OR_RETURN(const int64_t axis, call.axis("axis", -1, x.rank()));
  POME_ASSIGN_OR_RETURN(const bool ascending, call.flag("ascending", false));
  const Lines lines = lines_of(x.shape(), axis);
  Tensor out = Tensor::zeros(DType::kI32, x.shape());
  auto to = out.mutable_as<int32_t>();
  std::vector<int32_t> order(static_cast<size_t>(lines.n));
  each_line(lines, [&](int64_t first, int64_t, int64_t) {
    order_line(x.as<double>().data() + first, lines.inner, ascending, order);
    for (int64_t i = 0; i < lines.n; ++i)
      to[static_cast<size_t>(first + i * lines.inner)] = order[static_cast<size_t>(i)];
  });
  call.emit(std::move(out), DType::kI32);
  return {};
}

template <typename T, typename Sum>
void cumulate(const Tensor& x, Tensor& out, const Lines& lines, bool exclusive, bool reverse) {
  const auto in = x.as<T>();
  auto to = out.mutable_as<T>();
  each_line(lines, [&](int64_t first, int64_t, int64_t) {
    Sum sum = 0;
    for (int64_t i = 0; i < lines.n; ++i) {
      const auto at = static_cast<size_t>(first + (reverse ? lines.n - 1 - i : i) * lines.inner);
      const Sum with = sum + static_cast<Sum>(in[at]);
      to[at] = static_cast<T>(exclusive ? sum : with);
      sum = with;
    }
  });
}
Status cumsum(Call& call) {
  const Value& x = call.at("x");
  if (x.is_text() || (!is_float(x.type) && x.type != DType::kI32))
    return bad_operand("x", "must be fp16, fp32 or int32");
  POME_ASSIGN_OR_RETURN(const int64_t axis, call.axis("axis", 0, x.tensor.rank()));
  POME_ASSIGN_OR_RETURN(const bool exclusive, call.flag("exclusive", false));
  POME_ASSIGN_OR_RETURN(const bool reverse, call.flag("reverse", false));
  const Lines lines = lines_of(x.shape(), axis);
  Tensor out = Tensor::zeros(x.tensor.dtype(), x.shape());
  if (is_float(x.type))
    cumulate<float, double>(x.tensor, out, lines, exclusive, reverse);
  else
    cumulate<int32_t, uint32_t>(x.tensor, out, lines, exclusive, reverse);
  call.emit(std::move(out), x.type);
  return {};
}

Status softmax(Call& call) {
  POME_ASSIGN_OR_RETURN(const Value x, call.floats("x"));
  POME_ASSIGN_OR_RETURN(const int64_t axis, call.axis("axis", -1, x.tensor.rank()));
  const Lines lines = lines_of(x.shape(), axis);
  Tensor out = Tensor::zeros(DType::kF32, x.shape());
  const float* in = x.tensor.f32().data();
  float* to = out.mutable_as<float>().data();
  each_line(lines, [&](int64_t first, int64_t, int64_t) {
    float top = -std::numeric_limits<float>::infinity();
    for (int64_t i = 0; i < lines.n; ++i) top = std::max(top, in[first + i * lines.inner]);
    double sum = 0;
    for (int64_t i = 0; i < lines.n; ++i) {
      const int64_t at = first + i * lines.inner;
      to[at] = std::exp(in[at] - top);
      sum += to[at];
    }
    for (int64_t i = 0; i < lines.n; ++i) {
      const int64_t at = first + i * lines.inner;
      to[at] = static_cast<float>(to[at] / sum);
    }
  });
  call.emit(std::move(out), x.type);
  return {};
}

Status band_part(Call& call) {
  const Value& x = call.at("x");
  if (x.is_text() || x.tensor.rank() < 2) return bad_operand("x", "must be of rank 2 or more");
  POME_ASSIGN_OR_RETURN(const int64_t lower, call.integer("lower", -1));
  POME_ASSIGN_OR_RETURN(const int64_t upper, call.integer("upper", -1));
  const int64_t columns = x.tensor.dim(-1), rows = x.tensor.dim(-2);
  const auto size = static_cast<size_t>(bits_of(x.tensor.dtype()) / 8);
  Tensor out = x.tensor.clone();
  auto bytes = out.mutable_bytes();
  for (int64_t i = 0; i < out.count(); ++i) {
    const int64_t m = i / columns % rows, n = i % columns;
    const bool keep = (lower < 0 || m - n <= lower) && (upper < 0 || n - m <= upper);
    if (!keep) std::fill_n(bytes.begin() + i * static_cast<int64_t>(size), size, std::byte{0});
  }
  call.emit(std::move(out), x.type);
  return {};
}

// ---- normalisation

// [(x - mean) / sqrt(variance + epsilon)] * gamma + beta over `axes`.
Status layer_norm(Call& call) {
  POME_ASSIGN_OR_RETURN(const Value x, call.floats("x"));
  POME_ASSIGN_OR_RETURN(std::vector<int64_t> axes, call.axes("axes", x.tensor.rank()));
  POME_ASSIGN_OR_RETURN(const double epsilon, call.number("epsilon", 1e-5));
  std::sort(axes.begin(), axes.end());
  const auto count = static_cast<int64_t>(axes.size());
  for (int64_t i = 0; i < count; ++i)
    if (axes[static_cast<size_t>(i)] != x.tensor.rank() - count + i)
      return unsupported("layer_norm over axes that are not the last ones");
  const Rows rows = rows_of(x.tensor, axes);
  std::span<const float> gamma, beta;
  for (const auto& [name, into] : {std::pair{"gamma", &gamma}, std::pair{"beta", &beta}}) {
    if (!call.has(name)) continue;
    POME_ASSIGN_OR_RETURN(const Value given, call.floats(name));
    if (given.tensor.count() != rows.n) return bad_shapes(x.shape(), given.shape());
    *into = given.tensor.f32();  // the value outlives this call in its slot or constant
  }
  Tensor out = Tensor::zeros(DType::kF32, x.shape());
  for (int64_t o = 0; o < rows.outer; ++o) {
    const float* in = x.tensor.f32().data() + o * rows.n;
    float* to = out.mutable_as<float>().data() + o * rows.n;
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < rows.n; ++i) mean += in[i];
    mean /= static_cast<double>(rows.n);
    for (int64_t i = 0; i < rows.n; ++i) variance += (in[i] - mean) * (in[i] - mean);
    const double scale = 1.0 / std::sqrt(variance / static_cast<double>(rows.n) + epsilon);
    for (int64_t i = 0; i < rows.n; ++i) {
      const auto at = static_cast<size_t>(i);
      double v = (in[i] - mean) * scale;
      if (!gamma.empty()) v *= gamma[at];
      if (!beta.empty()) v += beta[at];
      to[i] = static_cast<float>(v);
    }
  }
  call.emit(std::move(out), x.type);
  return {};
}
// x / sqrt(sum x^2 + epsilon) over the last three axes.
Status l2_norm(Call& call) {
  POME_ASSIGN_OR_RETURN(const Value x, call.floats("x"));
  POME_ASSIGN_OR_RETURN(const double epsilon, call.number("epsilon", 1e-6));
  const int64_t rank = x.tensor.rank();
  if (rank < 3) return bad_operand("x", "must be of rank 3 or more");
  const Rows rows = rows_of(x.tensor, {rank - 3, rank - 2, rank - 1});
  Tensor out = Tensor::zeros(DType::kF32, x.shape());
  for (int64_t o = 0; o < rows.outer; ++o) {
    const float* in = x.tensor.f32().data() + o * rows.n;
    float* to = out.mutable_as<float>().data() + o * rows.n;
    double sum = epsilon;
    for (int64_t i = 0; i < rows.n; ++i) sum += static_cast<double>(in[i]) * in[i];
    const double scale = 1.0 / std::sqrt(sum);
    for (int64_t i = 0; i < rows.n; ++i) to[i] = static_cast<float>(in[i] * scale);
  }
  call.emit(std::move(out), x.type);
  return {};
}

constexpr OpSpec kOps[] = {
    {"reduce_sum", reduce_sum, "x", "axes keep_dims"},
    {"reduce_mean", reduce_mean, "x", "axes keep_dims"},
    {"reduce_max", reduce_max, "x", "axes keep_dims"},
    {"reduce_min", reduce_min, "x", "axes keep_dims"},
    {"reduce_prod", reduce_prod, "x", "axes keep_dims"},
    {"reduce_sum_square", reduce_sum_square, "x", "axes keep_dims"},
    {"reduce_l1_norm", reduce_l1_norm, "x", "axes keep_dims"},
    {"reduce_l2_norm", reduce_l2_norm, "x", "axes keep_dims"},
    {"reduce_log_sum", reduce_log_sum, "x", "axes keep_dims"},
    {"reduce_log_sum_exp", reduce_log_sum_exp, "x", "axes keep_dims"},
    {"reduce_argmax", reduce_arg<true>, "x", "axis keep_dims output_dtype"},
    {"reduce_argmin", reduce_arg<false>, "x", "axis keep_dims output_dtype"},
    {"topk", topk, "x", "k axis ascending sort return_indices output_indices_dtype", kManyOutputs},
    {"argsort", argsort, "x", "axis ascending"},
    {"cumsum", cumsum, "x", "axis exclusive reverse"},
    {"softmax", softmax, "x", "axis"},
    {"band_part", band_part, "x", "lower upper"},
    {"layer_norm", layer_norm, "x", "axes gamma beta epsilon"},
    {"l2_norm", l2_norm, "x", "epsilon"},
};

}  // namespace

std::span<const OpSpec> reduce_ops() { return kOps; }

}  // namespace pome::mil_ops
