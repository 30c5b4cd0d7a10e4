#pragma once

#include <string>

namespace fathom::test {

/// Paths of the files and programs that tests use. Only one source file (paths.cpp.in) contains absolute paths, so
/// that compiler caches also work for checkouts in other folders.
std::string source_path(const std::string& relative);  // a file of the project
std::string shared_path(const std::string& relative);  // a file of the optional reference data
std::string program_path();                            // the program fathom

inline std::string model_path(const std::string& name) { return source_path("models/" + name); }
inline std::string seedling_path() { return model_path("fathom-seedling-q8_0.gguf"); }
inline std::string data_path(const std::string& name) { return source_path("tests/data/" + name); }

}  // namespace fathom::test
