// Source of the rules: the conversation protocol of mlc-ai/mlc-llm, revision 79d603f0.
#include "pipeline/mlc_conversation.h"

#include <algorithm>
#include <optional>

#include "tokenizer/chat_template.h"
#include "tokenizer/stop_ids.h"

namespace pome {

namespace {

constexpr const char* kSystem = "{system_message}";
// Words that no template has of its own.
constexpr const char* kRules = "Qsystemwords";
constexpr const char* kFirst = "Qfirstwords";
constexpr const char* kReply = "Qreplywords";
constexpr const char* kSecond = "Qsecondwords";

using Messages = std::vector<std::pair<std::string, std::string>>;

std::string replaced(std::string text, const std::string& what, const std::string& with) {
  const size_t at = text.find(what);
  return at == std::string::npos ? text : text.replace(at, what.size(), with);
}

std::string common_end(const std::string& a, const std::string& b) {
  size_t count = 0;
  while (count < std::min(a.size(), b.size()) && a[a.size() - 1 - count] == b[b.size() - 1 - count])
    ++count;
  // Not into the middle of a character.
  while (count > 0 && (static_cast<unsigned char>(a[a.size() - count]) & 0xC0) == 0x80) --count;
  return a.substr(a.size() - count);
}

class Renderer {
 public:
  Renderer(const TokenizerSource& source, const ChatTemplate& chat)
      : source_(source), chat_(chat) {}

  // nullopt where the template refuses such a conversation.
  std::optional<std::string> operator()(const Messages& messages) const {
    std::vector<ChatMessage> list;
    for (const auto& [role, content] : messages) list.push_back({role, content});
    const auto spans = chat_.render(list, true, source_);
    if (!spans.ok()) return std::nullopt;
    std::string text = plain_text(*spans);
    if (!source_.bos_text.empty() && text.starts_with(source_.bos_text))
      text = text.substr(source_.bos_text.size());
    return text;
  }
  bool begins_with_bos() const {
    const auto spans = chat_.render({{"user", kFirst}}, true, source_);
    return spans.ok() && !source_.bos_text.empty() &&
           plain_text(*spans).starts_with(source_.bos_text);
  }

 private:
  const TokenizerSource& source_;
  const ChatTemplate& chat_;
};

// The texts between the words, where each stands once and in order.
std::optional<std::vector<std::string>> cut(const std::string& text,
                                            const std::vector<std::string>& words) {
  std::vector<std::string> out;
  size_t from = 0;
  for (const std::string& word : words) {
    const size_t at = text.find(word, from);
    if (at == std::string::npos) return std::nullopt;
    out.push_back(text.substr(from, at - from));
    from = at + word.size();
  }
  out.push_back(text.substr(from));
  return out;
}

Json plain_conversation() {
  return {{"name", "LM"},
          {"system_template", kSystem},
          {"system_message", ""},
          {"add_role_after_system_message", true},
          {"roles", {{"user", ""}, {"assistant", ""}, {"tool", ""}}},
          {"role_templates",
           {{"user", "{user_message}"},
            {"assistant", "{assistant_message}"},
            {"tool", "{tool_message}"}}},
          {"messages", Json::array()},
          {"seps", {""}},
          {"role_content_sep", ""},
          {"role_empty_sep", ""},
          {"stop_str", Json::array()},
          {"stop_token_ids", Json::array()},
          {"function_string", ""},
          {"use_function_calling", false}};
}

// Fills the roles from what stands between messages. False: MLC has no words for it.
bool set_roles(const std::vector<std::string>& pieces, Json* out) {
  const std::string &head = pieces[0], &to_reply = pieces[1], &to_user = pieces[2],
                    &to_open = pieces[3];
  std::string user = common_end(head, to_user), reply = to_reply, behind_role, behind_open;
  if (to_open.starts_with(to_reply)) {
    behind_open = to_open.substr(to_reply.size());
  } else if (to_reply.starts_with(to_open)) {
    // Every role is followed by it, also that of the user.
    behind_role = to_reply.substr(to_open.size());
    if (!user.ends_with(behind_role)) return false;
    user.resize(user.size() - behind_role.size());
    reply = to_open;
  } else {
    return false;
  }
  (*out)["name"] = "custom";
  (*out)["roles"] = {{"user", user}, {"assistant", reply}, {"tool", user}};
  (*out)["role_content_sep"] = behind_role;
  (*out)["role_empty_sep"] = behind_open;
  (*out)["seps"] = {"", to_user.substr(0, to_user.size() - user.size() - behind_role.size())};
  return true;
}

// What comes before the first message, without words of the system and with them.
void set_system(const std::string& head, const std::optional<std::vector<std::string>>& ruled,
                const std::string& user, Json* out, std::vector<std::string>* notes) {
  const std::string before = head.substr(0, head.size() - user.size());
  std::string first, last;
  bool known = ruled && (*ruled)[1].ends_with(user);
  if (known) {
    first = (*ruled)[0];
    last = (*ruled)[1].substr(0, (*ruled)[1].size() - user.size());
    // What stands there without any system message must be one that stands between the same.
    const bool fits = before.size() >= first.size() + last.size() && before.starts_with(first) &&
                      before.ends_with(last);
    if (fits) {
      (*out)["system_template"] = first + kSystem + last;
      (*out)["system_message"] =
          before.substr(first.size(), before.size() - first.size() - last.size());
      return;
    }
  }
  (*out)["system_template"] = before + kSystem;
  if (!ruled) return;
  notes->push_back(known ? "MLC's template has no text around a system message when most chats are "
                           "without one: give it as " +
                               dump_json(Json(first + "TEXT" + last))
                         : "MLC's template puts a system message in front of the first message as "
                           "it is, which is not how this model's template does it");
}

}  // namespace

std::string mlc_prompt(const Json& c, const Messages& messages) {
  std::string rules = c["system_message"].get<std::string>();
  for (const auto& [role, content] : messages)
    if (role == "system") rules = content;
  std::string out = replaced(c["system_template"].get<std::string>(), kSystem, rules);
  const auto role_text = [&](const std::string& role) {
    return c["roles"][role].get<std::string>();
  };
  for (const auto& [role, content] : messages) {
    if (role == "system") continue;
    const size_t sep = role == "assistant" ? 1 % c["seps"].size() : 0;
    out += role_text(role) + c["role_content_sep"].get<std::string>();
    out +=
        replaced(c["role_templates"][role].get<std::string>(), "{" + role + "_message}", content);
    out += c["seps"][sep].get<std::string>();
  }
  return out + role_text("assistant") + c["role_empty_sep"].get<std::string>();
}

Json mlc_conversation(const Tokenizer& tokenizer, std::vector<std::string>* notes) {
  const TokenizerSource& source = tokenizer.source();
  Json out = plain_conversation();
  out["stop_token_ids"] =
      std::vector<int32_t>(tokenizer.stop_ids().begin(), tokenizer.stop_ids().end());
  bool begins = source.add_bos();
  const auto chat =
      source.chat_template.empty()
          ? Result<std::shared_ptr<const ChatTemplate>>(std::shared_ptr<const ChatTemplate>())
          : ChatTemplate::parse(source.chat_template);
  if (chat.ok() && *chat) {
    const Renderer render(source, **chat);
    begins = begins || render.begins_with_bos();
    const Messages talk = {{"user", kFirst}, {"assistant", kReply}, {"user", kSecond}};
    const auto text = render(talk);
    const auto pieces = text ? cut(*text, {kFirst, kReply, kSecond}) : std::nullopt;
    if (pieces && set_roles(*pieces, &out)) {
      const auto ruled_text = render({{"system", kRules}, {"user", kFirst}});
      const auto ruled = ruled_text ? cut(*ruled_text, {kRules, kFirst}) : std::nullopt;
      const std::string user =
          out["roles"]["user"].get<std::string>() + out["role_content_sep"].get<std::string>();
      set_system((*pieces)[0], ruled, user, &out, notes);
      if (mlc_prompt(out, talk) != *text)
        notes->push_back(
            "MLC's template cannot say this model's chat template exactly: prompts "
            "differ from those of the model");
    } else {
      notes->push_back(
          "MLC's template cannot say this model's chat template: write conv_template "
          "in mlc-chat-config.json by hand");
    }
    const std::string stop = find_stop_text(tokenizer, **chat);
    if (!stop.empty()) out["stop_str"].push_back(stop);
  }
  if (begins && source.bos) out["system_prefix_token_ids"] = {*source.bos};
  return out;
}

Json mlc_tokenizer_info(const TokenizerSource& source) {
  bool bytes = false, prepends = false, strips = false;
  for (const DecoderStep& step : source.decoder) {
    bytes = bytes || std::holds_alternative<decoder::ByteLevel>(step);
    if (const auto* strip = std::get_if<decoder::Strip>(&step))
      strips = strips || (strip->start > 0 && strip->content == " ");
    if (const auto* space = std::get_if<decoder::Metaspace>(&step))
      strips = strips || space->drop_in_first;
  }
  for (const NormalizerStep& step : source.normalizer) {
    if (const auto* prepend = std::get_if<normalizer::Prepend>(&step))
      prepends = prepends || prepend->text == "\xE2\x96\x81";
    if (const auto* whole = std::get_if<normalizer::SentencePiece>(&step))
      prepends = prepends || whole->add_dummy_prefix;
  }
  return {{"token_postproc_method", bytes ? "byte_level" : "byte_fallback"},
          {"prepend_space_in_encode", prepends},
          {"strip_space_in_decode", strips}};
}

}  // namespace pome
