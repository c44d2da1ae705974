// Tokenizer: text <-> ids. Immutable after construction and shareable between threads.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tokenizer/tokenizer_source.h"

namespace pome {

struct EncodeOptions {
  bool add_special = true;  // BOS / EOS where the tokenizer puts them
  bool parse_special =
      true;  // recognise special tokens in the text (never for text that a user typed into a chat)
};

// A half-open range of bytes of a text.
struct TextRange {
  size_t begin = 0, end = 0;
};

class Tokenizer {
 public:
  // kRange, kDup, kUnsupported ... name the field of the source that is wrong.
  static Result<std::shared_ptr<const Tokenizer>> create(TokenizerSource source);
  ~Tokenizer();

  // Any bytes are accepted; broken UTF-8 becomes byte tokens or U+FFFD as the model's own tokenizer
  // does. Linear time.
  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const;
  // The same for a text of which some ranges (sorted, not overlapping) came from a user: no special
  // token is recognised that touches them. All else is as if the text were of one piece.
  std::vector<int32_t> encode_with_user_text(std::string_view text,
                                             std::span<const TextRange> user_text,
                                             const EncodeOptions& options = {}) const;
  // Concatenated text of the ids; `skip_special` leaves control tokens out. kRange for an id
  // outside the vocabulary.
  Result<std::string> decode(std::span<const int32_t> ids, bool skip_special = true) const;
  // Raw bytes of one token as they appear in the middle of a text (may be part of a character).
  std::string_view token_bytes(int32_t id) const;
  bool is_special(int32_t id) const;

  int32_t vocab_size() const;
  const TokenizerSource& source() const;
  // Ids that end a generation: of configs and generation config, of the template's end-of-turn
  // token, and EOS.
  std::span<const int32_t> stop_ids() const;
  // SHA-256 (hex) over everything that changes ids or text: the tokenizer digest of manifests.
  std::string digest() const;

 private:
  friend class StreamDecoder;
  Tokenizer();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Turns a stream of ids into text pieces that never end inside a UTF-8 character. flush() gives
// what is left, with U+FFFD for an incomplete character. The pieces of all ids put together are
// decode() of them, but for runs of byte tokens that are not UTF-8: decode() gives U+FFFD for each
// token of such a run, the stream has given its characters by then. `at_start`: the ids begin a
// text; without it the space that SentencePiece puts before the first word is kept, as when a
// prompt is continued. Decoders that look at tokens together (docs/tokenizers.md) give all text
// with flush(). Ids outside the vocabulary give nothing. Thread safety: one thread.
class StreamDecoder {
 public:
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special = true,
                         bool at_start = true);
  ~StreamDecoder();
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;
  std::string push(int32_t id);
  std::string flush();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pome
