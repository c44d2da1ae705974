// What a tokenizer is made of, free of any file format: formats fill it (tokenizer.json, GGUF
// metadata), the tokenizer module builds from it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tokenizer/tokenizer_steps.h"

namespace pome {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special =
      false;  // control token: only recognised in template text, never in what a user typed
  bool lstrip = false, rstrip = false, normalized = false, single_word = false;
};

enum class TokenKind : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

struct TokenizerSource {
  enum class Model : uint8_t {
    kNone,
    kBpe,  // by rank of `merges`; without merges but with scores: pairs whose joined text is a
           // token, the highest score first (SentencePiece BPE, tiktoken)
    kUnigram,
    kWordPiece,
    kWordLevel
  };
  Model model = Model::kNone;
  std::string origin;               // file it came from, for messages
  std::vector<std::string> tokens;  // by id, as stored (byte-level text, U+2581 pieces, "##s")
  std::vector<double> scores;       // by id: unigram, and BPE without merges; empty otherwise
  std::vector<TokenKind> kinds;     // empty = all normal
  std::vector<std::pair<std::string, std::string>> merges;  // BPE, by rank
  std::vector<AddedToken> added;
  // BPE and unigram: characters without a token become tokens "<0x0A>", where all their bytes have
  // one.
  bool byte_fallback = false;
  bool fuse_unknown = false;   // BPE and unigram: one unknown token for several such characters
  bool ignore_merges = false;  // BPE: a piece that is a token needs no merging
  // As in the sentencepiece library: user-defined tokens are taken whole wherever they stand, and
  // sums of unigram scores are kept as float. Else as in Hugging Face's.
  bool as_sentencepiece = false;
  std::string continuing_subword_prefix;    // WordPiece ("##"), BPE
  std::string end_of_word_suffix;           // BPE ("</w>" of CLIP)
  uint32_t max_input_chars_per_word = 100;  // WordPiece: longer words are unknown

  // From text to the pieces that the model sees, and back, each in order.
  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> pre_tokenizer;
  std::vector<DecoderStep> decoder;  // empty: the texts of the tokens put together
  // What encoding puts around a text when special tokens are asked for.
  std::vector<int32_t> prefix_ids, suffix_ids;

  std::optional<int32_t> bos, eos, unknown, padding, end_of_turn, end_of_message;
  std::string bos_text, eos_text;  // as templates see them
  std::string chat_template;       // Jinja source, empty when there is none
  // Token ids that end a turn, from config.json and generation_config.json (or GGUF eos/eot/eom).
  std::vector<int32_t> stop_ids;

  bool add_bos() const { return bos && !prefix_ids.empty() && prefix_ids.front() == *bos; }
  bool add_eos() const { return eos && !suffix_ids.empty() && suffix_ids.back() == *eos; }
};

}  // namespace pome
