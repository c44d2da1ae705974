// Matrix products, convolution, attention. Sums run in f32 in the fixed order of refops::matmul.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>

#include "base/checked.h"
#include "interp/mil_ops.h"
#include "refops/refops.h"

namespace pome::mil_ops {
namespace {

Result<Tensor> float_operand(const Call& call, std::string_view name) {
  POME_ASSIGN_OR_RETURN(const Value value, call.floats(name));
  return value.tensor;
}

// y = x W^T + b; x [.., Din], weight [Dout, Din], bias [Dout].
Status linear(Call& call) {
  POME_ASSIGN_OR_RETURN(const Value x, call.floats("x"));
  POME_ASSIGN_OR_RETURN(const Tensor weight, float_operand(call, "weight"));
  const Tensor& in = x.tensor;
  if (weight.rank() != 2 || in.rank() < 1 || in.dim(-1) != weight.dim(1))
    return bad_shapes(in.shape(), weight.shape());
  const Tensor rows =
      in.reshaped({weight.dim(1) == 0 ? 0 : in.count() / weight.dim(1), weight.dim(1)});
  Tensor out = refops::matmul(rows, weight, true, call.pool());
  if (call.has("bias")) {
    POME_ASSIGN_OR_RETURN(const Tensor bias, float_operand(call, "bias"));
    if (bias.rank() != 1 || bias.count() != weight.dim(0))
      return bad_shapes(weight.shape(), bias.shape());
    const auto b = bias.f32();
    auto to = out.mutable_as<float>();
    // A vector of zeros stands for no bias: adding it would still turn -0 into 0, which is
    // harmless.
    for (size_t i = 0; i < to.size(); i += b.size())
      for (size_t k = 0; k < b.size(); ++k) to[i + k] += b[k];
  }
  Shape shape = in.shape();
  shape.back() = weight.dim(0);
  call.emit(out.reshaped(std::move(shape)), x.type);
  return {};
}

Tensor swap_last(const Tensor& x) {
  std::vector<int32_t> order(static_cast<size_t>(x.rank()));
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  std::swap(order[order.size() - 1], order[order.size() - 2]);
  return refops::transpose(x, order);
}
Shape batch_of(const Tensor& x) { return {x.shape().begin(), x.shape().end() - 2}; }

// numpy's matmul: a vector operand gains an axis of 1, which the result loses again.
Result<Tensor> product(Tensor x, Tensor y, bool transpose_x, bool transpose_y, ThreadPool* pool) {
  if (x.rank() == 0 || y.rank() == 0) return bad_shapes(x.shape(), y.shape());
  const bool row = x.rank() == 1, column = y.rank() == 1;
  if (row) x = x.reshaped({1, x.count()});
  if (column) y = y.reshaped({y.count(), 1});
  if (transpose_x && !row) x = swap_last(x);
  const bool as_rows = transpose_y && !column;
  if (x.dim(-1) != y.dim(as_rows ? -1 : -2) || !refops::broadcast_shape(batch_of(x), batch_of(y)))
    return bad_shapes(x.shape(), y.shape());
  Tensor out = refops::matmul(x, y, as_rows, pool);
  Shape shape = out.shape();
  if (column) shape.pop_back();
  if (row) shape.erase(shape.end() - (column ? 1 : 2));
  return out.reshaped(std::move(shape));
}
Status matmul(Call& call) {
  const Value& x = call.at("x");
  const Value& y = call.at("y");
  if (x.is_text() || y.is_text()) return bad_operand("x", "must be a tensor of numbers");
  POME_ASSIGN_OR_RETURN(const bool transpose_x, call.flag("transpose_x", false));
  POME_ASSIGN_OR_RETURN(const bool transpose_y, call.flag("transpose_y", false));
  if (!is_float(x.type) || !is_float(y.type))
    return unsupported("matmul of " + std::string(to_string(x.type)) + " and " +
                       std::string(to_string(y.type)));
  // With one operand a constant the types may differ; the result has the type of the other.
  const auto is_constant = [&](std::string_view name) {
    for (const Input& input : call.step().inputs)
      if (input.name == name) return input.bindings.front().constant != nullptr;
    return false;
  };
  if (x.type != y.type && is_constant("x") == is_constant("y")) return bad_types(x.type, y.type);
  const DType type = x.type != y.type && is_constant("x") ? y.type : x.type;
  POME_ASSIGN_OR_RETURN(Tensor out,
                        product(x.tensor, y.tensor, transpose_x, transpose_y, call.pool()));
  call.emit(std::move(out), type);
  return {};
}

// nchw,nwhu->nchu (rank 4) and chw,whr->chr (rank 3), whatever the letters: for each h a product
// over w.
Status einsum(Call& call) {
  POME_ASSIGN_OR_RETURN(std::string equation, call.text("equation", ""));
  equation.erase(std::remove(equation.begin(), equation.end(), ' '), equation.end());
  if (call.count("values") != 2) return bad_operand("values", "must be two tensors");
  const Value& x = call.at("values", 0);
  const Value& y = call.at("values", 1);
  if (x.is_text() || y.is_text() || !is_float(x.type) || !is_float(y.type))
    return bad_operand("values", "must be fp16 or fp32");
  if (x.type != y.type) return bad_types(x.type, y.type);
  // Letters in the order of their first use give the form of the equation.
  std::string form, seen;
  for (const char c : equation) {
    if (c == ',' || c == '-' || c == '>') {
      form += c;
      continue;
    }
    if (seen.find(c) == std::string::npos) seen += c;
    form += static_cast<char>('a' + static_cast<char>(seen.find(c)));
  }
  const bool four = form == "abcd,adce->abce";
  if (!four && form != "abc,cbd->abd") return unsupported("einsum '" + equation + "'");
  const int64_t rank = four ? 4 : 3;
  if (x.tensor.rank() != rank || y.tensor.rank() != rank) return bad_shapes(x.shape(), y.shape());
  // x [.., c, h, w] -> [.., h, c, w]; y [.., w, h, u] -> [.., h, w, u]; result [.., h, c, u].
  std::vector<int32_t> order =
      four ? std::vector<int32_t>{0, 2, 1, 3} : std::vector<int32_t>{1, 0, 2};
  POME_ASSIGN_OR_RETURN(const Tensor out,
                        product(refops::transpose(x.tensor, order),
                                refops::transpose(y.tensor, order), false, false, call.pool()));
  call.emit(refops::transpose(out, order), x.type);
  return {};
}

// ---- convolution

struct ConvAxis {
  int64_t size, kernel, stride, dilation, before, after, out;
};
Result<std::vector<ConvAxis>> conv_axes(const Call& call, const Shape& x, const Shape& weight) {
  const size_t spatial = x.size() - 2;
  std::vector<int64_t> strides(spatial, 1), dilations(spatial, 1), pad(2 * spatial, 0);
  for (const auto& [name, into] :
       {std::pair{"strides", &strides}, std::pair{"dilations", &dilations}}) {
    if (!call.has(name)) continue;
    POME_ASSIGN_OR_RETURN(*into, call.ints(name));
    if (into->size() != spatial ||
        std::any_of(into->begin(), into->end(), [](int64_t v) { return v < 1 || v > 1 << 20; }))
      return bad_operand(name, "must hold one positive number per spatial axis");
  }
  POME_ASSIGN_OR_RETURN(const std::string type, call.text("pad_type", "valid"));
  if (type == "custom") {
    POME_ASSIGN_OR_RETURN(pad, call.ints("pad"));
    if (pad.size() != 2 * spatial ||
        std::any_of(pad.begin(), pad.end(), [](int64_t v) { return v < 0 || v > 1 << 20; }))
      return bad_operand("pad", "must hold two numbers per spatial axis");
  } else if (type != "valid" && type != "same" && type != "same_lower") {
    return bad_operand("pad_type", "is '" + type + "'");
  }
  std::vector<ConvAxis> axes;
  for (size_t i = 0; i < spatial; ++i) {
    ConvAxis a{x[i + 2], weight[i + 2], strides[i], dilations[i], pad[2 * i], pad[2 * i + 1], 0};
    const int64_t reach = (a.kernel - 1) * a.dilation + 1;
    if (type == "same" || type == "same_lower") {
      const int64_t total =
          std::max<int64_t>((ceil_div(a.size, a.stride) - 1) * a.stride + reach - a.size, 0);
      a.before = type == "same" ? total / 2 : total - total / 2;
      a.after = total - a.before;
    }
    const int64_t room = a.size + a.before + a.after - reach;
    if (room < 0 || a.kernel < 1) return bad_shapes(x, weight);
    a.out = room / a.stride + 1;
    axes.push_back(a);
  }
  return axes;
}
// Patches of channels [first, first + channels) of image x [Cin, *size] as a matrix
// [channels * kernel elements, output positions].
Tensor patches(const float* x, int64_t first, int64_t channels, const std::vector<ConvAxis>& axes) {
  int64_t kernel = 1, positions = 1, pixels = 1;
  for (const ConvAxis& a : axes) {
    kernel *= a.kernel;
    positions *= a.out;
    pixels *= a.size;
  }
  Tensor out = Tensor::zeros(DType::kF32, {channels * kernel, positions});
  float* to = out.mutable_as<float>().data();
  for (int64_t row = 0; row < channels * kernel; ++row) {
    const float* image = x + (first + row / kernel) * pixels;
    for (int64_t p = 0; p < positions; ++p) {
      int64_t k = row % kernel, q = p, offset = 0, step = 1;
      bool inside = true;
      for (size_t i = axes.size(); i-- > 0;) {
        const ConvAxis& a = axes[i];
        const int64_t at = q % a.out * a.stride + k % a.kernel * a.dilation - a.before;
        inside = inside && at >= 0 && at < a.size;
        offset += at * step;
        step *= a.size;
        q /= a.out;
        k /= a.kernel;
      }
      if (inside) to[row * positions + p] = image[offset];
    }
  }
  return out;
}
// x [N, Cin, *d], weight [Cout, Cin / groups, *kernel], bias [Cout].
Status conv(Call& call) {
  POME_ASSIGN_OR_RETURN(const Value x, call.floats("x"));
  POME_ASSIGN_OR_RETURN(const Tensor weight, float_operand(call, "weight"));
  POME_ASSIGN_OR_RETURN(const int64_t groups, call.integer("groups", 1));
  const Tensor& in = x.tensor;
  if (in.rank() < 3 || in.rank() > 5 || weight.rank() != in.rank() || groups < 1 ||
      in.dim(1) % groups != 0 || in.dim(1) / groups != weight.dim(1) || weight.dim(0) % groups != 0)
    return bad_shapes(in.shape(), weight.shape());
  POME_ASSIGN_OR_RETURN(const std::vector<ConvAxis> axes,
                        conv_axes(call, in.shape(), weight.shape()));
  const int64_t cout = weight.dim(0) / groups, cin = weight.dim(1);
  Shape shape = {in.dim(0), weight.dim(0)};
  int64_t positions = 1;
  bool pointwise = true;
  for (const ConvAxis& a : axes) {
    shape.push_back(a.out);
    positions *= a.out;
    pointwise = pointwise && a.kernel == 1 && a.stride == 1 && a.before + a.after == 0;
  }
  if (!element_count(shape) || (weight.count() == 0 && weight.dim(0) != 0))
    return bad_shapes(in.shape(), weight.shape());
  std::vector<Tensor> parts;
  const int64_t depth = weight.dim(0) == 0 ? 0 : weight.count() / weight.dim(0);
  const int64_t image = in.dim(0) == 0 ? 0 : in.count() / in.dim(0);
  for (int64_t n = 0; n < in.dim(0); ++n) {
    for (int64_t g = 0; g < groups; ++g) {
      const auto floats = static_cast<size_t>(cout * depth) * sizeof(float);
      const Tensor w = Tensor::view(DType::kF32, {cout, depth},
                                    weight.bytes().subspan(static_cast<size_t>(g) * floats, floats),
                                    std::make_shared<const Tensor>(weight));
      const float* from = in.f32().data() + n * image;
      const auto bytes = static_cast<size_t>(cin * positions) * sizeof(float);
      const Tensor columns =
          pointwise
              ? Tensor::view(DType::kF32, {cin, positions},
                             in.bytes().subspan(static_cast<size_t>(n * groups + g) * bytes, bytes),
                             std::make_shared<const Tensor>(in))
              : patches(from, g * cin, cin, axes);
      parts.push_back(refops::matmul(w, columns, false, call.pool()));
    }
  }
  Tensor out =
      parts.empty() ? Tensor::zeros(DType::kF32, shape) : refops::concat(parts, 0).reshaped(shape);
  if (call.has("bias")) {
    POME_ASSIGN_OR_RETURN(const Tensor bias, float_operand(call, "bias"));
    if (bias.rank() != 1 || bias.count() != weight.dim(0))
      return bad_shapes(weight.shape(), bias.shape());
    Shape per_channel(shape.size(), 1);
    per_channel[1] = bias.count();
    out = refops::zip<float, float>(out, bias.reshaped(std::move(per_channel)),
                                    [](float a, float b) { return a + b; });
  }
  call.emit(std::move(out), x.type);
  return {};
}

// ---- attention

// The mask as numbers to add: 0 and -infinity for booleans.
Result<Tensor> additive_mask(const Call& call) {
  const Value& mask = call.at("attn_mask");
  if (mask.is_text()) return bad_operand("attn_mask", "must be a tensor");
  if (mask.type == DType::kBool)
    return refops::map<bool, float>(mask.tensor, [](bool keep) {
      return keep ? 0.0f : -std::numeric_limits<float>::infinity();
    });
  POME_ASSIGN_OR_RETURN(const Value floats, call.floats("attn_mask"));
  return floats.tensor;
}

// Largest squared length of rows [first, rows) of a matrix, and whether all values are finite.
float longest_row(const float* x, int64_t first, int64_t rows, int64_t width) {
  float longest = 0;
  for (int64_t r = first; r < rows; ++r) {
    // Eight sums, so that the additions need not wait for each other.
    float sums[8] = {};
    const float* row = x + r * width;
    int64_t i = 0;
    for (; i + 8 <= width; i += 8)
      for (int64_t k = 0; k < 8; ++k) sums[k] += row[i + k] * row[i + k];
    for (; i < width; ++i) sums[0] += row[i] * row[i];
    float sum = 0;
    for (const float part : sums) sum += part;
    if (!(sum <= longest)) longest = sum;  // NaN stays: the comparison fails from then on
    if (!std::isfinite(longest)) return std::numeric_limits<float>::infinity();
  }
  return longest;
}

struct Attention {
  int64_t batches, queries, keys, width, value_width;
  const float* q;
  const float* k;
  const float* v;
  float* out;
  // Additive mask of one batch: row stride 0 where all queries share it. Null = none.
  std::function<const float*(int64_t)> mask_of;
  int64_t mask_row;
  float scale;
};
// Keys beyond this many are masked with -1e4 or less for every query.
int64_t unmasked_keys(const Attention& a, const float* mask) {
  if (mask == nullptr) return a.keys;
  int64_t keep = 0;
  for (int64_t t = 0; t < a.queries; ++t) {
    const float* row = mask + t * a.mask_row;
    int64_t last = a.keys;
    while (last > keep && row[last - 1] <= -1e4f) --last;
    keep = std::max(keep, last);
    if (a.mask_row == 0) break;
  }
  return keep;
}
// Softmax rows in place over the first `keys` scores, mask added. Returns false when a key left out
// could still have a weight above 0: its score is at most `bound[t]`, and exp underflows below
// -104.
bool softmax_rows(const Attention& a, const float* mask, int64_t keys, float key_length,
                  const float* q, float* scores) {
  for (int64_t t = 0; t < a.queries; ++t) {
    float* row = scores + t * keys;
    float top = -std::numeric_limits<float>::infinity();
    for (int64_t s = 0; s < keys; ++s) {
      row[s] *= a.scale;
      if (mask != nullptr) row[s] += mask[t * a.mask_row + s];
      top = std::max(top, row[s]);
    }
    if (keys < a.keys) {
      float bound = -std::numeric_limits<float>::infinity();
      for (int64_t s = keys; s < a.keys; ++s) bound = std::max(bound, mask[t * a.mask_row + s]);
      const float length = std::sqrt(longest_row(q, t, t + 1, a.width) * key_length);
      if (!(bound + 1.01f * a.scale * length - top < -150.0f) || !std::isfinite(top)) return false;
    }
    double sum = 0;
    for (int64_t s = 0; s < keys; ++s) {
      row[s] = std::exp(row[s] - top);
      sum += row[s];
    }
    for (int64_t s = 0; s < keys; ++s) row[s] = static_cast<float>(row[s] / sum);
  }
  return true;
}
Tensor rows_view(const float* from, int64_t rows, int64_t width, const Tensor& owner) {
  return Tensor::view(DType::kF32, {rows, width},
                      std::as_bytes(std::span(from, static_cast<size_t>(rows * width))),
                      std::make_shared<const Tensor>(owner));
}
void attend(const Attention& a, int64_t batch, const Tensor& qt, const Tensor& kt,
            const Tensor& vt) {
  const float* q = a.q + batch * a.queries * a.width;
  const float* k = a.k + batch * a.keys * a.width;
  const float* v = a.v + batch * a.keys * a.value_width;
  const float* mask = a.mask_of ? a.mask_of(batch) : nullptr;
  int64_t keys = unmasked_keys(a, mask);
  float key_length = 0;
  // Leaving keys out must change nothing: not if a value behind them is infinite or not a number.
  if (keys == 0) keys = a.keys;
  if (keys < a.keys) {
    key_length = longest_row(k, keys, a.keys, a.width);
    if (!std::isfinite(key_length) || !std::isfinite(longest_row(v, keys, a.keys, a.value_width)))
      keys = a.keys;
  }
  const Tensor query = rows_view(q, a.queries, a.width, qt);
  for (;;) {
    Tensor scores = refops::matmul(query, rows_view(k, keys, a.width, kt), true, nullptr);
    if (!softmax_rows(a, mask, keys, key_length, q, scores.mutable_as<float>().data())) {
      keys = a.keys;
      continue;
    }
    const Tensor out =
        refops::matmul(scores, rows_view(v, keys, a.value_width, vt), false, nullptr);
    std::copy(out.f32().begin(), out.f32().end(), a.out + batch * a.queries * a.value_width);
    return;
  }
}

// softmax(q k^T / sqrt(E) + mask) v
Status attention(Call& call) {
  POME_ASSIGN_OR_RETURN(const Value query, call.floats("query"));
  POME_ASSIGN_OR_RETURN(const Tensor key, float_operand(call, "key"));
  POME_ASSIGN_OR_RETURN(const Tensor value, float_operand(call, "value"));
  const Tensor& q = query.tensor;
  if (q.rank() < 3 || key.rank() != q.rank() || value.rank() != q.rank() ||
      batch_of(q) != batch_of(key) || batch_of(q) != batch_of(value) || q.dim(-1) != key.dim(-1) ||
      q.dim(-1) == 0)
    return bad_shapes(q.shape(), key.shape());
  if (key.dim(-2) != value.dim(-2)) return bad_shapes(key.shape(), value.shape());
  Shape shape = q.shape();
  shape.back() = value.dim(-1);
  Tensor out = Tensor::zeros(DType::kF32, shape);
  Attention a{element_count(batch_of(q)).value_or(0),
              q.dim(-2),
              key.dim(-2),
              q.dim(-1),
              value.dim(-1),
              q.f32().data(),
              key.f32().data(),
              value.f32().data(),
              out.mutable_as<float>().data(),
              nullptr,
              0,
              1.0f / std::sqrt(static_cast<float>(q.dim(-1)))};
  Tensor mask;
  std::vector<int64_t> mask_offsets;
  if (call.has("attn_mask")) {
    POME_ASSIGN_OR_RETURN(mask, additive_mask(call));
    Shape scores = batch_of(q);
    scores.push_back(a.queries);
    scores.push_back(a.keys);
    if (mask.rank() < 1 || mask.dim(-1) != a.keys || mask.rank() > q.rank() ||
        refops::broadcast_shape(mask.shape(), scores) != scores)
      return bad_shapes(scores, mask.shape());
    const std::vector<int64_t> strides = refops::broadcast_strides(mask.shape(), scores);
    a.mask_row = strides[strides.size() - 2];
    const std::vector<int64_t> outer(strides.begin(), strides.end() - 2);
    refops::for_each_offset(batch_of(q), outer, outer, [&](int64_t, int64_t offset, int64_t) {
      mask_offsets.push_back(offset);
    });
    a.mask_of = [&](int64_t batch) {
      return mask.f32().data() + mask_offsets[static_cast<size_t>(batch)];
    };
  }
  if (a.keys > 0) {
    const auto body = [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) attend(a, b, q, key, value);
    };
    if (call.pool() != nullptr && a.batches > 1)
      call.pool()->parallel_for(a.batches, 1, body);
    else
      body(0, a.batches);
  }
  call.emit(std::move(out), query.type);
  return {};
}

constexpr OpSpec kOps[] = {
    {"linear", linear, "x weight", "bias"},
    {"matmul", matmul, "x y", "transpose_x transpose_y"},
    {"einsum", einsum, "values* equation", ""},
    {"conv", conv, "x weight", "bias strides pad_type pad dilations groups"},
    {"scaled_dot_product_attention", attention, "query key value", "attn_mask"},
};

}  // namespace

std::span<const OpSpec> linear_ops() { return kOps; }

}  // namespace pome::mil_ops
