#include "pipeline/quality.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/byte_source.h"
#include "base/sha256.h"
#include "base/stopwatch.h"
#include "base/units.h"
#include "base/utf8.h"
#include "kernels/gemm/gemm.h"
#include "pipeline/run_text.h"

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

Result<CalibrationText> read_calibration_text(const std::string& path, const Tokenizer* tokenizer,
                                              const TokenizerSource& source, int64_t most,
                                              int64_t window) {
  if (!tokenizer)
    return usage_error("calibrating needs a tokenizer, which the checkpoint does not have");
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
  out.ids = tokenizer->encode(std::string_view(text).substr(0, bytes));
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
