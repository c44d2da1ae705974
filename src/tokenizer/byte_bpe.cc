#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>

#include "tokenizer/byte_level.h"
#include "tokenizer/subword_model.h"
#include "tokenizer/vocabulary.h"

namespace pome {
namespace {

class ByteBpe final : public SubwordModel {
 public:
  void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& out) const override {
    if (words_ != nullptr) {
      if (const int32_t id = words_->find(token_of_bytes(piece), included_); id >= 0) {
        out.push_back(id);
        return;
      }
    }
    auto& ids = scratch.ids;
    ids.clear();
    if (simple_) {
      for (const char c : piece) ids.push_back(byte_ids_[0][static_cast<uint8_t>(c)]);
    } else {
      symbols(piece, ids);
    }
    merges_.apply(ids, nullptr, scratch.merging);
    out.insert(out.end(), ids.begin(), ids.end());
  }

  // By place in the piece: 1 is added behind the first byte, 2 at the last one.
  std::array<std::array<int32_t, 256>, 4> byte_ids_{};
  bool simple_ = true;                 // every byte has an id, the same wherever it stands
  const Vocabulary* words_ = nullptr;  // only with ignore_merges
  std::vector<bool> included_;
  MergeTable merges_;
  int32_t unknown_ = -1;
  bool fuse_unknown_ = false;

 private:
  void symbols(std::string_view piece, std::vector<int32_t>& ids) const {
    bool last_unknown = false;
    for (size_t i = 0; i < piece.size(); ++i) {
      const size_t place = (i == 0 ? 0 : 1) + (i + 1 == piece.size() ? 2 : 0);
      const int32_t id = byte_ids_[place][static_cast<uint8_t>(piece[i])];
      if (id >= 0) {
        ids.push_back(id);
      } else if (unknown_ >= 0 && !(fuse_unknown_ && last_unknown)) {
        ids.push_back(unknown_);
      }
      last_unknown = id < 0;
    }
  }
};

// One merge for each token, the last one that makes it from its bytes with tokens of higher scores.
// Others never happen: up to the moment in which two symbols join, what lies between their ends has
// become what it becomes alone. Nothing where tokens share a score.
bool merges_by_distinct_scores(const TokenizerSource& source, const std::vector<bool>& text_of_user,
                               const std::array<int32_t, 256>& byte_ids, MergeTable& table) {
  std::optional<double> last;
  for (size_t id = 0; id < source.scores.size(); ++id) {
    if (!text_of_user[id]) continue;
    if (last && source.scores[id] >= *last) return false;
    last = source.scores[id];
  }
  table = MergeTable(source.tokens.size());
  MergeTable::Scratch scratch;
  std::vector<int32_t> ids;
  std::string bytes;
  for (size_t id = 0; id < source.tokens.size(); ++id) {
    bytes.clear();
    if (!text_of_user[id] || !append_bytes_of_token(source.tokens[id], bytes)) continue;
    if (bytes.size() < 2) continue;
    ids.clear();
    for (const char c : bytes) ids.push_back(byte_ids[static_cast<uint8_t>(c)]);
    table.apply(ids, nullptr, scratch);
    if (ids.size() != 2 || ids[0] < 0 || ids[1] < 0) continue;
    table.insert({ids[0], ids[1], static_cast<int32_t>(id), static_cast<uint32_t>(id)});
  }
  return true;
}

Status set_merges(const TokenizerSource& source, const Vocabulary& vocabulary,
                  const std::vector<bool>& text_of_user, ByteBpe& model) {
  if (source.merges.empty() && !source.scores.empty()) {
    if (merges_by_distinct_scores(source, text_of_user, model.byte_ids_[0], model.merges_))
      return {};
    POME_ASSIGN_OR_RETURN(const std::vector<Merge> merges,
                          merges_by_score(source, text_of_user, [&](std::string_view text) {
                            return vocabulary.find(text, text_of_user);
                          }));
    model.merges_ = MergeTable(merges);
    return {};
  }
  POME_ASSIGN_OR_RETURN(const std::vector<Merge> merges,
                        merges_of_source(source, vocabulary, text_of_user));
  model.merges_ = MergeTable(merges);
  return {};
}

}  // namespace

Result<std::unique_ptr<SubwordModel>> make_byte_bpe(const TokenizerSource& source,
                                                    const Vocabulary& vocabulary,
                                                    const std::vector<bool>& text_of_user) {
  auto model = std::make_unique<ByteBpe>();
  for (size_t place = 0; place < 4; ++place) {
    const std::string prefix = (place & 1) != 0 ? source.continuing_subword_prefix : "";
    const std::string suffix = (place & 2) != 0 ? source.end_of_word_suffix : "";
    for (size_t byte = 0; byte < 256; ++byte) {
      const auto as_byte = static_cast<char>(byte);
      const int32_t id = vocabulary.find(
          prefix + token_of_bytes(std::string_view(&as_byte, 1)) + suffix, text_of_user);
      model->byte_ids_[place][byte] = id;
      model->simple_ = model->simple_ && id >= 0;
    }
  }
  model->simple_ = model->simple_ && source.continuing_subword_prefix.empty() &&
                   source.end_of_word_suffix.empty();
  POME_RETURN_IF_ERROR(set_merges(source, vocabulary, text_of_user, *model));
  if (source.ignore_merges) {
    model->words_ = &vocabulary;
    model->included_ = text_of_user;
  }
  model->unknown_ = source.unknown.value_or(-1);
  model->fuse_unknown_ = source.fuse_unknown;
  return std::unique_ptr<SubwordModel>(std::move(model));
}

}  // namespace pome
