// From a graph to a plan: chooses the place of every value and the step of every node.
#include <algorithm>
#include <map>
#include <set>

#include "engine/engine.h"
#include "engine/fuse.h"
#include "engine/latent.h"
#include "engine/plan_impl.h"
#include "engine/tail.h"
#include "graph/passes.h"
#include "kernels/packed/products.h"

namespace pome {

namespace {

SymShape without_ones(const SymShape& shape) {
  SymShape out;
  for (const Dim& dim : shape)
    if (dim != Dim(1) && dim != Dim(Symbol::kBatch)) out.push_back(dim);
  return out;
}

class Compiler {
 public:
  Compiler(const Graph& graph, const PlanOptions& options, const WorkContext& work, PlanData* plan)
      : graph_(graph),
        fuse_(options.fuse),
        observer_(options.observer),
        work_(work),
        plan_(plan),
        pool_(plan->threads),
        producer_(graph.values.size(), nullptr),
        constant_of_(graph.values.size(), -1),
        fusions_(graph.values.size()) {}

  Status run() {
    for (const Node& node : graph_.nodes) {
      producer_[static_cast<size_t>(node.result)] = &node;
      if (const auto* op = std::get_if<ConstantOp>(&node.op))
        constant_of_[static_cast<size_t>(node.result)] = op->constant;
    }
    const std::vector<bool> tail = find_tail(graph_);
    if (fuse_)
      fusions_ = find_fusions(graph_, tail, [this](const Node& node) { return is_packed(node); });
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
      plan_->caches.push_back(cache_slot(graph_, pair, plan_->kv));
    }
    return {};
  }

  std::optional<KvLayout> layout_of(ValueId id) {
    if (slot(id).place != Slot::Place::kCache) return std::nullopt;
    const CacheSlot& cache = plan_->caches[static_cast<size_t>(slot(id).offset)];
    return KvLayout{cache.kind, cache.row_bytes(), cache.row_bytes() * plan_->capacity, cache.dim};
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
    return plan_->weights.encoded(graph_, constant, &pool_, work_.cancel);
  }

  Status lower(const Node& node) {
    // A second factor whose gate comes later in the graph asks for the step of both.
    if (fusions_.taken[static_cast<size_t>(node.result)] && !is_packed(node)) return {};
    return std::visit([&](const auto& op) { return lower(op, node); }, node.op);
  }

  Status lower(const InputOp&, const Node& node) {
    Slot& at = slot(node.result);
    if (node.result == graph_.token_ids || node.result == graph_.hidden_in) {
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
    const KvLayout layout = *layout_of(node.result);
    if (!fusions_.taken[static_cast<size_t>(node.operands[1])]) {
      POME_ASSIGN_OR_RETURN(const ValueId value, use(node.operands[1], false));
      emit(make_kv_write({node.op, {cache, value}, node.result}, layout), {cache, value},
           {node.result});
      return {};
    }
    const Node& rope = producer(node.operands[1]);
    const RopeOp& op = std::get<RopeOp>(rope.op);
    POME_ASSIGN_OR_RETURN(const ValueId value, use(rope.operands[0], false));
    POME_ASSIGN_OR_RETURN(const RopeTables tables, rope_tables(op, rope));
    emit(make_rope_kv_write(plan_->isa, {node.op, {cache, value}, node.result}, layout, op, tables),
         {cache, value, tables.cosine, tables.sine}, {node.result});
    return {};
  }

  std::optional<kernels::PackedFormat> packed_format_of(ValueId weight) const {
    const int32_t constant = constant_of_[static_cast<size_t>(weight)];
    if (plan_->exact || constant < 0 || !kernels::choose_packed(plan_->isa)) return std::nullopt;
    const ConstantData& data = *graph_.constants[static_cast<size_t>(constant)].data;
    return kernels::packed_format(data.encoding(), data.columns());
  }
  // A product whose weight the plan wants packed.
  bool is_packed(const Node& node) const {
    const auto* matmul = std::get_if<MatMulOp>(&node.op);
    if (!matmul && !std::holds_alternative<LinearOp>(node.op)) return false;
    const ValueId weight = node.operands[1];
    if (matmul && (!matmul->transpose_y || graph_.type(weight).shape.size() != 2)) return false;
    if (node.operands.size() > 2 && constant_of_[static_cast<size_t>(node.operands[2])] < 0)
      return false;
    return packed_format_of(weight).has_value();
  }
  Result<const PackedWeight*> packed_weight_of(ValueId weight) {
    return plan_->weights.packed(graph_, constant_of_[static_cast<size_t>(weight)],
                                 *packed_format_of(weight), &pool_, work_.cancel);
  }

  // What a step multiplies, in the form that the fusions give it.
  Result<PackedInput> packed_input(ValueId x, std::vector<ValueId>* reads) {
    PackedInput input;
    input.x = x;
    if (const auto found = quantised_.find(x); found != quantised_.end()) {
      input.x = found->second;
      input.quantised = true;
    } else if (fusions_.norm[static_cast<size_t>(x)]) {
      Node made = producer(x);
      for (ValueId& id : made.operands) {
        POME_ASSIGN_OR_RETURN(id, use(id, false));
        reads->push_back(id);
      }
      input.norm = std::make_shared<RowNorm>(plan_->isa, made);
      input.x = input.norm->x();
      return input;
    } else {
      POME_ASSIGN_OR_RETURN(input.x, use(x, false));
    }
    reads->push_back(input.x);
    return input;
  }

  Status fill_product(const Node& node, PackedProduct* product, std::vector<ValueId>* reads,
                      std::vector<ValueId>* writes) {
    const auto id = static_cast<size_t>(node.result);
    const auto bias_of = [&](const Node& of, ValueId* bias) -> Status {
      if (of.operands.size() < 3) return {};
      POME_ASSIGN_OR_RETURN(*bias, use(of.operands[2], false));
      reads->push_back(*bias);
      return {};
    };
    const auto write = [&](ValueId value) {
      slot(value).place = Slot::Place::kArena;
      writes->push_back(value);
      return value;
    };
    POME_ASSIGN_OR_RETURN(product->weight, packed_weight_of(node.operands[1]));
    POME_RETURN_IF_ERROR(bias_of(node, &product->bias));
    if (const ValueId up = fusions_.up_of[id]; up != kNoValue) {
      const Node& other = producer(up);
      POME_ASSIGN_OR_RETURN(product->up, packed_weight_of(other.operands[1]));
      POME_RETURN_IF_ERROR(bias_of(other, &product->up_bias));
      done_.insert(up);
    }
    product->result = node.result;
    if (const ValueId activated = fusions_.activation[id]; activated != kNoValue) {
      product->activation = activation_of(producer(activated));
      product->result = activated;
      if (fusions_.quantised[static_cast<size_t>(activated)]) {
        product->quantised = write(add_quantised(activated));
        product->result = kNoValue;
      }
    } else if (const ValueId sum = fusions_.sum[id]; sum != kNoValue) {
      POME_ASSIGN_OR_RETURN(product->residual, use(fusions_.residual_of[id], false));
      reads->push_back(product->residual);
      product->result = sum;
    }
    if (product->result != kNoValue) write(product->result);
    done_.insert(node.result);
    return {};
  }
  const Node& producer(ValueId id) const { return *producer_[static_cast<size_t>(id)]; }
  static Activation activation_of(const Node& node) {
    if (const auto* gated = std::get_if<SwigluOp>(&node.op)) return gated->activation;
    return std::get<ActivationOp>(node.op).activation;
  }
  ValueId add_quantised(ValueId activated) {
    ValueType type = slot(activated).type;
    type.shape.back() = quantised_floats(type.shape.back().size);
    const ValueId made =
        add_value(std::move(type), plan_->names[static_cast<size_t>(activated)] + ".quantised");
    slot(made).tail = slot(activated).tail;
    quantised_[activated] = made;
    return made;
  }

  // All products with x whose weights are packed become one step at the place of the first.
  Status lower_packed(const Node& first) {
    std::vector<PackedProduct> products;
    std::vector<ValueId> reads, writes;
    POME_ASSIGN_OR_RETURN(PackedInput input, packed_input(first.operands[0], &reads));
    for (const Node& node : graph_.nodes) {
      const bool same = node.result == first.result;
      if (!same && (!std::holds_alternative<LinearOp>(node.op) ||
                    node.operands[0] != first.operands[0] || done_.count(node.result) ||
                    slot(node.result).tail != slot(first.result).tail || !is_packed(node)))
        continue;
      // The second factor of a gated activation comes with the first.
      if (fusions_.taken[static_cast<size_t>(node.result)]) continue;
      products.emplace_back();
      POME_RETURN_IF_ERROR(fill_product(node, &products.back(), &reads, &writes));
    }
    emit(make_packed_linear(plan_->isa, std::move(input), std::move(products)), std::move(reads),
         std::move(writes));
    return {};
  }

  Status lower(const LinearOp&, const Node& node) {
    if (done_.count(node.result)) return {};
    if (is_packed(node)) return lower_packed(node);
    POME_ASSIGN_OR_RETURN(const Weight* const weight, weight_of(node.operands[1]));
    Node made = node;
    POME_ASSIGN_OR_RETURN(made.operands[0], use(node.operands[0], false));
    if (!weight) {
      POME_ASSIGN_OR_RETURN(made.operands[1], use(node.operands[1], false));
    }
    if (node.operands.size() > 2) {
      POME_ASSIGN_OR_RETURN(made.operands[2], use(node.operands[2], false));
    }
    StepPtr step = make_linear(plan_->isa, made, weight, plan_->exact);
    if (observer_ && weight)
      step = make_observed(std::move(step), made.operands[0], weight_name(node.operands[1]),
                           weight->view.columns, observer_);
    return finish(made, std::move(step));
  }
  const std::string& weight_name(ValueId id) const {
    return graph_.constants[static_cast<size_t>(constant_of_[static_cast<size_t>(id)])].name;
  }
  Status lower(const MatMulOp& op, const Node& node) {
    const ValueId y = node.operands[1];
    if (op.transpose_y && constant_of_[static_cast<size_t>(y)] >= 0 &&
        slot(y).type.shape.size() == 2)
      return lower(LinearOp{}, node);
    if (op.transpose_y && constant_of_[static_cast<size_t>(y)] >= 0 && is_head_weight(node))
      return lower_heads(node);
    return any_stride(node, make_matmul(plan_->isa, node));
  }
  // x [B, H or 1, T, K] and [H, N, K].
  bool is_head_weight(const Node& node) const {
    const SymShape &x = graph_.type(node.operands[0]).shape,
                   &y = graph_.type(node.operands[1]).shape;
    return y.size() == 3 && x.size() == 4 && (x[1] == Dim(1) || x[1] == y[0]);
  }
  Status lower_heads(const Node& node) {
    Node made = node;
    const ValueId weight = node.operands[1];
    POME_ASSIGN_OR_RETURN(made.operands[0], use(node.operands[0], false));
    made.operands.pop_back();
    if (is_packed_stack(weight)) {
      POME_ASSIGN_OR_RETURN(const PackedWeight* const packed, packed_weight_of(weight));
      return finish(made, make_packed_head_linear(plan_->isa, made, packed));
    }
    POME_ASSIGN_OR_RETURN(const Weight* const stored, weight_of(weight));
    return finish(made, make_head_linear(plan_->isa, made, stored));
  }
  // Whether a product has this weight packed: it lies in memory in that form then, and need not lie
  // there as stored too.
  bool packed_for_product(ValueId weight) const {
    const int32_t constant = constant_of_[static_cast<size_t>(weight)];
    return std::any_of(graph_.nodes.begin(), graph_.nodes.end(), [&](const Node& node) {
      return is_packed(node) && constant_of_[static_cast<size_t>(node.operands[1])] == constant;
    });
  }
  Status lower(const EmbeddingOp&, const Node& node) {
    Node made = node;
    if (packed_for_product(node.operands[0])) {
      POME_ASSIGN_OR_RETURN(const PackedWeight* const rows, packed_weight_of(node.operands[0]));
      POME_ASSIGN_OR_RETURN(made.operands[1], use(node.operands[1], false));
      return finish(made, make_packed_embedding(made, rows));
    }
    POME_ASSIGN_OR_RETURN(const Weight* const table, weight_of(node.operands[0]));
    if (!table) return any_stride(node, make_gather(node));
    POME_ASSIGN_OR_RETURN(made.operands[1], use(node.operands[1], false));
    return finish(made, make_embedding(plan_->isa, made, table));
  }
  Status lower(const GatherOp&, const Node& node) { return lower(EmbeddingOp{}, node); }
  // Whether the matrices of this weight, [experts or heads, rows, columns], can be told apart when
  // packed.
  bool is_packed_stack(ValueId weight) const {
    const SymShape& shape = graph_.type(weight).shape;
    return packed_format_of(weight) && shape[1].size % kernels::kTileRows == 0;
  }
  Status lower(const MoeOp& op, const Node& node) {
    Node made = node;
    for (size_t i = 0; i < made.operands.size(); ++i) {
      if (i >= 2 && i < op.operands_without_biases()) continue;
      POME_ASSIGN_OR_RETURN(made.operands[i], use(node.operands[i], false));
    }
    const ValueId gate = node.operands[2], up = op.gated ? node.operands[3] : kNoValue,
                  down = node.operands[op.down()];
    const auto ids = op.gated ? std::vector<ValueId>{gate, up, down} : std::vector{gate, down};
    const auto packs = [this](ValueId id) { return is_packed_stack(id); };
    const auto fetch = [&](auto* weights, const auto& weight) -> Status {
      weights->experts_per_token = experts_per_token(graph_, node);
      POME_ASSIGN_OR_RETURN(weights->gate, weight(gate));
      if (op.gated) {
        POME_ASSIGN_OR_RETURN(weights->up, weight(up));
      }
      POME_ASSIGN_OR_RETURN(weights->down, weight(down));
      if (!weights->gate || !weights->down || (op.gated && !weights->up))
        return unsupported("experts that are not constants");
      return {};
    };
    if (std::all_of(ids.begin(), ids.end(), packs)) {
      PackedMoeWeights weights;
      POME_RETURN_IF_ERROR(fetch(&weights, [this](ValueId id) { return packed_weight_of(id); }));
      return finish(made, make_packed_moe(plan_->isa, made, weights));
    }
    MoeWeights weights;
    POME_RETURN_IF_ERROR(fetch(&weights, [this](ValueId id) { return weight_of(id); }));
    ObservedExperts observed;
    if (observer_) {
      observed = {observer_, {weight_name(gate)}, weight_name(down)};
      if (op.gated) observed.in.push_back(weight_name(up));
    }
    return finish(made, make_moe(plan_->isa, made, weights, std::move(observed)));
  }

  // The tables of a rotation; its step comes with the first that asks.
  Result<RopeTables> rope_tables(const RopeOp& op, const Node& node) {
    POME_ASSIGN_OR_RETURN(const ValueId position, use(node.operands[1], false));
    POME_ASSIGN_OR_RETURN(const ValueId frequencies, use(node.operands[2], false));
    const Dim tokens = graph_.type(node.operands[0]).shape[2];
    RopeTables& tables = rope_tables_[{position, frequencies, op.scale, tokens.symbol}];
    if (tables.cosine == kNoValue) {
      const ValueType type{DType::kF32, {tokens, op.rotary_dim / 2}};
      const std::string name = "rope_table." + std::to_string(rope_tables_.size());
      tables = {add_value(type, name + ".cos"), add_value(type, name + ".sin")};
      emit(make_rope_table(position, frequencies, tables, op.scale), {position, frequencies},
           {tables.cosine, tables.sine});
    }
    return tables;
  }
  Status lower(const RopeOp& op, const Node& node) {
    Node made = node;
    POME_ASSIGN_OR_RETURN(made.operands[0], use(node.operands[0], false));
    POME_ASSIGN_OR_RETURN(const RopeTables tables, rope_tables(op, node));
    made.operands = {made.operands[0], tables.cosine, tables.sine};
    return finish(made, make_rope(plan_->isa, made, tables));
  }
  Status lower(const AttentionOp&, const Node& node) {
    Node made = node;
    for (size_t i = 0; i < made.operands.size(); ++i) {
      POME_ASSIGN_OR_RETURN(made.operands[i], use(made.operands[i], i == 1 || i == 2));
    }
    const auto at = [&](size_t i) { return slot(made.operands[i]).type.shape; };
    AttentionShape shape{at(0)[1].size, at(1)[1].size, at(0)[3].size, at(2)[3].size, {}, {}};
    shape.k = layout_of(made.operands[1]);
    shape.v = layout_of(made.operands[2]);
    shape.same_rows =
        shape.k && shape.v && slot(made.operands[1]).offset == slot(made.operands[2]).offset;
    return finish(made, make_attention(plan_->isa, made, shape, plan_->exact));
  }
  Status lower(const RmsNormOp&, const Node& node) {
    return contiguous(node, [&](const Node& n) { return make_norm(plan_->isa, n); });
  }
  Status lower(const LayerNormOp&, const Node& node) {
    return contiguous(node, [&](const Node& n) { return make_norm(plan_->isa, n); });
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
    return contiguous(
        node, [&](const Node& n) { return make_topk_mask(n, graph_.type(n.result).shape.back()); });
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
    if (is_part_of_rows(graph_, node)) {
      Slot& at = slot(node.result);
      at.place = Slot::Place::kCache;
      at.offset = slot(node.operands[0]).offset;
      at.on_past = true;
      return {};
    }
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

  const Graph& graph_;
  const bool fuse_;
  const std::shared_ptr<ActivationObserver> observer_;
  const WorkContext& work_;
  PlanData* plan_;
  ThreadPool pool_;                    // for loading
  std::set<ValueId> done_;             // results of products that an earlier step computes
  std::vector<const Node*> producer_;  // by value; null for inputs
  std::vector<int32_t> constant_of_;   // by value: index of the constant, or -1
  Fusions fusions_;
  std::map<ValueId, ValueId> quantised_;  // activation -> the value that holds it quantised
  std::map<RopeKey, RopeTables> rope_tables_;
};

}  // namespace

Result<std::shared_ptr<const Plan>> compile(const Graph& graph, const PlanOptions& options,
                                            const WorkContext& work) {
  POME_RETURN_IF_ERROR(check_graph(graph));
  auto data = std::make_unique<PlanData>();
  POME_RETURN_IF_ERROR(read_options(options, graph, data.get()));
  data->graph = remove_dead(graph);
  if (!options.exact && options.latent) {
    POME_ASSIGN_OR_RETURN(data->graph, attend_to_latents(data->graph));
  }
  POME_RETURN_IF_ERROR(check_weight_memory(data->graph));
  POME_RETURN_IF_ERROR(Compiler(data->graph, options, work, data.get()).run());
  if (options.profile) profile_steps(data.get(), options.profile);
  return std::shared_ptr<const Plan>(std::make_shared<PlanImpl>(std::move(data)));
}

}  // namespace pome
