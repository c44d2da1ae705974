#include "tokenizer/stop_ids.h"

#include <algorithm>
#include <optional>
#include <string>

namespace pome {

std::vector<int32_t> find_stop_ids(const TokenizerSource& source, const std::vector<bool>&) {
  std::vector<int32_t> ids = source.stop_ids;
  for (const auto& id : {source.eos, source.end_of_turn, source.end_of_message}) {
    if (id) ids.push_back(*id);
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

}  // namespace pome
