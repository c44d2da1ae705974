#include <algorithm>
#include <array>
#include <functional>
#include <string>
#include <unordered_map>
#include <utility>

#include "tokenizer/byte_level.h"
#include "tokenizer/subword_model.h"
#include "tokenizer/unicode.h"
#include "tokenizer/vocabulary.h"

namespace pome {
namespace {

// Every way to cut a piece in two is looked up when the model is built, so that pieces of this
// length cost as much as a thousand ordinary ones.
constexpr size_t kMaxPieceBytes = 1024;

class SentencePieceBpe final : public SubwordModel {
 public:
  void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& out) const override {
    auto& ids = scratch.ids;
    auto& starts = scratch.starts;
    ids.clear();
    starts.clear();
    bool last_unknown = false;
    for (size_t i = 0; i < piece.size();) {
      const Rune rune = decode_rune(piece, i);
      const int32_t id = rune.valid ? character_id(rune.point) : -1;
      if (id >= 0 || by_score_) {
        ids.push_back(id);
        starts.push_back(static_cast<uint32_t>(i));
        last_unknown = false;
      } else {
        const size_t before = ids.size();
        push_unknown(piece.substr(i, rune.size), last_unknown, ids);
        starts.resize(starts.size() + (ids.size() - before), static_cast<uint32_t>(i));
      }
      i += rune.size;
    }
    merges_.apply(ids, &starts, scratch.merging);
    last_unknown = false;
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] >= 0 && ids[i] < vocab_size_) {
        out.push_back(ids[i]);
        last_unknown = false;
      } else {
        const Rune rune = decode_rune(piece, starts[i]);
        push_unknown(piece.substr(starts[i], rune.size), last_unknown, out);
      }
    }
  }

  void add_character(char32_t point, int32_t id) {
    if (point < ascii_.size()) {
      ascii_[point] = id;
    } else {
      characters_.emplace(point, id);
    }
  }
  int32_t character_id(char32_t point) const {
    if (point < ascii_.size()) return ascii_[point];
    const auto found = characters_.find(point);
    return found == characters_.end() ? -1 : found->second;
  }

  std::array<int32_t, 128> ascii_{};
  std::unordered_map<char32_t, int32_t> characters_;
  std::array<int32_t, 256> byte_ids_{};
  MergeTable merges_;
  int32_t vocab_size_ = 0;
  int32_t unknown_ = -1;
  bool by_score_ = false, byte_fallback_ = false, fuse_unknown_ = false;

 private:
  // `last_unknown`: whether the unknown token stands just before, and after the call whether it
  // does now.
  void push_unknown(std::string_view character, bool& last_unknown,
                    std::vector<int32_t>& out) const {
    const auto byte_id = [&](char c) { return byte_ids_[static_cast<uint8_t>(c)]; };
    if (byte_fallback_ &&
        std::all_of(character.begin(), character.end(), [&](char c) { return byte_id(c) >= 0; })) {
      for (const char c : character) out.push_back(byte_id(c));
      last_unknown = false;
      return;
    }
    if (unknown_ >= 0 && !(fuse_unknown_ && last_unknown)) out.push_back(unknown_);
    last_unknown = true;
  }
};

// The character that a text consists of; nullopt for more than one, none, or broken UTF-8.
std::optional<char32_t> only_character(std::string_view text) {
  if (text.empty()) return std::nullopt;
  const Rune rune = decode_rune(text, 0);
  if (!rune.valid || rune.size != text.size()) return std::nullopt;
  return rune.point;
}

// All pairs that join to a token, ranked by its score. Characters that occur inside of tokens
// without being tokens get ids from vocab_size on: two of them may still join.
Result<std::vector<Merge>> merges_by_score(const TokenizerSource& source,
                                           const Vocabulary& vocabulary,
                                           const std::vector<bool>& included,
                                           SentencePieceBpe& model) {
  std::vector<double> order;
  for (size_t id = 0; id < source.tokens.size(); ++id) {
    if (included[id]) order.push_back(source.scores[id]);
  }
  std::sort(order.begin(), order.end(), std::greater<>());
  order.erase(std::unique(order.begin(), order.end()), order.end());

  auto extra = static_cast<int32_t>(source.tokens.size());
  std::vector<Merge> merges;
  for (size_t id = 0; id < source.tokens.size(); ++id) {
    const std::string_view token = source.tokens[id];
    if (!included[id] || only_character(token)) continue;
    if (token.size() > kMaxPieceBytes) {
      return bad_input(Refusal::kLimit, "piece of " + std::to_string(token.size()) +
                                            " bytes; at most 1024 are allowed")
          .at("tokens[" + std::to_string(id) + "]");
    }
    const auto rank = static_cast<uint32_t>(
        std::lower_bound(order.begin(), order.end(), source.scores[id], std::greater<>()) -
        order.begin());
    const auto part_id = [&](std::string_view part) {
      const std::optional<char32_t> character = only_character(part);
      if (!character) return vocabulary.find(part);
      const int32_t known = model.character_id(*character);
      if (known >= 0) return known;
      model.add_character(*character, extra);
      return extra++;
    };
    for (size_t at = 0; at + 1 < token.size();) {
      at += decode_rune(token, at).size;
      if (at >= token.size()) break;
      const int32_t left = part_id(token.substr(0, at));
      const int32_t right = part_id(token.substr(at));
      if (left >= 0 && right >= 0) {
        merges.push_back({left, right, static_cast<int32_t>(id), rank});
      }
    }
  }
  return merges;
}

}  // namespace

Result<std::unique_ptr<SubwordModel>> make_sentencepiece_bpe(
    const TokenizerSource& source, const std::vector<bool>& text_of_user) {
  auto model = std::make_unique<SentencePieceBpe>();
  model->ascii_.fill(-1);
  model->byte_ids_.fill(-1);
  model->vocab_size_ = static_cast<int32_t>(source.tokens.size());
  model->unknown_ = source.unknown.value_or(-1);
  model->byte_fallback_ = source.byte_fallback;
  model->fuse_unknown_ = source.fuse_unknown;
  model->by_score_ = source.merges.empty() && !source.scores.empty();

  std::vector<bool> included = text_of_user;
  for (size_t id = 0; id < source.tokens.size(); ++id) {
    const bool byte_kind = source.kinds.empty() || source.kinds[id] == TokenKind::kByte;
    const std::optional<uint8_t> byte = byte_of_placeholder(source.tokens[id]);
    if (!byte || !byte_kind || !source.byte_fallback) continue;
    model->byte_ids_[*byte] = static_cast<int32_t>(id);
    included[id] = false;
  }
  const Vocabulary vocabulary(source.tokens, included);
  for (size_t id = 0; id < source.tokens.size(); ++id) {
    const std::optional<char32_t> character = only_character(source.tokens[id]);
    if (included[id] && character && model->character_id(*character) < 0) {
      model->add_character(*character, static_cast<int32_t>(id));
    }
  }
  auto merges = model->by_score_ ? merges_by_score(source, vocabulary, included, *model)
                                 : merges_of_source(source, vocabulary, included);
  if (!merges.ok()) return std::move(merges).status();
  model->merges_ = MergeTable(*merges);
  return std::unique_ptr<SubwordModel>(std::move(model));
}

}  // namespace pome
