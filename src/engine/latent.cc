#include "engine/latent.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>

#include "graph/passes.h"
#include "graph/rewriter.h"
#include "tensor/half.h"

namespace pome {

namespace {

// Rows [first, first + count) of every head of a matrix whose heads have `stride` rows, each head
// transposed: [heads, columns, count]. Floats keep their encoding, others become binary16: blocks
// of columns do not survive, and a second rounding to few bits would show.
class TransposedHeads final : public ConstantData {
 public:
  TransposedHeads(ConstantDataPtr in, int64_t heads, int64_t first, int64_t count)
      : ConstantData({heads, in->columns(), count}, encoding_for(in->encoding())),
        in_(std::move(in)),
        stride_(in_->rows() / heads),
        first_(first) {}
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    const auto bits = static_cast<size_t>(bits_of(encoding().kind));
    const int64_t width = in_->columns();  // rows of a head here
    tile->row = row;
    tile->rows = rows;
    tile->storage.resize(1);
    tile->storage[0].resize(static_cast<size_t>(rows * columns()) * bits / 8);
    tile->parts.assign(1, tile->storage[0]);
    std::vector<float> head(static_cast<size_t>(columns() * width));
    std::vector<float> turned(static_cast<size_t>(columns()));
    std::byte* out = tile->storage[0].data();
    for (int64_t at = row; at < row + rows;) {
      POME_RETURN_IF_ERROR(in_->read_f32(at / width * stride_ + first_, columns(), head.data()));
      const int64_t end = std::min(row + rows, (at / width + 1) * width);
      for (; at < end; ++at, out += turned.size() * bits / 8) {
        for (int64_t c = 0; c < columns(); ++c)
          turned[static_cast<size_t>(c)] = head[static_cast<size_t>(c * width + at % width)];
        store(turned, out);
      }
    }
    return {};
  }

 private:
  static Encoding encoding_for(const Encoding& in) {
    const bool plain = in.kind == EncodingKind::kF32 || in.kind == EncodingKind::kBF16;
    return plain ? in : Encoding::plain(EncodingKind::kF16);
  }
  static size_t bits_of(EncodingKind kind) { return kind == EncodingKind::kF32 ? 32 : 16; }
  void store(const std::vector<float>& values, std::byte* out) const {
    if (encoding().kind == EncodingKind::kF32) {
      std::memcpy(out, values.data(), values.size() * sizeof(float));
      return;
    }
    const std::span<uint16_t> halves{reinterpret_cast<uint16_t*>(out), values.size()};
    if (encoding().kind == EncodingKind::kBF16) return f32_to_bf16(values, halves);
    f32_to_f16(values, halves);
  }

  ConstantDataPtr in_;
  int64_t stride_, first_;
};

// The same rows as they are: [heads, count, columns].
ConstantDataPtr rows_of_heads(const ConstantDataPtr& in, int64_t heads, int64_t first,
                              int64_t count) {
  std::vector<ConstantDataPtr> parts;
  for (int64_t h = 0; h < heads; ++h)
    parts.push_back(slice_rows(in, h * (in->rows() / heads) + first, Shape{count, in->columns()}));
  return concat_rows(std::move(parts), Shape{heads, count, in->columns()});
}

struct Match {
  CachePair keys, values;
  ValueId latent = kNoValue;    // [B, T, R]
  ValueId rotary = kNoValue;    // [B, 1, T, r]
  ValueId position = kNoValue;  // of kv_write
  Constant to_latent;           // [H, R, N]
  Constant from_latent;         // [H, Dv, R]
  int64_t rank = 0, rest = 0, nope = 0;
};

class Matcher {
 public:
  explicit Matcher(const Graph& graph) : graph_(graph), users_(graph.values.size(), 0) {
    producer_.resize(graph.values.size(), nullptr);
    for (const Node& node : graph.nodes) {
      producer_[at(node.result)] = &node;
      for (const ValueId id : node.operands)
        if (id != kNoValue) ++users_[at(id)];
    }
  }

  Result<std::optional<Match>> match(const Node& attention) const {
    const std::optional<Match> none;
    if (!std::holds_alternative<AttentionOp>(attention.op)) return none;
    Match out;
    const Node* const keys = written(attention.operands[1], &out.keys);
    const Node* const values = written(attention.operands[2], &out.values);
    if (!keys || !values || keys->operands[2] != values->operands[2]) return none;
    out.position = keys->operands[2];
    const Node* const both = producer<ConcatOp>(keys->operands[1]);
    if (!both || both->operands.size() != 2 || !is_last(std::get<ConcatOp>(both->op).axis))
      return none;
    POME_ASSIGN_OR_RETURN(out.rotary, shared(both->operands[1]));
    if (out.rotary == kNoValue) return none;
    if (!expanded_at_once(both->operands[0], values->operands[1], &out) &&
        !expanded_apart(both->operands[0], values->operands[1], &out))
      return none;
    out.nope = out.to_latent.data->columns();
    out.rank = out.from_latent.data->columns();
    out.rest = graph_.type(out.rotary).shape[3].size;
    const int64_t heads = graph_.type(keys->operands[1]).shape[1].size;
    const int64_t before =
        heads * (out.nope + out.rest + graph_.type(attention.result).shape[3].size);
    if (out.rank + out.rest >= before) return none;
    return std::optional<Match>(std::move(out));
  }

 private:
  static size_t at(ValueId id) { return static_cast<size_t>(id); }
  static bool is_last(int32_t axis) { return axis == -1 || axis == 3; }
  template <typename T>
  const Node* producer(ValueId id) const {
    const Node* const node = producer_[at(id)];
    return node && std::holds_alternative<T>(node->op) ? node : nullptr;
  }
  const Constant* constant(ValueId id) const {
    const Node* const node = producer<ConstantOp>(id);
    return node ? &graph_.constants[at(std::get<ConstantOp>(node->op).constant)] : nullptr;
  }

  // The write behind `rows` when attention alone reads the cache.
  const Node* written(ValueId rows, CachePair* pair) const {
    const Node* const write = producer<KvWriteOp>(rows);
    if (!write || users_[at(rows)] != 1 || users_[at(write->operands[0])] != 1 ||
        rows == graph_.output)
      return nullptr;
    for (const CachePair& cache : graph_.caches) {
      if (cache.output != rows || cache.input != write->operands[0]) continue;
      *pair = cache;
      return write;
    }
    return nullptr;
  }

  // [B, 1, T, r] that a sum with zeros copies to all heads.
  Result<ValueId> shared(ValueId id) const {
    const Node* const sum = producer<BinaryOp>(id);
    if (!sum || std::get<BinaryOp>(sum->op).kind != BinaryKind::kAdd) return kNoValue;
    for (const size_t side : {size_t{0}, size_t{1}}) {
      const ValueId one = sum->operands[side];
      const Constant* const zeros = constant(sum->operands[1 - side]);
      const SymShape& shape = graph_.type(one).shape;
      const SymShape wanted = {1, graph_.type(id).shape[1], 1, 1};
      if (!zeros || shape.size() != 4 || shape[1] != Dim(1) ||
          graph_.type(sum->operands[1 - side]).shape != wanted)
        continue;
      std::vector<float> values(static_cast<size_t>(zeros->data->rows() * zeros->data->columns()));
      POME_RETURN_IF_ERROR(zeros->data->read_f32(0, zeros->data->rows(), values.data()));
      if (std::all_of(values.begin(), values.end(), [](float x) { return x == 0; })) return one;
    }
    return kNoValue;
  }

  // Both are slices of the heads of one product.
  bool expanded_at_once(ValueId keys, ValueId values, Match* out) const {
    const Node* const k = producer<SliceOp>(keys);
    const Node* const v = producer<SliceOp>(values);
    if (!k || !v || k->operands[0] != v->operands[0]) return false;
    const auto &k_range = std::get<SliceOp>(k->op), &v_range = std::get<SliceOp>(v->op);
    if (!is_last(k_range.axis) || !is_last(v_range.axis) || k_range.step != 1 || v_range.step != 1)
      return false;
    const Node* const moved = producer<TransposeOp>(k->operands[0]);
    if (!moved || std::get<TransposeOp>(moved->op).permutation != std::vector<int32_t>{0, 2, 1, 3})
      return false;
    const Node* const split = producer<ReshapeOp>(moved->operands[0]);
    const Node* const product = split ? producer<LinearOp>(split->operands[0]) : nullptr;
    if (!product || product->operands.size() != 2) return false;
    const Constant* const weight = constant(product->operands[1]);
    const SymShape& heads = graph_.type(split->result).shape;
    if (!weight || heads.size() != 4 || graph_.type(product->operands[0]).shape.size() != 3 ||
        heads[1] != Dim(Symbol::kTokens) || weight->data->rows() != heads[2].size * heads[3].size)
      return false;
    out->latent = product->operands[0];
    out->to_latent.name = weight->name + ".keys";
    out->to_latent.data = std::make_shared<TransposedHeads>(
        weight->data, heads[2].size, k_range.begin, k_range.end - k_range.begin);
    out->from_latent.name = weight->name + ".values";
    out->from_latent.data =
        rows_of_heads(weight->data, heads[2].size, v_range.begin, v_range.end - v_range.begin);
    return true;
  }

  // Each is a product of its own, [B, 1, T, R] times [H, R, N] or [H, N, R].
  bool expanded_apart(ValueId keys, ValueId values, Match* out) const {
    const Node* const k = producer<MatMulOp>(keys);
    const Node* const v = producer<MatMulOp>(values);
    if (!k || !v || std::get<MatMulOp>(k->op).transpose_y || !std::get<MatMulOp>(v->op).transpose_y)
      return false;
    const Constant* const to = constant(k->operands[1]);
    const Constant* const from = constant(v->operands[1]);
    const ValueId latent = one_head(k->operands[0]);
    if (!to || !from || latent == kNoValue || latent != one_head(v->operands[0]) ||
        to->data->shape().size() != 3 || from->data->shape().size() != 3)
      return false;
    out->latent = latent;
    out->to_latent = *to;
    out->from_latent = *from;
    return true;
  }
  // x [B, T, R] where `id` is that as [B, 1, T, R].
  ValueId one_head(ValueId id) const {
    const Node* const node = producer<ReshapeOp>(id);
    if (!node) return kNoValue;
    const SymShape &from = graph_.type(node->operands[0]).shape, &to = graph_.type(id).shape;
    if (from.size() != 3 || from[1] != Dim(Symbol::kTokens)) return kNoValue;
    const bool same = to == SymShape{from[0], 1, from[1], from[2]};
    return same ? node->operands[0] : kNoValue;
  }

  const Graph& graph_;
  std::vector<const Node*> producer_;  // by value
  std::vector<int> users_;             // by value: operands that are it
};

// Parts [0, first) and the rest of the last axis; the operands of a concat that joined them.
std::pair<ValueId, ValueId> parts_of(const Graph& graph, const Node* producer, ValueId id,
                                     int64_t first, Rewriter* out) {
  const auto* concat = producer ? std::get_if<ConcatOp>(&producer->op) : nullptr;
  if (concat && (concat->axis == -1 || concat->axis == 3) && producer->operands.size() == 2 &&
      graph.type(producer->operands[0]).shape[3] == Dim(first))
    return {out->mapped(producer->operands[0]), out->mapped(producer->operands[1])};
  const ValueId x = out->mapped(id);
  const int64_t all = graph.type(id).shape[3].size;
  return {out->emit(SliceOp{-1, 0, first}, {x}), out->emit(SliceOp{-1, first, all}, {x})};
}

CachePair rewrite(const Graph& graph, const Node& attention, const Node* query, const Match& match,
                  Rewriter* out) {
  const int64_t width = match.rank + match.rest;
  const ValueId latent = out->emit(ReshapeOp{{Symbol::kBatch, 1, Symbol::kTokens, match.rank}},
                                   {out->mapped(match.latent)});
  const ValueId row = out->emit(ConcatOp{-1}, {latent, out->mapped(match.rotary)});
  const std::string name = "~latents." + std::to_string(match.keys.layer);
  const ValueId cache = out->input(name, {DType::kF32, {Symbol::kBatch, 1, Symbol::kPast, width}});
  const ValueId rows =
      out->emit(KvWriteOp{}, {cache, row, out->mapped(match.position)}, name + ".all");
  const ValueId latents = out->emit(SliceOp{-1, 0, match.rank}, {rows});
  const auto [q_nope, q_rope] = parts_of(graph, query, attention.operands[0], match.nope, out);
  const ValueId to = out->constant(match.to_latent), from = out->constant(match.from_latent);
  const ValueId q = out->emit(ConcatOp{-1}, {out->emit(MatMulOp{true}, {q_nope, to}), q_rope});
  std::vector<ValueId> operands = {q, rows, latents};
  for (size_t i = 3; i < attention.operands.size(); ++i)
    operands.push_back(out->mapped(attention.operands[i]));
  const ValueId mixed = out->emit(attention.op, std::move(operands));
  out->replace(attention.result, out->emit(MatMulOp{true}, {mixed, from}));
  return {cache, rows, match.keys.layer, CachePair::Kind::kLatent};
}

}  // namespace

Result<Graph> attend_to_latents(const Graph& graph) {
  const Matcher matcher(graph);
  std::map<ValueId, Match> found;  // by the result of attention
  std::vector<bool> gone(graph.values.size(), false);
  for (const Node& node : graph.nodes) {
    POME_ASSIGN_OR_RETURN(std::optional<Match> match, matcher.match(node));
    if (!match) continue;
    for (const CachePair& pair : {match->keys, match->values})
      gone[static_cast<size_t>(pair.input)] = gone[static_cast<size_t>(pair.output)] = true;
    found.emplace(node.result, std::move(*match));
  }
  if (found.empty()) return graph;
  std::vector<const Node*> producer(graph.values.size(), nullptr);
  Rewriter out(graph);
  std::vector<CachePair> caches;
  for (const Node& node : graph.nodes) {
    producer[static_cast<size_t>(node.result)] = &node;
    if (gone[static_cast<size_t>(node.result)]) continue;
    const auto match = found.find(node.result);
    if (match == found.end()) {
      out.copy(node);
      continue;
    }
    const Node* const query = producer[static_cast<size_t>(node.operands[0])];
    caches.push_back(rewrite(graph, node, query, match->second, &out));
  }
  Graph made = out.finish();
  made.caches.insert(made.caches.end(), caches.begin(), caches.end());
  return remove_dead(made);
}

}  // namespace pome
