#pragma once

#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace fathom::test {

/// Writes a GGUF file, which exists until the process ends, and returns its path.
inline std::string write_file(const std::vector<std::byte>& bytes, const std::string& name) {
  struct Files {
    std::vector<std::string> paths;
    ~Files() {
      for (const std::string& path : paths) std::remove(path.c_str());
    }
  };
  static Files files;
  const std::string path = std::filesystem::temp_directory_path().string() + "/fathom-draft-" +
                           std::to_string(getpid()) + "-" + name + ".gguf";
  files.paths.push_back(path);
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
  return path;
}

}  // namespace fathom::test
