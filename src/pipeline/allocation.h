// --size-limit and "3.7bpw": an encoding for each weight so that all fit and lose least.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "pipeline/convert.h"
#include "pipeline/target.h"

namespace pome {

// Takes a limit out of the flags: --weights becomes the default of the target where it says bits
// per weight. kUsage where the two flags contradict each other; kUnsupported for targets with one
// scheme.
Status settle_limit(const TargetRow& row, ConvertOptions* options);

// Chooses among what the target and its profile have (EncodingSet), by what each choice costs
// (measure_costs.h; `ids` and `statistics`: of the calibration text, may be empty), and tells the
// target (TargetWriter::choose). Nothing happens without a limit. kDoesNotFit, with the smallest
// size.
Status allocate_bits(const Graph& graph, const Checkpoint& checkpoint, std::span<const int32_t> ids,
                     const ActivationStatistics& statistics, const TargetRow& row,
                     const ConvertOptions& options, TargetWriter* target, const WorkContext& work,
                     ConvertReport* report);
// Of what was written: kDoesNotFit where it is larger than allowed.
Status check_limit(const ConvertOptions& options, const ConvertReport& report);

}  // namespace pome
