// convert --to gguf: one file that llama.cpp loads, alone or in an artefact folder with a manifest.
#pragma once

#include "pipeline/convert.h"

namespace pome {

Result<ConvertReport> convert_to_gguf(const ConvertOptions& options, const WorkContext& work);

}  // namespace pome
