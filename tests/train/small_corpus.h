#pragma once

#include <archive.h>
#include <archive_entry.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "eval/haystack.h"
#include "eval/rng.h"
#include "train/corpus.h"

namespace fathom::test {

using NamedTexts = std::vector<std::pair<std::string, std::string>>;

/// A temporary folder, removed by the destructor.
class TestFolder {
 public:
  TestFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "fathom-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TestFolder() { std::filesystem::remove_all(path_); }
  TestFolder(const TestFolder&) = delete;
  std::string path(const std::string& name = "") const { return name.empty() ? path_ : path_ + "/" + name; }

 private:
  std::string path_;
};

inline void write_text(const std::string& path, const std::string& text) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

inline std::string read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Writes a tar archive, compressed according to the extension of `path` (.tar, .tar.gz, .tar.zst).
inline void write_archive(const std::string& path, const NamedTexts& entries) {
  archive* writer = archive_write_new();
  if (path.ends_with(".gz")) archive_write_add_filter_gzip(writer);
  if (path.ends_with(".zst")) archive_write_add_filter_zstd(writer);
  archive_write_set_format_pax_restricted(writer);
  archive_write_open_filename(writer, path.c_str());
  for (const auto& [name, text] : entries) {
    archive_entry* entry = archive_entry_new();
    archive_entry_set_pathname(entry, name.c_str());
    archive_entry_set_filetype(entry, name.ends_with("/") ? AE_IFDIR : AE_IFREG);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_size(entry, static_cast<la_int64_t>(text.size()));
    archive_write_header(writer, entry);
    archive_write_data(writer, text.data(), text.size());
    archive_entry_free(entry);
  }
  archive_write_free(writer);
}

inline NamedTexts documents_of(const train::Corpus& corpus) {
  NamedTexts documents;
  corpus.for_each([&](const train::Document& document) { documents.emplace_back(document.name, document.text); });
  return documents;
}

/// Returns paragraphs of generated prose.
inline std::string prose(uint64_t seed, int64_t paragraphs, int64_t words = 120) {
  eval::Rng rng(seed, "prose", 0, 0);
  const auto haystack = eval::prose_haystack();
  std::string text;
  for (int64_t i = 0; i < paragraphs; ++i) text += haystack->text(rng, words) + "\n";
  return text;
}

}  // namespace fathom::test
