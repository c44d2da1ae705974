#include "tokenizer/normalizer.h"

#include <type_traits>
#include <utility>

#include "tokenizer/byte_level.h"
#include "tokenizer/charsmap.h"
#include "tokenizer/sentencepiece_normalizer.h"
#include "tokenizer/text_ranges.h"
#include "tokenizer/unicode.h"
#include "tokenizer/unicode_normal.h"

namespace pome {
namespace {

using Ranges = std::vector<TextRange>;

// Gives a writer for the text, and what it wrote: with the ranges mapped where there are any.
template <typename Write>
std::string written(std::string_view text, Ranges* ranges, const Write& write) {
  static const Ranges kNone;
  RangeWriter out(text, ranges ? *ranges : kNone);
  write(out);
  if (ranges) *ranges = out.take_ranges();
  return out.take_text();
}

std::string replace(const Pattern& pattern, const std::string& content, std::string_view text,
                    Ranges* ranges) {
  return written(text, ranges, [&](RangeWriter& out) {
    std::vector<TextSpan> scratch;
    size_t done = 0;
    pattern.each_match(text, scratch, [&](const TextSpan& match) {
      out.copy(done, match.begin);
      out.replace(match.begin, match.end, content);
      done = match.end;
    });
    out.copy(done, text.size());
  });
}

// ' ' -> U+2581 and the like: what SentencePiece models do to every text.
std::string replace_byte(char byte, const std::string& content, std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 2 + content.size());
  size_t begin = 0;
  while (true) {
    const size_t end = text.find(byte, begin);
    out.append(text.substr(begin, end - begin));
    if (end == std::string_view::npos) return out;
    out += content;
    begin = end + 1;
  }
}

std::string strip(bool left, bool right, std::string_view text, Ranges* ranges) {
  size_t begin = 0, end = text.size();
  while (left && begin < end) {
    const Rune rune = decode_rune(text, begin);
    if (!rune.valid || !is_white_space(rune.point)) break;
    begin += rune.size;
  }
  while (right && end > begin) {
    const Rune rune = decode_rune_before(text, end);
    if (!rune.valid || !is_white_space(rune.point)) break;
    end -= rune.size;
  }
  return written(text, ranges, [&](RangeWriter& out) { out.copy(begin, end); });
}

std::string nmt(std::string_view text, Ranges* ranges) {
  const auto dropped = [](char32_t c) {
    return (c >= 1 && c <= 8) || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F || c == 0x8F ||
           c == 0x9F;
  };
  const auto space = [](char32_t c) {
    return c == 9 || c == 0x0A || c == 0x0C || c == 0x0D || c == 0x1680 ||
           (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
           c == 0xFEFF || c == 0xFFFD;
  };
  return written(text, ranges, [&](RangeWriter& out) {
    for (size_t i = 0; i < text.size();) {
      const Rune rune = decode_rune(text, i);
      const size_t end = i + rune.size;
      if (space(rune.point)) {
        out.replace(i, end, " ");
      } else if (!dropped(rune.point)) {
        out.copy(i, end);
      }
      i = end;
    }
  });
}

std::string to_byte_level(std::string_view text, Ranges* ranges) {
  return written(text, ranges, [&](RangeWriter& out) {
    for (size_t i = 0; i < text.size(); ++i) {
      out.replace(i, i + 1, token_of_bytes(text.substr(i, 1)));
    }
  });
}

std::string bert(const normalizer::Bert& options, std::string_view text) {
  std::string out = options.clean_text ? bert_clean(text) : std::string(text);
  if (options.handle_chinese_chars) out = bert_space_ideographs(out);
  if (options.strip_accents) out = bert_strip_accents(out);
  if (options.lowercase) out = lowercase(out);
  return out;
}

NormalForm form_of(normalizer::Form form) {
  switch (form) {
    case normalizer::Form::kNfc:
      return NormalForm::kNfc;
    case normalizer::Form::kNfd:
      return NormalForm::kNfd;
    case normalizer::Form::kNfkc:
      return NormalForm::kNfkc;
    case normalizer::Form::kNfkd:
      break;
  }
  return NormalForm::kNfkd;
}

bool is_ascii(std::string_view text) {
  for (const char c : text) {
    if (static_cast<uint8_t>(c) >= 128) return false;
  }
  return true;
}

// Between two ASCII characters no rewriting looks across, but CR LF are one.
bool is_seam(std::string_view text, size_t at) {
  if (at == 0 || at == text.size()) return true;
  const auto before = static_cast<uint8_t>(text[at - 1]), behind = static_cast<uint8_t>(text[at]);
  return before < 128 && behind < 128 && !(before == '\r' && behind == '\n');
}

}  // namespace

Result<NormalizerChain::Step> NormalizerChain::compile(const NormalizerStep& step) {
  using namespace normalizer;  // NOLINT: the steps
  Step out;
  if (const auto* form = std::get_if<UnicodeForm>(&step)) {
    out.opaque = [form = form_of(form->form)](std::string_view text) {
      // ASCII is its own normal form in all of them.
      return is_ascii(text) ? std::string(text) : normalize_unicode(text, form);
    };
  } else if (std::holds_alternative<Lowercase>(step)) {
    out.opaque = [](std::string_view text) { return lowercase(text); };
  } else if (std::holds_alternative<StripAccents>(step)) {
    out.opaque = [](std::string_view text) { return remove_marks(text); };
  } else if (const auto* options = std::get_if<Bert>(&step)) {
    out.opaque = [options = *options](std::string_view text) { return bert(options, text); };
  } else if (const auto* ends = std::get_if<Strip>(&step)) {
    out.tracked = [ends = *ends](std::string_view text, Ranges* ranges) {
      return strip(ends.left, ends.right, text, ranges);
    };
  } else if (std::holds_alternative<Nmt>(step)) {
    out.tracked = nmt;
  } else if (std::holds_alternative<ByteLevel>(step)) {
    out.tracked = to_byte_level;
  } else if (const auto* prefix = std::get_if<Prepend>(&step)) {
    out.tracked = [prefix = prefix->text](std::string_view text, Ranges* ranges) {
      return written(text, ranges, [&](RangeWriter& writer) {
        if (!text.empty()) writer.replace(0, 0, prefix);
        writer.copy(0, text.size());
      });
    };
  } else if (const auto* pair = std::get_if<Replace>(&step)) {
    POME_ASSIGN_OR_RETURN(Pattern pattern, Pattern::compile(pair->pattern));
    const bool one_byte = !pair->pattern.regex && pair->pattern.text.size() == 1;
    out.tracked = [pattern = std::move(pattern), content = pair->content, one_byte,
                   byte = pair->pattern.text[0]](std::string_view text, Ranges* ranges) {
      if (one_byte && !ranges) return replace_byte(byte, content, text);
      return pome::replace(pattern, content, text, ranges);
    };
  } else if (const auto* all = std::get_if<SentencePiece>(&step)) {
    POME_ASSIGN_OR_RETURN(SentencePieceNormalizer steps, SentencePieceNormalizer::create(*all));
    out.tracked = [steps = std::move(steps)](std::string_view text, Ranges* ranges) {
      return steps.run(text, ranges);
    };
  } else {
    POME_ASSIGN_OR_RETURN(CharsMap map, CharsMap::parse(std::get<Precompiled>(step).charsmap));
    out.opaque = [map = std::move(map)](std::string_view text) {
      return map.replace_graphemes(text);
    };
  }
  return out;
}

Result<NormalizerChain> NormalizerChain::create(const std::vector<NormalizerStep>& steps) {
  constexpr size_t kMaxSteps = 32;
  if (steps.size() > kMaxSteps) {
    return bad_input(Refusal::kLimit, "more than 32 normalizer steps").at("normalizer");
  }
  NormalizerChain out;
  for (size_t i = 0; i < steps.size(); ++i) {
    auto step = compile(steps[i]);
    if (!step.ok()) {
      return std::move(step).status().at("normalizer[" + std::to_string(i) + "]");
    }
    out.steps_.push_back(*std::move(step));
  }
  return out;
}

std::string NormalizerChain::run(std::string_view text) const {
  std::string out(text);
  for (const Step& step : steps_) {
    out = step.opaque ? step.opaque(out) : step.tracked(out, nullptr);
  }
  return out;
}

std::string NormalizerChain::run_opaque(const Step& step, std::string_view text, Ranges& ranges) {
  std::vector<size_t> cuts;
  for (const TextRange& range : ranges) {
    cuts.push_back(range.begin);
    cuts.push_back(range.end);
  }
  RangeWriter out(text, ranges);
  const auto put = [&](size_t begin, size_t end) {
    if (begin < end) out.replace(begin, end, step.opaque(text.substr(begin, end - begin)));
  };
  size_t done = 0;
  for (size_t i = 0; i < cuts.size();) {
    size_t low = std::max(cuts[i], done), high = low;
    while (!is_seam(text, low) && low > done) --low;
    size_t behind = i;
    while (behind < cuts.size() && cuts[behind] <= high) {
      high = std::max(high, cuts[behind++]);
      while (!is_seam(text, high)) ++high;
    }
    put(done, low);
    // Around a cut the parts give what the whole gives, or the whole counts as inside.
    std::string joined;
    std::vector<std::pair<size_t, size_t>> parts;
    size_t begin = low;
    for (size_t k = i; k <= behind && low < high; ++k) {
      const size_t end = k == behind ? high : std::max(begin, cuts[k]);
      if (begin < end) {
        parts.emplace_back(begin, end);
        joined += step.opaque(text.substr(begin, end - begin));
      }
      begin = end;
    }
    if (low < high && joined == step.opaque(text.substr(low, high - low))) {
      for (const auto& [from, to] : parts) put(from, to);
    } else {
      put(low, high);
    }
    done = high;
    i = behind;
  }
  put(done, text.size());
  ranges = out.take_ranges();
  return out.take_text();
}

std::string NormalizerChain::run(std::string_view text, Ranges& ranges) const {
  std::string out(text);
  for (const Step& step : steps_) {
    out = step.opaque ? run_opaque(step, out, ranges) : step.tracked(out, &ranges);
  }
  return out;
}

}  // namespace pome
