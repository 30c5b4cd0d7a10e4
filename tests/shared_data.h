#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

namespace fathom::test {

/// Path of a file of the reference data beside the project, which users do not have.
inline std::string shared(const std::string& relative) { return std::string(FATHOM_SHARED) + "/" + relative; }

/// Path, without its ending, of a tiny model and its reference logits: the project's own copy if it has one.
inline std::string golden(const std::string& name) {
  const std::string own = std::string(FATHOM_TEST_DATA) + "/" + name;
  return std::filesystem::exists(own + ".gguf") ? own : shared("golden/" + name);
}

}  // namespace fathom::test

/// Skips the test, saying why, when reference data is not there.
#define FATHOM_NEEDS(path) \
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not here: reference data beside the project"
