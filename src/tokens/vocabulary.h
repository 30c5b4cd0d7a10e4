#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf.h"

namespace fathom {

/// The type of a token, with the numbers of GGUF.
enum class TokenType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

/// The tokenization algorithm, with the value of tokenizer.ggml.model in GGUF.
enum class VocabularyKind {
  kSentencePiece,  // "llama": pairs merged by score; characters without a piece as byte tokens
  kUnigram,        // "t5": the most likely sequence of pieces
  kByteLevelBpe,   // "gpt2": pairs of bytes merged by rank, within words split by patterns
  kWordPiece,      // "bert": the longest pieces of a lower-cased word
};

inline constexpr int32_t kNoToken = -1;

/// U+2581, which spells a space in the pieces of SentencePiece and WordPiece vocabularies.
inline constexpr std::string_view kSpaceMark = "\xe2\x96\x81";

/// The data of a tokenizer. Owns its memory.
struct Vocabulary {
  VocabularyKind kind = VocabularyKind::kSentencePiece;
  std::string source = "vocabulary";  // the file, for messages
  std::vector<std::string> pieces;    // by id, as the file spells them
  std::vector<float> scores;          // one per piece, or empty: all 0
  std::vector<TokenType> types;       // one per piece, or empty: all normal
  std::vector<std::string> merges;    // "left right", best first
  std::string pre = "default";        // pre-tokenizer, for byte-level BPE

  int32_t bos = kNoToken, eos = kNoToken, unknown = kNoToken, padding = kNoToken;
  int32_t eot = kNoToken, eom = kNoToken, separator = kNoToken, mask = kNoToken;
  bool add_bos = false, add_eos = false;
  bool add_space_prefix = false;           // insert one space before a text; decoding removes it
  bool remove_extra_whitespaces = false;   // unigram: merge consecutive spaces, strip them at both ends
  std::string charsmap;                    // unigram: compiled normalisation rules; empty = none
  std::string chat_template;               // Jinja; empty = none
  std::vector<int32_t> end_of_generation;  // ascending

  int32_t size() const { return static_cast<int32_t>(pieces.size()); }
  TokenType type(int32_t id) const { return types.empty() ? TokenType::kNormal : types[id]; }
  float score(int32_t id) const { return scores.empty() ? 0.0f : scores[id]; }

  /// Reads the vocabulary of a file. Throws Error that names the file and the key that is missing, of the wrong
  /// type or inconsistent.
  static Vocabulary read(const Gguf& file);
  /// Throws Error if lengths differ, an id is out of range, a score is not a number, a byte piece is not "<0xXX>",
  /// a piece is longer than 4096 bytes, or add_bos or add_eos is set without a bos or eos token.
  void check() const;
};

}  // namespace fathom
