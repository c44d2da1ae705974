// Ids and texts against the Python package tokenizers.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "tokenizer/ggml_pre.h"
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
def load(file):
    tok = Tokenizer.from_file(file)
    tok.no_truncation(); tok.no_padding()
    return tok
if task.get('text_file'):
    tok = load(task['file'])
    data = open(task['text_file'], encoding='utf-8', newline='').read()[:task['characters']]
    start = time.time()
    ids = tok.encode(data).ids
    out = {'text': data, 'ids': ids, 'seconds': time.time() - start}
else:
    out = []
    for file in task['files']:
        tok = load(file)
        encoded = [e.ids for e in tok.encode_batch(task['texts'])]
        out.append({'ids': encoded, 'decoded': tok.decode_batch(encoded, skip_special_tokens=False),
                    'plain': tok.decode_batch(encoded, skip_special_tokens=True)})
json.dump(out, open(sys.argv[2], 'w', encoding='utf-8'))
)py";

// How many strings: POME_ORACLE_STRINGS, else `otherwise`.
int string_count(int otherwise) {
  const char* wanted = std::getenv("POME_ORACLE_STRINGS");
  return wanted != nullptr ? std::atoi(wanted) : otherwise;
}

// Ids and texts of one tokenizer against what the reference gave. `plain`: also the texts without
// special tokens.
void expect_equal(const Tokenizer& tokenizer, const std::vector<std::string>& texts,
                  const Json& expected, bool plain, const std::string& name) {
  int wrong = 0;
  for (size_t i = 0; i < texts.size() && wrong < 3; ++i) {
    const Ids ids = tokenizer.encode(texts[i]);
    const Ids expected_ids = expected["ids"][i].get<Ids>();
    if (ids != expected_ids) {
      ++wrong;
      ADD_FAILURE() << name << ": " << testing::PrintToString(texts[i]) << "\n  expected "
                    << testing::PrintToString(expected_ids) << "\n  found    "
                    << testing::PrintToString(ids);
      continue;
    }
    for (const bool skip : {false, true}) {
      if (skip && !plain) continue;
      const auto decoded = tokenizer.decode(ids, skip);
      ASSERT_TRUE(decoded.ok());
      const auto& wanted = expected[skip ? "plain" : "decoded"][i].get_ref<const std::string&>();
      if (*decoded == wanted) continue;
      ++wrong;
      ADD_FAILURE() << name << ": " << testing::PrintToString(texts[i]) << " decodes to "
                    << testing::PrintToString(*decoded) << " instead of "
                    << testing::PrintToString(wanted);
    }
  }
}

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
  const std::vector<std::string> texts = random_strings(string_count(2000), 7);
  const Json output =
      run_python(kEncode, {{"files", std::vector<std::string>{path}}, {"texts", texts}});
  ASSERT_TRUE(output.is_array());
  // A special token that is normalised does not decode to itself there, and is not left out.
  const auto& added = tokenizer->source().added;
  const bool hidden = std::any_of(added.begin(), added.end(), [](const AddedToken& token) {
    return token.special && token.normalized;
  });
  expect_equal(*tokenizer, texts, output[0], !hidden, path);
}

// Every component, in tokenizers that are trained here.
TEST(HfComponents, AllOfThemGiveTheSameIdsAndTexts) {
  POME_NEED_PYTHON("tokenizers");
  const std::string folder = testing::TempDir() + "pome_tokenizers_" + std::to_string(getpid());
  const std::string source(POME_SOURCE_DIR);
  const std::string command = "python3 " + source + "/tests/tokenizer/train_tokenizers.py " +
                              folder + " " + source + "/README.md";
  ASSERT_EQ(std::system(command.c_str()), 0);
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    files.push_back(entry.path().string() + "/tokenizer.json");
  }
  std::sort(files.begin(), files.end());
  ASSERT_GT(files.size(), 90u);
  std::vector<std::string> texts = random_strings(string_count(250), 13);
  texts.insert(texts.end(), {"", " ", "\n", "Hello, world! It's 1234567 days.", "the end"});
  const Json output = run_python(kEncode, {{"files", files}, {"texts", texts}});
  ASSERT_TRUE(output.is_array());
  for (size_t i = 0; i < files.size(); ++i) {
    const TokenizerPtr tokenizer = load_json_only(files[i]);
    ASSERT_NE(tokenizer, nullptr) << files[i];
    expect_equal(*tokenizer, texts, output[i], true, files[i]);
  }
  std::filesystem::remove_all(folder);
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

// The single patterns behind the names of GGUF.
TEST(PreTokenizer, ScannersCutAsThePatternsDo) {
  POME_NEED_PYTHON("tokenizers");
  const std::vector<std::string> texts = random_strings(string_count(1500), 11);
  std::set<std::string> patterns{std::string(gpt2_pattern()),
                                 R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+|)"
                                 R"( ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s)"};
  for (const char* name :
       {"llama-bpe",    "qwen2",    "qwen35",   "gpt-4o", "tekken",      "seed-coder",
        "bailingmoe",   "ufakzeka", "minicpm5", "youtu",  "deepseek-v3", "deepseek-coder",
        "deepseek-llm", "spark2_5", "falcon",   "bloom",  "jais-2",      "exaone-moe",
        "superbpe",     "tiny_aya", "laguna",   "default"}) {
    const auto steps = steps_of_ggml_pre(name);
    for (const PreTokenizerStep& step : steps->pre_tokenizer) {
      const auto* split = std::get_if<pretokenizer::Split>(&step);
      if (split && split->pattern.regex) patterns.insert(split->pattern.text);
    }
  }
  ASSERT_GT(patterns.size(), 25u);
  for (const std::string& pattern : patterns) {
    const auto cut = PreTokenizer::create(
        {pretokenizer::Split{{pattern, true}, SplitBehavior::kIsolated, false}}, true);
    ASSERT_TRUE(cut.ok()) << cut.status().to_string();
    const Json output = run_python(kSplit, {{"pattern", pattern}, {"texts", texts}});
    ASSERT_TRUE(output.is_array()) << pattern;
    PreTokenizer::Scratch scratch;
    int wrong = 0;
    for (size_t i = 0; i < texts.size() && wrong < 3; ++i) {
      std::vector<std::string> pieces;
      cut->split(texts[i], true, scratch,
                 [&](std::string_view piece) { pieces.emplace_back(piece); });
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
