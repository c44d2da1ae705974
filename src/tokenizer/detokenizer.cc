#include "tokenizer/detokenizer.h"

#include <limits>
#include <utility>

#include "tokenizer/byte_level.h"
#include "tokenizer/unicode.h"

namespace pome {
namespace {

constexpr size_t kMaxSteps = 32;
constexpr std::string_view kReplacementText = "\xEF\xBF\xBD";

bool is_well_formed(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const Rune rune = decode_rune(text, i);
    if (!rune.valid) return false;
    i += rune.size;
  }
  return true;
}

std::string replace_all(std::string text, std::string_view from, std::string_view to) {
  if (from.empty()) return text;
  size_t found = text.find(from);
  if (found == std::string::npos) return text;
  std::string out;
  size_t done = 0;
  while (found != std::string::npos) {
    out.append(text, done, found - done).append(to);
    done = found + from.size();
    found = text.find(from, done);
  }
  return out.append(text, done, std::string::npos);
}

// The order matters: each works on what the one before it left.
std::string clean_up(std::string text) {
  static constexpr std::pair<std::string_view, std::string_view> kRules[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kRules) text = replace_all(std::move(text), from, to);
  return text;
}

std::string word_piece(const decoder::WordPiece& step, std::string token, bool first) {
  if (!first) {
    if (token.compare(0, step.prefix.size(), step.prefix) == 0) {
      token.erase(0, step.prefix.size());
    } else {
      token.insert(0, 1, ' ');
    }
  }
  return step.cleanup ? clean_up(std::move(token)) : token;
}

std::string metaspace(const decoder::Metaspace& step, std::string token, bool first) {
  return replace_all(std::move(token), step.replacement, first && step.drop_in_first ? "" : " ");
}

std::string strip(const decoder::Strip& step, const std::string& token) {
  const std::string& content = step.content;
  size_t begin = 0, end = token.size();
  for (uint32_t i = 0; i < step.start && token.compare(begin, content.size(), content) == 0; ++i) {
    begin += content.size();
  }
  for (uint32_t i = 0; i < step.stop && end >= begin + content.size() &&
                       token.compare(end - content.size(), content.size(), content) == 0;
       ++i) {
    end -= content.size();
  }
  return token.substr(begin, end - begin);
}

std::string replace_matches(const Pattern& pattern, const std::string& content,
                            const std::string& token) {
  std::string out;
  std::vector<TextSpan> scratch;
  size_t done = 0;
  pattern.each_match(token, scratch, [&](const TextSpan& match) {
    out.append(token, done, match.begin - done).append(content);
    done = match.end;
  });
  return out.append(token, done, std::string::npos);
}

std::string bytes_of_text(std::string_view text) {
  return bytes_of_token(text).value_or(std::string(text));
}

void byte_fallback(std::vector<std::string>& tokens) {
  std::vector<std::string> out;
  std::string run;
  const auto end_run = [&] {
    if (run.empty()) return;
    if (is_well_formed(run)) {
      out.push_back(run);
    } else {
      out.insert(out.end(), run.size(), std::string(kReplacementText));
    }
    run.clear();
  };
  for (std::string& token : tokens) {
    if (const auto byte = byte_of_placeholder(token)) {
      run.push_back(static_cast<char>(*byte));
      continue;
    }
    end_run();
    out.push_back(std::move(token));
  }
  end_run();
  tokens = std::move(out);
}

void ctc(const decoder::Ctc& step, std::vector<std::string>& tokens) {
  std::vector<std::string> out;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0 && tokens[i] == tokens[i - 1]) continue;
    std::string text = replace_all(tokens[i], step.pad_token, "");
    if (step.cleanup) text = replace_all(clean_up(std::move(text)), step.word_delimiter_token, " ");
    if (!text.empty()) out.push_back(std::move(text));
  }
  tokens = std::move(out);
}

std::string joined(const std::vector<std::string>& tokens) {
  std::string out;
  for (const std::string& token : tokens) out += token;
  return out;
}

}  // namespace

void Detokenizer::run_step(const Step& step, std::vector<std::string>& tokens) {
  using namespace decoder;  // NOLINT: the steps
  if (std::holds_alternative<ByteLevel>(step.step)) {
    std::string bytes;
    for (const std::string& token : tokens) bytes += bytes_of_text(token);
    tokens.assign(1, replace_invalid_utf8(bytes));
    return;
  }
  if (std::holds_alternative<Fuse>(step.step)) {
    tokens.assign(1, joined(tokens));
    return;
  }
  if (std::holds_alternative<ByteFallback>(step.step)) return byte_fallback(tokens);
  if (const auto* options = std::get_if<Ctc>(&step.step)) return ctc(*options, tokens);
  for (size_t i = 0; i < tokens.size(); ++i) {
    std::string& token = tokens[i];
    if (const auto* pieces = std::get_if<WordPiece>(&step.step)) {
      token = word_piece(*pieces, std::move(token), i == 0);
    } else if (const auto* marks = std::get_if<Metaspace>(&step.step)) {
      token = metaspace(*marks, std::move(token), i == 0);
    } else if (const auto* bpe = std::get_if<Bpe>(&step.step)) {
      token = replace_all(std::move(token), bpe->suffix, i + 1 == tokens.size() ? "" : " ");
    } else if (const auto* ends = std::get_if<Strip>(&step.step)) {
      token = strip(*ends, token);
    } else if (const auto* pair = std::get_if<Replace>(&step.step)) {
      token = replace_matches(step.pattern[0], pair->content, token);
    } else if (i > 0) {  // JoinWithSpaces
      token.insert(0, 1, ' ');
    }
  }
}

std::string Detokenizer::run_all(std::vector<std::string> tokens) const {
  for (const Step& step : steps_) run_step(step, tokens);
  return replace_invalid_utf8(joined(tokens));
}

template <typename T>
bool Detokenizer::is(size_t step) const {
  return step < steps_.size() && std::holds_alternative<T>(steps_[step].step);
}

// Whether the steps are some on each token alone, then bytes, then Fuse and Strip at the start.
void Detokenizer::plan() {
  using namespace decoder;  // NOLINT: the steps
  size_t i = 0;
  while (true) {
    const bool depends_on_place = is<Metaspace>(i) || is<WordPiece>(i) || is<JoinWithSpaces>(i);
    if (!depends_on_place && !is<Replace>(i) && !is<Strip>(i)) break;
    first_differs_ = first_differs_ || depends_on_place;
    ++i;
  }
  each_ = i;
  byte_level_ = is<ByteLevel>(i);
  byte_fallback_ = is<ByteFallback>(i);
  if (byte_level_ || byte_fallback_) ++i;
  bool fused = byte_level_;
  while (is<Fuse>(i)) {
    fused = true;
    ++i;
  }
  if (fused && is<Strip>(i)) {
    const auto& ends = std::get<Strip>(steps_[i].step);
    if (ends.stop == 0) {
      strip_content_ = ends.content;
      strip_count_ = ends.start;
      ++i;
    }
  }
  streams_ = i == steps_.size();
}

std::string Detokenizer::token_alone(std::string_view text, bool first) const {
  std::vector<std::string> tokens = {std::string(text)};
  if (!first) tokens.insert(tokens.begin(), std::string());
  for (size_t i = 0; i < each_; ++i) run_step(steps_[i], tokens);
  return byte_level_ ? bytes_of_text(tokens.back()) : std::move(tokens.back());
}

Result<Detokenizer> Detokenizer::create(const std::vector<DecoderStep>& steps,
                                        const std::vector<std::string_view>& texts) {
  if (steps.size() > kMaxSteps) {
    return bad_input(Refusal::kLimit, "more than 32 decoder steps").at("decoder");
  }
  Detokenizer out;
  for (size_t i = 0; i < steps.size(); ++i) {
    const std::string where = "decoder[" + std::to_string(i) + "]";
    Step step{steps[i], {}};
    if (const auto* pair = std::get_if<decoder::Replace>(&steps[i])) {
      auto pattern = Pattern::compile(pair->pattern);
      if (!pattern.ok()) return std::move(pattern).status().at(where);
      step.pattern.push_back(*std::move(pattern));
    }
    if (const auto* ends = std::get_if<decoder::Strip>(&steps[i]); ends && ends->content.empty()) {
      return bad_input(Refusal::kRange, "there is nothing to strip").at(where);
    }
    out.steps_.push_back(std::move(step));
  }
  out.plan();
  out.begins_.reserve(texts.size() + 1);
  out.is_byte_.resize(texts.size());
  const bool plain = out.each_ == 0 && !out.byte_level_;
  for (size_t id = 0; id < texts.size(); ++id) {
    if (out.bytes_.size() > std::numeric_limits<uint32_t>::max()) {
      return bad_input(Refusal::kLimit, "more than 4 GB of tokens").at("tokens");
    }
    out.begins_.push_back(static_cast<uint32_t>(out.bytes_.size()));
    if (out.byte_level_ && out.each_ == 0) {
      append_bytes_of_token(texts[id], out.bytes_);
      continue;
    }
    const std::string text = plain ? std::string(texts[id]) : out.token_alone(texts[id], false);
    const auto byte = out.byte_fallback_ ? byte_of_placeholder(text) : std::nullopt;
    out.is_byte_[id] = byte.has_value();
    if (byte) {
      out.bytes_.push_back(static_cast<char>(*byte));
    } else {
      out.bytes_ += text;
    }
  }
  out.begins_.push_back(static_cast<uint32_t>(out.bytes_.size()));
  return out;
}

std::string Detokenizer::decode(const std::vector<int32_t>& ids,
                                const std::vector<std::string_view>& texts) const {
  std::vector<std::string> tokens;
  if (!streams_) {
    for (const int32_t id : ids) tokens.emplace_back(texts[static_cast<size_t>(id)]);
    return run_all(std::move(tokens));
  }
  std::string out;
  size_t run_begin = 0;  // of byte tokens, in out
  const auto end_run = [&] {
    if (is_well_formed(std::string_view(out).substr(run_begin))) return;
    const size_t count = out.size() - run_begin;
    out.resize(run_begin);
    for (size_t i = 0; i < count; ++i) out += kReplacementText;
  };
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto id = static_cast<size_t>(ids[i]);
    if (byte_fallback_ && is_byte_[id]) {
      out += bytes(ids[i]);
      continue;
    }
    if (run_begin < out.size()) end_run();
    if (i == 0 && first_differs_) {
      out += token_alone(texts[id], true);
    } else {
      out += bytes(ids[i]);
    }
    run_begin = out.size();
  }
  if (run_begin < out.size()) end_run();
  size_t begin = 0;
  for (uint32_t i = 0;
       i < strip_count_ && out.compare(begin, strip_content_.size(), strip_content_) == 0; ++i) {
    begin += strip_content_.size();
  }
  return replace_invalid_utf8(std::string_view(out).substr(begin));
}

Detokenizer::Stream::Stream(const Detokenizer* detokenizer, bool at_start)
    : detokenizer_(detokenizer),
      first_(at_start),
      strip_(at_start ? detokenizer->strip_count_ : 0) {}

std::string Detokenizer::Stream::push(int32_t id, std::string_view text) {
  if (!detokenizer_->streams_) {
    held_.emplace_back(text);
    return {};
  }
  const bool byte = detokenizer_->byte_fallback_ && detokenizer_->is_byte_[static_cast<size_t>(id)];
  std::string out;
  if (!byte && detokenizer_->byte_fallback_) give_run(out);
  if (first_ && detokenizer_->first_differs_) {
    pending_ += detokenizer_->token_alone(text, true);
  } else {
    pending_ += detokenizer_->bytes(id);
  }
  first_ = false;
  const std::string& content = detokenizer_->strip_content_;
  while (strip_ > 0 && !pending_.empty()) {
    if (pending_.size() < content.size() && content.compare(0, pending_.size(), pending_) == 0) {
      return out;
    }
    if (pending_.compare(0, content.size(), content) == 0) {
      pending_.erase(0, content.size());
      --strip_;
    } else {
      strip_ = 0;
    }
  }
  const size_t complete = complete_prefix(pending_);
  out += replace_invalid_utf8(std::string_view(pending_).substr(0, complete));
  pending_.erase(0, complete);
  return out;
}

// The end of a run of byte tokens: what is left of it will not become a character.
void Detokenizer::Stream::give_run(std::string& out) {
  for (size_t i = 0; i < pending_.size(); ++i) out += kReplacementText;
  pending_.clear();
}

std::string Detokenizer::Stream::flush() {
  std::string out;
  if (!held_.empty()) {
    out = detokenizer_->run_all(std::move(held_));
    held_.clear();
    return out;
  }
  if (detokenizer_->byte_fallback_) {
    give_run(out);
  } else {
    out = replace_invalid_utf8(pending_);
    pending_.clear();
  }
  return out;
}

}  // namespace pome
