#include "verify/verify.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/memory.h"
#include "engine/engine.h"
#include "interp/graph_eval.h"
#include "models/models.h"
#include "verify/model.h"
#include "verify/verify_parts.h"

namespace pome {

namespace {

constexpr int64_t kLocatedTokens = 4;  // at least, when looking for the first difference
// Tokens decoded one by one; fewer where each takes decoding all weights twice.
constexpr int64_t kDecodedTokens = 48, kDecodedTokensOfLarge = 5;

// A graph name as an identifier of ML Programs.
std::string identifier(const std::string& name) {
  std::string out;
  for (const char c : name) {
    const bool plain =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
    out += plain ? c : '_';
  }
  return out;
}

bool is_constant_op(const std::string& type) {
  return type == "const" || type.rfind("constexpr_", 0) == 0;
}

// A constant of the package, read by the reference evaluator (one thread at a time, as all of a
// program is). Held in place where the program keeps all of them, else decoded on demand.
class PackageConstant final : public ConstantData {
 public:
  PackageConstant(std::shared_ptr<MilProgram> program, std::string name, Shape shape, Tensor kept)
      : ConstantData(std::move(shape), Encoding::plain(EncodingKind::kF32)),
        program_(std::move(program)),
        name_(std::move(name)),
        kept_(std::move(kept)) {}
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    POME_ASSIGN_OR_RETURN(const Tensor values, program_->constant(name_));
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
  std::shared_ptr<MilProgram> program_;
  std::string name_;
  Tensor kept_;
};

// The original's graph with the weights that the package holds. Tables that the package stores in
// another form (inverse frequencies) stay.
Result<Graph> rebuild(const Graph& original, const std::shared_ptr<MilProgram>& program, bool keep,
                      std::vector<std::string>* problems) {
  std::map<std::string, const mil::Type*> types;
  for (const mil::Operation& op : program->model().functions[0].operations)
    if (is_constant_op(op.type) && op.outputs.size() == 1)
      types[op.outputs[0].name] = &op.outputs[0].type;
  Graph graph = original;
  for (Constant& constant : graph.constants) {
    if (constant.role == Constant::Role::kTable) continue;
    const std::string name = identifier(constant.name);
    const auto found = types.find(name);
    if (found == types.end()) {
      problems->push_back("the package has no constant " + name);
      continue;
    }
    const Shape& shape = found->second->dims;
    if (shape != constant.data->shape()) {
      problems->push_back("constant " + name + " has shape " + to_string(shape) +
                          ", the original " + to_string(constant.data->shape()));
      continue;
    }
    Tensor kept;
    if (keep) {
      POME_ASSIGN_OR_RETURN(kept, program->constant(name));
    }
    constant.data = std::make_shared<PackageConstant>(program, name, shape, std::move(kept));
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

// One call of a function at `position`, and every value that it computed, in order.
Result<NamedTensors> observe(MilProgram& program, const std::string& function,
                             std::span<const int32_t> ids, int64_t position, int64_t context,
                             NamedTensors* states) {
  const int64_t tokens = static_cast<int64_t>(ids.size());
  NamedTensors inputs = {{"input_ids", Tensor::from_i32({1, tokens}, {ids.begin(), ids.end()})},
                         {"position", Tensor::from_i32({1}, {static_cast<int32_t>(position)})}};
  std::vector<float> mask(static_cast<size_t>(tokens * context), -30000.0f);
  for (int64_t t = 0; t < tokens; ++t)
    std::fill_n(mask.begin() + t * context, position + t + 1, 0.0f);
  inputs.emplace_back("causal_mask", Tensor::from_f32({1, 1, tokens, context}, std::move(mask)));
  NamedTensors seen;
  program.set_observer([&](const std::string& name, const Tensor& value) {
    if (value.defined() && value.dtype() == DType::kF32) seen.emplace_back(name, value.clone());
  });
  const auto ran = program.run(function, inputs, states);
  program.set_observer(nullptr);
  POME_RETURN_IF_ERROR(ran.status());
  return seen;
}

// Runs the first tokens through the function and through the graph, and names the first value that
// differs. Several calls where one sees few tokens: a token that sees only itself hides what is
// wrong with queries and keys.
Result<std::optional<FirstDifference>> find_first_difference(MilProgram& program,
                                                             const std::string& function,
                                                             const Graph& rebuilt,
                                                             std::span<const int32_t> ids,
                                                             int64_t tokens, int64_t context) {
  NamedTensors states;

  std::map<std::string, std::string> graph_names;  // identifier -> name
  for (const Node& node : rebuilt.nodes)
    if (!std::holds_alternative<InputOp>(node.op) && !std::holds_alternative<ConstantOp>(node.op))
      graph_names[identifier(rebuilt.name(node.result))] = rebuilt.name(node.result);
  std::vector<Tensor> past;
  for (const CachePair& cache : rebuilt.caches)
    past.push_back(
        Tensor::zeros(DType::kF32, bind(rebuilt.type(cache.input).shape, {1, tokens, 0})));
  for (int64_t position = 0; position + tokens <= std::max<int64_t>(tokens, kLocatedTokens);
       position += tokens) {
    const std::span<const int32_t> piece =
        ids.subspan(static_cast<size_t>(position), static_cast<size_t>(tokens));
    POME_ASSIGN_OR_RETURN(const NamedTensors seen,
                          observe(program, function, piece, position, context, &states));
    std::vector<std::string> wanted;
    std::vector<const NamedTensors::value_type*> compared;
    for (const auto& entry : seen)
      if (const auto found = graph_names.find(entry.first); found != graph_names.end()) {
        compared.push_back(&entry);
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
      if (error > 0.02) return std::optional(FirstDifference{function, name, error});
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
  Verifier(const VerifyOptions& options, const WorkContext& work)
      : options_(options), work_(work) {}

  Result<VerifyReport> run() {
    POME_ASSIGN_OR_RETURN(const std::optional<ArtefactPaths> paths,
                          find_artefact(options_.artefact));
    if (!paths)
      return unsupported("verify takes an artefact that convert wrote, or a .mlpackage")
          .in(options_.artefact);
    paths_ = *paths;
    POME_RETURN_IF_ERROR(integrity());
    POME_RETURN_IF_ERROR(open());
    if (!options_.original.empty()) {
      POME_RETURN_IF_ERROR(read_original());
      POME_RETURN_IF_ERROR(judged(semantics()));
      const bool finite = report_.functions.size() == 2 && report_.functions[0].tokens > 0 &&
                          report_.functions[1].tokens > 0;
      if (finite) POME_RETURN_IF_ERROR(judged(against_original()));
    }
    report_.ok = report_.problems.empty();
    return std::move(report_);
  }

 private:
  Status integrity() {
    report_.has_manifest = !paths_.folder.empty();
    if (!report_.has_manifest) return {};
    return check_files(paths_.folder, work_, &report_);
  }

  Status open() {
    POME_ASSIGN_OR_RETURN(package_, mil::read_package(paths_.package));
    if (package_.model.functions.empty())
      return bad_input(Refusal::kRange, "the package has no functions").in(paths_.package);
    return {};
  }

  // All files were readable, so a package that cannot be executed, or overflows, is a wrong
  // package: that is an answer, not a failure to answer.
  Status judged(const Status& status) {
    if (status.code() != StatusCode::kBadInput && status.code() != StatusCode::kUsage) {
      if (status.code() != StatusCode::kUnsupported || report_.problems.empty()) return status;
    }
    report_.problems.push_back("semantics: " + status.to_string());
    return {};
  }

  // The positions that the package was made for, as its masks say.
  int64_t package_context() const {
    for (const mil::NamedType& input : package_.model.functions[0].inputs)
      if (input.name == "causal_mask" && input.type.dims.size() == 4)
        return std::max<int64_t>(input.type.dims[3], 0);
    return 0;
  }

  Status read_original() {
    POME_ASSIGN_OR_RETURN(original_, open_checkpoint(options_.original));
    POME_ASSIGN_OR_RETURN(graph_, build_graph(original_, {package_context()}));
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
    POME_ASSIGN_OR_RETURN(const uint64_t budget, constant_budget(package_));
    const bool keep = decoded_size(package_).all <= budget;
    POME_ASSIGN_OR_RETURN(
        std::unique_ptr<MilProgram> program,
        MilProgram::create(std::move(package_), {options_.threads, false, budget}));
    program_ = std::move(program);
    std::vector<std::string> missing_constants;
    POME_ASSIGN_OR_RETURN(Graph rebuilt, rebuild(graph_, program_, keep, &missing_constants));
    for (const std::string& problem : missing_constants)
      report_.problems.push_back("semantics: " + problem);
    POME_ASSIGN_OR_RETURN(artefact_, package_runner(program_));
    if (artefact_->info().vocab_size != graph_.info.vocab_size) {
      report_.problems.push_back("semantics: the package has " +
                                 std::to_string(artefact_->info().vocab_size) +
                                 " logits, the original " + std::to_string(graph_.info.vocab_size));
      return {};
    }
    report_.has_semantics = true;
    const int64_t capacity = artefact_->info().capacity;
    POME_ASSIGN_OR_RETURN(const std::unique_ptr<Runner> reference,
                          reference_runner({rebuilt}, {options_.threads, capacity, budget}));
    const auto first = [&](int64_t count) {
      return std::span<const int32_t>(ids_).first(
          static_cast<size_t>(std::min({count, capacity, static_cast<int64_t>(ids_.size())})));
    };
    ScoreOptions scoring;
    scoring.window = std::min<int64_t>(capacity, 256);
    POME_RETURN_IF_ERROR(
        add_function("prefill", compare(*artefact_, *reference, first(512), scoring, work_)));
    POME_RETURN_IF_ERROR(add_function(
        "decode", compare_decode(*artefact_, *reference,
                                 first(keep ? kDecodedTokens : kDecodedTokensOfLarge), work_)));
    if (!report_.problems.empty()) return locate(rebuilt);
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

  // Which function has which number of tokens a call is read from its declared inputs.
  Status locate(const Graph& rebuilt) {
    for (const mil::Function& function : program_->model().functions) {
      int64_t tokens = 0, context = 0;
      for (const mil::NamedType& input : function.inputs) {
        if (input.name == "input_ids" && input.type.dims.size() == 2) tokens = input.type.dims[1];
        if (input.name == "causal_mask" && input.type.dims.size() == 4)
          context = input.type.dims[3];
      }
      if (tokens < 1 || context < std::max(tokens, kLocatedTokens) ||
          std::max(tokens, kLocatedTokens) > static_cast<int64_t>(ids_.size()))
        continue;
      POME_ASSIGN_OR_RETURN(
          report_.first_difference,
          find_first_difference(*program_, function.name, rebuilt, ids_, tokens, context));
      if (report_.first_difference) {
        report_.problems.push_back("semantics: the first value that differs is " +
                                   report_.first_difference->value + " in " + function.name);
        return {};
      }
    }
    return {};
  }

  Status against_original() {
    PlanOptions plan;
    plan.threads = options_.threads;
    plan.capacity = artefact_->info().capacity;
    POME_ASSIGN_OR_RETURN(const std::shared_ptr<const Plan> compiled, compile(graph_, plan, work_));
    POME_ASSIGN_OR_RETURN(const std::unique_ptr<Runner> engine, compiled->new_session());
    POME_ASSIGN_OR_RETURN(const std::unique_ptr<Runner> reference,
                          reference_runner({graph_}, {options_.threads, artefact_->info().capacity,
                                                      available_memory() / 2}));
    ScoreOptions scoring;
    scoring.window = std::min<int64_t>(artefact_->info().capacity, 512);
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
  VerifyReport report_;
  ArtefactPaths paths_;
  mil::Package package_;
  Checkpoint original_;
  Graph graph_;
  std::vector<int32_t> ids_;
  std::shared_ptr<MilProgram> program_;
  std::unique_ptr<Runner> artefact_;
};

}  // namespace

Result<VerifyReport> verify(const VerifyOptions& options, const WorkContext& work) {
  POME_ASSIGN_OR_RETURN(const std::optional<std::string> gguf, find_gguf(options.artefact));
  if (gguf) return verify_gguf(options, *gguf, work);
  return Verifier(options, work).run();
}

}  // namespace pome
