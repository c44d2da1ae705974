#include "tokenizer/source_check.h"

#include <cmath>
#include <string_view>
#include <unordered_set>

namespace pome {
namespace {

constexpr size_t kMaxTokens = size_t{1} << 22;
constexpr size_t kMaxMerges = size_t{1} << 23;

std::string indexed(std::string_view field, size_t i) {
  return std::string(field) + "[" + std::to_string(i) + "]";
}

Status check_sizes(const TokenizerSource& source) {
  const auto count = std::to_string(source.tokens.size());
  if (source.tokens.empty()) {
    return bad_input(Refusal::kRange, "the vocabulary is empty").at("tokens");
  }
  if (source.tokens.size() > kMaxTokens) {
    return bad_input(Refusal::kLimit, count + " tokens; at most 4194304 are allowed").at("tokens");
  }
  if (source.merges.size() > kMaxMerges) {
    return bad_input(Refusal::kLimit,
                     std::to_string(source.merges.size()) + " merges; at most 8388608 are allowed")
        .at("merges");
  }
  if (!source.scores.empty() && source.scores.size() != source.tokens.size()) {
    return bad_input(Refusal::kRange,
                     std::to_string(source.scores.size()) + " scores for " + count + " tokens")
        .at("scores");
  }
  if (!source.kinds.empty() && source.kinds.size() != source.tokens.size()) {
    return bad_input(Refusal::kRange,
                     std::to_string(source.kinds.size()) + " token types for " + count + " tokens")
        .at("token_type");
  }
  for (size_t i = 0; i < source.scores.size(); ++i) {
    if (std::isnan(source.scores[i])) {
      return bad_input(Refusal::kRange, "score is not a number").at(indexed("scores", i));
    }
  }
  return {};
}

Status check_id(const TokenizerSource& source, std::string_view field, int32_t id) {
  if (id >= 0 && static_cast<size_t>(id) < source.tokens.size()) return {};
  return bad_input(Refusal::kRange, "id " + std::to_string(id) + " is outside the vocabulary of " +
                                        std::to_string(source.tokens.size()) + " tokens")
      .at(field);
}

Status check_ids(const TokenizerSource& source) {
  const std::pair<std::string_view, const std::optional<int32_t>*> named[] = {
      {"bos", &source.bos},
      {"eos", &source.eos},
      {"unknown", &source.unknown},
      {"padding", &source.padding},
      {"end_of_turn", &source.end_of_turn},
      {"end_of_message", &source.end_of_message}};
  for (const auto& [name, id] : named) {
    if (id->has_value()) POME_RETURN_IF_ERROR(check_id(source, name, **id));
  }
  const std::pair<std::string_view, const std::vector<int32_t>*> lists[] = {
      {"stop_ids", &source.stop_ids},
      {"prefix_ids", &source.prefix_ids},
      {"suffix_ids", &source.suffix_ids}};
  for (const auto& [name, ids] : lists) {
    for (size_t i = 0; i < ids->size(); ++i) {
      POME_RETURN_IF_ERROR(check_id(source, indexed(name, i), (*ids)[i]));
    }
  }
  return {};
}

Status check_added(const TokenizerSource& source) {
  std::unordered_set<int32_t> ids;
  for (size_t i = 0; i < source.added.size(); ++i) {
    const AddedToken& token = source.added[i];
    const std::string where = indexed("added_tokens", i);
    if (token.content.empty()) {
      return bad_input(Refusal::kRange, "an added token needs a text").at(where);
    }
    POME_RETURN_IF_ERROR(check_id(source, where, token.id));
    if (!ids.insert(token.id).second) {
      return bad_input(Refusal::kDup, "id " + std::to_string(token.id) + " is there twice")
          .at(where);
    }
    const std::string& text = source.tokens[static_cast<size_t>(token.id)];
    if (text != token.content) {
      return bad_input(Refusal::kRange, "added token \"" + escape_for_terminal(token.content, 80) +
                                            "\" has the id " + std::to_string(token.id) +
                                            ", which the vocabulary gives to \"" +
                                            escape_for_terminal(text, 80) + "\"")
          .at(where);
    }
  }
  return {};
}

}  // namespace

Status check_source(const TokenizerSource& source) {
  if (source.model == TokenizerSource::Model::kNone) {
    return missing("there is no tokenizer").in(source.origin);
  }
  const auto check = [&]() -> Status {
    POME_RETURN_IF_ERROR(check_sizes(source));
    POME_RETURN_IF_ERROR(check_ids(source));
    return check_added(source);
  };
  if (Status status = check(); !status.ok()) return std::move(status).in(source.origin);
  return {};
}

}  // namespace pome
