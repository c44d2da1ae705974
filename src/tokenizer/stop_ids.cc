#include "tokenizer/stop_ids.h"

#include <algorithm>
#include <optional>
#include <string>

#include "tokenizer/chat_template.h"
#include "tokenizer/reply_format.h"

namespace pome {
namespace {

std::optional<int32_t> token_behind_answer(const TokenizerSource& source,
                                           const std::vector<bool>& special) {
  if (source.chat_template.empty()) return std::nullopt;
  const auto chat_template = ChatTemplate::parse(source.chat_template);
  if (!chat_template.ok()) return std::nullopt;
  const std::string answer = "4c6f72656d";
  const auto spans =
      (*chat_template)->render({{"user", "a"}, {"assistant", answer}}, false, source);
  if (!spans.ok()) return std::nullopt;
  const std::string text = plain_text(*spans);
  const size_t found = text.rfind(answer);
  if (found == std::string::npos) return std::nullopt;
  const size_t at = text.find_first_not_of(" \n", found + answer.size());
  if (at == std::string::npos) return std::nullopt;
  std::optional<int32_t> best;
  size_t length = 0;
  for (size_t id = 0; id < special.size(); ++id) {
    const std::string& token = source.tokens[id];
    if (special[id] && token.size() > length && text.compare(at, token.size(), token) == 0) {
      best = static_cast<int32_t>(id);
      length = token.size();
    }
  }
  return best;
}

}  // namespace

std::vector<int32_t> find_stop_ids(const TokenizerSource& source,
                                   const std::vector<bool>& special) {
  std::vector<int32_t> ids = source.stop_ids;
  for (const auto& id : {source.eos, source.end_of_turn, source.end_of_message,
                         token_behind_answer(source, special)}) {
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

}  // namespace pome
