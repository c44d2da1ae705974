// Rows of one way of storing, rounded with error feedback: the grid is fitted for what errors will
// count, then the codes are found against it (feedback.h).
//
// Rows, or groups of rows that share a table, are independent of each other: the result does not
// depend on how many are given at a time. Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "encoding/encoding.h"
#include "quantize/feedback.h"

namespace pome {

struct RoundingOptions {
  // Of refinement after rounding (refine.h), each about as long as the rounding, and with tables
  // three times. None without the form (Feedback::create_with_form).
  int rounds = 0;
};

// The run of columns (Feedback::create) that lets rounding fit blocks when it reaches them. Where
// weights share a feedback, the largest one.
int64_t run_for(const Encoding& encoding);

// `values`: whole rows of feedback.columns() each, finite and at most 65504 in magnitude.

// kInt of 4 or 8 bits: a binary16 scale per block, a code per value.
void round_integers(const Encoding& encoding, std::span<const float> values,
                    const Feedback& feedback, const RoundingOptions& options,
                    std::span<uint16_t> scales, std::span<int8_t> codes);
// Whole groups of kLut: 2^bits binary16 values of each, strictly ascending, an index per value.
// `row_weights`: how much the error of each row counts for the table that it shares; empty: alike.
void round_palettes(const Encoding& encoding, std::span<const float> values,
                    const Feedback& feedback, std::span<const float> row_weights,
                    const RoundingOptions& options, std::span<uint16_t> tables,
                    std::span<uint8_t> codes);
// The blocks of GGUF that can_fit_blocks().
void round_blocks(EncodingKind kind, std::span<const float> values, const Feedback& feedback,
                  const RoundingOptions& options, std::byte* out);

}  // namespace pome
