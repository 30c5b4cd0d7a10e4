#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fathom {

/// Finds stop strings in a text that is added in pieces. Text that may be the start of a stop string is held back
/// until more text decides this; a stop string itself is never returned. The result does not depend on how the text
/// is divided into pieces.
class StopMatcher {
 public:
  /// Throws Error (usage) for an empty stop string.
  explicit StopMatcher(std::vector<std::string> stops);

  /// Adds a piece. Returns the text that cannot be part of a stop string.
  std::string add(std::string_view text);
  /// Returns whether a stop string was found. No text is returned after it.
  bool stopped() const { return stopped_; }
  /// Returns the text that is held back. Call it at the end of the text.
  std::string flush();

 private:
  size_t held_bytes() const;

  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace fathom
