// Second moments of what meets the weights of a graph: which weights read the same value, and sums
// over the rows that an engine's plan shows.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "engine/engine.h"
#include "graph/graph.h"
#include "kernels/gemm/gemm.h"
#include "quantize/statistics.h"

namespace pome {

// A value that weights read, and whose moments they share.
struct ReadValue {
  ValueId value = kNoValue;
  std::string name = {};   // of the value
  std::string first = {};  // the weight that is observed
  int64_t columns = 0, experts = 1;
  bool by_token = true;  // [B, T, columns]: one row of each token
  std::vector<std::string> weights = {};
  uint64_t bytes() const {  // of the second moments
    return static_cast<uint64_t>(columns * columns * experts) * sizeof(float);
  }
};
// Of all linear products with a weight, and of the experts of mixtures, in graph order.
std::vector<ReadValue> read_values(const Graph& graph);
// What the product with a weight is, and, where it is added to a value as it is, that value, the
// hidden state that the weight writes into, and the sum.
struct Product {
  ValueId value = kNoValue, added_to = kNoValue, sum = kNoValue;
};
// By name of the weight: the first linear product with it.
std::map<std::string, Product> products_of_weights(const Graph& graph);

// Sums over rows. They are gathered before they are multiplied, so that products are worth their
// memory traffic; the results do not depend on how rows come in.
class MomentSums {
 public:
  // `whole`: all of x x'; otherwise its diagonal only.
  MomentSums(int64_t columns, bool whole);
  void add(const float* x, int64_t rows, kernels::PanelKernel panel, ThreadPool* pool);
  // Once: the memory of the sums becomes that of the moments. Null where nothing was added.
  MomentsPtr take(kernels::PanelKernel panel, ThreadPool* pool);

 private:
  void multiply(kernels::PanelKernel panel, ThreadPool* pool);

  int64_t columns_, tokens_ = 0, waiting_ = 0;
  bool whole_;
  std::vector<float> second_;            // the upper triangle
  std::vector<double> first_, squares_;  // sums of the columns
  std::vector<float> rows_, turned_;     // rows that wait, and transposed
};

// Mean of x y' over `rows` rows of each that belong together: [columns of x, columns of y].
std::vector<float> cross_moments(std::span<const float> x, std::span<const float> y, int64_t rows,
                                 kernels::PanelKernel panel, ThreadPool* pool);

// Keeps the rows of values, in the order of the text.
class RowKeeper final : public ActivationObserver {
 public:
  RowKeeper(std::span<const ReadValue> values, int64_t tokens);
  void see(const std::string& weight, int64_t expert, const float* x, int64_t rows) override;
  // Once.
  std::vector<float> take(const ReadValue& value) { return std::move(kept_.at(value.first).rows); }

 private:
  struct Kept {
    int64_t columns = 0;
    std::vector<float> rows;
  };
  std::map<std::string, Kept> kept_;  // by the weight that is observed
};

// Deterministic for every number of threads.
class MomentCollector final : public ActivationObserver {
 public:
  // `whole` of a value: its second moments, otherwise their diagonal.
  MomentCollector(std::vector<ReadValue> values, const std::function<bool(const ReadValue&)>& whole,
                  Isa isa, int threads);
  void see(const std::string& weight, int64_t expert, const float* x, int64_t rows) override;
  const std::vector<ReadValue>& values() const { return values_; }
  // Of one of the values, by expert; once.
  std::vector<MomentsPtr> take(const ReadValue& value);

 private:
  std::vector<ReadValue> values_;
  std::map<std::string, std::vector<MomentSums>> by_first_;  // by expert
  kernels::PanelKernel panel_;
  ThreadPool pool_;
};

}  // namespace pome
