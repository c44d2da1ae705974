// Maps of characters that the Python package sentencepiece compiles, against that package and
// against `Precompiled` of the package tokenizers.
#include <random>
#include <string>
#include <vector>

#include "tokenizer/charsmap.h"
#include "tokenizer/python_oracle.h"
#include "tokenizer/tokenizer_testing.h"
#include "tokenizer/unicode.h"

namespace pome {
namespace {

constexpr const char* kScript = R"py(
import json, sys
import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as pb
from tokenizers import normalizers
task = json.load(open(sys.argv[1], encoding='utf-8'))
out = []
for rule in ('nmt_nfkc', 'nfkc_cf', 'nmt_nfkc_cf'):
    normalizer = spm.SentencePieceNormalizer(rule_name=rule, add_dummy_prefix=False,
                                             escape_whitespaces=False, remove_extra_whitespaces=False)
    model = pb.ModelProto()
    model.ParseFromString(normalizer.serialized_model_proto())
    charsmap = model.normalizer_spec.precompiled_charsmap
    precompiled = normalizers.Precompiled(charsmap)
    out.append({'rule': rule, 'map': charsmap.hex(),
                'longest': [normalizer.Normalize(t) for t in task['texts']],
                'graphemes': [precompiled.normalize_str(t) for t in task['texts']]})
json.dump(out, open(sys.argv[2], 'w', encoding='utf-8'))
)py";

std::string from_hex(const std::string& text) {
  std::string out;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    out.push_back(static_cast<char>(std::stoi(text.substr(i, 2), nullptr, 16)));
  }
  return out;
}

// Every code point between letters, by pages, and random sequences dense in marks.
std::vector<std::string> texts() {
  std::vector<std::string> out;
  std::vector<char32_t> marks, others;
  for (char32_t page = 0; page < 0x320; ++page) {
    std::string text;
    for (char32_t point = page << 8; point < (page + 1) << 8; ++point) {
      const Category c = category_of(point);
      if (point == 0 || c == Category::kCs || c == Category::kCn) continue;
      append_utf8(text, point);
      text += "b";
      if (point < 0x3100 && is_mark(c)) marks.push_back(point);
      if (point < 0x800 || (point >= 0x2000 && point < 0x3400) || point >= 0xFF00) {
        others.push_back(point);
      }
    }
    if (!text.empty()) out.push_back(text);
  }
  std::mt19937 random(5);
  for (int i = 0; i < 20000; ++i) {
    std::string text;
    const size_t length = 1 + random() % 12;
    for (size_t k = 0; k < length; ++k) {
      const auto& pool = random() % 2 ? marks : others;
      append_utf8(text, random() % 5 == 0 ? 'A' + random() % 60 : pool[random() % pool.size()]);
    }
    out.push_back(text);
  }
  return out;
}

TEST(CharsMapOracle, SameTextAsTheLibraries) {
  POME_NEED_PYTHON("sentencepiece");
  POME_NEED_PYTHON("tokenizers");
  const std::vector<std::string> all = texts();
  const Json output = run_python(kScript, {{"texts", all}});
  ASSERT_TRUE(output.is_array());
  for (const Json& rule : output) {
    const std::string name = rule["rule"];
    const auto map = CharsMap::parse(from_hex(rule["map"]));
    ASSERT_TRUE(map.ok()) << map.status().to_string();
    int wrong = 0;
    for (size_t i = 0; i < all.size() && wrong < 6; ++i) {
      const auto expect = [&](const char* what, const std::string& found) {
        if (found == rule[what][i].get<std::string>()) return;
        ++wrong;
        ADD_FAILURE() << name << " " << what << "\n  text     " << Json(all[i]).dump(-1, ' ', true)
                      << "\n  expected " << rule[what][i].dump(-1, ' ', true) << "\n  found    "
                      << Json(found).dump(-1, ' ', true);
      };
      expect("longest", map->replace_longest(all[i]));
      expect("graphemes", map->replace_graphemes(all[i]));
    }
  }
}

}  // namespace
}  // namespace pome
