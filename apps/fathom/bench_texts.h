#pragma once

#include <span>
#include <string_view>

namespace fathom {

/// A text that `fathom bench --draft` continues.
struct BenchText {
  std::string_view name, text;
};

/// Returns the built-in texts. They differ in how much of the continuation repeats the text: prose, code, edit,
/// quote, list.
std::span<const BenchText> bench_texts();

}  // namespace fathom
