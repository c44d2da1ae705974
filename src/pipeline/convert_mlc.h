// convert --to mlc: a weight package that MLC's engine loads beside a compiled model library.
#pragma once

#include "pipeline/convert.h"

namespace pome {

Result<ConvertReport> convert_to_mlc(const ConvertOptions& options, const WorkContext& work);

}  // namespace pome
