#pragma once

#include <array>
#include <string>
#include <string_view>

namespace fathom {

/// The methods that a text is read with: a spec of each kind. The defaults are exact.
struct MethodSpecs {
  std::string attend = "dense", position = "file", cache = "bf16", evict = "none", read = "whole";

  /// "attend=dense"; what is not the default of its kind follows: "attend=dense cache=q8".
  std::string label() const;
  bool operator==(const MethodSpecs&) const = default;
};

/// A kind of method as an option of programs.
struct MethodOption {
  std::string_view kind;  // "attend": the option is --attend
  std::string MethodSpecs::*spec;
  std::string_view help;
};
/// All kinds of MethodSpecs.
inline constexpr std::array<MethodOption, 5> kMethodOptions = {
    {{"attend", &MethodSpecs::attend, "which tokens each token attends to, as window:sink=4,window=1k"},
     {"position", &MethodSpecs::position, "scaling of rotary positions, as yarn:factor=4"},
     {"cache", &MethodSpecs::cache, "format of keys and values: bf16, q8, q4 or f32"},
     {"evict", &MethodSpecs::evict,
      "which tokens are evicted from memory for good; `fathom methods evict` lists the methods"},
     {"read", &MethodSpecs::read,
      "how texts longer than the model's window are read; `fathom methods read` lists the methods"}}};

}  // namespace fathom
