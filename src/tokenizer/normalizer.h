// Runs the normalizer steps of a tokenizer. Linear time for any text.
//
// Thread safety: immutable after creation.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tokenizer/pattern.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_steps.h"

namespace pome {

class NormalizerChain {
 public:
  // kUnsupported (refusal kRegex), kRange and kLimit name the step as normalizer[i].
  static Result<NormalizerChain> create(const std::vector<NormalizerStep>& steps);
  bool empty() const { return steps_.empty(); }

  std::string run(std::string_view text) const;
  // The same; `ranges` (sorted, not overlapping) of the text become those of the result that came
  // from them. What mixes characters from inside and outside counts as inside.
  std::string run(std::string_view text, std::vector<TextRange>& ranges) const;

 private:
  // Either a rewriting that keeps no track of positions and treats ASCII characters that are
  // neighbours independently of each other, or one that writes through a RangeWriter.
  struct Step {
    std::function<std::string(std::string_view)> opaque;
    std::function<std::string(std::string_view, std::vector<TextRange>*)> tracked;
  };
  static Result<Step> compile(const NormalizerStep& step);
  static std::string run_opaque(const Step& step, std::string_view text,
                                std::vector<TextRange>& ranges);
  std::vector<Step> steps_;
};

}  // namespace pome
