#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fathom {

/// Watches a text that comes in pieces for stop strings. Text that may be the start of one is held back until it is
/// clear; a stop string itself is never given out. The result does not depend on where the pieces are cut.
class StopMatcher {
 public:
  /// Throws Error (usage) for an empty stop string.
  explicit StopMatcher(std::vector<std::string> stops);

  /// The text that is now known not to belong to a stop string.
  std::string add(std::string_view text);
  /// A stop string came; nothing comes after it.
  bool stopped() const { return stopped_; }
  /// What add() held back; for when the text is over.
  std::string flush();

 private:
  size_t held_bytes() const;

  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace fathom
