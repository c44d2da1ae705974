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
    // From the first to the last byte that any element touches.
    reach_ = item_;
    for (size_t i = 0; i < sizes_.size(); ++i) {
      reach_ += static_cast<uint64_t>((sizes_[i] - 1) * strides_[i]) * item_;
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
  // Elements [first, last) in row-major order.
  Status gather(uint64_t first, uint64_t last, std::byte* out) const {
    const auto view = parent_->view(offset_, reach_);
    const size_t rank = sizes_.size();
    std::vector<int64_t> index(rank);
    uint64_t rest = first;
    uint64_t at = 0;  // of the element, in elements from offset_
    for (size_t i = rank; i-- > 0;) {
      index[i] = static_cast<int64_t>(rest % static_cast<uint64_t>(sizes_[i]));
      rest /= static_cast<uint64_t>(sizes_[i]);
      at += static_cast<uint64_t>(index[i] * strides_[i]);
    }
    const auto step = static_cast<uint64_t>(strides_[rank - 1]);
    while (first < last) {
      // A run along the last dimension.
      const uint64_t run = std::min<uint64_t>(
          last - first, static_cast<uint64_t>(sizes_[rank - 1] - index[rank - 1]));
      POME_RETURN_IF_ERROR(copy_run(view ? view->data() : nullptr, at, step, run, out));
      out += run * item_;
      first += run;
      index[rank - 1] += static_cast<int64_t>(run);
      at += run * step;
      for (size_t i = rank; i-- > 1 && index[i] == sizes_[i];) {
        at -= static_cast<uint64_t>(sizes_[i] * strides_[i]);
        index[i] = 0;
        ++index[i - 1];
        at += static_cast<uint64_t>(strides_[i - 1]);
      }
    }
    return {};
  }

  Status copy_run(const std::byte* view, uint64_t at, uint64_t step, uint64_t run,
                  std::byte* out) const {
    if (step == 1) {
      const size_t bytes = static_cast<size_t>(run) * item_;
      if (!view) return parent_->read(offset_ + at * item_, {out, bytes});
      std::memcpy(out, view + at * item_, bytes);
      return {};
    }
    for (uint64_t i = 0; i < run; ++i, at += step, out += item_) {
      if (view) {
        std::memcpy(out, view + at * item_, item_);
      } else {
        POME_RETURN_IF_ERROR(parent_->read(offset_ + at * item_, {out, item_}));
      }
    }
    return {};
  }

  ByteSourcePtr parent_;
  uint64_t offset_, reach_ = 0;
  size_t item_;
  Shape sizes_, strides_;
};

}  // namespace

ByteSourcePtr strided_source(ByteSourcePtr parent, uint64_t offset, size_t item_bytes, Shape sizes,
                             Shape strides, std::string name) {
  return std::make_shared<StridedSource>(std::move(parent), offset, item_bytes, std::move(sizes),
                                         std::move(strides), std::move(name));
}

}  // namespace pome::pytorch
