// Activations by the names that configurations give them.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "graph/builder.h"

namespace pome {

// f of the graph, applied to x as f(slope x) / slope, then squared.
class HiddenAct {
 public:
  HiddenAct() = default;
  // The spellings of transformers; nullopt: not one that the graph can write.
  static std::optional<HiddenAct> parse(std::string_view name);

  ValueId apply(GraphBuilder& builder, ValueId x, const std::string& name) const;
  // f(gate) * up
  ValueId gate(GraphBuilder& builder, ValueId gate, ValueId up, const std::string& name) const;
  // What a mixture of experts needs to say it in one op; nullopt: it cannot.
  std::optional<MoeOp> gated_experts() const;
  friend bool operator==(const HiddenAct&, const HiddenAct&) = default;
  bool is_silu() const { return fused() && plain_ == Activation::kSilu; }

 private:
  bool fused() const { return !tanh_ && !squared_ && slope_ == 1; }
  Activation plain_ = Activation::kSilu;
  bool tanh_ = false, squared_ = false;
  double slope_ = 1;
};

}  // namespace pome
