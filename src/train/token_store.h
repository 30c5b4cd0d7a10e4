#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/file_map.h"
#include "tokens/tokenizer.h"
#include "train/corpus.h"

namespace fathom::train {

/// The documents of a corpus as token ids, in a mapped file. A document is its text's ids and then EOS, if the
/// vocabulary has one; no BOS stands before it. Documents are in order of their names.
class TokenStore {
 public:
  /// Throws Error naming the file if it is no token store, is cut off, or its checksum is wrong.
  static TokenStore open(const std::string& path);

  /// Of the corpus and the vocabulary it was made from: token_store_key().
  uint64_t key() const { return key_; }
  int32_t vocabulary() const { return vocabulary_; }
  int64_t tokens() const { return static_cast<int64_t>(first(documents_)); }
  int64_t documents() const { return documents_; }
  /// Tokens of a document in [0, documents()).
  int64_t length(int64_t document) const { return static_cast<int64_t>(first(document + 1) - first(document)); }
  /// The ids of a document from its token `begin` on, as many as there is room for; they must be there.
  void copy(int64_t document, int64_t begin, std::span<int32_t> ids) const;

 private:
  explicit TokenStore(FileMap map) : map_(std::move(map)) {}
  uint64_t first(int64_t document) const;  // its first token, among all
  void check_ids(const std::string& path) const;

  FileMap map_;
  uint64_t key_ = 0;
  int32_t vocabulary_ = 0, id_bytes_ = 0;
  int64_t documents_ = 0;
  const std::byte* ids_ = nullptr;
  const std::byte* firsts_ = nullptr;  // documents + 1 numbers of 64 bits
};

/// Tells token stores apart by what they are made from.
uint64_t token_store_key(const CorpusFacts& facts, const Vocabulary& vocabulary);

/// The token store of the corpus at `path`: opened if it is there and was made from the same, otherwise made, with
/// progress, and written whole or not at all. Throws Error if the corpus cannot be read or the file not written.
TokenStore tokenize_corpus(const Corpus& corpus, const Tokenizer& tokenizer, const std::string& path);

}  // namespace fathom::train
