#include "formats/sentencepiece_model.h"

#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "formats/protobuf.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/charsmap.h"

namespace pome {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{256} << 20;
constexpr size_t kMaxPieces = size_t{1} << 22;
constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581

enum class ModelType : uint64_t { kUnigram = 1, kBpe = 2, kWord = 3, kChar = 4 };

struct Trainer {
  uint64_t model_type = static_cast<uint64_t>(ModelType::kUnigram);
  bool treat_whitespace_as_suffix = false, byte_fallback = false;
  std::string bos_piece = "<s>", eos_piece = "</s>", pad_piece = "<pad>";
};

float as_float(std::span<const std::byte> bytes) {
  float out = 0;
  if (bytes.size() == sizeof(out)) std::memcpy(&out, bytes.data(), sizeof(out));
  return out;
}

std::string indexed(size_t i) { return "pieces[" + std::to_string(i) + "]"; }

void read_piece(ProtoReader message, TokenizerSource& out) {
  std::string text;
  float score = 0;
  uint64_t type = static_cast<uint64_t>(TokenKind::kNormal);
  while (message.next()) {
    switch (message.field()) {
      case 1:
        message.once();
        text = message.text();
        break;
      case 2:
        message.once();
        score = as_float(message.fixed(4));
        break;
      case 3:
        message.once();
        type = message.varint();
        if (message.ok() && (type < 1 || type > 6)) {
          message.fail(Refusal::kRange, "piece type " + std::to_string(type) + " is not 1..6");
        }
        break;
      default:
        break;
    }
  }
  if (message.ok() && text.empty()) message.fail(Refusal::kRange, "a piece needs a text");
  if (message.ok() && std::isnan(score)) message.fail(Refusal::kRange, "a score is not a number");
  if (message.ok() && out.tokens.size() == kMaxPieces) {
    message.fail(Refusal::kLimit, "more than 4194304 pieces");
  }
  if (!message.ok()) return;
  out.tokens.push_back(std::move(text));
  out.scores.push_back(score);
  out.kinds.push_back(static_cast<TokenKind>(type));
}

Trainer read_trainer(ProtoReader message) {
  Trainer out;
  while (message.next()) {
    switch (message.field()) {
      case 3:
        out.model_type = message.varint();
        break;
      case 24:
        out.treat_whitespace_as_suffix = message.boolean();
        break;
      case 35:
        out.byte_fallback = message.boolean();
        break;
      case 46:
        out.bos_piece = message.text();
        break;
      case 47:
        out.eos_piece = message.text();
        break;
      case 48:
        out.pad_piece = message.text();
        break;
      default:
        break;
    }
  }
  return out;
}

normalizer::SentencePiece read_normalizer(ProtoReader message) {
  normalizer::SentencePiece out;
  while (message.next()) {
    switch (message.field()) {
      case 2: {
        const auto map = message.bytes();
        out.charsmap.assign(reinterpret_cast<const char*>(map.data()), map.size());
        break;
      }
      case 3:
        out.add_dummy_prefix = message.boolean();
        break;
      case 4:
        out.remove_extra_whitespaces = message.boolean();
        break;
      case 5:
        out.escape_whitespaces = message.boolean();
        break;
      default:
        break;
    }
  }
  return out;
}

// What the library demands of the pieces when it loads a model.
Status check_pieces(const TokenizerSource& source) {
  // Control, unknown and byte pieces have names of their own: text never becomes them.
  std::unordered_map<std::string_view, size_t> ordinary, reserved;
  std::optional<size_t> unknown;
  std::array<bool, 256> bytes{};
  for (size_t i = 0; i < source.tokens.size(); ++i) {
    const TokenKind kind = source.kinds[i];
    const bool own_name =
        kind == TokenKind::kControl || kind == TokenKind::kUnknown || kind == TokenKind::kByte;
    const auto [first, fresh] = (own_name ? reserved : ordinary).emplace(source.tokens[i], i);
    if (!fresh) {
      return bad_input(Refusal::kDup, "piece \"" + escape_for_terminal(source.tokens[i], 80) +
                                          "\" is there twice, as " + std::to_string(first->second) +
                                          " and as " + std::to_string(i))
          .at(indexed(i));
    }
    if (kind == TokenKind::kUnknown) {
      if (unknown) {
        return bad_input(Refusal::kDup, "a second unknown piece, after " + std::to_string(*unknown))
            .at(indexed(i));
      }
      unknown = i;
    }
    if (kind != TokenKind::kByte) continue;
    const std::optional<uint8_t> byte = byte_of_placeholder(source.tokens[i]);
    if (!byte) {
      return bad_input(Refusal::kRange, "\"" + escape_for_terminal(source.tokens[i], 80) +
                                            "\" is no name of a byte such as <0x0A>")
          .at(indexed(i));
    }
    if (!source.byte_fallback) {
      return bad_input(Refusal::kRange, "a byte piece in a model without byte_fallback")
          .at(indexed(i));
    }
    bytes[*byte] = true;
  }
  if (!unknown) return bad_input(Refusal::kRange, "no piece is the unknown one").at("pieces");
  for (size_t byte = 0; source.byte_fallback && byte < bytes.size(); ++byte) {
    if (bytes[byte]) continue;
    return bad_input(Refusal::kRange,
                     "byte_fallback is set, but byte " + std::to_string(byte) + " has no piece")
        .at("pieces");
  }
  return {};
}

Status choose_model(const Trainer& trainer, TokenizerSource& source) {
  switch (static_cast<ModelType>(trainer.model_type)) {
    case ModelType::kUnigram:
      source.model = TokenizerSource::Model::kUnigram;
      return {};
    case ModelType::kBpe:
      source.model = TokenizerSource::Model::kBpe;
      break;
    case ModelType::kWord:
    case ModelType::kChar:
      return unsupported(std::string("SentencePiece models of type ") +
                         (trainer.model_type == 3 ? "word" : "char") + " are not supported")
          .at("trainer_spec.model_type");
    default:
      return bad_input(Refusal::kRange,
                       "model type " + std::to_string(trainer.model_type) + " is not 1..4")
          .at("trainer_spec.model_type");
  }
  // The library lets such pieces take part in merging and takes them apart again afterwards.
  for (size_t i = 0; i < source.kinds.size(); ++i) {
    if (source.kinds[i] != TokenKind::kUnused) continue;
    return unsupported("unused pieces in a BPE model are not supported").at(indexed(i));
  }
  return {};
}

void set_ids(const Trainer& trainer, TokenizerSource& source) {
  const auto control = [&](const std::string& text) -> std::optional<int32_t> {
    for (size_t i = 0; i < source.tokens.size(); ++i) {
      if (source.kinds[i] == TokenKind::kControl && source.tokens[i] == text) {
        return static_cast<int32_t>(i);
      }
    }
    return std::nullopt;
  };
  source.bos = control(trainer.bos_piece);
  source.eos = control(trainer.eos_piece);
  source.padding = control(trainer.pad_piece);
  for (size_t i = 0; i < source.tokens.size(); ++i) {
    if (source.kinds[i] == TokenKind::kUnknown) source.unknown = static_cast<int32_t>(i);
  }
  if (source.bos) source.bos_text = source.tokens[static_cast<size_t>(*source.bos)];
  if (source.eos) source.eos_text = source.tokens[static_cast<size_t>(*source.eos)];
}

void set_steps(normalizer::SentencePiece step, TokenizerSource& source) {
  for (size_t i = 0; i < source.tokens.size(); ++i) {
    if (source.kinds[i] == TokenKind::kUserDefined) step.user_defined.push_back(source.tokens[i]);
  }
  source.decoder.push_back(decoder::Replace{{std::string(kSpaceMark), false}, " "});
  if (source.byte_fallback) source.decoder.push_back(decoder::ByteFallback{});
  source.decoder.push_back(decoder::Fuse{});
  if (step.add_dummy_prefix || step.remove_extra_whitespaces) {
    const bool suffix = step.treat_whitespace_as_suffix;
    source.decoder.push_back(decoder::Strip{" ", suffix ? 0u : 1u, suffix ? 1u : 0u});
  }
  source.normalizer.push_back(std::move(step));
}

}  // namespace

bool looks_like_sentencepiece(const ByteSource& source) {
  std::byte first{};
  return source.size() > 0 && source.read(0, std::span(&first, 1)).ok() &&
         first == std::byte{1 << 3 | 2};
}

Result<TokenizerSource> read_sentencepiece_model(const ByteSourcePtr& source) {
  if (source->size() > kMaxFileBytes) {
    return Status(bad_input(Refusal::kLimit,
                            std::to_string(source->size()) + " bytes; at most 268435456 are read"))
        .in(source->name());
  }
  std::vector<std::byte> bytes(static_cast<size_t>(source->size()));
  POME_RETURN_IF_ERROR(source->read(0, bytes));
  ProtoContext context{source->name(), bytes, {}};
  TokenizerSource out;
  out.origin = source->name();
  Trainer trainer;
  normalizer::SentencePiece step;
  ProtoReader message(&context, "ModelProto");
  while (message.next()) {
    switch (message.field()) {
      case 1:
        read_piece(message.message("SentencePiece"), out);
        break;
      case 2:
        message.once();
        trainer = read_trainer(message.message("TrainerSpec"));
        break;
      case 3:
        message.once();
        step = read_normalizer(message.message("NormalizerSpec"));
        break;
      default:
        break;
    }
  }
  if (!context.error.ok()) return context.error;
  const auto finish = [&]() -> Status {
    if (out.tokens.empty()) {
      return bad_input(Refusal::kMagic, "no SentencePiece model: it has no pieces").at("pieces");
    }
    out.byte_fallback = trainer.byte_fallback;
    out.fuse_unknown = out.as_sentencepiece = true;
    POME_RETURN_IF_ERROR(check_pieces(out));
    POME_RETURN_IF_ERROR(choose_model(trainer, out));
    if (auto map = CharsMap::parse(step.charsmap); !map.ok()) {
      return std::move(map).status().at("normalizer_spec.precompiled_charsmap");
    }
    step.treat_whitespace_as_suffix = trainer.treat_whitespace_as_suffix;
    set_ids(trainer, out);
    set_steps(std::move(step), out);
    return {};
  };
  if (Status status = finish(); !status.ok()) return std::move(status).in(source->name());
  return out;
}

}  // namespace pome
