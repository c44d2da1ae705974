// A Core ML package as a Runner.
#include <algorithm>
#include <optional>
#include <utility>

#include "interp/history_runner.h"
#include "interp/mil_eval.h"

namespace pome {
namespace {

// Finite in fp16, and far below every score: softmax gives such keys exactly nothing.
constexpr float kMasked = -3e4f;

// One function seen through the interface of docs/coreml.md.
struct Entry {
  std::string function, ids, position, mask, logits;
  int64_t chunk = 0, capacity = 0, vocab_size = 0;
  std::vector<mil::NamedType> states;
};

bool is_tensor(const mil::Type& type, DType dtype, size_t rank) {
  return type.kind == mil::Type::Kind::kTensor && type.dtype == dtype && type.dims.size() == rank &&
         std::all_of(type.dims.begin(), type.dims.end(), [](int64_t d) { return d > 0; });
}
bool is_float_tensor(const mil::Type& type, size_t rank) {
  return is_tensor(type, DType::kF16, rank) || is_tensor(type, DType::kF32, rank);
}
const mil::Type* type_of(const mil::Function& function, const std::string& name) {
  for (const mil::Operation& op : function.operations)
    for (const mil::NamedType& output : op.outputs)
      if (output.name == name) return &output.type;
  return nullptr;
}

// nullopt when the function has another interface.
std::optional<Entry> recognise(const mil::Function& function) {
  Entry entry;
  entry.function = function.name;
  const mil::Type* mask = nullptr;
  for (const mil::NamedType& input : function.inputs) {
    if (input.type.kind == mil::Type::Kind::kState) {
      entry.states.push_back(input);
    } else if (is_tensor(input.type, DType::kI32, 2) && input.type.dims[0] == 1 &&
               entry.ids.empty()) {
      entry.ids = input.name;
      entry.chunk = input.type.dims[1];
    } else if (is_tensor(input.type, DType::kI32, 1) && input.type.dims[0] == 1 &&
               entry.position.empty()) {
      entry.position = input.name;
    } else if (is_float_tensor(input.type, 4) && mask == nullptr) {
      entry.mask = input.name;
      mask = &input.type;
    } else {
      return std::nullopt;
    }
  }
  if (entry.ids.empty() || entry.position.empty() || mask == nullptr || entry.states.empty() ||
      function.outputs.size() != 1)
    return std::nullopt;
  if (mask->dims[0] != 1 || mask->dims[1] != 1 || mask->dims[2] != entry.chunk) return std::nullopt;
  entry.capacity = mask->dims[3];
  entry.logits = function.outputs.front();
  const mil::Type* logits = type_of(function, entry.logits);
  if (logits == nullptr || !is_float_tensor(*logits, 3) || logits->dims[0] != 1 ||
      logits->dims[1] != entry.chunk || entry.chunk > entry.capacity)
    return std::nullopt;
  entry.vocab_size = logits->dims[2];
  return entry;
}

// A decode step with explicit caches: one token, whose position is stated.
std::optional<StepInterface> recognise_step(const mil::Model& model,
                                            const mil::Function& function) {
  StepInterface out;
  out.kind = "package";
  out.ids = DType::kI32;
  int scalars = 0;
  bool fixed = true;
  for (const mil::NamedType& input : function.inputs) {
    const mil::Type& type = input.type;
    const auto present = present_name(input.name);
    if ((input.name == "input_ids" || input.name == "position_ids") &&
        is_tensor(type, DType::kI32, 2) && type.dims == Shape{1, 1}) {
      ++scalars;
    } else if (is_float_tensor(type, 4) && type.dims[1] == 1 && type.dims[2] == 1 && !present) {
      if (!out.mask.empty() || type.dims[0] != 1) return std::nullopt;
      out.mask = input.name;
      out.places = type.dims[3];
    } else if (const mil::Type* result = present ? type_of(function, *present) : nullptr;
               result != nullptr && type.kind == mil::Type::Kind::kTensor && is_float(type.dtype) &&
               type.dims.size() == 4 && type.dims[0] == 1 && type.dims[1] > 0 && type.dims[3] > 0) {
      out.caches.push_back({input.name, *present, type.dims[1], type.dims[3]});
      fixed = fixed && *result == type && type.dims[2] > 0;
    } else {
      return std::nullopt;
    }
  }
  const mil::Type* logits = type_of(function, "logits");
  if (scalars != 2 || out.caches.empty() || logits == nullptr || !is_float_tensor(*logits, 3))
    return std::nullopt;
  for (const mil::NamedType& input : function.inputs)
    if (present_name(input.name) && out.places > 0 && input.type.dims[2] != out.places)
      return std::nullopt;
  if (fixed != (out.places > 0)) return std::nullopt;
  out.vocab_size = logits->dims[2];
  out.capacity = std::max(package_context(model), out.places);
  return out;
}

class PackageRunner final : public HistoryRunner {
 public:
  PackageRunner(std::shared_ptr<MilProgram> program, Entry prefill, std::optional<Entry> decode)
      : program_(std::move(program)), prefill_(std::move(prefill)), decode_(std::move(decode)) {
    info_.kind = "package";
    info_.vocab_size = prefill_.vocab_size;
    info_.capacity = prefill_.capacity;
    info_.chunk = prefill_.chunk;
  }

  Status prefill(std::span<const int32_t> ids, LogitsOf which, std::span<float> logits) override {
    POME_RETURN_IF_ERROR(check_prefill(info_, position(), ids, which, logits.size()));
    const size_t before = history_.size();
    size_t done = 0;
    while (done < ids.size()) {
      Status status = check_cancelled(cancel_);
      if (status.ok()) status = next_call(ids, which, logits, &done);
      if (!status.ok()) {
        // Rows behind the position are overwritten before anyone sees them; lost caches are not.
        history_.resize(states_intact() ? before : 0);
        if (!states_intact()) states_.clear();
        return status;
      }
    }
    return {};
  }

 private:
  bool states_intact() const {
    return std::all_of(states_.begin(), states_.end(),
                       [](const auto& state) { return state.second.defined(); });
  }

  // One call of a function: as many of ids[*done ..] as fit it.
  Status next_call(std::span<const int32_t> ids, LogitsOf which, std::span<float> logits,
                   size_t* done) {
    const int64_t left = static_cast<int64_t>(ids.size() - *done);
    const bool runs_over = position() + prefill_.chunk > info_.capacity;
    const Entry& entry = decode_ && (left == 1 || runs_over) ? *decode_ : prefill_;
    // Tokens that are already in the cache are computed again where the chunk must start earlier.
    const int64_t start = std::min(position(), info_.capacity - entry.chunk);
    const int64_t again = position() - start;
    const int64_t fresh = std::min(left, entry.chunk - again);
    std::vector<int32_t> chunk(history_.begin() + start, history_.end());
    const auto from = ids.begin() + static_cast<int64_t>(*done);
    chunk.insert(chunk.end(), from, from + fresh);
    chunk.resize(static_cast<size_t>(entry.chunk), 0);
    POME_ASSIGN_OR_RETURN(const NamedTensors outputs, call(entry, std::move(chunk), start));
    const std::span<const float> rows = outputs.front().second.f32();
    const int64_t vocab = info_.vocab_size;
    for (int64_t i = 0; i < fresh; ++i) {
      const int64_t row = static_cast<int64_t>(*done) + i;
      const bool last = row + 1 == static_cast<int64_t>(ids.size());
      if (which == LogitsOf::kNone || (which == LogitsOf::kLast && !last)) continue;
      const int64_t to = which == LogitsOf::kAll ? row * vocab : 0;
      std::copy_n(rows.begin() + (again + i) * vocab, vocab, logits.begin() + to);
    }
    history_.insert(history_.end(), from, from + fresh);
    *done += static_cast<size_t>(fresh);
    return {};
  }

  // Query t sees the keys up to start + t; so padded rows see only what real rows left, and each
  // other.
  Result<NamedTensors> call(const Entry& entry, std::vector<int32_t> chunk, int64_t start) {
    Tensor mask = Tensor::zeros(DType::kF32, {1, 1, entry.chunk, entry.capacity});
    auto to = mask.mutable_as<float>();
    for (int64_t t = 0; t < entry.chunk; ++t)
      for (int64_t key = start + t + 1; key < entry.capacity; ++key)
        to[static_cast<size_t>(t * entry.capacity + key)] = kMasked;
    const NamedTensors inputs = {
        {entry.ids, Tensor::from_i32({1, entry.chunk}, std::move(chunk))},
        {entry.position, Tensor::from_i32({1}, {static_cast<int32_t>(start)})},
        {entry.mask, std::move(mask)}};
    return program_->run(entry.function, inputs, &states_);
  }

  std::shared_ptr<MilProgram> program_;
  Entry prefill_;
  std::optional<Entry> decode_;
  NamedTensors states_;
};

bool same_states(const Entry& a, const Entry& b) {
  return a.states.size() == b.states.size() &&
         std::all_of(a.states.begin(), a.states.end(), [&](const mil::NamedType& state) {
           return std::any_of(b.states.begin(), b.states.end(), [&](const mil::NamedType& other) {
             return other.name == state.name && other.type == state.type;
           });
         });
}

}  // namespace

int64_t package_context(const mil::Model& model) {
  const auto found = model.user_metadata.find("pome.context");
  return found == model.user_metadata.end() ? 0 : metadata_number(found->second);
}

Result<std::unique_ptr<Runner>> package_runner(std::shared_ptr<MilProgram> program,
                                               CachePolicy policy) {
  for (const mil::Function& function : program->model().functions) {
    std::optional<StepInterface> step = recognise_step(program->model(), function);
    if (!step) continue;
    auto call = [program, name = function.name](const NamedTensors& inputs) {
      return program->run(name, inputs, nullptr);
    };
    return step_runner(std::move(*step), std::move(call), std::move(policy));
  }
  std::optional<Entry> prefill, decode;
  for (const mil::Function& function : program->model().functions) {
    std::optional<Entry> entry = recognise(function);
    if (!entry) continue;
    if (entry->chunk == 1 && !decode) decode = entry;
    if (!prefill || entry->chunk > prefill->chunk) prefill = std::move(entry);
  }
  if (!prefill)
    return unsupported(
        "no function of the package has the inputs token ids int32 [1, T], position int32 [1], "
        "mask float [1, 1, T, L], states, and the output logits float [1, T, vocab], nor those of "
        "a decode step with explicit caches");
  if (decode && (decode->capacity != prefill->capacity ||
                 decode->vocab_size != prefill->vocab_size || !same_states(*decode, *prefill)))
    return unsupported("the functions '" + prefill->function + "' and '" + decode->function +
                       "' of the package do not share capacity, vocabulary and states");
  return std::unique_ptr<Runner>(
      std::make_unique<PackageRunner>(std::move(program), std::move(*prefill), std::move(decode)));
}

}  // namespace pome
