#include "tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <random>

#include "base/byte_source.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer_testing.h"

namespace pome {
namespace {

// All bytes, "he", "ll", "hell", " h"; two special tokens, one that is not.
TokenizerSource byte_source() {
  TokenizerSource source;
  source.model = TokenizerSource::Model::kBpe;
  source.origin = "test";
  for (int byte = 0; byte < 256; ++byte) {
    source.tokens.push_back(token_of_bytes(std::string(1, static_cast<char>(byte))));
  }
  const auto merge = [&](const std::string& left, const std::string& right) {
    source.merges.emplace_back(token_of_bytes(left), token_of_bytes(right));
    source.tokens.push_back(token_of_bytes(left + right));
  };
  merge("h", "e");    // 256
  merge("l", "l");    // 257
  merge("he", "ll");  // 258
  merge(" ", "h");    // 259
  const auto add = [&](const std::string& text, bool special) {
    AddedToken token;
    token.id = static_cast<int32_t>(source.tokens.size());
    token.content = text;
    token.special = special;
    source.tokens.push_back(text);
    source.added.push_back(token);
  };
  add("<s>", true);      // 260
  add("<end>", true);    // 261
  add("[tool]", false);  // 262
  source.kinds.assign(source.tokens.size(), TokenKind::kNormal);
  source.kinds[260] = source.kinds[261] = TokenKind::kControl;
  source.kinds[262] = TokenKind::kUserDefined;
  source.pre_tokenizer = {pretokenizer::ByteLevel{false, true}};
  source.decoder = {decoder::ByteLevel{}};
  source.bos = 260;
  source.eos = 261;
  source.bos_text = "<s>";
  return source;
}

// Pieces a, b, ab, the space mark with and without a, and byte tokens.
TokenizerSource piece_source() {
  TokenizerSource source;
  source.model = TokenizerSource::Model::kBpe;
  source.origin = "test";
  source.tokens = {"<unk>", "<s>", "</s>"};
  source.kinds = {TokenKind::kUnknown, TokenKind::kControl, TokenKind::kControl};
  for (int byte = 0; byte < 256; ++byte) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", byte);
    source.tokens.emplace_back(text);
    source.kinds.push_back(TokenKind::kByte);
  }
  for (const char* piece : {"\u2581", "a", "b", "ab", "\u2581a", "\u4f60\u597d", "\u2581\u2581"}) {
    source.tokens.emplace_back(piece);  // 259 ...
    source.kinds.push_back(TokenKind::kNormal);
  }
  source.scores.assign(source.tokens.size(), 0);
  for (size_t id = 259; id < source.tokens.size(); ++id) {
    source.scores[id] = -static_cast<double>(id);
  }
  source.byte_fallback = true;
  source.normalizer = {normalizer::Prepend{" "}, normalizer::Replace{{" ", false}, "\u2581"}};
  source.decoder = {decoder::Replace{{"\u2581", false}, " "}, decoder::ByteFallback{},
                    decoder::Fuse{}, decoder::Strip{" ", 1, 0}};
  source.unknown = 0;
  source.bos = 1;
  source.eos = 2;
  source.prefix_ids = {1};
  return source;
}

TokenizerPtr make(TokenizerSource source) {
  return build(Result<TokenizerSource>(std::move(source)));
}

TEST(ByteBpe, MergesByRank) {
  const TokenizerPtr tokenizer = make(byte_source());
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->encode("hello"), (Ids{258, 'o'}));
  // h and e join first, so that the space stays alone.
  EXPECT_EQ(tokenizer->encode(" hello"), (Ids{' ', 258, 'o'}));
  EXPECT_EQ(tokenizer->encode(" hi"), (Ids{259, 'i'}));
  EXPECT_EQ(tokenizer->encode("\xFF\xC3"), (Ids{0xFF, 0xC3}));
  EXPECT_EQ(tokenizer->encode(""), Ids{});
  EXPECT_EQ(tokenizer->token_bytes(259), " h");
  EXPECT_EQ(tokenizer->token_bytes(0xFF), "\xFF");
  EXPECT_EQ(tokenizer->token_bytes(-1), "");
  EXPECT_EQ(*tokenizer->decode(Ids{0xFF, 'a'}),
            "\xEF\xBF\xBD"
            "a");
}

TEST(ByteBpe, RepeatedWordsAreTakenFromTheCache) {
  const TokenizerPtr tokenizer = make(byte_source());
  const Ids ids = tokenizer->encode("hell hell hell hell");
  EXPECT_EQ(ids, (Ids{258, ' ', 258, ' ', 258, ' ', 258}));
}

TEST(ByteBpe, IgnoreMergesTakesWholeWords) {
  TokenizerSource source = byte_source();
  source.tokens.push_back(token_of_bytes(" hello"));
  source.kinds.push_back(TokenKind::kNormal);
  EXPECT_EQ(make(source)->encode(" hello"), (Ids{' ', 258, 'o'}));
  source.ignore_merges = true;
  EXPECT_EQ(make(source)->encode(" hello"), (Ids{263}));
}

TEST(ByteBpe, BytesWithoutATokenBecomeUnknownOrNothing) {
  TokenizerSource source = byte_source();
  source.tokens['z'] = "";
  EXPECT_EQ(make(source)->encode("azzb"), (Ids{'a', 'b'}));
  source.unknown = 262;
  EXPECT_EQ(make(source)->encode("azzb"), (Ids{'a', 262, 262, 'b'}));
  source.fuse_unknown = true;
  EXPECT_EQ(make(source)->encode("azzb"), (Ids{'a', 262, 'b'}));
}

TEST(ByteBpe, PrefixSpaceUnlessThereIsOne) {
  TokenizerSource source = byte_source();
  source.pre_tokenizer = {pretokenizer::ByteLevel{true, true}};
  const TokenizerPtr tokenizer = make(source);
  EXPECT_EQ(tokenizer->encode("a"), (Ids{' ', 'a'}));
  EXPECT_EQ(tokenizer->encode(" a"), (Ids{' ', 'a'}));
}

TEST(Special, BosAndEosAsTheSourceAsks) {
  TokenizerSource source = byte_source();
  source.prefix_ids = {260};
  source.suffix_ids = {261};
  const TokenizerPtr tokenizer = make(source);
  EXPECT_EQ(tokenizer->encode("a"), (Ids{260, 'a', 261}));
  EXPECT_EQ(tokenizer->encode("a", {.add_special = false}), (Ids{'a'}));
  EXPECT_EQ(*tokenizer->decode(Ids{260, 'a', 261}), "a");
  EXPECT_EQ(*tokenizer->decode(Ids{260, 'a', 261}, false), "<s>a<end>");
}

TEST(Special, UserTextNeverBecomesASpecialToken) {
  const TokenizerPtr tokenizer = make(byte_source());
  EXPECT_EQ(tokenizer->encode("<s>a<end>"), (Ids{260, 'a', 261}));
  EXPECT_EQ(tokenizer->encode("<s>", {.parse_special = false}), (Ids{'<', 's', '>'}));
  // Added tokens that are not special stay what they are.
  EXPECT_EQ(tokenizer->encode("[tool]", {.parse_special = false}), (Ids{262}));
  // Neither does the join of user and template text, on either side.
  const std::string text = "<s><s>";
  for (size_t begin = 0; begin < text.size(); ++begin) {
    for (size_t end = begin + 1; end <= text.size(); ++end) {
      const TextRange user[] = {{begin, end}};
      const Ids ids = tokenizer->encode_with_user_text(text, user);
      const auto specials = std::count(ids.begin(), ids.end(), 260);
      EXPECT_EQ(specials, (begin >= 3) + (end <= 3)) << begin << " " << end;
    }
  }
}

TEST(Special, MergesCannotMakeASpecialToken) {
  TokenizerSource source = byte_source();
  source.tokens.push_back("<s");
  source.kinds.push_back(TokenKind::kNormal);
  source.merges.emplace_back("<", "s");
  source.merges.emplace_back("<s", ">");
  source.pre_tokenizer = {pretokenizer::ByteLevel{false, false}};
  source.ignore_merges = true;
  const TokenizerPtr tokenizer = make(source);
  EXPECT_EQ(tokenizer->encode("<s>", {.parse_special = false}), (Ids{263, '>'}));
}

TEST(Special, ControlTokensNeedNoEntryAmongTheAdded) {
  TokenizerSource source = byte_source();
  source.added.clear();
  const TokenizerPtr tokenizer = make(source);
  EXPECT_EQ(tokenizer->encode("<end>"), (Ids{261}));
  EXPECT_TRUE(tokenizer->is_special(261));
  EXPECT_FALSE(tokenizer->is_special(262));
}

TEST(Added, StripAndSingleWord) {
  TokenizerSource source = byte_source();
  source.added[1].lstrip = source.added[1].rstrip = true;
  source.added[2].single_word = true;
  source.added[2].content = source.tokens[262] = "tool";
  const TokenizerPtr tokenizer = make(source);
  EXPECT_EQ(tokenizer->encode("a \n<end>\t b"), (Ids{'a', 261, 'b'}));
  EXPECT_EQ(tokenizer->encode(" <end> <end> "), (Ids{261, 261}));
  EXPECT_EQ(tokenizer->encode("tool").size(), 1u);
  EXPECT_EQ(tokenizer->encode("a tool!"), (Ids{'a', ' ', 262, '!'}));
  EXPECT_EQ(tokenizer->encode("tools").size(), 5u);
  EXPECT_EQ(tokenizer->encode("_tool").size(), 5u);
}

TEST(Added, LongestOfThoseThatBeginFirst) {
  TokenizerSource source = byte_source();
  for (const char* text : {"ab", "abc", "bcd"}) {
    AddedToken token;
    token.id = static_cast<int32_t>(source.tokens.size());
    token.content = text;
    source.tokens.emplace_back(text);
    source.kinds.push_back(TokenKind::kUserDefined);
    source.added.push_back(token);  // 263, 264, 265
  }
  const TokenizerPtr tokenizer = make(source);
  EXPECT_EQ(tokenizer->encode("abcd"), (Ids{264, 'd'}));
  EXPECT_EQ(tokenizer->encode("abd"), (Ids{263, 'd'}));
  EXPECT_EQ(tokenizer->encode("xbcd"), (Ids{'x', 265}));
}

TEST(SentencePiece, MergesByScoreWithByteFallback) {
  const TokenizerPtr tokenizer = make(piece_source());
  ASSERT_NE(tokenizer, nullptr);
  // ab has a better score than the space mark with a.
  EXPECT_EQ(tokenizer->encode("ab"), (Ids{1, 259, 262}));
  EXPECT_EQ(tokenizer->encode("a"), (Ids{1, 263}));
  EXPECT_EQ(tokenizer->encode("\n"), (Ids{1, 259, 3 + '\n'}));
  // Two characters that are no pieces join to one.
  EXPECT_EQ(tokenizer->encode("\u4f60\u597d"), (Ids{1, 259, 264}));
  EXPECT_EQ(tokenizer->encode("\u4f60"), (Ids{1, 259, 3 + 0xE4, 3 + 0xBD, 3 + 0xA0}));
  EXPECT_EQ(tokenizer->encode("\xFF"), (Ids{1, 259, 3 + 0xFF}));
  EXPECT_EQ(tokenizer->encode(""), (Ids{1}));
  // Placeholders and control tokens that somebody writes out stay text.
  const Ids typed = tokenizer->encode("</s><0x41>", {.parse_special = false});
  EXPECT_EQ(std::count(typed.begin(), typed.end(), 2), 0);
  EXPECT_EQ(std::count(typed.begin(), typed.end(), 3 + 0x41), 0);
}

TEST(SentencePiece, PrefixComesAfterEverySpecialToken) {
  const TokenizerPtr tokenizer = make(piece_source());
  EXPECT_EQ(tokenizer->encode("a</s>a"), (Ids{1, 263, 2, 263}));
  TokenizerSource source = piece_source();
  source.normalizer.clear();
  source.pre_tokenizer = {pretokenizer::Metaspace{"\u2581", PrependScheme::kFirst, false}};
  EXPECT_EQ(make(source)->encode("a</s>a"), (Ids{1, 263, 2, 260}));
}

TEST(SentencePiece, SplitAtSpacesKeepsMergesInsideOfWords) {
  TokenizerSource source = piece_source();
  EXPECT_EQ(make(source)->encode(" ", {.add_special = false}), (Ids{265}));
  source.normalizer.clear();
  source.pre_tokenizer = {pretokenizer::Metaspace{"\u2581", PrependScheme::kAlways, true}};
  EXPECT_EQ(make(source)->encode("  ", {.add_special = false}), (Ids{259, 259}));
}

TEST(SentencePiece, DecodeDropsThePrefixSpaceOnce) {
  const TokenizerPtr tokenizer = make(piece_source());
  EXPECT_EQ(*tokenizer->decode(Ids{1, 263, 263}), "a a");
  EXPECT_EQ(*tokenizer->decode(Ids{3 + 0xE4, 3 + 0xBD, 3 + 0xA0}), "\u4f60");
  EXPECT_EQ(*tokenizer->decode(Ids{3 + 0xE4, 3 + 0xBD}), "\uFFFD\uFFFD");
  const auto wrong = tokenizer->decode(Ids{5, 9999});
  ASSERT_FALSE(wrong.ok());
  EXPECT_EQ(wrong.status().refusal(), Refusal::kRange);
  EXPECT_EQ(tokenizer->decode(Ids{-1}).status().refusal(), Refusal::kRange);
}

TEST(SentencePiece, NormalizedAddedTokensAreLookedForInEscapedText) {
  TokenizerSource source = piece_source();
  AddedToken token;
  token.id = 2;
  token.content = "</s>";
  token.special = token.normalized = true;
  source.added.push_back(token);
  const TokenizerPtr tokenizer = make(source);
  // The prefix belongs to what is looked for, so that only a word of its own is the token.
  EXPECT_EQ(tokenizer->encode("</s>"), (Ids{1, 2}));
  EXPECT_EQ(tokenizer->encode("a </s>"), (Ids{1, 263, 2}));
  EXPECT_GT(tokenizer->encode("a</s>").size(), 3u);
  const TextRange user[] = {{2, 6}};
  const Ids ids = tokenizer->encode_with_user_text("a </s>", user);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 2), 0);
}

// --- Refusals ---

struct Broken {
  const char* name;
  Refusal refusal;
  std::function<void(TokenizerSource&)> damage;
};

TEST(Create, RefusesWhatDoesNotFitTogether) {
  const Broken cases[] = {
      {"scores", Refusal::kRange, [](auto& s) { s.scores.pop_back(); }},
      {"score nan", Refusal::kRange, [](auto& s) { s.scores[3] = std::stof("nan"); }},
      {"kinds", Refusal::kRange, [](auto& s) { s.kinds.push_back(TokenKind::kNormal); }},
      {"bos", Refusal::kRange, [](auto& s) { s.bos = 100000; }},
      {"eos", Refusal::kRange, [](auto& s) { s.eos = -1; }},
      {"unknown", Refusal::kRange, [](auto& s) { s.unknown = 100000; }},
      {"padding", Refusal::kRange, [](auto& s) { s.padding = 100000; }},
      {"end of turn", Refusal::kRange, [](auto& s) { s.end_of_turn = 100000; }},
      {"stop", Refusal::kRange, [](auto& s) { s.stop_ids = {100000}; }},
      {"empty", Refusal::kRange,
       [](auto& s) {
         s.tokens.clear();
         s.scores.clear();
         s.kinds.clear();
       }},
      {"same text", Refusal::kDup, [](auto& s) { s.tokens[261] = s.tokens[260]; }},
      {"added empty", Refusal::kRange, [](auto& s) { s.added.emplace_back(); }},
      {"added id", Refusal::kRange,
       [](auto& s) {
         s.added.emplace_back();
         s.added.back().content = "x";
         s.added.back().id = 5000;
       }},
      {"added text", Refusal::kRange,
       [](auto& s) {
         s.added.emplace_back();
         s.added.back().content = "x";
       }},
      {"added twice", Refusal::kDup,
       [](auto& s) {
         AddedToken token;
         token.id = 2;
         token.content = "</s>";
         s.added = {token, token};
       }},
      {"merge", Refusal::kRange,
       [](auto& s) {
         s.merges = {{"a", "q"}};
       }},
      {"merge result", Refusal::kRange,
       [](auto& s) {
         s.merges = {{"b", "b"}};
       }},
      {"long piece", Refusal::kLimit, [](auto& s) { s.tokens[260] = std::string(5000, 'a'); }},
      {"nothing", Refusal::kNone, [](auto& s) { s.model = TokenizerSource::Model::kNone; }},
      {"prefix", Refusal::kRange, [](auto& s) { s.prefix_ids = {100000}; }},
      {"suffix", Refusal::kRange, [](auto& s) { s.suffix_ids = {-1}; }},
      {"normalizer regex", Refusal::kRegex,
       [](auto& s) {
         s.normalizer = {normalizer::Replace{{"(", true}, ""}};
       }},
      {"normalizers", Refusal::kLimit, [](auto& s) { s.normalizer.resize(100); }},
      {"split regex", Refusal::kRegex,
       [](auto& s) {
         s.pre_tokenizer = {pretokenizer::Split{{"a&&b", true}, SplitBehavior::kIsolated, false}};
       }},
      {"no metaspace", Refusal::kRange,
       [](auto& s) {
         s.pre_tokenizer = {pretokenizer::Metaspace{"", PrependScheme::kNever, true}};
       }},
      {"no length", Refusal::kRange,
       [](auto& s) { s.pre_tokenizer = {pretokenizer::FixedLength{0}}; }},
      {"pre-tokenizers", Refusal::kLimit, [](auto& s) { s.pre_tokenizer.resize(100); }},
      {"nothing to strip", Refusal::kRange,
       [](auto& s) {
         s.decoder = {decoder::Strip{"", 1, 0}};
       }},
      {"decoders", Refusal::kLimit, [](auto& s) { s.decoder.resize(100); }},
  };
  for (const Broken& broken : cases) {
    TokenizerSource source = piece_source();
    broken.damage(source);
    const auto tokenizer = Tokenizer::create(std::move(source));
    ASSERT_FALSE(tokenizer.ok()) << broken.name;
    EXPECT_EQ(tokenizer.status().refusal(), broken.refusal)
        << broken.name << ": " << tokenizer.status().to_string();
    EXPECT_EQ(tokenizer.status().file(), "test") << broken.name;
  }
}

TEST(Create, LimitsTheNumberOfTokensAndMerges) {
  TokenizerSource source = byte_source();
  source.merges.resize((size_t{1} << 23) + 1, {"a", "b"});
  EXPECT_EQ(Tokenizer::create(std::move(source)).status().refusal(), Refusal::kLimit);
  TokenizerSource large = byte_source();
  large.tokens.resize((size_t{1} << 22) + 1);
  EXPECT_EQ(Tokenizer::create(std::move(large)).status().refusal(), Refusal::kLimit);
}

// --- Properties ---

TEST(Property, StreamingNeverCutsACharacterAndAddsUpToDecode) {
  std::mt19937 random(9);
  const TokenizerPtr tokenizers[] = {make(byte_source()), make(piece_source())};
  for (int round = 0; round < 2000; ++round) {
    const TokenizerPtr& tokenizer = tokenizers[round % 2];
    Ids ids;
    for (size_t i = 0; i < random() % 12; ++i) {
      // Mostly bytes of characters of several bytes.
      const auto base = static_cast<int32_t>(round % 2 == 0 ? 0 : 3);
      const auto any =
          static_cast<int32_t>(random() % static_cast<uint32_t>(tokenizer->vocab_size()));
      const auto byte = base + static_cast<int32_t>(0x80 + random() % 0x75);
      ids.push_back(random() % 3 == 0 ? any : byte);
    }
    for (const bool skip : {false, true}) {
      StreamDecoder decoder(tokenizer, skip);
      std::string text;
      for (const int32_t id : ids) {
        const std::string piece = decoder.push(id);
        ASSERT_TRUE(is_valid_utf8(piece));
        text += piece;
      }
      text += decoder.flush();
      // Runs of byte tokens that are no text are where the two differ.
      const std::string whole = *tokenizer->decode(ids, skip);
      if (!tokenizer->source().byte_fallback || whole.find("\uFFFD") == std::string::npos) {
        ASSERT_EQ(text, whole) << testing::PrintToString(ids);
      }
    }
  }
}

TEST(Property, EveryCutOfACharacterIsHeldBack) {
  const TokenizerPtr tokenizer = make(byte_source());
  const std::string text = "a\u00e9\u4f60\U0001f600z";
  StreamDecoder decoder(tokenizer);
  std::string out;
  for (const char c : text) {
    const std::string piece = decoder.push(static_cast<uint8_t>(c));
    EXPECT_EQ(piece.find("\uFFFD"), std::string::npos);
    out += piece;
  }
  EXPECT_EQ(out + decoder.flush(), text);
  decoder.push(0xE4);
  decoder.push(0xBD);
  EXPECT_EQ(decoder.flush(), "\uFFFD");
  EXPECT_EQ(decoder.push(99999), "");
}

TEST(Property, ContinuingAPromptKeepsTheSpace) {
  const TokenizerPtr tokenizer = make(piece_source());
  StreamDecoder at_start(tokenizer);
  EXPECT_EQ(at_start.push(263), "a");
  EXPECT_EQ(at_start.push(263), " a");
  StreamDecoder inside(tokenizer, true, false);
  EXPECT_EQ(inside.push(263), " a");
}

TEST(Property, AnyBytesComeBack) {
  std::mt19937 random(13);
  const TokenizerPtr tokenizers[] = {make(byte_source()), make(piece_source())};
  for (int round = 0; round < 500; ++round) {
    std::string text;
    for (size_t i = 0; i < random() % 50; ++i) {
      text.push_back(static_cast<char>(random() % 3 == 0 ? random() : ' ' + random() % 90));
    }
    for (const TokenizerPtr& tokenizer : tokenizers) {
      std::string bytes;
      for (const int32_t id : tokenizer->encode(text, {.add_special = false})) {
        bytes += tokenizer->token_bytes(id);
      }
      if (tokenizer->source().byte_fallback && !bytes.empty()) bytes.erase(0, 1);  // the prefix
      ASSERT_EQ(bytes, text);
    }
  }
}

TEST(Property, LongTextsOfOneKindTakeLinearTime) {
  TokenizerSource joined = byte_source();
  joined.pre_tokenizer = {pretokenizer::ByteLevel{false, false}};  // the whole text is one piece
  const std::vector<std::pair<std::string, size_t>> kinds = {{"A", 43000},     {"Z", 131072},
                                                             {"\n", 1000000},  {"\u0301", 524288},
                                                             {"hell", 250000}, {" ", 1000000}};
  const TokenizerPtr tokenizers[] = {make(byte_source()), make(joined), make(piece_source())};
  for (const auto& [kind, count] : kinds) {
    std::string text;
    for (size_t i = 0; i < count; ++i) text += kind;
    for (const TokenizerPtr& tokenizer : tokenizers) {
      const auto start = std::chrono::steady_clock::now();
      const Ids ids = tokenizer->encode(text);
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      EXPECT_FALSE(ids.empty());
      EXPECT_LT(seconds.count(), 20.0) << testing::PrintToString(kind);
    }
  }
}

TEST(Digest, ChangesWithEverythingThatChangesIdsOrText) {
  const std::string digest = make(byte_source())->digest();
  EXPECT_EQ(digest.size(), 64u);
  EXPECT_EQ(make(byte_source())->digest(), digest);
  const std::function<void(TokenizerSource&)> changes[] = {
      [](auto& s) { s.tokens[262] = s.added[2].content = "[x]"; },
      [](auto& s) { std::swap(s.merges[0], s.merges[1]); },
      [](auto& s) {
        s.pre_tokenizer = {pretokenizer::ByteLevel{true, true}};
      },
      [](auto& s) { s.normalizer = {normalizer::Lowercase{}}; },
      [](auto& s) { s.normalizer = {normalizer::StripAccents{}}; },
      [](auto& s) { s.decoder.clear(); },
      [](auto& s) { s.prefix_ids = {260}; },
      [](auto& s) { s.suffix_ids = {260}; },
      [](auto& s) { s.end_of_word_suffix = "x"; },
      [](auto& s) { s.added[0].lstrip = true; },
      [](auto& s) { s.ignore_merges = true; },
      [](auto& s) { s.eos = 260; },
      [](auto& s) { s.chat_template = "x"; },
      [](auto& s) { s.stop_ids = {5}; },
      [](auto& s) { s.bos_text = "<t>"; },
  };
  for (const auto& change : changes) {
    TokenizerSource source = byte_source();
    change(source);
    EXPECT_NE(make(source)->digest(), digest);
  }
  TokenizerSource elsewhere = byte_source();
  elsewhere.origin = "another file";
  EXPECT_EQ(make(elsewhere)->digest(), digest);
}

TEST(StopIds, UnionOfConfigsTokensAndTemplate) {
  TokenizerSource source = byte_source();
  source.stop_ids = {7, 261};
  source.end_of_message = 9;
  source.eos = 260;
  source.chat_template =
      "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n<end>\n{% endfor %}";
  const TokenizerPtr tokenizer = make(source);
  EXPECT_EQ(Ids(tokenizer->stop_ids().begin(), tokenizer->stop_ids().end()), (Ids{7, 9, 260, 261}));
  source.stop_ids.clear();
  EXPECT_EQ(make(source)->stop_ids().back(), 261);  // only the template says so
  source.chat_template = "{% broken";
  EXPECT_EQ(make(source)->stop_ids().back(), 260);
}

TEST(EncodeSpans, JoinsTextAndKeepsUserTextPlain) {
  TokenizerSource source = byte_source();
  source.prefix_ids = {260};
  const TokenizerPtr tokenizer = make(source);
  // The word "hell" reaches over the border of the spans.
  EXPECT_EQ(encode_spans(*tokenizer, {{"<s>he", false}, {"ll<end>", true}, {"<end>", false}}),
            (Ids{260, 258, '<', 'e', 'n', 'd', '>', 261}));
  // BOS is there once, whether the template writes it or not.
  EXPECT_EQ(encode_spans(*tokenizer, {{"a", false}}), (Ids{260, 'a'}));
  EXPECT_EQ(encode_spans(*tokenizer, {{"<s>a", false}}), (Ids{260, 'a'}));
  EXPECT_EQ(encode_spans(*tokenizer, {}), (Ids{260}));
}

}  // namespace
}  // namespace pome
