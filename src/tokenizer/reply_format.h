// How the replies of a model are laid out, told from the markers of its chat template, and a reader
// that takes a reply apart: what is the answer, what the model thought, what it wants a tool to do.
//
// Two layouts are known. Channels: each message of a reply has a header,
//
//   START role to=recipient CHANNEL name MESSAGE text END
//
// where the capitals are special tokens; the template shows which, and in which channel the answer
// stands. Thinking: the text between two tags (such as <think> and </think>) at the beginning of
// the reply is no part of the answer.
//
// Thread safety: a ReplyFormat is a value; a ReplyReader belongs to one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer.h"

namespace pome {

struct ReplyFormat {
  enum class Layout : uint8_t { kPlain, kChannels, kThinking };
  Layout layout = Layout::kPlain;
  // Channels: ids of the markers (start is -1 where the template has none), and names.
  int32_t start = -1, channel = -1, message = -1;
  std::string answer_channel, thinking_channel;
  std::string open_tag, close_tag;  // thinking

  // Plain where nothing else is recognised.
  static ReplyFormat of(const Tokenizer& tokenizer, const ChatTemplate& chat_template);
};

struct ReplyPart {
  enum class Kind : uint8_t { kAnswer, kThinking, kToolCall, kCommentary };
  Kind kind = Kind::kAnswer;
  std::string channel;    // as the model named it; empty outside of channels
  std::string recipient;  // of a tool call
  std::string text;       // goes on where the part before ended, when the rest is the same
};

class ReplyReader {
 public:
  // `prompt` is what the reply goes on from: it may end inside a header or inside of thinking.
  ReplyReader(std::shared_ptr<const Tokenizer> tokenizer, ReplyFormat format,
              std::span<const int32_t> prompt);
  // What one more id adds. Text never ends inside a UTF-8 character.
  std::vector<ReplyPart> push(int32_t id);
  // What is left when the reply is over. A reply that never came to a message was all answer.
  std::vector<ReplyPart> flush();

 private:
  enum class State : uint8_t { kHeader, kChannel, kBody };
  void read_channels(int32_t id, std::vector<ReplyPart>& out);
  void read_text(const std::string& piece, bool last, std::vector<ReplyPart>& out);
  void begin_body();
  void emit(ReplyPart::Kind kind, std::string text, std::vector<ReplyPart>& out) const;

  std::shared_ptr<const Tokenizer> tokenizer_;
  ReplyFormat format_;
  StreamDecoder decoder_;
  State state_ = State::kHeader;
  std::string header_, channel_text_, unread_;
  size_t of_prompt_ = 0;  // bytes of the header that the prompt gave
  std::string channel_, recipient_;
  ReplyPart::Kind kind_ = ReplyPart::Kind::kAnswer;
  bool any_body_ = false;
  bool thinking_ = false, at_start_ = true, trims_ = false;
};

// Special tokens that end things under a template.
struct TemplateEnds {
  std::vector<int32_t> turn;   // a reply: behind an answer, behind a call of a tool
  std::vector<int32_t> inner;  // a part of a reply, with more to come: these end no generation
};
TemplateEnds template_ends(const ChatTemplate& chat_template, const TokenizerSource& source,
                           const std::vector<bool>& special);

using IsSpecial = std::function<bool(int32_t id)>;
// The longest special token that begins (or ends, `at_end`) the text; -1 for none.
int32_t special_beside(const TokenizerSource& source, const IsSpecial& special,
                       std::string_view text, bool at_end);

}  // namespace pome
