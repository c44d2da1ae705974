#include "tokenizer/pretokenizer.h"

#include <optional>

#include "tokenizer/byte_level.h"
#include "tokenizer/unicode.h"
#include "tokenizer/unicode_normal.h"
#include "tokenizer/unicode_scripts.h"

namespace pome {
namespace {

constexpr size_t kMaxStages = 32;

// Joins or drops the parts of a text as a SplitBehavior says. Parts come in order and cover the
// text; `emit(begin, end)` gets the pieces, none of them empty.
template <typename Emit>
class Joiner {
 public:
  Joiner(SplitBehavior behavior, const Emit& emit) : behavior_(behavior), emit_(emit) {}

  void part(size_t begin, size_t end, bool match) {
    switch (behavior_) {
      case SplitBehavior::kIsolated:
        give(begin, end);
        return;
      case SplitBehavior::kRemoved:
        if (!match) give(begin, end);
        return;
      case SplitBehavior::kContiguous:
        if (!open_ || match != was_match_) {
          flush();
          begin_ = begin;
        }
        break;
      case SplitBehavior::kMergedWithPrevious:
        if (!(match && !was_match_ && open_)) {
          flush();
          begin_ = begin;
        }
        break;
      case SplitBehavior::kMergedWithNext:
        if (!(open_ && was_match_ && !match)) {
          flush();
          begin_ = begin;
        }
        break;
    }
    open_ = true;
    end_ = end;
    was_match_ = match;
  }
  void flush() {
    if (open_) give(begin_, end_);
    open_ = false;
  }

 private:
  void give(size_t begin, size_t end) {
    if (begin < end) emit_(begin, end);
  }
  SplitBehavior behavior_;
  const Emit& emit_;
  size_t begin_ = 0, end_ = 0;
  bool open_ = false, was_match_ = false;
};

// Calls on_match for every punctuation character.
template <typename OnMatch>
void each_punctuation(std::string_view text, const OnMatch& on_match) {
  for (size_t i = 0; i < text.size();) {
    const Rune rune = decode_rune(text, i);
    if (rune.valid && is_bert_punctuation(rune.point)) on_match(TextSpan{i, i + rune.size});
    i += rune.size;
  }
}

// \w+|[^\w\s]+
template <typename OnMatch>
void each_word(std::string_view text, const OnMatch& on_match) {
  enum class Class : uint8_t { kSpace, kWord, kOther };
  const auto class_of = [](const Rune& rune) {
    if (rune.valid && is_white_space(rune.point)) return Class::kSpace;
    return rune.valid && is_word_character(rune.point) ? Class::kWord : Class::kOther;
  };
  size_t begin = 0;
  Class open = Class::kSpace;
  for (size_t i = 0; i < text.size();) {
    const Rune rune = decode_rune(text, i);
    const Class here = class_of(rune);
    if (here != open) {
      if (open != Class::kSpace) on_match(TextSpan{begin, i});
      begin = i;
      open = here;
    }
    i += rune.size;
  }
  if (open != Class::kSpace) on_match(TextSpan{begin, text.size()});
}

// Where SentencePiece sees a change of script: kana is Han, and spaces belong to any.
Script script_for_cutting(const Rune& rune) {
  if (rune.point == ' ') return Script::kAny;
  if (rune.point == 0x30FC) return Script::kHan;
  const Script script = script_of(rune.point);
  return script == Script::kHiragana || script == Script::kKatakana ? Script::kHan : script;
}

}  // namespace

void PreTokenizer::add_kind(Kind kind, SplitBehavior behavior, bool invert) {
  Stage stage;
  stage.kind = kind;
  stage.behavior = behavior;
  stage.invert = invert;
  stages_.push_back(std::move(stage));
}

void PreTokenizer::add_pattern(const TextPattern& pattern, SplitBehavior behavior, bool invert,
                               Status& status) {
  auto compiled = Pattern::compile(pattern);
  if (!compiled.ok()) {
    status = std::move(compiled).status();
    return;
  }
  add_kind(Kind::kPattern, behavior, invert);
  stages_.back().pattern.push_back(*std::move(compiled));
}

void PreTokenizer::add(const PreTokenizerStep& step, bool last, bool bytes_for_model,
                       Status& status) {
  using namespace pretokenizer;  // NOLINT: the steps
  if (const auto* bytes = std::get_if<ByteLevel>(&step)) {
    if (bytes->add_prefix_space) add_kind(Kind::kPrefixSpace);
    if (bytes->use_regex) {
      add_pattern({std::string(gpt2_pattern()), true}, SplitBehavior::kIsolated, false, status);
    }
    if (last && bytes_for_model) {
      gives_bytes_ = true;
    } else {
      add_kind(Kind::kByteLevel);
    }
  } else if (const auto* metaspace = std::get_if<Metaspace>(&step)) {
    add_kind(Kind::kMetaspace);
    stages_.back().metaspace = *metaspace;
    if (metaspace->replacement.empty()) {
      status = bad_input(Refusal::kRange, "the replacement for spaces is empty");
    } else if (metaspace->split) {
      add_pattern({metaspace->replacement, false}, SplitBehavior::kMergedWithNext, false, status);
    }
  } else if (std::holds_alternative<Whitespace>(step)) {
    add_kind(Kind::kWords, SplitBehavior::kRemoved, true);
  } else if (std::holds_alternative<WhitespaceSplit>(step)) {
    add_pattern({"\\s", true}, SplitBehavior::kRemoved, false, status);
  } else if (std::holds_alternative<Bert>(step)) {
    add_pattern({"\\s", true}, SplitBehavior::kRemoved, false, status);
    add_kind(Kind::kPunctuation);
  } else if (const auto* punctuation = std::get_if<Punctuation>(&step)) {
    add_kind(Kind::kPunctuation, punctuation->behavior);
  } else if (const auto* digits = std::get_if<Digits>(&step)) {
    add_pattern({digits->individual ? "\\p{N}" : "\\p{N}+", true}, SplitBehavior::kIsolated, false,
                status);
  } else if (const auto* split = std::get_if<Split>(&step)) {
    add_pattern(split->pattern, split->behavior, split->invert, status);
  } else if (const auto* delimiter = std::get_if<CharDelimiter>(&step)) {
    add_pattern({delimiter->delimiter, false}, SplitBehavior::kRemoved, false, status);
  } else if (const auto* fixed = std::get_if<FixedLength>(&step)) {
    if (fixed->length == 0) status = bad_input(Refusal::kRange, "pieces of no characters");
    add_kind(Kind::kFixedLength);
    stages_.back().length = fixed->length;
  } else {
    add_kind(Kind::kScripts);
  }
}

Result<PreTokenizer> PreTokenizer::create(const std::vector<PreTokenizerStep>& steps,
                                          bool bytes_for_model) {
  PreTokenizer out;
  for (size_t i = 0; i < steps.size(); ++i) {
    Status status;
    out.add(steps[i], i + 1 == steps.size(), bytes_for_model, status);
    if (!status.ok()) {
      return std::move(status).at("pre_tokenizer[" + std::to_string(i) + "]");
    }
    if (out.stages_.size() > kMaxStages) {
      return bad_input(Refusal::kLimit, "more than 32 stages").at("pre_tokenizer");
    }
  }
  for (const Stage& stage : out.stages_) {
    const bool rewrites = stage.kind == Kind::kPrefixSpace || stage.kind == Kind::kMetaspace ||
                          stage.kind == Kind::kByteLevel;
    out.cuts_only_ = out.cuts_only_ && !rewrites;
  }
  if (out.stages_.size() == 1 && out.stages_[0].kind == Kind::kPattern) {
    const Stage& stage = out.stages_[0];
    const WordRule* rule = stage.pattern[0].word_rule();
    // Rules without gaps give the same pieces when what does not match is dropped.
    const bool covers = rule && rule->digits != WordRule::kNoDigits;
    if (rule && (stage.behavior == SplitBehavior::kIsolated ||
                 (covers && stage.behavior == SplitBehavior::kRemoved && stage.invert))) {
      out.only_rule_ = std::make_shared<const WordRule>(*rule);
      out.only_scan_ = scanner_of(*rule);
    }
  }
  return out;
}

void PreTokenizer::cut(size_t index, std::string_view text, bool at_start, Scratch& scratch,
                       Sink& sink) const {
  const Stage& stage = stages_[index];
  const auto emit = [&](size_t begin, size_t end) {
    run(index + 1, text.substr(begin, end - begin), at_start && begin == 0, scratch, sink);
  };
  Joiner joiner(stage.behavior, emit);
  size_t done = 0;
  const auto on_match = [&](const TextSpan& match) {
    if (done < match.begin) joiner.part(done, match.begin, stage.invert);
    joiner.part(match.begin, match.end, !stage.invert);
    done = match.end;
  };
  if (stage.kind == Kind::kPunctuation) {
    each_punctuation(text, on_match);
  } else if (stage.kind == Kind::kWords) {
    each_word(text, on_match);
  } else {
    stage.pattern[0].each_match(text, scratch.matches[index], on_match);
  }
  if (done < text.size()) joiner.part(done, text.size(), stage.invert);
  joiner.flush();
}

void PreTokenizer::cut_at_scripts(size_t index, std::string_view text, bool at_start,
                                  Scratch& scratch, Sink& sink) const {
  std::optional<Script> last;
  size_t begin = 0;
  const auto emit = [&](size_t end) {
    if (begin < end) {
      run(index + 1, text.substr(begin, end - begin), at_start && begin == 0, scratch, sink);
    }
    begin = end;
  };
  for (size_t i = 0; i < text.size();) {
    const Rune rune = decode_rune(text, i);
    const Script script = script_for_cutting(rune);
    if (script != Script::kAny) {
      // What stands before the first character with a script is dropped with it.
      if (!last && i > 0) begin = i;
      if (last && *last != script) emit(i);
      last = script;
    }
    i += rune.size;
  }
  if (last) emit(text.size());
}

void PreTokenizer::run(size_t index, std::string_view text, bool at_start, Scratch& scratch,
                       Sink& sink) const {
  if (text.empty()) return;
  if (index == stages_.size()) {
    sink.piece(text);
    return;
  }
  const Stage& stage = stages_[index];
  std::string& own = scratch.texts[index];
  switch (stage.kind) {
    case Kind::kPattern:
    case Kind::kPunctuation:
    case Kind::kWords:
      cut(index, text, at_start, scratch, sink);
      return;
    case Kind::kScripts:
      cut_at_scripts(index, text, at_start, scratch, sink);
      return;
    case Kind::kFixedLength:
      for (size_t begin = 0; begin < text.size();) {
        size_t end = begin;
        for (uint32_t i = 0; i < stage.length && end < text.size(); ++i) {
          end += decode_rune(text, end).size;
        }
        run(index + 1, text.substr(begin, end - begin), at_start && begin == 0, scratch, sink);
        begin = end;
      }
      return;
    case Kind::kPrefixSpace:
      if (text.front() == ' ') break;
      own.assign(1, ' ').append(text);
      text = own;
      break;
    case Kind::kMetaspace: {
      const std::string& mark = stage.metaspace.replacement;
      own.clear();
      const bool has_mark = text.front() == ' ' || text.substr(0, mark.size()) == mark;
      const PrependScheme scheme = stage.metaspace.prepend;
      if (!has_mark &&
          (scheme == PrependScheme::kAlways || (scheme == PrependScheme::kFirst && at_start))) {
        own += mark;
      }
      for (size_t begin = 0;;) {
        const size_t space = text.find(' ', begin);
        own.append(text.substr(begin, space - begin));
        if (space == std::string_view::npos) break;
        own += mark;
        begin = space + 1;
      }
      text = own;
      break;
    }
    case Kind::kByteLevel:
      own.clear();
      for (const char c : text) append_utf8(own, byte_level_character(static_cast<uint8_t>(c)));
      text = own;
      break;
  }
  run(index + 1, text, at_start, scratch, sink);
}

}  // namespace pome
