#include "pipeline/allocation.h"

#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "base/units.h"
#include "pipeline/measure_costs.h"
#include "quantize/allocate.h"

namespace pome {

namespace {

constexpr double kRoom = 1.02;  // of the smallest size: less than that leaves no choice

// "3.7bpw"
bool parse_bits(const std::string& text, double* bits) {
  constexpr std::string_view kUnit = "bpw";
  if (!text.ends_with(kUnit)) return false;
  const char* const end = text.data() + text.size() - kUnit.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, *bits);
  return error == std::errc() && stopped == end && *bits > 0 && *bits <= 32;
}

// What lies beside the weights: the files of the tokenizer, the manifest and the model's program.
// Generous, because a limit must hold.
uint64_t bytes_beside(const Graph& graph, const Checkpoint& checkpoint, int64_t context) {
  constexpr uint64_t kNode = 2048, kConstant = 1024, kRest = 64 << 10;
  uint64_t out = kRest + graph.nodes.size() * kNode + graph.constants.size() * kConstant;
  // Sines and cosines of all positions, twice where there are two kinds of layers.
  out += static_cast<uint64_t>(context * std::max<int64_t>(graph.info.head_dim, 64)) * 8;
  for (const auto& [name, path] : checkpoint.sidecars) {
    struct stat found = {};
    if (stat(path.c_str(), &found) == 0) out += static_cast<uint64_t>(found.st_size);
  }
  if (checkpoint.format != "gguf") return out;
  // There is no file of it: texts with their lengths, scores and types.
  for (const std::string& token : checkpoint.tokenizer.tokens) out += token.size() + 16;
  for (const auto& [left, right] : checkpoint.tokenizer.merges)
    out += left.size() + right.size() + 9;
  return out;
}

Result<uint64_t> limit_of(const Graph& graph, const Checkpoint& checkpoint, int64_t context,
                          const ConvertOptions& options) {
  uint64_t limit = UINT64_MAX;
  if (options.bits_per_weight > 0)
    limit = static_cast<uint64_t>(options.bits_per_weight *
                                  static_cast<double>(parameter_count(graph)) / 8);
  if (options.size_limit == 0) return limit;
  const uint64_t beside = bytes_beside(graph, checkpoint, context);
  if (beside >= options.size_limit)
    return does_not_fit(
        "--size-limit leaves no room for weights: the tokenizer and the rest of the artefact take "
        "about " +
        human_bytes(beside));
  return std::min(limit, options.size_limit - beside);
}

const EncodingSet& set_of(const TargetRow& row, const std::string& profile) {
  for (const EncodingSet& set : row.sets)
    if (set.profile == profile) return set;
  return row.sets[0];
}

// A limit, what may be chosen, and what that costs.
class Allocator {
 public:
  Allocator(const Graph& graph, const ConvertOptions& options, TargetWriter* target)
      : graph_(graph), options_(options), target_(target), padded_(options.size_limit > 0) {}

  // What the target makes of each wish.
  Status offer(std::vector<Encoding> wishes) {
    for (Encoding& wish : wishes)
      if (wish.kind == EncodingKind::kInt && wish.block != 0 && options_.block != 0)
        wish.block = options_.block;
    for (const Encoding& wish : wishes) {
      std::map<std::string, Encoding> all;
      for (const Constant& constant : graph_.constants)
        if (is_chosen(constant)) all[constant.name] = wish;
      target_->choose(std::move(all));
      ConvertReport unused;
      POME_ASSIGN_OR_RETURN(Quantized made, target_->quantize(graph_, options_, &unused));
      offers_.push_back({wish, std::move(made.graph)});
    }
    target_->choose({});
    return {};
  }

  void make_items(double least_embedding_bits) {
    items_.clear();
    costs_.clear();
    wishes_.clear();
    fixed_ = 0;
    std::map<std::string, size_t> of_name;
    for (size_t i = 0; i < graph_.constants.size(); ++i) {
      const Constant& constant = graph_.constants[i];
      if (!is_chosen(constant)) {
        fixed_ += target_->file_bytes(offers_[0].graph, i, padded_);
        continue;
      }
      const auto [at, fresh] = of_name.try_emplace(target_->stored_with(constant), costs_.size());
      if (fresh) {
        costs_.emplace_back();
        costs_.back().name = constant.name;
      }
      costs_[at->second].constants.push_back(i);
    }
    for (CostItem& item : costs_) add_choices(&item, least_embedding_bits);
  }

  uint64_t smallest() const {
    uint64_t out = fixed_;
    for (const AllocationItem& item : items_)
      out += std::min_element(item.choices.begin(), item.choices.end(),
                              [](const auto& a, const auto& b) { return a.bytes < b.bytes; })
                 ->bytes;
    return out;
  }
  std::span<const CostItem> costs() const { return costs_; }
  std::span<const AllocationItem> items() const { return items_; }
  uint64_t fixed() const { return fixed_; }
  const Encoding& wish(size_t item, size_t choice) const { return wishes_[item][choice]; }
  void set_losses(const Costs& measured) {
    for (size_t i = 0; i < items_.size(); ++i)
      for (size_t c = 0; c < items_[i].choices.size(); ++c)
        items_[i].choices[c].loss = measured.items[i].losses[c];
  }

 private:
  struct Offer {
    Encoding wish;
    Graph graph;
  };

  bool is_chosen(const Constant& constant) const {
    return is_allocatable(constant) &&
           (constant.role == Constant::Role::kMatrix || !options_.embedding);
  }

  // Different ones of what is offered; of the embedding and the head those of enough bits.
  void add_choices(CostItem* item, double least_embedding_bits) {
    AllocationItem out{item->name, {}};
    std::vector<Encoding> wishes;
    const bool matrix = graph_.constants[item->constants[0]].role == Constant::Role::kMatrix;
    const auto add = [&](bool any_bits) {
      for (const Offer& offer : offers_) {
        std::vector<ConstantDataPtr> stored;
        uint64_t bytes = 0, values = 0;
        for (const size_t constant : item->constants) {
          stored.push_back(offer.graph.constants[constant].data);
          bytes += target_->file_bytes(offer.graph, constant, padded_);
          values += static_cast<uint64_t>(stored.back()->rows() * stored.back()->columns());
        }
        const bool known =
            std::any_of(item->stored.begin(), item->stored.end(), [&](const auto& other) {
              return std::equal(
                  other.begin(), other.end(), stored.begin(),
                  [](const auto& a, const auto& b) { return a->encoding() == b->encoding(); });
            });
        const double bits = 8 * static_cast<double>(bytes) / static_cast<double>(values);
        if (known || (!matrix && !any_bits && bits < least_embedding_bits)) continue;
        item->stored.push_back(std::move(stored));
        out.choices.push_back({bytes, 0});
        wishes.push_back(offer.wish);
      }
    };
    add(false);
    if (out.choices.empty()) add(true);
    items_.push_back(std::move(out));
    wishes_.push_back(std::move(wishes));
  }

  const Graph& graph_;
  const ConvertOptions& options_;
  TargetWriter* target_;
  bool padded_;  // the size of the file counts, not only the bits of the weights
  std::vector<Offer> offers_;
  std::vector<CostItem> costs_;
  std::vector<AllocationItem> items_;
  std::vector<std::vector<Encoding>> wishes_;
  uint64_t fixed_ = 0;  // of what is not chosen
};

// The choices under a limit, narrow ones only where the others leave no room.
Status settle_choices(const EncodingSet& set, uint64_t limit, Allocator* allocator,
                      ConvertReport* report) {
  POME_RETURN_IF_ERROR(allocator->offer(set.encodings));
  allocator->make_items(set.least_embedding_bits);
  const auto room = [&](double times) {
    return static_cast<double>(limit) >= times * static_cast<double>(allocator->smallest());
  };
  if (!set.narrow.empty() && !room(kRoom)) {
    POME_RETURN_IF_ERROR(allocator->offer(set.narrow));
    allocator->make_items(set.least_embedding_bits);
    report->notes.push_back(set.narrow_note);
  }
  if (!room(1)) {
    allocator->make_items(0);
    if (room(1))
      report->notes.push_back(
          "the embedding has fewer bits than it should: the limit allows no more");
  }
  return {};
}

// Predictions for other limits, and for one encoding everywhere.
void describe_alternatives(const Allocator& allocator, double weights, AllocationReport* out) {
  constexpr int kPoints = 24;
  const uint64_t least = allocator.smallest();
  uint64_t most = allocator.fixed();
  for (const AllocationItem& item : allocator.items())
    most += std::max_element(item.choices.begin(), item.choices.end(),
                             [](const auto& a, const auto& b) { return a.bytes < b.bytes; })
                ->bytes;
  for (int i = 0; i <= kPoints; ++i) {
    const uint64_t budget = least + (most - least) / kPoints * static_cast<uint64_t>(i);
    const auto made = allocate(allocator.items(), budget - allocator.fixed());
    if (made.ok())
      out->curve.push_back(
          {8 * static_cast<double>(made->bytes + allocator.fixed()) / weights, made->loss, ""});
  }
  std::map<std::string, AllocationReport::Point> uniform;
  for (size_t i = 0; i < allocator.items().size(); ++i)
    for (size_t c = 0; c < allocator.items()[i].choices.size(); ++c) {
      const AllocationChoice& choice = allocator.items()[i].choices[c];
      AllocationReport::Point& point = uniform[to_string(allocator.wish(i, c))];
      point.bits += static_cast<double>(choice.bytes);
      point.loss += choice.loss;
      point.items += 1;
    }
  for (auto& [name, point] : uniform) {
    if (point.items != allocator.items().size()) continue;  // not every weight can be stored so
    point.bits = 8 * (point.bits + static_cast<double>(allocator.fixed())) / weights;
    point.name = name;
    out->uniform.push_back(point);
  }
}

}  // namespace

Status settle_limit(const TargetRow& row, ConvertOptions* options) {
  if (parse_bits(options->weights, &options->bits_per_weight)) {
    options->limit_text = options->weights;
  } else if (options->weights.ends_with("bpw")) {
    return usage_error("--weights " + options->weights +
                       ": bits per weight are a number up to 32, such as 3.7bpw");
  } else if (options->size_limit > 0 && !options->weights.empty()) {
    return usage_error("--size-limit chooses a scheme for each weight: give it without --weights " +
                       options->weights + ", or with bits per weight such as 3.7bpw");
  }
  if (options->split && !row.inserts)
    return usage_error("--split is for --to coreml and onnx: --to " + options->target +
                       " has no place for parts of weights");
  if (options->bits_per_weight == 0 && options->size_limit == 0) {
    if (options->split)
      return usage_error(
          "--split gives parts of weights bits of their own: give --size-limit, or bits per weight "
          "such as --weights 4bpw");
    if (!options->profile.empty() && row.profiles_need_limit)
      return usage_error("--profile " + options->profile +
                         " says what bits are allocated from: give --size-limit, or bits per "
                         "weight such as --weights 4bpw");
    return {};
  }
  if (row.sets.empty())
    return unsupported("--to " + options->target +
                       " has one scheme for all weights: there are no bits to allocate")
        .hint("use --weights " + std::string(row.weights) + ", or another target");
  if (options->size_limit > 0)
    options->limit_text += (options->limit_text.empty() ? "" : "+") + std::string("limit:") +
                           std::to_string(options->size_limit);
  if (options->split) options->limit_text += "+split";
  options->weights = row.weights;
  return {};
}

Status allocate_bits(const Graph& graph, const Checkpoint& checkpoint, std::span<const int32_t> ids,
                     const ActivationStatistics& statistics, const TargetRow& row,
                     const ConvertOptions& options, TargetWriter* target, const WorkContext& work,
                     ConvertReport* report) {
  if (options.limit_text.empty()) return {};
  POME_ASSIGN_OR_RETURN(const uint64_t limit,
                        limit_of(graph, checkpoint, report->context, options));
  Allocator allocator(graph, options, target);
  POME_RETURN_IF_ERROR(settle_choices(set_of(row, options.profile), limit, &allocator, report));
  if (allocator.smallest() > limit)
    return does_not_fit("the smallest possible size of the weights is " +
                        human_bytes(allocator.smallest()) + ", the limit leaves " +
                        human_bytes(limit) + " for them");
  if (ids.empty())
    report->notes.push_back(
        "bits are allocated by a guess: with --quality good or --calibrate TEXT what each weight "
        "costs is measured");
  CostOptions cost;
  cost.scaled = target->scales_weights();
  cost.say = options.say;
  POME_ASSIGN_OR_RETURN(const Costs measured,
                        measure_costs(graph, allocator.costs(), ids, statistics, cost, work));
  allocator.set_losses(measured);
  POME_ASSIGN_OR_RETURN(const Allocation made,
                        allocate(allocator.items(), limit - allocator.fixed()));
  std::map<std::string, Encoding> chosen;
  AllocationReport& out = report->allocation;
  for (size_t i = 0; i < made.chosen.size(); ++i) {
    const CostItem& item = allocator.costs()[i];
    const size_t c = made.chosen[i];
    for (const size_t constant : item.constants)
      chosen[graph.constants[constant].name] = allocator.wish(i, c);
    out.weights.push_back({item.name, to_string(item.stored[c][0]->encoding()),
                           allocator.items()[i].choices[c].bytes, measured.items[i].alpha,
                           measured.items[i].errors[c], measured.items[i].losses[c]});
  }
  out.limit = limit;
  out.bytes = made.bytes + allocator.fixed();
  out.loss = made.loss;
  out.lower_bound = made.lower_bound;
  out.measured = measured.describe();
  out.is_divergence = measured.method != CostMethod::kPrior;
  describe_alternatives(allocator, static_cast<double>(parameter_count(graph)), &out);
  target->choose(std::move(chosen));
  return {};
}

Status check_limit(const ConvertOptions& options, const ConvertReport& report) {
  const auto refuse = [](uint64_t bytes, uint64_t limit, const char* flag) {
    return does_not_fit("the artefact would be " + std::to_string(bytes) + " bytes, " +
                        std::to_string(limit) + " are allowed")
        .hint(std::string("give a smaller ") + flag);
  };
  if (options.size_limit > 0 && report.bytes > options.size_limit)
    return refuse(report.bytes, options.size_limit, "--size-limit");
  if (options.bits_per_weight > 0 && report.exported.bits_per_weight > options.bits_per_weight)
    return does_not_fit("the weights would take " +
                        std::to_string(report.exported.bits_per_weight) + " bits each, " +
                        std::to_string(options.bits_per_weight) + " are allowed");
  return {};
}

}  // namespace pome
