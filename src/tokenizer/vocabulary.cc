#include "tokenizer/vocabulary.h"

#include <optional>

namespace pome {

Result<std::vector<Merge>> merges_of_source(const TokenizerSource& source,
                                            const Vocabulary& vocabulary,
                                            const std::vector<bool>& text_of_user) {
  std::optional<Vocabulary> all;  // with the tokens that ordinary text may not become
  std::vector<Merge> merges;
  merges.reserve(source.merges.size());
  std::string joined;
  for (size_t rank = 0; rank < source.merges.size(); ++rank) {
    const auto& [left, right] = source.merges[rank];
    joined.assign(left).append(right);
    const Merge merge{vocabulary.find(left), vocabulary.find(right), vocabulary.find(joined),
                      static_cast<uint32_t>(rank)};
    if (merge.left >= 0 && merge.right >= 0 && merge.merged >= 0) {
      merges.push_back(merge);
      continue;
    }
    if (!all) all.emplace(source.tokens, std::vector<bool>(text_of_user.size(), true));
    for (const std::string_view part :
         {std::string_view(left), std::string_view(right), std::string_view(joined)}) {
      if (all->find(part) >= 0) continue;
      return bad_input(Refusal::kRange,
                       "merge \"" + escape_for_terminal(left, 40) + " " +
                           escape_for_terminal(right, 40) + "\" needs the token \"" +
                           escape_for_terminal(part, 80) + "\", which the vocabulary does not have")
          .at("merges[" + std::to_string(rank) + "]");
    }
  }
  return merges;
}

}  // namespace pome
