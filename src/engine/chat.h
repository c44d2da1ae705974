// ChatSession: answers conversations with one runner and its KV cache.
//
// Each call takes the whole conversation. What of its prompt the cache already holds is not
// computed again: the cache is cut where the new prompt leaves the old context, and only the rest
// is prefilled.
//
// Overflow rule. The system prompt and all that the template writes in front of the first turn stay
// (their first tokens are the attention sinks); of the rest, the fewest oldest whole turns are left
// out so that the prompt and the room kept for the answer fit the context. A turn is a message of
// the user and what follows it; the last one is never left out: when it does not fit even alone,
// that is an error which says by how much. The conversation itself is not changed, so a turn that
// was left out comes back when there is room again. An answer that reaches the end of the context
// ends with the reason "length".
//
// Thread safety: one thread at a time. The runner belongs to the session while it lives.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "engine/generate.h"
#include "graph/runner.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer.h"

namespace pome {

struct ChatOptions {
  GenerateOptions generate;  // `continues_text` is the session's own
  // Tokens kept free for the answer; 0 = min(max_tokens, a quarter of the capacity), at least 1.
  int64_t room = 0;
  bool drop_oldest = true;  // without it, what does not fit as a whole is an error
};

struct ChatPrompt {
  std::vector<int32_t> ids;
  size_t dropped_turns = 0;  // the oldest ones, left out
};

struct ChatAnswer {
  Generation generation;
  ChatPrompt prompt;
  int64_t reused_tokens = 0;  // of the prompt, from the cache
  // "stop", "length" or "interrupted".
  std::string_view finish_reason() const;
  // The answer ended because the context did.
  bool context_full() const { return generation.finish_reason == FinishReason::kContextFull; }
};

class ChatSession {
 public:
  // The template is the tokenizer's own or one given instead of it. None of the three may be null.
  ChatSession(Runner* runner, std::shared_ptr<const Tokenizer> tokenizer,
              std::shared_ptr<const ChatTemplate> chat_template);

  // The prompt for an answer behind `messages`, cut by the overflow rule. kUsage when it cannot be
  // made to fit, kTemplate of the template.
  Result<ChatPrompt> prompt(std::span<const ChatMessage> messages,
                            const ChatOptions& options) const;
  // Generates an answer; the errors are those of prompt() and generate(). A session goes on after
  // an error.
  Result<ChatAnswer> reply(std::span<const ChatMessage> messages, const ChatOptions& options,
                           const TextCallback& on_text, const CancelToken* cancel);
  // Whether the template writes a system message: kUnsupported when it refuses or ignores it.
  Status check_system_message() const;

  int64_t capacity() const { return runner_->info().capacity; }
  // Tokens in the cache: prompt and answer of the last reply.
  int64_t tokens() const { return runner_->position(); }
  static int64_t room_of(const ChatOptions& options, int64_t capacity);

 private:
  Result<std::vector<int32_t>> encode(std::span<const ChatMessage> head,
                                      std::span<const ChatMessage> rest) const;

  Runner* runner_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<const ChatTemplate> template_;
  std::string end_of_answer_;  // ends an answer where no token does; may be empty
  ReplyFormat reply_format_;
};

}  // namespace pome
