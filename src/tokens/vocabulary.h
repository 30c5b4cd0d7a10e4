#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf.h"

namespace fathom {

/// What a token is for, with GGUF's numbers.
enum class TokenType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

/// How text is cut into tokens, by GGUF's name in tokenizer.ggml.model.
enum class VocabularyKind {
  kSentencePiece,  // "llama": pairs merged by score, characters without a piece as bytes
  kUnigram,        // "t5": the most likely sequence of pieces
  kByteLevelBpe,   // "gpt2": pairs of bytes merged by rank, inside words that patterns cut
  kWordPiece,      // "bert": the longest pieces of a lower-cased word
};

inline constexpr int32_t kNoToken = -1;

/// U+2581, which stands for a space in the pieces of SentencePiece and WordPiece vocabularies.
inline constexpr std::string_view kSpaceMark = "\xe2\x96\x81";

/// All that a tokenizer needs, owned; made from a GGUF file or by hand.
struct Vocabulary {
  VocabularyKind kind = VocabularyKind::kSentencePiece;
  std::string source = "vocabulary";  // names it in errors: the file
  std::vector<std::string> pieces;    // by id, as the file spells them
  std::vector<float> scores;          // one a piece, or empty: all 0
  std::vector<TokenType> types;       // one a piece, or empty: all normal
  std::vector<std::string> merges;    // "left right", best first
  std::string pre = "default";        // pre-tokenizer, for byte-level BPE

  int32_t bos = kNoToken, eos = kNoToken, unknown = kNoToken, padding = kNoToken;
  int32_t eot = kNoToken, eom = kNoToken, separator = kNoToken, mask = kNoToken;
  bool add_bos = false, add_eos = false;
  bool add_space_prefix = false;           // one space before text, taken off again in decoding
  bool remove_extra_whitespaces = false;   // unigram: runs of spaces count as one, none at the ends
  std::string charsmap;                    // unigram: compiled normalisation rules; empty = none
  std::string chat_template;               // Jinja; empty = none
  std::vector<int32_t> end_of_generation;  // ascending

  int32_t size() const { return static_cast<int32_t>(pieces.size()); }
  TokenType type(int32_t id) const { return types.empty() ? TokenType::kNormal : types[id]; }
  float score(int32_t id) const { return scores.empty() ? 0.0f : scores[id]; }

  /// Throws Error naming the file and the key that is absent, of the wrong type or contradictory.
  static Vocabulary read(const Gguf& file);
  /// Throws Error if lengths differ, an id is out of range, a score is not a number, a byte piece is not "<0xXX>",
  /// a piece is over 4096 bytes, or an asked-for bos or eos does not exist.
  void check() const;
};

}  // namespace fathom
