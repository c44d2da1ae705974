// Text of a token -> id, and the merges of a source as ids.
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
  auto text_of() const {
    return [tokens = tokens_](int32_t id) -> std::string_view {
      return (*tokens)[static_cast<size_t>(id)];
    };
  }

 public:
  // Tokens with included[id] == false and empty tokens are left out; of equal texts the first
  // counts. `tokens` must outlive the vocabulary.
  Vocabulary(const std::vector<std::string>& tokens, const std::vector<bool>& included)
      : tokens_(&tokens), table_(tokens.size()) {
    for (size_t id = 0; id < tokens.size(); ++id) {
      if (included[id] && !tokens[id].empty()) {
        table_.insert(tokens[id], static_cast<int32_t>(id), text_of());
      }
    }
  }
  int32_t find(std::string_view text) const { return table_.find(text, text_of()); }  // -1: none

 private:
  const std::vector<std::string>* tokens_;
  TextTable table_;
};

// kRange names a merge whose parts or result are not tokens. Merges that touch a token which
// ordinary text may not become are left out.
Result<std::vector<Merge>> merges_of_source(const TokenizerSource& source,
                                            const Vocabulary& vocabulary,
                                            const std::vector<bool>& text_of_user);

// All pairs of texts that join to a token, ranked by its score. `part_id` gives the id of a text,
// -1 for none. kLimit names a token that is too long to be looked at in all ways.
Result<std::vector<Merge>> merges_by_score(const TokenizerSource& source,
                                           const std::vector<bool>& included,
                                           const std::function<int32_t(std::string_view)>& part_id);

}  // namespace pome
