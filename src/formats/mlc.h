// Weight packages of MLC: a list of tensors and the files ("shards") that hold them.
//
//   tensor-cache.json (before September 2025 ndarray-cache.json, the same text)
//     { "metadata": {"ParamSize", "ParamBytes", "BitsPerParam"},
//       "records": [ { "dataPath": "params_shard_0.bin", "format": "raw-shard", "nbytes", "md5sum",
//                      "records": [ {"name", "shape", "dtype", "format", "nbytes", "byteOffset"} ]
//                    } ] }
//   params_shard_N.bin
//     the tensors one after the other, little-endian, without padding
//
// Format "f32-to-bf16" says that a float32 tensor is stored as bfloat16; "raw" and all else as it
// is. Sources: the writer and the loader of Apache TVM (tvmjs.dump_tensor_cache, TensorCache).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/io.h"
#include "base/json.h"
#include "base/progress.h"
#include "base/status.h"
#include "base/thread_pool.h"
#include "encoding/encoding.h"
#include "tensor/tensor.h"

namespace pome {

inline constexpr const char* kMlcCache = "tensor-cache.json";
inline constexpr const char* kMlcOldCache = "ndarray-cache.json";
inline constexpr const char* kMlcConfig = "mlc-chat-config.json";
// Tensors are gathered up to this size; a larger one has a shard of its own.
inline constexpr uint64_t kMlcShardBytes = uint64_t{32} << 20;

struct MlcTensor {
  std::string name;
  Shape shape;
  EncodingKind encoding = EncodingKind::kF32;  // integers of any sign under the signed kind
  size_t shard = 0;
  uint64_t offset = 0, bytes = 0;  // inside the shard
};
struct MlcShard {
  std::string file;  // a plain relative path
  uint64_t bytes = 0;
  std::string md5;  // lower-case hex; empty when it is not stated
};
struct MlcCache {
  std::vector<MlcShard> shards;
  std::vector<MlcTensor> tensors;
  Json metadata;  // object, or null
};

// Names are unique, tensors lie inside their shards and do not overlap. Refusals: those of JSON,
// kType (also unknown dtypes), kRange, kOverflow, kBounds, kOverlap, kDup, kPath, kLimit.
Result<MlcCache> parse_mlc_cache(std::string_view text, const std::string& name);
// The cache of a folder under either of its names; kMissing.
Result<MlcCache> read_mlc_cache(const std::string& folder);
// Whether at least two of configuration, list and first shard are there, so that a package that
// lost one is told what it lacks.
bool is_mlc_folder(const std::string& folder);
// Reads every shard and compares it with the MD5 sum that the cache states; kIntegrity names the
// first that differs.
Status check_mlc_sums(const std::string& folder, const MlcCache& cache, const CancelToken* cancel);
// The MD5 sum of one shard.
Result<std::string> mlc_sum(const std::string& path, const CancelToken* cancel = nullptr);

// Writes shards and the cache under both names. Tensors are laid out in the order given, by the
// rule of TVM's writer; their bytes may come in any order, each byte once. A shard is open from its
// first byte to its last. Deterministic. Thread safety: one thread.
class MlcWriter {
 public:
  struct Declared {
    std::string name;
    Shape shape;
    EncodingKind encoding;  // kF16, kF32, kBF16, or kI32 for uint32
  };
  static Result<std::unique_ptr<MlcWriter>> create(const std::string& folder,
                                                   const std::vector<Declared>& tensors);
  ~MlcWriter();
  // Bytes [offset, offset + bytes.size()) of one tensor.
  Status write(size_t tensor, uint64_t offset, std::span<const std::byte> bytes);
  // After all bytes. `parameters`: for BitsPerParam.
  Status finish(uint64_t parameters, ThreadPool* pool);
  const MlcCache& cache() const { return cache_; }
  uint64_t bytes() const;  // of all tensors

 private:
  MlcWriter();
  Status close(size_t shard);
  std::string folder_;
  MlcCache cache_;
  std::vector<std::unique_ptr<io::OutputFile>> files_;  // by shard; null: not open
  std::vector<uint64_t> missing_, since_flush_;         // bytes, by shard
};

// Bytes of one element as the format stores it.
uint64_t mlc_element_bytes(EncodingKind encoding);

}  // namespace pome
