// Private to the interpreter of Core ML packages: what an operation sees, and the tables of
// operations. mil_eval.cc prepares programs and walks them; every other mil_*.cc holds a group of
// operations.
//
// Meaning of the operations: coremltools' op definitions (docs/coreml.md). Layout conventions: NCHW
// for convolutions, numpy broadcasting everywhere.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "base/thread_pool.h"
#include "formats/mil.h"
#include "tensor/tensor.h"

namespace pome::mil_ops {

// A value in flight. `type` is the element type the package declares; the tensor stores every float
// type as f32, every integer type (sub-byte codes of constants included) as i32, booleans as bool.
struct Value {
  DType type = DType::kF32;
  Tensor tensor;
  std::vector<std::string> strings;  // of a string value; then the tensor is undefined

  const Shape& shape() const { return tensor.shape(); }
  bool is_text() const { return !tensor.defined(); }
};
// kF32, kI32 or kBool: how values of `type` are stored.
DType storage_of(DType type);
bool is_integer(DType type);
// Codes of at most eight bits, which the parameters of constexpr operations keep as they are
// stored.
bool is_code(DType type);
// Stored constant -> value; fp64, 64-bit integers that do not fit and fp8 are kUnsupported.
Result<Value> decode_constant(const Tensor& stored);

struct Binding {
  int slot = -1;                    // run-time value
  const Value* constant = nullptr;  // or a constant
  bool last_use = false;
};
struct Input {
  std::string name;
  std::vector<Binding> bindings;
};
struct OpSpec;
// One prepared operation.
struct Step {
  const OpSpec* spec = nullptr;
  std::string name;  // of the first output, or the attribute `name`: for messages
  std::vector<Input> inputs;
  std::vector<mil::NamedType> outputs;
  std::vector<int> output_slots;
  std::vector<int> dead_slots;  // freed after this step
  int state = -1;               // of read_state and write_state
  bool takes_state = false;     // read_state: nobody reads the state again before the next write
};

// What an operation reads and where it leaves its results. Required inputs are present (the program
// was checked); everything else about them is the operation's to check.
class Call {
 public:
  Call(const Step& step, std::span<Value> slots, ThreadPool* pool)
      : step_(step), slots_(slots), pool_(pool) {}

  const Step& step() const { return step_; }
  ThreadPool* pool() const { return pool_; }
  bool has(std::string_view name) const { return count(name) > 0; }
  size_t count(std::string_view name) const;  // bindings under this name
  const Value& at(std::string_view name, size_t index = 0) const;
  // The value itself when this is its last use, else a copy that shares the storage.
  Value take(std::string_view name);

  // Typed reading; each error names the parameter.
  Result<Value> floats(std::string_view name) const;               // any float type
  Result<std::vector<int64_t>> ints(std::string_view name) const;  // rank 0 or 1
  Result<int64_t> integer(std::string_view name, int64_t fallback) const;
  Result<bool> flag(std::string_view name, bool fallback) const;
  // One per axis; all false when absent.
  Result<std::vector<bool>> flags(std::string_view name, size_t rank) const;
  Result<double> number(std::string_view name, double fallback) const;
  Result<std::string> text(std::string_view name, std::string_view fallback) const;
  // An axis in [-rank, rank), made non-negative.
  Result<int64_t> axis(std::string_view name, int64_t fallback, int64_t rank) const;
  // A list of distinct axes, non-negative; all axes when absent.
  Result<std::vector<int64_t>> axes(std::string_view name, int64_t rank) const;

  void emit(Tensor tensor, DType type) { results_.push_back({type, std::move(tensor), {}}); }
  std::vector<Value>& results() { return results_; }

 private:
  const Input* find(std::string_view name) const;
  const Step& step_;
  std::span<Value> slots_;
  ThreadPool* pool_;
  std::vector<Value> results_;
};

using Handler = Status (*)(Call&);
enum OpFlag : uint8_t {
  kPlain = 0,
  kMoves = 1,        // results hold values of inputs: already rounded
  kConstexpr = 2,    // evaluated when the program is prepared
  kManyOutputs = 4,  // else exactly one
  kState = 8,        // read_state, write_state: done by the core
};
struct OpSpec {
  std::string_view name;
  Handler handler;
  // Space-separated parameter names; "values*" takes a list of bindings.
  std::string_view required, optional;
  uint8_t flags = kPlain;
};
std::span<const OpSpec> elementwise_ops();
std::span<const OpSpec> shape_ops();
std::span<const OpSpec> slice_ops();
std::span<const OpSpec> linear_ops();
std::span<const OpSpec> constexpr_ops();
std::span<const OpSpec> reduce_ops();
std::span<const OpSpec> gather_ops();

// Errors of a package whose operations do not fit together.
Status bad_operand(std::string_view parameter, std::string_view problem);
Status bad_types(DType x, DType y);
Status bad_shapes(const Shape& x, const Shape& y);
std::string shape_text(const Shape& shape);

}  // namespace pome::mil_ops
