// A runner without a model, and the tokenizer of the embedded model.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "formats/tokenizer_json.h"
#include "graph/runner.h"
#include "tokenizer/tokenizer.h"

namespace pome::test {

// Says the given ids one after another, whatever it is told.
class ScriptedRunner final : public Runner {
 public:
  ScriptedRunner(std::vector<int32_t> script, int64_t capacity) : script_(std::move(script)) {
    info_.kind = "script";
    info_.vocab_size = 4096;
    info_.capacity = capacity;
    info_.chunk = 8;
  }
  const RunnerInfo& info() const override { return info_; }
  Status prefill(std::span<const int32_t> ids, LogitsOf which, std::span<float> logits) override {
    POME_RETURN_IF_ERROR(check_prefill(info_, position(), ids, which, logits.size()));
    POME_RETURN_IF_ERROR(check_cancelled(cancel_));
    context.insert(context.end(), ids.begin(), ids.end());
    computed += static_cast<int64_t>(ids.size());
    std::fill(logits.begin(), logits.end(), 0.0f);
    if (!logits.empty()) logits[static_cast<size_t>(script_[said_++ % script_.size()])] = 5;
    if (spoil_from >= 0 && position() > spoil_from && !logits.empty()) logits[9] = spoiled;
    return {};
  }
  Status decode(int32_t id, std::span<float> logits) override {
    fed.push_back(id);
    return prefill(std::span(&id, 1), LogitsOf::kLast, logits);
  }
  int64_t position() const override { return static_cast<int64_t>(context.size()); }
  std::span<const int32_t> history() const override { return context; }
  Status truncate(int64_t position) override {
    if (position < 0 || position > this->position()) return usage_error("cannot truncate");
    context.resize(static_cast<size_t>(position));
    return {};
  }

  std::vector<int32_t> fed;      // by decode
  std::vector<int32_t> context;  // all that it holds
  int64_t computed = 0;          // tokens ever taken
  int64_t spoil_from = -1;       // position from which one logit is `spoiled`
  float spoiled = 0;

 private:
  RunnerInfo info_;
  std::vector<int32_t> script_;
  size_t said_ = 0;
};

inline std::shared_ptr<const Tokenizer> tales_tokenizer() {
  static const auto loaded = [] {
    auto source = read_hf_tokenizer(POME_SOURCE_DIR "/models/tales", Json(), Json());
    EXPECT_TRUE(source.ok()) << source.status().to_string();
    auto made = Tokenizer::create(std::move(*source));
    EXPECT_TRUE(made.ok());
    return *made;
  }();
  return loaded;
}

}  // namespace pome::test
