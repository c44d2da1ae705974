// The list of weights of an MLC package, so that every field can be made wrong.
#pragma once

#include <string>

namespace pome::malformed {

// Two tensors in one shard of 20 bytes: a [2, 3] float16 and b [2] float32.
inline std::string valid_mlc_cache() {
  return R"({"metadata": {"ParamSize": 2, "ParamBytes": 20.0, "BitsPerParam": 20.0},
  "records": [{"dataPath": "params_shard_0.bin", "format": "raw-shard", "nbytes": 20,
    "records": [
      {"name": "a", "shape": [2, 3], "dtype": "float16", "format": "raw", "nbytes": 12,
       "byteOffset": 0},
      {"name": "b", "shape": [2], "dtype": "float32", "format": "f32", "nbytes": 8,
       "byteOffset": 12}],
    "md5sum": "00000000000000000000000000000000"}]})";
}

}  // namespace pome::malformed
