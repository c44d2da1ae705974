#include "formats/pytorch_view.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"

namespace pome::pytorch {
namespace {

uint64_t bytes_of(const Shape& sizes, size_t item_bytes) {
  uint64_t bytes = item_bytes;
  for (const int64_t size : sizes) bytes *= static_cast<uint64_t>(size);
  return bytes;
}

class StridedSource final : public ByteSource {
 public:
  StridedSource(ByteSourcePtr parent, uint64_t offset, size_t item_bytes, Shape sizes,
                Shape strides, std::string name)
      : ByteSource(std::move(name), bytes_of(sizes, item_bytes)),
        parent_(std::move(parent)),
        offset_(offset),
        item_(item_bytes),
        sizes_(std::move(sizes)),
        strides_(std::move(strides)) {
    // Dimensions of one element never move; without any, the loops need one all the same.
    for (size_t i = sizes_.size(); i-- > 0;) {
      if (sizes_[i] != 1) continue;
      sizes_.erase(sizes_.begin() + static_cast<std::ptrdiff_t>(i));
      strides_.erase(strides_.begin() + static_cast<std::ptrdiff_t>(i));
    }
    if (sizes_.empty()) {
      sizes_.push_back(1);
      strides_.push_back(1);
    }
    below_.assign(sizes_.size() + 1, 1);
    for (size_t i = sizes_.size(); i-- > 0;) {
      below_[i] = below_[i + 1] * static_cast<uint64_t>(sizes_[i]);
    }
  }

  Status read(uint64_t offset, std::span<std::byte> out) const override {
    if (!span_fits(offset, out.size(), size())) {
      return locate(bad_input(Refusal::kTrunc, "past the end of the tensor"), offset);
    }
    if (out.empty()) return {};
    // Whole elements are gathered; a request may begin and end inside of one.
    const uint64_t first = offset / item_, last = (offset + out.size() - 1) / item_ + 1;
    if (offset % item_ == 0 && out.size() % item_ == 0) return gather(first, last, out.data());
    std::vector<std::byte> whole(static_cast<size_t>(last - first) * item_);
    POME_RETURN_IF_ERROR(gather(first, last, whole.data()));
    std::memcpy(out.data(), whole.data() + offset % item_, out.size());
    return {};
  }
  Status locate(Status status, uint64_t) const override {
    return parent_->locate(std::move(status).in(name()), offset_);
  }

 private:
  struct Dim {
    uint64_t extent, from, to;  // elements from one to the next in the parent, and in the output
  };

  // Elements [first, last) in row-major order: a few boxes, each of them whole in its last
  // dimensions and a range in the one before.
  Status gather(uint64_t first, uint64_t last, std::byte* out) const {
    std::vector<std::byte> buffer;
    while (first < last) {
      size_t whole = sizes_.size();  // dimensions from here on are whole
      while (whole > 0 && first % below_[whole - 1] == 0 && last - first >= below_[whole - 1]) {
        --whole;
      }
      uint64_t at = 0, count = 1;
      for (size_t i = 0; i < whole; ++i) {
        const uint64_t index = first / below_[i + 1] % static_cast<uint64_t>(sizes_[i]);
        at += index * static_cast<uint64_t>(strides_[i]);
        if (i + 1 < whole) continue;
        count = std::min((last - first) / below_[whole], static_cast<uint64_t>(sizes_[i]) - index);
      }
      std::vector<Dim> box;
      if (whole > 0) {
        box.push_back({count, static_cast<uint64_t>(strides_[whole - 1]), below_[whole]});
      }
      for (size_t i = whole; i < sizes_.size(); ++i) {
        box.push_back(
            {static_cast<uint64_t>(sizes_[i]), static_cast<uint64_t>(strides_[i]), below_[i + 1]});
      }
      POME_RETURN_IF_ERROR(copy_box(at, std::move(box), out, buffer));
      first += count * below_[whole];
      out += count * below_[whole] * item_;
    }
    return {};
  }

  // Runs along the dimension that is densest in the parent, so that few bytes are read in vain. A
  // mapping is not used: the file may be cut by someone else while it is read.
  Status copy_box(uint64_t at, std::vector<Dim> box, std::byte* out,
                  std::vector<std::byte>& buffer) const {
    std::erase_if(box, [](const Dim& dim) { return dim.extent == 1; });
    std::stable_sort(box.begin(), box.end(),
                     [](const Dim& a, const Dim& b) { return a.from > b.from; });
    if (box.empty()) box.push_back({1, 1, 1});
    const Dim run = box.back();
    box.pop_back();
    std::vector<uint64_t> index(box.size(), 0);
    uint64_t to = 0;
    while (true) {
      POME_RETURN_IF_ERROR(copy_run(at, run, out + to * item_, buffer));
      size_t i = box.size();
      for (; i > 0; --i) {
        const Dim& dim = box[i - 1];
        at += dim.from;
        to += dim.to;
        if (++index[i - 1] < dim.extent) break;
        at -= dim.extent * dim.from;
        to -= dim.extent * dim.to;
        index[i - 1] = 0;
      }
      if (i == 0) return {};
    }
  }

  Status copy_run(uint64_t at, const Dim& run, std::byte* out,
                  std::vector<std::byte>& buffer) const {
    constexpr uint64_t kChunkBytes = 1 << 16, kFarBytes = 1 << 12;
    if (run.from == 1 && run.to == 1) {
      return parent_->read(offset_ + at * item_, {out, static_cast<size_t>(run.extent) * item_});
    }
    // What lies far apart is read one by one, the rest with what is between.
    const uint64_t step = std::max<uint64_t>(1, run.from) * item_;
    const uint64_t chunk = step > kFarBytes ? 1 : kChunkBytes / step;
    for (uint64_t done = 0; done < run.extent; done += chunk) {
      const uint64_t count = std::min(chunk, run.extent - done);
      buffer.resize(static_cast<size_t>((count - 1) * run.from + 1) * item_);
      POME_RETURN_IF_ERROR(parent_->read(offset_ + (at + done * run.from) * item_, buffer));
      for (uint64_t i = 0; i < count; ++i) {
        std::memcpy(out + (done + i) * run.to * item_, buffer.data() + i * run.from * item_, item_);
      }
    }
    return {};
  }

  ByteSourcePtr parent_;
  uint64_t offset_;
  size_t item_;
  Shape sizes_, strides_;
  std::vector<uint64_t> below_;  // [i]: elements of the dimensions from i on
};

}  // namespace

ByteSourcePtr strided_source(ByteSourcePtr parent, uint64_t offset, size_t item_bytes, Shape sizes,
                             Shape strides, std::string name) {
  return std::make_shared<StridedSource>(std::move(parent), offset, item_bytes, std::move(sizes),
                                         std::move(strides), std::move(name));
}

}  // namespace pome::pytorch
