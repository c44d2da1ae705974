// An ONNX model as a Runner.
#include <algorithm>
#include <utility>

#include "interp/history_runner.h"
#include "interp/onnx_eval.h"

namespace pome {
namespace {

constexpr int64_t kChunk = 64;  // tokens of one call
constexpr std::string_view kPast = "past_key_values.", kPresent = "present.";

struct Interface {
  bool mask = false, positions = false;
  std::vector<const onnx::ValueInfo*> caches;
  int64_t vocab_size = 0, capacity = 0;
};

bool is_tokens(const onnx::ValueInfo& value) {
  return value.dtype == DType::kI64 && value.dims.size() == 2;
}

// nullopt when the model has another interface.
std::optional<Interface> recognise(const onnx::Model& model) {
  Interface out;
  bool ids = false;
  for (const onnx::ValueInfo& input : model.graph.inputs) {
    if (input.name == "input_ids" && is_tokens(input)) {
      ids = true;
    } else if (input.name == "attention_mask" && is_tokens(input)) {
      out.mask = true;
    } else if (input.name == "position_ids" && is_tokens(input)) {
      out.positions = true;
    } else if (input.name.starts_with(kPast) && input.dtype == DType::kF32 &&
               input.dims.size() == 4 && input.dims[1].size > 0 && input.dims[3].size > 0) {
      out.caches.push_back(&input);
    } else {
      return std::nullopt;
    }
  }
  for (const onnx::ValueInfo& output : model.graph.outputs)
    if (output.name == "logits" && output.dims.size() == 3) out.vocab_size = output.dims[2].size;
  if (!ids || out.vocab_size < 1) return std::nullopt;
  const int64_t context = onnx_context(model);
  out.capacity = context > 0 ? context : 1 << 16;
  return out;
}

// A decode step with explicit caches: one token of one sequence, whose position is stated.
std::optional<StepInterface> recognise_step(const onnx::Model& model) {
  StepInterface out;
  out.kind = "onnx";
  int scalars = 0;
  const auto is_given = [&](const std::string& name) {
    return std::any_of(model.graph.outputs.begin(), model.graph.outputs.end(),
                       [&](const onnx::ValueInfo& output) { return output.name == name; });
  };
  for (const onnx::ValueInfo& input : model.graph.inputs) {
    const bool one = is_tokens(input) && input.dims[0].size == 1 && input.dims[1].size == 1;
    const auto present = present_name(input.name);
    if (one && (input.name == "input_ids" || input.name == "position_ids")) {
      ++scalars;
    } else if (present && input.dtype == DType::kF32 && input.dims.size() == 4 &&
               input.dims[0].size == 1 && input.dims[1].size > 0 && input.dims[2].size < 0 &&
               input.dims[3].size > 0 && is_given(*present)) {
      out.caches.push_back({input.name, *present, input.dims[1].size, input.dims[3].size});
    } else {
      return std::nullopt;
    }
  }
  for (const onnx::ValueInfo& output : model.graph.outputs)
    if (output.name == "logits" && output.dims.size() == 3) out.vocab_size = output.dims[2].size;
  if (scalars != 2 || out.caches.empty() || out.vocab_size < 1) return std::nullopt;
  const int64_t context = onnx_context(model);
  out.capacity = context > 0 ? context : 1 << 16;
  return out;
}

class OnnxRunner final : public HistoryRunner {
 public:
  OnnxRunner(std::shared_ptr<OnnxProgram> program, Interface interface)
      : program_(std::move(program)), interface_(std::move(interface)) {
    info_.kind = "onnx";
    info_.vocab_size = interface_.vocab_size;
    info_.capacity = interface_.capacity;
    info_.chunk = std::min(kChunk, info_.capacity);
    for (const onnx::ValueInfo* cache : interface_.caches)
      caches_.emplace_back(cache->name, Tensor::zeros(DType::kF32, {1, cache->dims[1].size, 0,
                                                                    cache->dims[3].size}));
  }

  Status prefill(std::span<const int32_t> ids, LogitsOf which, std::span<float> logits) override {
    POME_RETURN_IF_ERROR(check_prefill(info_, position(), ids, which, logits.size()));
    const size_t before = history_.size();
    for (size_t done = 0; done < ids.size();) {
      const size_t some = std::min(ids.size() - done, static_cast<size_t>(info_.chunk));
      Status status = check_cancelled(cancel_);
      if (status.ok()) status = call(ids.subspan(done, some), done, ids.size(), which, logits);
      if (!status.ok()) {
        forget(static_cast<int64_t>(before));
        return status;
      }
      done += some;
    }
    return {};
  }

 private:
  void forget(int64_t position) override {
    HistoryRunner::forget(position);
    for (auto& [name, cache] : caches_) cache = first_tokens(cache, position);
  }

  static Tensor row(const std::vector<int64_t>& values) {
    Tensor out = Tensor::zeros(DType::kI64, {1, static_cast<int64_t>(values.size())});
    std::copy(values.begin(), values.end(), out.mutable_as<int64_t>().begin());
    return out;
  }

  // One call: `fresh` behind what the caches hold; without caches, behind all tokens again.
  Status call(std::span<const int32_t> fresh, size_t done, size_t count, LogitsOf which,
              std::span<float> logits) {
    const int64_t past = interface_.caches.empty() ? 0 : position();
    std::vector<int64_t> ids(history_.begin() + past, history_.end());
    ids.insert(ids.end(), fresh.begin(), fresh.end());
    std::vector<int64_t> places(ids.size());
    for (size_t i = 0; i < places.size(); ++i) places[i] = past + static_cast<int64_t>(i);
    NamedTensors inputs = caches_;
    inputs.emplace_back("input_ids", row(ids));
    if (interface_.mask)
      inputs.emplace_back("attention_mask",
                          row(std::vector<int64_t>(static_cast<size_t>(past) + ids.size(), 1)));
    if (interface_.positions) inputs.emplace_back("position_ids", row(places));
    POME_ASSIGN_OR_RETURN(const NamedTensors outputs, program_->run(inputs));
    for (const auto& [name, value] : outputs) {
      if (name == "logits") {
        POME_RETURN_IF_ERROR(
            take_logits(value, ids.size(), fresh.size(), done, count, which, logits));
      } else if (name.starts_with(kPresent)) {
        const std::string wanted = std::string(kPast) + name.substr(kPresent.size());
        for (auto& [cache, tensor] : caches_)
          if (cache == wanted) tensor = value;
      }
    }
    for (const auto& [name, cache] : caches_)
      if (cache.dim(2) != past + static_cast<int64_t>(ids.size()))
        return bad_input(Refusal::kRange, "the model gives no cache of all tokens for " + name)
            .in(program_->path());
    history_.insert(history_.end(), fresh.begin(), fresh.end());
    return {};
  }

  Status take_logits(const Tensor& value, size_t rows, size_t fresh, size_t done, size_t count,
                     LogitsOf which, std::span<float> logits) const {
    if (value.dtype() != DType::kF32 ||
        value.shape() != Shape{1, static_cast<int64_t>(rows), info_.vocab_size})
      return bad_input(Refusal::kRange, "the logits are " + to_string(value.shape()))
          .in(program_->path());
    const size_t vocab = static_cast<size_t>(info_.vocab_size);
    for (size_t i = 0; i < fresh; ++i) {
      const bool last = done + i + 1 == count;
      if (which == LogitsOf::kNone || (which == LogitsOf::kLast && !last)) continue;
      const auto from = value.f32().subspan((rows - fresh + i) * vocab, vocab);
      std::copy(from.begin(), from.end(),
                logits.begin() +
                    static_cast<ptrdiff_t>((which == LogitsOf::kAll ? done + i : 0) * vocab));
    }
    return {};
  }

  std::shared_ptr<OnnxProgram> program_;
  Interface interface_;
  NamedTensors caches_;
};

}  // namespace

int64_t onnx_context(const onnx::Model& model) {
  const auto found = model.metadata.find("pome.context");
  return found == model.metadata.end() ? 0 : metadata_number(found->second);
}

Result<std::unique_ptr<Runner>> onnx_runner(std::shared_ptr<OnnxProgram> program,
                                            CachePolicy policy) {
  if (std::optional<StepInterface> step = recognise_step(program->model())) {
    auto call = [program](const NamedTensors& inputs) -> Result<NamedTensors> {
      auto outputs = program->run(inputs);
      if (!outputs.ok()) return std::move(outputs).status().in(program->path());
      return outputs;
    };
    return step_runner(std::move(*step), std::move(call), std::move(policy));
  }
  std::optional<Interface> interface = recognise(program->model());
  if (!interface)
    return unsupported(
               "the model does not have the inputs input_ids, attention_mask, position_ids (int64 "
               "[batch, tokens]) and past_key_values.* (float) alone, and the output logits")
        .in(program->path());
  return std::unique_ptr<Runner>(
      std::make_unique<OnnxRunner>(std::move(program), std::move(*interface)));
}

}  // namespace pome
