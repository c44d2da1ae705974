#include "verify/verify.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/memory.h"
#include "engine/engine.h"
#include "graph/passes.h"
#include "graph/split.h"
#include "interp/graph_eval.h"
#include "models/models.h"
#include "verify/model.h"
#include "verify/verify_parts.h"

namespace pome {

namespace {

constexpr int64_t kLocatedTokens = 4;  // at least, when looking for the first difference
// Tokens decoded one by one; fewer where each takes decoding all weights twice.
constexpr int64_t kDecodedTokens = 48, kDecodedTokensOfLarge = 5;

// A constant of the package, read by the reference evaluator (one thread at a time, as all of a
// program is). Held in place where the program keeps all of them, else decoded on demand.
class PackageConstant final : public ConstantData {
 public:
  PackageConstant(std::shared_ptr<ExportedModel> program, std::string name, Shape shape,
                  Tensor kept)
      : ConstantData(std::move(shape), Encoding::plain(EncodingKind::kF32)),
        program_(std::move(program)),
        name_(std::move(name)),
        kept_(std::move(kept)) {}
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    POME_ASSIGN_OR_RETURN(const Tensor values, program_->weight(name_));
    const size_t row_bytes = static_cast<size_t>(columns()) * sizeof(float);
    const auto from = values.bytes().subspan(static_cast<size_t>(row) * row_bytes,
                                             static_cast<size_t>(rows) * row_bytes);
    tile->row = row;
    tile->rows = rows;
    tile->storage.resize(1);
    tile->storage[0].assign(from.begin(), from.end());
    tile->parts.assign(1, tile->storage[0]);
    return {};
  }
  std::optional<std::span<const std::byte>> view() const override {
    return kept_.defined() ? std::optional(kept_.bytes()) : std::nullopt;
  }

 private:
  std::shared_ptr<ExportedModel> program_;
  std::string name_;
  Tensor kept_;
};

// The original's graph with the products that convert put into the package.
Graph with_inserted(const Graph& original, ExportedModel& program) {
  for (const Value& value : original.values) {
    const std::string name = inserted_weight_name(value.name);
    const std::optional<Shape> shape = program.weight_shape(name);
    if (!shape || shape->size() != 2 || value.type.shape.empty() ||
        Dim((*shape)[0]) != value.type.shape.back() || (*shape)[0] != (*shape)[1])
      continue;
    Constant weight;
    weight.name = name;
    weight.data = inline_constant(Tensor::zeros(DType::kF32, *shape));  // rebuild() fills it
    return insert_product(original, static_cast<ValueId>(&value - original.values.data()),
                          std::move(weight));
  }
  return original;
}

// The original's graph in the parts that the package holds.
Result<Graph> with_parts(const Graph& original, ExportedModel& program) {
  const bool parts = std::any_of(
      original.constants.begin(), original.constants.end(), [&](const Constant& constant) {
        return program.weight_shape(part_name(constant.name, 0)).has_value();
      });
  if (!parts) return original;
  POME_ASSIGN_OR_RETURN(Split split, split_parts(original));
  return std::move(split.graph);
}

// The original's graph with the weights that the package holds. Tables that the package stores in
// another form (inverse frequencies) stay.
Result<Graph> rebuild(const Graph& original, const std::shared_ptr<ExportedModel>& program,
                      std::vector<std::string>* problems) {
  POME_ASSIGN_OR_RETURN(const Graph parts, with_parts(original, *program));
  Graph graph = with_inserted(parts, *program);
  for (Constant& constant : graph.constants) {
    const bool table = constant.role == Constant::Role::kTable;
    if (table && constant.data->shape().size() != 2) continue;
    const std::string& name = constant.name;
    Tensor kept;
    std::optional<Shape> shape;
    if (program->keeps_all()) {
      POME_ASSIGN_OR_RETURN(kept, program->weight(name));
      if (kept.defined()) shape = kept.shape();
    } else {
      shape = program->weight_shape(name);
    }
    if (!shape && table) continue;
    if (!shape) {
      problems->push_back("the package has no constant " + program->value_name(name));
      continue;
    }
    if (*shape != constant.data->shape()) {
      problems->push_back("constant " + program->value_name(name) + " has shape " +
                          to_string(*shape) + ", the original " +
                          to_string(constant.data->shape()));
      continue;
    }
    constant.data =
        std::make_shared<PackageConstant>(program, name, std::move(*shape), std::move(kept));
  }
  return graph;
}

double relative_error(const Tensor& a, const Tensor& b) {
  double error = 0, norm = 0;
  const auto x = a.f32(), y = b.f32();
  for (size_t i = 0; i < x.size(); ++i) {
    if (!std::isfinite(x[i]) && !std::isfinite(y[i])) continue;  // the same weight spoils both
    error += std::pow(static_cast<double>(x[i]) - static_cast<double>(y[i]), 2);
    norm += std::pow(static_cast<double>(y[i]), 2);
  }
  const double relative = std::sqrt(error) / std::max(std::sqrt(norm), 1e-20);
  return std::isfinite(relative) ? relative : 1e30;
}

// Runs the first tokens through the function and through the graph, and names the first value that
// differs. Several calls where one sees few tokens: a token that sees only itself hides what is
// wrong with queries and keys.
Result<std::optional<FirstDifference>> find_first_difference(ExportedModel& program,
                                                             const ExportedModel::Entry& entry,
                                                             const Graph& rebuilt,
                                                             std::span<const int32_t> ids) {
  const int64_t tokens = entry.tokens == 0 ? kLocatedTokens : entry.tokens;
  std::map<std::string, std::string> graph_names;  // name in the package -> name
  for (const Node& node : rebuilt.nodes)
    if (!std::holds_alternative<InputOp>(node.op) && !std::holds_alternative<ConstantOp>(node.op))
      graph_names[program.value_name(rebuilt.name(node.result))] = rebuilt.name(node.result);
  std::vector<Tensor> past;
  for (const CachePair& cache : rebuilt.caches)
    past.push_back(
        Tensor::zeros(DType::kF32, bind(rebuilt.type(cache.input).shape, {1, tokens, 0})));
  for (int64_t position = 0; position + tokens <= std::max<int64_t>(tokens, kLocatedTokens);
       position += tokens) {
    const std::span<const int32_t> piece =
        ids.subspan(static_cast<size_t>(position), static_cast<size_t>(tokens));
    POME_ASSIGN_OR_RETURN(const NamedTensors seen, program.observe(entry, piece, position));
    std::vector<std::string> wanted;
    std::vector<const NamedTensors::value_type*> compared;
    for (const auto& value : seen)
      if (const auto found = graph_names.find(value.first); found != graph_names.end()) {
        compared.push_back(&value);
        wanted.push_back(found->second);
      }
    NamedTensors inputs = {
        {"input_ids", Tensor::from_i32({1, tokens}, {piece.begin(), piece.end()})},
        {"position", Tensor::from_i32({1}, {static_cast<int32_t>(position)})}};
    for (size_t i = 0; i < past.size(); ++i) {
      inputs.emplace_back(rebuilt.name(rebuilt.caches[i].input), past[i]);
      wanted.push_back(rebuilt.name(rebuilt.caches[i].output));
    }
    POME_ASSIGN_OR_RETURN(const std::vector<Tensor> expected,
                          evaluate(rebuilt, inputs, wanted, nullptr));
    for (size_t i = 0; i < compared.size(); ++i) {
      const auto& [name, value] = *compared[i];
      if (value.shape() != expected[i].shape())
        continue;  // caches: the package's have room for the whole context
      const double error = relative_error(value, expected[i]);
      if (error > 0.02) return std::optional(FirstDifference{entry.name, name, error});
    }
    past.assign(expected.begin() + static_cast<ptrdiff_t>(compared.size()), expected.end());
  }
  return std::optional<FirstDifference>();
}

FunctionReport to_report(const std::string& name, const Comparison& c) {
  FunctionReport out{
      name, c.artefact.tokens, c.max_abs_error, c.mean_abs_error, c.mean_kld, c.top1_agreement,
      true};
  out.ok = c.mean_kld <= kMaxOwnMeanKld && c.top1_agreement >= kMinOwnTop1Agreement;
  return out;
}

class Verifier {
 public:
  Verifier(const VerifyOptions& options, ArtefactPaths paths, const WorkContext& work)
      : options_(options), work_(work), paths_(std::move(paths)) {}

  Result<VerifyReport> run() {
    POME_RETURN_IF_ERROR(check_files(paths_.folder, work_, &report_));
    POME_ASSIGN_OR_RETURN(program_, ExportedModel::open(paths_));
    if (!options_.original.empty()) {
      POME_RETURN_IF_ERROR(read_original());
      POME_RETURN_IF_ERROR(judged(semantics()));
      program_->round_activations(true);
      const bool finite = report_.functions.size() == 2 && report_.functions[0].tokens > 0 &&
                          report_.functions[1].tokens > 0;
      if (finite) POME_RETURN_IF_ERROR(judged(against_original()));
    } else if (program_->is_step()) {
      POME_RETURN_IF_ERROR(program_->prepare(options_.threads, false));
      POME_RETURN_IF_ERROR(judged(steps(nullptr)));
    }
    report_.ok = report_.problems.empty();
    return std::move(report_);
  }

 private:
  // All files were readable, so a package that cannot be executed, or overflows, is a wrong
  // package: that is an answer, not a failure to answer.
  Status judged(const Status& status) {
    if (status.code() != StatusCode::kBadInput && status.code() != StatusCode::kUsage) {
      if (status.code() != StatusCode::kUnsupported || report_.problems.empty()) return status;
    }
    report_.problems.push_back("semantics: " + status.to_string());
    return {};
  }

  Status read_original() {
    POME_ASSIGN_OR_RETURN(original_, open_checkpoint(options_.original));
    POME_ASSIGN_OR_RETURN(graph_, build_graph(original_, {program_->context()}));
    POME_ASSIGN_OR_RETURN(const std::shared_ptr<const Tokenizer> tokenizer,
                          load_tokenizer(options_.original));
    ids_ = tokenizer->encode(options_.text);
    if (static_cast<int64_t>(ids_.size()) > options_.max_tokens)
      ids_.resize(static_cast<size_t>(options_.max_tokens));
    if (ids_.size() < 8)
      return bad_input(Refusal::kRange, "the text has too few tokens to compare: " +
                                            std::to_string(ids_.size()) + ", at least 8 are needed")
          .hint("give a longer one with --text, or a larger --max-tokens");
    return {};
  }

  Status semantics() {
    POME_RETURN_IF_ERROR(program_->prepare(options_.threads, false));
    program_->round_activations(false);
    std::vector<std::string> missing_constants;
    POME_ASSIGN_OR_RETURN(Graph rebuilt, rebuild(graph_, program_, &missing_constants));
    for (const std::string& problem : missing_constants)
      report_.problems.push_back("semantics: " + problem);
    POME_ASSIGN_OR_RETURN(artefact_, program_->runner({}));
    if (artefact_->info().vocab_size != graph_.info.vocab_size) {
      report_.problems.push_back("semantics: the package has " +
                                 std::to_string(artefact_->info().vocab_size) +
                                 " logits, the original " + std::to_string(graph_.info.vocab_size));
      return {};
    }
    report_.has_semantics = true;
    const int64_t capacity = usable();
    POME_ASSIGN_OR_RETURN(
        const std::unique_ptr<Runner> reference,
        reference_runner({rebuilt}, {options_.threads, capacity, program_->budget()}));
    const auto first = [&](int64_t count) {
      return std::span<const int32_t>(ids_).first(
          static_cast<size_t>(std::min({count, capacity, static_cast<int64_t>(ids_.size())})));
    };
    ScoreOptions scoring;
    scoring.window = std::min<int64_t>(capacity, 256);
    POME_RETURN_IF_ERROR(
        add_function("prefill", compare(*artefact_, *reference, first(512), scoring, work_)));
    POME_RETURN_IF_ERROR(add_function(
        "decode",
        compare_decode(*artefact_, *reference,
                       first(program_->keeps_all() ? kDecodedTokens : kDecodedTokensOfLarge),
                       work_)));
    if (program_->is_step()) {
      // The engine reads constants on all threads, which those that are decoded for each use do not
      // bear.
      std::unique_ptr<Runner> engine;
      if (program_->keeps_all()) {
        PlanOptions plan;
        plan.threads = options_.threads;
        plan.capacity = artefact_->info().capacity;
        POME_ASSIGN_OR_RETURN(const std::shared_ptr<const Plan> compiled,
                              compile(rebuilt, plan, work_));
        POME_ASSIGN_OR_RETURN(engine, compiled->new_session());
      }
      POME_RETURN_IF_ERROR(steps(engine ? engine.get() : reference.get()));
    }
    if (!report_.problems.empty()) return locate(rebuilt);
    return {};
  }

  // Tokens that the artefact's caches hold without losing one.
  int64_t usable() const {
    const int64_t capacity = artefact_->info().capacity;
    return program_->places() > 0 ? std::min(capacity, program_->places()) : capacity;
  }

  Status steps(Runner* engine) {
    POME_ASSIGN_OR_RETURN(const KvSidecars sidecars, read_kv_sidecars(paths_.package));
    POME_ASSIGN_OR_RETURN(report_.step,
                          check_steps(*program_, sidecars, engine, ids_, work_, &report_.problems));
    return {};
  }

  Status add_function(const std::string& name, const Result<Comparison>& compared) {
    if (!compared.ok()) {
      if (compared.status().refusal() != Refusal::kRange) return compared.status();
      FunctionReport failed;
      failed.name = name;
      failed.ok = false;
      report_.functions.push_back(failed);
      report_.problems.push_back("semantics: " + name + ": the logits hold NaN or infinity");
      return {};
    }
    const FunctionReport function = to_report(name, *compared);
    report_.functions.push_back(function);
    if (!function.ok)
      report_.problems.push_back("semantics: " + name +
                                 " does not compute what the graph says: mean KL divergence " +
                                 std::to_string(function.mean_kld) + ", largest error of a logit " +
                                 std::to_string(function.max_abs_error));
    return {};
  }

  Status locate(const Graph& rebuilt) {
    for (const ExportedModel::Entry& entry : program_->entries()) {
      const int64_t least = std::max(entry.tokens, kLocatedTokens);
      if (program_->context() < least || least > static_cast<int64_t>(ids_.size())) continue;
      POME_ASSIGN_OR_RETURN(report_.first_difference,
                            find_first_difference(*program_, entry, rebuilt, ids_));
      if (report_.first_difference) {
        report_.problems.push_back("semantics: the first value that differs is " +
                                   report_.first_difference->value + " in " + entry.name);
        return {};
      }
    }
    return {};
  }

  Status against_original() {
    PlanOptions plan;
    plan.threads = options_.threads;
    plan.capacity = usable();
    POME_ASSIGN_OR_RETURN(const std::shared_ptr<const Plan> compiled, compile(graph_, plan, work_));
    POME_ASSIGN_OR_RETURN(const std::unique_ptr<Runner> engine, compiled->new_session());
    POME_ASSIGN_OR_RETURN(
        const std::unique_ptr<Runner> reference,
        reference_runner({graph_}, {options_.threads, usable(), available_memory() / 2}));
    ScoreOptions scoring;
    scoring.window = std::min<int64_t>(usable(), 512);
    const std::span<const int32_t> few = std::span<const int32_t>(ids_).first(
        std::min<size_t>(ids_.size(), static_cast<size_t>(std::min<int64_t>(128, scoring.window))));
    POME_ASSIGN_OR_RETURN(const Comparison own, compare(*engine, *reference, few, scoring, work_));
    report_.engine_max_abs_error = own.max_abs_error;
    if (own.mean_kld > 1e-6)
      report_.problems.push_back("engine: differs from the reference evaluator by " +
                                 std::to_string(own.mean_kld) + " mean KL divergence");
    POME_ASSIGN_OR_RETURN(report_.against_original,
                          compare(*artefact_, *engine, ids_, scoring, work_));
    report_.has_comparison = true;
    check_gates(options_, report_.against_original, &report_.problems);
    return {};
  }

  const VerifyOptions& options_;
  const WorkContext& work_;
  const ArtefactPaths paths_;
  VerifyReport report_;
  Checkpoint original_;
  Graph graph_;
  std::vector<int32_t> ids_;
  std::shared_ptr<ExportedModel> program_;
  std::unique_ptr<Runner> artefact_;
};

}  // namespace

Result<VerifyReport> verify(const VerifyOptions& options, const WorkContext& work) {
  POME_ASSIGN_OR_RETURN(const std::optional<ArtefactPaths> paths, find_artefact(options.artefact));
  if (!paths)
    return unsupported("verify takes an artefact that convert wrote, or the model file in it")
        .in(options.artefact);
  VerifyOptions resolved = options;
  if (!options.original.empty()) {
    POME_ASSIGN_OR_RETURN(const std::optional<ArtefactPaths> other,
                          find_artefact(options.original));
    if (other) {
      POME_ASSIGN_OR_RETURN(const Identity identity, identity_of(*other));
      if (!identity.source_hash.empty()) {
        // A GGUF file is an artefact of a model and a model of its own.
        POME_ASSIGN_OR_RETURN(const Identity own, identity_of(*paths));
        POME_ASSIGN_OR_RETURN(const bool child,
                              is_made_from(own.source_hash, *other, identity, options.threads));
        if (!child) return verify_pair(options, *paths, identity, work);
      } else if (!other->is_checkpoint()) {
        return unsupported("this artefact does not say which model it was made from")
            .in(options.original)
            .hint("give the model itself");
      }
      resolved.original = other->package;
    }
  }
  if (paths->is_checkpoint()) return verify_checkpoint(resolved, *paths, work);
  return Verifier(resolved, *paths, work).run();
}

}  // namespace pome
