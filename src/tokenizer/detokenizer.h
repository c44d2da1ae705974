// Runs the decoder steps of a tokenizer: from the texts of tokens to text.
//
// Most decoders treat tokens one by one; what each token gives is then worked out when the
// tokenizer is built, and text can be streamed. The others run on the whole list.
// Thread safety: immutable after creation.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tokenizer/pattern.h"
#include "tokenizer/tokenizer_steps.h"

namespace pome {

class Detokenizer {
 public:
  // `texts`: of the tokens, by id. Errors name the step as decoder[i]: kUnsupported (refusal
  // kRegex) for a pattern, kRange, kLimit.
  static Result<Detokenizer> create(const std::vector<DecoderStep>& steps,
                                    const std::vector<std::string_view>& texts);

  // What a token gives behind others; part of a character, or one byte of a byte token, as it is.
  std::string_view bytes(int32_t id) const {
    const auto i = static_cast<size_t>(id);
    return std::string_view(bytes_).substr(begins_[i], begins_[i + 1] - begins_[i]);
  }
  // Well-formed text of the tokens.
  std::string decode(const std::vector<int32_t>& ids,
                     const std::vector<std::string_view>& texts) const;

  // Decodes token by token. `at_start`: the first token begins a text.
  class Stream {
   public:
    Stream(const Detokenizer* detokenizer, bool at_start);
    std::string push(int32_t id, std::string_view text);
    std::string flush();

   private:
    void give_run(std::string& out);
    const Detokenizer* detokenizer_;
    bool first_;
    uint32_t strip_;                 // so many characters may still be dropped at the beginning
    std::string pending_;            // bytes of an incomplete character
    std::vector<std::string> held_;  // texts of all tokens, where the decoder needs them at once
  };
  // Whether push() gives text before flush() does.
  bool streams() const { return streams_; }

 private:
  struct Step {
    DecoderStep step;
    std::vector<Pattern> pattern;  // of Replace
  };
  template <typename T>
  bool is(size_t step) const;
  void plan();
  std::string token_alone(std::string_view text, bool first) const;
  static void run_step(const Step& step, std::vector<std::string>& tokens);
  std::string run_all(std::vector<std::string> tokens) const;

  std::vector<Step> steps_;
  // The plan of decoders that stream: `each_` steps on every token alone, then bytes (the
  // byte-level alphabet, or "<0x0A>" tokens), then characters dropped at the start of the text.
  bool streams_ = false, byte_level_ = false, byte_fallback_ = false;
  size_t each_ = 0;
  std::string strip_content_;
  uint32_t strip_count_ = 0;
  bool first_differs_ = false;

  std::string bytes_;  // of all tokens, one after the other
  std::vector<uint32_t> begins_;
  std::vector<bool> is_byte_;  // byte_fallback_: the token stands for a byte
};

}  // namespace pome
