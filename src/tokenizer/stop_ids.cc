#include "tokenizer/stop_ids.h"

#include <algorithm>
#include <string>

#include "tokenizer/chat_template.h"
#include "tokenizer/reply_format.h"

namespace pome {
namespace {

constexpr std::string_view kAnswer = "4c6f72656d", kNext = "697073756d";
constexpr std::string_view kSpace = " \t\r\n";

// What the template writes behind an answer, without leading white space: up to the end, or, with
// `go_on`, up to what the user says next.
std::string behind_answer(const ChatTemplate& chat_template, const TokenizerSource& source,
                          bool go_on) {
  std::vector<ChatMessage> messages = {{"user", "a"}, {"assistant", std::string(kAnswer)}};
  if (go_on) messages.push_back({"user", std::string(kNext)});
  const auto spans = chat_template.render(messages, false, source);
  if (!spans.ok()) return {};
  const std::string text = plain_text(*spans);
  const size_t found = text.rfind(kAnswer);
  if (found == std::string::npos) return {};
  const size_t begin = text.find_first_not_of(kSpace, found + kAnswer.size());
  const size_t end = go_on ? text.find(kNext, found) : text.size();
  return begin == std::string::npos || begin >= end ? "" : text.substr(begin, end - begin);
}

}  // namespace

std::vector<int32_t> find_stop_ids(const TokenizerSource& source,
                                   const std::vector<bool>& special) {
  std::vector<int32_t> ids = source.stop_ids;
  for (const auto& id : {source.eos, source.end_of_turn, source.end_of_message}) {
    if (id) ids.push_back(*id);
  }
  if (!source.chat_template.empty()) {
    const auto chat_template = ChatTemplate::parse(source.chat_template);
    if (chat_template.ok()) {
      const TemplateEnds ends = template_ends(**chat_template, source, special);
      ids.insert(ids.end(), ends.turn.begin(), ends.turn.end());
      std::erase_if(ids, [&](int32_t id) {
        return std::find(ends.inner.begin(), ends.inner.end(), id) != ends.inner.end();
      });
    }
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

std::string find_stop_text(const Tokenizer& tokenizer, const ChatTemplate& chat_template) {
  const TokenizerSource& source = tokenizer.source();
  std::string text = behind_answer(chat_template, source, false);
  if (text.empty()) text = behind_answer(chat_template, source, true);
  const IsSpecial special = [&](int32_t id) { return tokenizer.is_special(id); };
  if (special_beside(source, special, text, false) >= 0) return {};
  text.resize(std::min(text.size(), text.find('\n')));
  text.resize(text.find_last_not_of(kSpace) + 1);
  return text;
}

}  // namespace pome
