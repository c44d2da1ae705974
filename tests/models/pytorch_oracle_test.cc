// Every model of the collection, saved once more by the torch package as pytorch_model.bin (the
// larger ones in shards with an index): the same tensors and the same logits as from safetensors.
#include <gtest/gtest.h>

#include <filesystem>

#include "formats/checkpoint.h"
#include "interp/graph_eval.h"
#include "malformed/back_ends.h"
#include "models/models.h"
#include "tokenizer/python_oracle.h"

namespace pome {
namespace {

namespace fs = std::filesystem;
// The collection of the tree, else the one beside it.
std::string zoo() {
  const std::string here = POME_SOURCE_DIR "/models/zoo/";
  return fs::exists(here) ? here : POME_SOURCE_DIR "/../shared/models/zoo/";
}

constexpr const char* kSave = R"(
import json, os, shutil, struct, sys
import torch
zoo, folder = json.load(open(sys.argv[1]))
dtypes = {'F32': torch.float32, 'F16': torch.float16, 'BF16': torch.bfloat16, 'I64': torch.int64,
          'U8': torch.uint8, 'I32': torch.int32, 'BOOL': torch.bool}
names = []
for name in sorted(os.listdir(zoo)):
    source = f'{zoo}/{name}/model.safetensors'
    if not os.path.exists(source): continue
    raw = open(source, 'rb').read()
    n = struct.unpack('<Q', raw[:8])[0]
    state = {}
    for key, t in json.loads(raw[8:8 + n]).items():
        if key == '__metadata__': continue
        a, b = t['data_offsets']
        data = torch.frombuffer(bytearray(raw[8 + n + a:8 + n + b]), dtype=torch.uint8)
        state[key] = data.view(dtypes[t['dtype']]).reshape(t['shape'])
    os.makedirs(f'{folder}/{name}')
    shutil.copy(f'{zoo}/{name}/config.json', f'{folder}/{name}/config.json')
    if len(names) % 2:
        torch.save(state, f'{folder}/{name}/pytorch_model.bin')
    else:
        keys, index = list(state), {}
        for part in range(3):
            mine = keys[part::3]
            file = f'pytorch_model-{part + 1:05}-of-00003.bin'
            torch.save({k: state[k] for k in mine}, f'{folder}/{name}/{file}')
            index.update({k: file for k in mine})
        total = sum(t.numel() * t.element_size() for t in state.values())
        json.dump({'metadata': {'total_size': total}, 'weight_map': index},
                  open(f'{folder}/{name}/pytorch_model.bin.index.json', 'w'))
    names.append(name)
json.dump(names, open(sys.argv[2], 'w'))
)";

std::vector<std::byte> bytes_of(const CheckpointTensor& tensor) {
  std::vector<std::byte> out(static_cast<size_t>(tensor.bytes));
  EXPECT_TRUE(tensor.source->read(tensor.offset, out).ok()) << tensor.name;
  return out;
}
std::vector<float> logits_of(const Checkpoint& checkpoint) {
  const std::vector<int32_t> prompt = {1, 5, 9, 2};
  auto graph = build_graph(checkpoint, {static_cast<int64_t>(prompt.size())});
  EXPECT_TRUE(graph.ok()) << graph.status().to_string();
  if (!graph.ok()) return {};
  const auto runner = reference_runner({std::move(*graph)}, {2, 0});
  EXPECT_TRUE(runner.ok()) << runner.status().to_string();
  if (!runner.ok()) return {};
  std::vector<float> logits(prompt.size() * static_cast<size_t>((*runner)->info().vocab_size));
  EXPECT_TRUE((*runner)->prefill(prompt, LogitsOf::kAll, logits).ok());
  return logits;
}

TEST(PytorchOracle, TheModelCollectionGivesTheSameLogits) {
  const std::string collection = zoo();
  if (!fs::exists(collection)) GTEST_SKIP() << "the model collection is not here";
  POME_NEED_PYTHON("torch");
  const malformed::TempFolder folder;
  const Json names = run_python(kSave, Json::array({collection, folder.path()}));
  ASSERT_TRUE(names.is_array());
  EXPECT_GT(names.size(), 10u);
  OpenOptions options;
  options.strict = options.checksums = true;
  for (const Json& json : names) {
    const auto name = json.get<std::string>();
    const auto original = open_checkpoint(collection + name);
    const auto saved = open_checkpoint(folder.file(name), options);
    ASSERT_TRUE(original.ok()) << original.status().to_string();
    ASSERT_TRUE(saved.ok()) << saved.status().to_string();
    EXPECT_EQ(saved->format, "pytorch");
    ASSERT_EQ(saved->tensors.size(), original->tensors.size()) << name;
    for (const CheckpointTensor& tensor : original->tensors) {
      const CheckpointTensor* other = saved->find(tensor.name);
      ASSERT_NE(other, nullptr) << name << " " << tensor.name;
      EXPECT_EQ(other->shape, tensor.shape);
      EXPECT_EQ(other->encoding, tensor.encoding);
      EXPECT_TRUE(bytes_of(*other) == bytes_of(tensor)) << name << " " << tensor.name;
    }
    const std::vector<float> expected = logits_of(*original);
    EXPECT_FALSE(expected.empty());
    EXPECT_TRUE(logits_of(*saved) == expected) << name;
  }
}

}  // namespace
}  // namespace pome
