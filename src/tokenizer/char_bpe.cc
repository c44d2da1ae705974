#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "tokenizer/byte_level.h"
#include "tokenizer/subword_model.h"
#include "tokenizer/token_trie.h"
#include "tokenizer/unicode.h"
#include "tokenizer/vocabulary.h"

namespace pome {
namespace {

class CharacterIds {
 public:
  CharacterIds() { ascii_.fill(-1); }
  void add(char32_t point, int32_t id) {
    if (point < ascii_.size()) {
      ascii_[point] = id;
    } else {
      others_.emplace(point, id);
    }
  }
  int32_t find(char32_t point) const {
    if (point < ascii_.size()) return ascii_[point];
    const auto found = others_.find(point);
    return found == others_.end() ? -1 : found->second;
  }

 private:
  std::array<int32_t, 128> ascii_{};
  std::unordered_map<char32_t, int32_t> others_;
};

class CharBpe final : public SubwordModel {
 public:
  CharBpe(const Vocabulary& vocabulary, std::vector<bool> included)
      : vocabulary_(vocabulary), included_(std::move(included)) {
    byte_ids_.fill(-1);
  }

  void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& out) const override {
    if (ignore_merges_) {
      if (const int32_t id = vocabulary_.find(piece, included_); id >= 0) {
        out.push_back(id);
        return;
      }
    }
    scratch.ids.clear();
    scratch.starts.clear();
    if (by_score_) {
      encode_by_score(piece, scratch, out);
      return;
    }
    symbols(piece, scratch.ids);
    merges_.apply(scratch.ids, nullptr, scratch.merging);
    out.insert(out.end(), scratch.ids.begin(), scratch.ids.end());
  }

  // Between two known characters that stand side by side in no token.
  size_t next_cut(std::string_view piece, size_t at) const override {
    if (neighbours_.empty()) return piece.size();
    Rune before = decode_rune(piece, at);
    at += before.size;
    while (at < piece.size()) {
      const Rune behind = decode_rune(piece, at);
      if (before.valid && behind.valid && !neighbours_[neighbour_bit(before.point, behind.point)] &&
          characters_[0].find(before.point) >= 0 && characters_[0].find(behind.point) >= 0) {
        return at;
      }
      at += behind.size;
      before = behind;
    }
    return at;
  }
  void find_neighbours(const std::vector<std::string>& tokens, const std::vector<bool>& included) {
    if (ignore_merges_ || places_differ_) return;  // whole pieces count, and their ends
    neighbours_.assign(size_t{1} << kLogNeighbours, false);
    for (size_t id = 0; id < tokens.size(); ++id) {
      if (!included[id]) continue;
      for (size_t at = 0; at < tokens[id].size();) {
        const Rune before = decode_rune(tokens[id], at);
        at += before.size;
        if (at >= tokens[id].size()) break;
        neighbours_[neighbour_bit(before.point, decode_rune(tokens[id], at).point)] = true;
      }
    }
  }

  const Vocabulary& vocabulary_;
  std::vector<bool> included_;  // tokens that text may become
  // By place in the piece: 1 is added behind the first character, 2 at the last one. Only the first
  // is used where there is neither prefix nor suffix.
  std::array<CharacterIds, 4> characters_;
  std::array<int32_t, 256> byte_ids_{};
  MergeTable merges_;
  TokenTrie user_defined_;
  int32_t vocab_size_ = 0;
  int32_t unknown_ = -1;
  bool by_score_ = false, byte_fallback_ = false, fuse_unknown_ = false, ignore_merges_ = false;
  bool places_differ_ = false;
  std::string prefix_, suffix_;  // of tokens that do not begin a piece, and that end it

 private:
  static constexpr int kLogNeighbours = 20;
  // Of pairs that share a bit some are taken for neighbours that are none, which only costs cuts.
  static size_t neighbour_bit(char32_t before, char32_t behind) {
    const uint64_t pair = uint64_t{before} << 32 | behind;
    return static_cast<size_t>(pair * 0x9E3779B97F4A7C15ull >> (64 - kLogNeighbours));
  }
  std::vector<bool> neighbours_;

  static constexpr int32_t kWhole = -2;  // minus the id: a token that was taken whole

  bool push_bytes(std::string_view text, std::vector<int32_t>& out) const {
    const auto byte_id = [&](char c) { return byte_ids_[static_cast<uint8_t>(c)]; };
    if (!byte_fallback_ ||
        !std::all_of(text.begin(), text.end(), [&](char c) { return byte_id(c) >= 0; })) {
      return false;
    }
    for (const char c : text) out.push_back(byte_id(c));
    return true;
  }

  // The symbols that merging begins with, as Hugging Face finds them: an unknown token waits until
  // the next character that is a token, so that byte tokens may come before it.
  void symbols(std::string_view piece, std::vector<int32_t>& ids) const {
    bool waiting = false;
    for (size_t i = 0; i < piece.size();) {
      const Rune rune = decode_rune(piece, i);
      const size_t end = i + rune.size;
      size_t place = 0;
      if (places_differ_) place = (i == 0 ? 0 : 1) + (end == piece.size() ? 2 : 0);
      const int32_t id = rune.valid ? characters_[place].find(rune.point) : -1;
      const std::string_view text = piece.substr(i, rune.size);
      i = end;
      if (id >= 0) {
        if (waiting) ids.push_back(unknown_);
        waiting = false;
        ids.push_back(id);
      } else if (!(place == 0 ? push_bytes(text, ids) : push_marked(text, place, ids)) &&
                 unknown_ >= 0) {
        if (waiting && !fuse_unknown_) ids.push_back(unknown_);
        waiting = true;
      }
    }
    if (waiting) ids.push_back(unknown_);
  }
  // Prefix and suffix become bytes as well.
  bool push_marked(std::string_view text, size_t place, std::vector<int32_t>& ids) const {
    std::string marked = (place & 1) != 0 ? prefix_ : "";
    marked.append(text);
    if ((place & 2) != 0) marked += suffix_;
    return push_bytes(marked, ids);
  }

  // As the sentencepiece library does: characters that are no tokens may join to one, and
  // user-defined tokens are taken whole. They do not merge, as negative ids do not.
  void encode_by_score(std::string_view piece, Scratch& scratch, std::vector<int32_t>& out) const {
    auto& ids = scratch.ids;
    auto& starts = scratch.starts;
    for (size_t i = 0; i < piece.size();) {
      starts.push_back(static_cast<uint32_t>(i));
      size_t whole = 0;
      int32_t whole_id = -1;
      user_defined_.walk(piece.substr(i), [&](size_t size, int32_t id) {
        whole = size;
        whole_id = id;
      });
      if (whole != 0) {
        ids.push_back(kWhole - whole_id);
        i += whole;
        continue;
      }
      const Rune rune = decode_rune(piece, i);
      ids.push_back(rune.valid ? characters_[0].find(rune.point) : -1);
      i += rune.size;
    }
    merges_.apply(ids, &starts, scratch.merging);
    bool last_unknown = false;
    for (size_t i = 0; i < ids.size(); ++i) {
      const int32_t id = ids[i] <= kWhole ? kWhole - ids[i] : ids[i];
      if (id >= 0 && id < vocab_size_) {
        out.push_back(id);
      } else if (!push_bytes(piece.substr(starts[i], decode_rune(piece, starts[i]).size), out)) {
        if (unknown_ >= 0 && !(fuse_unknown_ && last_unknown)) out.push_back(unknown_);
        last_unknown = true;
        continue;
      }
      last_unknown = false;
    }
  }
};

// The character that a text consists of; nullopt for more than one, none, or broken UTF-8.
std::optional<char32_t> only_character(std::string_view text) {
  if (text.empty()) return std::nullopt;
  const Rune rune = decode_rune(text, 0);
  if (!rune.valid || rune.size != text.size()) return std::nullopt;
  return rune.point;
}

// The character between a prefix and a suffix.
std::optional<char32_t> character_between(std::string_view text, std::string_view prefix,
                                          std::string_view suffix) {
  if (text.size() <= prefix.size() + suffix.size()) return std::nullopt;
  if (text.substr(0, prefix.size()) != prefix) return std::nullopt;
  if (text.substr(text.size() - suffix.size()) != suffix) return std::nullopt;
  return only_character(text.substr(prefix.size(), text.size() - prefix.size() - suffix.size()));
}

void add_characters(const TokenizerSource& source, const std::vector<bool>& included,
                    CharBpe& model) {
  for (size_t place = 0; place < (model.places_differ_ ? 4 : 1); ++place) {
    const std::string prefix = (place & 1) != 0 ? source.continuing_subword_prefix : "";
    const std::string suffix = (place & 2) != 0 ? source.end_of_word_suffix : "";
    for (size_t id = 0; id < source.tokens.size(); ++id) {
      if (!included[id]) continue;
      const auto character = character_between(source.tokens[id], prefix, suffix);
      if (character && model.characters_[place].find(*character) < 0) {
        model.characters_[place].add(*character, static_cast<int32_t>(id));
      }
    }
  }
}

Result<std::vector<Merge>> find_merges(const TokenizerSource& source,
                                       const std::vector<bool>& included, CharBpe& model) {
  if (!model.by_score_) return merges_of_source(source, model.vocabulary_, included);
  // Characters that occur inside of tokens without being tokens get ids from vocab_size on.
  auto extra = static_cast<int32_t>(source.tokens.size());
  return merges_by_score(source, included, [&](std::string_view part) {
    const std::optional<char32_t> character = only_character(part);
    if (!character) return model.vocabulary_.find(part, included);
    const int32_t known = model.characters_[0].find(*character);
    if (known >= 0) return known;
    model.characters_[0].add(*character, extra);
    return extra++;
  });
}

}  // namespace

Result<std::unique_ptr<SubwordModel>> make_char_bpe(const TokenizerSource& source,
                                                    const Vocabulary& vocabulary,
                                                    const std::vector<bool>& text_of_user) {
  const bool by_score = source.merges.empty() && !source.scores.empty();
  std::vector<bool> included = text_of_user;
  std::array<int32_t, 256> byte_ids{};
  byte_ids.fill(-1);
  for (size_t id = 0; id < source.tokens.size() && source.byte_fallback; ++id) {
    const bool byte_kind = source.kinds.empty() || source.kinds[id] == TokenKind::kByte;
    const std::optional<uint8_t> byte = byte_of_placeholder(source.tokens[id]);
    if (!byte || !byte_kind) continue;
    byte_ids[*byte] = static_cast<int32_t>(id);
    if (by_score) included[id] = false;
  }
  auto model = std::make_unique<CharBpe>(vocabulary, included);
  model->byte_ids_ = byte_ids;
  model->vocab_size_ = static_cast<int32_t>(source.tokens.size());
  model->unknown_ = source.unknown.value_or(-1);
  model->byte_fallback_ = source.byte_fallback;
  model->fuse_unknown_ = source.fuse_unknown;
  model->ignore_merges_ = source.ignore_merges;
  model->by_score_ = by_score;
  model->prefix_ = source.continuing_subword_prefix;
  model->suffix_ = source.end_of_word_suffix;
  model->places_differ_ = !model->prefix_.empty() || !model->suffix_.empty();
  add_characters(source, included, *model);
  if (by_score && source.as_sentencepiece) {
    std::vector<std::pair<std::string_view, int32_t>> whole;
    for (size_t id = 0; id < source.kinds.size(); ++id) {
      if (source.kinds[id] != TokenKind::kUserDefined || !included[id]) continue;
      whole.emplace_back(source.tokens[id], static_cast<int32_t>(id));
    }
    model->user_defined_ = TokenTrie(std::move(whole));
  }
  POME_ASSIGN_OR_RETURN(const std::vector<Merge> merges, find_merges(source, included, *model));
  model->merges_ = MergeTable(merges);
  model->find_neighbours(source.tokens, included);
  return std::unique_ptr<SubwordModel>(std::move(model));
}

}  // namespace pome
