#include "tokenizer/reply_format.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace pome {
namespace {

// Words that no template writes.
constexpr std::string_view kAnswer = "4c6f72656d", kThought = "697073756d",
                           kArgument = "646f6c6f72";
constexpr std::string_view kSpace = " \t\r\n";

// Pairs of tags that are in use around what a model thinks.
constexpr std::string_view kTags[][2] = {
    {"<think>", "</think>"},
    {"[THINK]", "[/THINK]"},
    {"<seed:think>", "</seed:think>"},
    {"<|START_THINKING|>", "<|END_THINKING|>"},
};

std::optional<std::string> rendered(const ChatTemplate& chat_template,
                                    const TokenizerSource& source, Json reply,
                                    bool add_generation_prompt = false) {
  ChatInput input;
  input.messages = Json::array({{{"role", "user"}, {"content", "a"}}, std::move(reply)});
  input.add_generation_prompt = add_generation_prompt;
  input.now = 0;
  const auto spans = chat_template.render(input, source);
  if (!spans.ok()) return std::nullopt;
  return plain_text(*spans);
}

Json thoughtful_reply() {
  const std::string thought(kThought);
  return {{"role", "assistant"},
          {"content", std::string(kAnswer)},
          {"reasoning_content", thought},
          {"thinking", thought}};
}

Json calling_reply() {
  const Json function = {{"name", "f"}, {"arguments", {{"x", std::string(kArgument)}}}};
  return {{"role", "assistant"},
          {"content", ""},
          {"tool_calls",
           Json::array({{{"id", "000000001"}, {"type", "function"}, {"function", function}}})}};
}

int32_t special_behind(const TokenizerSource& source, const IsSpecial& special,
                       std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
  return special_beside(source, special, text, false);
}

bool is_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-';
}

// "CHANNEL name MESSAGE" at the end of the text, and what stands before it.
struct Header {
  int32_t channel = -1, message = -1;
  std::string name;
  std::string_view before;
};
std::optional<Header> header_before(const TokenizerSource& source, const IsSpecial& special,
                                    std::string_view text) {
  const auto cut = [&](int32_t id) {
    text.remove_suffix(source.tokens[static_cast<size_t>(id)].size());
  };
  Header out;
  out.message = special_beside(source, special, text, true);
  if (out.message < 0) return std::nullopt;
  cut(out.message);
  size_t begin = text.size();
  while (begin > 0 && is_name(text[begin - 1])) --begin;
  out.name = text.substr(begin);
  text = text.substr(0, begin);
  out.channel = special_beside(source, special, text, true);
  if (out.name.empty() || out.channel < 0) return std::nullopt;
  cut(out.channel);
  out.before = text;
  return out;
}

// Fills in the channels where both an answer and a thought stand in one, in different ones.
bool find_channels(const ChatTemplate& chat_template, const TokenizerSource& source,
                   const IsSpecial& special, ReplyFormat& format) {
  const auto text = rendered(chat_template, source, thoughtful_reply());
  if (!text) return false;
  const size_t answer = text->find(kAnswer), thought = text->find(kThought);
  if (answer == std::string::npos || thought == std::string::npos) return false;
  const std::string_view all(*text);
  const auto one = header_before(source, special, all.substr(0, answer));
  const auto other = header_before(source, special, all.substr(0, thought));
  if (!one || !other || one->channel != other->channel || one->message != other->message ||
      one->name == other->name) {
    return false;
  }
  format.layout = ReplyFormat::Layout::kChannels;
  format.channel = one->channel;
  format.message = one->message;
  format.answer_channel = one->name;
  format.thinking_channel = other->name;
  std::string_view role = one->before;
  while (!role.empty() && is_name(role.back())) role.remove_suffix(1);
  format.start = special_beside(source, special, role, true);
  return true;
}

bool find_tags(const TokenizerSource& source, ReplyFormat& format) {
  for (const auto& [open, close] : kTags) {
    const bool in_template = source.chat_template.find(close) != std::string::npos;
    const bool is_token =
        std::any_of(source.added.begin(), source.added.end(),
                    [close = close](const AddedToken& token) { return token.content == close; });
    if (!in_template && !is_token) continue;
    format.layout = ReplyFormat::Layout::kThinking;
    format.open_tag = open;
    format.close_tag = close;
    return true;
  }
  return false;
}

std::string trimmed(std::string text) {
  text.erase(text.find_last_not_of(kSpace) + 1);
  text.erase(0, std::min(text.find_first_not_of(kSpace), text.size()));
  return text;
}

// "to=name" among the words of a header; removes it.
std::string take_recipient(std::string& text) {
  const size_t at = text.find("to=");
  if (at == std::string::npos || (at > 0 && kSpace.find(text[at - 1]) == std::string_view::npos)) {
    return {};
  }
  const size_t end = std::min(text.find_first_of(kSpace, at), text.size());
  std::string out = text.substr(at + 3, end - at - 3);
  text.erase(at, end - at);
  return out;
}

// How much of the end of the text may be the beginning of the tag.
size_t open_end(const std::string& text, const std::string& tag) {
  for (size_t size = std::min(text.size(), tag.size() - 1); size > 0; --size) {
    if (text.compare(text.size() - size, size, tag, 0, size) == 0) return size;
  }
  return 0;
}

}  // namespace

ReplyFormat ReplyFormat::of(const Tokenizer& tokenizer, const ChatTemplate& chat_template) {
  ReplyFormat out;
  const IsSpecial special = [&](int32_t id) { return tokenizer.is_special(id); };
  if (!find_channels(chat_template, tokenizer.source(), special, out)) {
    find_tags(tokenizer.source(), out);
  }
  return out;
}

ReplyReader::ReplyReader(std::shared_ptr<const Tokenizer> tokenizer, ReplyFormat format,
                         std::span<const int32_t> prompt)
    : tokenizer_(std::move(tokenizer)), format_(std::move(format)), decoder_(tokenizer_) {
  if (format_.layout == ReplyFormat::Layout::kChannels) {
    // From the last marker on the prompt is read as a part of the reply.
    size_t from = prompt.size();
    while (from > 0 && !tokenizer_->is_special(prompt[from - 1])) --from;
    const int32_t last = from > 0 ? prompt[from - 1] : -1;
    if (last < 0) return;
    size_t begin = from - 1;
    while (last == format_.message && begin > 0 && prompt[begin] != format_.channel) --begin;
    std::vector<ReplyPart> dropped;
    for (size_t i = begin; i < prompt.size(); ++i) read_channels(prompt[i], dropped);
    any_body_ = false;
    of_prompt_ = header_.size() + channel_text_.size();
  } else if (format_.layout == ReplyFormat::Layout::kThinking) {
    constexpr size_t kTail = 64;
    const auto tail = prompt.last(std::min(prompt.size(), kTail));
    const auto text = tokenizer_->decode(tail, false);
    const std::string end = text.ok() ? trimmed(*text) : std::string();
    thinking_ = end.size() >= format_.open_tag.size() &&
                end.compare(end.size() - format_.open_tag.size(), format_.open_tag.size(),
                            format_.open_tag) == 0;
    at_start_ = !thinking_;
  }
}

void ReplyReader::emit(ReplyPart::Kind kind, std::string text, std::vector<ReplyPart>& out) const {
  if (text.empty()) return;
  if (!out.empty() && out.back().kind == kind && out.back().recipient == recipient_ &&
      out.back().channel == channel_) {
    out.back().text += text;
  } else {
    out.push_back({kind, channel_, recipient_, std::move(text)});
  }
}

// A header is complete: what kind of message comes?
void ReplyReader::begin_body() {
  recipient_ = take_recipient(channel_text_);
  if (recipient_.empty()) recipient_ = take_recipient(header_);
  channel_ = trimmed(channel_text_);
  channel_.resize(std::min(channel_.find_first_of(kSpace), channel_.size()));
  using Kind = ReplyPart::Kind;
  kind_ = !recipient_.empty()                    ? Kind::kToolCall
          : channel_ == format_.thinking_channel ? Kind::kThinking
          : channel_ == format_.answer_channel   ? Kind::kAnswer
          : channel_.empty()                     ? Kind::kAnswer
                                                 : Kind::kCommentary;
  header_.clear();
  channel_text_.clear();
  state_ = State::kBody;
  any_body_ = true;
}

void ReplyReader::read_channels(int32_t id, std::vector<ReplyPart>& out) {
  if (!tokenizer_->is_special(id)) {
    const std::string text = decoder_.push(id);
    if (state_ == State::kBody) return emit(kind_, text, out);
    (state_ == State::kHeader ? header_ : channel_text_) += text;
    return;
  }
  const std::string rest = decoder_.flush();  // a broken character does not reach over a marker
  if (state_ == State::kBody) {
    emit(kind_, rest, out);
    // Whatever marker comes, the message is over.
    state_ = id == format_.channel ? State::kChannel : State::kHeader;
    return;
  }
  if (id == format_.message) return begin_body();
  if (id == format_.channel) {
    state_ = State::kChannel;
  } else if (id == format_.start) {
    state_ = State::kHeader;
    header_.clear();
    channel_text_.clear();
    of_prompt_ = 0;
  } else {
    (state_ == State::kHeader ? header_ : channel_text_) += ' ';
  }
}

// Text of a reply with tags. What may be the beginning of a tag waits.
void ReplyReader::read_text(const std::string& piece, bool last, std::vector<ReplyPart>& out) {
  unread_ += piece;
  if (at_start_) {
    const size_t first = unread_.find_first_not_of(kSpace);
    if (first == std::string::npos && !last) return;
    const std::string_view rest = std::string_view(unread_).substr(std::min(first, unread_.size()));
    const std::string& open = format_.open_tag;
    if (!last && rest.size() < open.size() && open.compare(0, rest.size(), rest) == 0) return;
    at_start_ = false;
    if (rest.substr(0, open.size()) == open) {
      thinking_ = true;
      unread_ = std::string(rest.substr(open.size()));
    }
  }
  if (thinking_) {
    const size_t close = unread_.find(format_.close_tag);
    if (close == std::string::npos) {
      const size_t held = last ? 0 : open_end(unread_, format_.close_tag);
      emit(ReplyPart::Kind::kThinking, unread_.substr(0, unread_.size() - held), out);
      unread_.erase(0, unread_.size() - held);
      return;
    }
    emit(ReplyPart::Kind::kThinking, unread_.substr(0, close), out);
    unread_.erase(0, close + format_.close_tag.size());
    thinking_ = false;
    trims_ = true;  // blank lines between the tag and the answer
  }
  if (trims_) {
    unread_.erase(0, std::min(unread_.find_first_not_of(kSpace), unread_.size()));
    trims_ = unread_.empty();
  }
  emit(ReplyPart::Kind::kAnswer, std::exchange(unread_, {}), out);
}

std::vector<ReplyPart> ReplyReader::push(int32_t id) {
  std::vector<ReplyPart> out;
  switch (format_.layout) {
    case ReplyFormat::Layout::kPlain:
      emit(ReplyPart::Kind::kAnswer, decoder_.push(id), out);
      break;
    case ReplyFormat::Layout::kChannels:
      read_channels(id, out);
      break;
    case ReplyFormat::Layout::kThinking: {
      std::string text = decoder_.push(id);
      if (tokenizer_->is_special(id)) {
        const std::string_view token = tokenizer_->token_bytes(id);
        if (token == format_.open_tag || token == format_.close_tag) text += token;
      }
      read_text(text, false, out);
      break;
    }
  }
  return out;
}

std::vector<ReplyPart> ReplyReader::flush() {
  std::vector<ReplyPart> out;
  const std::string rest = decoder_.flush();
  if (format_.layout == ReplyFormat::Layout::kThinking) {
    read_text(rest, true, out);
  } else if (format_.layout == ReplyFormat::Layout::kPlain || state_ == State::kBody) {
    emit(kind_, rest, out);
  } else if (!any_body_) {
    const std::string text = header_ + channel_text_ + rest;
    emit(ReplyPart::Kind::kAnswer, trimmed(text.substr(std::min(of_prompt_, text.size()))), out);
  }
  return out;
}

TemplateEnds template_ends(const ChatTemplate& chat_template, const TokenizerSource& source,
                           const std::vector<bool>& special) {
  TemplateEnds out;
  const IsSpecial is_special = [&](int32_t id) { return special[static_cast<size_t>(id)]; };
  const auto last_special = [&](std::string_view text) {
    text.remove_suffix(text.size() - (text.find_last_not_of(kSpace) + 1));
    return special_beside(source, is_special, text, true);
  };
  const auto behind = [&](std::string_view text, size_t at, std::string_view word) {
    return special_behind(source, is_special, text.substr(at + word.size()));
  };
  const auto end_with = [&](int32_t id) {
    if (id >= 0) out.turn.push_back(id);
  };
  if (const auto text = rendered(chat_template, source, thoughtful_reply())) {
    const size_t answer = text->rfind(kAnswer), thought = text->find(kThought);
    if (answer != std::string::npos) {
      const int32_t end = behind(*text, answer, kAnswer);
      const int32_t inner = thought < answer ? behind(*text, thought, kThought) : -1;
      // One token may close the parts of a reply, and another the reply.
      const int32_t last = inner >= 0 && inner == end ? last_special(*text) : end;
      end_with(last);
      if (inner >= 0 && inner != last) out.inner.push_back(inner);
    }
  }
  // A template that always opens the next turn does not show where a call ends.
  const auto call = rendered(chat_template, source, calling_reply());
  if (call && call->find(kArgument) != std::string::npos &&
      call != rendered(chat_template, source, calling_reply(), true)) {
    end_with(last_special(*call));
  }
  return out;
}

int32_t special_beside(const TokenizerSource& source, const IsSpecial& special,
                       std::string_view text, bool at_end) {
  int32_t best = -1;
  size_t length = 0;
  for (size_t id = 0; id < source.tokens.size(); ++id) {
    const std::string& token = source.tokens[id];
    if (token.size() <= length || token.size() > text.size()) continue;
    const size_t at = at_end ? text.size() - token.size() : 0;
    if (text.compare(at, token.size(), token) != 0 || !special(static_cast<int32_t>(id))) continue;
    best = static_cast<int32_t>(id);
    length = token.size();
  }
  return best;
}

}  // namespace pome
