#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/spec.h"
#include "decode/draft.h"

namespace fathom {

/// Returns the parameter `file`: the text files that a draft source copies or learns from.
Parameter draft_file_parameter(std::string summary);

/// Returns the tokens of each file named by the parameter `file` of a draft method; none if it was not given.
/// Throws Error naming the file if it cannot be read, or if the files have more than 256 MiB together.
std::vector<std::vector<int32_t>> read_draft_files(std::string_view method, const Values& values,
                                                   const DraftSetup& setup);

}  // namespace fathom
