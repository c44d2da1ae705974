#include "formats/sentencepiece_model.h"

#include <gtest/gtest.h>

#include <functional>

#include "malformed/back_ends.h"
#include "malformed/sentencepiece_bytes.h"

namespace pome {
namespace {

using namespace malformed;  // NOLINT: builders of the test

Result<TokenizerSource> read(const std::string& bytes) {
  return read_sentencepiece_model(memory_source(bytes_of(bytes), "tokenizer.model"));
}

TEST(SentencePieceModel, Bpe) {
  const auto source = read(valid_sentencepiece().build());
  ASSERT_TRUE(source.ok()) << source.status().to_string();
  EXPECT_EQ(source->model, TokenizerSource::Model::kBpe);
  ASSERT_EQ(source->tokens.size(), 9u);
  EXPECT_EQ(source->tokens[3], "\u2581ab");
  EXPECT_EQ(source->scores[3], -1);
  EXPECT_EQ(source->kinds[8], TokenKind::kUserDefined);
  EXPECT_EQ(source->unknown, 0);
  EXPECT_EQ(source->bos, 1);
  EXPECT_EQ(source->eos, 2);
  EXPECT_FALSE(source->padding.has_value());
  EXPECT_TRUE(source->fuse_unknown);
  EXPECT_FALSE(source->byte_fallback);
  ASSERT_EQ(source->normalizer.size(), 1u);
  const auto& step = std::get<normalizer::SentencePiece>(source->normalizer[0]);
  EXPECT_EQ(step.charsmap, charsmap_of({{"A", "a"}}));
  EXPECT_TRUE(step.add_dummy_prefix && step.remove_extra_whitespaces && step.escape_whitespaces);
  EXPECT_EQ(step.user_defined, std::vector<std::string>{"<x>"});
  EXPECT_EQ(source->decoder.size(), 3u);
}

TEST(SentencePieceModel, UnigramAndBytes) {
  const auto unigram = read(valid_sentencepiece(1).build());
  ASSERT_TRUE(unigram.ok()) << unigram.status().to_string();
  EXPECT_EQ(unigram->model, TokenizerSource::Model::kUnigram);
  EXPECT_TRUE(unigram->as_sentencepiece);
  const auto bytes = read(sentencepiece_with_bytes().build());
  ASSERT_TRUE(bytes.ok()) << bytes.status().to_string();
  EXPECT_TRUE(bytes->byte_fallback);
  EXPECT_EQ(bytes->decoder.size(), 4u);
}

// What a message leaves out has the schema's default.
TEST(SentencePieceModel, Defaults) {
  SentencePieceBytes file = valid_sentencepiece();
  file.trainer = file.normalizer = "";
  file.more_pieces = pb_bytes(1, pb_bytes(1, "c"));
  const auto source = read(file.build());
  ASSERT_TRUE(source.ok()) << source.status().to_string();
  EXPECT_EQ(source->model, TokenizerSource::Model::kUnigram);
  EXPECT_EQ(source->kinds.back(), TokenKind::kNormal);
  EXPECT_EQ(source->scores.back(), 0);
  const auto& step = std::get<normalizer::SentencePiece>(source->normalizer[0]);
  EXPECT_TRUE(step.add_dummy_prefix && step.remove_extra_whitespaces && step.escape_whitespaces);
  file.trainer = pb_bytes(46, "<unk>") + pb_bytes(47, "<s>") + pb_number(24, 1);
  file.end = pb_bytes(200, "an extension");
  const auto named = read(file.build());
  ASSERT_TRUE(named.ok()) << named.status().to_string();
  EXPECT_FALSE(named->bos.has_value());  // no control piece
  EXPECT_EQ(named->eos, 1);
  EXPECT_TRUE(std::get<normalizer::SentencePiece>(named->normalizer[0]).treat_whitespace_as_suffix);
}

struct Row {
  const char* name;
  std::function<void(SentencePieceBytes&)> change;
  Refusal refusal;
  StatusCode code = StatusCode::kBadInput;
};

std::vector<Row> rows() {
  using enum Refusal;
  using File = SentencePieceBytes;
  const auto piece = [](std::string bytes) {
    return [bytes](File& f) { f.more_pieces = pb_bytes(1, bytes); };
  };
  const auto trainer = [](std::string bytes) { return [bytes](File& f) { f.trainer += bytes; }; };
  const auto map = [](std::string bytes) {
    return [bytes](File& f) { f.normalizer = pb_bytes(2, bytes); };
  };
  return {{"empty text", piece(pb_bytes(1, "")), kRange},
          {"no text", piece(pb_float(2, 1)), kRange},
          {"text is not UTF-8", piece(pb_bytes(1, "\xff")), kUtf8},
          {"text twice", piece(pb_bytes(1, "q") + pb_bytes(1, "r")), kDup},
          {"score is a number of the wrong kind", piece(pb_bytes(1, "q") + pb_number(2, 1)), kType},
          {"score is NaN", piece(pb_bytes(1, "q") + pb_float(2, __builtin_nanf(""))), kRange},
          {"score is cut", piece(pb_bytes(1, "q") + "\x15\x01"), kBounds},
          {"type 0", piece(pb_bytes(1, "q") + pb_number(3, 0)), kRange},
          {"type 7", piece(pb_bytes(1, "q") + pb_number(3, 7)), kRange},
          {"piece is a number", [](File& f) { f.more_pieces = pb_number(1, 1); }, kType},
          {"piece twice", piece(pb_bytes(1, "ab")), kDup},
          {"control piece twice", piece(pb_bytes(1, "<s>") + pb_number(3, 3)), kDup},
          {"second unknown piece", piece(pb_bytes(1, "q") + pb_number(3, 2)), kDup},
          {"no unknown piece", [](File& f) { f.pieces[0].type = 1; }, kRange},
          {"no pieces", [](File& f) { f.pieces.clear(); }, kMagic},
          {"byte piece without fallback", piece(pb_bytes(1, "<0x0A>") + pb_number(3, 6)), kRange},
          {"fallback without byte pieces", trainer(pb_number(35, 1)), kRange},
          {"byte piece of another name",
           [](File& f) {
             f = sentencepiece_with_bytes();
             f.pieces.back().text = "<0xGG>";
           },
           kRange},
          {"unused piece in BPE", piece(pb_bytes(1, "q") + pb_number(3, 5)), kNone,
           StatusCode::kUnsupported},
          {"word model", trainer(pb_number(3, 3)), kNone, StatusCode::kUnsupported},
          {"char model", trainer(pb_number(3, 4)), kNone, StatusCode::kUnsupported},
          {"model type 9", trainer(pb_number(3, 9)), kRange},
          {"truth value 2", trainer(pb_number(35, 2)), kRange},
          {"name is not UTF-8", trainer(pb_bytes(46, "\xff")), kUtf8},
          {"two trainers", [](File& f) { f.end = pb_bytes(2, ""); }, kDup},
          {"two normalizers", [](File& f) { f.end = pb_bytes(3, ""); }, kDup},
          {"map is cut", map("abc"), kTrunc},
          {"map without units", map(le32(0)), kRange},
          {"map of broken UTF-8",
           map(charsmap_of(trie_units({{"a", 0}}), std::string("\xff\0", 2))), kUtf8},
          {"replacement outside", map(charsmap_of(trie_units({{"a", 9}}), std::string("b\0", 2))),
           kBounds},
          {"ends in a field", [](File& f) { f.end = "\x0a\x7f"; }, kTrunc},
          {"ends in a tag", [](File& f) { f.end = "\x8a"; }, kTrunc},
          {"group", [](File& f) { f.end = "\x0b"; }, kType},
          {"field 0", [](File& f) { f.end = std::string("\x02\0", 2); }, kType}};
}

TEST(SentencePieceModel, Refusals) {
  const TempFolder folder;
  for (const Row& row : rows()) {
    SentencePieceBytes file = valid_sentencepiece();
    row.change(file);
    for (const auto& [name, source] : back_ends(folder, file.build())) {
      const auto read = read_sentencepiece_model(source);
      ASSERT_FALSE(read.ok()) << row.name << ", " << name;
      EXPECT_EQ(read.status().refusal(), row.refusal)
          << row.name << ", " << name << ": " << read.status().to_string();
      EXPECT_EQ(read.status().code(), row.code) << row.name;
      EXPECT_FALSE(read.status().file().empty()) << row.name;
    }
  }
  const auto huge = read_sentencepiece_model(std::make_shared<SparseSource>("", 300u << 20));
  EXPECT_EQ(huge.status().refusal(), Refusal::kLimit);
}

TEST(SentencePieceModel, EveryCutIsRefusedOrStillAModel) {
  const std::string bytes = valid_sentencepiece().build();
  for (size_t size = 0; size < bytes.size(); ++size) {
    const auto source = read(bytes.substr(0, size));
    if (source.ok()) {
      EXPECT_LE(source->tokens.size(), 9u);
    } else {
      EXPECT_NE(source.status().refusal(), Refusal::kNone) << size;
    }
  }
}

TEST(SentencePieceModel, Looks) {
  EXPECT_TRUE(looks_like_sentencepiece(
      *memory_source(bytes_of(valid_sentencepiece().build()), "tokenizer.model")));
  EXPECT_FALSE(looks_like_sentencepiece(*memory_source(bytes_of("IQ== 0\n"), "tokenizer.model")));
  EXPECT_FALSE(looks_like_sentencepiece(*memory_source({}, "tokenizer.model")));
}

}  // namespace
}  // namespace pome
