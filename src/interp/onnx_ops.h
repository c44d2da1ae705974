// Private to the interpreter of ONNX models: what an operator sees, and the tables of operators.
// onnx_eval.cc walks the nodes; every other onnx_*.cc holds a group of operators.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/thread_pool.h"
#include "formats/onnx.h"
#include "tensor/tensor.h"

namespace pome::onnx_ops {

// One node with its values. Values have their ONNX element types; an absent optional input is not
// defined.
class Call {
 public:
  Call(const onnx::Node& node, int64_t opset, std::vector<Tensor> inputs, ThreadPool* pool,
       Tensor* kept)
      : node_(node), opset_(opset), inputs_(std::move(inputs)), pool_(pool), kept_(kept) {}

  const onnx::Node& node() const { return node_; }
  int64_t opset() const { return opset_; }
  ThreadPool* pool() const { return pool_; }
  size_t count() const { return inputs_.size(); }
  bool has(size_t i) const { return i < inputs_.size() && inputs_[i].defined(); }
  const Tensor& in(size_t i) const { return inputs_[i]; }  // has(i), or required by the table
  // As f32, from any float type.
  Result<Tensor> floats(size_t i) const;
  // Any integer type, any rank, flattened.
  Result<std::vector<int64_t>> ints(size_t i) const;

  int64_t integer(std::string_view name, int64_t fallback) const;
  double number(std::string_view name, double fallback) const;
  std::string text(std::string_view name, std::string fallback) const;
  std::optional<std::vector<int64_t>> integers(std::string_view name) const;
  // `value` in [-rank, rank), made non-negative.
  Result<size_t> axis(int64_t value, int64_t rank) const;

  void emit(Tensor tensor) { results_.push_back(std::move(tensor)); }
  std::vector<Tensor>& results() { return results_; }
  // A place of the node for what it made of constant inputs (decoded weights); may be emptied
  // between calls.
  Tensor* kept() const { return kept_; }

 private:
  const onnx::Attribute* find(std::string_view name) const;
  const onnx::Node& node_;
  int64_t opset_;
  std::vector<Tensor> inputs_;
  ThreadPool* pool_;
  std::vector<Tensor> results_;
  Tensor* kept_;
};

using Handler = Status (*)(Call&);
struct OpSpec {
  std::string_view domain, name;
  size_t required, most;  // inputs
  Handler handler;
};
std::span<const OpSpec> elementwise_ops();
std::span<const OpSpec> shape_ops();
std::span<const OpSpec> math_ops();
std::span<const OpSpec> contrib_ops();
std::span<const OpSpec> expert_ops();
std::span<const OpSpec> attention_ops();

Status bad_operand(size_t index, const std::string& problem);  // kRange
Status bad_shapes(const Shape& x, const Shape& y);
// f32 back to the float type of `like`.
Tensor rounded_to(const Tensor& value, DType dtype);

// Codes of `bits` with one scale for `block` of them, [rows, columns]: (code - zero) * scale.
// `zeros` null: 2^(bits - 1).
Tensor dequantize_blocks(std::span<const uint8_t> codes, std::span<const float> scales,
                         const Tensor* zeros, int bits, int64_t rows, int64_t columns,
                         int64_t block);

}  // namespace pome::onnx_ops
