// write_seeds FOLDER: valid minimal inputs for the fuzz targets, one folder for each.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "formats/onnx_samples.h"
#include "malformed/gguf_bytes.h"
#include "malformed/mlc_text.h"
#include "malformed/pytorch_bytes.h"
#include "malformed/safetensors_bytes.h"
#include "malformed/sentencepiece_bytes.h"
#include "malformed/tiktoken_bytes.h"
#include "tokenizer/template_cases.h"

namespace {

using namespace pome::malformed;  // NOLINT: builders of the tests

std::filesystem::path g_folder;

void write(const std::string& target, const std::string& name, const std::string& bytes) {
  std::filesystem::create_directories(g_folder / target);
  std::ofstream(g_folder / target / name, std::ios::binary) << bytes;
}

// ggml ids with the elements and bytes of one block.
struct Block {
  uint32_t type;
  uint64_t elements, bytes;
};
constexpr Block kBlocks[] = {
    {0, 1, 4},     {1, 1, 2},      {2, 32, 18},    {3, 32, 20},    {6, 32, 22},    {7, 32, 24},
    {8, 32, 34},   {10, 256, 84},  {11, 256, 110}, {12, 256, 144}, {13, 256, 176}, {14, 256, 210},
    {16, 256, 66}, {17, 256, 74},  {18, 256, 98},  {19, 256, 50},  {20, 32, 18},   {21, 256, 110},
    {22, 256, 82}, {23, 256, 136}, {24, 1, 1},     {25, 1, 2},     {26, 1, 4},     {27, 1, 8},
    {28, 1, 8},    {29, 256, 56},  {30, 1, 2},     {34, 256, 54},  {35, 256, 66},  {39, 32, 17}};

void gguf_seeds() {
  write("gguf", "all_values", valid_gguf().build());
  for (const std::string& pair : valid_gguf().pairs) {
    GgufBytes file;
    file.pairs = {pair};
    write("gguf", "value_" + std::to_string(std::hash<std::string>()(pair) % 100000), file.build());
  }
  for (const Block& block : kBlocks) {
    GgufBytes file;
    file.tensors = {{"t", {block.elements, 2}, block.type, block.bytes * 2, {}, {}, {}}};
    write("gguf", "type_" + std::to_string(block.type), file.build());
  }
  GgufBytes vocabulary;
  vocabulary.pairs = {
      pair_of("tokenizer.ggml.model", kString, gguf_string("llama")),
      pair_of("tokenizer.ggml.tokens", kArray,
              array_of(kString, 3, gguf_string("<unk>") + gguf_string("<s>") + gguf_string("a"))),
      pair_of("tokenizer.ggml.scores", kArray, array_of(kF32, 3, le(0.0f) + le(0.0f) + le(-1.0f))),
      pair_of("tokenizer.ggml.token_type", kArray, array_of(kI32, 3, le(2) + le(3) + le(1))),
      pair_of("tokenizer.ggml.bos_token_id", kU32, le<uint32_t>(1))};
  write("gguf", "vocabulary", vocabulary.build());
  GgufBytes aligned = valid_gguf();
  aligned.pairs.push_back(pair_of("general.alignment", kU32, le<uint32_t>(64)));
  aligned.alignment = 64;
  write("gguf", "aligned", aligned.build());
}

void imatrix_seeds() {
  const std::string name = "blk.0.ffn_up.weight";
  const std::string entry = le<int32_t>(static_cast<int32_t>(name.size())) + name + le<int32_t>(2) +
                            le<int32_t>(2) + le(2.0f) + le(4.0f);
  write("imatrix", "one", le<int32_t>(1) + entry + le<int32_t>(7) + le<int32_t>(3) + "txt");
  GgufBytes file;
  file.pairs = {pair_of("general.type", kString, gguf_string("imatrix"))};
  file.tensors = {{name + ".in_sum2", {4, 2}, 0, 32, {}, {}, {}},
                  {name + ".counts", {1, 2}, 0, 8, {}, {}, {}}};
  write("imatrix", "gguf", file.build());
}

void onnx_seeds() {
  const auto bytes = pome::onnx::serialize(pome::onnx::small_model());
  if (bytes.ok())
    write("onnx", "all", std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size()));
}

void safetensors_seeds() {
  write("safetensors", "all", valid_safetensors().build());
  write("safetensors", "empty", SafetensorsBytes{"{}", 0, {}}.build());
  for (const char* dtype : {"F32", "F16", "BF16", "F64", "I8", "U8", "I16", "U16", "I32", "U32",
                            "I64", "U64", "BOOL", "F8_E4M3", "F8_E5M2", "F4", "F6_E2M3"}) {
    write("safetensors", dtype,
          SafetensorsBytes{"{" + tensor_json("t", dtype, "[0]", "[0,0]") + "}", 0, {}}.build());
  }
}

void pytorch_seeds() {
  const ZipBytes whole = valid_pytorch();
  write("pytorch", "archive", whole.build());
  write("pytorch", "pickle", whole.entries[0].data);
  ZipBytes small = whole;
  small.zip64 = false;
  for (ZipEntryBytes& entry : small.entries) entry.flags = 0;
  write("pytorch", "archive_small", small.build());
  const std::string typed =
      py_call(py_global("torch._utils", "_rebuild_tensor_v3"),
              {py_storage("UntypedStorage", "0", 24, "torch.storage"), py_int(1), py_ints({2, 3}),
               py_ints({1, 2}), "\x89", py_ordered_dict(), py_global("torch", "float8_e4m3fn")});
  write("pytorch", "typed", pickle_of(py_dict({py_text("model"), py_dict({py_text("w"), typed})})));
  const std::string plain = py_tensor(py_storage("FloatStorage", "0", 6), 0, {6}, {1});
  write("pytorch", "parameter",
        pickle_of(py_dict({py_text("w"), py_call(py_global("torch._utils", "_rebuild_parameter"),
                                                 {plain, "\x88", py_ordered_dict()})}),
                  4));
}

void json_seeds() {
  write("json", "object",
        R"({"a":[1,-2,3.5,1e-7,true,false,null],"b":{"c":"\u00e9\ud83d\ude00\n"}})");
  write("json", "config", R"({"model_type":"llama","rope_scaling":{"factor":8.0},"eos":[1,2]})");
  write("json", "deep", std::string(64, '[') + std::string(64, ']'));
}

void mlc_seeds() {
  write("mlc", "two", valid_mlc_cache());
  write("mlc", "empty", R"({"metadata": null, "records": []})");
}

void jinja_seeds() {
  int count = 0;
  for (const char* source : pome::kTemplateCases) write("jinja", std::to_string(count++), source);
}

void tokenizer_seeds() {
  write("sentencepiece", "bpe", valid_sentencepiece(2).build());
  write("sentencepiece", "unigram", valid_sentencepiece(1).build());
  write("sentencepiece", "bytes", sentencepiece_with_bytes().build());
  write("tiktoken", "lines", joined(tiktoken_lines(300)));
  write("tiktoken", "line", tiktoken_line("ab", 256) + tiktoken_line("abc", 257));
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::fprintf(stderr, "usage: write_seeds FOLDER\n");
    return 2;
  }
  g_folder = arguments[1];
  gguf_seeds();
  imatrix_seeds();
  onnx_seeds();
  safetensors_seeds();
  pytorch_seeds();
  json_seeds();
  mlc_seeds();
  tokenizer_seeds();
  jinja_seeds();
  return 0;
}
