// Conversation: who said what, and the edits that a chat makes to it. No model, no terminal.
//
// Thread safety: a value; one thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "tokenizer/chat_template.h"

namespace pome {

class Conversation {
 public:
  // The system message is the first one, or absent. Setting an empty text removes it.
  std::string_view system() const;
  void set_system(std::string text);

  void add_user(std::string text);
  void add_assistant(std::string text);
  // Removes what stands behind the last message of the user; false when there is no such message.
  bool take_back_answer();
  // Removes the last message of the user and all behind it; false when there is none.
  bool undo();
  void clear();  // all but the system message

  // The system message, if any, comes first.
  const std::vector<ChatMessage>& messages() const { return messages_; }
  size_t turns() const;  // messages of the user
  std::optional<std::string_view> last_user() const;

  // [{"role": "user", "content": "..."}, ...]
  Json to_json() const;
  // Such a list, or an object that has one under "messages". Roles: system (first only), user,
  // assistant. kType and kRange name the message; `name` is the file, for messages.
  static Result<Conversation> from_json(const Json& value, const std::string& name);

 private:
  bool has_system() const { return !messages_.empty() && messages_.front().role == "system"; }
  // Index of the last message of the user; messages_.size() when there is none.
  size_t last_user_index() const;

  std::vector<ChatMessage> messages_;
};

}  // namespace pome
