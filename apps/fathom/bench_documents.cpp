#include "bench_documents.h"

#include <algorithm>
#include <filesystem>

#include "base/content_hash.h"
#include "base/error.h"
#include "base/file_map.h"
#include "base/utf8.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kExtensions[] = {".txt", ".md", ".cpp", ".h", ".py"};

void add_document(const std::string& path, std::vector<std::string>& texts) {
  const FileMap file(path);
  const std::string_view text = file.text();
  const bool readable = utf8_valid_prefix(text) == text.size() && text.find('\0') == std::string_view::npos;
  if (readable) texts.emplace_back(text);
}

}  // namespace

std::vector<std::string> read_documents(const std::vector<std::string>& paths) {
  std::vector<std::string> texts;
  for (const std::string& path : paths) {
    std::error_code error;
    if (!fs::is_directory(path, error)) {
      add_document(path, texts);
      continue;
    }
    for (fs::recursive_directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error))
      if (entry->is_regular_file() && std::ranges::count(kExtensions, entry->path().extension().string()) > 0)
        add_document(entry->path(), texts);
    if (error) fail(path, ": cannot be read: ", error.message());
  }
  std::ranges::sort(texts, {}, [](const std::string& text) { return std::pair(hash_content(text), text.size()); });
  return texts;
}

std::vector<std::string> first_lines(const Tokenizer& tokenizer, std::string_view text, int64_t tokens) {
  std::vector<std::string> lines;
  int64_t count = 0;
  while (count < tokens && !text.empty()) {
    const size_t end = std::min(text.size(), text.find('\n') + 1);
    const size_t length = end == 0 ? text.size() : end;
    lines.emplace_back(text.substr(0, length));
    text.remove_prefix(length);
    count += std::ssize(tokenizer.encode(lines.back(), {false, false}));
  }
  if (count < tokens) lines.clear();
  return lines;
}

}  // namespace fathom
