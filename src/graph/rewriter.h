// Rewriter: what every pass is written with. Copies a graph node by node into a new one, with
// replacements.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "graph/graph.h"

namespace pome {

class Rewriter {
 public:
  explicit Rewriter(const Graph& from);

  // Old ids -> new ids. POME_CHECKs that they have been copied or replaced.
  ValueId mapped(ValueId old_id) const;
  std::vector<ValueId> mapped(const std::vector<ValueId>& old_ids) const;
  bool has(ValueId old_id) const { return map_.count(old_id) != 0; }

  void copy(const Node& node);                    // same op, same name; its constant comes along
  void replace(ValueId old_id, ValueId new_id);   // new_id takes the old value's name
  void redirect(ValueId old_id, ValueId new_id);  // both keep their names
  ValueId emit(Op op, std::vector<ValueId> operands,
               std::string name = {});  // operands are new ids
  ValueId input(std::string name, ValueType type);
  ValueId constant(Constant constant);
  ValueId scalar(float value);  // f32 {} inline constant; equal values share one
  const ValueType& type(ValueId new_id) const { return out_.type(new_id); }

  // Fills interface, caches and layer marks from the old graph (those that were copied) and returns
  // the new one. `output` is an old id.
  Graph finish(ValueId output);
  Graph finish() { return finish(from_.output); }

 private:
  const Graph& from_;
  Graph out_;
  std::unordered_map<ValueId, ValueId> map_;
  std::unordered_map<int32_t, int32_t> constants_;
  std::unordered_map<uint32_t, ValueId> scalars_;
};

}  // namespace pome
