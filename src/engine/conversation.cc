#include "engine/conversation.h"

#include <algorithm>
#include <utility>

namespace pome {

std::string_view Conversation::system() const {
  return has_system() ? std::string_view(messages_.front().content) : std::string_view();
}

void Conversation::set_system(std::string text) {
  if (has_system()) messages_.erase(messages_.begin());
  if (!text.empty()) messages_.insert(messages_.begin(), ChatMessage{"system", std::move(text)});
}

void Conversation::add_user(std::string text) { messages_.push_back({"user", std::move(text)}); }
void Conversation::add_assistant(std::string text) {
  messages_.push_back({"assistant", std::move(text)});
}

size_t Conversation::last_user_index() const {
  for (size_t i = messages_.size(); i-- > 0;)
    if (messages_[i].role == "user") return i;
  return messages_.size();
}

bool Conversation::take_back_answer() {
  const size_t last = last_user_index();
  if (last == messages_.size()) return false;
  messages_.resize(last + 1);
  return true;
}

bool Conversation::undo() {
  const size_t last = last_user_index();
  if (last == messages_.size()) return false;
  messages_.resize(last);
  return true;
}

void Conversation::clear() { messages_.resize(has_system() ? 1 : 0); }

size_t Conversation::turns() const {
  return static_cast<size_t>(
      std::count_if(messages_.begin(), messages_.end(),
                    [](const ChatMessage& message) { return message.role == "user"; }));
}

std::optional<std::string_view> Conversation::last_user() const {
  const size_t last = last_user_index();
  if (last == messages_.size()) return std::nullopt;
  return messages_[last].content;
}

Json Conversation::to_json() const {
  Json out = Json::array();
  for (const ChatMessage& message : messages_)
    out.push_back({{"role", message.role}, {"content", message.content}});
  return out;
}

Result<Conversation> Conversation::from_json(const Json& value, const std::string& name) {
  const Json* list = &value;
  std::string path;
  if (value.is_object() && value.contains("messages")) {
    list = &value["messages"];
    path = "/messages";
  }
  if (!list->is_array())
    return bad_input(Refusal::kType, "expected a list of messages").in(name).at(path);
  Conversation out;
  for (size_t i = 0; i < list->size(); ++i) {
    const Json& message = (*list)[i];
    const std::string at = path + "/" + std::to_string(i);
    for (const char* key : {"role", "content"})
      if (!message.is_object() || !message.contains(key) || !message[key].is_string())
        return bad_input(Refusal::kType,
                         "expected an object with texts \"role\" and \"content\"; \"" +
                             std::string(key) + "\" is not there or no text")
            .in(name)
            .at(at);
    const std::string role = message["role"];
    if (role != "user" && role != "assistant" && role != "system")
      return bad_input(Refusal::kRange, "the role '" + escape_for_terminal(role, 64) +
                                            "' is none of system, user, assistant")
          .in(name)
          .at(at);
    if (role == "system" && i != 0)
      return bad_input(Refusal::kRange, "a system message must be the first").in(name).at(at);
    out.messages_.push_back({role, message["content"]});
  }
  return out;
}

}  // namespace pome
