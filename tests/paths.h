#pragma once

#include <string>

namespace fathom::test {

/// Where the tests find files and programs. Absolute paths are in one source file alone (paths.cpp.in), so that
/// compiler caches serve all others to checkouts in other folders.
std::string source_path(const std::string& relative);  // of the project
std::string shared_path(const std::string& relative);  // of the reference data beside the project; optional
std::string program_path();                            // the program `fathom`

inline std::string model_path(const std::string& name) { return source_path("models/" + name); }
inline std::string seedling_path() { return model_path("fathom-seedling-q8_0.gguf"); }
inline std::string data_path(const std::string& name) { return source_path("tests/data/" + name); }

}  // namespace fathom::test
