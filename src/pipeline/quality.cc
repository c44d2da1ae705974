#include "pipeline/quality.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>
#include <utility>

#include "base/byte_source.h"
#include "base/sha256.h"
#include "base/stopwatch.h"
#include "base/units.h"
#include "base/utf8.h"
#include "kernels/gemm/gemm.h"
#include "pipeline/run_text.h"
#include "tokenizer/chat_template.h"

namespace pome {

namespace {

struct Row {
  Quality quality;
  std::string_view name;
  int64_t tokens;
  bool behind_quantised;
  int rounds;
};
constexpr Row kRows[] = {
    {Quality::kFast, "fast", 4096, false, 0},  // for ranges of activations
    {Quality::kGood, "good", 4096, false, 0},
    {Quality::kBest, "best", 8192, true, 2},
};
const Row& row_of(Quality quality) { return kRows[static_cast<size_t>(quality)]; }

// Multiply-adds per second of one thread on matrices of a layer's kind.
double measured_speed() {
  constexpr int64_t kSide = 64, kDepth = 1024;
  const auto isa = selected_isa();
  const kernels::PanelKernel panel = kernels::choose_panel(isa.ok() ? *isa : Isa::kPortable);
  const std::vector<float> x(static_cast<size_t>(kSide * kDepth), 1.0f);
  std::vector<float> y(static_cast<size_t>(kSide * kSide));
  double calls = 0;
  const Stopwatch watch;
  while (watch.seconds() < 0.03) {
    panel({x.data(), kDepth, kSide, x.data(), kDepth, kSide, kDepth, y.data(), kSide});
    ++calls;
  }
  return calls * static_cast<double>(kSide * kSide * kDepth) / watch.seconds();
}

// Passages of the built-in text, with an empty line between two, that are turns of a conversation.
constexpr std::string_view kUser = "User:", kAssistant = "Assistant:";

// The turns of a passage; none where it is not a conversation.
std::vector<ChatMessage> turns_of(std::string_view passage) {
  std::vector<ChatMessage> out;
  if (passage.rfind(kUser, 0) != 0) return out;
  for (size_t at = 0; at < passage.size();) {
    size_t end = passage.find('\n', at);
    if (end == std::string_view::npos) end = passage.size();
    const std::string_view line = passage.substr(at, end - at);
    const bool user = line.rfind(kUser, 0) == 0, assistant = line.rfind(kAssistant, 0) == 0;
    std::string_view said = line.substr(user ? kUser.size() : assistant ? kAssistant.size() : 0);
    if (user || assistant) {
      out.push_back({user ? "user" : "assistant", {}});
      if (!said.empty() && said[0] == ' ') said.remove_prefix(1);
    }
    std::string& content = out.back().content;
    if (!content.empty()) content += '\n';
    content += said;
    at = end + 1;
  }
  return out;
}

// Conversations as the chat template of the model writes them, the rest as it is.
std::vector<int32_t> encode_with_template(std::string_view text, const ChatTemplate& chat_template,
                                          const Tokenizer& tokenizer, const TokenizerSource& source,
                                          size_t wanted) {
  constexpr std::string_view kBetween = "\n\n";
  std::vector<int32_t> out;
  const auto add = [&](const std::vector<int32_t>& ids) {
    out.insert(out.end(), ids.begin(), ids.end());
  };
  for (size_t begin = 0, at = 0; begin < text.size() && out.size() < wanted;) {
    // What is plain up to the next conversation goes through the tokenizer as one.
    const size_t found = text.find(kBetween, at),
                 end = found == std::string_view::npos ? text.size() : found;
    const std::vector<ChatMessage> turns = turns_of(text.substr(at, end - at));
    std::optional<std::vector<TemplateSpan>> spans;
    if (turns.size() >= 2)
      if (auto rendered = chat_template.render(turns, false, source); rendered.ok())
        spans = std::move(*rendered);
    const size_t next = std::min(text.size(), end + kBetween.size());
    if (spans || next == text.size()) {
      add(tokenizer.encode(text.substr(begin, (spans ? at : next) - begin)));
      if (spans) add(encode_spans(tokenizer, *spans));
      begin = next;
    }
    at = next;
  }
  return out;
}

}  // namespace

Result<Quality> parse_quality(std::string_view name, bool has_text) {
  if (name.empty()) return has_text ? Quality::kGood : Quality::kFast;
  for (const Row& row : kRows) {
    if (row.name != name) continue;
    if (has_text && row.quality == Quality::kFast)
      return usage_error("--quality fast looks at no text, but --calibrate gives one");
    return row.quality;
  }
  return usage_error("unknown quality \"" + escape_for_terminal(name) +
                     "\"; known are fast good best");
}

std::string_view to_string(Quality quality) { return row_of(quality).name; }
int64_t default_tokens(Quality quality) { return row_of(quality).tokens; }

int64_t window_of(const Graph& graph) {
  return std::min<int64_t>(512, graph.info.max_position_embeddings);
}

StreamOptions stream_options(Quality quality, const Graph& graph) {
  StreamOptions out;
  out.window = window_of(graph);
  out.behind_quantised = row_of(quality).behind_quantised;
  out.rounding.rounds = row_of(quality).rounds;
  return out;
}

Status check_has_tokenizer(const Checkpoint& checkpoint) {
  if (checkpoint.tokenizer.model != TokenizerSource::Model::kNone) return {};
  std::string message = "calibrating needs a tokenizer, which the checkpoint does not have";
  for (const std::string& warning : checkpoint.warnings)
    if (warning.rfind("no usable tokenizer", 0) == 0) message += ": " + warning;
  return usage_error(message);
}

Result<CalibrationText> read_calibration_text(const std::string& path, const Tokenizer& tokenizer,
                                              const TokenizerSource& source, int64_t most,
                                              int64_t window) {
  // A token is seldom more bytes than these.
  constexpr uint64_t kTokenBytes = 64, kMostTextBytes = uint64_t{1} << 30;
  CalibrationText out;
  out.name = path.empty() ? "the built-in text" : path;
  std::string text;
  if (path.empty()) {
    text = calibration_text();
  } else {
    POME_ASSIGN_OR_RETURN(text, read_text_file(path, kMostTextBytes));
  }
  if (text.find('\0') != std::string::npos || !is_valid_utf8(text))
    return bad_input(Refusal::kUtf8, "a calibration text must be UTF-8 text, this file is not")
        .in(path);
  const size_t wanted = std::min(static_cast<size_t>(most), text.size());
  size_t bytes = std::min(text.size(), wanted * kTokenBytes);
  while (bytes < text.size() && (static_cast<unsigned char>(text[bytes]) & 0xC0) == 0x80) --bytes;
  const std::string_view part = std::string_view(text).substr(0, bytes);
  std::shared_ptr<const ChatTemplate> chat_template;
  if (path.empty() && !source.chat_template.empty())
    if (auto parsed = ChatTemplate::parse(source.chat_template); parsed.ok())
      chat_template = std::move(*parsed);
  out.ids = chat_template ? encode_with_template(part, *chat_template, tokenizer, source, wanted)
                          : tokenizer.encode(part);
  out.ids.resize(std::min(out.ids.size(), wanted));
  if (source.add_bos())
    for (size_t at = 0; at < out.ids.size(); at += static_cast<size_t>(window))
      out.ids[at] = *source.bos;
  if (Status length = check_text_length(out.ids.size()); !length.ok())
    return std::move(length).in(path);
  out.digest = to_hex(sha256(std::as_bytes(std::span(out.ids))));
  return out;
}

std::string describe(const StreamEstimate& estimate, Quality quality, int64_t tokens, int threads) {
  const double seconds =
      estimate.multiply_adds / (0.6 * measured_speed() * std::max(1, threads)) + 1;
  char time[64];
  if (seconds < 90) {
    std::snprintf(time, sizeof time, "%.0f s", seconds);
  } else {
    std::snprintf(time, sizeof time, "%.0f min", std::ceil(seconds / 60));
  }
  return std::string(to_string(quality)) + " quality: " + std::to_string(tokens) +
         " tokens through " + std::to_string(estimate.parts) + " parts of the model, about " +
         time + " and up to " + human_bytes(estimate.memory_bytes) + " of memory";
}

}  // namespace pome
