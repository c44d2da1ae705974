#include <utility>

#include "tokenizer/subword_model.h"
#include "tokenizer/vocabulary.h"

namespace pome {
namespace {

class WordLevel final : public SubwordModel {
 public:
  WordLevel(const Vocabulary& vocabulary, std::vector<bool> included, int32_t unknown)
      : vocabulary_(vocabulary), included_(std::move(included)), unknown_(unknown) {}
  void encode(std::string_view piece, Scratch& /*scratch*/,
              std::vector<int32_t>& out) const override {
    const int32_t id = vocabulary_.find(piece, included_);
    if (id >= 0) {
      out.push_back(id);
    } else if (unknown_ >= 0) {
      out.push_back(unknown_);
    }
  }

 private:
  const Vocabulary& vocabulary_;
  std::vector<bool> included_;
  int32_t unknown_;
};

}  // namespace

Result<std::unique_ptr<SubwordModel>> make_word_level(const TokenizerSource& source,
                                                      const Vocabulary& vocabulary,
                                                      const std::vector<bool>& text_of_user) {
  return std::unique_ptr<SubwordModel>(
      std::make_unique<WordLevel>(vocabulary, text_of_user, source.unknown.value_or(-1)));
}

}  // namespace pome
