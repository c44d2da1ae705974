#include "formats/tiktoken.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/base64.h"
#include "formats/tiktoken_encodings.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/text_table.h"

namespace pome {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{64} << 20;
constexpr size_t kMaxTokenBytes = 1024;
constexpr uint32_t kMaxRank = (uint32_t{1} << 22) - 1;

struct Entry {
  std::string bytes;
  uint32_t rank = 0;
};

std::optional<Entry> parse_line(std::string_view line) {
  const size_t space = line.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  const std::string_view digits = line.substr(space + 1);
  if (digits.empty() || digits.size() > 7) return std::nullopt;
  Entry out;
  for (const char c : digits) {
    if (c < '0' || c > '9') return std::nullopt;
    out.rank = out.rank * 10 + static_cast<uint32_t>(c - '0');
  }
  auto bytes = decode_base64(line.substr(0, space));
  if (!bytes || bytes->empty()) return std::nullopt;
  out.bytes = *std::move(bytes);
  return out;
}

std::string_view next_line(std::string_view text, size_t& at) {
  const size_t end = std::min(text.find('\n', at), text.size());
  std::string_view line = text.substr(at, end - at);
  at = end + 1;
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

// Fills tokens (in the byte-level alphabet), scores and kinds; ranks that no line has are unused.
Status read_lines(std::string_view text, TokenizerSource& out) {
  TextTable seen(static_cast<size_t>(std::count(text.begin(), text.end(), '\n')) + 1);
  const auto text_of = [&](int32_t rank) -> std::string_view {
    return out.tokens[static_cast<size_t>(rank)];
  };
  size_t count = 0;
  std::array<bool, 256> bytes{};
  std::vector<bool> taken;
  size_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const std::string_view line = next_line(text, at);
    ++number;
    if (line.empty()) continue;
    const std::string where = "line " + std::to_string(number);
    const auto entry = parse_line(line);
    if (!entry) {
      return bad_input(Refusal::kRange,
                       "expected a token in base64, a space and its rank, found \"" +
                           escape_for_terminal(line, 80) + "\"")
          .at(where);
    }
    if (entry->bytes.size() > kMaxTokenBytes || entry->rank > kMaxRank) {
      return bad_input(Refusal::kLimit,
                       "a token has at most 1024 bytes and a rank of at most 4194303")
          .at(where);
    }
    if (taken.size() <= entry->rank) {
      taken.resize(entry->rank + size_t{1});
      out.tokens.resize(taken.size());
    }
    if (taken[entry->rank]) {
      return bad_input(Refusal::kDup, "rank " + std::to_string(entry->rank) + " is there twice")
          .at(where);
    }
    taken[entry->rank] = true;
    out.tokens[entry->rank] = token_of_bytes(entry->bytes);
    const auto id = static_cast<int32_t>(entry->rank);
    if (seen.insert(out.tokens[entry->rank], id, text_of) >= 0) {
      return bad_input(Refusal::kDup, "this token is there twice").at(where);
    }
    ++count;
    if (entry->bytes.size() == 1) bytes[static_cast<uint8_t>(entry->bytes[0])] = true;
  }
  const auto missing_byte = std::find(bytes.begin(), bytes.end(), false);
  if (missing_byte != bytes.end()) {
    return bad_input(Refusal::kRange,
                     "byte " + std::to_string(missing_byte - bytes.begin()) + " has no token");
  }
  // Far more ranks than lines would make a small file a large vocabulary.
  if (taken.size() > 2 * count) {
    return bad_input(Refusal::kRange, "ranks up to " + std::to_string(taken.size() - 1) + " for " +
                                          std::to_string(count) + " tokens");
  }
  for (const bool there : taken) {
    out.kinds.push_back(there ? TokenKind::kNormal : TokenKind::kUnused);
  }
  return {};
}

void add_special(const TiktokenEncoding& encoding, TokenizerSource& out) {
  for (const auto& [text, id] : encoding.special) {
    const auto i = static_cast<size_t>(id);
    if (i >= out.tokens.size()) {
      out.tokens.resize(i + 1);
      out.kinds.resize(i + 1, TokenKind::kUnused);
    }
    out.tokens[i] = text;
    out.kinds[i] = TokenKind::kControl;
    AddedToken token;
    token.id = id;
    token.content = text;
    token.special = true;
    out.added.push_back(std::move(token));
    if (text == encoding.bos) out.bos = id;
    if (text == encoding.eos) out.eos = id;
    if (text == encoding.end_of_turn) out.end_of_turn = id;
  }
  out.bos_text = out.bos ? encoding.bos : std::string();
  out.eos_text = out.eos ? encoding.eos : std::string();
}

void apply_encoding(const TiktokenEncoding& encoding, TokenizerSource& out) {
  for (size_t rank = 0; rank < out.tokens.size(); ++rank) {
    out.scores.push_back(-static_cast<double>(rank));
  }
  add_special(encoding, out);
  out.scores.resize(out.tokens.size());
  out.model = TokenizerSource::Model::kBpe;
  out.ignore_merges = true;
  if (encoding.nfc) out.normalizer = {normalizer::UnicodeForm{normalizer::Form::kNfc}};
  out.pre_tokenizer = {
      pretokenizer::Split{{encoding.pattern, true}, SplitBehavior::kIsolated, false},
      pretokenizer::ByteLevel{false, false}};
  out.decoder = {decoder::ByteLevel{}};
  if (encoding.add_bos && out.bos) out.prefix_ids = {*out.bos};
}

Result<TokenizerSource> read_ranks(const ByteSourcePtr& source) {
  if (source->size() > kMaxFileBytes) {
    return Status(bad_input(Refusal::kLimit,
                            std::to_string(source->size()) + " bytes; at most 67108864 are read"))
        .in(source->name());
  }
  std::string text(static_cast<size_t>(source->size()), '\0');
  POME_RETURN_IF_ERROR(source->read(0, std::as_writable_bytes(std::span(text))));
  TokenizerSource out;
  out.origin = source->name();
  if (Status status = read_lines(text, out); !status.ok()) {
    return std::move(status).in(source->name());
  }
  return out;
}

}  // namespace

bool looks_like_tiktoken(const ByteSource& source) {
  constexpr uint64_t kPeek = 2048;
  std::string head(static_cast<size_t>(std::min(source.size(), kPeek)), '\0');
  if (!source.read(0, std::as_writable_bytes(std::span(head))).ok()) return false;
  size_t at = 0;
  return parse_line(next_line(head, at)).has_value();
}

Result<TokenizerSource> read_tiktoken(const ByteSourcePtr& source, const Json& config) {
  POME_ASSIGN_OR_RETURN(TokenizerSource out, read_ranks(source));
  const auto tokens = std::count(out.kinds.begin(), out.kinds.end(), TokenKind::kNormal);
  const auto encoding = find_tiktoken_encoding(static_cast<size_t>(tokens), config);
  if (!encoding.ok()) return Status(encoding.status()).in(source->name());
  apply_encoding(*encoding, out);
  return out;
}

Result<TokenizerSource> read_tiktoken_as(const ByteSourcePtr& source,
                                         const TiktokenEncoding& encoding) {
  POME_ASSIGN_OR_RETURN(TokenizerSource out, read_ranks(source));
  apply_encoding(encoding, out);
  return out;
}

}  // namespace pome
