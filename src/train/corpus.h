#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace fathom::train {

/// One text of a corpus: UTF-8, lines end in '\n' alone, no byte-order mark.
struct Document {
  std::string name;  // its path inside the folder or archive
  std::string text;  // never empty
};

struct CorpusOptions {
  int64_t max_document_bytes = int64_t{1} << 28;  // of one document, unpacked; larger ones are an error
};

struct CorpusFacts {
  int64_t documents = 0, bytes = 0;
  uint64_t fingerprint = 0;  // by the names and texts of the documents, whatever their order
};

/// The texts of a corpus, read one at a time.
class Corpus {
 public:
  /// path: a folder, of which all .txt and .md files below it are taken, or a tar archive, plain or packed by gzip,
  /// zstd, xz or bzip2, of which the same entries are taken. Throws Error if there is no such thing.
  explicit Corpus(std::string path, CorpusOptions options = {});

  const std::string& path() const { return path_; }

  /// Calls `visit` once for each document: those of a folder in order of names, those of an archive as they lie in
  /// it. Throws Error that names the path and the entry for text that is not UTF-8 or too large, an archive that is
  /// damaged or cut off, and a corpus without documents; stops when interrupted.
  void for_each(const std::function<void(const Document& document)>& visit) const;

  /// Reads all.
  CorpusFacts facts() const;

 private:
  std::string path_;
  CorpusOptions options_;
};

}  // namespace fathom::train
