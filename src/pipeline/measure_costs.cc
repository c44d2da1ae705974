#include "pipeline/measure_costs.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <memory>

#include "base/stopwatch.h"
#include "pipeline/divergence.h"
#include "quantize/sample_error.h"

namespace pome {

namespace {

constexpr int64_t kSampleRows = 64;
constexpr int64_t kLeastTokens = 512;

// "layers.3.attention.q.weight" is of layer 3 and of the kind "attention.q.weight".
struct Place {
  int64_t layer = -1;
  std::string kind;
};
Place place_of(const std::string& name) {
  constexpr std::string_view kLayers = "layers.";
  if (!name.starts_with(kLayers)) return {-1, name};
  const size_t dot = name.find('.', kLayers.size());
  if (dot == std::string::npos) return {-1, name};
  return {std::atoll(name.c_str() + kLayers.size()), name.substr(dot + 1)};
}

double bits_of(const CostItem& item, size_t choice) {
  double bytes = 0, weights = 0;
  for (const ConstantDataPtr& data : item.stored[choice]) {
    bytes += static_cast<double>(data->stored_bytes());
    weights += static_cast<double>(data->rows()) * static_cast<double>(data->columns());
  }
  return weights > 0 ? 8 * bytes / weights : 0;
}

bool is_rounded(const CostItem& item, size_t choice) {
  const Encoding& encoding = item.stored[choice][0]->encoding();
  return traits(encoding.kind).block_elements != 1;
}

// The choice next to four bits, where errors are neither noise nor too large to add up.
size_t middle_of(const CostItem& item) {
  size_t out = 0;
  for (size_t c = 1; c < item.stored.size(); ++c)
    if (std::fabs(bits_of(item, c) - 4) < std::fabs(bits_of(item, out) - 4)) out = c;
  return out;
}

class Measurer {
 public:
  Measurer(const Graph& graph, std::span<const CostItem> items,
           const ActivationStatistics& statistics, const CostOptions& options,
           const WorkContext& work)
      : graph_(graph), items_(items), factors_(statistics), options_(options), work_(work) {}

  Result<Costs> measure(std::span<const int32_t> ids) {
    plan(static_cast<int64_t>(ids.size()));
    POME_RETURN_IF_ERROR(sample());
    if (costs_.method == CostMethod::kPrior) {
      take_prior();
      return std::move(costs_);
    }
    const Stopwatch watch;
    POME_ASSIGN_OR_RETURN(divergence_, Divergence::create(graph_, ids, costs_.tokens, work_));
    costs_.tokens = divergence_->tokens();
    if (options_.say)
      options_.say("measuring what bits are worth: " + costs_.describe() + ", about " +
                   std::to_string(static_cast<int64_t>(
                       std::ceil(watch.seconds() * static_cast<double>(costs_.runs) / 60))) +
                   " min");
    begin("measure", costs_.runs, "models");
    POME_RETURN_IF_ERROR(costs_.method == CostMethod::kKinds ? measure_kinds() : measure_items());
    end();
    return std::move(costs_);
  }

 private:
  float factor_of(const Constant& constant) const {
    return options_.scaled ? constant.gguf_place.factor : 1;
  }

  // What is measured, from sizes alone.
  void plan(int64_t given) {
    costs_.items.resize(items_.size());
    if (given < 2) return;
    const auto weights = static_cast<double>(parameter_count(graph_));
    int64_t choices = 0, choosing = 0;
    for (const CostItem& item : items_) {
      int64_t rounded = 0;
      for (size_t c = 0; c < item.stored.size(); ++c) rounded += is_rounded(item, c);
      if (item.stored.size() < 2) continue;
      choices += rounded;
      ++choosing;
    }
    const auto most = std::min(options_.tokens, given);
    const auto tokens_for = [&](int64_t runs) {
      return static_cast<int64_t>(options_.most_products /
                                  (weights * static_cast<double>(std::max<int64_t>(1, runs))));
    };
    const int64_t least = std::min(most, kLeastTokens);
    costs_.method = tokens_for(choices) >= 2 * least ? CostMethod::kEveryChoice
                    : tokens_for(choosing) >= least  ? CostMethod::kEveryWeight
                                                     : CostMethod::kKinds;
    if (costs_.method == CostMethod::kKinds) group_kinds();
    costs_.runs = costs_.method == CostMethod::kEveryChoice   ? choices
                  : costs_.method == CostMethod::kEveryWeight ? choosing
                                                              : static_cast<int64_t>(kinds_.size());
    costs_.tokens = std::clamp(tokens_for(costs_.runs), least, most);
  }

  void group_kinds() {
    constexpr int64_t kParts = 4;  // of the depth
    const int64_t layers = std::max<int64_t>(1, graph_.info.num_hidden_layers);
    for (size_t i = 0; i < items_.size(); ++i) {
      const Place place = place_of(graph_.constants[items_[i].constants[0]].name);
      const int64_t part = place.layer < 0 ? -1 : place.layer * kParts / layers;
      if (items_[i].stored.size() > 1) kinds_[{place.kind, part}].push_back(i);
    }
  }

  // The weights of an item in an encoding, rounded as they will be.
  Result<std::vector<ConstantDataPtr>> rounded(size_t item, size_t choice, bool feedback) {
    std::vector<ConstantDataPtr> out;
    const CostItem& it = items_[item];
    for (size_t k = 0; k < it.constants.size(); ++k) {
      ConstantDataPtr data = it.stored[choice][k];
      if (feedback) {
        POME_ASSIGN_OR_RETURN(
            std::vector<FeedbackPtr> known,
            factors_.of(graph_.constants[it.constants[k]], run_for(data->encoding())));
        if (!known.empty())
          if (auto fed = with_feedback(data, std::move(known))) data = std::move(fed);
      }
      out.push_back(std::move(data));
    }
    return out;
  }

  // Of the weights of an item, from a sample of their rows.
  Result<double> error_of(size_t item, const std::vector<ConstantDataPtr>& data) {
    SampleError sum;
    for (size_t k = 0; k < data.size(); ++k) {
      const Constant& constant = graph_.constants[items_[item].constants[k]];
      POME_ASSIGN_OR_RETURN(const std::vector<FeedbackPtr> known,
                            factors_.of(constant, run_for(data[k]->encoding())));
      POME_ASSIGN_OR_RETURN(
          const SampleError one,
          sample_error(*constant.data, factor_of(constant), *data[k], kSampleRows, known, false));
      sum += one;
    }
    return sum.relative();
  }

  Status sample() {
    begin("sample", static_cast<int64_t>(items_.size()), "weights");
    for (size_t i = 0; i < items_.size(); ++i) {
      POME_RETURN_IF_ERROR(check_cancelled(work_.cancel));
      for (size_t c = 0; c < items_[i].stored.size(); ++c) {
        POME_ASSIGN_OR_RETURN(const auto data, rounded(i, c, true));
        POME_ASSIGN_OR_RETURN(const double error, error_of(i, data));
        costs_.items[i].errors.push_back(error);
      }
      advance();
    }
    end();
    return {};
  }

  void put(size_t item, const std::vector<ConstantDataPtr>& data, Graph* graph) const {
    for (size_t k = 0; k < data.size(); ++k) {
      Constant& constant = graph->constants[items_[item].constants[k]];
      const float factor = factor_of(constant);
      constant.data = factor == 1 ? data[k] : multiply_scalar(data[k], 1 / factor);
    }
  }

  // One weight after the other, in its choices or in the middle one.
  Status measure_items() {
    for (size_t i = 0; i < items_.size(); ++i) {
      if (items_[i].stored.size() < 2) {
        costs_.items[i].losses.assign(items_[i].stored.size(), 0.0);
        continue;
      }
      std::vector<double> measured(items_[i].stored.size(), -1);
      const size_t middle = middle_of(items_[i]);
      for (size_t c = 0; c < measured.size(); ++c) {
        const bool wanted =
            costs_.method == CostMethod::kEveryChoice ? is_rounded(items_[i], c) : c == middle;
        if (!wanted) continue;
        POME_ASSIGN_OR_RETURN(const auto data, rounded(i, c, true));
        Graph changed = graph_;
        put(i, data, &changed);
        POME_ASSIGN_OR_RETURN(measured[c], divergence_->of(changed));
        advance();
      }
      settle(i, middle, measured);
    }
    return {};
  }

  void settle(size_t item, size_t middle, const std::vector<double>& measured) {
    ItemCost& cost = costs_.items[item];
    // Where nothing of the middle is known, there is one that is, or none is rounded.
    size_t known = middle;
    for (size_t c = 0; c < measured.size() && measured[known] < 0; ++c) known = c;
    if (cost.errors[known] > 0 && measured[known] >= 0)
      cost.alpha = measured[known] / cost.errors[known];
    for (size_t c = 0; c < measured.size(); ++c)
      cost.losses.push_back(measured[c] >= 0 ? measured[c] : cost.alpha * cost.errors[c]);
  }

  // Rounding to the nearest is enough: what it does to the output is in its eps.
  Status measure_kinds() {
    for (const auto& [kind, members] : kinds_) {
      Graph changed = graph_;
      double error = 0;
      for (const size_t i : members) {
        const size_t middle = middle_of(items_[i]);
        POME_ASSIGN_OR_RETURN(const auto data, rounded(i, middle, false));
        put(i, data, &changed);
        POME_ASSIGN_OR_RETURN(const double one, error_of(i, data));
        error += one;
      }
      POME_ASSIGN_OR_RETURN(const double measured, divergence_->of(changed));
      advance();
      for (const size_t i : members) costs_.items[i].alpha = error > 0 ? measured / error : 0;
    }
    for (ItemCost& cost : costs_.items)
      for (const double error : cost.errors) cost.losses.push_back(cost.alpha * error);
    return {};
  }

  // Values and the way back from the wide layer cost most, queries and keys least; so do the first
  // and the last layers, and what all words pass through.
  void take_prior() {
    const int64_t layers = std::max<int64_t>(1, graph_.info.num_hidden_layers);
    for (size_t i = 0; i < items_.size(); ++i) {
      const Constant& constant = graph_.constants[items_[i].constants[0]];
      const Place place = place_of(constant.name);
      ItemCost& cost = costs_.items[i];
      cost.alpha = 1;
      const auto is = [&](const char* part) { return place.kind.find(part) != std::string::npos; };
      if (is("attention.v.") || is(".down")) cost.alpha = 3;
      if (is("attention.q.") || is("attention.k.")) cost.alpha = 0.7;
      if (constant.role != Constant::Role::kMatrix) cost.alpha = 4;
      const int64_t eighth = std::max<int64_t>(1, layers / 8);
      if (place.layer >= 0 && (place.layer < eighth || place.layer >= layers - eighth))
        cost.alpha *= 2;
      for (const double error : cost.errors) cost.losses.push_back(cost.alpha * error);
    }
  }

  void begin(const char* phase, int64_t total, const char* unit) {
    done_ = 0;
    if (work_.progress) work_.progress->begin(phase, static_cast<uint64_t>(total), unit);
  }
  void advance() {
    if (work_.progress) work_.progress->advance(++done_);
  }
  void end() const {
    if (work_.progress) work_.progress->end();
  }

  const Graph& graph_;
  std::span<const CostItem> items_;
  Factors factors_;
  const CostOptions& options_;
  const WorkContext& work_;
  Costs costs_;
  std::unique_ptr<Divergence> divergence_;
  std::map<std::pair<std::string, int64_t>, std::vector<size_t>> kinds_;
  uint64_t done_ = 0;
};

}  // namespace

std::string Costs::describe() const {
  const std::string of_tokens =
      std::to_string(runs) + " runs of " + std::to_string(tokens) + " tokens";
  switch (method) {
    case CostMethod::kEveryChoice:
      return "each weight in each encoding, " + of_tokens;
    case CostMethod::kEveryWeight:
      return "each weight in one encoding, " + of_tokens;
    case CostMethod::kKinds:
      return "each kind of weight in each quarter of the depth, " + of_tokens;
    case CostMethod::kPrior:
      break;
  }
  return "a guess by kind and depth, because there is no text to measure with";
}

Result<Costs> measure_costs(const Graph& graph, std::span<const CostItem> items,
                            std::span<const int32_t> ids, const ActivationStatistics& statistics,
                            const CostOptions& options, const WorkContext& work) {
  return Measurer(graph, items, statistics, options, work).measure(ids);
}

}  // namespace pome
