#include "tokenizer/vocabulary.h"

#include <algorithm>

#include "tokenizer/unicode.h"

namespace pome {
namespace {

// Every way to cut a token in two is looked up when the model is built, so that tokens of this
// length cost as much as a thousand ordinary ones.
constexpr size_t kMaxTokenBytes = 1024;

// The place of every token in the order of scores; equal scores share one.
std::vector<uint32_t> ranks_of_scores(const TokenizerSource& source,
                                      const std::vector<bool>& included) {
  std::vector<double> order;
  for (size_t id = 0; id < source.tokens.size(); ++id) {
    if (included[id]) order.push_back(source.scores[id]);
  }
  std::sort(order.begin(), order.end(), std::greater<>());
  order.erase(std::unique(order.begin(), order.end()), order.end());
  std::vector<uint32_t> ranks(source.tokens.size());
  for (size_t id = 0; id < ranks.size(); ++id) {
    const auto found =
        std::lower_bound(order.begin(), order.end(), source.scores[id], std::greater<>());
    ranks[id] = static_cast<uint32_t>(found - order.begin());
  }
  return ranks;
}

}  // namespace

Result<Vocabulary> Vocabulary::create(const TokenizerSource& source) {
  Vocabulary out;
  out.tokens_ = &source.tokens;
  out.table_ = TextTable(source.tokens.size());
  for (size_t id = 0; id < source.tokens.size(); ++id) {
    const std::string& text = source.tokens[id];
    if (text.empty() || (!source.kinds.empty() && source.kinds[id] == TokenKind::kUnused)) continue;
    const int32_t first = out.table_.insert(text, static_cast<int32_t>(id), TextOf{out.tokens_});
    if (first < 0) continue;
    return bad_input(Refusal::kDup, "token \"" + escape_for_terminal(text, 80) +
                                        "\" is there twice, as " + std::to_string(first) +
                                        " and as " + std::to_string(id))
        .at("tokens[" + std::to_string(id) + "]");
  }
  return out;
}

Result<std::vector<Merge>> merges_of_source(const TokenizerSource& source,
                                            const Vocabulary& vocabulary,
                                            const std::vector<bool>& included) {
  std::vector<Merge> merges;
  merges.reserve(source.merges.size());
  std::string joined;
  const size_t prefix = source.continuing_subword_prefix.size();
  for (size_t rank = 0; rank < source.merges.size(); ++rank) {
    const auto& [left, right] = source.merges[rank];
    joined.assign(left).append(right, std::min(prefix, right.size()), std::string::npos);
    const Merge merge{vocabulary.find(left), vocabulary.find(right), vocabulary.find(joined),
                      static_cast<uint32_t>(rank)};
    if (merge.left >= 0 && merge.right >= 0 && merge.merged >= 0) {
      const bool ordinary = included[static_cast<size_t>(merge.left)] &&
                            included[static_cast<size_t>(merge.right)] &&
                            included[static_cast<size_t>(merge.merged)];
      if (ordinary) merges.push_back(merge);
      continue;
    }
    const std::string& missing = merge.left < 0 ? left : merge.right < 0 ? right : joined;
    return bad_input(Refusal::kRange, "merge \"" + escape_for_terminal(left, 40) + " " +
                                          escape_for_terminal(right, 40) + "\" needs the token \"" +
                                          escape_for_terminal(missing, 80) +
                                          "\", which the vocabulary does not have")
        .at("merges[" + std::to_string(rank) + "]");
  }
  return merges;
}

Result<std::vector<Merge>> merges_by_score(
    const TokenizerSource& source, const std::vector<bool>& included,
    const std::function<int32_t(std::string_view)>& part_id) {
  const std::vector<uint32_t> ranks = ranks_of_scores(source, included);
  std::vector<Merge> merges;
  for (size_t id = 0; id < source.tokens.size(); ++id) {
    const std::string_view token = source.tokens[id];
    if (!included[id]) continue;
    if (token.size() > kMaxTokenBytes) {
      return bad_input(Refusal::kLimit, "token of " + std::to_string(token.size()) +
                                            " bytes; at most 1024 are allowed")
          .at("tokens[" + std::to_string(id) + "]");
    }
    for (size_t at = 0; at < token.size();) {
      at += decode_rune(token, at).size;
      if (at >= token.size()) break;
      const int32_t left = part_id(token.substr(0, at));
      if (left < 0) continue;
      const int32_t right = part_id(token.substr(at));
      if (right >= 0) merges.push_back({left, right, static_cast<int32_t>(id), ranks[id]});
    }
  }
  return merges;
}

}  // namespace pome
