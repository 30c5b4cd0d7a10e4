#include "decode/drafts/draft_file.h"

#include <optional>

#include "base/error.h"
#include "formats/gguf_layout.h"
#include "models/weights.h"

namespace fathom {
namespace {

std::string key_of(std::string_view key) { return concat("draft.", key); }

void expect_text(const Gguf& file, std::string_view key, std::string_view expected) {
  const auto found = file.string(key);
  if (!found)
    fail(file.name(), ": metadata key ", gguf::quoted(key), " is missing: expected ", gguf::quoted(expected));
  if (*found != expected)
    fail(file.name(), ": metadata key ", gguf::quoted(key), ": expected ", gguf::quoted(expected), ", found ",
         gguf::quoted(*found));
}

void expect_integer(const Gguf& file, const std::string& key, int64_t expected, const char* of) {
  const int64_t found = file.required_integer(key);
  if (found != expected)
    fail(file.name(), ": metadata key ", gguf::quoted(key), ": expected ", expected, ", the ", of,
         " of the model, found ", found);
}

}  // namespace

DraftFile DraftFile::open(const std::string& path, std::string_view kind, const Model& model) {
  return from(Gguf::open(path), kind, model);
}

DraftFile DraftFile::from(Gguf file, std::string_view kind, const Model& model) {
  const ModelConfig& config = model.config();
  expect_text(file, "general.type", "draft");
  expect_text(file, "general.architecture", "fathom-draft");
  expect_text(file, "draft.kind", kind);
  expect_integer(file, "draft.width", config.width, "width");
  expect_integer(file, "draft.vocabulary", config.vocabulary, "number of tokens");
  expect_integer(file, "draft.layers", config.layers, "number of layers");
  return DraftFile(std::move(file));
}

void DraftFile::fail_key(std::string_view key, const std::string& expected, const std::string& found) const {
  fail(name(), ": metadata key ", gguf::quoted(key_of(key)), ": expected ", expected, ", found ", found);
}

int64_t DraftFile::integer(std::string_view key, int64_t min, int64_t max) const {
  const int64_t value = file_.required_integer(key_of(key));
  if (value < min || value > max) fail_key(key, concat("an integer from ", min, " to ", max), concat(value));
  return value;
}

int64_t DraftFile::integer_or(std::string_view key, int64_t min, int64_t max, int64_t default_value) const {
  return file_.has(key_of(key)) ? integer(key, min, max) : default_value;
}

int64_t DraftFile::multiple(std::string_view key, int64_t factor, int64_t max) const {
  const int64_t value = file_.required_integer(key_of(key));
  if (value < 1 || value > max || value % factor != 0)
    fail_key(key, concat("a multiple of ", factor, " up to ", max), concat(value));
  return value;
}

double DraftFile::number(std::string_view key, double min, double max) const {
  const auto value = file_.number(key_of(key));
  const std::string expected = concat("a number from ", min, " to ", max);
  if (!value) fail_key(key, expected, "none");
  if (!(*value >= min && *value <= max)) fail_key(key, expected, concat(*value));
  return *value;
}

bool DraftFile::boolean(std::string_view key) const {
  const auto value = file_.boolean(key_of(key));
  if (!value) fail_key(key, "true or false", "none");
  return *value;
}

std::vector<int> DraftFile::ascending(std::string_view key, int64_t count, int64_t min, int64_t max) const {
  const auto found = file_.integers(key_of(key));
  const std::string expected = concat(count, " ascending integers from ", min, " to ", max);
  if (!found) fail_key(key, expected, "none");
  if (std::ssize(*found) != count) fail_key(key, expected, concat(found->size(), " of them"));
  std::vector<int> values;
  for (const int64_t value : *found) {
    if (value < min || value > max || (!values.empty() && value < values.back()))
      fail_key(key, expected, concat(value));
    values.push_back(static_cast<int>(value));
  }
  return values;
}

Matrix DraftFile::matrix(const std::string& tensor, int64_t rows, int64_t cols) const {
  return GgufWeights(file_).matrix(tensor, rows, cols);
}

std::vector<float> DraftFile::vector(const std::string& tensor, int64_t n) const {
  return GgufWeights(file_).vector(tensor, n);
}

Parameter draft_file_parameter() {
  return {.name = "file",
          .type = Parameter::Type::kString,
          .summary = "draft file (GGUF) that was trained for the model"};
}

DraftFile open_draft_file(const std::string& kind, const Values& values, const DraftSetup& setup) {
  if (!values.has("file"))
    fail_usage("--draft ", kind, ": expected file=FILE, a draft file that was trained for the model");
  const int layers = setup.model->config().layers;
  if (setup.session && setup.session->sequence().layers() != layers)
    fail_usage("--draft ", kind, ": expected a session that runs all ", layers, " layers of the model, found ",
               setup.session->sequence().layers());
  return DraftFile::open(values.string("file"), kind, *setup.model);
}

}  // namespace fathom
