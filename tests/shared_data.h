#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "paths.h"

namespace fathom::test {

/// Returns the path, without extension, of a tiny model and its reference logits: in tests/data if it is there,
/// otherwise in the optional reference data.
inline std::string golden(const std::string& name) {
  const std::string own = data_path(name);
  return std::filesystem::exists(own + ".gguf") ? own : shared_path("golden/" + name);
}

}  // namespace fathom::test

/// Skips the test if reference data is missing.
#define FATHOM_NEEDS(path)            \
  if (!std::filesystem::exists(path)) \
  GTEST_SKIP() << path << " is missing (optional reference data, see FATHOM_SHARED)"
