#pragma once

#include <functional>
#include <string>

#include "base/error.h"

namespace fathom::test {

/// Returns the text of the Error that the action throws; empty: none.
inline std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

}  // namespace fathom::test
