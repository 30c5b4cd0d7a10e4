#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "paths.h"

namespace fathom::test {

/// Path, without its ending, of a tiny model and its reference logits: the project's own copy if it has one.
inline std::string golden(const std::string& name) {
  const std::string own = data_path(name);
  return std::filesystem::exists(own + ".gguf") ? own : shared_path("golden/" + name);
}

}  // namespace fathom::test

/// Skips the test, saying why, when reference data is not there.
#define FATHOM_NEEDS(path) \
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not here: reference data beside the project"
