#include <utility>

#include "tokenizer/subword_model.h"
#include "tokenizer/vocabulary.h"

namespace pome {
namespace {

class WordLevel final : public SubwordModel {
 public:
  WordLevel(const TokenizerSource& source, const std::vector<bool>& text_of_user)
      : vocabulary_(source.tokens, text_of_user), unknown_(source.unknown.value_or(-1)) {}
  void encode(std::string_view piece, Scratch& /*scratch*/,
              std::vector<int32_t>& out) const override {
    const int32_t id = vocabulary_.find(piece);
    if (id >= 0) {
      out.push_back(id);
    } else if (unknown_ >= 0) {
      out.push_back(unknown_);
    }
  }

 private:
  Vocabulary vocabulary_;
  int32_t unknown_;
};

}  // namespace

Result<std::unique_ptr<SubwordModel>> make_word_level(const TokenizerSource& source,
                                                      const std::vector<bool>& text_of_user) {
  return std::unique_ptr<SubwordModel>(std::make_unique<WordLevel>(source, text_of_user));
}

}  // namespace pome
