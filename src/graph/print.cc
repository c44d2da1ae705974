// The printed form of a graph, and its hash: both walk the same attribute text, so that what is
// hashed can be read.
#include <algorithm>
#include <cstdio>

#include "graph/graph.h"
#include "graph/passes.h"

namespace pome {

namespace {

// Shortest decimal that reads back exactly; std::to_chars of doubles is missing in older phone
// toolchains.
std::string number(double value) {
  char text[32];
  for (int digits = 6; digits <= 17; ++digits) {
    std::snprintf(text, sizeof text, "%.*g", digits, value);
    double back = 0;
    if (std::sscanf(text, "%lf", &back) == 1 && back == value) break;
  }
  return text;
}

std::string attributes(const Op& op, const Graph& graph) {
  static constexpr const char* kUnary[] = {"neg",     "exp",  "log",    "sqrt",  "rsqrt",
                                           "sigmoid", "tanh", "erf",    "sin",   "cos",
                                           "relu",    "abs",  "to_f32", "to_i32"};
  static constexpr const char* kBinary[] = {"add", "sub",  "mul",        "div",   "min", "max",
                                            "pow", "less", "less_equal", "equal", "and", "or"};
  static constexpr const char* kReduce[] = {"sum", "mean", "max"};
  static constexpr const char* kActivations[] = {"silu", "gelu", "gelu_tanh", "relu"};
  return std::visit(
      [&](const auto& o) -> std::string {
        using T = std::decay_t<decltype(o)>;
        if constexpr (std::is_same_v<T, ConstantOp>)
          return graph.constants[static_cast<size_t>(o.constant)].name;
        else if constexpr (std::is_same_v<T, UnaryOp>)
          return kUnary[static_cast<size_t>(o.kind)];
        else if constexpr (std::is_same_v<T, BinaryOp>)
          return kBinary[static_cast<size_t>(o.kind)];
        else if constexpr (std::is_same_v<T, ReduceOp>)
          return std::string(kReduce[static_cast<size_t>(o.kind)]) + " axis " +
                 std::to_string(o.axis);
        else if constexpr (std::is_same_v<T, ReshapeOp>)
          return to_string(o.shape);
        else if constexpr (std::is_same_v<T, TransposeOp>) {
          std::string text;
          for (const int32_t axis : o.permutation)
            text += (text.empty() ? "" : ",") + std::to_string(axis);
          return text;
        } else if constexpr (std::is_same_v<T, SliceOp>)
          return "axis " + std::to_string(o.axis) + " " + std::to_string(o.begin) + ":" +
                 std::to_string(o.end) + ":" + std::to_string(o.step);
        else if constexpr (std::is_same_v<T, ConcatOp>)
          return "axis " + std::to_string(o.axis);
        else if constexpr (std::is_same_v<T, MatMulOp>)
          return o.transpose_y ? "transpose_y" : "";
        else if constexpr (std::is_same_v<T, IotaOp>)
          return to_string(SymShape{o.length}) + " from " + to_string(SymShape{o.start});
        else if constexpr (std::is_same_v<T, TopKMaskOp>)
          return "k " + std::to_string(o.k);
        else if constexpr (std::is_same_v<T, RmsNormOp> || std::is_same_v<T, LayerNormOp>)
          return "epsilon " + number(o.epsilon);
        else if constexpr (std::is_same_v<T, RopeOp>)
          return std::string(o.style == RopeStyle::kHalves ? "halves" : "interleaved") + " dim " +
                 std::to_string(o.rotary_dim) + " scale " + number(o.scale);
        else if constexpr (std::is_same_v<T, AttentionOp>)
          return "scale " + number(o.scale) +
                 (o.window ? " window " + std::to_string(o.window) : "") +
                 (o.softcap > 0 ? " softcap " + number(o.softcap) : "");
        else if constexpr (std::is_same_v<T, ActivationOp> || std::is_same_v<T, SwigluOp>)
          return kActivations[static_cast<size_t>(o.activation)];
        else if constexpr (std::is_same_v<T, MoeOp>)
          return std::string(o.gated ? "gated " : "plain ") +
                 kActivations[static_cast<size_t>(o.activation)] +
                 (o.sigmoid_scale != 1 ? " sigmoid_scale " + number(o.sigmoid_scale) : "") +
                 (o.limit > 0 ? " limit " + number(o.limit) : "") +
                 (o.up_offset != 0 ? " up_offset " + number(o.up_offset) : "");
        else
          return "";
      },
      op);
}

std::string node_text(const Graph& graph, const Node& node) {
  std::string text =
      "%" + std::to_string(node.result) + " = " + std::string(op_name(node.op)) + "(";
  for (size_t i = 0; i < node.operands.size(); ++i)
    text += (i ? ", %" : "%") + std::to_string(node.operands[i]);
  text += ")";
  if (const std::string attribute = attributes(node.op, graph); !attribute.empty())
    text += " {" + attribute + "}";
  const ValueType& type = graph.type(node.result);
  return text + " : " + std::string(to_string(type.dtype)) + " " + to_string(type.shape);
}

}  // namespace

std::string print(const Graph& graph) {
  std::string text = "graph " + graph.info.family + " \"" + graph.info.name + "\"\n";
  for (const Constant& constant : graph.constants)
    text += "const " + constant.name + " : " + to_string(constant.data->encoding()) + " " +
            to_string(constant.data->shape()) +
            (constant.hf_name.empty() ? "" : "  # " + constant.hf_name) + "\n";
  for (const Node& node : graph.nodes)
    text += node_text(graph, node) + "  # " + graph.name(node.result) + "\n";
  for (const CachePair& cache : graph.caches)
    text += "cache layer " + std::to_string(cache.layer) + " %" + std::to_string(cache.input) +
            " -> %" + std::to_string(cache.output) + "\n";
  return text + "return %" + std::to_string(graph.output) + "\n";
}

std::string structure_hash(const Graph& graph, std::span<const Digest> constant_digests,
                           bool canonical) {
  POME_CHECK(constant_digests.size() == graph.constants.size());
  if (canonical && !graph.source_hash.empty()) return graph.source_hash;
  const auto inserted = [](const Constant& constant) { return constant.inserted; };
  if (canonical && std::any_of(graph.constants.begin(), graph.constants.end(), inserted)) {
    std::vector<Digest> stored;
    for (size_t i = 0; i < constant_digests.size(); ++i)
      if (!graph.constants[i].inserted) stored.push_back(constant_digests[i]);
    return structure_hash(remove_inserted(graph), stored, true);
  }
  Sha256 hash;
  hash.update(canonical ? "pome source graph 1\n" : "pome graph 1\n");
  for (size_t i = 0; i < graph.constants.size(); ++i) {
    const Constant& constant = graph.constants[i];
    const ConstantData& data = canonical ? constant.data->canonical() : *constant.data;
    hash.update(constant.name + " " + to_string(data.encoding()) + " " + to_string(data.shape()) +
                "\n");
    hash.update(std::as_bytes(std::span(constant_digests[i])));
  }
  // Value names are left out: only numbers, ops and types count.
  for (const Node& node : graph.nodes) hash.update(node_text(graph, node) + "\n");
  for (const CachePair& cache : graph.caches)
    hash.update("cache " + std::to_string(cache.layer) + " " + std::to_string(cache.input) + " " +
                std::to_string(cache.output) + "\n");
  hash.update("return " + std::to_string(graph.output) + "\n");
  return to_hex(hash.finish());
}

Result<GraphHashes> hash_graph(const Graph& graph, ThreadPool* pool) {
  std::vector<Digest> stored, canonical;
  for (const Constant& constant : graph.constants) {
    const ConstantData& source = constant.data->canonical();
    auto digest = digest_of(*constant.data, pool);
    if (!digest.ok()) return std::move(digest).status().at(constant.name);
    stored.push_back(*digest);
    if (&source == constant.data.get()) {
      canonical.push_back(*digest);
    } else {
      POME_ASSIGN_OR_RETURN(const Digest source_digest, digest_of(source, pool));
      canonical.push_back(source_digest);
    }
  }
  return GraphHashes{structure_hash(graph, stored, false), structure_hash(graph, canonical, true)};
}

}  // namespace pome
