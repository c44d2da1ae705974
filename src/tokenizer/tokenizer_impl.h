// What a Tokenizer holds. Private to the module.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/added_split.h"
#include "tokenizer/detokenizer.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/subword_model.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocabulary.h"

namespace pome {

struct Tokenizer::Impl {
  struct Call;
  class CallPool;
  Impl();
  ~Impl();

  TokenizerSource source;
  Vocabulary vocabulary;
  NormalizerChain normalizer;
  PreTokenizer pre_tokenizer;
  std::unique_ptr<SubwordModel> model;
  AddedGroup raw, normalized;  // looked for before and after normalising
  Detokenizer detokenizer;
  std::vector<bool> special;
  std::vector<std::string> normal_texts;
  std::vector<std::string_view> texts;  // what decoding begins with, by id
  std::vector<int32_t> stop_ids;
  std::unique_ptr<CallPool> pool;

  void find_special();
  void group_added();
  Status make_model();
  void encode_segment(std::string_view text, size_t offset, std::span<const TextRange> user_text,
                      bool parse_special, Call& call) const;
  void encode_text(std::string_view text, bool at_start, Call& call) const;
  void encode_piece(std::string_view piece, size_t readable, Call& call) const;
  void encode_long_piece(std::string_view piece, Call& call) const;
  void encode_waiting(Call& call) const;
};

}  // namespace pome
