// Which transforms pay: rounds a sample of the rows of a sample of the weights with and without.
#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "quantize/block_fit.h"
#include "quantize/feedback.h"
#include "quantize/quantize.h"
#include "quantize/sample_error.h"
#include "quantize/transform.h"
#include "quantize/transform_plan.h"

namespace pome {

namespace {

// A weight's sample: a sixteenth of its rows, and no fewer than these.
constexpr int64_t kLeastRows = 256, kOneRowIn = 16;
constexpr size_t kWeightsOfAKind = 3;
// What "auto" asks for, in parts of the loss without: the sample of rows is another one in another
// basis, so what it says of small differences there is chance.
constexpr double kLeastGainOfBasis = 0.01, kLeastGainOfUnits = 0.005;

bool rounds(const Encoding& encoding) {
  return encoding.kind == EncodingKind::kInt || encoding.kind == EncodingKind::kLut ||
         can_fit_blocks(encoding.kind);
}

// The error of a weight's outputs in parts of the outputs. Of stacked experts one in the middle
// stands for all.
Result<double> loss_of(const Constant& constant, const Encoding& encoding,
                       const ActivationStatistics& statistics) {
  const ConstantData& data = *constant.data;
  const Shape& shape = data.shape();
  const int64_t experts = shape.size() >= 3 ? shape[0] : 1, rows = data.rows() / experts;
  if (rows % row_granularity(encoding, data.columns()) != 0) return 0.0;
  const auto expert = static_cast<size_t>(experts / 2);
  FeedbackPtr feedback;
  if (const auto known = statistics.find(constant.name); known != statistics.end()) {
    const size_t at = known->second.size() > 1 ? expert : 0;
    if (at < known->second.size() && known->second[at]) {
      POME_ASSIGN_OR_RETURN(feedback, Feedback::create(*known->second[at], run_for(encoding)));
    }
  }
  const ConstantDataPtr part =
      slice_rows(constant.data, static_cast<int64_t>(expert) * rows, {rows, data.columns()});
  const ConstantDataPtr nearest = encoded_constant(part, encoding, constant.name);
  const ConstantDataPtr encoded = feedback ? with_feedback(nearest, {feedback}) : nearest;
  const FeedbackPtr all[] = {feedback};
  POME_ASSIGN_OR_RETURN(
      const SampleError error,
      sample_error(*part, 1, *encoded, std::min(rows, std::max(rows / kOneRowIn, kLeastRows)), all,
                   false));
  return error.relative();
}

using Step = Result<Transformed> (*)(const Graph&, const ActivationStatistics&,
                                     const TransformOptions&);
struct Transform {
  std::string_view name;
  double least_gain = 0;
  bool without_statistics = false;  // whether "auto" tries it without them
  Step make = nullptr;
};

Result<Transformed> with_residual(const Graph& graph, const ActivationStatistics& statistics,
                                  const TransformOptions& options) {
  POME_ASSIGN_OR_RETURN(Transformed folded, fold_norm_gains(graph, statistics));
  return rotate_residual(folded.graph, folded.statistics, options.seed, options.may_insert);
}

constexpr std::array<std::string_view, 5> kNames = {"norms", "residual", "values", "order",
                                                    "scale"};
constexpr std::array<Transform, 5> kTransforms = {{
    {kNames[0], kLeastGainOfBasis, false,
     [](const Graph& graph, const ActivationStatistics& statistics, const TransformOptions&) {
       return fold_norm_gains(graph, statistics);
     }},
    {kNames[1], kLeastGainOfBasis, false, with_residual},
    {kNames[2], kLeastGainOfBasis, false,
     [](const Graph& graph, const ActivationStatistics& statistics,
        const TransformOptions& options) {
       return rotate_values(graph, statistics, options.seed + 1);
     }},
    {kNames[3], kLeastGainOfUnits, true,
     [](const Graph& graph, const ActivationStatistics& statistics, const TransformOptions&) {
       return order_units(graph, statistics);
     }},
    {kNames[4], kLeastGainOfUnits, false,
     [](const Graph& graph, const ActivationStatistics& statistics, const TransformOptions&) {
       return scale_units(graph, statistics);
     }},
}};

bool is_listed(std::string_view list, std::string_view name) {
  while (!list.empty()) {
    const size_t end = std::min(list.find(','), list.size());
    if (list.substr(0, end) == name) return true;
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return false;
}

// Encodings by constant of another graph; what was added to it has those of most matrices.
std::vector<Encoding> encodings_for(const Graph& graph, const Graph& before,
                                    std::span<const Encoding> encodings) {
  std::map<std::string_view, const Encoding*> known;
  const Encoding* matrix = nullptr;
  for (size_t i = 0; i < before.constants.size(); ++i) {
    known[before.constants[i].name] = &encodings[i];
    if (before.constants[i].role == Constant::Role::kMatrix && !matrix) matrix = &encodings[i];
  }
  std::vector<Encoding> out;
  for (const Constant& constant : graph.constants) {
    const auto found = known.find(constant.name);
    const Encoding* const encoding = found != known.end() ? found->second : matrix;
    out.push_back(encoding ? *encoding : constant.data->encoding());
  }
  return out;
}

}  // namespace

std::span<const std::string_view> transform_names() { return kNames; }

Status check_transforms(std::string_view names) {
  if (names == "auto" || names == "none" || names.empty()) return {};
  for (std::string_view rest = names; !rest.empty();) {
    const size_t end = std::min(rest.find(','), rest.size());
    const std::string_view name = rest.substr(0, end);
    if (std::find(kNames.begin(), kNames.end(), name) == kNames.end()) {
      std::string known = "auto none";
      for (const std::string_view one : kNames) known += " " + std::string(one);
      return usage_error("unknown transform \"" + escape_for_terminal(name) + "\"; known are " +
                         known)
          .hint("put commas between several");
    }
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return {};
}

Result<double> predict_loss(const Graph& graph, std::span<const Encoding> encodings,
                            const ActivationStatistics& statistics) {
  POME_CHECK(encodings.size() == graph.constants.size());
  // Weights of one kind are alike: the first, the last and one between stand for them.
  std::map<std::string, std::vector<size_t>> kinds;
  for (size_t i = 0; i < graph.constants.size(); ++i) {
    const Constant& constant = graph.constants[i];
    if (!rounds(encodings[i]) || !is_plain(*constant.data) || constant.data->shape().size() < 2)
      continue;
    std::string kind = constant.name;
    std::erase_if(kind, [](char c) { return c >= '0' && c <= '9'; });
    kinds[kind + to_string(constant.data->shape()) + to_string(encodings[i])].push_back(i);
  }
  double total = 0;
  for (const auto& [kind, members] : kinds) {
    const size_t taken = std::min(members.size(), kWeightsOfAKind);
    double sum = 0;
    for (size_t k = 0; k < taken; ++k) {
      const size_t at = members[taken == 1 ? 0 : k * (members.size() - 1) / (taken - 1)];
      auto loss = loss_of(graph.constants[at], encodings[at], statistics);
      if (!loss.ok()) return std::move(loss).status().at("tensor " + graph.constants[at].name);
      sum += *loss;
    }
    total += sum / static_cast<double>(taken) * static_cast<double>(members.size());
  }
  return total;
}

Result<ChosenTransforms> choose_transforms(const Graph& graph, std::span<const Encoding> encodings,
                                           const ActivationStatistics& statistics,
                                           const TransformOptions& options) {
  POME_RETURN_IF_ERROR(check_transforms(options.names));
  ChosenTransforms out{graph, statistics, {}};
  if (options.names == "none" || options.names.empty()) return out;
  const bool choose = options.names == "auto";
  double loss = 0, plain = 0;
  if (choose) {
    POME_ASSIGN_OR_RETURN(plain, predict_loss(graph, encodings, statistics));
    loss = plain;
    if (!(plain > 0)) return out;
  }
  for (const Transform& transform : kTransforms) {
    if (choose ? statistics.empty() && !transform.without_statistics
               : !is_listed(options.names, transform.name))
      continue;
    POME_ASSIGN_OR_RETURN(Transformed made, transform.make(out.graph, out.statistics, options));
    TransformChoice choice{std::string(transform.name), false, made.places, 1, made.obstacle};
    if (made.places > 0) {
      choice.used = true;
      if (choose) {
        POME_ASSIGN_OR_RETURN(
            const double with,
            predict_loss(made.graph, encodings_for(made.graph, graph, encodings), made.statistics));
        choice.loss = with / plain;
        choice.used = with < (1 - transform.least_gain) * loss;
        if (choice.used) loss = with;
      }
    }
    if (choice.used) {
      out.graph = std::move(made.graph);
      out.statistics = std::move(made.statistics);
    }
    out.tried.push_back(std::move(choice));
  }
  return out;
}

}  // namespace pome
