#pragma once

#include <string>
#include <vector>

#include "case_file.h"

namespace fathom::test {

inline constexpr const char* kCases = "tests/cli/cases";
/// The folders of PATH in which a case finds programs, after that of the built ones.
inline constexpr const char* kSystemPath = "/usr/local/bin:/usr/bin:/bin";

/// Names of the files in cases/, without ".txt", sorted.
std::vector<std::string> case_names();

/// Reads a case. Throws std::runtime_error with the file and the line if it is malformed.
CaseFile read_case(const std::string& name);

/// Returns the need of a case that this build or machine does not meet; empty: none.
std::string missing_need(const CaseFile& test);

}  // namespace fathom::test
