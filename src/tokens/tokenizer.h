#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokens/piece_trie.h"
#include "tokens/text_encoder.h"
#include "tokens/vocabulary.h"

namespace fathom {

struct EncodeOptions {
  bool add_bos_eos = true;     // add BOS and EOS where the vocabulary requires them
  bool parse_special = false;  // encode "<|im_end|>" as the control token, not as ten characters
};

/// Converts text to token ids and back. Thread-safe.
class Tokenizer {
 public:
  /// Throws Error if the vocabulary is inconsistent.
  explicit Tokenizer(Vocabulary vocabulary);
  Tokenizer(Tokenizer&&) = delete;

  const Vocabulary& vocabulary() const { return vocabulary_; }
  int32_t size() const { return vocabulary_.size(); }

  /// Returns the ids of `text`, which may be any bytes. Throws Error for a byte for which the vocabulary has
  /// neither a token nor an unknown token.
  std::vector<int32_t> encode(std::string_view text, EncodeOptions options = {}) const;

  /// Returns the text of `ids`, without control and unknown tokens unless show_special is set. For SentencePiece
  /// vocabularies with byte tokens and for byte-level BPE, decode(encode(text)) equals `text` for any bytes. Throws
  /// Error that names an id outside the vocabulary.
  std::string decode(std::span<const int32_t> ids, bool show_special = false) const;

  /// Returns the bytes of a token; for special tokens their name. Throws Error as decode().
  const std::string& piece(int32_t id) const;

  /// Returns whether the token ends a generated text.
  bool ends_generation(int32_t id) const;

 private:
  friend class StreamDecoder;
  /// Appends the text of one token and updates at_start. at_start: the token is the first or follows a control
  /// token.
  void append_text(int32_t id, bool show_special, bool& at_start, std::string& text) const;
  void append_ids(std::string_view text, const PieceTrie& specials, std::vector<int32_t>& ids) const;

  Vocabulary vocabulary_;
  std::unique_ptr<TextEncoder> encoder_;
  std::vector<std::string> texts_;  // by id
  PieceTrie always_;                // user-defined tokens, recognised in any text
  PieceTrie specials_;              // also control and unknown tokens, recognised with parse_special
};

/// Decodes tokens one by one and returns only complete characters.
class StreamDecoder {
 public:
  /// The tokenizer must outlive this. continues: other tokens precede, so a leading space is part of the text.
  explicit StreamDecoder(const Tokenizer& tokenizer, bool show_special = false, bool continues = false)
      : tokenizer_(tokenizer), show_special_(show_special), at_start_(!continues) {}

  /// Returns the text that is complete after this token. Bytes that cannot be part of a character are returned
  /// unchanged.
  std::string add(int32_t id);
  /// Returns the bytes of an incomplete character that add() held back.
  std::string flush();

 private:
  const Tokenizer& tokenizer_;
  bool show_special_, at_start_;
  std::string pending_;
};

}  // namespace fathom
