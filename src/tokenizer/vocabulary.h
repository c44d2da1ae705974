// Text of a token -> id, and the merges of a source as ids.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "tokenizer/merge_table.h"
#include "tokenizer/tokenizer_source.h"

namespace pome {

class Vocabulary {
 public:
  // Tokens with included[id] == false and empty tokens are left out; of equal texts the first
  // counts. `tokens` must outlive the vocabulary.
  Vocabulary(const std::vector<std::string>& tokens, const std::vector<bool>& included) {
    ids_.reserve(tokens.size());
    for (size_t id = 0; id < tokens.size(); ++id) {
      if (included[id] && !tokens[id].empty()) {
        ids_.emplace(tokens[id], static_cast<int32_t>(id));
      }
    }
  }
  int32_t find(std::string_view text) const {  // -1: none
    const auto found = ids_.find(text);
    return found == ids_.end() ? -1 : found->second;
  }

 private:
  std::unordered_map<std::string_view, int32_t> ids_;
};

// kRange names a merge whose parts or result are not tokens. Merges that touch a token which
// ordinary text may not become are left out.
Result<std::vector<Merge>> merges_of_source(const TokenizerSource& source,
                                            const Vocabulary& vocabulary,
                                            const std::vector<bool>& text_of_user);

}  // namespace pome
