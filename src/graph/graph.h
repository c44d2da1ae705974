// The one graph of a model: SSA values by index, ops as plain structs in one variant, constants by
// reference.
//
// Shapes are static but for three symbols: B (batch), T (tokens in this call) and P (tokens in the
// cache before this call). A value is produced once; nodes stand in execution order. No control
// flow, no user-defined ops.
//
// Conventions
//   activations   f32 [B, T, hidden]; per-head values [B, heads, T, head_dim]
//   weights       constants [N, K] (N outputs, K inputs), stacked experts [E, N, K]
//   caches        one K and one V value per layer: inputs [B, kv_heads, P, head_dim], outputs with
//   P + T rows position      i32 [1]: rope position of the first token of the call token ids i32
//   [B, T]
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/sha256.h"
#include "base/status.h"
#include "graph/constant.h"
#include "tensor/dtype.h"

namespace pome {

// ---- types of values
// ------------------------------------------------------------------------------------------------

enum class Symbol : uint8_t { kNone, kBatch, kTokens, kPast, kTotal };  // kTotal = P + T

struct Dim {
  int64_t size = 0;  // when symbol == kNone
  Symbol symbol = Symbol::kNone;
  constexpr Dim(int64_t n) : size(n) {}   // NOLINT: implicit on purpose
  constexpr Dim(Symbol s) : symbol(s) {}  // NOLINT: implicit on purpose
  friend bool operator==(const Dim&, const Dim&) = default;
  bool is_static() const { return symbol == Symbol::kNone; }
};
using SymShape = std::vector<Dim>;
std::string to_string(const SymShape& shape);  // "[B, T, 256]"

// Numbers for the symbols of one call.
struct Bindings {
  int64_t batch = 1, tokens = 1, past = 0;
};
Shape bind(const SymShape& shape, const Bindings& bindings);

struct ValueType {
  DType dtype = DType::kF32;
  SymShape shape;
  friend bool operator==(const ValueType&, const ValueType&) = default;
};

using ValueId = int32_t;
inline constexpr ValueId kNoValue = -1;

// ---- ops
// ------------------------------------------------------------------------------------------------------------
// Operands are listed behind each op; [] marks an optional one (absent = kNoValue).

// Leaves
struct InputOp {  // no operands
  friend bool operator==(const InputOp&, const InputOp&) = default;
};
struct ConstantOp {      // no operands; decodes to f32
  int32_t constant = 0;  // index into Graph::constants
  friend bool operator==(const ConstantOp&, const ConstantOp&) = default;
};

// Primitives
enum class UnaryKind : uint8_t {
  kNeg,
  kExp,
  kLog,
  kSqrt,
  kRsqrt,
  kSigmoid,
  kTanh,
  kErf,
  kSin,
  kCos,
  kRelu,
  kAbs,
  kToF32,
  kToI32
};
struct UnaryOp {  // x
  UnaryKind kind;
  friend bool operator==(const UnaryOp&, const UnaryOp&) = default;
};
enum class BinaryKind : uint8_t {
  kAdd,
  kSub,
  kMul,
  kDiv,
  kMin,
  kMax,
  kPow,
  kLess,
  kLessEqual,
  kEqual,
  kAnd,
  kOr
};
struct BinaryOp {  // x, y: numpy broadcasting; comparisons give bool
  BinaryKind kind;
  friend bool operator==(const BinaryOp&, const BinaryOp&) = default;
};
struct SelectOp {  // condition (bool), x, y: numpy broadcasting
  friend bool operator==(const SelectOp&, const SelectOp&) = default;
};
enum class ReduceKind : uint8_t { kSum, kMean, kMax };
struct ReduceOp {  // x; the reduced axis stays with size 1
  ReduceKind kind;
  int32_t axis;  // negative counts from the end
  friend bool operator==(const ReduceOp&, const ReduceOp&) = default;
};
struct ReshapeOp {  // x
  SymShape shape;
  friend bool operator==(const ReshapeOp&, const ReshapeOp&) = default;
};
struct TransposeOp {  // x
  std::vector<int32_t> permutation;
  friend bool operator==(const TransposeOp&, const TransposeOp&) = default;
};
struct SliceOp {  // x; static bounds on a static axis
  int32_t axis;
  int64_t begin, end, step = 1;
  friend bool operator==(const SliceOp&, const SliceOp&) = default;
};
struct ConcatOp {  // any number of values of equal rank
  int32_t axis;
  friend bool operator==(const ConcatOp&, const ConcatOp&) = default;
};
struct MatMulOp {  // x [.., M, K], y [.., K, N] or [.., N, K] when transpose_y; batch dims
                   // broadcast
  bool transpose_y = false;
  friend bool operator==(const MatMulOp&, const MatMulOp&) = default;
};
struct GatherOp {  // table [N, D], ids i32 [..] -> [.., D]
  friend bool operator==(const GatherOp&, const GatherOp&) = default;
};
struct IotaOp {  // no operands: i32 [length] start, start + 1, ..
  Dim length;
  Dim start = 0;
  friend bool operator==(const IotaOp&, const IotaOp&) = default;
};
struct TopKMaskOp {  // x [.., E] -> bool [.., E]: true for the k largest (ties: lowest index)
  int64_t k;
  friend bool operator==(const TopKMaskOp&, const TopKMaskOp&) = default;
};
struct KvWriteOp {  // cache [B, H, P, D], value [B, H, T, D], position -> [B, H, P+T, D]
  friend bool operator==(const KvWriteOp&, const KvWriteOp&) = default;
};

// Composites: each is defined by its decomposition (graph/decompose.cc)
struct LinearOp {  // x [.., K], weight [N, K], [bias [N]] -> [.., N]
  friend bool operator==(const LinearOp&, const LinearOp&) = default;
};
struct EmbeddingOp {  // table [V, D], ids [B, T] -> [B, T, D]
  friend bool operator==(const EmbeddingOp&, const EmbeddingOp&) = default;
};
struct RmsNormOp {  // x [.., D], gain [D]: x / sqrt(mean(x^2) + epsilon) * gain
  double epsilon;
  friend bool operator==(const RmsNormOp&, const RmsNormOp&) = default;
};
struct LayerNormOp {  // x [.., D], gain [D], [bias [D]]:
  double epsilon;     // (x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) * gain + bias
  friend bool operator==(const LayerNormOp&, const LayerNormOp&) = default;
};
enum class RopeStyle : uint8_t {
  kHalves,
  kInterleaved
};               // pairs (i, i + d/2) as in GPT-NeoX and HF Llama; (2i, 2i+1)
struct RopeOp {  // x [B, H, T, D], position, inverse_frequencies [d/2]
  RopeStyle style;
  int64_t rotary_dim;  // d <= D: the rest passes through
  double scale;        // multiplies cos and sin (attention factor of YaRN and longrope)
  friend bool operator==(const RopeOp&, const RopeOp&) = default;
};
struct AttentionOp {   // q [B, H, T, D], k [B, Hkv, P+T, D], v [B, Hkv, P+T, Dv], [sinks [H]]
  double scale;        // -> [B, H, T, Dv]; query t sees keys j <= P + t
  int64_t window = 0;  // > 0: only j > P + t - window
  double softcap = 0;  // > 0: s = softcap * tanh(s / softcap) before the mask
  friend bool operator==(const AttentionOp&, const AttentionOp&) = default;
};
enum class Activation : uint8_t { kSilu, kGelu, kGeluTanh, kRelu };
struct ActivationOp {  // x
  Activation activation;
  friend bool operator==(const ActivationOp&, const ActivationOp&) = default;
};
struct SwigluOp {  // gate, up: activation(gate) * up
  Activation activation = Activation::kSilu;
  friend bool operator==(const SwigluOp&, const SwigluOp&) = default;
};
struct SoftmaxOp {  // x, over the last axis
  friend bool operator==(const SoftmaxOp&, const SoftmaxOp&) = default;
};
// Experts mixed by weights that ordinary ops computed (models/moe.h has the routers).
// x [B, T, K], weights [B, T, E] (exactly 0 for experts that were not chosen), gate [E, F, K],
// up [E, F, K] (only when gated), down [E, K, F], then either no biases or all of
// gate bias [E, F], up bias [E, F] (only when gated), down bias [E, K].
//   gated: down(act(min(gate x, limit)) * (clamp(up x, -limit, limit) + up_offset))
//   else:  down(act(min(gate x, limit)))                      no limit when it is 0
struct MoeOp {
  bool gated = true;
  Activation activation = Activation::kSilu;
  double sigmoid_scale = 1;  // of silu: x sigmoid(sigmoid_scale x)
  double limit = 0;
  double up_offset = 0;
  friend bool operator==(const MoeOp&, const MoeOp&) = default;
  // Places of the operands behind x and weights.
  size_t down() const { return gated ? 4 : 3; }
  size_t operands_without_biases() const { return gated ? 5 : 4; }
  size_t operands_with_biases() const { return gated ? 8 : 6; }
};

using Op = std::variant<InputOp, ConstantOp, UnaryOp, BinaryOp, SelectOp, ReduceOp, ReshapeOp,
                        TransposeOp, SliceOp, ConcatOp, MatMulOp, GatherOp, IotaOp, TopKMaskOp,
                        KvWriteOp, LinearOp, EmbeddingOp, RmsNormOp, LayerNormOp, RopeOp,
                        AttentionOp, ActivationOp, SwigluOp, SoftmaxOp, MoeOp>;
std::string_view op_name(const Op& op);  // "rms_norm"
bool is_composite(const Op& op);

// ---- graph
// ----------------------------------------------------------------------------------------------------------

struct Node {
  Op op;
  std::vector<ValueId> operands;
  ValueId result = kNoValue;  // every op has exactly one result
};

struct Value {
  ValueType type;
  std::string name;  // unique; "layers.0.attention_norm"
};

// How a weight lies in the GGUF tensor of its gguf_name.
struct GgufPlace {
  int64_t first_row = 0, rows = 0;  // rows > 0: it is a part of a fused tensor of that many rows
  int64_t paired_heads = 0;         // > 0: rows of heads stored as pairs (i, i + d/2), one by one
  bool vector = false;              // [1, N] stored as [N]
  float factor = 1;                 // the file holds the weight times this
};

// One weight. The graph name is ours; the others are what exporters and error messages need.
struct Constant {
  std::string name;       // "layers.0.attention.q.weight"
  std::string hf_name;    // "model.layers.0.self_attn.q_proj.weight", empty when there is none
  std::string gguf_name;  // "blk.0.attn_q.weight"
  ConstantDataPtr data;
  GgufPlace gguf_place = {};
  // What the weight is for; schemes and mixtures choose by it.
  enum class Role : uint8_t {
    kMatrix,
    kEmbedding,
    kHead,
    kNorm,
    kBias,
    kTable
  } role = Role::kMatrix;
  int64_t first_row = 0;  // of the weight that this is a part of (split.h)
  // Not of the stored model: a pass added it. The product that reads it stands for what it
  // multiplies, and the source hash leaves both out.
  bool inserted = false;
};

struct CachePair {  // one layer's cache: graph input -> graph output
  ValueId input = kNoValue, output = kNoValue;
  int32_t layer = 0;
  enum class Kind : uint8_t { kKey, kValue, kLatent } kind = Kind::kKey;
};

using ConfigValue = std::variant<bool, int64_t, double, std::string>;

// What a GGUF file says of the model beside its weights.
struct GgufInfo {
  std::string architecture;                           // empty: the format has none for this family
  std::map<std::string, ConfigValue> values;          // keys behind "<architecture>."
  std::map<std::string, std::vector<float>> vectors;  // small tensors that are no constants
  // > 0: readers compute the same up to so many positions only, and why.
  int64_t positions = 0;
  std::string positions_reason;
  std::vector<std::string> obstacles;  // what the format cannot say of this model
};

// Config values as data, so that exporters and planner need no family.
struct ModelInfo {
  std::string family;        // "llama"
  std::string architecture;  // the name GGUF uses
  std::string name;
  int64_t vocab_size = 0, hidden_size = 0, intermediate_size = 0, num_hidden_layers = 0;
  int64_t num_attention_heads = 0, num_key_value_heads = 0, head_dim = 0;
  int64_t max_position_embeddings = 0;
  bool tie_word_embeddings = false;
  std::map<std::string, ConfigValue> config;  // everything else, HF names
  GgufInfo gguf;
};

struct Graph {
  ModelInfo info;
  std::vector<Node> nodes;    // execution order
  std::vector<Value> values;  // by ValueId
  std::vector<Constant> constants;
  ValueId token_ids = kNoValue;  // i32 [B, T]; kNoValue in a later part of a cut graph
  ValueId hidden_in = kNoValue;  // f32 [B, T, hidden]; only in a later part of a cut graph
  ValueId position = kNoValue;   // i32 [1]
  ValueId output =
      kNoValue;  // logits f32 [B, T, vocab]; the hidden state in an earlier part of a cut graph
  std::vector<CachePair> caches;
  // layer_outputs[i] = the hidden state after layer i: where the graph may be cut.
  std::vector<ValueId> layer_outputs;
  // Of the graph that this one computes the same as, where a pass changed what cannot be told from
  // it; empty: its own.
  std::string source_hash;

  const ValueType& type(ValueId id) const { return values[static_cast<size_t>(id)].type; }
  const std::string& name(ValueId id) const { return values[static_cast<size_t>(id)].name; }
};

// What people count: weights, and of tables the learned ones only.
bool is_parameter(const Constant& constant);
int64_t parameter_count(const Graph& graph);
// Elements that the caches of all layers hold for one token.
int64_t cache_elements_per_token(const Graph& graph);

// Shape inference of one op; errors name operand and dimension.
Result<ValueType> infer_type(const Op& op, std::span<const ValueType> operands,
                             std::span<const Constant> constants);
// SSA order, types, names, constants, caches, inputs and output. Lists everything that is wrong.
Status validate(const Graph& graph);
// One line per node: "%12 layers.0.q = linear(%9, %c3) : f32 [B, T, 256]".
std::string print(const Graph& graph);

// Hash of ops, shapes, encodings and weight digests (one per constant, same order). source_hash
// takes the canonical graph: encodings and digests of the data before quantising.
std::string structure_hash(const Graph& graph, std::span<const Digest> constant_digests,
                           bool canonical);
struct GraphHashes {
  std::string graph_hash, source_hash;  // 64 hex digits
};
Result<GraphHashes> hash_graph(const Graph& graph, ThreadPool* pool);  // reads every constant

}  // namespace pome
