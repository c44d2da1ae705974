// The report of a conversion: what each weight became and cost, what the whole model lost, and a
// plot of bits against divergence.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "base/progress.h"
#include "base/status.h"
#include "pipeline/convert.h"
#include "quantize/statistics.h"

namespace pome {

// What convert() does not know itself.
struct ReportFrame {
  std::string model, command;  // command: as it was typed
  double seconds = 0;
  uint64_t peak_memory_bytes = 0;
};

// What rounding cost every weight of a quantised graph, from a sample of its rows. `nearest`: the
// same graph as it was before feedback. `scaled`: its weights are multiplied by their
// gguf_place.factor.
Result<std::vector<WeightFigures>> describe_weights(const Graph& original, const Graph& nearest,
                                                    const Graph& quantised, bool scaled,
                                                    const std::vector<TensorChoice>& choices,
                                                    const ActivationStatistics& statistics,
                                                    const WorkContext& work);

// Null where bits were not allocated, and where nobody looked.
Json allocation_json(const AllocationReport& allocation);
Json text_json(const TextFigures& figures);
Json report_json(const ConvertReport& report, const ReportFrame& frame);
// `plot`: the name of the SVG file beside it.
std::string report_markdown(const ConvertReport& report, const ReportFrame& frame,
                            const std::string& plot);
// Bits per weight to the right, mean KL divergence upwards, both logarithmic where that is needed:
// what allocation expects at other sizes, one encoding for all, and what was measured. Empty where
// nothing is known.
std::string report_svg(const ConvertReport& report);

// `path` and, beside it, the same name with .json and .svg instead of .md. kExists unless `force`.
Status write_report(const std::string& path, bool force, const ConvertReport& report,
                    const ReportFrame& frame);
// kExists where write_report would say so: asked before long work.
Status check_report(const std::string& path, bool force);

}  // namespace pome
