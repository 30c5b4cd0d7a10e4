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
  bool add_bos_eos = true;     // the tokens that the vocabulary puts before and behind a text
  bool parse_special = false;  // "<|im_end|>" in the text is the control token, not a text of ten characters
};

/// Text to token ids and back. Thread-safe.
class Tokenizer {
 public:
  /// Throws Error if the vocabulary contradicts itself.
  explicit Tokenizer(Vocabulary vocabulary);
  Tokenizer(Tokenizer&&) = delete;

  const Vocabulary& vocabulary() const { return vocabulary_; }
  int32_t size() const { return vocabulary_.size(); }

  /// Any bytes are taken. Throws Error for a byte that the vocabulary can express in no way.
  std::vector<int32_t> encode(std::string_view text, EncodeOptions options = {}) const;

  /// The text of `ids`; control and unknown tokens are left out unless show_special. For SentencePiece vocabularies
  /// with byte tokens and for byte-level BPE, decode(encode(text)) is `text`, whatever its bytes. Throws Error that
  /// names an id outside the vocabulary.
  std::string decode(std::span<const int32_t> ids, bool show_special = false) const;

  /// The bytes a token stands for, special ones spelt out. Throws Error as decode().
  const std::string& piece(int32_t id) const;

  /// Whether a model that gives this token has come to its end.
  bool ends_generation(int32_t id) const;

 private:
  friend class StreamDecoder;
  /// Appends the text of one token; `at_start`: nothing or a control token stands before it.
  void append_text(int32_t id, bool show_special, bool& at_start, std::string& text) const;
  void append_ids(std::string_view text, const PieceTrie& specials, std::vector<int32_t>& ids) const;

  Vocabulary vocabulary_;
  std::unique_ptr<TextEncoder> encoder_;
  std::vector<std::string> texts_;  // by id
  PieceTrie always_;                // user-defined tokens, which are found in any text
  PieceTrie specials_;              // and control and unknown ones, found when asked
};

/// Decodes tokens as they come, and never gives out a part of a character.
class StreamDecoder {
 public:
  /// The tokenizer must outlive this. continues: the tokens go on from others, so that a leading space is text.
  explicit StreamDecoder(const Tokenizer& tokenizer, bool show_special = false, bool continues = false)
      : tokenizer_(tokenizer), show_special_(show_special), at_start_(!continues) {}

  /// The text that is complete with this token. Bytes that cannot become a character are given out as they are.
  std::string add(int32_t id);
  /// What add() held back.
  std::string flush();

 private:
  const Tokenizer& tokenizer_;
  bool show_special_, at_start_;
  std::string held_;
};

}  // namespace fathom
