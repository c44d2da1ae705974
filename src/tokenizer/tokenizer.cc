#include "tokenizer/tokenizer.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/sha256.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/source_check.h"
#include "tokenizer/stop_ids.h"
#include "tokenizer/subword_model.h"
#include "tokenizer/unicode.h"

namespace pome {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581
constexpr size_t kMaxPieceBytes = size_t{1} << 30;       // positions inside a piece are 32-bit

// Ids of words that this call has seen already, by their bytes. Direct-mapped: a word that hashes
// to the same slot replaces the older one. The ids lie in the output, which only grows.
class WordCache {
 public:
  static constexpr size_t kMaxWord = 28;
  struct Slot {
    uint32_t begin = 0;
    uint16_t count = 0;
    uint8_t size = 0;  // of the word; 0: free
    char word[kMaxWord];
  };
  Slot* slot(std::string_view word) {
    if (slots_.empty()) slots_.resize(kSlots);
    uint64_t hash = 0xCBF29CE484222325ull;
    for (const char c : word) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3ull;
    return &slots_[(hash ^ hash >> 31) % kSlots];
  }
  static bool holds(const Slot& slot, std::string_view word) {
    return slot.size == word.size() && std::memcmp(slot.word, word.data(), word.size()) == 0;
  }

 private:
  static constexpr size_t kSlots = 8192;
  std::vector<Slot> slots_;
};

// Added tokens of one kind: those looked for before normalisation, or those looked for after it.
struct AddedGroup {
  TokenMatcher special, plain;
  std::vector<AddedToken> special_tokens, plain_tokens;
  bool empty() const { return special.empty() && plain.empty(); }
};

// White space around tokens with lstrip and rstrip.
size_t space_before(std::string_view text, size_t end, size_t limit) {
  while (end > limit) {
    const Rune rune = decode_rune_before(text, end);
    if (!rune.valid || !is_white_space(rune.point) || end - rune.size < limit) break;
    end -= rune.size;
  }
  return end;
}
size_t space_after(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    const Rune rune = decode_rune(text, begin);
    if (!rune.valid || !is_white_space(rune.point)) break;
    begin += rune.size;
  }
  return begin;
}
bool stands_alone(std::string_view text, size_t begin, size_t end) {
  if (begin > 0) {
    const Rune before = decode_rune_before(text, begin);
    if (before.valid && is_word_character(before.point)) return false;
  }
  if (end < text.size()) {
    const Rune after = decode_rune(text, end);
    if (after.valid && is_word_character(after.point)) return false;
  }
  return true;
}

// Cuts `text` at the added tokens of a group: on_text(begin, end) and on_token(id) in order.
template <typename OnText, typename OnToken>
void cut_at_added(const AddedGroup& group, std::string_view text, bool parse_special,
                  std::span<const TextRange> closed, const OnText& on_text,
                  const OnToken& on_token) {
  using Matches = std::vector<TokenMatcher::Match>;
  Matches special = parse_special ? group.special.longest_backwards(text, closed) : Matches();
  Matches plain = group.plain.longest_backwards(text);
  size_t done = 0;     // text before this has been given out
  size_t matched = 0;  // a match begins at or behind this
  while (!special.empty() || !plain.empty()) {
    const bool take_special =
        plain.empty() ||
        (!special.empty() &&
         (special.back().begin < plain.back().begin ||
          (special.back().begin == plain.back().begin && special.back().end >= plain.back().end)));
    Matches& list = take_special ? special : plain;
    const TokenMatcher::Match match = list.back();
    list.pop_back();
    if (match.begin < matched || match.begin < done) continue;
    const AddedToken& token =
        (take_special ? group.special_tokens : group.plain_tokens)[match.number];
    matched = match.end;
    if (token.single_word && !stands_alone(text, match.begin, match.end)) continue;
    const size_t begin = token.lstrip ? space_before(text, match.begin, done) : match.begin;
    if (done < begin) on_text(done, begin);
    on_token(token.id);
    done = token.rstrip ? space_after(text, match.end) : match.end;
  }
  if (done < text.size()) on_text(done, text.size());
}

}  // namespace

struct Tokenizer::Impl {
  TokenizerSource source;
  std::unique_ptr<SubwordModel> model;
  PreTokenizer pre_tokenizer;
  AddedGroup raw, normalized;
  std::vector<bool> special;
  std::string bytes;                // of all tokens, one after the other
  std::vector<size_t> byte_begins;  // per id, and the end
  std::vector<int32_t> stop_ids;

  // What one call of encode() works with.
  struct Call {
    SubwordModel::Scratch scratch;
    WordCache cache;
    std::vector<int32_t> out;
  };

  void find_special();
  void group_added();
  void find_bytes();
  std::string normalize(std::string_view text, bool first) const;
  std::string unescape(std::string_view text) const;
  std::string bytes_of_piece(size_t id) const;
  std::vector<TextRange> map_ranges(std::string_view text, size_t offset, size_t prefix,
                                    std::span<const TextRange> ranges) const;
  void encode_segment(std::string_view text, size_t offset, std::span<const TextRange> user_text,
                      bool parse_special, Call& call) const;
  void encode_normalized(std::string_view text, Call& call) const;
  void encode_piece(std::string_view piece, Call& call) const;
};

// Special are: control tokens and placeholders, added tokens that say so, and what the source names
// as BOS, EOS and so on unless it is an ordinary piece of text.
void Tokenizer::Impl::find_special() {
  special.assign(source.tokens.size(), false);
  for (size_t id = 0; id < source.kinds.size(); ++id) {
    special[id] =
        source.kinds[id] == TokenKind::kControl || source.kinds[id] == TokenKind::kUnknown;
  }
  std::vector<bool> is_added(source.tokens.size(), false);
  for (const AddedToken& token : source.added) {
    is_added[static_cast<size_t>(token.id)] = true;
    if (token.special) special[static_cast<size_t>(token.id)] = true;
  }
  for (const auto& id : {source.bos, source.eos, source.unknown, source.padding, source.end_of_turn,
                         source.end_of_message}) {
    if (!id) continue;
    const auto i = static_cast<size_t>(*id);
    if (is_added[i] || source.kinds.empty() || source.kinds[i] != TokenKind::kNormal) {
      special[i] = true;
    }
  }
  for (size_t id = 0; id < special.size(); ++id) {
    if (!special[id] || is_added[id] || source.tokens[id].empty()) continue;
    AddedToken token;
    token.id = static_cast<int32_t>(id);
    token.content = source.tokens[id];
    token.special = true;
    source.added.push_back(std::move(token));
  }
}

void Tokenizer::Impl::group_added() {
  std::vector<std::string> texts[2][2];  // [normalized][special]
  for (const AddedToken& token : source.added) {
    const bool is_special = special[static_cast<size_t>(token.id)];
    AddedGroup& group = token.normalized ? normalized : raw;
    (is_special ? group.special_tokens : group.plain_tokens).push_back(token);
    texts[token.normalized][is_special].push_back(token.normalized && source.escape_in_normalizer
                                                      ? normalize(token.content, true)
                                                      : token.content);
  }
  const auto matcher = [](const std::vector<std::string>& list) {
    return TokenMatcher(std::vector<std::string_view>(list.begin(), list.end()));
  };
  raw.plain = matcher(texts[0][0]);
  raw.special = matcher(texts[0][1]);
  normalized.plain = matcher(texts[1][0]);
  normalized.special = matcher(texts[1][1]);
}

// Text with spaces for U+2581, where the source writes them so.
std::string Tokenizer::Impl::unescape(std::string_view text) const {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    if (source.escape_whitespace && text.substr(i, kSpaceMark.size()) == kSpaceMark) {
      out.push_back(' ');
      i += kSpaceMark.size();
    } else {
      out.push_back(text[i++]);
    }
  }
  return out;
}

std::string Tokenizer::Impl::bytes_of_piece(size_t id) const {
  const std::string& text = source.tokens[id];
  if (source.model == TokenizerSource::Model::kByteBpe) return bytes_of_token(text).value_or(text);
  const bool may_be_byte =
      source.byte_fallback && (source.kinds.empty() || source.kinds[id] == TokenKind::kByte);
  if (const auto byte = byte_of_placeholder(text); byte && may_be_byte) {
    return std::string(1, static_cast<char>(*byte));
  }
  return unescape(text);
}

void Tokenizer::Impl::find_bytes() {
  std::vector<const AddedToken*> added(source.tokens.size(), nullptr);
  for (const AddedToken& token : source.added) added[static_cast<size_t>(token.id)] = &token;
  for (size_t id = 0; id < source.tokens.size(); ++id) {
    byte_begins.push_back(bytes.size());
    if (added[id] == nullptr) {
      bytes += bytes_of_piece(id);
    } else if (added[id]->normalized && source.escape_in_normalizer) {
      // It was found with the prefix that the normalizer puts in front, so it gives it back.
      bytes += unescape(normalize(added[id]->content, true));
    } else {
      bytes += added[id]->content;
    }
  }
  byte_begins.push_back(bytes.size());
}

// Adds the prefix space and writes spaces as U+2581, as the source asks. `first`: the text begins
// the whole text.
std::string Tokenizer::Impl::normalize(std::string_view text, bool first) const {
  std::string out;
  if (text.empty()) return out;
  const std::string_view space = source.escape_whitespace ? kSpaceMark : std::string_view(" ");
  const bool has_space = text.front() == ' ' || (source.escape_whitespace &&
                                                 text.substr(0, kSpaceMark.size()) == kSpaceMark);
  const bool prefix = source.add_prefix_space && (first || !source.prefix_only_first) &&
                      !(source.prefix_unless_space && has_space);
  out.reserve(text.size() + text.size() / 2 + space.size());
  if (prefix) out += space;
  if (!source.escape_whitespace) return out.append(text);
  for (const char c : text) {
    if (c == ' ') {
      out += kSpaceMark;
    } else {
      out.push_back(c);
    }
  }
  return out;
}

// Where `ranges` of the whole text lie in the normalised form of its part `text`, which begins at
// `offset` and got a prefix of `prefix` bytes.
std::vector<TextRange> Tokenizer::Impl::map_ranges(std::string_view text, size_t offset,
                                                   size_t prefix,
                                                   std::span<const TextRange> ranges) const {
  std::vector<TextRange> out;
  size_t at = 0, mapped = prefix;
  const auto advance_to = [&](size_t target) {
    for (; at < target; ++at) {
      mapped += text[at] == ' ' && source.escape_whitespace ? kSpaceMark.size() : 1;
    }
    return mapped;
  };
  for (const TextRange& range : ranges) {
    if (range.end <= offset || range.begin >= offset + text.size()) continue;
    TextRange here;
    here.begin = advance_to(std::max(range.begin, offset) - offset);
    here.end = advance_to(std::min(range.end - offset, text.size()));
    out.push_back(here);
  }
  return out;
}

void Tokenizer::Impl::encode_segment(std::string_view text, size_t offset,
                                     std::span<const TextRange> user_text, bool parse_special,
                                     Call& call) const {
  const auto encode_escaped = [&](std::string_view part, size_t at) {
    if (!source.escape_whitespace && !source.add_prefix_space) {
      encode_normalized(part, call);
    } else {
      encode_normalized(normalize(part, at == 0), call);
    }
  };
  const auto push = [&](int32_t id) { call.out.push_back(id); };
  if (normalized.empty()) {
    encode_escaped(text, offset);
  } else if (source.escape_in_normalizer) {
    const std::string escaped = normalize(text, offset == 0);
    const size_t spaces = static_cast<size_t>(std::count(text.begin(), text.end(), ' '));
    const size_t grown =
        text.size() + (source.escape_whitespace ? spaces * (kSpaceMark.size() - 1) : 0);
    const auto closed = map_ranges(text, offset, escaped.size() - grown, user_text);
    const std::string_view view = escaped;
    cut_at_added(
        normalized, view, parse_special, closed,
        [&](size_t begin, size_t end) { encode_normalized(view.substr(begin, end - begin), call); },
        push);
  } else {
    std::vector<TextRange> closed;
    for (const TextRange& range : user_text) {
      if (range.end <= offset || range.begin >= offset + text.size()) continue;
      closed.push_back(
          {std::max(range.begin, offset) - offset, std::min(range.end - offset, text.size())});
    }
    cut_at_added(
        normalized, text, parse_special, closed,
        [&](size_t begin, size_t end) {
          encode_escaped(text.substr(begin, end - begin), offset + begin);
        },
        push);
  }
}

void Tokenizer::Impl::encode_normalized(std::string_view text, Call& call) const {
  const auto pieces = [&](std::string_view part) {
    pre_tokenizer.split(part, [&](std::string_view piece) { encode_piece(piece, call); });
  };
  if (!source.split_at_spaces) {
    pieces(text);
    return;
  }
  size_t begin = 0;
  while (begin < text.size()) {
    size_t end = text.find(kSpaceMark, begin + 1);
    if (end == std::string_view::npos) end = text.size();
    pieces(text.substr(begin, end - begin));
    begin = end;
  }
}

void Tokenizer::Impl::encode_piece(std::string_view piece, Call& call) const {
  if (piece.size() > WordCache::kMaxWord || piece.empty()) {
    for (size_t at = 0; at < piece.size(); at += kMaxPieceBytes) {
      model->encode(piece.substr(at, kMaxPieceBytes), call.scratch, call.out);
    }
    return;
  }
  WordCache::Slot* slot = call.cache.slot(piece);
  const size_t begin = call.out.size();
  if (WordCache::holds(*slot, piece)) {
    call.out.resize(begin + slot->count);
    std::copy_n(call.out.begin() + slot->begin, slot->count,
                call.out.begin() + static_cast<ptrdiff_t>(begin));
    return;
  }
  model->encode(piece, call.scratch, call.out);
  if (begin > UINT32_MAX) return;
  slot->begin = static_cast<uint32_t>(begin);
  slot->count = static_cast<uint16_t>(call.out.size() - begin);
  slot->size = static_cast<uint8_t>(piece.size());
  std::memcpy(slot->word, piece.data(), piece.size());
}

Tokenizer::Tokenizer() : impl_(std::make_unique<Impl>()) {}
Tokenizer::~Tokenizer() = default;

Result<std::shared_ptr<const Tokenizer>> Tokenizer::create(TokenizerSource source) {
  POME_RETURN_IF_ERROR(check_source(source));
  std::shared_ptr<Tokenizer> tokenizer(new Tokenizer());
  Impl& impl = *tokenizer->impl_;
  impl.source = std::move(source);
  const TokenizerSource& from = impl.source;
  impl.find_special();
  std::vector<bool> text_of_user(from.tokens.size());
  for (size_t id = 0; id < text_of_user.size(); ++id) {
    text_of_user[id] =
        !impl.special[id] && (from.kinds.empty() || from.kinds[id] != TokenKind::kUnused);
  }
  const bool byte_level = from.model == TokenizerSource::Model::kByteBpe;
  auto model =
      byte_level ? make_byte_bpe(from, text_of_user) : make_sentencepiece_bpe(from, text_of_user);
  if (!model.ok()) return std::move(model).status().in(from.origin);
  impl.model = std::move(*model);
  auto pre_tokenizer =
      PreTokenizer::create(byte_level ? from.pre_name : std::string(), from.pre_patterns);
  if (!pre_tokenizer.ok()) return std::move(pre_tokenizer).status().in(from.origin);
  impl.pre_tokenizer = std::move(*pre_tokenizer);
  impl.group_added();
  impl.find_bytes();
  impl.stop_ids = find_stop_ids(from, impl.special);
  return std::shared_ptr<const Tokenizer>(std::move(tokenizer));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  return encode_with_user_text(text, {}, options);
}

std::vector<int32_t> Tokenizer::encode_with_user_text(std::string_view text,
                                                      std::span<const TextRange> user_text,
                                                      const EncodeOptions& options) const {
  const Impl& impl = *impl_;
  Impl::Call call;
  if (options.add_special && impl.source.add_bos && impl.source.bos) {
    call.out.push_back(*impl.source.bos);
  }
  cut_at_added(
      impl.raw, text, options.parse_special, user_text,
      [&](size_t begin, size_t end) {
        impl.encode_segment(text.substr(begin, end - begin), begin, user_text,
                            options.parse_special, call);
      },
      [&](int32_t id) { call.out.push_back(id); });
  if (options.add_special && impl.source.add_eos && impl.source.eos) {
    call.out.push_back(*impl.source.eos);
  }
  return std::move(call.out);
}

Result<std::string> Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string out;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocab_size()) {
      return bad_input(Refusal::kRange, "id " + std::to_string(ids[i]) +
                                            " is outside the vocabulary of " +
                                            std::to_string(vocab_size()) + " tokens")
          .at("ids[" + std::to_string(i) + "]");
    }
    if (skip_special && is_special(ids[i])) continue;
    out += token_bytes(ids[i]);
  }
  if (impl_->source.strip_first_space && !out.empty() && out.front() == ' ') out.erase(0, 1);
  return replace_invalid_utf8(out);
}

std::string_view Tokenizer::token_bytes(int32_t id) const {
  if (id < 0 || id >= vocab_size()) return {};
  const auto i = static_cast<size_t>(id);
  return std::string_view(impl_->bytes)
      .substr(impl_->byte_begins[i], impl_->byte_begins[i + 1] - impl_->byte_begins[i]);
}

bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && id < vocab_size() && impl_->special[static_cast<size_t>(id)];
}
int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(impl_->source.tokens.size()); }
const TokenizerSource& Tokenizer::source() const { return impl_->source; }
std::span<const int32_t> Tokenizer::stop_ids() const { return impl_->stop_ids; }

}  // namespace pome
