// Fitting the binary16 scale of a block of integers: value ~ scale * code, code in [low, high].
//
// For a given scale the best codes are the rounded quotients, so the squared error E(s) is a
// function of the scale alone: continuous, and a parabola S2 - 2 s A + s^2 B between breakpoints
// s = |v| / (m + 1/2), where A = sum w v q and B = sum w q^2. With the codes of one parabola the
// best real scale is A / B and its error S2 - A^2 / B.
//
//   fit_scale_exact   the best of all binary16 scales (and of both signs). Samples A and B on a
//   grid
//                     of 1 / s. A code step at scale t adds (a, b) to (A, B) with a / b = t / 2, so
//                     between two samples (A, B) lies under two known lines, which bounds A^2 / B
//                     from above; only intervals whose bound beats the best error so far are walked
//                     step by step. The grid starts where codes no longer fit twice and ends where
//                     clipping alone costs more than the best error. For few levels.
//   fit_scale_search  near-exact: samples the binary16 scales from the largest useful one downwards
//                     and refines around the best. For 8 bits and long rows.
//
// The result is the same on every machine and for every instruction set. Thread safety: pure
// functions; a ScaleScratch belongs to one call at a time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace pome {

struct CodeRange {
  int low = 0, high = 0;        // low < 0 < high, within [-128, 127]
  bool negative_scale = false;  // useful where low != -high
};
// All 16 codes and both signs of the scale: the value of largest magnitude may take the code -8
// whatever its sign. Measured, that lowers the squared error by a fifth against [-7, 7]
// (docs/quantisation.md).
inline constexpr CodeRange kInt4Range = {-8, 7, true};
inline constexpr CodeRange kInt8Range = {-127, 127, false};  // symmetric: -128 is not used

struct ScaleFit {
  uint16_t scale = 0;  // binary16; 0 when every code is 0
  double error = 0;    // sum w (v - scale * code)^2, summed in binary32 lanes
};

struct ScaleScratch {
  struct Step {
    float u, a, b;  // at 1 / scale = u the sums A and B grow by a and b
  };
  std::vector<Step> steps;
  std::vector<float> codes_from, codes_to;
};

// `weights` is empty (all one) or as long as `values`. Values are finite and at most 65504 in
// magnitude.
ScaleFit fit_scale_exact(std::span<const float> values, std::span<const float> weights,
                         const CodeRange& range, ScaleScratch* scratch);
ScaleFit fit_scale_search(std::span<const float> values, std::span<const float> weights,
                          const CodeRange& range);

// codes[i] = values[i] / scale to the nearest integer (half to even) within the range; 0 for scale
// 0. As two's complement.
void quantize_with_scale(std::span<const float> values, uint16_t scale, const CodeRange& range,
                         std::span<int8_t> codes);
// sum w (v - scale * code)^2 with those codes.
double scale_error(std::span<const float> values, std::span<const float> weights, uint16_t scale,
                   const CodeRange& range);

}  // namespace pome
