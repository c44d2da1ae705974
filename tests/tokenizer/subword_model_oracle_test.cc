// Unigram and WordPiece models that the Python package tokenizers trains here, piece by piece.
#include <random>
#include <string>
#include <vector>

#include "tokenizer/python_oracle.h"
#include "tokenizer/subword_model.h"
#include "tokenizer/tokenizer_testing.h"
#include "tokenizer/unicode.h"

namespace pome {
namespace {

constexpr const char* kTrain = R"py(
import json, sys
from tokenizers import Tokenizer, models, trainers, pre_tokenizers
task = json.load(open(sys.argv[1], encoding='utf-8'))
corpus = task['texts'] * 2
out = {}
tok = Tokenizer(models.Unigram())
tok.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
tok.train_from_iterator(corpus, trainers.UnigramTrainer(vocab_size=700, unk_token='<unk>',
    special_tokens=['<unk>'], show_progress=False, initial_alphabet=[]))
state = json.loads(tok.to_str())['model']
vocab = [(t, s) for t, s in state['vocab']]
for name, fallback in (('unigram', False), ('unigram_bytes', True)):
    # Many equal scores, so that it matters who wins.
    entries = [(t, round(s) if i % 2 else s) for i, (t, s) in enumerate(vocab)]
    if fallback:
        entries += [('<0x%02X>' % b, 0.0) for b in range(256)]
    model = models.Unigram(entries, unk_id=0, byte_fallback=fallback)
    out[name] = {'tokens': [t for t, _ in entries], 'scores': [s for _, s in entries],
                 'ids': [[t.id for t in model.tokenize(p)] for p in task['pieces']]}
tok = Tokenizer(models.WordPiece(unk_token='[UNK]'))
tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
tok.train_from_iterator(corpus, trainers.WordPieceTrainer(vocab_size=900, special_tokens=['[UNK]'],
                                                          show_progress=False))
vocab = tok.get_vocab()
tokens = sorted(vocab, key=vocab.get)
model = models.WordPiece(vocab, unk_token='[UNK]', max_input_chars_per_word=12)
out['wordpiece'] = {'tokens': tokens, 'ids': [[t.id for t in model.tokenize(p)] for p in task['pieces']]}
json.dump(out, open(sys.argv[2], 'w', encoding='utf-8'))
)py";

std::vector<std::string> lines_of(const std::string& text, size_t limit) {
  std::vector<std::string> out;
  size_t begin = 0;
  while (begin < text.size() && out.size() < limit) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    if (end > begin) out.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

TEST(SubwordModelOracle, TrainedModelsGiveTheSameIds) {
  POME_NEED_PYTHON("tokenizers");
  const std::string path = std::string(POME_SOURCE_DIR) + "/data/held-out.txt";
  POME_NEED(path);
  const std::vector<std::string> texts = lines_of(read_all(path), 3000);
  std::mt19937 random(9);
  std::vector<std::string> pieces;
  for (int i = 0; i < 6000; ++i) {
    const std::string& line = texts[random() % texts.size()];
    size_t begin = random() % line.size();
    while (begin > 0 && (line[begin] & 0xC0) == 0x80) --begin;
    size_t end = std::min(line.size(), begin + 1 + random() % (i % 3 == 0 ? 60 : 14));
    while (end < line.size() && (line[end] & 0xC0) == 0x80) ++end;
    std::string piece = line.substr(begin, end - begin);
    if (i % 4 == 0) append_utf8(piece, 0x80 + random() % 0x3000);
    if (i % 8 == 0) piece += "\u4f60zzq\u0301";
    if (i % 2 == 0) {
      for (size_t at = 0; (at = piece.find(' ', at)) != std::string::npos;) {
        piece.replace(at, 1, "\u2581");
      }
    }
    pieces.push_back(piece);
  }
  const Json output = run_python(kTrain, {{"texts", texts}, {"pieces", pieces}});
  ASSERT_TRUE(output.is_object());
  for (const auto& [name, expected] : output.items()) {
    TokenizerSource source;
    source.tokens = expected["tokens"].get<std::vector<std::string>>();
    ASSERT_GT(source.tokens.size(), 300u) << name;
    source.unknown = 0;
    source.fuse_unknown = true;
    source.byte_fallback = name == "unigram_bytes";
    source.continuing_subword_prefix = "##";
    source.max_input_chars_per_word = 12;
    const bool wordpiece = name == "wordpiece";
    if (!wordpiece) source.scores = expected["scores"].get<std::vector<double>>();
    const std::vector<bool> allowed(source.tokens.size(), true);
    const auto model = wordpiece ? make_wordpiece(source, allowed) : make_unigram(source, allowed);
    ASSERT_TRUE(model.ok()) << model.status().to_string();
    int wrong = 0;
    for (size_t i = 0; i < pieces.size() && wrong < 5; ++i) {
      Ids ids;
      SubwordModel::Scratch scratch;
      (*model)->encode(pieces[i], scratch, ids);
      if (ids == expected["ids"][i].get<Ids>()) continue;
      ++wrong;
      ADD_FAILURE() << name << " " << testing::PrintToString(pieces[i]) << "\n  expected "
                    << expected["ids"][i].dump() << "\n  found    " << Json(ids).dump();
    }
  }
}

}  // namespace
}  // namespace pome
