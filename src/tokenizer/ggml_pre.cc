#include "tokenizer/ggml_pre.h"

#include <algorithm>
#include <iterator>
#include <string>

#include "tokenizer/pretokenizer.h"

namespace pome {
namespace {

// Parts that patterns share.
#define POME_CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define POME_END R"(\s*[\r\n]+|\s+(?!\S)|\s+)"
#define POME_OTHER R"( ?[^\s\p{L}\p{N}]+[\r\n]*|)"
#define POME_CASED(behind)                                                                 \
  R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)" behind \
  "|"                                                                                      \
  R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)" behind "|"
#define POME_O200K \
  POME_CASED(POME_CONTRACTIONS "?") R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|)" POME_END
#define POME_NOT_HAN(set) R"((?:(?!\p{Han})[)" set "])"

constexpr const char* kLlama3 =
    POME_CONTRACTIONS R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)" POME_OTHER POME_END;
constexpr const char* kQwen2 =
    POME_CONTRACTIONS R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)" POME_OTHER POME_END;
constexpr const char* kQwen35 = POME_CONTRACTIONS
    R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|)" POME_END;
constexpr const char* kUfakzeka = R"([^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)" POME_OTHER POME_END;
constexpr const char* kSeedCoder =
    POME_CONTRACTIONS R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|)" POME_END;
constexpr const char* kBailing =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|)"
    R"(\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr const char* kMiniCpm =
    POME_CONTRACTIONS R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+|)" POME_OTHER POME_END;
constexpr const char* kJais2 = POME_CONTRACTIONS
    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)" POME_OTHER
    R"(\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|)"
    R"(\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1})";
constexpr const char* kExaoneMoe = POME_CONTRACTIONS
    R"(|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|)"
    R"(\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr const char* kO200k = POME_O200K;
constexpr const char* kTekken = POME_CASED("") R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|)" POME_END;
constexpr const char* kYoutuMain =
    POME_CASED(POME_CONTRACTIONS "?") R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|)" POME_END;
constexpr const char* kYoutuScripts =
    "[\uAC00-\uD7A3\u3131-\u318E]+|[\uFF01\u2026\u201C\u201D\u2018\u2019\u2014\uFF1A\uFF1B\uFF0C"
    "\u3001-\u303F\uFE30-\uFE4F]+|[\u3105-\u312F]+|[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+";
constexpr const char* kKimi =
    R"([\p{Han}]+|)" R"([^\r\n\p{L}\p{N}]?)" POME_NOT_HAN(R"(\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M})") "*"
    POME_NOT_HAN(R"(\p{Ll}\p{Lm}\p{Lo}\p{M})") "+" POME_CONTRACTIONS "?|"
    R"([^\r\n\p{L}\p{N}]?)" POME_NOT_HAN(R"(\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M})") "+"
    POME_NOT_HAN(R"(\p{Ll}\p{Lm}\p{Lo}\p{M})") "*" POME_CONTRACTIONS "?|"
    R"(\p{N}{1,3}|)" POME_OTHER POME_END;
constexpr const char* kDeepSeekMain =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|)"
    R"( ?[\p{P}\p{S}]+[\r\n]*|)" POME_END;
constexpr const char* kDeepSeekHan = "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+";
constexpr const char* kOldDeepSeekHan = "[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+";
constexpr const char* kBloom = " ?[^(\\s|[.,!?\u2026\u3002\uFF0C\u3001\u0964\u06D4\u060C])]+";
// Letters with case, and the Latin, Greek, Cyrillic, Armenian, Georgian and Cherokee ones without.
constexpr const char* kDeepSeekLetters =
    "\\s?[A-Za-z\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF\u01C4-\u0293\u0295-"
    "\u02AF"
    "\u0370-\u0373\u0376\u0377\u037B-\u037D\u037F\u0386\u0388-\u038A\u038C\u038E-\u03A1"
    "\u03A3-\u03F5\u03F7-\u0481\u048A-\u052F\u0531-\u0556\u10A0-\u10C5\u13A0-\u13F5\u13F8-\u13FD"
    "\u1C90-\u1CBA\u1CBD-\u1CBF\u1D00-\u1D2B\u1D6B-\u1D77\u1D79-\u1D9A\u1E00-\u1F15\u1F18-\u1F1D"
    "\u1F20-\u1F45\u1F48-\u1F4D\u1F50-\u1F57\u1F59\u1F5B\u1F5D\u1F5F-\u1F7D\u1F80-\u1FB4"
    "\u1FB6-\u1FBC\u1FBE\u1FC2-\u1FC4\u1FC6-\u1FCC\u1FD0-\u1FD3\u1FD6-\u1FDB\u1FE0-\u1FEC"
    "\u1FF2-\u1FF4\u1FF6-\u1FFC\u2102\u2107\u210A-\u2113\u2115\u2119-\u211D\u2124\u2126\u2128"
    "\u212A-\u212D\u212F-\u2134\u2139\u213C-\u213F\u2145-\u2149\u214E\u2183\u2184\u2C00-\u2C7B"
    "\u2C7E-\u2CE4\u2CEB-\u2CEE\u2CF2\u2CF3\uA640-\uA66D\uA680-\uA69B\uA722-\uA76F\uA771-\uA787"
    "\uA78B-\uA78E\uAB70-\uABBF\uFB00-\uFB06\uFB13-\uFB17\uFF21-\uFF3A\uFF41-\uFF5A"
    "\U00010400-\U0001044F\U000104B0-\U000104D3\U000104D8-\U000104FB\U00010C80-\U00010CB2"
    "\U00010CC0-\U00010CF2\U000118A0-\U000118DF\U0001E900-\U0001E943]+";
constexpr const char* kDeepSeekMarks =
    "\\s?[!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3000-\u3002]+";

#undef POME_NOT_HAN
#undef POME_O200K
#undef POME_CASED
#undef POME_OTHER
#undef POME_END
#undef POME_CONTRACTIONS

enum class Cut : uint8_t {
  kGpt2,
  kDigitsGpt2,
  kSplit,  // at one pattern
  kDeepSeek3,
  kDeepSeekLlm,
  kDeepSeekCoder,
  kSpark,
  kFalcon,
  kViking,
  kYoutu,
  kSuperBpe,
  kTinyAya,
  kLaguna,
  kMiniCpm5,
  kChameleon,
  kDefault,
  kLines  // characters, line by line
};

struct Entry {
  std::string_view name;
  Cut cut = Cut::kGpt2;
  const char* pattern = nullptr;
  bool ignore_merges = false, add_bos = false, nfc = false;
};
constexpr Entry kEntries[] = {
    {"default", Cut::kDefault},
    {"gpt-2"},
    {"phi-2"},
    {"jina-es"},
    {"jina-de"},
    {"jina-v2-es"},
    {"jina-v2-de"},
    {"jina-v1-en"},
    {"jina-v2-code"},
    {"roberta-bpe"},
    {"gigachat"},
    {"a.x-4.0"},
    {"mellum"},
    {"modern-bert", Cut::kGpt2, nullptr, false, false, true},
    {"mpt", Cut::kGpt2, nullptr, false, false, true},
    {"olmo", Cut::kGpt2, nullptr, false, false, true},
    {"jais"},
    {"exaone4"},
    {"trillion"},
    {"granite-docling"},
    {"starcoder", Cut::kDigitsGpt2},
    {"refact", Cut::kDigitsGpt2},
    {"command-r", Cut::kDigitsGpt2, nullptr, false, false, true},
    {"smollm", Cut::kDigitsGpt2},
    {"codeshell", Cut::kDigitsGpt2},
    {"exaone", Cut::kDigitsGpt2},
    {"minerva-7b", Cut::kDigitsGpt2},
    {"mellum2", Cut::kDigitsGpt2},
    {"llama3", Cut::kSplit, kLlama3, true, true},
    {"llama-v3", Cut::kSplit, kLlama3, true, true},
    {"llama-bpe", Cut::kSplit, kLlama3, true, true},
    {"falcon3", Cut::kSplit, kLlama3, true, true},
    {"falcon-h1", Cut::kSplit, kLlama3, true, true},
    {"pixtral", Cut::kSplit, kLlama3, true, true},
    {"midm-2.0", Cut::kSplit, kLlama3, true, true},
    {"lfm2", Cut::kSplit, kLlama3, true, true},
    {"jina-v5-nano", Cut::kSplit, kLlama3, true, true},
    {"dbrx", Cut::kSplit, kLlama3},
    {"smaug-bpe", Cut::kSplit, kLlama3},
    {"glm4", Cut::kSplit, kLlama3},
    {"chatglm-bpe", Cut::kSplit, kLlama3},
    {"jais-2", Cut::kSplit, kJais2},
    {"minicpm5", Cut::kMiniCpm5, kMiniCpm, true},
    {"qwen2", Cut::kSplit, kQwen2, false, false, true},
    {"deepseek-r1-qwen", Cut::kSplit, kQwen2},
    {"stablelm2", Cut::kSplit, kQwen2},
    {"kormo", Cut::kSplit, kQwen2},
    {"f2llmv2", Cut::kSplit, kQwen2},
    {"megrez", Cut::kSplit, kQwen2},
    {"hunyuan", Cut::kSplit, kQwen2},
    {"solar-open", Cut::kSplit, kQwen2},
    {"grok-2", Cut::kSplit, kQwen2},
    {"qwen35", Cut::kSplit, kQwen35, false, false, true},
    {"laguna", Cut::kLaguna, kQwen2},
    {"ufakzeka", Cut::kSplit, kUfakzeka},
    {"seed-coder", Cut::kSplit, kSeedCoder},
    {"bailingmoe", Cut::kSplit, kBailing},
    {"bailingmoe2", Cut::kSplit, kBailing},
    {"llada-moe", Cut::kSplit, kBailing},
    {"exaone-moe", Cut::kSplit, kExaoneMoe},
    {"gpt-4o", Cut::kSplit, kO200k},
    {"llama4", Cut::kSplit, kO200k},
    {"kanana2", Cut::kSplit, kO200k},
    {"talkie", Cut::kSplit, kO200k},
    {"minimax-m2", Cut::kSplit, kO200k},
    {"granite-embed-multi-97m", Cut::kSplit, kO200k, true},
    {"tiny_aya", Cut::kTinyAya, kO200k},
    {"cohere2moe", Cut::kTinyAya, kO200k},
    {"tekken", Cut::kSplit, kTekken, true, true},
    {"youtu", Cut::kYoutu, kYoutuMain, true},
    {"kimi-k2", Cut::kSplit, kKimi},
    {"deepseek-llm", Cut::kDeepSeekLlm},
    {"deepseek-coder", Cut::kDeepSeekCoder},
    {"deepseek-v3", Cut::kDeepSeek3},
    {"hunyuan-dense", Cut::kDeepSeek3},
    {"joyai-llm", Cut::kDeepSeek3},
    {"hy_v4", Cut::kDeepSeek3},
    {"spark2_5", Cut::kSpark},
    {"falcon", Cut::kFalcon},
    {"bloom", Cut::kSplit, kBloom},
    {"poro-chat", Cut::kSplit, kBloom},
    {"gpt3-finnish", Cut::kSplit, kBloom},
    {"viking", Cut::kViking, kBloom},
    {"superbpe", Cut::kSuperBpe},
    {"chameleon", Cut::kChameleon, nullptr, false, true},
    {"gemma4", Cut::kLines},
    {"granite-embed-multi-311m", Cut::kLines},
    {"sarvam-moe", Cut::kLines},
};

PreTokenizerStep split(const char* pattern) {
  pretokenizer::Split step;
  step.pattern = {pattern, true};
  return step;
}

std::vector<PreTokenizerStep> steps_of(const Entry& entry) {
  using namespace pretokenizer;  // NOLINT: the steps
  const ByteLevel bytes{false, false}, gpt2{false, true};
  const Digits digits{true};
  switch (entry.cut) {
    case Cut::kGpt2:
      return {gpt2};
    case Cut::kDigitsGpt2:
      return {digits, gpt2};
    case Cut::kSplit:
      return {split(entry.pattern), bytes};
    case Cut::kDeepSeek3:
      return {split(R"(\p{N}{1,3})"), split(kDeepSeekHan), split(kDeepSeekMain), bytes};
    case Cut::kDeepSeekLlm:
      return {split(R"([\r\n])"),
              split(kDeepSeekLetters),
              split(kDeepSeekMarks),
              split(R"(\s+$)"),
              split(kOldDeepSeekHan),
              Digits{false},
              bytes};
    case Cut::kDeepSeekCoder:
      return {split(R"([\r\n])"),
              split(R"(\s?\p{L}+)"),
              split(R"(\s?\p{P}+)"),
              split(kOldDeepSeekHan),
              digits,
              bytes};
    case Cut::kSpark:
      return {split(R"(\p{N}{1,3})"), split(kDeepSeekHan),
              split(R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|)"
                    R"([^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|)"
                    R"(\s+(?!\S)|\s+)"),
              digits, bytes};
    case Cut::kFalcon:
      return {Punctuation{SplitBehavior::kContiguous}, gpt2, Digits{false},
              split("[0-9][0-9][0-9]")};
    case Cut::kViking:
      return {split(entry.pattern), digits, bytes};
    case Cut::kYoutu:
      return {split(kYoutuScripts), split(entry.pattern), bytes};
    case Cut::kSuperBpe:
      return {split(R"(\p{N}+)"), split(R"((?=(\d{3})+(?!\d)))"), bytes};
    case Cut::kTinyAya:
      return {split(R"(\d{1,3}(?=(?:\d{3})*\b))"), split(entry.pattern), bytes};
    case Cut::kLaguna:
      return {split(R"([^\n]+|[\n]+)"), split(entry.pattern), bytes};
    case Cut::kMiniCpm5:
      return {split(R"(\p{N}{1,3})"), split(entry.pattern), bytes};
    case Cut::kChameleon:
      return {split("<sentinel:[0-9]+>"),
              split("(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z"),
              split("([\\t\\n]|    |  )"),
              digits,
              Punctuation{},
              gpt2};
    case Cut::kDefault:
      return {split(R"([\p{P}\$\+<=>\^~\|]+)"), gpt2, split(R"(\p{N}+)"), split("[0-9][0-9][0-9]")};
    case Cut::kLines:
      break;
  }
  return {split(R"([^\n]+|[\n]+)")};
}

// Words, contractions, digits, blanks, line ends, scripts, marks, symbols: where the rules differ.
constexpr std::string_view kProbe =
    "Hello, world! I'm you'RE we'Ll 'tis O'Neil's  two   blanks\tand\t\ttabs \n\nlines\r\n end. \n"
    " 1 22 333 4444 55555 1234567 3.14 1,000,000 x2y3 v1.2.3 camelCase HTTPServer snake_case "
    "a+b=c; (x) [y] {z} <tag/> \"q\" `c` $5 #1 @me 50% a/b a//b\n/c \\d ^~| ... !!! ?!\n"
    "\u00e9t\u00e9 na\u00efve \u00dcber \u0391\u03b2\u03b3 \u041f\u0440\u0438\u0432\u0435\u0442 "
    "\u4f60\u597d\u4e16\u754c \u3053\u3093\u306b\u3061\u306f \u30ab\u30bf \uc548\ub155 "
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u0928\u092e\u0938\u094d\u0924\u0947 "
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd e\u0301 \u2014 \u201cq\u201d \u2026 "
    "\u3002\uff0c "
    "\u00b2 \u0661\u0662\u0663 \u2167 \U0001F600\U0001F3FD \u20ac \u00a0nbsp\u3000wide   ";

std::optional<std::vector<std::string>> cut_probe(const std::vector<PreTokenizerStep>& steps) {
  const auto cutter = PreTokenizer::create(steps, true);
  if (!cutter.ok()) return std::nullopt;
  std::vector<std::string> out;
  PreTokenizer::Scratch scratch;
  cutter->split(kProbe, true, scratch, [&](std::string_view piece) { out.emplace_back(piece); });
  return out;
}

// The names that readers have known longest, first.
constexpr std::string_view kKnownLongest[] = {"gpt-2",  "llama-bpe",    "qwen2",       "smollm",
                                              "gpt-4o", "deepseek-llm", "deepseek-v3", "tekken"};

}  // namespace

std::optional<std::string_view> ggml_pre_of(const std::vector<PreTokenizerStep>& steps,
                                            bool ignore_merges) {
  const auto wanted = cut_probe(steps);
  if (!wanted) return std::nullopt;
  std::optional<std::string_view> second_best;
  const auto matches = [&](std::string_view name) {
    const auto pre = steps_of_ggml_pre(name);
    if (!pre || pre->characters || cut_probe(pre->pre_tokenizer) != wanted) return false;
    if (!second_best) second_best = name;
    return pre->ignore_merges == ignore_merges;
  };
  for (const std::string_view name : kKnownLongest)
    if (matches(name)) return name;
  for (const Entry& entry : kEntries)
    if (matches(entry.name)) return entry.name;
  return second_best;
}

std::optional<GgmlPre> steps_of_ggml_pre(std::string_view name) {
  const auto* found = std::find_if(std::begin(kEntries), std::end(kEntries),
                                   [&](const Entry& entry) { return entry.name == name; });
  if (found == std::end(kEntries)) return std::nullopt;
  GgmlPre out;
  out.pre_tokenizer = steps_of(*found);
  out.ignore_merges = found->ignore_merges;
  out.add_bos = found->add_bos;
  out.characters = found->cut == Cut::kLines;
  if (found->nfc) out.normalizer.emplace_back(normalizer::UnicodeForm{normalizer::Form::kNfc});
  if (out.characters) {
    out.normalizer.emplace_back(normalizer::Replace{{" ", false}, "\u2581"});
  }
  return out;
}

}  // namespace pome
