#include "engine/chat.h"

#include <algorithm>
#include <utility>

#include "tokenizer/stop_ids.h"

namespace pome {

namespace {

// Where turns begin: at each message of the user, and at the first message behind the system's.
std::vector<size_t> turn_starts(std::span<const ChatMessage> messages) {
  size_t head = 0;
  while (head < messages.size() && messages[head].role == "system") ++head;
  std::vector<size_t> starts;
  for (size_t i = head; i < messages.size(); ++i)
    if (i == head || messages[i].role == "user") starts.push_back(i);
  return starts;
}

}  // namespace

std::string_view ChatAnswer::finish_reason() const {
  return context_full() ? "length" : to_string(generation.finish_reason);
}

ChatSession::ChatSession(Runner* runner, std::shared_ptr<const Tokenizer> tokenizer,
                         std::shared_ptr<const ChatTemplate> chat_template)
    : runner_(runner), tokenizer_(std::move(tokenizer)), template_(std::move(chat_template)) {
  POME_CHECK(runner_ && tokenizer_ && template_);
  end_of_answer_ = find_stop_text(*tokenizer_, *template_);
  reply_format_ = ReplyFormat::of(*tokenizer_, *template_);
}

int64_t ChatSession::room_of(const ChatOptions& options, int64_t capacity) {
  if (options.room > 0) return options.room;
  return std::max<int64_t>(1, std::min(options.generate.max_tokens, capacity / 4));
}

Result<std::vector<int32_t>> ChatSession::encode(std::span<const ChatMessage> head,
                                                 std::span<const ChatMessage> rest) const {
  std::vector<ChatMessage> messages(head.begin(), head.end());
  messages.insert(messages.end(), rest.begin(), rest.end());
  POME_ASSIGN_OR_RETURN(const std::vector<TemplateSpan> spans,
                        template_->render(messages, true, tokenizer_->source()));
  return encode_spans(*tokenizer_, spans);
}

Result<ChatPrompt> ChatSession::prompt(std::span<const ChatMessage> messages,
                                       const ChatOptions& options) const {
  const std::vector<size_t> starts = turn_starts(messages);
  if (starts.empty()) return usage_error("there is no message to answer");
  const int64_t room = room_of(options, capacity());
  const auto head = messages.first(starts.front());
  const auto from_turn = [&](size_t turn) { return encode(head, messages.subspan(starts[turn])); };
  const auto over = [&](const std::vector<int32_t>& ids) {
    return static_cast<int64_t>(ids.size()) + room - capacity();
  };
  POME_ASSIGN_OR_RETURN(std::vector<int32_t> ids, from_turn(0));
  if (over(ids) <= 0) return ChatPrompt{std::move(ids), 0};
  size_t last = 0;
  if (options.drop_oldest && starts.size() > 1) {
    last = starts.size() - 1;
    POME_ASSIGN_OR_RETURN(ids, from_turn(last));
  }
  if (over(ids) > 0)
    return usage_error("the " +
                       std::string(starts.size() > 1 && last == 0 ? "conversation" : "message") +
                       (head.empty() ? "" : " with the system prompt") + " takes " +
                       std::to_string(ids.size()) + " tokens, " + std::to_string(over(ids)) +
                       " more than fit: the context holds " + std::to_string(capacity()) +
                       ", of which " + std::to_string(room) + " are kept for the answer")
        .hint("shorten it, allow fewer tokens for the answer, or use a larger --context");
  // Fewer turns make a shorter prompt: the first start that fits is found by halving.
  size_t too_long = 0, fits = last;
  while (fits - too_long > 1) {
    const size_t middle = too_long + (fits - too_long) / 2;
    POME_ASSIGN_OR_RETURN(std::vector<int32_t> shorter, from_turn(middle));
    if (over(shorter) > 0) {
      too_long = middle;
    } else {
      fits = middle;
      ids = std::move(shorter);
    }
  }
  return ChatPrompt{std::move(ids), fits};
}

Result<ChatAnswer> ChatSession::reply(std::span<const ChatMessage> messages,
                                      const ChatOptions& options, const TextCallback& on_text,
                                      const CancelToken* cancel) {
  ChatAnswer answer;
  POME_ASSIGN_OR_RETURN(answer.prompt, prompt(messages, options));
  const std::vector<int32_t>& ids = answer.prompt.ids;
  if (ids.empty()) return usage_error("the chat template wrote nothing");
  GenerateOptions generate_options = options.generate;
  generate_options.continues_text = false;
  generate_options.reply = reply_format_;
  if (!end_of_answer_.empty()) generate_options.stop.push_back(end_of_answer_);
  auto generated = generate(*runner_, tokenizer_, ids, generate_options, on_text, cancel);
  if (!generated.ok()) return std::move(generated).status();
  answer.generation = std::move(*generated);
  answer.reused_tokens = answer.generation.reused_tokens;
  return answer;
}

Status ChatSession::check_system_message() const {
  const std::string mark = "73797374656d";
  const auto spans =
      template_->render({{"system", mark}, {"user", "a"}}, true, tokenizer_->source());
  const auto refused = [](const std::string& why) {
    return unsupported("the chat template " + why).hint("say it in your first message instead");
  };
  if (!spans.ok())
    return refused("takes no system message: " + std::string(spans.status().message()));
  if (plain_text(*spans).find(mark) == std::string::npos)
    return refused("leaves a system message out");
  return {};
}

}  // namespace pome
