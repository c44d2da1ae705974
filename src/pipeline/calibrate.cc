#include "pipeline/calibrate.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "base/thread_pool.h"
#include "engine/engine.h"
#include "kernels/gemm/gemm.h"
#include "pipeline/weight_inputs.h"

namespace pome {

namespace {

constexpr int64_t kPiece = 64;       // tokens per call: bounds the logits
constexpr int64_t kMomentRows = 32;  // of second moments that a thread takes at a time

// Sums over the rows of one value that weights read.
class Sums {
 public:
  explicit Sums(int64_t columns)
      : columns_(columns), second_(static_cast<size_t>(columns * columns), 0.0f) {}

  void add(const float* x, int64_t rows, kernels::PanelKernel panel, ThreadPool* pool) {
    if (rows == 0) return;
    tokens_ += rows;
    turned_.resize(static_cast<size_t>(columns_ * rows));
    for (int64_t t = 0; t < rows; ++t)
      for (int64_t k = 0; k < columns_; ++k)
        turned_[static_cast<size_t>(k * rows + t)] = x[t * columns_ + k];
    pool->parallel_for(columns_, kMomentRows, [&](int64_t begin, int64_t end) {
      std::vector<float> products(static_cast<size_t>((end - begin) * columns_));
      const float* x_rows = turned_.data() + begin * rows;
      panel({x_rows, rows, end - begin, turned_.data(), rows, columns_, rows, products.data(),
             columns_});
      float* to = second_.data() + begin * columns_;
      for (size_t i = 0; i < products.size(); ++i) to[i] += products[i];
    });
  }

  // Once: the memory of the sums becomes that of the moments.
  MomentsPtr take() {
    if (tokens_ == 0) return nullptr;
    auto out = std::make_shared<Moments>();
    out->columns = columns_;
    out->tokens = tokens_;
    const double by = 1.0 / static_cast<double>(tokens_);
    for (float& sum : second_) sum = static_cast<float>(static_cast<double>(sum) * by);
    out->second = std::move(second_);
    return out;
  }

 private:
  int64_t columns_, tokens_ = 0;
  std::vector<float> second_, turned_;
};

// The value that several weights read, and whose sums they share.
struct Slot {
  WeightInput input;
  std::vector<Sums> sums;  // by expert; empty: left out
  uint64_t bytes() const {
    return static_cast<uint64_t>(input.columns * input.columns * input.experts) * sizeof(float);
  }
};

std::vector<Slot> find_slots(const Graph& graph) {
  std::vector<Slot> out;
  for (WeightInput& input : weight_inputs(graph)) out.push_back({std::move(input), {}});
  return out;
}

class Collector final : public ActivationObserver {
 public:
  Collector(std::vector<Slot> slots, kernels::PanelKernel panel, int threads)
      : slots_(std::move(slots)), panel_(panel), pool_(threads) {
    for (Slot& slot : slots_)
      if (!slot.sums.empty()) by_first_[slot.input.first] = &slot;
  }
  void see(const std::string& weight, int64_t expert, const float* x, int64_t rows) override {
    const auto found = by_first_.find(weight);
    if (found != by_first_.end())
      found->second->sums[static_cast<size_t>(expert)].add(x, rows, panel_, &pool_);
  }
  std::vector<Slot>& slots() { return slots_; }

 private:
  std::vector<Slot> slots_;
  std::map<std::string, Slot*> by_first_;
  kernels::PanelKernel panel_;
  ThreadPool pool_;
};

// Narrow ones first, as many as fit.
int64_t take_memory(std::vector<Slot>* slots, uint64_t most_bytes) {
  std::vector<Slot*> order;
  for (Slot& slot : *slots) order.push_back(&slot);
  std::stable_sort(order.begin(), order.end(),
                   [](const Slot* a, const Slot* b) { return a->bytes() < b->bytes(); });
  int64_t left_out = 0;
  uint64_t taken = 0;
  for (Slot* slot : order) {
    if (slot->bytes() > most_bytes - taken) {
      left_out += static_cast<int64_t>(slot->input.weights.size());
      continue;
    }
    taken += slot->bytes();
    for (int64_t e = 0; e < slot->input.experts; ++e) slot->sums.emplace_back(slot->input.columns);
  }
  return left_out;
}

Status run_text(Runner& runner, std::span<const int32_t> ids, int64_t window, const char* stage,
                const WorkContext& work) {
  const auto vocab = static_cast<size_t>(runner.info().vocab_size);
  std::vector<float> logits(static_cast<size_t>(kPiece) * vocab);
  if (work.progress) work.progress->begin(stage, ids.size(), "tokens");
  for (size_t begin = 0; begin < ids.size();) {
    const size_t place = begin % static_cast<size_t>(window);
    if (place == 0) POME_RETURN_IF_ERROR(runner.truncate(0));
    const size_t count = std::min(
        {static_cast<size_t>(kPiece), ids.size() - begin, static_cast<size_t>(window) - place});
    POME_RETURN_IF_ERROR(check_cancelled(work.cancel));
    POME_RETURN_IF_ERROR(runner.prefill(ids.subspan(begin, count), LogitsOf::kAll,
                                        std::span(logits).first(count * vocab)));
    begin += count;
    if (work.progress) work.progress->advance(begin);
  }
  if (work.progress) work.progress->end();
  return {};
}

Status check_length(std::span<const int32_t> ids) {
  if (ids.size() >= 2) return {};
  return usage_error("the calibration text has " + std::to_string(ids.size()) +
                     " tokens, at least 2 are needed");
}

}  // namespace

Status observe_text(const Graph& graph, std::span<const int32_t> ids, int64_t window,
                    std::shared_ptr<ActivationObserver> observer, const char* stage,
                    const WorkContext& work) {
  POME_RETURN_IF_ERROR(check_length(ids));
  PlanOptions options;
  options.threads = work.threads;
  options.capacity = std::min<int64_t>(window, graph.info.max_position_embeddings);
  options.chunk = kPiece;
  options.observer = std::move(observer);
  POME_ASSIGN_OR_RETURN(const auto plan, compile(graph, options, work));
  POME_ASSIGN_OR_RETURN(const auto runner, plan->new_session());
  return run_text(*runner, ids, options.capacity, stage, work);
}

Result<Calibration> calibrate(const Graph& graph, std::span<const int32_t> ids,
                              const CalibrationOptions& options, const WorkContext& work) {
  POME_RETURN_IF_ERROR(check_length(ids));
  Calibration out;
  std::vector<Slot> slots = find_slots(graph);
  out.left_out = take_memory(&slots, options.most_bytes);
  POME_ASSIGN_OR_RETURN(const Isa isa, selected_isa());
  const auto collector =
      std::make_shared<Collector>(std::move(slots), kernels::choose_panel(isa), work.threads);
  POME_RETURN_IF_ERROR(observe_text(graph, ids, options.window, collector, "calibrate", work));
  out.tokens = static_cast<int64_t>(ids.size());
  for (Slot& slot : collector->slots()) {
    std::vector<MomentsPtr> moments;
    for (Sums& sums : slot.sums) moments.push_back(sums.take());
    if (moments.empty()) continue;
    for (const std::string& weight : slot.input.weights) out.statistics[weight] = moments;
  }
  return out;
}

}  // namespace pome
