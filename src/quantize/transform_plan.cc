#include "quantize/transform_plan.h"

#include <algorithm>

namespace pome {

Result<std::vector<float>> read_vector(const ConstantData& data) {
  std::vector<float> out(static_cast<size_t>(data.rows() * data.columns()));
  POME_RETURN_IF_ERROR(data.read_f32(0, data.rows(), out.data()));
  return out;
}

void TransformPlan::columns(int32_t constant, const BasisMapPtr& map) {
  Constant& weight = at(constant);
  weight.data = map_columns(weight.data, map);
  const auto found = out_.statistics.find(weight.name);
  if (found == out_.statistics.end()) return;
  for (size_t set = 0; set < found->second.size(); ++set) {
    MomentsPtr& moments = found->second[set];
    if (!moments) continue;
    std::vector<MomentsPtr>& made = mapped_[{moments.get(), map.get()}];
    made.resize(static_cast<size_t>(map->sets));
    MomentsPtr& out = made[map->sets == 1 ? 0 : set];
    if (!out) {
      kept_.push_back(moments);
      out = mapped_moments(*moments, *map, static_cast<int64_t>(set));
    }
    moments = out;
  }
}

void TransformPlan::vector(int32_t constant, const BasisMapPtr& map) {
  at(constant).data = map_columns(at(constant).data, map);
}

void TransformPlan::rows(int32_t constant, const BasisMapPtr& map) {
  at(constant).data = map_rows(at(constant).data, map, cache_);
}

void TransformPlan::replace(int32_t constant, std::vector<float> values) {
  at(constant).data = replace_vector(at(constant).data, std::move(values));
}

}  // namespace pome
