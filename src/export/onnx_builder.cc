#include "export/onnx_builder.h"

#include <algorithm>
#include <bit>

namespace pome::onnx_export {

using onnx::TensorData;

std::string OnnxBuilder::unique(const std::string& wanted) {
  if (used_.insert(wanted).second) return wanted;
  for (int64_t& n = next_[wanted];;) {
    std::string name = wanted + "." + std::to_string(++n);
    if (used_.insert(name).second) return name;
  }
}

Val OnnxBuilder::op(const std::string& type, const std::string& name, std::vector<Val> inputs,
                    Attributes attributes, std::string_view domain) {
  return op(type, std::vector<std::string>{name}, std::move(inputs), std::move(attributes), domain)
      .front();
}

std::vector<Val> OnnxBuilder::op(const std::string& type, std::vector<std::string> names,
                                 std::vector<Val> inputs, Attributes attributes,
                                 std::string_view domain) {
  onnx::Node node;
  node.op_type = type;
  node.domain = domain;
  node.name = names.front();
  node.inputs = std::move(inputs);
  node.outputs = names;
  node.attributes = std::move(attributes);
  graph_.nodes.push_back(std::move(node));
  return names;
}

Val OnnxBuilder::i64s(const std::vector<int64_t>& values) {
  std::string key = "i64";
  for (const int64_t value : values) key += "_" + std::to_string(value);
  const auto [entry, fresh] = shared_.try_emplace(key);
  if (fresh)
    entry->second =
        initializer(TensorData::i64s(unique(key), {static_cast<int64_t>(values.size())}, values));
  return entry->second;
}

Val OnnxBuilder::i64(int64_t value) {
  const std::string key = "scalar_i64_" + std::to_string(value);
  const auto [entry, fresh] = shared_.try_emplace(key);
  if (fresh) entry->second = initializer(TensorData::i64s(unique(key), {}, {value}));
  return entry->second;
}

Val OnnxBuilder::f32(double value) {
  const float number = static_cast<float>(value);
  const std::string key = "scalar_f32_" + std::to_string(std::bit_cast<uint32_t>(number));
  const auto [entry, fresh] = shared_.try_emplace(key);
  if (fresh) entry->second = initializer(TensorData::f32s(unique(key), {}, {number}));
  return entry->second;
}

Val OnnxBuilder::initializer(TensorData tensor) {
  std::string name = tensor.name;
  graph_.initializers.push_back(std::move(tensor));
  return name;
}

onnx::Graph OnnxBuilder::finish(std::vector<onnx::ValueInfo> inputs,
                                std::vector<onnx::ValueInfo> outputs,
                                const std::map<std::string, onnx::ValueInfo>& known,
                                const std::set<std::string>& kept) {
  std::set<std::string> needed = kept;
  for (const onnx::ValueInfo& output : outputs) needed.insert(output.name);
  std::vector<onnx::Node> live;
  for (auto node = graph_.nodes.rbegin(); node != graph_.nodes.rend(); ++node) {
    const bool read = std::any_of(node->outputs.begin(), node->outputs.end(),
                                  [&](const std::string& name) { return needed.count(name) > 0; });
    if (!read) continue;
    needed.insert(node->inputs.begin(), node->inputs.end());
    live.push_back(std::move(*node));
  }
  std::reverse(live.begin(), live.end());
  const auto unread = [&](const auto& entry) { return needed.count(entry.name) == 0; };
  std::erase_if(graph_.initializers, unread);
  std::erase_if(inputs, unread);
  for (const onnx::Node& node : live)
    for (const std::string& output : node.outputs)
      if (const auto found = known.find(output); found != known.end())
        graph_.values.push_back(found->second);
  graph_.nodes = std::move(live);
  graph_.name = "main_graph";
  graph_.inputs = std::move(inputs);
  graph_.outputs = std::move(outputs);
  return std::move(graph_);
}

onnx::Attribute attribute(std::string name, int64_t value) { return {std::move(name), value}; }
onnx::Attribute attribute(std::string name, double value) {
  return {std::move(name), static_cast<float>(value)};
}
onnx::Attribute attribute(std::string name, std::vector<int64_t> value) {
  return {std::move(name), std::move(value)};
}
onnx::Attribute attribute(std::string name, const char* value) {
  return {std::move(name), std::string(value)};
}

}  // namespace pome::onnx_export
