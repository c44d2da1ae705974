// GraphBuilder: writes a graph op by op, inferring types. A family file reads like the paper.
//
// Errors of shape inference are collected: every call after the first error returns kNoValue, and
// finish() reports it. Thread safety: one thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"

namespace pome {

class GraphBuilder {
 public:
  explicit GraphBuilder(ModelInfo info);

  ModelInfo& info() { return graph_.info; }
  ValueId token_ids();  // i32 [B, T]
  ValueId position();   // i32 [1]
  ValueId input(std::string name, ValueType type);
  ValueId cache(int32_t layer, CachePair::Kind kind, int64_t heads,
                int64_t dim);  // f32 [B, heads, P, dim]
  ValueId constant(Constant constant);
  ValueId scalar(float value);  // f32 {} inline constant; equal values share one
  ValueId vector(std::string name, std::vector<float> values);  // f32 [n] inline constant

  // `name` becomes the value's name; empty = op name and number. scope() prefixes names:
  // "layers.3."
  ValueId add(Op op, std::vector<ValueId> operands, std::string name = {});
  void scope(std::string prefix) { scope_ = std::move(prefix); }

  ValueId unary(UnaryKind kind, ValueId x, std::string name = {});
  ValueId binary(BinaryKind kind, ValueId x, ValueId y, std::string name = {});
  ValueId linear(ValueId x, ValueId weight, ValueId bias = kNoValue, std::string name = {});
  ValueId reshape(ValueId x, SymShape shape, std::string name = {});
  ValueId transpose(ValueId x, std::vector<int32_t> permutation, std::string name = {});
  // [B, T, heads * dim] -> [B, heads, T, dim] and back.
  ValueId split_heads(ValueId x, int64_t heads, int64_t dim, std::string name = {});
  ValueId merge_heads(ValueId x, std::string name = {});
  // Writes k or v behind the layer's cache and registers the result as that cache's output.
  ValueId kv_write(ValueId cache, ValueId value, ValueId position, std::string name = {});

  const ValueType& type(ValueId id) const { return graph_.type(id); }
  void end_layer(ValueId hidden);        // marks a place where the graph may be cut
  Result<Graph> finish(ValueId output);  // validates

 private:
  Graph graph_;
  std::string scope_;
  Status error_;
};

}  // namespace pome
