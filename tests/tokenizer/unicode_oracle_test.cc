// Normal forms and BERT's text rules for every code point and for random sequences, against the
// Python package tokenizers and against Python's own Unicode database.
#include <random>
#include <string>
#include <vector>

#include "tokenizer/python_oracle.h"
#include "tokenizer/tokenizer_testing.h"
#include "tokenizer/unicode.h"
#include "tokenizer/unicode_normal.h"

namespace pome {
namespace {

constexpr char32_t kLast = 0x10FFFF;
bool is_surrogate(char32_t point) { return point >= 0xD800 && point <= 0xDFFF; }
std::string character(char32_t point) {
  std::string out;
  append_utf8(out, point);
  return out;
}

std::string rewrite(const std::string& what, std::string_view text) {
  if (what == "NFC") return normalize_unicode(text, NormalForm::kNfc);
  if (what == "NFD") return normalize_unicode(text, NormalForm::kNfd);
  if (what == "NFKC") return normalize_unicode(text, NormalForm::kNfkc);
  if (what == "NFKD") return normalize_unicode(text, NormalForm::kNfkd);
  if (what == "lowercase") return lowercase(text);
  if (what == "marks") return remove_marks(text);
  if (what == "clean") return bert_clean(text);
  if (what == "ideographs") return bert_space_ideographs(text);
  return bert_strip_accents(text);
}

constexpr const char* kFunctions = R"py(
import json, sys
from tokenizers import normalizers as N, pre_tokenizers as P
def bert(**on):
    flags = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    flags.update(on)
    return N.BertNormalizer(**flags).normalize_str
functions = {'NFC': N.NFC().normalize_str, 'NFD': N.NFD().normalize_str, 'NFKC': N.NFKC().normalize_str,
             'NFKD': N.NFKD().normalize_str, 'lowercase': N.Lowercase().normalize_str,
             'marks': N.StripAccents().normalize_str, 'clean': bert(clean_text=True),
             'ideographs': bert(handle_chinese_chars=True), 'accents': bert(strip_accents=True)}
task = json.load(open(sys.argv[1], encoding='utf-8'))
)py";

// A block is all characters of a page with letters between them; only blocks that change come back.
std::string block_text(char32_t page) {
  std::string text = "b";
  for (char32_t point = page << 8; point < (page + 1) << 8; ++point) {
    if (!is_surrogate(point)) text += character(point) + "b";
  }
  return text;
}

constexpr const char* kEveryPoint = R"py(
out = {name: {} for name in functions}
out['punctuation'] = []
pre = P.BertPreTokenizer()
for page in range(0x1100):
    points = [c for c in range(page << 8, page + 1 << 8) if not 0xD800 <= c <= 0xDFFF]
    text = 'b' + ''.join(chr(c) + 'b' for c in points)
    for name, function in functions.items():
        new = function(text)
        if new != text:
            out[name]['%x' % page] = new
    out['punctuation'] += [ord(p) for p, _ in pre.pre_tokenize_str(text) if len(p) == 1 and p != 'b']
json.dump(out, open(sys.argv[2], 'w', encoding='utf-8'))
)py";

// The library's lower case comes from its compiler and is of a newer Unicode.
bool has_newer_case(char32_t page) {
  return page == 0x1C || page == 0xA7 || page == 0x10D || page == 0x16E;
}

TEST(UnicodeOracle, EveryCodePoint) {
  POME_NEED_PYTHON("tokenizers");
  const Json output = run_python(std::string(kFunctions) + kEveryPoint, Json::object());
  ASSERT_TRUE(output.is_object());
  for (const auto& [what, changes] : output.items()) {
    if (what == "punctuation") continue;
    int wrong = 0;
    for (char32_t page = 0; page <= kLast >> 8; ++page) {
      if (what == "lowercase" && has_newer_case(page)) continue;
      char key[16];
      std::snprintf(key, sizeof key, "%x", static_cast<unsigned>(page));
      const std::string text = block_text(page);
      const auto change = changes.find(key);
      const std::string expected = change == changes.end() ? text : change->get<std::string>();
      if (rewrite(what, text) == expected) continue;
      if (++wrong <= 5) ADD_FAILURE() << what << " on page " << key;
    }
    EXPECT_EQ(wrong, 0) << what;
  }
  std::vector<uint32_t> punctuation;
  for (char32_t point = 0; point <= kLast; ++point) {
    if (!is_surrogate(point) && is_bert_punctuation(point)) punctuation.push_back(point);
  }
  std::vector<uint32_t> expected = output["punctuation"].get<std::vector<uint32_t>>();
  EXPECT_EQ(punctuation, expected);
}

// Dense in what decomposes, composes and is reordered.
std::vector<std::string> random_sequences(int count) {
  std::vector<char32_t> pool;
  for (char32_t point = 0x80; point < 0x30000; ++point) {
    if (is_surrogate(point)) continue;
    const std::string text = character(point);
    if (combining_class(point) != 0 || rewrite("NFKD", text) != text) pool.push_back(point);
  }
  for (char32_t point = 0x1100; point < 0x1200; ++point) pool.push_back(point);
  std::vector<char32_t> marks;
  for (const char32_t point : pool) {
    if (combining_class(point) != 0) marks.push_back(point);
  }
  std::mt19937 random(3);
  std::vector<std::string> out;
  for (int i = 0; i < count; ++i) {
    std::string text;
    const size_t length = 1 + random() % 30;
    for (size_t k = 0; k < length; ++k) {
      switch (random() % 6) {
        case 0:
          text += static_cast<char>('A' + random() % 60);
          break;
        case 1:
          append_utf8(text, 0xAC00 + random() % 11172);
          break;
        case 2:
        case 3:
          append_utf8(text, marks[random() % marks.size()]);
          break;
        default:
          append_utf8(text, pool[random() % pool.size()]);
      }
    }
    out.push_back(text);
  }
  return out;
}

constexpr const char* kSequences = R"py(
json.dump({name: [function(t) for t in task['texts']] for name, function in functions.items()},
          open(sys.argv[2], 'w', encoding='utf-8'))
)py";

constexpr const char* kUnicodedata = R"py(
import json, sys, unicodedata
task = json.load(open(sys.argv[1], encoding='utf-8'))
json.dump({form: [unicodedata.normalize(form, t) for t in task['texts']]
           for form in ('NFC', 'NFD', 'NFKC', 'NFKD')}, open(sys.argv[2], 'w', encoding='utf-8'))
)py";

void expect_equal(const std::vector<std::string>& texts, const Json& output) {
  ASSERT_TRUE(output.is_object());
  for (const auto& [what, expected] : output.items()) {
    int wrong = 0;
    for (size_t i = 0; i < texts.size(); ++i) {
      if (rewrite(what, texts[i]) == expected[i].get<std::string>()) continue;
      if (++wrong <= 3) ADD_FAILURE() << what << " of " << testing::PrintToString(texts[i]);
    }
    EXPECT_EQ(wrong, 0) << what;
  }
}

TEST(UnicodeOracle, RandomSequencesLikeTokenizers) {
  POME_NEED_PYTHON("tokenizers");
  const std::vector<std::string> texts = random_sequences(10000);
  expect_equal(texts, run_python(std::string(kFunctions) + kSequences, {{"texts", texts}}));
}

// The sequences hold no character that came after Unicode 9.0, so any newer database will do.
TEST(UnicodeOracle, RandomSequencesLikePython) {
  POME_NEED_PYTHON("unicodedata");
  const std::vector<std::string> texts = random_sequences(10000);
  expect_equal(texts, run_python(kUnicodedata, {{"texts", texts}}));
}

}  // namespace
}  // namespace pome
