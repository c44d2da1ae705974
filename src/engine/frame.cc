#include "engine/frame.h"

namespace pome {

bool View::contiguous() const {
  int64_t expected = 1;
  for (int i = rank - 1; i >= 0; --i) {
    const auto axis = static_cast<size_t>(i);
    if (dims[axis] != 1 && strides[axis] != expected) return false;
    expected *= dims[axis];
  }
  return true;
}

void set_contiguous(View* view, const SymShape& shape, const Bindings& bindings) {
  view->rank = static_cast<int>(shape.size());
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    int64_t size = shape[i].size;
    switch (shape[i].symbol) {
      case Symbol::kNone:
        break;
      case Symbol::kBatch:
        size = bindings.batch;
        break;
      case Symbol::kTokens:
        size = bindings.tokens;
        break;
      case Symbol::kPast:
        size = bindings.past;
        break;
      case Symbol::kTotal:
        size = bindings.past + bindings.tokens;
        break;
    }
    view->dims[i] = size;
    view->strides[i] = stride;
    stride *= size;
  }
}

}  // namespace pome
