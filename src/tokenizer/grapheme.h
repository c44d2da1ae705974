// Where user-perceived characters end: extended grapheme clusters of Unicode Standard Annex 29, but
// for flags, emoji sequences and conjuncts of Indic scripts, whose parts stand alone here. Who asks
// (charsmap.h) treats clusters of six bytes and more character by character, as those all are.
//
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <string_view>

namespace pome {

// End of the cluster that begins at `at` (< text.size()). A byte that is not UTF-8 is a cluster.
size_t next_grapheme(std::string_view text, size_t at);

}  // namespace pome
