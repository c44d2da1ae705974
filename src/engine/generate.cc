#include "engine/generate.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/stopwatch.h"

namespace pome {

namespace {

// Holds back text that may turn out to be the beginning of a stop string.
class StopFilter {
 public:
  explicit StopFilter(const std::vector<std::string>& stops) : stops_(stops) {}
  // What may be shown now; sets stopped() when a stop string is complete.
  std::string push(const std::string& piece) {
    held_ += piece;
    size_t found = std::string::npos;
    for (const std::string& stop : stops_)
      if (!stop.empty()) found = std::min(found, held_.find(stop));
    if (found != std::string::npos) {
      stopped_ = true;
      held_.resize(found);
      return std::exchange(held_, {});
    }
    size_t keep = 0;
    for (const std::string& stop : stops_)
      for (size_t length = std::min(stop.size() ? stop.size() - 1 : 0, held_.size()); length > keep;
           --length)
        if (held_.compare(held_.size() - length, length, stop, 0, length) == 0) keep = length;
    std::string out = held_.substr(0, held_.size() - keep);
    held_.erase(0, held_.size() - keep);
    return out;
  }
  std::string flush() { return std::exchange(held_, {}); }
  bool stopped() const { return stopped_; }

 private:
  const std::vector<std::string>& stops_;
  std::string held_;
  bool stopped_ = false;
};

// Turns ids into the text that the user sees; what else there is goes to `thinking`.
class VisibleText {
 public:
  VisibleText(const std::shared_ptr<const Tokenizer>& tokenizer, const GenerateOptions& options,
              std::span<const int32_t> prompt, std::string* thinking)
      : decoder_(tokenizer, true, !options.continues_text), thinking_(thinking) {
    if (options.reply.layout != ReplyFormat::Layout::kPlain)
      reader_.emplace(tokenizer, options.reply, prompt);
  }
  std::string push(int32_t id) { return reader_ ? visible(reader_->push(id)) : decoder_.push(id); }
  std::string flush() { return reader_ ? visible(reader_->flush()) : decoder_.flush(); }

 private:
  std::string visible(const std::vector<ReplyPart>& parts) const {
    std::string text;
    for (const ReplyPart& part : parts) {
      const bool shown =
          part.kind == ReplyPart::Kind::kAnswer || part.kind == ReplyPart::Kind::kToolCall;
      (shown ? text : *thinking_) += part.text;
    }
    return text;
  }
  StreamDecoder decoder_;
  std::optional<ReplyReader> reader_;
  std::string* thinking_;
};

}  // namespace

std::string_view to_string(FinishReason reason) {
  static constexpr std::string_view kNames[] = {"stop", "length", "context_full", "interrupted"};
  return kNames[static_cast<size_t>(reason)];
}

Result<Generation> generate(Runner& runner, std::shared_ptr<const Tokenizer> tokenizer,
                            std::span<const int32_t> prompt, const GenerateOptions& options,
                            const TextCallback& on_text, const CancelToken* cancel) {
  if (prompt.empty()) return usage_error("the prompt has no tokens").hint("give a text with -p");
  Generation out;
  POME_ASSIGN_OR_RETURN(out.reused_tokens, reuse_prefix(runner, prompt));
  const auto fresh = prompt.subspan(static_cast<size_t>(out.reused_tokens));
  std::vector<float> logits(static_cast<size_t>(runner.info().vocab_size));
  std::vector<int32_t> context(prompt.begin(), prompt.end());
  const Stopwatch prompt_watch;
  runner.set_cancel(cancel);
  const Status prefilled = runner.prefill(fresh, LogitsOf::kLast, logits);
  if (prefilled.code() == StatusCode::kInterrupted) {
    out.finish_reason = FinishReason::kInterrupted;
    return out;
  }
  POME_RETURN_IF_ERROR(prefilled);
  const double prefill_seconds = prompt_watch.seconds();
  out.prefill_tokens_per_s = static_cast<double>(fresh.size()) / std::max(prefill_seconds, 1e-9);

  Sampler sampler(options.sampler);
  VisibleText decoder(tokenizer, options, prompt, &out.thinking);
  StopFilter filter(options.stop);
  const auto stop_ids = tokenizer->stop_ids();
  const auto show = [&](const std::string& text) {
    out.text += text;
    return text.empty() || !on_text || on_text(text);
  };
  const Stopwatch decode_watch;
  bool wanted = true;
  while (true) {
    if (static_cast<int64_t>(out.ids.size()) >= options.max_tokens) break;
    if (!below_infinity(logits))
      return bad_input(Refusal::kRange, "the logits hold NaN or infinity")
          .hint("verify tells whether the weights are damaged");
    const int32_t id = sampler.sample(logits, context);
    if (out.ids.empty()) out.ttft_ms = prompt_watch.seconds() * 1e3;
    if (std::find(stop_ids.begin(), stop_ids.end(), id) != stop_ids.end()) {
      out.finish_reason = FinishReason::kStop;
      break;
    }
    out.ids.push_back(id);
    context.push_back(id);
    wanted = show(filter.push(decoder.push(id)));
    if (filter.stopped()) {
      out.finish_reason = FinishReason::kStop;
      break;
    }
    if (!wanted || (cancel && cancel->cancelled())) {
      out.finish_reason = FinishReason::kInterrupted;
      break;
    }
    if (static_cast<int64_t>(out.ids.size()) >= options.max_tokens) break;
    if (runner.position() >= runner.info().capacity) {
      out.finish_reason = FinishReason::kContextFull;
      break;
    }
    const Status decoded = runner.decode(id, logits);
    if (decoded.code() == StatusCode::kInterrupted) {
      out.finish_reason = FinishReason::kInterrupted;
      break;
    }
    POME_RETURN_IF_ERROR(decoded);
  }
  if (!filter.stopped()) {
    if (wanted) show(filter.push(decoder.flush()) + filter.flush());
  }
  const double decode_seconds = decode_watch.seconds();
  if (out.ids.size() > 1)
    out.decode_tokens_per_s =
        static_cast<double>(out.ids.size() - 1) / std::max(decode_seconds, 1e-9);
  return out;
}

}  // namespace pome
