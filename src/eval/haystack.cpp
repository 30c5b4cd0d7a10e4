#include "eval/haystack.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/file_map.h"
#include "base/format.h"
#include "base/utf8.h"

namespace fathom::eval {
namespace {

namespace fs = std::filesystem;

bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '\f' || c == '\v'; }

/// Returns the text without carriage returns. Throws Error if it is not UTF-8.
std::string checked_text(const std::string& name, std::string_view bytes) {
  std::string text(bytes);
  const size_t valid = utf8_valid_prefix(text);
  if (valid < text.size() || text.find('\0') != std::string::npos) {
    fail("haystack ", name, ": expected UTF-8 text, found invalid bytes at byte ",
         std::min(valid, text.find('\0')));
  }
  std::erase(text, '\r');
  return text;
}

std::string read_text(const std::string& path) {
  const FileMap file(path);
  return checked_text(path, file.text());
}

std::vector<fs::path> text_files(const std::string& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string extension = entry->path().extension();
    if (entry->is_regular_file() && (extension == ".txt" || extension == ".md")) files.push_back(entry->path());
  }
  if (error) fail("haystack ", folder, ": cannot be read: ", error.message());
  if (files.empty()) fail("haystack ", folder, ": contains no .txt or .md file");
  std::ranges::sort(files);
  return files;
}

class TextHaystack final : public Haystack {
 public:
  /// texts: separated by empty lines.
  TextHaystack(std::string name, const std::vector<std::string>& texts, HaystackOptions options)
      : name_(std::move(name)), options_(options) {
    for (const std::string& text : texts) add(text);
    if (ends_.empty()) fail("haystack ", name_, ": contains no words");
  }

  const std::string& name() const override { return name_; }

  /// Starts at a random paragraph among those with enough text after them, or at the beginning if no later one has
  /// or if that was chosen.
  std::string text(Rng& rng, int64_t words) const override {
    const auto count = static_cast<int64_t>(ends_.size());
    size_t starts = 1;
    while (!options_.from_start && starts < paragraphs_.size() && paragraphs_[starts] + words <= count) ++starts;
    const int64_t first = paragraphs_[rng.below(static_cast<int64_t>(starts))];
    std::string text;
    append(first, std::min(words, count - first), text);
    for (int64_t written = count - first; options_.repeat && written < words; written += count) {
      text += "\n\n";
      append(0, std::min(words - written, count), text);
    }
    return text;
  }

 private:
  void add(std::string_view text) {
    if (!text_.empty()) text_ += "\n\n";
    const size_t offset = text_.size();
    text_ += text;
    size_t previous = offset;
    for (const size_t end : word_ends(text)) {
      const std::string_view blank = std::string_view(text_).substr(previous, offset + end - previous);
      const size_t lines = static_cast<size_t>(std::count(blank.begin(), blank.end(), '\n'));
      if (ends_.empty() || previous == offset || lines >= 2)
        paragraphs_.push_back(static_cast<int64_t>(ends_.size()));
      ends_.push_back(offset + end);
      previous = offset + end;
    }
  }
  void append(int64_t first, int64_t words, std::string& text) const {
    size_t begin = first == 0 ? 0 : ends_[first - 1];
    while (is_blank(text_[begin])) ++begin;
    text.append(text_, begin, ends_[first + words - 1] - begin);
  }

  std::string name_, text_;
  HaystackOptions options_;
  std::vector<size_t> ends_;         // ends of words
  std::vector<int64_t> paragraphs_;  // index of the first word of each
};

}  // namespace

std::unique_ptr<Haystack> file_haystack(const std::string& path, HaystackOptions options) {
  std::vector<std::string> texts;
  if (fs::is_directory(path)) {
    for (const fs::path& file : text_files(path)) texts.push_back(read_text(file));
  } else {
    texts.push_back(read_text(path));
  }
  return std::make_unique<TextHaystack>(path, texts, options);
}

std::unique_ptr<Haystack> text_haystack(const std::string& name, std::string_view text, HaystackOptions options) {
  return std::make_unique<TextHaystack>(name, std::vector{checked_text(name, text)}, options);
}

std::vector<size_t> word_ends(std::string_view text) {
  std::vector<size_t> ends;
  for (size_t i = 0; i < text.size(); ++i) {
    if (!is_blank(text[i]) && (i + 1 == text.size() || is_blank(text[i + 1]))) ends.push_back(i + 1);
  }
  return ends;
}

std::vector<std::string_view> split_sentences(std::string_view text) {
  std::vector<std::string_view> sentences;
  size_t begin = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool line_end = text[i] == '\n' && (i + 1 == text.size() || text[i + 1] != '\n');
    const bool sentence_end = i > 0 && is_blank(text[i]) &&
                              std::string_view(".!?").find(text[i - 1]) != std::string_view::npos &&
                              text[i] != '\n';
    if (!line_end && !sentence_end) continue;
    sentences.push_back(text.substr(begin, i + 1 - begin));
    begin = i + 1;
  }
  if (begin < text.size()) sentences.push_back(text.substr(begin));
  return sentences;
}

}  // namespace fathom::eval
