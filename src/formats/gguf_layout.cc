#include <algorithm>
#include <numeric>

#include "base/checked.h"
#include "formats/gguf_internal.h"

namespace pome::gguf {
namespace {

class GgufLayout {
 public:
  GgufLayout(GgufFile& file, const std::vector<uint64_t>& info_offsets, bool strict)
      : file_(file), info_offsets_(info_offsets), strict_(strict) {}
  Status place_tensors(uint64_t header_end);

 private:
  Status refuse(Refusal refusal, uint64_t offset, std::string message) const {
    return bad_input(refusal, std::move(message)).in(file_.source->name()).at_offset(offset);
  }
  // What breaks the recommended layout only: an error when strict.
  Status layout_flaw(Refusal refusal, uint64_t offset, std::string message) {
    if (strict_) return refuse(refusal, offset, std::move(message));
    file_.warnings.push_back(std::move(message));
    return {};
  }
  Status check_span(const GgufTensor& tensor, uint64_t info_offset, uint64_t data_start) const;
  Status check_neighbours(uint64_t data_start);
  Status check_end(uint64_t data_start);

  GgufFile& file_;
  const std::vector<uint64_t>& info_offsets_;
  bool strict_;
};

Status GgufLayout::check_span(const GgufTensor& tensor, uint64_t info_offset,
                              uint64_t data_start) const {
  const uint64_t size = file_.source->size();
  const std::string found = "the data of tensor " + in_quotes(tensor.name) + " (" +
                            std::to_string(tensor.bytes) + " bytes at " +
                            std::to_string(tensor.offset) + " of the data section) ";
  const auto start = checked_add(data_start, tensor.offset);
  const auto end = start ? checked_add(*start, tensor.bytes) : std::nullopt;
  if (!end) return refuse(Refusal::kOverflow, info_offset, found + "ends beyond 64 bits");
  if (*end <= size) return {};
  // A claim that the whole file could not hold is wrong; one that it could hold was cut off.
  if (tensor.offset >= size || tensor.bytes > size) {
    return refuse(Refusal::kBounds, info_offset,
                  found + "lies outside the file of " + std::to_string(size) + " bytes")
        .hint("the file is damaged or cut; fetch it again");
  }
  return refuse(Refusal::kTrunc, size,
                found + "is cut off: the file ends " + std::to_string(*end - size) + " bytes early")
      .hint("the file is not complete; fetch it again");
}

Status GgufLayout::check_neighbours(uint64_t data_start) {
  std::vector<size_t> order(file_.tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const GgufTensor &x = file_.tensors[a], &y = file_.tensors[b];
    return x.offset != y.offset ? x.offset < y.offset : a < b;
  });
  size_t holes = 0;
  size_t first_hole = 0;
  uint64_t end = data_start;
  const GgufTensor* previous = nullptr;
  for (const size_t i : order) {
    const GgufTensor& tensor = file_.tensors[i];
    if (tensor.bytes == 0) continue;
    if (tensor.offset < end) {
      return refuse(Refusal::kOverlap, info_offsets_[i],
                    "the data of tensor " + in_quotes(tensor.name) + " overlaps that of " +
                        in_quotes(previous ? previous->name : std::string()));
    }
    // Both are at most the file size plus one alignment: no overflow.
    const uint64_t expected = *checked_align(end - data_start, file_.alignment) + data_start;
    if (tensor.offset != expected && holes++ == 0) first_hole = i;
    end = tensor.offset + tensor.bytes;
    previous = &tensor;
  }
  if (holes > 0) {
    POME_RETURN_IF_ERROR(layout_flaw(Refusal::kHole, info_offsets_[first_hole],
                                     std::to_string(holes) +
                                         " unused gap(s) in the data, the first before tensor " +
                                         in_quotes(file_.tensors[first_hole].name)));
  }
  if (!std::is_sorted(order.begin(), order.end())) {
    POME_RETURN_IF_ERROR(layout_flaw(Refusal::kRange, info_offsets_.front(),
                                     "the data does not follow the order of the tensor list"));
  }
  return {};
}

Status GgufLayout::check_end(uint64_t data_start) {
  const uint64_t size = file_.source->size();
  uint64_t end = data_start;
  for (const GgufTensor& tensor : file_.tensors) end = std::max(end, tensor.offset + tensor.bytes);
  end = data_start + *checked_align(end - data_start, file_.alignment);
  // A file without tensors (a vocabulary) may end right after its metadata.
  if (size < end && !file_.tensors.empty()) {
    return refuse(Refusal::kTrunc, size,
                  "the padding after the last tensor is missing: the file ends " +
                      std::to_string(end - size) + " bytes early")
        .hint("the file is not complete; fetch it again");
  }
  if (size <= end) return {};
  return layout_flaw(Refusal::kBounds, end,
                     std::to_string(size - end) + " unexpected bytes after the data");
}

Status GgufLayout::place_tensors(uint64_t header_end) {
  const auto start = checked_align(header_end, file_.alignment);
  if (!start) return refuse(Refusal::kOverflow, header_end, "the header ends beyond 64 bits");
  uint64_t total = 0;
  for (size_t i = 0; i < file_.tensors.size(); ++i) {
    const auto padded = checked_align(file_.tensors[i].bytes, file_.alignment);
    const auto sum = padded ? checked_add(total, *padded) : std::nullopt;
    if (!sum) {
      return refuse(Refusal::kOverflow, info_offsets_[i],
                    "the sizes of all tensors add up to more than 64 bits");
    }
    total = *sum;
  }
  for (size_t i = 0; i < file_.tensors.size(); ++i) {
    POME_RETURN_IF_ERROR(check_span(file_.tensors[i], info_offsets_[i], *start));
  }
  for (GgufTensor& tensor : file_.tensors) tensor.offset += *start;
  POME_RETURN_IF_ERROR(check_neighbours(*start));
  return check_end(*start);
}

}  // namespace

Status place_tensors(GgufFile& file, uint64_t header_end, const std::vector<uint64_t>& info_offsets,
                     bool strict) {
  return GgufLayout(file, info_offsets, strict).place_tensors(header_end);
}

}  // namespace pome::gguf
