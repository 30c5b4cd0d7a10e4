#include "train/corpus.h"

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <utility>
#include <vector>

#include "base/content_hash.h"
#include "base/error.h"
#include "base/file_map.h"
#include "base/format.h"
#include "base/interrupt.h"
#include "base/utf8.h"
#include "train/tar_reader.h"

namespace fathom::train {
namespace {

namespace fs = std::filesystem;
using Visit = std::function<void(const Document& document)>;

bool is_text_name(const fs::path& name) {
  const fs::path extension = name.extension();
  return extension == ".txt" || extension == ".md";
}

/// Checks and normalises the bytes of a document. where: its name in errors. Throws Error.
Document checked(std::string name, std::string bytes, const std::string& where) {
  const size_t bad = std::min(utf8_valid_prefix(bytes), bytes.find('\0'));
  if (bad < bytes.size()) fail(where, ": expected UTF-8 text, found an invalid byte at offset ", bad);
  if (bytes.starts_with("\xef\xbb\xbf")) bytes.erase(0, 3);
  if (bytes.find('\r') != std::string::npos) {
    size_t kept = 0;
    for (size_t i = 0; i < bytes.size(); ++i) {
      if (bytes[i] == '\r' && i + 1 < bytes.size() && bytes[i + 1] == '\n') continue;
      bytes[kept++] = bytes[i] == '\r' ? '\n' : bytes[i];
    }
    bytes.resize(kept);
  }
  return {std::move(name), std::move(bytes)};
}

[[noreturn]] void fail_huge(const std::string& where, int64_t limit) {
  fail(where, ": expected at most ", format_bytes(static_cast<double>(limit)),
       " in a document, found more; split it or remove it from the corpus");
}

/// Visits the documents of a folder. Returns their number.
int64_t visit_folder(const std::string& path, const CorpusOptions& options, const Visit& visit) {
  std::vector<std::pair<std::string, fs::path>> files;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error)) {
    if (is_text_name(entry->path()) && entry->is_regular_file())
      files.emplace_back(entry->path().lexically_relative(path).generic_string(), entry->path());
  }
  if (error) fail("corpus ", path, ": cannot be read: ", error.message());
  std::ranges::sort(files);
  int64_t documents = 0;
  for (const auto& [name, file] : files) {
    throw_if_interrupted();
    const std::string where = concat("corpus ", path, ": file ", quote(name));
    const FileMap map(file.string());
    if (map.bytes().empty()) continue;
    if (static_cast<int64_t>(map.bytes().size()) > options.max_document_bytes)
      fail_huge(where, options.max_document_bytes);
    const std::string_view bytes = map.text();
    const Document document = checked(name, std::string(bytes), where);
    if (document.text.empty()) continue;
    visit(document);
    ++documents;
  }
  return documents;
}

/// Visits the documents of an archive. Returns their number.
int64_t visit_archive(const std::string& path, const CorpusOptions& options, const Visit& visit) {
  TarReader archive(path);
  int64_t documents = 0;
  while (archive.next()) {
    throw_if_interrupted();
    if (!archive.is_file() || !is_text_name(archive.name())) continue;
    const std::string where = concat("corpus ", path, ": entry ", quote(archive.name()));
    auto bytes = archive.read(options.max_document_bytes);
    if (!bytes) fail_huge(where, options.max_document_bytes);
    const Document document = checked(archive.name(), std::move(*bytes), where);
    if (document.text.empty()) continue;
    visit(document);
    ++documents;
  }
  return documents;
}

}  // namespace

Corpus::Corpus(std::string path, CorpusOptions options) : path_(std::move(path)), options_(options) {
  std::error_code error;
  const fs::file_status status = fs::status(path_, error);
  if (!fs::exists(status)) fail("corpus ", path_, ": no such file or folder");
  if (!fs::is_directory(status) && !fs::is_regular_file(status))
    fail("corpus ", path_, ": expected a folder of .txt or .md files, or a tar archive of them");
}

void Corpus::for_each(const Visit& visit) const {
  const bool folder = fs::is_directory(path_);
  const int64_t documents = folder ? visit_folder(path_, options_, visit) : visit_archive(path_, options_, visit);
  if (documents == 0) fail("corpus ", path_, ": no .txt or .md file with text");
}

CorpusFacts Corpus::facts() const {
  CorpusFacts facts;
  for_each([&](const Document& document) {
    ContentHash hash;
    hash.add(document.name);
    hash.add(document.text);
    facts.fingerprint += hash.value();
    facts.bytes += std::ssize(document.text);
    ++facts.documents;
  });
  return facts;
}

}  // namespace fathom::train
