// Ids and texts against the Python package tokenizers.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "tokenizer/pretokenizer.h"
#include "tokenizer/python_oracle.h"
#include "tokenizer/tokenizer_testing.h"
#include "tokenizer/unicode.h"

namespace pome {
namespace {

// Strings of assigned characters, dense in what pre-tokenizers tell apart.
std::vector<std::string> random_strings(int count, uint32_t seed) {
  std::mt19937 random(seed);
  const std::vector<std::string> parts = {
      " ",      "  ",     "\n",         "\r\n",    "\t",     "'s",     "'LL",
      "'re",    "'",      "a",          "Hello",   "12",     "3",      "2024",
      "!",      "...",    "\u00e9",     "\u00a0",  "\u3000", "\u4f60", "\u597d",
      "\u0301", "_",      "\u200d",     "<|end|>", "</s>",   "<s>",    "<|endoftext|>",
      "<unk>",  "\u2581", "\U0001f600", "\u00bd",  "\u0660", "\u216b", "\u2028",
      "\u0085", "$",      "s",          "T",       "\u017f", "<0x41>", "    "};
  std::vector<std::string> out;
  for (int i = 0; i < count; ++i) {
    std::string text;
    const int length = static_cast<int>(random() % 24);
    for (int k = 0; k < length; ++k) {
      if (random() % 4 != 0) {
        text += parts[random() % parts.size()];
        continue;
      }
      // Mostly from the planes where scripts live.
      char32_t point = random() % 0x3000;
      if (random() % 4 == 0) point = random() % 0x20000;
      const Category category = category_of(point);
      if (category == Category::kCn || category == Category::kCs || category == Category::kCo) {
        continue;
      }
      if (point == 0) continue;
      append_utf8(text, point);
    }
    out.push_back(text);
  }
  return out;
}

constexpr const char* kEncode = R"py(
import json, sys, time
from tokenizers import Tokenizer
task = json.load(open(sys.argv[1], encoding='utf-8'))
tok = Tokenizer.from_file(task['file'])
tok.no_truncation(); tok.no_padding()
if task.get('text_file'):
    data = open(task['text_file'], encoding='utf-8', newline='').read()[:task['characters']]
    start = time.time()
    ids = tok.encode(data).ids
    out = {'text': data, 'ids': ids, 'seconds': time.time() - start}
else:
    encoded = [tok.encode(t) for t in task['texts']]
    out = {'ids': [e.ids for e in encoded],
           'decoded': [tok.decode(e.ids, skip_special_tokens=False) for e in encoded]}
json.dump(out, open(sys.argv[2], 'w', encoding='utf-8'))
)py";

struct Case {
  const char* name;
  const char* folder;
};
class HfTokenizers : public testing::TestWithParam<Case> {
 protected:
  static std::string folder() {
    const std::string path = GetParam().folder;
    return path.front() == '/' ? POME_SOURCE_DIR + path : shared_path(path);
  }
};

// The files ask for their own BOS and EOS; tokenizer_config.json is left out on both sides.
TokenizerPtr load_json_only(const std::string& path) {
  const auto json = read_json_file(path);
  EXPECT_TRUE(json.ok()) << json.status().to_string();
  return json.ok() ? build(parse_tokenizer_json(*json, path)) : nullptr;
}

TEST_P(HfTokenizers, RandomStringsGiveTheSameIds) {
  const std::string path = folder() + "/tokenizer.json";
  POME_NEED(path);
  POME_NEED_PYTHON("tokenizers");
  const TokenizerPtr tokenizer = load_json_only(path);
  ASSERT_NE(tokenizer, nullptr);
  const std::vector<std::string> texts = random_strings(3000, 7);
  const Json output = run_python(kEncode, {{"file", path}, {"texts", texts}});
  ASSERT_TRUE(output.is_object());
  int wrong = 0;
  for (size_t i = 0; i < texts.size() && wrong < 5; ++i) {
    const Ids expected = output["ids"][i].get<Ids>();
    const Ids ids = tokenizer->encode(texts[i]);
    if (ids != expected) {
      ++wrong;
      ADD_FAILURE() << testing::PrintToString(texts[i]) << "\n  expected "
                    << testing::PrintToString(expected) << "\n  found    "
                    << testing::PrintToString(ids);
      continue;
    }
    const auto decoded = tokenizer->decode(ids, false);
    ASSERT_TRUE(decoded.ok());
    if (*decoded != output["decoded"][i].get<std::string>()) {
      ++wrong;
      ADD_FAILURE() << testing::PrintToString(texts[i]) << " decodes to "
                    << testing::PrintToString(*decoded) << " instead of "
                    << output["decoded"][i].dump();
    }
  }
}

TEST_P(HfTokenizers, CorporaGiveTheSameIds) {
  const std::string path = folder() + "/tokenizer.json";
  POME_NEED(path);
  POME_NEED_PYTHON("tokenizers");
  const TokenizerPtr tokenizer = load_json_only(path);
  ASSERT_NE(tokenizer, nullptr);
  for (const char* corpus :
       {"data/text/tinystories/valid.txt", "data/tokenizers/gpt2-hf-full/README.md",
        "data/tokenizers/swift-transformers/tokenizer_tests.json"}) {
    const std::string text_path = shared_path(corpus);
    POME_NEED(text_path);
    const Json output =
        run_python(kEncode, {{"file", path}, {"text_file", text_path}, {"characters", 200000}});
    ASSERT_TRUE(output.is_object());
    const std::string text = output["text"];
    const auto start = std::chrono::steady_clock::now();
    const Ids ids = tokenizer->encode(text);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    EXPECT_EQ(ids, output["ids"].get<Ids>()) << corpus;
    std::printf("%s: %zu bytes, %.1f MB/s, reference %.1f MB/s\n", corpus, text.size(),
                static_cast<double>(text.size()) / seconds.count() / 1e6,
                static_cast<double>(text.size()) / output["seconds"].get<double>() / 1e6);
  }
}

INSTANTIATE_TEST_SUITE_P(All, HfTokenizers,
                         testing::Values(Case{"tales", "/models/tales"},
                                         Case{"gpt2", "data/tokenizers/gpt2-hf-full"},
                                         Case{"phi2", "data/tokenizers/phi-2"},
                                         Case{"gptneo", "data/tokenizers/gpt-neo"},
                                         Case{"phi3", "data/tokenizers/phi-3-mini"},
                                         Case{"tinystories", "data/models/tinystories-656k-hf"},
                                         Case{"gemma", "models/zoo/gemma"}),
                         [](const auto& test) { return std::string(test.param.name); });

constexpr const char* kSplit = R"py(
import json, sys
from tokenizers import pre_tokenizers, Regex
task = json.load(open(sys.argv[1], encoding='utf-8'))
pre = pre_tokenizers.Split(Regex(task['pattern']), 'isolated')
json.dump([[p for p, _ in pre.pre_tokenize_str(t)] for t in task['texts']],
          open(sys.argv[2], 'w', encoding='utf-8'))
)py";

TEST(PreTokenizer, ScannersCutAsThePatternsDo) {
  POME_NEED_PYTHON("tokenizers");
  const std::vector<std::string> texts = random_strings(6000, 11);
  for (const SplitRule rule : {SplitRule::kGpt2, SplitRule::kLlama3, SplitRule::kQwen2,
                               SplitRule::kNumber, SplitRule::kNumberRun}) {
    const std::string pattern(pattern_of(rule));
    const auto scanner = PreTokenizer::create("", {pattern});
    ASSERT_TRUE(scanner.ok());
    const Json output = run_python(kSplit, {{"pattern", pattern}, {"texts", texts}});
    ASSERT_TRUE(output.is_array());
    int wrong = 0;
    for (size_t i = 0; i < texts.size() && wrong < 5; ++i) {
      std::vector<std::string> pieces;
      scanner->split(texts[i], [&](std::string_view piece) { pieces.emplace_back(piece); });
      if (pieces == output[i].get<std::vector<std::string>>()) continue;
      ++wrong;
      ADD_FAILURE() << pattern << "\n  text     " << testing::PrintToString(texts[i])
                    << "\n  expected " << output[i].dump() << "\n  found    "
                    << Json(pieces).dump();
    }
  }
}

}  // namespace
}  // namespace pome
