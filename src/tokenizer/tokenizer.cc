#include "tokenizer/tokenizer.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <optional>
#include <utility>

#include "tokenizer/added_split.h"
#include "tokenizer/detokenizer.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/source_check.h"
#include "tokenizer/stop_ids.h"
#include "tokenizer/subword_model.h"
#include "tokenizer/tokenizer_impl.h"
#include "tokenizer/word_cache.h"

namespace pome {
namespace {

constexpr size_t kMaxPieceBytes = size_t{1} << 30;  // positions inside a piece are 32-bit
constexpr size_t kKeptScratch = size_t{1} << 20;    // symbols

}  // namespace

// What one call of encode() works with. Calls are kept for the next one, with their words.
struct Tokenizer::Impl::Call {
  SubwordModel::Scratch scratch;
  PreTokenizer::Scratch pieces;
  ShortWordCache short_words;
  LongWordCache long_words;
  std::vector<int32_t> out;

  // Short words that wait: their places in the cache are on their way from memory.
  struct Waiting {
    std::string_view word;
    ShortWordCache::Key key;
    ShortWordCache::Place* place = nullptr;
  };
  static constexpr size_t kMostWaiting = 16;
  std::array<Waiting, kMostWaiting> waiting;
  size_t waiting_count = 0;
};

class Tokenizer::Impl::CallPool {
 public:
  std::unique_ptr<Call> take() {
    {
      const std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        auto call = std::move(free_.back());
        free_.pop_back();
        return call;
      }
    }
    return std::make_unique<Call>();
  }
  void give(std::unique_ptr<Call> call) {
    call->out.clear();
    if (call->scratch.ids.capacity() > kKeptScratch) call->scratch = {};
    if (call->scratch.merging.next.capacity() > kKeptScratch) call->scratch = {};
    for (std::string& text : call->pieces.texts) {
      if (text.capacity() > kKeptScratch) text = std::string();
    }
    const std::lock_guard lock(mutex_);
    if (free_.size() < kKept) free_.push_back(std::move(call));
  }

 private:
  static constexpr size_t kKept = 8;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Call>> free_;
};

Tokenizer::Impl::Impl() : pool(std::make_unique<CallPool>()) {}
Tokenizer::Impl::~Impl() = default;

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

// Tokens that are `normalized` are looked for in normalised text, in their own normal form, which
// is also what they decode to.
void Tokenizer::Impl::group_added() {
  texts.assign(source.tokens.begin(), source.tokens.end());
  std::vector<AddedToken> tokens[2];
  std::vector<std::string> found_by[2];
  std::vector<bool> is_special[2];
  normal_texts.reserve(source.added.size());  // views of the texts stay valid
  for (const AddedToken& token : source.added) {
    const auto id = static_cast<size_t>(token.id);
    const size_t group = token.normalized ? 1 : 0;
    normal_texts.push_back(token.normalized ? normalizer.run(token.content) : token.content);
    texts[id] = normal_texts.back();
    tokens[group].push_back(token);
    found_by[group].push_back(normal_texts.back());
    is_special[group].push_back(special[id]);
  }
  raw = AddedGroup(std::move(tokens[0]), found_by[0], is_special[0]);
  normalized = AddedGroup(std::move(tokens[1]), found_by[1], is_special[1]);
}

Status Tokenizer::Impl::make_model() {
  std::vector<bool> text_of_user(source.tokens.size());
  for (size_t id = 0; id < text_of_user.size(); ++id) {
    text_of_user[id] =
        !special[id] && (source.kinds.empty() || source.kinds[id] != TokenKind::kUnused);
  }
  auto made = [&]() -> Result<std::unique_ptr<SubwordModel>> {
    switch (source.model) {
      case TokenizerSource::Model::kBpe:
        return pre_tokenizer.gives_bytes() ? make_byte_bpe(source, vocabulary, text_of_user)
                                           : make_char_bpe(source, vocabulary, text_of_user);
      case TokenizerSource::Model::kWordLevel:
        return make_word_level(source, vocabulary, text_of_user);
      case TokenizerSource::Model::kUnigram:
        return make_unigram(source, text_of_user);
      case TokenizerSource::Model::kWordPiece:
        return make_wordpiece(source, text_of_user);
      case TokenizerSource::Model::kNone:
        break;
    }
    return missing("there is no tokenizer").at("model");
  }();
  if (!made.ok()) return std::move(made).status();
  model = *std::move(made);
  return {};
}

void Tokenizer::Impl::encode_segment(std::string_view text, size_t offset,
                                     std::span<const TextRange> user_text, bool parse_special,
                                     Call& call) const {
  std::string own;
  std::string_view view = text;
  std::vector<TextRange> closed;
  if (parse_special && normalized.has_special()) {
    for (const TextRange& range : user_text) {
      if (range.end <= offset || range.begin >= offset + text.size()) continue;
      closed.push_back(
          {std::max(range.begin, offset) - offset, std::min(range.end - offset, text.size())});
    }
  }
  if (!normalizer.empty()) {
    own = closed.empty() ? normalizer.run(text) : normalizer.run(text, closed);
    view = own;
  }
  normalized.cut(
      view, parse_special, closed,
      [&](size_t begin, size_t end) {
        encode_text(view.substr(begin, end - begin), offset == 0 && begin == 0, call);
      },
      [&](int32_t id) { call.out.push_back(id); });
}

// The pieces of a text that needs no further normalising.
void Tokenizer::Impl::encode_text(std::string_view text, bool at_start, Call& call) const {
  const char* end = text.data() + text.size();
  if (!pre_tokenizer.cuts_only()) {  // pieces do not lie in the text and have to be taken at once
    pre_tokenizer.split(text, at_start, call.pieces, [&](std::string_view piece) {
      encode_piece(piece, piece.size(), call);
      encode_waiting(call);
    });
    return;
  }
  pre_tokenizer.split(text, at_start, call.pieces, [&](std::string_view piece) {
    encode_piece(piece, static_cast<size_t>(end - piece.data()), call);
  });
  encode_waiting(call);
}

// `readable`: so many bytes may be read from the beginning of the piece.
void Tokenizer::Impl::encode_piece(std::string_view piece, size_t readable, Call& call) const {
  if (piece.size() <= ShortWordCache::kMaxWord) {
    Call::Waiting& waiting = call.waiting[call.waiting_count++];
    waiting.word = piece;
    waiting.key = ShortWordCache::key_of(piece, readable);
    waiting.place = call.short_words.place(waiting.key);
    __builtin_prefetch(waiting.place);
    if (call.waiting_count == Call::kMostWaiting) encode_waiting(call);
    return;
  }
  encode_waiting(call);
  if (piece.size() > LongWordCache::kMaxWord) {
    encode_long_piece(piece, call);
    return;
  }
  const LongWordCache::Key key = LongWordCache::key_of(piece, readable);
  LongWordCache::Place* place = call.long_words.place(key);
  if (const auto* slot = LongWordCache::find(place, key)) {
    call.out.insert(call.out.end(), slot->ids.begin(), slot->ids.begin() + slot->count);
    return;
  }
  const size_t begin = call.out.size();
  model->encode(piece, call.scratch, call.out);
  const size_t count = call.out.size() - begin;
  if (count <= LongWordCache::kMaxIds) {
    LongWordCache::put(place, key, call.out.data() + begin, count);
  }
}

// Pieces that are no words: cut where no token reaches across, if the model knows such places.
void Tokenizer::Impl::encode_long_piece(std::string_view piece, Call& call) const {
  for (size_t at = 0; at < piece.size();) {
    const size_t end = std::min(model->next_cut(piece, at), at + kMaxPieceBytes);
    const std::string_view part = piece.substr(at, end - at);
    if (part.size() <= ShortWordCache::kMaxWord) {
      encode_piece(part, piece.size() - at, call);
    } else {
      encode_waiting(call);
      model->encode(part, call.scratch, call.out);
    }
    at = end;
  }
  encode_waiting(call);
}

void Tokenizer::Impl::encode_waiting(Call& call) const {
  std::vector<int32_t>& out = call.out;
  for (size_t i = 0; i < call.waiting_count; ++i) {
    const Call::Waiting& waiting = call.waiting[i];
    if (const auto* slot = ShortWordCache::find(waiting.place, waiting.key)) {
      for (uint32_t k = 0; k < slot->count; ++k) out.push_back(slot->ids[k]);
      continue;
    }
    const size_t begin = out.size();
    model->encode(waiting.word, call.scratch, out);
    const size_t count = out.size() - begin;
    if (count <= ShortWordCache::kMaxIds) {
      ShortWordCache::put(waiting.place, waiting.key, out.data() + begin, count);
    }
  }
  call.waiting_count = 0;
}

Tokenizer::Tokenizer() : impl_(std::make_unique<Impl>()) {}
Tokenizer::~Tokenizer() = default;

Result<std::shared_ptr<const Tokenizer>> Tokenizer::create(TokenizerSource source) {
  POME_RETURN_IF_ERROR(check_source(source));
  std::shared_ptr<Tokenizer> tokenizer(new Tokenizer());
  Impl& impl = *tokenizer->impl_;
  impl.source = std::move(source);
  const TokenizerSource& from = impl.source;
  const auto build = [&]() -> Status {
    POME_ASSIGN_OR_RETURN(impl.vocabulary, Vocabulary::create(from));
    impl.find_special();
    POME_ASSIGN_OR_RETURN(impl.normalizer, NormalizerChain::create(from.normalizer));
    const bool bytes = from.model == TokenizerSource::Model::kBpe && !from.byte_fallback;
    POME_ASSIGN_OR_RETURN(impl.pre_tokenizer, PreTokenizer::create(from.pre_tokenizer, bytes));
    POME_RETURN_IF_ERROR(impl.make_model());
    impl.group_added();
    POME_ASSIGN_OR_RETURN(impl.detokenizer, Detokenizer::create(from.decoder, impl.texts));
    impl.stop_ids = find_stop_ids(from, impl.special);
    return {};
  };
  if (Status status = build(); !status.ok()) return std::move(status).in(from.origin);
  return std::shared_ptr<const Tokenizer>(std::move(tokenizer));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  return encode_with_user_text(text, {}, options);
}

std::vector<int32_t> Tokenizer::encode_with_user_text(std::string_view text,
                                                      std::span<const TextRange> user_text,
                                                      const EncodeOptions& options) const {
  const Impl& impl = *impl_;
  std::unique_ptr<Impl::Call> call = impl.pool->take();
  std::vector<int32_t>& out = call->out;
  if (options.add_special) out = impl.source.prefix_ids;
  impl.raw.cut(
      text, options.parse_special, user_text,
      [&](size_t begin, size_t end) {
        impl.encode_segment(text.substr(begin, end - begin), begin, user_text,
                            options.parse_special, *call);
      },
      [&](int32_t id) { out.push_back(id); });
  if (options.add_special) {
    out.insert(out.end(), impl.source.suffix_ids.begin(), impl.source.suffix_ids.end());
  }
  std::vector<int32_t> ids = std::move(out);
  impl.pool->give(std::move(call));
  return ids;
}

Result<std::string> Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::vector<int32_t> kept;
  kept.reserve(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocab_size()) {
      return bad_input(Refusal::kRange, "id " + std::to_string(ids[i]) +
                                            " is outside the vocabulary of " +
                                            std::to_string(vocab_size()) + " tokens")
          .at("ids[" + std::to_string(i) + "]");
    }
    if (!(skip_special && is_special(ids[i]))) kept.push_back(ids[i]);
  }
  return impl_->detokenizer.decode(kept, impl_->texts);
}

std::string_view Tokenizer::token_bytes(int32_t id) const {
  if (id < 0 || id >= vocab_size()) return {};
  return impl_->detokenizer.bytes(id);
}

bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && id < vocab_size() && impl_->special[static_cast<size_t>(id)];
}
int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(impl_->source.tokens.size()); }
const TokenizerSource& Tokenizer::source() const { return impl_->source; }
std::span<const int32_t> Tokenizer::stop_ids() const { return impl_->stop_ids; }

}  // namespace pome
