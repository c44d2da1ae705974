// Runs the pre-tokenizer steps of a tokenizer: cuts text into the pieces that the subword model
// sees, each step inside the pieces of the one before it. Linear time for any text, but for
// patterns that only a regular expression can state (regex.h).
//
// Thread safety: immutable after creation; each thread brings its own Scratch.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "tokenizer/pattern.h"
#include "tokenizer/tokenizer_steps.h"

namespace pome {

class PreTokenizer {
 public:
  // `bytes_for_model`: the model takes bytes where the last step is ByteLevel, so that the step
  // only cuts; elsewhere ByteLevel writes the characters of its alphabet. Errors name the step as
  // pre_tokenizer[i]: kUnsupported (refusal kRegex) for a pattern, kRange, kLimit.
  static Result<PreTokenizer> create(const std::vector<PreTokenizerStep>& steps,
                                     bool bytes_for_model);
  // Whether pieces are bytes that stand for themselves, not the text of tokens.
  bool gives_bytes() const { return gives_bytes_; }
  // Whether pieces are parts of the text itself, which stay where they are.
  bool cuts_only() const { return cuts_only_; }

  struct Scratch {
    std::vector<std::string> texts;  // per step
    std::vector<std::vector<TextSpan>> matches;
  };
  class Sink {
   public:
    virtual ~Sink() = default;
    virtual void piece(std::string_view text) = 0;
  };
  // Calls emit(std::string_view) for each piece in order. `at_start`: the text begins the whole
  // text. Pieces are valid during the call only.
  template <typename Emit>
  void split(std::string_view text, bool at_start, Scratch& scratch, const Emit& emit) const {
    // One rule that matches all text is the common case and the fast one.
    if (only_rule_ != nullptr) {
      for (size_t at = 0; at < text.size();) {
        const TextSpan match = only_scan_(*only_rule_, text, at);
        if (at < match.begin) emit(text.substr(at, match.begin - at));
        if (match.begin < match.end) emit(text.substr(match.begin, match.end - match.begin));
        at = match.end;
      }
      return;
    }
    struct Caller final : Sink {
      explicit Caller(const Emit& to) : emit(to) {}
      void piece(std::string_view part) override { emit(part); }
      const Emit& emit;
    } sink(emit);
    scratch.texts.resize(stages_.size());
    scratch.matches.resize(stages_.size());
    run(0, text, at_start, scratch, sink);
  }

 private:
  enum class Kind : uint8_t {
    kPattern,      // the matches of `pattern`
    kPunctuation,  // every punctuation character
    kWords,        // \w+|[^\w\s]+
    kScripts,
    kFixedLength,
    kPrefixSpace,
    kMetaspace,
    kByteLevel  // into the alphabet
  };
  struct Stage {
    Kind kind = Kind::kPattern;
    std::vector<Pattern> pattern;  // one, or none
    SplitBehavior behavior = SplitBehavior::kIsolated;
    bool invert = false;
    pretokenizer::Metaspace metaspace;
    uint32_t length = 0;
  };
  void add(const PreTokenizerStep& step, bool last, bool bytes_for_model, Status& status);
  void add_pattern(const TextPattern& pattern, SplitBehavior behavior, bool invert, Status& status);
  void add_kind(Kind kind, SplitBehavior behavior = SplitBehavior::kIsolated, bool invert = false);
  void run(size_t stage, std::string_view text, bool at_start, Scratch& scratch, Sink& sink) const;
  void cut(size_t stage, std::string_view text, bool at_start, Scratch& scratch, Sink& sink) const;
  void cut_at_scripts(size_t stage, std::string_view text, bool at_start, Scratch& scratch,
                      Sink& sink) const;

  std::vector<Stage> stages_;
  bool gives_bytes_ = false, cuts_only_ = true;
  // Set when the only stage is a word rule whose matches are isolated.
  std::shared_ptr<const WordRule> only_rule_;
  WordScanner only_scan_ = nullptr;
};

}  // namespace pome
