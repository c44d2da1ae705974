#include <array>
#include <string>
#include <unordered_map>
#include <utility>

#include "tokenizer/byte_level.h"
#include "tokenizer/subword_model.h"
#include "tokenizer/vocabulary.h"

namespace pome {
namespace {

class ByteBpe final : public SubwordModel {
 public:
  void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& out) const override {
    if (!words_.empty()) {
      const auto word = words_.find(std::string(piece));
      if (word != words_.end()) {
        out.push_back(word->second);
        return;
      }
    }
    auto& ids = scratch.ids;
    ids.clear();
    bool last_unknown = false;
    for (const char c : piece) {
      const int32_t id = byte_ids_[static_cast<uint8_t>(c)];
      const bool known = id >= 0;
      if (known) {
        ids.push_back(id);
      } else if (unknown_ >= 0 && !(fuse_unknown_ && last_unknown)) {
        ids.push_back(unknown_);
      }
      last_unknown = !known;
    }
    merges_.apply(ids, nullptr, scratch.merging);
    out.insert(out.end(), ids.begin(), ids.end());
  }

  std::array<int32_t, 256> byte_ids_{};
  std::unordered_map<std::string, int32_t> words_;  // only with ignore_merges; keys are bytes
  MergeTable merges_;
  int32_t unknown_ = -1;
  bool fuse_unknown_ = false;
};

}  // namespace

Result<std::unique_ptr<SubwordModel>> make_byte_bpe(const TokenizerSource& source,
                                                    const std::vector<bool>& text_of_user) {
  auto model = std::make_unique<ByteBpe>();
  const Vocabulary vocabulary(source.tokens, text_of_user);
  POME_ASSIGN_OR_RETURN(const std::vector<Merge> merges,
                        merges_of_source(source, vocabulary, text_of_user));
  model->merges_ = MergeTable(merges);
  for (size_t byte = 0; byte < 256; ++byte) {
    const auto as_byte = static_cast<char>(byte);
    model->byte_ids_[byte] = vocabulary.find(token_of_bytes(std::string_view(&as_byte, 1)));
  }
  if (source.ignore_merges) {
    for (size_t id = 0; id < source.tokens.size(); ++id) {
      if (!text_of_user[id] || source.tokens[id].empty()) continue;
      if (auto bytes = bytes_of_token(source.tokens[id])) {
        model->words_.emplace(*std::move(bytes), static_cast<int32_t>(id));
      }
    }
  }
  model->unknown_ = source.unknown.value_or(-1);
  model->fuse_unknown_ = source.fuse_unknown;
  return std::unique_ptr<SubwordModel>(std::move(model));
}

}  // namespace pome
