#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/file_map.h"
#include "tokens/tokenizer.h"
#include "train/corpus.h"

namespace fathom::train {

/// The documents of a corpus as token ids, in a mapped file. A document is the ids of its text and EOS, if the
/// vocabulary has one, without BOS. Documents are sorted by name.
class TokenStore {
 public:
  /// Opens a file. Throws Error if it is not a token store, is truncated, or its checksum is wrong.
  static TokenStore open(const std::string& path);

  /// Returns token_store_key() of the corpus and the vocabulary.
  uint64_t key() const { return key_; }
  int32_t vocabulary() const { return vocabulary_; }
  int64_t tokens() const { return static_cast<int64_t>(first(documents_)); }
  int64_t documents() const { return documents_; }
  /// Returns the number of tokens of a document in [0, documents()).
  int64_t length(int64_t document) const { return static_cast<int64_t>(first(document + 1) - first(document)); }
  /// Copies ids.size() ids of a document, starting with its token `begin`. The document must have that many.
  void copy(int64_t document, int64_t begin, std::span<int32_t> ids) const;

 private:
  explicit TokenStore(FileMap map) : map_(std::move(map)) {}
  uint64_t first(int64_t document) const;  // index of its first token among all tokens
  void check_ids(const std::string& path) const;

  FileMap map_;
  uint64_t key_ = 0;
  int32_t vocabulary_ = 0, id_bytes_ = 0;
  int64_t documents_ = 0;
  const std::byte* ids_ = nullptr;
  const std::byte* firsts_ = nullptr;  // [documents + 1] uint64: first() of each document, then tokens()
};

/// Returns a hash of the corpus and of the parts of the vocabulary that affect ids.
uint64_t token_store_key(const CorpusFacts& facts, const Vocabulary& vocabulary);

/// Returns the token store at `path`. Opens it if it has the key of this corpus and tokenizer. Otherwise tokenizes
/// the corpus, with progress, and writes the file atomically. Throws Error if the corpus cannot be read or the file
/// cannot be written.
TokenStore tokenize_corpus(const Corpus& corpus, const Tokenizer& tokenizer, const std::string& path);

}  // namespace fathom::train
