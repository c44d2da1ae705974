#include "pipeline/streamed.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "base/stopwatch.h"
#include "graph/passes.h"
#include "pipeline/layer_chain.h"
#include "pipeline/part_store.h"
#include "pipeline/run_text.h"
#include "pipeline/shifted_bias.h"
#include "quantize/retarget.h"

namespace pome {

namespace {

using Rows = std::vector<float>;

// The part of what the hidden state lacks that whatever is written into it next makes good, and how
// much of the way to their new targets weights go.
constexpr float kMadeGood = 0.5f, kAimed = 0.75f;

// One run. The work is a sequence of stages, each of which is a part of the store: what is left of
// earlier work is taken from there.
class Streamer {
 public:
  Streamer(const Graph& graph, Graph* quantised, std::span<const int32_t> ids,
           const StreamOptions& options, const WorkContext& work, PartStore store, Isa isa)
      : graph_(graph),
        quantised_(quantised),
        options_(options),
        work_(work),
        store_(std::move(store)),
        pool_(work.threads),
        panel_(kernels::choose_panel(isa)),
        isa_(isa),
        chain_(layer_chain(graph)),
        runner_(ids, options.window, work),
        ids_(ids),
        tokens_(static_cast<int64_t>(ids.size())) {
    for (size_t i = 0; i < graph.constants.size(); ++i) index_[graph.constants[i].name] = i;
    for (const Node& node : graph.nodes)
      if (const auto* op = std::get_if<ConstantOp>(&node.op))
        constant_of_[node.result] = static_cast<size_t>(op->constant);
    for (size_t i = 0; i < graph.values.size(); ++i)
      value_[graph.values[i].name] = static_cast<ValueId>(i);
    products_ = products_of_weights(graph);
  }

  Result<StreamResult> run() {
    const Stopwatch watch;
    StreamResult out;
    out.tokens = tokens_;
    out.resumed = store_.finished();
    const bool head = !chain_.head.empty();
    // A head that is also the embedding has to be there before the first layer runs quantised.
    const bool head_first = head && options_.behind_quantised && is_embedding(chain_.head[0]);
    if (work_.progress)
      work_.progress->begin("round", chain_.parts.size() + (head ? 1 : 0), "parts");
    if (head_first) {
      for (const std::string& weight : chain_.head) taken_.insert(index_.at(weight));
      POME_RETURN_IF_ERROR(stage(chain_.head, [&] { return head_before_all(); }));
    }
    for (const ChainPart& part : chain_.parts) {
      POME_ASSIGN_OR_RETURN(const Graph cut, part_of(graph_, part.start, part.end));
      const std::vector<ReadValue> values = read_values(cut);
      POME_RETURN_IF_ERROR(stage(stored_names(cut, values), [&] {
        return options_.behind_quantised ? layer_behind_quantised(part, values)
                                         : layer(part, values);
      }));
    }
    if (head && !head_first) POME_RETURN_IF_ERROR(stage(chain_.head, [&] { return head_last(); }));
    if (work_.progress) work_.progress->end();
    out.parts = stage_;
    out.diagonal = diagonal_;
    out.seconds = watch.seconds();
    return out;
  }

 private:
  // What the weights of a value shall be rounded with.
  struct Rounding {
    std::vector<FeedbackPtr> feedback;  // by expert
    std::shared_ptr<const Retarget> retarget;
    // Means of what the original weights met and of what the rounded ones do, where biases take
    // them.
    std::vector<float> mean_x, mean_y;
    // Of weights that write into the hidden state: what their targets get for its sake, and what
    // their biases do.
    struct Besides {
      std::shared_ptr<const Rows> rows;
      std::vector<float> means;
    };
    std::map<std::string, Besides> besides;
  };

  // Does the work of a stage, which stores `names`, or takes them from the store.
  template <typename Make>
  Status stage(const std::vector<std::string>& names, const Make& make) {
    POME_RETURN_IF_ERROR(check_cancelled(work_.cancel));
    waiting_.clear();
    for (const std::string& name : names) waiting_.insert(index_.at(name));
    if (stage_ < store_.finished()) {
      std::vector<StoredPart> constants = parts_of(names);
      POME_RETURN_IF_ERROR(store_.load(stage_, &constants));
      put_back(constants);
      if (stage_ + 1 == store_.finished()) POME_RETURN_IF_ERROR(take_rows());
    } else {
      POME_RETURN_IF_ERROR(make());
      Rows both = seen_;
      both.insert(both.end(), original_.begin(), original_.end());
      POME_RETURN_IF_ERROR(store_.finish(both));
    }
    if (options_.release) options_.release();
    ++stage_;
    if (work_.progress) work_.progress->advance(static_cast<uint64_t>(stage_));
    return {};
  }

  Status take_rows() {
    POME_ASSIGN_OR_RETURN(Rows both, store_.rows());
    if (options_.behind_quantised) {
      original_.assign(both.begin() + static_cast<std::ptrdiff_t>(both.size() / 2), both.end());
      both.resize(both.size() / 2);
    }
    seen_ = std::move(both);
    return {};
  }

  std::vector<StoredPart> parts_of(const std::vector<std::string>& names) const {
    std::vector<StoredPart> out;
    for (const std::string& name : names)
      out.push_back({name, quantised_->constants[index_.at(name)].data, nullptr});
    return out;
  }
  void put_back(const std::vector<StoredPart>& constants) {
    for (const StoredPart& constant : constants)
      quantised_->constants[index_.at(constant.name)].data = constant.data;
  }
  Status store(std::vector<StoredPart> constants) {
    for (const StoredPart& constant : constants) waiting_.erase(index_.at(constant.name));
    POME_RETURN_IF_ERROR(store_.add(&constants, &pool_, work_));
    put_back(constants);
    return {};
  }

  // Of the values of a layer: their weights, and the biases that rounding shifts.
  std::set<std::string> rounded_names(const std::vector<ReadValue>& values) const {
    std::set<std::string> out;
    for (const ReadValue& value : values) {
      out.insert(value.weights.begin(), value.weights.end());
      for (const auto& entry : biases_of(value)) out.insert(graph_.constants[entry.second].name);
    }
    return out;
  }

  // What a layer stores: all that is encoded in it where it runs quantised, else what rounding with
  // feedback changes.
  std::vector<std::string> stored_names(const Graph& cut, const std::vector<ReadValue>& values) {
    const std::set<std::string> wanted = rounded_names(values);
    std::vector<std::string> out;
    for (const Constant& constant : cut.constants) {
      const size_t index = index_.at(constant.name);
      if (quantised_->constants[index].data == graph_.constants[index].data) continue;
      if (!options_.behind_quantised && !wanted.count(constant.name)) continue;
      if (taken_.insert(index).second) out.push_back(constant.name);
    }
    return out;
  }

  // ---- the head
  // ----------------------------------------------------------------------------------

  // The text through the original layers, for what the head reads.
  Status head_before_all() {
    Rows rows;
    for (const ChainPart& part : chain_.parts) {
      POME_ASSIGN_OR_RETURN(rows, runner_.run(graph_, part, rows));
    }
    return round_head(rows, nullptr);
  }
  Status head_last() { return round_head(seen_, options_.behind_quantised ? &original_ : nullptr); }

  Status round_head(const Rows& seen, const Rows* original) {
    const ReadValue value = head_value(chain_, seen, tokens_);
    POME_ASSIGN_OR_RETURN(
        const Rounding rounding,
        original ? rounding_of(value, seen, *original, nullptr) : rounding_of(value, seen));
    return round(value, rounding);
  }

  // ---- layers
  // ------------------------------------------------------------------------------------

  // In one pass, or in a few where the moments of all values do not fit in memory.
  Status layer(const ChainPart& part, const std::vector<ReadValue>& values) {
    Rows next;
    for (size_t done = 0; done < values.size() || next.empty();) {
      std::vector<ReadValue> chosen;
      uint64_t bytes = 0;
      for (; done < values.size(); ++done) {
        const uint64_t more = is_whole(values[done]) ? values[done].bytes() : 0;
        if (bytes + more > options_.most_bytes) break;
        bytes += more;
        chosen.push_back(values[done]);
      }
      POME_ASSIGN_OR_RETURN(next, observe(graph_, part, std::move(chosen)));
    }
    seen_ = std::move(next);
    return {};
  }

  // Value by value: what it is once the weights before it are rounded, and what it was.
  Status layer_behind_quantised(const ChainPart& part, const std::vector<ReadValue>& values) {
    const std::set<std::string> later = rounded_names(values);
    std::vector<std::string> first;
    for (const size_t index : waiting_)
      if (!later.count(graph_.constants[index].name)) first.push_back(graph_.constants[index].name);
    POME_RETURN_IF_ERROR(store(parts_of(first)));
    std::vector<ReadValue> kept;
    std::copy_if(values.begin(), values.end(), std::back_inserter(kept),
                 [&](const ReadValue& value) { return is_retargeted(value); });
    const auto keeper = std::make_shared<RowKeeper>(kept, tokens_);
    POME_ASSIGN_OR_RETURN(Rows next, runner_.run(graph_, part, original_, keeper));
    Rows after;  // what the rounded part gives
    for (const ReadValue& value : values) {
      POME_RETURN_IF_ERROR(check_cancelled(work_.cancel));
      if (!is_retargeted(value)) {
        // Which tokens an expert is given is not the same for both streams.
        POME_RETURN_IF_ERROR(observe(as_it_runs(), part, {value}).status());
        continue;
      }
      const ChainPart before = {part.start, id_of(value, part)};
      POME_ASSIGN_OR_RETURN(const Rows seen, runner_.run(as_it_runs(), before, seen_));
      POME_ASSIGN_OR_RETURN(const Rounding rounding,
                            rounding_of(value, seen, keeper->take(value), &part));
      POME_RETURN_IF_ERROR(round(value, rounding));
      const Product product = product_of(value);
      if (value.weights.size() != 1 || product.sum != part.end || product.added_to != part.start)
        continue;
      // The part is the sum of this product and what it began with.
      POME_ASSIGN_OR_RETURN(after, runner_.run(as_it_runs(), {before.end, product.value}, seen));
      blend(&after, 1, 1, seen_);
    }
    if (after.empty()) {
      POME_ASSIGN_OR_RETURN(after, runner_.run(as_it_runs(), part, seen_));
    }
    seen_ = std::move(after);
    original_ = std::move(next);
    return {};
  }

  // Runs a layer, and rounds the weights of some values for what they meet.
  Result<Rows> observe(const Graph& graph, const ChainPart& part, std::vector<ReadValue> values) {
    const auto collector = std::make_shared<MomentCollector>(
        std::move(values), [&](const ReadValue& value) { return is_whole(value); }, isa_,
        work_.threads);
    POME_ASSIGN_OR_RETURN(Rows next, runner_.run(graph, part, seen_, collector));
    for (const ReadValue& value : collector->values()) {
      if (!is_whole(value)) diagonal_ += static_cast<int64_t>(value.weights.size());
      POME_ASSIGN_OR_RETURN(const Rounding rounding, rounding_of(value, collector->take(value)));
      POME_RETURN_IF_ERROR(round(value, rounding));
    }
    return next;
  }

  bool is_retargeted(const ReadValue& value) const { return value.by_token && is_whole(value); }
  bool is_whole(const ReadValue& value) const { return value.bytes() <= options_.most_bytes; }

  // The quantised graph as it stands, without the factors of a file.
  Graph as_it_runs() const {
    Graph out = *quantised_;
    for (Constant& constant : out.constants)
      if (options_.scaled && constant.gguf_place.factor != 1)
        constant.data = multiply_scalar(constant.data, 1 / constant.gguf_place.factor);
    return out;
  }

  bool is_embedding(const std::string& weight) const {
    return graph_.constants[index_.at(weight)].role == Constant::Role::kEmbedding;
  }
  bool is_tied(const ReadValue& value) const {
    return !chain_.head.empty() && value.first == chain_.head[0] && is_embedding(value.first);
  }

  // ---- rounding
  // ----------------------------------------------------------------------------------

  Result<FeedbackPtr> feedback_of(const ReadValue& value, const MomentsPtr& moments) {
    const bool refined = options_.rounding.rounds > 0 && !moments->second.empty();
    int64_t run = 1;
    for (const std::string& name : value.weights)
      run = std::max(run, run_for(quantised_->constants[index_.at(name)].data->encoding()));
    auto made = refined ? Feedback::create_with_form(moments, run, &pool_)
                        : Feedback::create(*moments, run, &pool_);
    if (!made.ok()) return Status(made.status()).at("tensor " + value.first);
    return std::move(*made);
  }

  Result<Rounding> rounding_of(const ReadValue& value, std::vector<MomentsPtr> moments) {
    Rounding out;
    const bool biased = !biases_of(value).empty() && moments[0] != nullptr;
    if (biased) out.mean_x = out.mean_y = moments[0]->mean;
    for (MomentsPtr& one : moments) {
      FeedbackPtr made;
      if (one && biased) one = std::make_shared<const Moments>(one->centred());
      if (one && is_tied(value)) one = std::make_shared<const Moments>(moments_of_tied(*one));
      if (one) {
        POME_ASSIGN_OR_RETURN(made, feedback_of(value, one));
      }
      one = nullptr;
      out.feedback.push_back(std::move(made));
    }
    return out;
  }

  // From rows of what weights meet.
  Result<Rounding> rounding_of(const ReadValue& value, const Rows& rows) {
    return rounding_of(value, std::vector<MomentsPtr>{moments_of(value, rows)});
  }

  // From rows of what the rounded weights meet, and of what the original ones met, in a part of the
  // chain or, `part` null, behind it.
  Result<Rounding> rounding_of(const ReadValue& value, const Rows& seen, Rows original,
                               const ChainPart* part) {
    Rounding out;
    MomentsPtr moments = moments_of(value, seen);
    if (!biases_of(value).empty()) {
      out.mean_y = moments->mean;
      out.mean_x = mean_of(original);
      moments = std::make_shared<const Moments>(moments->centred());
    }
    POME_ASSIGN_OR_RETURN(const FeedbackPtr feedback, feedback_of(value, moments));
    out.feedback = {feedback};
    moments = nullptr;
    int64_t rows = 0;
    for (const std::string& weight : value.weights)
      rows += graph_.constants[index_.at(weight)].data->rows();
    Rows difference = std::move(original), product;
    blend(&difference, kAimed, -kAimed, seen);
    if (part && value.weights.size() == 1 && rows <= value.columns &&
        product_of(value).value != kNoValue) {
      // A bias that this has besides is the same for every token.
      POME_ASSIGN_OR_RETURN(
          product, runner_.run(graph_, {id_of(value, *part), product_of(value).value}, difference));
    } else {
      out.retarget =
          std::make_shared<Retarget>(feedback, cross(difference, seen, out.mean_y), rows, &pool_);
    }
    difference = {};
    for (const std::string& weight : value.weights) {
      Rows lacking;
      if (part) {
        POME_ASSIGN_OR_RETURN(lacking, to_make_good(weight, *part));
      }
      Rounding::Besides& besides = out.besides[weight];
      if (!lacking.empty() && !out.mean_y.empty()) besides.means = mean_of(lacking);
      if (lacking.empty())
        lacking = std::move(product);
      else if (!product.empty())
        blend(&lacking, 1, 1, product);
      if (lacking.empty()) continue;
      auto added = std::make_shared<Rows>(cross(lacking, seen, out.mean_y));
      lacking = {};
      solve_rows(*feedback, added.get(), &pool_);
      besides.rows = std::move(added);
    }
    return out;
  }

  MomentsPtr moments_of(const ReadValue& value, const Rows& rows) {
    MomentSums sums(value.columns, true);
    sums.add(rows.data(), tokens_, panel_, &pool_);
    return sums.take(panel_, &pool_);
  }

  // Mean of x y', of x - mean and y - mean where the mean of y is given.
  Rows cross(const Rows& x, const Rows& y, const std::vector<float>& mean_y) {
    Rows out = cross_moments(x, y, tokens_, panel_, &pool_);
    if (mean_y.empty()) return out;
    const std::vector<float> mean_x = mean_of(x);
    for (size_t i = 0; i < mean_x.size(); ++i)
      for (size_t j = 0; j < mean_y.size(); ++j)
        out[i * mean_y.size() + j] -= mean_x[i] * mean_y[j];
    return out;
  }

  // The part of what the hidden state lacks that a weight which writes into it makes good; nothing
  // where it writes elsewhere.
  Result<Rows> to_make_good(const std::string& weight, const ChainPart& part) {
    const auto product = products_.find(weight);
    if (product == products_.end() || product->second.sum == kNoValue || part.start == kNoValue)
      return Rows{};
    const ChainPart before = {part.start, product->second.added_to};
    Rows out = original_, now;
    if (before.start != before.end) {
      const auto cut = part_of(graph_, before.start, before.end);
      if (!cut.ok() ||
          std::any_of(cut->constants.begin(), cut->constants.end(), [&](const Constant& constant) {
            return waiting_.count(index_.at(constant.name)) > 0;
          }))
        return Rows{};  // it is from elsewhere, or not what it will be
      POME_ASSIGN_OR_RETURN(out, runner_.run(graph_, before, original_));
      POME_ASSIGN_OR_RETURN(now, runner_.run(as_it_runs(), before, seen_));
    }
    blend(&out, kMadeGood, -kMadeGood, now.empty() ? seen_ : now);
    return out;
  }

  // to = keep * to + by * rows
  void blend(Rows* to, float keep, float by, const Rows& rows) {
    constexpr int64_t kTogether = 1 << 16;
    pool_.parallel_for(
        static_cast<int64_t>(rows.size()), kTogether, [&](int64_t begin, int64_t end) {
          for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i)
            (*to)[i] = keep * (*to)[i] + by * rows[i];
        });
  }

  // With its first weight.
  Product product_of(const ReadValue& value) const {
    const auto found = products_.find(value.first);
    return found == products_.end() ? Product{} : found->second;
  }

  // The value in the whole graph.
  ValueId id_of(const ReadValue& value, const ChainPart& part) const {
    const auto found = value_.find(value.name);
    return found == value_.end() ? part.start : found->second;
  }

  std::vector<float> mean_of(const Rows& rows) const {
    std::vector<double> sums(rows.size() / static_cast<size_t>(tokens_), 0.0);
    for (size_t at = 0; at < rows.size(); at += sums.size())
      for (size_t i = 0; i < sums.size(); ++i) sums[i] += static_cast<double>(rows[at + i]);
    std::vector<float> out;
    for (const double sum : sums)
      out.push_back(static_cast<float>(sum / static_cast<double>(tokens_)));
    return out;
  }

  // Rounds and stores the weights that read a value, and their biases behind them.
  Status round(const ReadValue& value, const Rounding& rounding) {
    std::vector<StoredPart> weights, biases;
    const std::map<size_t, size_t> bias_of = biases_of(value);
    for (const std::string& name : value.weights) {
      const size_t index = index_.at(name);
      if (!waiting_.count(index)) continue;
      const float factor = options_.scaled ? graph_.constants[index].gguf_place.factor : 1.0f;
      weights.push_back(
          {name, rounded(index, factor, rounding), nullptr, quantised_->constants[index].data});
      const auto found = bias_of.find(index);
      if (rounding.mean_x.empty() || found == bias_of.end() || !waiting_.count(found->second))
        continue;
      const Constant& bias = quantised_->constants[found->second];
      const auto besides = rounding.besides.find(name);
      ShiftedBias shifted =
          shifted_bias(graph_.constants[found->second].data, graph_.constants[index].data, factor,
                       weights.back().data->encoding(), rounding.mean_x, rounding.mean_y,
                       besides == rounding.besides.end() ? Rows{} : besides->second.means);
      weights.back().written = std::move(shifted.see);
      biases.push_back({bias.name,
                        encoded_constant(std::move(shifted.bias), bias.data->encoding(), bias.name),
                        nullptr});
    }
    for (StoredPart& bias : biases) weights.push_back(std::move(bias));
    return store(std::move(weights));
  }

  ConstantDataPtr rounded(size_t index, float factor, const Rounding& rounding) const {
    const ConstantDataPtr data = quantised_->constants[index].data;
    const Constant::Role role = graph_.constants[index].role;
    std::vector<float> row_weights;
    if (role == Constant::Role::kEmbedding || role == Constant::Role::kHead)
      row_weights = token_weights(ids_, data->rows(), graph_.constants[index].first_row);
    ConstantDataPtr out = with_feedback(
        data, rounding.feedback, options_.rounding_for(data->columns()), std::move(row_weights));
    if (!out) return data;  // nothing is rounded
    const auto besides = rounding.besides.find(graph_.constants[index].name);
    const auto added = besides == rounding.besides.end() ? nullptr : besides->second.rows;
    if (!rounding.retarget && !added) return out;
    ConstantDataPtr source = retargeted(graph_.constants[index].data, rounding.retarget, added);
    if (factor != 1) source = multiply_scalar(std::move(source), factor);
    if (auto made = with_source(out, std::move(source))) return made;
    return out;
  }

  // Weight -> bias, where all products with the value have one.
  std::map<size_t, size_t> biases_of(const ReadValue& value) const {
    std::map<size_t, size_t> out;
    for (const Node& node : graph_.nodes) {
      if (!std::holds_alternative<LinearOp>(node.op)) continue;
      const auto weight = constant_of_.find(node.operands[1]);
      if (weight == constant_of_.end()) continue;
      const std::string& name = graph_.constants[weight->second].name;
      if (std::find(value.weights.begin(), value.weights.end(), name) == value.weights.end())
        continue;
      const auto bias =
          node.operands.size() > 2 ? constant_of_.find(node.operands[2]) : constant_of_.end();
      if (bias == constant_of_.end()) return {};
      out[weight->second] = bias->second;
    }
    return out;
  }

  const Graph& graph_;
  Graph* const quantised_;
  const StreamOptions& options_;
  const WorkContext& work_;
  PartStore store_;
  ThreadPool pool_;
  const kernels::PanelKernel panel_;
  const Isa isa_;
  const LayerChain chain_;
  const LayerRunner runner_;
  const std::span<const int32_t> ids_;
  const int64_t tokens_;
  std::map<std::string, size_t> index_;  // of constants, by name
  std::map<ValueId, size_t> constant_of_;
  std::map<std::string, ValueId> value_;
  std::map<std::string, Product> products_;
  // What goes into the next part: of the stream that the rounded weights see, and the original one.
  Rows seen_, original_;
  std::set<size_t> waiting_;  // constants that this stage has still to store
  std::set<size_t> taken_;    // that some stage stores
  int64_t stage_ = 0, diagonal_ = 0;
};

}  // namespace

Result<StreamResult> round_streamed(const Graph& graph, Graph* quantised,
                                    std::span<const int32_t> ids, const StreamOptions& options,
                                    const WorkContext& work) {
  POME_RETURN_IF_ERROR(check_text_length(ids.size()));
  if (graph.layer_outputs.empty())
    return unsupported("a model without layers cannot be calibrated");
  POME_ASSIGN_OR_RETURN(PartStore store, PartStore::open(options.folder, options.key));
  POME_ASSIGN_OR_RETURN(const Isa isa, selected_isa());
  return Streamer(graph, quantised, ids, options, work, std::move(store), isa).run();
}

}  // namespace pome
