// The long part of convert: rounding weights with the activations of a text, so that it can be
// interrupted.
#pragma once

#include <string>

#include "base/progress.h"
#include "base/status.h"
#include "formats/checkpoint.h"
#include "graph/graph.h"
#include "pipeline/convert.h"
#include "pipeline/quality.h"

namespace pome {

// Where the work leaves what it has finished: beside the output.
std::string work_folder(const ConvertOptions& options);

// Changes the graph by the transforms that the options name (quantize/transform.h), for the
// encodings of `quantised`. `statistics`: of the graph's activations, may be empty. `may_insert`:
// whether the target takes products that the model has not.
Status transform_weights(const Graph& quantised, const ActivationStatistics& statistics,
                         bool may_insert, const ConvertOptions& options, Graph* graph,
                         ConvertReport* report);

// Replaces the data of `quantised` by what rounding `graph` with the statistics of a text gives.
// `scaled`: StreamOptions::scaled; `scheme`: all that was chosen of how weights are stored.
Status round_weights(const Graph& graph, Graph* quantised, const Checkpoint& checkpoint,
                     const CalibrationText& text, Quality quality, bool scaled,
                     const std::string& scheme, const ConvertOptions& options,
                     const WorkContext& work, ConvertReport* report);

}  // namespace pome
