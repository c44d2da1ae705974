// generate(): the loop around any Runner: prefill, sample, stream text, stop.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "engine/sampler.h"
#include "graph/runner.h"
#include "tokenizer/reply_format.h"
#include "tokenizer/tokenizer.h"

namespace pome {

struct GenerateOptions {
  int64_t max_tokens = 256;
  // The answer goes on where the prompt's text ends (no chat template): a space before its first
  // word is kept.
  bool continues_text = false;
  SamplerOptions sampler;
  ReplyFormat reply;  // how the model lays out its replies; plain: all text is answer
  std::vector<std::string>
      stop;  // text that ends the answer; never part of it, also when split over tokens
};

enum class FinishReason : uint8_t { kStop, kLength, kContextFull, kInterrupted };
std::string_view to_string(FinishReason reason);  // "stop", "length", "context_full", "interrupted"

struct Generation {
  std::vector<int32_t> ids;  // without the id that ended it
  std::string text;          // the answer, and calls of tools
  std::string thinking;      // what else the model wrote: thoughts and commentary, not for the user
  FinishReason finish_reason = FinishReason::kLength;
  int64_t reused_tokens = 0;  // of the prompt, that the runner's context held already
  double ttft_ms = 0, prefill_tokens_per_s = 0, decode_tokens_per_s = 0;
};

// Called with each piece of text, never ending inside a UTF-8 character; false stops the
// generation.
using TextCallback = std::function<bool(std::string_view)>;

// Makes `prompt` the runner's context and generates. What its context has in common with the prompt
// is kept and not computed again (reuse_prefix()); the rest is forgotten. Interruption through
// `cancel` is not an error: the finish reason says so. The prompt must not be empty. Logits with
// NaN: kRange. Afterwards the context is a beginning of the prompt and the ids put together.
Result<Generation> generate(Runner& runner, std::shared_ptr<const Tokenizer> tokenizer,
                            std::span<const int32_t> prompt, const GenerateOptions& options,
                            const TextCallback& on_text, const CancelToken* cancel);

}  // namespace pome
