// QMoE of com.microsoft: experts with weights of integers, each computing the tokens that chose it.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "interp/onnx_ops.h"
#include "refops/refops.h"

namespace pome::onnx_ops {
namespace {

// One of the two projections: codes [E, rows, bytes], scales [E, rows, blocks], bias [E, rows].
struct Projection {
  int64_t experts = 0, rows = 0, columns = 0, bits = 4, block = 0;
  Tensor codes, scales, bias;  // bias: not defined where there is none

  // Decoded when it is asked for: of many experts few are used.
  Tensor weight(size_t expert) const {
    const size_t bytes = codes.bytes().size() / static_cast<size_t>(experts);
    const size_t count = static_cast<size_t>(scales.count() / experts);
    const auto* begin = reinterpret_cast<const uint8_t*>(codes.bytes().data()) + expert * bytes;
    return dequantize_blocks({begin, bytes}, scales.f32().subspan(expert * count, count), nullptr,
                             static_cast<int>(bits), rows, columns, block);
  }
  Tensor apply(size_t expert, const Tensor& x, ThreadPool* pool) const {
    Tensor out = refops::matmul(x, weight(expert), true, pool);
    if (!bias.defined()) return out;
    auto values = out.mutable_as<float>();
    const size_t width = static_cast<size_t>(rows);
    const auto added = bias.f32().subspan(expert * width, width);
    for (size_t i = 0; i < values.size(); ++i) values[i] += added[i % width];
    return out;
  }
};

Result<Projection> read_projection(const Call& call, size_t at, int64_t experts, int64_t columns) {
  Projection out;
  out.experts = experts;
  out.columns = columns;
  out.bits = call.integer("expert_weight_bits", 4);
  out.block = call.integer("block_size", 0);
  if ((out.bits != 4 && out.bits != 8) || out.block < 16 || (out.block & (out.block - 1)) != 0)
    return unsupported(std::to_string(out.bits) + " bits in blocks of " +
                       std::to_string(out.block));
  for (const size_t needed : {at, at + 1})
    if (!call.has(needed)) return bad_operand(needed, "is missing");
  out.codes = call.in(at);
  POME_ASSIGN_OR_RETURN(out.scales, call.floats(at + 1));
  if (out.codes.dtype() != DType::kU8 || out.codes.rank() != 3 || out.codes.dim(0) != experts ||
      columns % out.block != 0 || out.codes.dim(2) != columns * out.bits / 8)
    return bad_operand(at, "is not uint8 [experts, rows, bytes of a row]");
  out.rows = out.codes.dim(1);
  if (out.rows < 1) return bad_operand(at, "has no rows");
  if (out.scales.shape() != Shape{experts, out.rows, columns / out.block})
    return bad_operand(at + 1, "is not one scale for each block");
  if (call.has(at + 2)) {
    POME_ASSIGN_OR_RETURN(out.bias, call.floats(at + 2));
    if (out.bias.shape() != Shape{experts, out.rows})
      return bad_operand(at + 2, "is not [experts, rows]");
  }
  return out;
}

struct Act {
  std::string type;
  float alpha = 1, beta = 0, limit = 0;  // of swiglu; no limit when it is 0
};

// Gate and up take turns in the rows of the first projection.
Tensor swiglu(const Tensor& x, const Act& act) {
  const int64_t rows = x.dim(0), half = x.dim(1) / 2;
  Tensor out = Tensor::zeros(DType::kF32, {rows, half});
  auto to = out.mutable_as<float>();
  for (size_t i = 0; i < to.size(); ++i) {
    float gate = x.f32()[2 * i], up = x.f32()[2 * i + 1];
    if (act.limit > 0) {
      gate = std::min(gate, act.limit);
      up = std::clamp(up, -act.limit, act.limit);
    }
    to[i] = gate / (1 + std::exp(-act.alpha * gate)) * (up + act.beta);
  }
  return out;
}

Tensor activated(const Tensor& x, const Act& act) {
  if (act.type == "swiglu") return swiglu(x, act);
  Tensor out = x.clone();
  for (float& v : out.mutable_as<float>()) {
    if (act.type == "relu")
      v = std::max(v, 0.0f);
    else if (act.type == "silu")
      v = v / (1 + std::exp(-v));
    else
      v = 0.5f * v * (1 + std::tanh(0.7978845608f * (v + 0.044715f * v * v * v)));
  }
  return out;
}

// The k largest of a row; ties go to the lower index.
std::vector<size_t> chosen(std::span<const float> row, int64_t k) {
  std::vector<size_t> order(row.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return row[a] > row[b]; });
  order.resize(std::min(order.size(), static_cast<size_t>(k)));
  return order;
}

Result<Act> read_activation(const Call& call) {
  Act out{call.text("activation_type", "relu"),
          static_cast<float>(call.number("activation_alpha", 1)),
          static_cast<float>(call.number("activation_beta", 0)),
          static_cast<float>(call.number("swiglu_limit", 0))};
  if (out.type != "swiglu" && out.type != "relu" && out.type != "silu" && out.type != "gelu")
    return unsupported("activation '" + out.type + "'");
  if (out.type == "swiglu" && call.integer("swiglu_fusion", 0) != 1)
    return unsupported("swiglu whose rows do not take turns");
  return out;
}

// Routing: `k` of the probabilities [T, E] choose, the weights [T, E] mix.
Status qmoe(Call& call) {
  POME_ASSIGN_OR_RETURN(const Tensor x, call.floats(0));
  POME_ASSIGN_OR_RETURN(const Tensor router, call.floats(1));
  if (!call.has(14)) return unsupported("routing without weights of its own");
  POME_ASSIGN_OR_RETURN(const Tensor mix, call.floats(14));
  for (size_t i = 8; i < 14; ++i)
    if (call.has(i)) return bad_operand(i, "is not supported");
  POME_ASSIGN_OR_RETURN(const Act act, read_activation(call));
  const int64_t k = call.integer("k", 1);
  if (x.rank() < 2 || router.rank() != 2 || router.shape() != mix.shape() || k < 1 ||
      router.dim(0) * x.dim(-1) != x.count())
    return bad_shapes(x.shape(), router.shape());
  const int64_t width = x.dim(-1), tokens = router.dim(0), experts = router.dim(1);
  if (width == 0 || experts == 0) return bad_shapes(x.shape(), router.shape());
  POME_ASSIGN_OR_RETURN(const Projection inner, read_projection(call, 2, experts, width));
  const int64_t inner_width = act.type == "swiglu" ? inner.rows / 2 : inner.rows;
  POME_ASSIGN_OR_RETURN(const Projection outer, read_projection(call, 5, experts, inner_width));
  if (outer.rows != width) return bad_operand(5, "does not lead back to the width of the tokens");

  std::vector<std::vector<size_t>> users(static_cast<size_t>(experts));
  for (size_t t = 0; t < static_cast<size_t>(tokens); ++t)
    for (const size_t e : chosen(router.f32().subspan(t * users.size(), users.size()), k))
      users[e].push_back(t);
  Tensor out = Tensor::zeros(DType::kF32, x.shape());
  auto sums = out.mutable_as<float>();
  const size_t row = static_cast<size_t>(width);
  for (size_t e = 0; e < users.size(); ++e) {
    if (users[e].empty()) continue;
    Tensor mine = Tensor::zeros(DType::kF32, {static_cast<int64_t>(users[e].size()), width});
    auto to = mine.mutable_as<float>();
    for (size_t i = 0; i < users[e].size(); ++i)
      std::copy_n(x.f32().begin() + static_cast<ptrdiff_t>(users[e][i] * row), row,
                  to.begin() + static_cast<ptrdiff_t>(i * row));
    const Tensor hidden = activated(inner.apply(e, mine, call.pool()), act);
    const Tensor result = outer.apply(e, hidden, call.pool());
    for (size_t i = 0; i < users[e].size(); ++i) {
      const float weight = mix.f32()[users[e][i] * users.size() + e];
      for (size_t c = 0; c < row; ++c)
        sums[users[e][i] * row + c] += weight * result.f32()[i * row + c];
    }
  }
  call.emit(rounded_to(out, call.in(0).dtype()));
  return {};
}

constexpr OpSpec kOps[] = {{onnx::kMicrosoft, "QMoE", 4, 15, qmoe}};

}  // namespace

std::span<const OpSpec> expert_ops() { return kOps; }

}  // namespace pome::onnx_ops
