#include "pipeline/report.h"

#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/io.h"
#include "base/units.h"
#include "quantize/sample_error.h"

namespace pome {

namespace {

std::string number(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}
std::string short_number(double value) {
  char text[64];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}
Json figure(double value) { return std::isfinite(value) ? Json(value) : Json(); }

double bits_of(const WeightFigures& weight) {
  const double values = static_cast<double>(weight.rows) * static_cast<double>(weight.columns);
  return values > 0 ? 8 * static_cast<double>(weight.bytes) / values : 0;
}

std::string stem_of(const std::string& path) {
  return path.ends_with(".md") ? path.substr(0, path.size() - 3) : path;
}

Json weights_json(const ConvertReport& report) {
  Json out = Json::array();
  for (const WeightFigures& w : report.weight_figures)
    out.push_back({{"name", w.name},
                   {"encoding", w.encoding},
                   {"rows", w.rows},
                   {"columns", w.columns},
                   {"sampled_rows", w.sampled},
                   {"bytes", w.bytes},
                   {"bits_per_weight", bits_of(w)},
                   {"sqnr_db", figure(w.signal_to_noise_db)},
                   {"relative_error", w.error},
                   {"relative_error_nearest", w.nearest_error},
                   {"of_output", w.of_output},
                   {"saturation", w.saturation},
                   {"fallback", w.fallback}});
  return out;
}

Json points_json(const std::vector<AllocationReport::Point>& points) {
  Json out = Json::array();
  for (const AllocationReport::Point& point : points)
    out.push_back({{"bits_per_weight", point.bits}, {"loss", point.loss}, {"name", point.name}});
  return out;
}

}  // namespace

Json allocation_json(const AllocationReport& allocation) {
  if (allocation.limit == 0) return nullptr;
  Json weights = Json::array();
  for (const AllocationReport::Weight& w : allocation.weights)
    weights.push_back({{"name", w.name},
                       {"encoding", w.encoding},
                       {"bytes", w.bytes},
                       {"alpha", w.alpha},
                       {"relative_error", w.error},
                       {"loss", w.loss}});
  return {{"limit", allocation.limit},
          {"bytes", allocation.bytes},
          {"loss", allocation.loss},
          {"lower_bound", allocation.lower_bound},
          {"loss_is_divergence", allocation.is_divergence},
          {"measured", allocation.measured},
          {"weights", weights},
          {"curve", points_json(allocation.curve)},
          {"uniform", points_json(allocation.uniform)}};
}

Json text_json(const TextFigures& f) {
  if (f.tokens == 0) return nullptr;
  return {{"text", f.text},
          {"tokens", f.tokens},
          {"mean_kld", f.mean_kld},
          {"mean_kld_stderr", f.mean_kld_stderr},
          {"kld_999", f.kld_999},
          {"max_kld", f.max_kld},
          {"top1_agreement", f.top1_agreement},
          {"perplexity", f.perplexity},
          {"perplexity_original", f.perplexity_original},
          {"ppl_increase_percent", f.ppl_increase_percent},
          {"nll_difference", f.nll_difference},
          {"nll_difference_stderr", f.nll_difference_stderr}};
}

namespace {

std::string model_table(const ConvertReport& report, const ReportFrame& frame) {
  std::string out = "| | |\n|---|---|\n";
  const auto row = [&](const std::string& name, const std::string& value) {
    out += "| " + name + " | " + value + " |\n";
  };
  row("size", human_bytes(report.bytes) + ", weights " + human_bytes(report.exported.weight_bytes));
  row("bits per weight", number(report.exported.bits_per_weight, 3));
  const TextFigures& f = report.figures;
  if (f.tokens > 0) {
    row("text", f.text + ", " + std::to_string(f.tokens) + " tokens");
    row("mean KL divergence", short_number(f.mean_kld) + " ± " + short_number(f.mean_kld_stderr) +
                                  " (99.9 %: " + short_number(f.kld_999) + ")");
    row("same best token", number(100 * f.top1_agreement, 2) + " %");
    row("perplexity", number(f.perplexity, 4) + ", original " + number(f.perplexity_original, 4) +
                          " (" + (f.ppl_increase_percent >= 0 ? "+" : "") +
                          number(f.ppl_increase_percent, 2) + " % ± " +
                          number(100 * f.nll_difference_stderr, 2) + " %, paired)");
  }
  row("wall time",
      number(frame.seconds, 1) + " s, peak memory " + human_bytes(frame.peak_memory_bytes));
  row("bytes", human_bytes(report.source_bytes) + " of weights read, " + human_bytes(report.bytes) +
                   " written");
  if (report.calibrated_tokens > 0)
    row("calibration", std::to_string(report.calibrated_tokens) + " tokens, text " +
                           report.calibration_digest.substr(0, 16));
  row("seed", "none: nothing is drawn by chance");
  return out;
}

std::string weights_table(const ConvertReport& report) {
  std::string out =
      "## Weights\n\nError: relative squared error of the output of the product where the "
      "activations are known (*), else of the weights, from a sample of rows. Gain: of error "
      "feedback, the error when rounded to the nearest over that. Saturated: weights more than a "
      "step beyond the values of their grid.\n\n"
      "| weight | encoding | bytes | bits | SQNR dB | error | gain | saturated | why not as "
      "wished |\n|---|---|---|---|---|---|---|---|---|\n";
  for (const WeightFigures& w : report.weight_figures)
    out += "| " + w.name + " | " + w.encoding + " | " + std::to_string(w.bytes) + " | " +
           number(bits_of(w), 3) + " | " +
           (std::isfinite(w.signal_to_noise_db) ? number(w.signal_to_noise_db, 2) : "exact") +
           " | " + short_number(w.error) + (w.of_output ? "*" : "") + " | " +
           (w.error > 0 ? number(w.nearest_error / w.error, 2) : "") + " | " +
           number(100 * w.saturation, 2) + " % | " + w.fallback + " |\n";
  return out;
}

std::string allocation_table(const AllocationReport& a) {
  std::string out = "## Bit allocation\n\nLimit " + std::to_string(a.limit) +
                    " bytes of weights, used " + std::to_string(a.bytes) + ". Expected loss " +
                    short_number(a.loss) + ", no allocation loses less than " +
                    short_number(a.lower_bound) + ". Losses are from " + a.measured +
                    (a.is_divergence ? "; mean KL divergence" : "") +
                    ".\n\n| weight | encoding | bytes | alpha | error | loss |\n"
                    "|---|---|---|---|---|---|\n";
  for (const AllocationReport::Weight& w : a.weights)
    out += "| " + w.name + " | " + w.encoding + " | " + std::to_string(w.bytes) + " | " +
           short_number(w.alpha) + " | " + short_number(w.error) + " | " + short_number(w.loss) +
           " |\n";
  return out;
}

// ---- the plot

struct Mark {
  double bits = 0, loss = 0;
  std::string name;
};

class Plot {
 public:
  explicit Plot(const ConvertReport& report) {
    // A guess is no divergence.
    if (report.allocation.is_divergence) {
      for (const auto& point : report.allocation.curve)
        curve_.push_back({point.bits, point.loss, {}});
      for (const auto& point : report.allocation.uniform)
        marks_.push_back({point.bits, point.loss, point.name});
    }
    if (report.figures.tokens > 0)
      marks_.push_back({report.exported.bits_per_weight, report.figures.mean_kld, "this one"});
    for (const auto* list : {&curve_, &marks_})
      for (const Mark& mark : *list) {
        if (!(mark.loss > 0)) continue;
        low_bits_ = std::min(low_bits_, std::floor(mark.bits));
        high_bits_ = std::max(high_bits_, std::ceil(mark.bits));
        low_ = std::min(low_, std::floor(std::log10(mark.loss)));
        high_ = std::max(high_, std::ceil(std::log10(mark.loss)));
      }
    if (high_ <= low_) high_ = low_ + 1;
    if (high_bits_ <= low_bits_) high_bits_ = low_bits_ + 1;
  }
  bool empty() const { return curve_.empty() && marks_.empty(); }

  std::string svg() const {
    std::string out =
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 640 420\" "
        "font-family=\"sans-serif\" font-size=\"12\">\n"
        "<rect width=\"640\" height=\"420\" fill=\"white\"/>\n";
    for (double bits = low_bits_; bits <= high_bits_; bits += high_bits_ - low_bits_ > 10 ? 2 : 1) {
      out += line(x(bits), kTop, x(bits), kBottom, "#ddd");
      out += text(x(bits), kBottom + 16, "middle", short_number(bits));
    }
    for (double power = low_; power <= high_; ++power) {
      const double at = y(std::pow(10.0, power));
      out += line(kLeft, at, kRight, at, "#ddd");
      out += text(kLeft - 6, at + 4, "end", "1e" + number(power, 0));
    }
    out += text((kLeft + kRight) / 2, kBottom + 36, "middle", "bits per weight, in all");
    out += text(kLeft, kTop - 10, "start", "mean KL divergence (line and squares: expected)");
    std::string points;
    for (const Mark& mark : curve_)
      if (mark.loss > 0) points += number(x(mark.bits), 1) + "," + number(y(mark.loss), 1) + " ";
    out += "<polyline fill=\"none\" stroke=\"#1f6fb2\" stroke-width=\"2\" points=\"" + points +
           "\"/>\n";
    for (const Mark& mark : marks_) {
      if (!(mark.loss > 0)) continue;
      const double at_x = x(mark.bits), at_y = y(mark.loss);
      const bool measured = mark.name == "this one";
      out += measured ? "<circle cx=\"" + number(at_x, 1) + "\" cy=\"" + number(at_y, 1) +
                            "\" r=\"5\" fill=\"#c0392b\"/>\n"
                      : "<rect x=\"" + number(at_x - 4, 1) + "\" y=\"" + number(at_y - 4, 1) +
                            "\" width=\"8\" height=\"8\" fill=\"#777\"/>\n";
      out += text(at_x + 8, at_y - 6, "start", measured ? "measured" : mark.name);
    }
    return out + "</svg>\n";
  }

 private:
  static constexpr double kLeft = 60, kRight = 610, kTop = 40, kBottom = 370;
  double x(double bits) const {
    return kLeft + (bits - low_bits_) / (high_bits_ - low_bits_) * (kRight - kLeft);
  }
  double y(double loss) const {
    return kBottom - (std::log10(loss) - low_) / (high_ - low_) * (kBottom - kTop);
  }
  static std::string line(double x0, double y0, double x1, double y1, const char* colour) {
    return "<line x1=\"" + number(x0, 1) + "\" y1=\"" + number(y0, 1) + "\" x2=\"" + number(x1, 1) +
           "\" y2=\"" + number(y1, 1) + "\" stroke=\"" + colour + "\"/>\n";
  }
  static std::string text(double at_x, double at_y, const char* anchor, const std::string& what) {
    return "<text x=\"" + number(at_x, 1) + "\" y=\"" + number(at_y, 1) + "\" text-anchor=\"" +
           anchor + "\">" + what + "</text>\n";
  }

  std::vector<Mark> curve_, marks_;
  double low_bits_ = 1e9, high_bits_ = -1e9, low_ = 1e9, high_ = -1e9;
};

Status write_one(const std::string& path, bool force, const std::string& contents) {
  POME_ASSIGN_OR_RETURN(const std::unique_ptr<io::Staged> staged,
                        io::Staged::create(path, io::Staged::Kind::kFile, force));
  POME_RETURN_IF_ERROR(io::write_file(staged->path(), contents));
  return staged->commit();
}

}  // namespace

Json report_json(const ConvertReport& report, const ReportFrame& frame) {
  return {{"model", frame.model},
          {"command", frame.command},
          {"output", report.output},
          {"graph_hash", report.exported.hashes.graph_hash},
          {"bytes", report.bytes},
          {"weight_bytes", report.exported.weight_bytes},
          {"parameters", report.exported.parameters},
          {"bits_per_weight", report.exported.bits_per_weight},
          {"held_out", text_json(report.figures)},
          {"seconds", frame.seconds},
          {"peak_memory_bytes", frame.peak_memory_bytes},
          {"bytes_read", report.source_bytes},
          {"bytes_written", report.bytes},
          {"calibration",
           {{"tokens", report.calibrated_tokens}, {"sha256", report.calibration_digest}}},
          {"seed", nullptr},
          {"weights", weights_json(report)},
          {"allocation", allocation_json(report.allocation)},
          {"warnings", report.warnings},
          {"notes", report.notes}};
}

std::string report_markdown(const ConvertReport& report, const ReportFrame& frame,
                            const std::string& plot) {
  std::string out = "# " + frame.model + " as " + report.output + "\n\n`" + frame.command +
                    "`\n\n" + model_table(report, frame) + "\n";
  for (const std::string& note : report.notes) out += "- " + note + "\n";
  if (!report.notes.empty()) out += "\n";
  if (!plot.empty()) out += "![bits against divergence](" + plot + ")\n\n";
  if (report.allocation.limit > 0) out += allocation_table(report.allocation) + "\n";
  return out + weights_table(report);
}

std::string report_svg(const ConvertReport& report) {
  const Plot plot(report);
  return plot.empty() ? "" : plot.svg();
}

Result<std::vector<WeightFigures>> describe_weights(const Graph& original, const Graph& nearest,
                                                    const Graph& quantised, bool scaled,
                                                    const std::vector<TensorChoice>& choices,
                                                    const ActivationStatistics& statistics,
                                                    const WorkContext& work) {
  constexpr int64_t kRows = 128;
  std::vector<WeightFigures> out;
  Factors factors(statistics);
  if (work.progress) work.progress->begin("describe", original.constants.size(), "weights");
  for (size_t i = 0; i < original.constants.size(); ++i) {
    const Constant& constant = original.constants[i];
    if (!is_allocatable(constant)) continue;
    POME_RETURN_IF_ERROR(check_cancelled(work.cancel));
    const ConstantData& stored = *quantised.constants[i].data;
    WeightFigures one;
    one.name = constant.name;
    one.encoding = to_string(stored.encoding());
    if (i < choices.size()) one.fallback = choices[i].fallback;
    one.rows = stored.rows();
    one.columns = stored.columns();
    one.bytes = stored.stored_bytes();
    const float factor = scaled ? constant.gguf_place.factor : 1;
    POME_ASSIGN_OR_RETURN(const std::vector<FeedbackPtr> known, factors.of(constant));
    POME_ASSIGN_OR_RETURN(const SampleError error,
                          sample_error(*constant.data, factor, stored, kRows, known, true));
    POME_ASSIGN_OR_RETURN(
        const SampleError plain,
        sample_error(*constant.data, factor, *nearest.constants[i].data, kRows, known, false));
    one.sampled = error.rows;
    one.signal_to_noise_db = error.signal_to_noise_db();
    one.error = error.relative();
    one.nearest_error = plain.relative();
    one.saturation = error.saturation();
    one.of_output = error.weighted();
    out.push_back(std::move(one));
    if (work.progress) work.progress->advance(i);
  }
  if (work.progress) work.progress->end();
  return out;
}

Status check_report(const std::string& path, bool force) {
  if (force) return {};
  for (const std::string& file : {path, stem_of(path) + ".json", stem_of(path) + ".svg"}) {
    struct stat found = {};
    if (lstat(file.c_str(), &found) == 0)
      return Status(StatusCode::kExists, "exists already")
          .in(file)
          .hint("use --force to replace it");
  }
  return {};
}

Status write_report(const std::string& path, bool force, const ConvertReport& report,
                    const ReportFrame& frame) {
  const std::string stem = stem_of(path), svg = report_svg(report);
  const std::string name = stem.substr(stem.rfind('/') + 1) + ".svg";
  POME_RETURN_IF_ERROR(
      write_one(path, force, report_markdown(report, frame, svg.empty() ? std::string() : name)));
  POME_RETURN_IF_ERROR(
      write_one(stem + ".json", force, dump_json(report_json(report, frame), 2) + "\n"));
  return svg.empty() ? Status() : write_one(stem + ".svg", force, svg);
}

}  // namespace pome
