// What each weight's encodings cost the predictions: the losses that bit allocation weighs.
//
// The KL divergence that rounding one weight alone causes is nearly alpha * eps, eps the relative
// error of its output, and nearly adds up over weights. With a text it is measured by the model:
//   every choice    small models: each weight in each encoding, rounded as it will be
//   every weight    each weight in one encoding of about four bits; the others by their eps
//   kinds           large models: weights of one kind in one part of the depth together
// Without a text the alphas are a prior by kind and depth. Deterministic: what is measured depends
// on sizes alone.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "graph/graph.h"
#include "quantize/quantize.h"

namespace pome {

// A weight, or several that are stored alike.
struct CostItem {
  std::string name;
  std::vector<size_t> constants;  // of the graph
  // By encoding, then by constant: the weight in it, rounded to the nearest and times the
  // constant's gguf_place.factor where `scaled`.
  std::vector<std::vector<ConstantDataPtr>> stored;
};
struct CostOptions {
  bool scaled = false;
  int64_t tokens = 1024;        // of the text, at most
  double most_products = 1e12;  // multiply-adds of all runs together that decide what is measured
  std::function<void(const std::string&)> say;  // what it will take; may be null
};
enum class CostMethod : uint8_t { kEveryChoice, kEveryWeight, kKinds, kPrior };
struct ItemCost {
  double alpha = 0;            // divergence per relative error
  std::vector<double> errors;  // per encoding: relative, of the output where it is known
  std::vector<double> losses;  // per encoding: mean KL divergence that it is expected to add
};
struct Costs {
  std::vector<ItemCost> items;
  CostMethod method = CostMethod::kPrior;
  int64_t runs = 0, tokens = 0;
  std::string describe() const;  // "each of 57 weights in each encoding, 285 runs of 2048 tokens"
};
// `statistics`: of the activations, empty where there are none; weights are rounded with error
// feedback then. `ids`: of the text; less than two: there is none.
Result<Costs> measure_costs(const Graph& graph, std::span<const CostItem> items,
                            std::span<const int32_t> ids, const ActivationStatistics& statistics,
                            const CostOptions& options, const WorkContext& work);

}  // namespace pome
