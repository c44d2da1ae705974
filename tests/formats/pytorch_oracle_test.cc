// Files that the torch package wrote, tensor by tensor against the bytes that torch itself reads.
#include <gtest/gtest.h>

#include "formats/checkpoint.h"
#include "formats/pytorch.h"
#include "malformed/back_ends.h"
#include "tokenizer/python_oracle.h"

namespace pome {
namespace {

using malformed::TempFolder;

// For each file a list of [name, dtype, shape, bytes as hex], in the order of the dictionary.
constexpr const char* kWrite = R"(
import collections, json, sys
import torch
torch.manual_seed(0)
folder = json.load(open(sys.argv[1]))
out = {}
def listing(state):
    rows = []
    for name, t in state.items():
        if not isinstance(t, torch.Tensor): continue
        t = t.detach().contiguous()
        raw = bytes(t.flatten().view(torch.uint8).tolist()) if t.numel() else b''
        rows.append([name, str(t.dtype).removeprefix('torch.'), list(t.shape), raw.hex()])
    return rows
def save(name, obj, state, **how):
    torch.save(obj, folder + '/' + name, **how)
    out[name] = listing(state)

dtypes = {str(d): torch.randn(3, 5).mul(9).to(d) for d in (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32,
    torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool,
    torch.float8_e4m3fn, torch.float8_e5m2)}
save('dtypes.pt', dtypes, dtypes)
for protocol in (2, 3, 4, 5):
    save(f'protocol{protocol}.pt', dtypes, dtypes, pickle_protocol=protocol)

base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
views = {'whole': base, 'transposed': base.transpose(0, 2), 'permuted': base.permute(1, 2, 0),
         'row': base[1], 'column': base[:, 2], 'steps': base[::2, 1::2, ::3], 'last': base[2, 3, 4],
         'matrix': base.view(12, 5).t(), 'none': base[:, :0], 'one': base[:1, :1],
         'expanded_one': torch.arange(7).expand(1, 7), 'half': base.half()[:, 1]}
save('views.pt', views, views)

tied = {'a': base, 'b': base, 'c': base[0]}
save('tied.pt', tied, tied)

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(11, 6)
        self.norm = torch.nn.LayerNorm(6)
        self.head = torch.nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer('mask', torch.tril(torch.ones(4, 4, dtype=torch.bool)))
net = Net()
save('module.bin', net.state_dict(), net.state_dict())
save('parameters.bin', collections.OrderedDict(net.named_parameters(remove_duplicate=False)),
     dict(net.named_parameters(remove_duplicate=False)))
net.embed.weight.note = 'x'
kept = net.state_dict(keep_vars=True)
save('attributes.bin', kept, kept)
optimiser = torch.optim.AdamW(net.parameters())
net.head(net.norm(net.embed(torch.tensor([1, 2])))).sum().backward()
optimiser.step()
save('training.ckpt', {'epoch': 3, 'loss': torch.tensor(1.5), 'lr': 1e-3, 'model': net.state_dict(),
                       'optimizer': optimiser.state_dict(), 'args': {'names': ['a', 'b'], 'none': None}},
     net.state_dict())
save('lightning.ckpt', {'state_dict': net.state_dict(), 'hyper_parameters': {}}, net.state_dict())
parallel = {'module.' + k: v for k, v in net.state_dict().items()}
save('parallel.pt', parallel, net.state_dict())
json.dump(out, open(sys.argv[2], 'w'))
)";

std::string hex(std::span<const std::byte> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (const std::byte byte : bytes) {
    out += kDigits[static_cast<size_t>(byte) >> 4];
    out += kDigits[static_cast<size_t>(byte) & 15];
  }
  return out;
}
std::string torch_name(DType dtype) {
  static const std::pair<DType, const char*> kNames[] = {
      {DType::kF32, "float32"},       {DType::kF64, "float64"},
      {DType::kF16, "float16"},       {DType::kBF16, "bfloat16"},
      {DType::kI64, "int64"},         {DType::kI32, "int32"},
      {DType::kI16, "int16"},         {DType::kI8, "int8"},
      {DType::kU8, "uint8"},          {DType::kU16, "uint16"},
      {DType::kU32, "uint32"},        {DType::kU64, "uint64"},
      {DType::kBool, "bool"},         {DType::kF8E4M3, "float8_e4m3fn"},
      {DType::kF8E5M2, "float8_e5m2"}};
  for (const auto& [known, name] : kNames) {
    if (known == dtype) return name;
  }
  return "?";
}

TEST(PytorchOracle, ReadsWhatTorchWrites) {
  POME_NEED_PYTHON("torch");
  const TempFolder folder;
  const Json expected = run_python(kWrite, folder.path());
  ASSERT_TRUE(expected.is_object());
  EXPECT_GE(expected.size(), 12u);
  for (const auto& [name, rows] : expected.items()) {
    for (const bool mapped : {true, false}) {
      auto source = mapped ? open_mapped(folder.file(name)) : open_for_reading(folder.file(name));
      ASSERT_TRUE(source.ok());
      const auto file = read_pytorch(*source);
      ASSERT_TRUE(file.ok()) << file.status().to_string();
      EXPECT_TRUE(check_checksums(*file).ok());
      Json found = Json::array();
      for (const PytorchTensor& tensor : file->tensors) {
        std::vector<std::byte> bytes(static_cast<size_t>(tensor.bytes));
        ASSERT_TRUE(tensor.source->read(tensor.offset, bytes).ok());
        found.push_back({tensor.name, torch_name(tensor.dtype), tensor.shape, hex(bytes)});
      }
      EXPECT_EQ(dump_json(found), dump_json(rows)) << name;
    }
  }
}

constexpr const char* kRefused = R"(
import argparse, collections, json, sys
import torch
folder = json.load(open(sys.argv[1]))
w = torch.zeros(2, 3)
class Config: pass
import __main__
__main__.Config = Config
torch.save({'w': w}, folder + '/legacy.pt', _use_new_zipfile_serialization=False)
torch.save({'w': w, 'args': argparse.Namespace(a=1)}, folder + '/namespace.pt')
torch.save(torch.nn.Linear(2, 3), folder + '/module.pt')
torch.save({'w': w.to_sparse()}, folder + '/sparse.pt')
torch.save({'w': torch.quantize_per_tensor(w, 0.1, 0, torch.qint8)}, folder + '/quantised.pt')
torch.save({'w': torch.zeros(2, dtype=torch.complex64)}, folder + '/complex.pt')
torch.save({'w': torch.zeros(1).expand(5)}, folder + '/expanded.pt')
torch.save({'w': torch.zeros(3, device='meta')}, folder + '/meta.pt')
torch.save(collections.Counter(), folder + '/counter.pt')
torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), folder + '/script.pt')
json.dump(True, open(sys.argv[2], 'w'))
)";

TEST(PytorchOracle, RefusesTheRestByName) {
  POME_NEED_PYTHON("torch");
  const TempFolder folder;
  ASSERT_TRUE(run_python(kRefused, folder.path()).is_boolean());
  const std::tuple<const char*, Refusal, const char*> cases[] = {
      {"legacy.pt", Refusal::kType, "before version 1.6"},
      {"namespace.pt", Refusal::kGlobal, "argparse.Namespace"},
      {"module.pt", Refusal::kGlobal, "torch.nn.modules.linear.Linear"},
      {"sparse.pt", Refusal::kGlobal, "_rebuild_sparse_tensor"},
      {"quantised.pt", Refusal::kGlobal, "_rebuild_qtensor"},
      {"complex.pt", Refusal::kGlobal, "ComplexFloatStorage"},
      {"expanded.pt", Refusal::kType, "repeats elements"},
      {"meta.pt", Refusal::kGlobal, "_rebuild_meta_tensor_no_storage"},
      {"counter.pt", Refusal::kGlobal, "collections.Counter"},
      {"script.pt", Refusal::kType, "/code/"}};
  for (const auto& [name, refusal, text] : cases) {
    const auto checkpoint = open_checkpoint(folder.file(name));
    ASSERT_FALSE(checkpoint.ok()) << name;
    EXPECT_EQ(checkpoint.status().refusal(), refusal) << checkpoint.status().to_string();
    EXPECT_NE(checkpoint.status().message().find(text), std::string_view::npos)
        << checkpoint.status().to_string();
    EXPECT_FALSE(checkpoint.status().hint().empty()) << name;
  }
}

}  // namespace
}  // namespace pome
