#include "kernels/elementwise/elementwise.h"

namespace pome::kernels {

namespace {

constexpr MapEntry kMapKernels[] = {
#define POME_MAP_KERNEL(isa, op, function) {#function, Isa::isa, MapOp::op, function},
#include "kernels/elementwise/kernels.inc"
};
constexpr ZipEntry kZipKernels[] = {
#define POME_ZIP_KERNEL(isa, op, function) {#function, Isa::isa, ZipOp::op, function},
#include "kernels/elementwise/kernels.inc"
};
constexpr NormEntry kNormKernels[] = {
#define POME_NORM_KERNEL(isa, function) {#function, Isa::isa, function},
#include "kernels/elementwise/kernels.inc"
};
constexpr RopeEntry kRopeKernels[] = {
#define POME_ROPE_KERNEL(isa, function) {#function, Isa::isa, function},
#include "kernels/elementwise/kernels.inc"
};

}  // namespace

std::span<const MapEntry> map_kernels() { return kMapKernels; }
std::span<const ZipEntry> zip_kernels() { return kZipKernels; }
std::span<const NormEntry> norm_kernels() { return kNormKernels; }
std::span<const RopeEntry> rope_kernels() { return kRopeKernels; }

MapKernel choose_map(Isa isa, MapOp op) {
  return best_entry(map_kernels(), isa, [op](const MapEntry& e) { return e.op == op; })->run;
}
ZipKernel choose_zip(Isa isa, ZipOp op) {
  return best_entry(zip_kernels(), isa, [op](const ZipEntry& e) { return e.op == op; })->run;
}
NormKernel choose_norm(Isa isa) {
  return best_entry(norm_kernels(), isa, [](const NormEntry&) { return true; })->run;
}
RopeKernel choose_rope(Isa isa) {
  return best_entry(rope_kernels(), isa, [](const RopeEntry&) { return true; })->run;
}

}  // namespace pome::kernels
