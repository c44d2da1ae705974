// Measuring: loads, prefill and decode in turn, then the machine's roofs.
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>

#include "base/byte_source.h"
#include "base/stopwatch.h"
#include "base/thread_pool.h"
#include "cli/cmd_bench.h"
#include "cli/generation_flags.h"
#include "engine/buffer.h"
#include "engine/sampler.h"
#include "kernels/roof/roof.h"
#include "quantize/quantize.h"

namespace pome::cli {

namespace {

// Ids all over the vocabulary, the same in every run.
std::vector<int32_t> some_ids(int64_t count, int64_t vocab_size) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i)
    ids.push_back(static_cast<int32_t>((i * 7919 + 13) % vocab_size));
  return ids;
}

// Of a model folder those that may hold weights; else the file itself.
std::vector<std::string> weight_files(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (!fs::is_directory(path, error)) return {path};
  std::vector<std::string> files;
  for (fs::directory_iterator at(path, error), end; !error && at != end; at.increment(error)) {
    const std::string ending = at->path().extension().string();
    for (const char* known : {".safetensors", ".gguf", ".bin", ".pt", ".pth"})
      if (ending == known) files.push_back(at->path().string());
  }
  return files;
}

// Seconds to read all bytes of the files once, from the second time on: they are in memory then.
Result<double> time_reading(const std::string& model, const CancelToken* cancel, uint64_t* bytes) {
  std::vector<std::byte> buffer(size_t{1} << 20);
  double seconds = 0;
  for (int pass = 0; pass < 2; ++pass) {
    const Stopwatch watch;
    *bytes = 0;
    for (const std::string& path : weight_files(model)) {
      POME_ASSIGN_OR_RETURN(const ByteSourcePtr source, open_for_reading(path));
      for (uint64_t at = 0; at < source->size(); at += buffer.size()) {
        POME_RETURN_IF_ERROR(check_cancelled(cancel));
        const auto count = std::min<uint64_t>(buffer.size(), source->size() - at);
        POME_RETURN_IF_ERROR(source->read(at, std::span(buffer).first(static_cast<size_t>(count))));
      }
      *bytes += source->size();
    }
    seconds = watch.seconds();
  }
  return seconds;
}

class Measurement {
 public:
  Measurement(App& app, const BenchOptions& options) : app_(app), options_(options) {}

  Result<Bench> run() {
    POME_RETURN_IF_ERROR(measure_files());
    for (const int threads : options_.threads) {
      BenchRun& run = bench_.runs.emplace_back();
      run.threads = threads;
      run.prompt = options_.prompt;
      run.decoded = options_.decode;
      POME_RETURN_IF_ERROR(measure_run(&run));
    }
    if (options_.profile)
      for (BenchRun& run : bench_.runs) POME_RETURN_IF_ERROR(measure_profile(&run));
    // Last, so that their memory does not count as the model's.
    for (BenchRun& run : bench_.runs) POME_RETURN_IF_ERROR(measure_roofs(&run));
    return std::move(bench_);
  }

 private:
  Status measure_files() {
    POME_ASSIGN_OR_RETURN(const auto artefact, find_artefact(options_.model));
    if (!artefact || artefact->is_checkpoint()) {
      const std::string& path = artefact ? artefact->package : options_.model;
      POME_ASSIGN_OR_RETURN(bench_.read_files,
                            time_reading(path, app_.cancel(), &bench_.file_bytes));
    }
    const Stopwatch watch;
    // A model without one can be measured all the same.
    if (load_tokenizer(options_.model).ok()) bench_.tokenizer = watch.seconds();
    return {};
  }

  Result<LoadedModel> load(int threads, std::shared_ptr<StepProfile> profile) {
    LoadOptions load;
    load.threads = threads;
    load.context = std::max(options_.prompt, options_.depth + options_.decode);
    load.exact = options_.exact;
    load.kv = chosen_kv(options_.kv);
    if (!options_.weights.empty()) {
      POME_ASSIGN_OR_RETURN(const QuantRecipe recipe, parse_recipe(options_.weights));
      load.rewrite = [recipe](const Graph& graph) -> Result<Graph> {
        POME_ASSIGN_OR_RETURN(Quantized encoded, quantize(graph, recipe));
        return std::move(encoded.graph);
      };
    }
    load.need_tokenizer = load.read_tokenizer = false;
    load.profile = std::move(profile);
    auto model = load_model(options_.model, load, app_.work());
    if (!model.ok() && model.status().code() == StatusCode::kUsage)
      return std::move(model).status().hint("choose smaller -p, -n or -d");
    if (model.ok()) {
      model->runner->set_cancel(app_.cancel());
      logits_.resize(static_cast<size_t>(model->runner->info().vocab_size));
    }
    return model;
  }

  // The model of the last of several loads. Large ones are loaded once.
  Result<LoadedModel> measure_loads(BenchRun* run) {
    constexpr double kEnough = 3;  // seconds
    const Stopwatch all;
    for (int64_t i = 0;; ++i) {
      const Stopwatch watch;
      POME_ASSIGN_OR_RETURN(LoadedModel model, load(run->threads, nullptr));
      const double loaded = watch.seconds();
      POME_RETURN_IF_ERROR(model.runner->decode(some_ids(1, vocab_size())[0], logits_));
      run->first_token.add(watch.seconds());
      run->load.add(loaded);
      run->open.add(model.times.open);
      run->plan.add(model.times.plan);
      run->session.add(model.times.session);
      if (i + 1 >= options_.repetitions || all.seconds() > kEnough) return model;
    }
  }

  Status measure_run(BenchRun* run) {
    POME_ASSIGN_OR_RETURN(const LoadedModel model, measure_loads(run));
    Runner& runner = *model.runner;
    bench_.runner = runner.info().kind;
    // The first round touches memory for the first time and does not count.
    for (int64_t round = 0; round <= options_.repetitions; ++round) {
      double taken = 0;
      if (options_.prompt > 0) {
        POME_RETURN_IF_ERROR(prefill(runner, options_.prompt, &taken));
        const Stopwatch watch;
        const int32_t best = Sampler(SamplerOptions{}).sample(logits_, {});
        sink_ = sink_ + best;
        if (round > 0) {
          run->prefill.add(static_cast<double>(options_.prompt) / taken);
          run->prompt_to_token.add(taken + watch.seconds());
        }
      }
      if (options_.decode > 0) {
        POME_RETURN_IF_ERROR(decode(runner, &taken));
        if (round > 0) run->decode.add(static_cast<double>(options_.decode) / taken);
      }
    }
    run->sampling = time_sampling();
    run->peak_memory = peak_memory_bytes();
    if (!model.plan) return {};
    run->isa = to_string(model.plan->isa());
    run->prefill_work = work_of_prompt(*model.plan, runner.info().chunk);
    run->decode_work =
        model.plan->work(1, options_.depth + std::max<int64_t>(options_.decode - 1, 0) / 2);
    return {};
  }

  // Chunk by chunk, as the session takes it; logits are computed for the last one.
  Work work_of_prompt(const Plan& plan, int64_t chunk) const {
    Work work;
    for (int64_t at = 0; at < options_.prompt; at += chunk)
      work += plan.work(std::min(chunk, options_.prompt - at), at);
    return work;
  }

  int64_t vocab_size() const { return static_cast<int64_t>(logits_.size()); }

  Status prefill(Runner& runner, int64_t tokens, double* seconds) {
    POME_RETURN_IF_ERROR(runner.truncate(0));
    const std::vector<int32_t> ids = some_ids(tokens, vocab_size());
    const Stopwatch watch;
    POME_RETURN_IF_ERROR(runner.prefill(ids, LogitsOf::kLast, logits_));
    *seconds = watch.seconds();
    return {};
  }

  Status decode(Runner& runner, double* seconds) {
    if (options_.depth > 0) {
      POME_RETURN_IF_ERROR(prefill(runner, options_.depth, seconds));
    } else {
      POME_RETURN_IF_ERROR(runner.truncate(0));
    }
    const std::vector<int32_t> ids = some_ids(options_.decode, vocab_size());
    const Stopwatch watch;
    for (const int32_t id : ids) POME_RETURN_IF_ERROR(runner.decode(id, logits_));
    *seconds = watch.seconds();
    return {};
  }

  double time_sampling() {
    constexpr int kTimes = 20;
    Sampler sampler(SamplerOptions{});
    const Stopwatch watch;
    for (int i = 0; i < kTimes; ++i) sink_ = sink_ + sampler.sample(logits_, {});
    return watch.seconds() / kTimes;
  }

  // In a plan of its own, so that the figures above are those of what users run.
  Status measure_profile(BenchRun* run) {
    const auto profile = std::make_shared<StepProfile>();
    POME_ASSIGN_OR_RETURN(const LoadedModel model, load(run->threads, profile));
    if (!model.plan) return {};
    double seconds = 0;
    if (options_.prompt > 0) {
      for (int i = 0; i < 2; ++i) {
        profile->reset();
        POME_RETURN_IF_ERROR(prefill(*model.runner, options_.prompt, &seconds));
      }
      run->prefill_kinds = by_kind(*profile);
    }
    if (options_.decode > 0) {
      POME_RETURN_IF_ERROR(decode(*model.runner, &seconds));
      // The tokens before are not decoded ones.
      POME_RETURN_IF_ERROR(model.runner->truncate(options_.depth));
      profile->reset();
      for (const int32_t id : some_ids(options_.decode, vocab_size()))
        POME_RETURN_IF_ERROR(model.runner->decode(id, logits_));
      run->decode_kinds = by_kind(*profile);
    }
    return {};
  }

  static std::vector<KindTime> by_kind(const StepProfile& profile) {
    std::map<std::string, KindTime> kinds;
    for (const StepProfile::Entry& entry : profile.steps) {
      KindTime& kind = kinds[entry.kind];
      kind.kind = entry.kind;
      kind.calls += entry.calls;
      kind.seconds += entry.seconds;
      kind.work += entry.work;
    }
    std::vector<KindTime> out;
    for (auto& [name, kind] : kinds) out.push_back(std::move(kind));
    std::stable_sort(out.begin(), out.end(),
                     [](const KindTime& a, const KindTime& b) { return a.seconds > b.seconds; });
    return out;
  }

  Status measure_roofs(BenchRun* run) {
    if (run->isa.empty()) return {};
    POME_ASSIGN_OR_RETURN(const Isa isa, parse_isa(run->isa));
    // As much as a token reads, so that a model that stays in a cache is held against that cache;
    // what is beyond every cache need not be larger.
    constexpr uint64_t kLeast = 1 << 20, kMost = 256 << 20;
    const uint64_t set = std::clamp<uint64_t>(run->decode_work->bytes(), kLeast, kMost);
    POME_ASSIGN_OR_RETURN(
        const AlignedBuffer memory,
        AlignedBuffer::allocate(set, "measuring the read bandwidth", Pages::kLarge));
    std::memset(memory.data(), 1, memory.bytes().size());
    ThreadPool pool(run->threads);
    using kernels::RoofProduct;
    run->roofs.read_set = set;
    run->roofs.read = kernels::measure_read_roof(isa, memory.bytes(), &pool);
    run->roofs.int8 = kernels::measure_product_roof(isa, RoofProduct::kInt8, &pool);
    run->roofs.bf16 = kernels::measure_product_roof(isa, RoofProduct::kBf16, &pool);
    run->roofs.f32 = kernels::measure_product_roof(isa, RoofProduct::kF32, &pool);
    return check_cancelled(app_.cancel());
  }

  App& app_;
  const BenchOptions& options_;
  Bench bench_;
  std::vector<float> logits_;
  volatile int64_t sink_ = 0;  // the choice of a token is not thrown away
};

}  // namespace

double Samples::median() const {
  if (values.empty()) return 0;
  std::vector<double> sorted = values;
  std::sort(sorted.begin(), sorted.end());
  const size_t middle = sorted.size() / 2;
  return sorted.size() % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
double Samples::smallest() const { return *std::min_element(values.begin(), values.end()); }
double Samples::largest() const { return *std::max_element(values.begin(), values.end()); }

double BenchRun::bytes_per_token() const {
  return decode_work ? static_cast<double>(decode_work->bytes()) : 0;
}
std::optional<double> BenchRun::read_fraction() const {
  if (decode.empty() || !decode_work || roofs.read <= 0) return std::nullopt;
  return bytes_per_token() * decode.median() / roofs.read;
}
double seconds_at_roof(const Work& work, const Roofs& roofs) {
  const auto at = [](uint64_t macs, double roof) {
    return macs > 0 && roof > 0 ? static_cast<double>(macs) / roof : 0;
  };
  return at(work.int8_macs, roofs.int8) + at(work.bf16_macs, roofs.bf16) +
         at(work.f32_macs, roofs.f32);
}
std::optional<double> BenchRun::compute_fraction() const {
  if (prefill.empty() || !prefill_work || prefill_work->weight_macs() == 0) return std::nullopt;
  return seconds_at_roof(*prefill_work, roofs) * prefill.median() / static_cast<double>(prompt);
}

Result<Bench> measure(App& app, const BenchOptions& options) {
  return Measurement(app, options).run();
}

}  // namespace pome::cli
