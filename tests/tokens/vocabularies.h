#pragma once

#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "base/utf8.h"
#include "tokens/tokenizer.h"

namespace fathom::test {

inline std::string byte_piece(int byte) {
  char text[8];
  std::snprintf(text, sizeof text, "<0x%02X>", byte);
  return text;
}

inline int32_t add_piece(Vocabulary& vocabulary, std::string piece, float score, TokenType type) {
  vocabulary.pieces.push_back(std::move(piece));
  vocabulary.scores.push_back(score);
  vocabulary.types.push_back(type);
  return vocabulary.size() - 1;
}

/// Returns a SentencePiece vocabulary: <unk> 0, <s> 1, </s> 2, byte tokens from 3, then the pieces in order of
/// descending score.
inline Vocabulary sentence_pieces(const std::vector<std::string>& pieces, bool space_prefix = true) {
  Vocabulary vocabulary;
  add_piece(vocabulary, "<unk>", 0, TokenType::kUnknown);
  add_piece(vocabulary, "<s>", 0, TokenType::kControl);
  add_piece(vocabulary, "</s>", 0, TokenType::kControl);
  for (int byte = 0; byte < 256; ++byte) add_piece(vocabulary, byte_piece(byte), 0, TokenType::kByte);
  float score = -1;
  for (const std::string& piece : pieces) add_piece(vocabulary, piece, score--, TokenType::kNormal);
  vocabulary.unknown = 0;
  vocabulary.bos = 1;
  vocabulary.eos = 2;
  vocabulary.add_bos = true;
  vocabulary.add_space_prefix = space_prefix;
  return vocabulary;
}

/// Returns a byte as byte-level vocabularies spell it.
inline std::string spelt(unsigned char byte) {
  const auto printable = [](int b) { return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b != 0xad); };
  uint32_t character = byte;
  if (!printable(byte)) {
    character = 0x100;
    for (int before = 0; before < byte; ++before) character += !printable(before);
  }
  std::string text;
  append_utf8(character, text);
  return text;
}

inline std::string spelt(const std::string& bytes) {
  std::string text;
  for (const char byte : bytes) text += spelt(static_cast<unsigned char>(byte));
  return text;
}

/// Returns a byte-level vocabulary: ids 0 to 255 are the bytes, then the results of the merges, then <|end|> as a
/// control token.
inline Vocabulary byte_level(const std::vector<std::pair<std::string, std::string>>& merges,
                             std::string pre = "gpt-2") {
  Vocabulary vocabulary;
  vocabulary.kind = VocabularyKind::kByteLevelBpe;
  vocabulary.pre = std::move(pre);
  for (int byte = 0; byte < 256; ++byte) {
    add_piece(vocabulary, spelt(static_cast<unsigned char>(byte)), 0, TokenType::kNormal);
  }
  for (const auto& [left, right] : merges) {
    add_piece(vocabulary, spelt(left + right), 0, TokenType::kNormal);
    vocabulary.merges.push_back(spelt(left) + " " + spelt(right));
  }
  vocabulary.eos = add_piece(vocabulary, "<|end|>", 0, TokenType::kControl);
  vocabulary.end_of_generation = {vocabulary.eos};
  return vocabulary;
}

/// Returns the texts of the tokens of `text`, joined by "|".
inline std::string pieces_of(const Tokenizer& tokenizer, const std::string& text, bool parse_special = false) {
  std::string pieces;
  for (const int32_t id : tokenizer.encode(text, {.add_bos_eos = false, .parse_special = parse_special})) {
    if (!pieces.empty()) pieces += '|';
    pieces += tokenizer.piece(id);
  }
  return pieces;
}

inline constexpr EncodeOptions kPlain{.add_bos_eos = false, .parse_special = false};

}  // namespace fathom::test
