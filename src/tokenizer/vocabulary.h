// Text of a token -> id, and the merges of a source as ids.
//
// Thread safety: immutable after construction.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tokenizer/merge_table.h"
#include "tokenizer/text_table.h"
#include "tokenizer/tokenizer_source.h"

namespace pome {

class Vocabulary {
 public:
  Vocabulary() = default;
  // All tokens but empty and unused ones. kDup names a text that is there twice. The tokens of the
  // source must outlive the vocabulary and stay where they are.
  static Result<Vocabulary> create(const TokenizerSource& source);
  int32_t find(std::string_view text) const {  // -1: none
    return table_.find(text, TextOf{tokens_});
  }
  // The same for tokens with included[id] only.
  int32_t find(std::string_view text, const std::vector<bool>& included) const {
    const int32_t id = find(text);
    return id >= 0 && included[static_cast<size_t>(id)] ? id : -1;
  }

 private:
  struct TextOf {
    const std::vector<std::string>* tokens;
    std::string_view operator()(int32_t id) const { return (*tokens)[static_cast<size_t>(id)]; }
  };
  const std::vector<std::string>* tokens_ = nullptr;
  TextTable table_;
};

// kRange names a merge whose parts or result are not tokens. Merges that touch a token which is not
// included are left out.
Result<std::vector<Merge>> merges_of_source(const TokenizerSource& source,
                                            const Vocabulary& vocabulary,
                                            const std::vector<bool>& included);

// All pairs of texts that join to a token, ranked by its score. `part_id` gives the id of a text,
// -1 for none. kLimit names a token that is too long to be looked at in all ways.
Result<std::vector<Merge>> merges_by_score(const TokenizerSource& source,
                                           const std::vector<bool>& included,
                                           const std::function<int32_t(std::string_view)>& part_id);

}  // namespace pome
