#include "pipeline/activations.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "base/thread_pool.h"
#include "pipeline/calibrate.h"
#include "pipeline/moments.h"

namespace pome {

namespace {

class HistogramObserver final : public ActivationObserver {
 public:
  explicit HistogramObserver(const std::vector<ReadValue>& inputs) {
    for (const ReadValue& input : inputs) columns_[input.first] = input.columns;
  }
  void see(const std::string& weight, int64_t, const float* x, int64_t rows) override {
    const auto found = columns_.find(weight);
    if (found == columns_.end()) return;
    histograms_[weight].add({x, static_cast<size_t>(rows * found->second)});
  }
  const ActivationHistogram& of(const std::string& weight) { return histograms_[weight]; }

 private:
  std::map<std::string, int64_t> columns_;
  std::map<std::string, ActivationHistogram> histograms_;
};

}  // namespace

Result<Int8Activations> int8_activations(const Graph& original, const Graph& quantized,
                                         std::span<const int32_t> ids, RangeMethod method,
                                         const WorkContext& work) {
  std::map<std::string, bool> is_int8;
  for (const Constant& constant : quantized.constants) {
    const Encoding& encoding = constant.data->encoding();
    is_int8[constant.name] = encoding.kind == EncodingKind::kInt && encoding.bits == 8;
  }
  std::vector<ReadValue> inputs = read_values(original);
  std::erase_if(inputs, [&](const ReadValue& input) {
    return !std::all_of(input.weights.begin(), input.weights.end(),
                        [&](const std::string& name) { return is_int8[name]; });
  });
  if (inputs.empty())
    return usage_error("--activations int8: no weight is stored as int8")
        .hint("choose --weights int8");
  const auto observer = std::make_shared<HistogramObserver>(inputs);
  constexpr int64_t kWindow = 512;
  POME_RETURN_IF_ERROR(observe_text(original, ids, kWindow, observer, "observe activations", work));
  Int8Activations out;
  for (ReadValue& input : inputs) {
    ActivationValue value{std::move(input.weights), choose_grid(observer->of(input.first), method)};
    for (const std::string& weight : value.weights)
      if (value.choice.grid) out.grids[weight] = *value.choice.grid;
    out.values.push_back(std::move(value));
  }
  return out;
}

}  // namespace pome
