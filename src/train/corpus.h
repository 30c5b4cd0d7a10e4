#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace fathom::train {

/// A text of a corpus: UTF-8, lines end with '\n', no byte-order mark.
struct Document {
  std::string name;  // path within the folder or archive
  std::string text;  // never empty
};

struct CorpusOptions {
  int64_t max_document_bytes = int64_t{1} << 28;  // largest document, uncompressed; larger ones are errors
};

struct CorpusFacts {
  int64_t documents = 0, bytes = 0;
  uint64_t fingerprint = 0;  // hash of the names and texts of the documents, independent of their order
};

/// A corpus of texts, read one at a time.
class Corpus {
 public:
  /// path: a folder or a tar archive, plain or compressed by gzip, zstd, xz or bzip2. The documents are all .txt
  /// and .md files in it. Throws Error if the path does not exist or is neither.
  explicit Corpus(std::string path, CorpusOptions options = {});

  const std::string& path() const { return path_; }

  /// Calls `visit` once for each document that is not empty: in the order of names in a folder, in the order of
  /// entries in an archive. Throws Error that names the path and the entry for text that is not UTF-8 or too large,
  /// for a damaged or truncated archive and for a corpus without documents, and Error (interrupted) on Ctrl-C.
  void for_each(const std::function<void(const Document& document)>& visit) const;

  /// Reads the whole corpus and returns its size and hash. Throws Error as for_each.
  CorpusFacts facts() const;

 private:
  std::string path_;
  CorpusOptions options_;
};

}  // namespace fathom::train
