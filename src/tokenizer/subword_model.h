// SubwordModel: turns one piece of pre-tokenised text into ids. One implementation per kind of
// tokenizer; the tokenizer around it does special tokens, spaces and pieces.
//
// Thread safety: immutable; each thread brings its own Scratch.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tokenizer/merge_table.h"
#include "tokenizer/tokenizer_source.h"

namespace pome {

class Vocabulary;

class SubwordModel {
 public:
  // The best way to a place in a text: its score and the token that ends there.
  struct PathNode {
    double score = 0;
    int32_t id = 0;
    uint32_t size = 0;  // of that token in bytes; 0: no way yet
  };
  struct Scratch {
    std::vector<int32_t> ids;
    std::vector<uint32_t> starts;
    std::vector<PathNode> path;
    MergeTable::Scratch merging;
  };
  virtual ~SubwordModel() = default;
  // Appends the ids of `piece` (at most 2^31 - 1 bytes) to out.
  virtual void encode(std::string_view piece, Scratch& scratch,
                      std::vector<int32_t>& out) const = 0;
  // A place behind `at` (< piece.size()) at which the piece can be cut without changing its ids, or
  // its end. Long texts are encoded part by part then.
  virtual size_t next_cut(std::string_view piece, size_t /*at*/) const { return piece.size(); }
};

// `text_of_user[id]`: whether ordinary text may become this token; control tokens, placeholders and
// unused ids may not, whatever the merges say. Sources have been checked (see Tokenizer::create);
// source and vocabulary outlive the model. BPE over the bytes of the text, for sources whose tokens
// are written in the byte-level alphabet: by rank of `merges`, else by score. A byte without a
// token becomes `unknown`, or nothing where there is none.
Result<std::unique_ptr<SubwordModel>> make_byte_bpe(const TokenizerSource& source,
                                                    const Vocabulary& vocabulary,
                                                    const std::vector<bool>& text_of_user);
// BPE over the characters of the text, likewise. Characters without a token become byte tokens
// where the vocabulary has them, else `unknown`.
Result<std::unique_ptr<SubwordModel>> make_char_bpe(const TokenizerSource& source,
                                                    const Vocabulary& vocabulary,
                                                    const std::vector<bool>& text_of_user);
// Pieces are tokens, or else `unknown`.
Result<std::unique_ptr<SubwordModel>> make_word_level(const TokenizerSource& source,
                                                      const Vocabulary& vocabulary,
                                                      const std::vector<bool>& text_of_user);
// Unigram language model (Kudo 2018): of all ways to write the piece with tokens the one whose
// scores sum up highest, of equals the one that the references find first. A character that is no
// token costs 10 more than the worst token; runs of them are one unknown token or byte tokens.
// Linear time: no token has more than 1024 bytes.
Result<std::unique_ptr<SubwordModel>> make_unigram(const TokenizerSource& source,
                                                   const std::vector<bool>& text_of_user);
// WordPiece: again and again the longest token that the rest of the piece begins with, where all
// but the first carry continuing_subword_prefix; pieces that have no such way, and those of more
// than max_input_chars_per_word characters, are one unknown token.
Result<std::unique_ptr<SubwordModel>> make_wordpiece(const TokenizerSource& source,
                                                     const std::vector<bool>& text_of_user);

}  // namespace pome
