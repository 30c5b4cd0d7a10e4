#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/registry.h"
#include "decode/draft.h"
#include "formats/gguf.h"
#include "models/model.h"

namespace fathom {

/// The trained weights of a source of drafts: a GGUF file with general.type = "draft", general.architecture =
/// "fathom-draft", draft.kind, and the width, vocabulary and number of layers of the model that it was trained for.
/// All functions throw Error that names the file, the field or tensor, and what was expected.
class DraftFile {
 public:
  /// Maps a file. kind: the expected draft.kind. Throws Error also if it does not fit the model.
  static DraftFile open(const std::string& path, std::string_view kind, const Model& model);
  /// Reads an open file. Throws Error like open().
  static DraftFile from(Gguf file, std::string_view kind, const Model& model);

  const std::string& name() const { return file_.name(); }

  // Metadata. key: without "draft."; required unless there is a default.
  int64_t integer(std::string_view key, int64_t min, int64_t max) const;
  int64_t integer_or(std::string_view key, int64_t min, int64_t max, int64_t default_value) const;
  /// Returns a multiple of `factor` that is positive and at most `max`.
  int64_t multiple(std::string_view key, int64_t factor, int64_t max) const;
  double number(std::string_view key, double min, double max) const;
  bool boolean(std::string_view key) const;
  /// Returns `count` integers, each at least `min` and at most `max`, and none less than the one before it.
  std::vector<int> ascending(std::string_view key, int64_t count, int64_t min, int64_t max) const;

  bool has(const std::string& tensor) const { return file_.find_tensor(tensor) != nullptr; }
  /// Returns a matrix, [rows, cols], that is mapped as long as this object exists.
  Matrix matrix(const std::string& tensor, int64_t rows, int64_t cols) const;
  std::vector<float> vector(const std::string& tensor, int64_t n) const;

 private:
  explicit DraftFile(Gguf file) : file_(std::move(file)) {}
  [[noreturn]] void fail_key(std::string_view key, const std::string& expected, const std::string& found) const;

  Gguf file_;
};

/// The parameter `file` of sources with trained weights.
Parameter draft_file_parameter();
/// Opens the draft file that the parameter names. Throws Error (usage) if it is missing, or if the session does not
/// run all layers of the model.
DraftFile open_draft_file(const std::string& kind, const Values& values, const DraftSetup& setup);

}  // namespace fathom
