#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace fathom {

/// Tokens of earlier texts, kept in a file that processes share. The file is replaced as a whole (write_file) under
/// an advisory lock, so readers see a complete file and no appended text is lost.
///
/// Format, little-endian: "fthmhist", uint32 version, int32 vocabulary, uint64 hash of the vocabulary, uint64
/// number of tokens, uint64 ContentHash of the tokens, int32 tokens; −1 follows each text.
class DraftHistory {
 public:
  static constexpr int32_t kEnd = -1;  // after each text

  struct Key {
    int32_t vocabulary = 0;  // number of token ids
    uint64_t hash = 0;       // of the vocabulary
    bool operator==(const Key&) const = default;
  };

  /// Reads the file, or creates an empty one. Keeps the newest `limit` tokens. A truncated or damaged file counts
  /// as empty. Throws Error if the file cannot be opened, is no draft history, or holds tokens of another
  /// vocabulary.
  DraftHistory(std::string path, int64_t limit, Key key);

  std::span<const int32_t> tokens() const { return tokens_; }
  /// Returns why the file was found to be damaged; empty: it was not.
  const std::string& damage() const { return damage_; }

  /// A place where the newest tokens of a text occurred earlier.
  struct Match {
    size_t next = 0;  // index of the token after them
    int length = 0;   // number of tokens that match, at least kGram
  };
  static constexpr int kGram = 4;       // shortest match
  static constexpr int kLongest = 32;   // longer matches count as this long
  static constexpr int kMatches = 32;   // largest number of matches
  static constexpr int kVisited = 128;  // occurrences of the newest kGram tokens that are compared

  /// Replaces the content of `matches` by the longest matches with the end of `text`, all of the same length, the
  /// latest first.
  void find(std::span<const int32_t> text, std::vector<Match>& matches) const;

  /// Appends a text to the file, and to that of other processes that wrote it since. Removes the oldest tokens
  /// above the limit. Tokens outside the vocabulary are left out. Throws Error if that fails; the file is then
  /// unchanged.
  void append(std::span<const int32_t> text) const;

 private:
  std::vector<int32_t> read(std::string& damage) const;
  void build_index();
  size_t bucket(const int32_t* gram) const;

  std::string path_;
  size_t limit_;
  Key key_;
  std::string damage_;
  std::vector<int32_t> tokens_;
  std::vector<uint32_t> latest_;    // by hash of kGram tokens: end of the latest occurrence; 0: none
  std::vector<uint32_t> previous_;  // by end: end of the previous n-gram with the same hash; 0: none
};

}  // namespace fathom
