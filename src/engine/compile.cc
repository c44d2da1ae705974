// From a graph to a plan: chooses the place of every value and the step of every node.
#include <algorithm>
#include <map>
#include <set>

#include "engine/context_file.h"
#include "engine/engine.h"
#include "engine/plan_impl.h"
#include "graph/passes.h"
#include "kernels/packed/products.h"

namespace pome {

namespace {

constexpr int64_t kDefaultCapacity = 4096, kLargestCapacity = int64_t{1} << 31;
constexpr int64_t kLargestChunk = 1 << 16;
constexpr int64_t kTailRows = 32;
constexpr int kMostThreads = 1024;

// [B, T, ..] with nothing else that changes: rows can be told apart.
bool is_row_shape(const SymShape& shape) {
  if (shape.size() < 2 || shape[1] != Dim(Symbol::kTokens)) return false;
  if (shape[0] != Dim(Symbol::kBatch) && shape[0] != Dim(1)) return false;
  return std::all_of(shape.begin() + 2, shape.end(), [](const Dim& d) { return d.is_static(); });
}
bool is_static_shape(const SymShape& shape) {
  return std::all_of(shape.begin(), shape.end(), [](const Dim& d) { return d.is_static(); });
}

// Whether row t of the result depends on rows t of the operands only, given that result and
// operands have row shapes or are static.
bool is_row_op(const Graph& graph, const Node& node) {
  const auto rank = static_cast<int32_t>(graph.type(node.result).shape.size());
  const auto behind_rows = [rank](int32_t axis) { return (axis < 0 ? axis + rank : axis) >= 2; };
  const auto of_value = [&](size_t i) { return graph.type(node.operands[i]).shape; };
  return std::visit(
      [&](const auto& op) {
        using T = std::decay_t<decltype(op)>;
        if constexpr (std::is_same_v<T, UnaryOp> || std::is_same_v<T, ReshapeOp> ||
                      std::is_same_v<T, ActivationOp> || std::is_same_v<T, SwigluOp> ||
                      std::is_same_v<T, MoeOp>) {
          return true;
        } else if constexpr (std::is_same_v<T, BinaryOp> || std::is_same_v<T, SelectOp>) {
          // A broadcast of another rank would move the rows to another axis.
          for (size_t i = 0; i < node.operands.size(); ++i) {
            const SymShape shape = of_value(i);
            if (!is_static_shape(shape) && static_cast<int32_t>(shape.size()) != rank) return false;
          }
          return true;
        } else if constexpr (std::is_same_v<T, LinearOp> || std::is_same_v<T, RmsNormOp> ||
                             std::is_same_v<T, LayerNormOp>) {
          return rank >= 3 && is_static_shape(of_value(1));
        } else if constexpr (std::is_same_v<T, SoftmaxOp> || std::is_same_v<T, TopKMaskOp>) {
          return rank >= 3;
        } else if constexpr (std::is_same_v<T, ReduceOp> || std::is_same_v<T, SliceOp> ||
                             std::is_same_v<T, ConcatOp>) {
          return behind_rows(op.axis);
        } else if constexpr (std::is_same_v<T, TransposeOp>) {
          return op.permutation[0] == 0 && op.permutation[1] == 1;
        } else if constexpr (std::is_same_v<T, MatMulOp>) {
          return rank == 3 && of_value(0).size() == 3 && of_value(1).size() == 2 &&
                 is_static_shape(of_value(1));
        } else {
          return false;
        }
      },
      node.op);
}

// By value: the node that makes it belongs to the tail.
std::vector<bool> find_tail(const Graph& graph) {
  std::vector<bool> tail(graph.values.size(), false), blocked(graph.values.size(), false);
  for (const CachePair& cache : graph.caches) blocked[static_cast<size_t>(cache.output)] = true;
  std::vector<bool> used(graph.values.size(), false);
  used[static_cast<size_t>(graph.output)] = true;
  for (size_t i = graph.nodes.size(); i-- > 0;) {
    const Node& node = graph.nodes[i];
    const auto result = static_cast<size_t>(node.result);
    bool in_tail = used[result] && !blocked[result] &&
                   is_row_shape(graph.type(node.result).shape) && is_row_op(graph, node);
    for (const ValueId id : node.operands) {
      const SymShape& shape = graph.type(id).shape;
      in_tail = in_tail && (is_row_shape(shape) || is_static_shape(shape));
    }
    tail[result] = in_tail;
    for (const ValueId id : node.operands) {
      used[static_cast<size_t>(id)] = true;
      if (!in_tail) blocked[static_cast<size_t>(id)] = true;
    }
  }
  return tail;
}

SymShape without_ones(const SymShape& shape) {
  SymShape out;
  for (const Dim& dim : shape)
    if (dim != Dim(1) && dim != Dim(Symbol::kBatch)) out.push_back(dim);
  return out;
}

class Compiler {
 public:
  Compiler(const Graph& graph, const WorkContext& work, PlanData* plan)
      : graph_(graph),
        work_(work),
        plan_(plan),
        pool_(plan->threads),
        constant_of_(graph.values.size(), -1) {}

  Status run() {
    const std::vector<bool> tail = find_tail(graph_);
    for (size_t id = 0; id < graph_.values.size(); ++id) {
      if (graph_.values[id].type.shape.size() > kMaxRank)
        return unsupported("value " + graph_.values[id].name + " has too many dimensions");
      Slot slot;
      slot.type = graph_.values[id].type;
      slot.tail = tail[id];
      slot.on_past = depends_on_past(slot.type.shape);
      plan_->slots.push_back(std::move(slot));
      plan_->names.push_back(graph_.values[id].name);
    }
    POME_RETURN_IF_ERROR(place_caches());
    for (const Node& node : graph_.nodes)
      if (const auto* op = std::get_if<ConstantOp>(&node.op))
        constant_of_[static_cast<size_t>(node.result)] = op->constant;
    plan_->output = graph_.output;
    if (work_.progress) work_.progress->begin("plan", graph_.nodes.size(), "nodes");
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      POME_RETURN_IF_ERROR(check_cancelled(work_.cancel));
      Status status = lower(graph_.nodes[i]);
      if (!status.ok()) return std::move(status).at(graph_.name(graph_.nodes[i].result));
      if (work_.progress) work_.progress->advance(i + 1);
    }
    if (work_.progress) work_.progress->end();
    POME_RETURN_IF_ERROR(use(graph_.output, true).status());
    find_frontier();
    place_output();
    return plan_memory(plan_);
  }

 private:
  Slot& slot(ValueId id) { return plan_->slots[static_cast<size_t>(id)]; }
  static bool depends_on_past(const SymShape& shape) {
    return std::any_of(shape.begin(), shape.end(), [](const Dim& d) {
      return d.symbol == Symbol::kPast || d.symbol == Symbol::kTotal;
    });
  }

  Status place_caches() {
    for (const CachePair& pair : graph_.caches) {
      const SymShape& shape = graph_.type(pair.input).shape;
      if (!shape[1].is_static() || !shape[3].is_static())
        return unsupported("the shape of cache " + graph_.name(pair.input));
      Slot& input = slot(pair.input);
      input.place = Slot::Place::kCache;
      input.offset = static_cast<int64_t>(plan_->caches.size());
      input.on_past = true;
      plan_->caches.push_back(cache_slot(pair, shape[1].size, shape[3].size));
    }
    return {};
  }

  // A cache that attention alone reads may be of any kind, and needs no more than the widest window
  // that looks at it; one that other steps read too is f32 and whole.
  CacheSlot cache_slot(const CachePair& pair, int64_t heads, int64_t dim) const {
    CacheSlot out{heads, dim, plan_->kv, 0, 0};
    bool only_windows = true, only_attention = pair.output != graph_.output;
    for (const Node& node : graph_.nodes) {
      for (size_t i = 0; i < node.operands.size(); ++i) {
        if (node.operands[i] == pair.input && !std::holds_alternative<KvWriteOp>(node.op))
          only_attention = false;
        if (node.operands[i] != pair.output) continue;
        const auto* op = std::get_if<AttentionOp>(&node.op);
        if (!op || (i != 1 && i != 2)) {
          only_attention = false;
        } else {
          only_windows = only_windows && op->window > 0;
          out.window = std::max(out.window, op->window);
        }
      }
    }
    if (!only_attention) out.kind = KvKind::kF32;
    if (!only_attention || !only_windows) out.window = 0;
    return out;
  }
  std::optional<KvLayout> layout_of(ValueId id) {
    const Slot& at = slot(id);
    if (at.place != Slot::Place::kCache) return std::nullopt;
    const CacheSlot& cache = plan_->caches[static_cast<size_t>(at.offset)];
    return KvLayout{cache.kind, cache.row_bytes(), cache.row_bytes() * plan_->capacity};
  }

  ValueId add_value(ValueType type, std::string name) {
    Slot made;
    made.place = Slot::Place::kArena;
    made.on_past = depends_on_past(type.shape);
    made.type = std::move(type);
    plan_->slots.push_back(std::move(made));
    plan_->names.push_back(std::move(name));
    return static_cast<ValueId>(plan_->slots.size()) - 1;
  }

  void emit(StepPtr step, std::vector<ValueId> reads, std::vector<ValueId> writes) {
    const bool tail = slot(writes[0]).tail;
    (tail ? plan_->tail : plan_->body)
        .push_back({std::move(step), std::move(reads), std::move(writes)});
  }

  // Values of a cache with several heads are the only ones that do not lie contiguous.
  bool is_strided(ValueId id) {
    const Slot& root = slot(root_of(*plan_, id));
    return root.place == Slot::Place::kCache && root.type.shape[1] != Dim(1);
  }

  // Makes an operand readable: decodes a constant; copies a strided value for steps that want it
  // contiguous. Returns the value to read.
  Result<ValueId> use(ValueId id, bool strided_is_fine) {
    const ValueId root = root_of(*plan_, id);
    Slot& at = slot(root);
    if (at.place == Slot::Place::kNone) {
      const int32_t constant = constant_of_[static_cast<size_t>(root)];
      POME_CHECK(constant >= 0);
      POME_ASSIGN_OR_RETURN(at.constant, plan_->weights.decoded(graph_, constant, work_.cancel));
      at.place = Slot::Place::kConstant;
    }
    if (strided_is_fine || !is_strided(id)) return id;
    const ValueId copy =
        add_value(slot(id).type, plan_->names[static_cast<size_t>(id)] + ".contiguous");
    emit(make_copy({ReshapeOp{slot(id).type.shape}, {id}, copy}, slot(id).type.dtype), {id},
         {copy});
    return copy;
  }

  // The weight when the value is a constant, else null.
  Result<const Weight*> weight_of(ValueId id) {
    const int32_t constant = constant_of_[static_cast<size_t>(id)];
    if (constant < 0) return nullptr;
    return plan_->weights.encoded(graph_, constant, work_.cancel);
  }

  Status lower(const Node& node) {
    return std::visit([&](const auto& op) { return lower(op, node); }, node.op);
  }

  Status lower(const InputOp&, const Node& node) {
    Slot& at = slot(node.result);
    if (node.result == graph_.token_ids) {
      at.place = Slot::Place::kTokens;
    } else if (node.result == graph_.position) {
      at.place = Slot::Place::kPosition;
    } else if (at.place != Slot::Place::kCache) {
      return unsupported("the engine has nothing to feed this input with");
    }
    return {};
  }
  Status lower(const ConstantOp&, const Node&) { return {}; }
  Status lower(const ReshapeOp& op, const Node& node) {
    const ValueId x = node.operands[0];
    if (is_strided(x) && without_ones(op.shape) != without_ones(slot(x).type.shape))
      return any_stride(node, make_copy(node, slot(node.result).type.dtype));
    Slot& at = slot(node.result);
    at.place = Slot::Place::kAlias;
    at.alias_of = x;
    at.on_past = at.on_past || slot(x).on_past;
    return {};
  }
  Status lower(const KvWriteOp&, const Node& node) {
    const ValueId cache = node.operands[0];
    const bool paired = std::any_of(
        graph_.caches.begin(), graph_.caches.end(),
        [&](const CachePair& pair) { return pair.input == cache && pair.output == node.result; });
    if (!paired) return unsupported("the engine writes to caches of the graph only");
    Slot& at = slot(node.result);
    at.place = Slot::Place::kCache;
    at.offset = slot(cache).offset;
    at.on_past = true;
    POME_ASSIGN_OR_RETURN(const ValueId value, use(node.operands[1], false));
    emit(make_kv_write({node.op, {cache, value}, node.result}, *layout_of(node.result)),
         {cache, value}, {node.result});
    return {};
  }

  // The packed form of a product's weight where the plan wants one; null otherwise.
  Result<const PackedWeight*> packed_weight_of(const Node& node) {
    const int32_t constant = constant_of_[static_cast<size_t>(node.operands[1])];
    if (plan_->exact || constant < 0 || !kernels::choose_packed(plan_->isa)) return nullptr;
    if (node.operands.size() > 2 && constant_of_[static_cast<size_t>(node.operands[2])] < 0)
      return nullptr;
    const ConstantData& data = *graph_.constants[static_cast<size_t>(constant)].data;
    const auto format = kernels::packed_format(data.encoding(), data.columns());
    if (!format) return nullptr;
    return plan_->weights.packed(graph_, constant, *format, &pool_, work_.cancel);
  }

  // All products with x whose weights are packed become one step at the place of the first.
  Status lower_packed(const Node& first, const PackedWeight* weight) {
    std::vector<PackedProduct> products;
    std::vector<ValueId> reads, writes;
    POME_ASSIGN_OR_RETURN(const ValueId x, use(first.operands[0], false));
    reads.push_back(x);
    for (const Node& node : graph_.nodes) {
      const bool same = node.result == first.result;
      if (!same &&
          (!std::holds_alternative<LinearOp>(node.op) || node.operands[0] != first.operands[0] ||
           slot(node.result).tail != slot(first.result).tail))
        continue;
      PackedProduct product;
      product.weight = weight;
      if (!same) {
        POME_ASSIGN_OR_RETURN(product.weight, packed_weight_of(node));
        if (!product.weight) continue;
      }
      if (node.operands.size() > 2) {
        POME_ASSIGN_OR_RETURN(product.bias, use(node.operands[2], false));
        reads.push_back(product.bias);
      }
      product.result = node.result;
      slot(node.result).place = Slot::Place::kArena;
      writes.push_back(node.result);
      done_.insert(node.result);
      products.push_back(product);
    }
    emit(make_packed_linear(plan_->isa, x, std::move(products)), std::move(reads),
         std::move(writes));
    return {};
  }

  Status lower(const LinearOp&, const Node& node) {
    if (done_.count(node.result)) return {};
    POME_ASSIGN_OR_RETURN(const PackedWeight* const packed, packed_weight_of(node));
    if (packed) return lower_packed(node, packed);
    POME_ASSIGN_OR_RETURN(const Weight* const weight, weight_of(node.operands[1]));
    Node made = node;
    POME_ASSIGN_OR_RETURN(made.operands[0], use(node.operands[0], false));
    if (!weight) {
      POME_ASSIGN_OR_RETURN(made.operands[1], use(node.operands[1], false));
    }
    if (node.operands.size() > 2) {
      POME_ASSIGN_OR_RETURN(made.operands[2], use(node.operands[2], false));
    }
    return finish(made, make_linear(plan_->isa, made, weight, plan_->exact));
  }
  Status lower(const MatMulOp& op, const Node& node) {
    const ValueId y = node.operands[1];
    if (op.transpose_y && constant_of_[static_cast<size_t>(y)] >= 0 &&
        slot(y).type.shape.size() == 2)
      return lower(LinearOp{}, node);
    return any_stride(node, make_matmul(plan_->isa, node));
  }
  Status lower(const EmbeddingOp&, const Node& node) {
    POME_ASSIGN_OR_RETURN(const Weight* const table, weight_of(node.operands[0]));
    if (!table) return any_stride(node, make_gather(node));
    Node made = node;
    POME_ASSIGN_OR_RETURN(made.operands[1], use(node.operands[1], false));
    return finish(made, make_embedding(plan_->isa, made, table));
  }
  Status lower(const GatherOp&, const Node& node) { return lower(EmbeddingOp{}, node); }
  Status lower(const MoeOp& op, const Node& node) {
    Node made = node;
    MoeWeights weights;
    const auto fetch = [&](size_t operand, const Weight** to) -> Status {
      POME_ASSIGN_OR_RETURN(*to, weight_of(node.operands[operand]));
      return *to ? Status() : unsupported("experts that are not constants");
    };
    POME_RETURN_IF_ERROR(fetch(2, &weights.gate));
    if (op.gated) POME_RETURN_IF_ERROR(fetch(3, &weights.up));
    POME_RETURN_IF_ERROR(fetch(op.down(), &weights.down));
    for (size_t i = 0; i < made.operands.size(); ++i) {
      if (i >= 2 && i < op.operands_without_biases()) continue;
      POME_ASSIGN_OR_RETURN(made.operands[i], use(node.operands[i], false));
    }
    return finish(made, make_moe(plan_->isa, made, weights));
  }

  Status lower(const RopeOp& op, const Node& node) {
    Node made = node;
    for (ValueId& id : made.operands) {
      POME_ASSIGN_OR_RETURN(id, use(id, false));
    }
    const SymShape& shape = graph_.type(node.operands[0]).shape;
    const RopeKey key{made.operands[1], made.operands[2], op.scale, shape[2].symbol};
    auto& tables = rope_tables_[key];
    if (tables.first == kNoValue) {
      const ValueType type{DType::kF32, {shape[2], op.rotary_dim / 2}};
      const std::string name = "rope_table." + std::to_string(rope_tables_.size());
      tables = {add_value(type, name + ".cos"), add_value(type, name + ".sin")};
      emit(make_rope_table(made.operands[1], made.operands[2], tables.first, tables.second,
                           op.scale),
           {made.operands[1], made.operands[2]}, {tables.first, tables.second});
    }
    made.operands = {made.operands[0], tables.first, tables.second};
    return finish(made, make_rope(plan_->isa, made, tables.first, tables.second));
  }
  Status lower(const AttentionOp&, const Node& node) {
    Node made = node;
    for (size_t i = 0; i < made.operands.size(); ++i) {
      POME_ASSIGN_OR_RETURN(made.operands[i], use(made.operands[i], i == 1 || i == 2));
    }
    const SymShape &q = slot(made.operands[0]).type.shape, &k = slot(made.operands[1]).type.shape,
                   &v = slot(made.operands[2]).type.shape;
    const AttentionShape shape{q[1].size,
                               k[1].size,
                               q[3].size,
                               v[3].size,
                               layout_of(made.operands[1]),
                               layout_of(made.operands[2]),
                               plan_->exact};
    return finish(made, make_attention(plan_->isa, made, shape));
  }
  Status lower(const RmsNormOp&, const Node& node) {
    return contiguous(node, [&](const Node& n) { return make_rms_norm(plan_->isa, n); });
  }
  Status lower(const LayerNormOp&, const Node& node) {
    return contiguous(node, [](const Node& n) { return make_layer_norm(n); });
  }
  Status lower(const ActivationOp&, const Node& node) {
    return contiguous(node, [&](const Node& n) { return make_activation(plan_->isa, n); });
  }
  Status lower(const SwigluOp&, const Node& node) {
    return contiguous(node, [&](const Node& n) { return make_swiglu(plan_->isa, n); });
  }
  Status lower(const SoftmaxOp&, const Node& node) {
    return contiguous(node, [&](const Node& n) { return make_softmax(plan_->isa, n); });
  }
  Status lower(const TopKMaskOp&, const Node& node) {
    return contiguous(node, [&](const Node& n) { return make_topk_mask(n); });
  }
  Status lower(const UnaryOp&, const Node& node) {
    return any_stride(node, make_unary(plan_->isa, node, graph_));
  }
  Status lower(const BinaryOp&, const Node& node) {
    return any_stride(node, make_binary(plan_->isa, node, graph_));
  }
  Status lower(const SelectOp&, const Node& node) {
    return any_stride(node, make_select(node, graph_));
  }
  Status lower(const ReduceOp&, const Node& node) { return any_stride(node, make_reduce(node)); }
  Status lower(const TransposeOp&, const Node& node) {
    return any_stride(node, make_copy(node, slot(node.result).type.dtype));
  }
  Status lower(const SliceOp&, const Node& node) {
    return any_stride(node, make_copy(node, slot(node.result).type.dtype));
  }
  Status lower(const ConcatOp&, const Node& node) {
    return any_stride(node, make_copy(node, slot(node.result).type.dtype));
  }
  Status lower(const IotaOp&, const Node& node) { return any_stride(node, make_iota(node)); }

  // Steps that read values of any stride.
  Status any_stride(const Node& node, StepPtr step) {
    for (const ValueId id : node.operands) POME_RETURN_IF_ERROR(use(id, true).status());
    return finish(node, std::move(step));
  }
  // Steps that read contiguous values.
  template <typename Make>
  Status contiguous(const Node& node, const Make& make) {
    Node made = node;
    for (ValueId& id : made.operands) {
      POME_ASSIGN_OR_RETURN(id, use(id, false));
    }
    return finish(made, make(made));
  }
  Status finish(const Node& node, StepPtr step) {
    slot(node.result).place = Slot::Place::kArena;
    emit(std::move(step), node.operands, {node.result});
    return {};
  }

  void find_frontier() {
    std::vector<bool> seen(plan_->slots.size(), false);
    const auto consider = [&](ValueId id) {
      const Slot& at = slot(id);
      if (at.tail || is_static_shape(at.type.shape) || seen[static_cast<size_t>(id)]) return;
      seen[static_cast<size_t>(id)] = true;
      plan_->frontier.push_back(id);
    };
    for (const PlannedStep& planned : plan_->tail)
      for (const ValueId id : planned.reads) consider(id);
    for (size_t id = 0; id < plan_->slots.size(); ++id) {
      const Slot& at = plan_->slots[id];
      if (at.tail && at.place == Slot::Place::kAlias) consider(at.alias_of);
    }
    std::sort(plan_->frontier.begin(), plan_->frontier.end());
  }

  // The tail writes the logits where the caller wants them.
  void place_output() {
    const ValueId root = root_of(*plan_, plan_->output);
    Slot& at = slot(root);
    if (!at.tail || at.place != Slot::Place::kArena) return;
    at.place = Slot::Place::kOutput;
    for (size_t id = 0; id < plan_->slots.size(); ++id)
      plan_->slots[id].external = root_of(*plan_, static_cast<ValueId>(id)) == root;
  }

  struct RopeKey {
    ValueId position, frequencies;
    double scale;
    Symbol rows;
    auto operator<=>(const RopeKey&) const = default;
  };
  struct TablePair {
    ValueId first = kNoValue, second = kNoValue;
  };

  const Graph& graph_;
  const WorkContext& work_;
  PlanData* plan_;
  ThreadPool pool_;                   // for loading
  std::set<ValueId> done_;            // results of products that an earlier step computes
  std::vector<int32_t> constant_of_;  // by value: index of the constant, or -1
  std::map<RopeKey, TablePair> rope_tables_;
};

Status check_graph(const Graph& graph) {
  POME_RETURN_IF_ERROR(validate(graph));
  if (graph.token_ids == kNoValue)
    return unsupported("the engine runs whole graphs, not a later part of a cut one");
  const ValueType wanted{DType::kF32, {Symbol::kBatch, Symbol::kTokens, graph.info.vocab_size}};
  if (!(graph.type(graph.output) == wanted)) {
    return unsupported("the engine needs logits " + to_string(wanted.shape) + " as output, not " +
                       to_string(graph.type(graph.output).shape));
  }
  return {};
}

Status read_options(const PlanOptions& options, const Graph& graph, PlanData* plan) {
  if (options.isa) {
    const std::vector<Isa> available = available_isas();
    if (std::find(available.begin(), available.end(), *options.isa) == available.end()) {
      return usage_error("this machine cannot run " + std::string(to_string(*options.isa)));
    }
    plan->isa = *options.isa;
  } else {
    POME_ASSIGN_OR_RETURN(plan->isa, selected_isa());
  }
  if (options.threads < 1 || options.threads > kMostThreads)
    return usage_error("threads must lie in [1, " + std::to_string(kMostThreads) + "]");
  const int64_t longest = graph.info.max_position_embeddings;
  plan->threads = options.threads;
  plan->exact = options.exact;
  plan->kv = options.kv.value_or(options.exact ? KvKind::kF32 : KvKind::kF16);
  plan->capacity = options.capacity ? options.capacity
                   : longest > 0    ? std::min(longest, kDefaultCapacity)
                                    : kDefaultCapacity;
  if (plan->capacity < 1 || plan->capacity > kLargestCapacity)
    return usage_error("a capacity of " + std::to_string(plan->capacity) + " tokens");
  if (options.chunk < 1 || options.chunk > kLargestChunk)
    return usage_error("a chunk of " + std::to_string(options.chunk) + " tokens");
  plan->chunk = std::min(options.chunk, plan->capacity);
  plan->tail_rows = std::min(plan->chunk, kTailRows);
  plan->vocab_size = graph.info.vocab_size;
  plan->name = graph.info.name;
  return {};
}

}  // namespace

Result<std::shared_ptr<const Plan>> compile(const Graph& graph, const PlanOptions& options,
                                            const WorkContext& work) {
  POME_RETURN_IF_ERROR(check_graph(graph));
  auto data = std::make_unique<PlanData>();
  POME_RETURN_IF_ERROR(read_options(options, graph, data.get()));
  const Graph live = remove_dead(graph);
  POME_RETURN_IF_ERROR(check_weight_memory(live));
  POME_ASSIGN_OR_RETURN(data->fingerprint, graph_fingerprint(live));
  POME_RETURN_IF_ERROR(Compiler(live, work, data.get()).run());
  return std::shared_ptr<const Plan>(std::make_shared<PlanImpl>(std::move(data)));
}

std::string PlanImpl::describe() const {
  const PlanData& d = *data_;
  std::string text = "plan of " + escape_for_terminal(d.name) + ": " +
                     std::string(to_string(d.isa)) + ", " + std::to_string(d.threads) +
                     " threads, capacity " + std::to_string(d.capacity) + ", chunk " +
                     std::to_string(d.chunk) + "\n";
  const uint64_t cache = kv_bytes_at(d.caches, d.capacity, d.chunk);
  text += "bytes: weights " + std::to_string(d.weights.bytes()) + ", full cache " +
          std::to_string(cache) + ", work " + std::to_string(session_bytes() - cache) + "\n";
  int number = 0;
  for (const auto* section : {&d.body, &d.tail}) {
    text += section == &d.body ? "body\n" : "tail\n";
    for (const PlannedStep& planned : *section) {
      text += "  " + std::to_string(number++) + " " + planned.step->describe() + " -> " +
              escape_for_terminal(d.names[static_cast<size_t>(planned.writes[0])]) + "\n";
    }
  }
  return text;
}

uint64_t PlanImpl::session_bytes() const {
  return data_->arena_bytes + kv_bytes_at(data_->caches, data_->capacity, data_->chunk) +
         data_->scratch_bytes + data_->workspace_bytes;
}

}  // namespace pome
