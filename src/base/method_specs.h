#pragma once

#include <array>
#include <string>
#include <string_view>

namespace fathom {

/// The methods used to read a text: one spec of each kind. The defaults are exact.
struct MethodSpecs {
  std::string attend = "dense", position = "file", cache = "bf16", evict = "none", read = "whole";

  /// Returns the attend spec and all other specs that are not the default of their kind: "attend=dense cache=q8".
  std::string label() const;
  bool operator==(const MethodSpecs&) const = default;
};

/// The command-line option of a kind of method.
struct MethodOption {
  std::string_view kind;  // "attend": the option is --attend
  std::string MethodSpecs::*spec;
  std::string_view help;
};
/// The options of all kinds in MethodSpecs.
inline constexpr std::array<MethodOption, 5> kMethodOptions = {
    {{"attend", &MethodSpecs::attend, "which tokens each token attends to, for example window:sink=4,window=1k"},
     {"position", &MethodSpecs::position, "scaling of rotary positions, for example yarn:factor=4"},
     {"cache", &MethodSpecs::cache, "format of keys and values: bf16, q8, q4 or f32"},
     {"evict", &MethodSpecs::evict,
      "which tokens are permanently removed from memory; `fathom methods evict` lists the methods"},
     {"read", &MethodSpecs::read,
      "how texts longer than the model's window are read; `fathom methods read` lists the methods"}}};

}  // namespace fathom
