#include "kernels/gemm/gemm.h"

#include <algorithm>

namespace pome::kernels {

namespace {

#define POME_PANEL_KERNEL(isa, function) {#function, Isa::isa, function},
constexpr PanelEntry kPanelKernels[] = {
#include "kernels/gemm/kernels.inc"
};
#undef POME_PANEL_KERNEL

// The first row keeps the table from being empty where no instruction set has such kernels.
#define POME_GEMV_KERNEL(isa, fits, function) {#function, Isa::isa, fits, function},
constexpr GemvEntry kGemvKernels[] = {
    {"none", Isa::kPortable, fits_any, nullptr},
#include "kernels/gemm/kernels.inc"
};
#undef POME_GEMV_KERNEL

constexpr int64_t kPanelBytes = 32 << 10;  // the decoded panel should stay in the first-level cache
constexpr int64_t kMaxPanelRows = 16;

}  // namespace

std::span<const PanelEntry> panel_kernels() { return kPanelKernels; }
std::span<const GemvEntry> gemv_kernels() { return std::span(kGemvKernels).subspan(1); }

PanelKernel choose_panel(Isa isa) {
  return best_entry(panel_kernels(), isa, [](const PanelEntry&) { return true; })->run;
}

GemvKernel choose_gemv(Isa isa, const Encoding& encoding, int64_t columns) {
  const GemvEntry* entry = best_entry(
      gemv_kernels(), isa, [&](const GemvEntry& e) { return e.fits(encoding, columns); });
  return entry ? entry->run : nullptr;
}

GemmKernels choose_gemm(Isa isa, const Encoding& encoding, int64_t columns) {
  return {choose_panel(isa), choose_decode(isa, encoding, columns),
          choose_gemv(isa, encoding, columns)};
}

std::string_view gemm_name(const GemmKernels& kernels) {
  if (kernels.gemv) {
    for (const GemvEntry& entry : gemv_kernels()) {
      if (entry.run == kernels.gemv) return entry.name;
    }
  }
  for (const DecodeEntry& entry : decode_kernels()) {
    if (entry.run == kernels.decode) return entry.name;
  }
  return "";
}

int64_t panel_rows(int64_t columns) {
  const int64_t rows = kPanelBytes / (4 * std::max<int64_t>(columns, 1));
  return std::clamp<int64_t>(rows / 4 * 4, 4, kMaxPanelRows);
}

int64_t gemm_scratch(int64_t columns) { return panel_rows(columns) * columns; }

void gemm_rows(const GemmKernels& kernels, const WeightView& w, int64_t row0, int64_t row1,
               const GemmArgs& args, float* scratch) {
  // Decoding costs about as much as one product with the decoded row.
  constexpr int64_t kGemvTokens = 2;
  if (kernels.gemv && args.m <= kGemvTokens) {
    for (int64_t m = 0; m < args.m; ++m) {
      kernels.gemv(w, row0, row1 - row0, args.x + m * args.ldx, args.y + m * args.ldy);
    }
  } else {
    const bool in_place = w.encoding.kind == EncodingKind::kF32;
    const int64_t step = panel_rows(w.columns);
    for (int64_t row = row0; row < row1; row += step) {
      PanelArgs panel{args.x,    args.ldx,
                      args.m,    scratch,
                      w.columns, std::min(step, row1 - row),
                      w.columns, args.y + (row - row0),
                      args.ldy};
      if (in_place) {
        panel.w = reinterpret_cast<const float*>(w.parts[0]) + row * w.columns;
      } else {
        kernels.decode(w, row, panel.n, scratch);
      }
      kernels.panel(panel);
    }
  }
  if (!args.bias) return;
  for (int64_t m = 0; m < args.m; ++m) {
    float* y = args.y + m * args.ldy;
    for (int64_t row = row0; row < row1; ++row) y[row - row0] += args.bias[row];
  }
}

}  // namespace pome::kernels
