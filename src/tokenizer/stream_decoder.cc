#include <utility>

#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_impl.h"

namespace pome {

struct StreamDecoder::Impl {
  std::shared_ptr<const Tokenizer> tokenizer;
  const Tokenizer::Impl& parts;
  bool skip_special;
  Detokenizer::Stream stream;
};

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special,
                             bool at_start) {
  const Tokenizer::Impl& parts = *tokenizer->impl_;
  impl_.reset(new Impl{std::move(tokenizer), parts, skip_special,
                       Detokenizer::Stream(&parts.detokenizer, at_start)});
}
StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;

std::string StreamDecoder::push(int32_t id) {
  const Tokenizer& tokenizer = *impl_->tokenizer;
  if (id < 0 || id >= tokenizer.vocab_size()) return {};
  if (impl_->skip_special && tokenizer.is_special(id)) return {};
  return impl_->stream.push(id, impl_->parts.texts[static_cast<size_t>(id)]);
}

std::string StreamDecoder::flush() { return impl_->stream.flush(); }

}  // namespace pome
