#include <algorithm>
#include <array>
#include <cfloat>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "tokenizer/byte_level.h"
#include "tokenizer/subword_model.h"
#include "tokenizer/token_trie.h"
#include "tokenizer/unicode.h"

namespace pome {
namespace {

constexpr size_t kMaxPieceBytes = 1024;  // a step of text looks at no more than this
constexpr double kUnknownPenalty = 10;
// The best path is written out wherever no token crosses, once it is this long, so that long texts
// cost no memory of their length.
constexpr size_t kSegmentBytes = 4096;

class Unigram final : public SubwordModel {
 public:
  void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& out) const override {
    auto& path = scratch.path;
    size_t base = 0;  // of what is in `path`
    size_t reach = 0;
    Pending pending;
    path.assign(1, {});
    for (size_t at = 0; at < piece.size();) {
      const PathNode here = path[at - base];
      const size_t character = decode_rune(piece, at).size;
      bool has_character = false;
      const auto offer = [&](size_t size, int32_t id, double sum) {
        const size_t end = at + size - base;
        if (path.size() <= end) path.resize(end + 1);
        reach = std::max(reach, at + size);
        PathNode& node = path[end];
        if (node.size != 0 && !(sum > node.score)) return;
        node = {single_precision_ ? static_cast<float>(sum) : sum, id, static_cast<uint32_t>(size)};
      };
      trie_.walk(piece.substr(at), [&](size_t size, int32_t id) {
        offer(size, id, scores_[static_cast<size_t>(id)] + here.score);
        has_character = has_character || size == character;
      });
      if (!has_character) offer(character, kUnknown, unknown_sum(here.score));
      at += character;
      if (at == reach && (at - base >= kSegmentBytes || at == piece.size())) {
        write(piece, base, at, scratch, pending, out);
        path.assign(1, {path[at - base].score, 0, 0});
        base = at;
      }
    }
    flush(piece, pending, out);
  }

  TokenTrie trie_;
  std::vector<double> scores_;  // by id
  double unknown_score_ = 0;
  std::array<int32_t, 256> byte_ids_{};
  int32_t unknown_ = -1;
  bool byte_fallback_ = false, fuse_unknown_ = false, single_precision_ = false;

 private:
  static constexpr int32_t kUnknown = -1;
  // A run of text without a token, not written yet.
  struct Pending {
    size_t begin = 0, end = 0;
  };

  double unknown_sum(double before) const {
    if (!single_precision_) return unknown_score_ + before;
    return static_cast<float>(unknown_score_) + static_cast<float>(before);
  }

  void write(std::string_view piece, size_t base, size_t end, Scratch& scratch, Pending& pending,
             std::vector<int32_t>& out) const {
    auto& ends = scratch.starts;  // of the tokens on the best path, the last one first
    ends.clear();
    for (size_t at = end; at > base; at -= scratch.path[at - base].size) {
      ends.push_back(static_cast<uint32_t>(at - base));
    }
    for (size_t i = ends.size(); i-- > 0;) {
      const PathNode& node = scratch.path[ends[i]];
      const size_t token_end = base + ends[i];
      if (node.id != kUnknown) {
        flush(piece, pending, out);
        out.push_back(node.id);
        continue;
      }
      if (!fuse_unknown_) flush(piece, pending, out);
      if (pending.begin == pending.end) pending.begin = token_end - node.size;
      pending.end = token_end;
    }
  }

  void flush(std::string_view piece, Pending& pending, std::vector<int32_t>& out) const {
    const std::string_view text = piece.substr(pending.begin, pending.end - pending.begin);
    pending = {};
    if (text.empty()) return;
    const auto byte_id = [&](char c) { return byte_ids_[static_cast<uint8_t>(c)]; };
    if (byte_fallback_ &&
        std::all_of(text.begin(), text.end(), [&](char c) { return byte_id(c) >= 0; })) {
      for (const char c : text) out.push_back(byte_id(c));
    } else if (unknown_ >= 0) {
      out.push_back(unknown_);
    }
  }
};

// The lowest and the highest score of the tokens that count for what unknown characters and
// user-defined symbols cost.
struct ScoreRange {
  double low = 0, high = 0;
};
ScoreRange range_of(const TokenizerSource& source) {
  std::optional<double> low;
  double high = FLT_MIN;
  for (size_t id = 0; id < source.tokens.size(); ++id) {
    const bool normal = source.kinds.empty() || source.kinds[id] == TokenKind::kNormal;
    if (source.as_sentencepiece && !normal) continue;
    low = std::min(low.value_or(source.scores[id]), source.scores[id]);
    high = std::max(high, source.scores[id]);
  }
  return {low.value_or(0), high};
}

}  // namespace

Result<std::unique_ptr<SubwordModel>> make_unigram(const TokenizerSource& source,
                                                   const std::vector<bool>& text_of_user) {
  if (source.scores.size() != source.tokens.size()) {
    return bad_input(Refusal::kRange, "a unigram tokenizer needs a score for each token")
        .at("scores");
  }
  auto model = std::make_unique<Unigram>();
  const ScoreRange range = range_of(source);
  model->unknown_score_ = range.low - kUnknownPenalty;
  model->scores_ = source.scores;
  model->byte_ids_.fill(-1);
  model->unknown_ = source.unknown.value_or(-1);
  model->byte_fallback_ = source.byte_fallback;
  model->fuse_unknown_ = source.fuse_unknown;
  model->single_precision_ = source.as_sentencepiece;
  std::vector<std::pair<std::string_view, int32_t>> tokens;
  for (size_t id = 0; id < source.tokens.size(); ++id) {
    const std::string_view token = source.tokens[id];
    const TokenKind kind = source.kinds.empty() ? TokenKind::kNormal : source.kinds[id];
    const std::optional<uint8_t> byte = byte_of_placeholder(token);
    if (byte && source.byte_fallback && (source.kinds.empty() || kind == TokenKind::kByte)) {
      model->byte_ids_[*byte] = static_cast<int32_t>(id);
      // The sentencepiece library finds no byte tokens in text, Hugging Face's does.
      if (source.as_sentencepiece) continue;
    }
    if (!text_of_user[id]) continue;
    if (token.size() > kMaxPieceBytes) {
      return bad_input(Refusal::kLimit, "piece of " + std::to_string(token.size()) +
                                            " bytes; at most 1024 are allowed")
          .at("tokens[" + std::to_string(id) + "]");
    }
    // Better than all other ways to write the same text.
    if (source.as_sentencepiece && kind == TokenKind::kUserDefined) {
      const float longest = static_cast<float>(token.size()) * static_cast<float>(range.high);
      model->scores_[id] = longest - 0.1;
    }
    tokens.emplace_back(token, static_cast<int32_t>(id));
  }
  model->trie_ = TokenTrie(std::move(tokens));
  return std::unique_ptr<SubwordModel>(std::move(model));
}

}  // namespace pome
