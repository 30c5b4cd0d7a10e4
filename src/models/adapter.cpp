#include "models/adapter.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <string_view>
#include <vector>

#include "base/content_hash.h"
#include "base/error.h"
#include "formats/gguf_layout.h"
#include "kernels/quantize.h"

namespace fathom {
namespace {

using gguf::quoted;

/// The tensors of one weight; null: missing.
struct FactorPair {
  const GgufTensor* a = nullptr;
  const GgufTensor* b = nullptr;
};

void expect_text(const Gguf& file, const char* key, std::string_view expected) {
  const auto found = file.string(key);
  if (!found) fail(file.name(), ": metadata key ", quoted(key), " is missing: expected ", quoted(expected));
  if (*found != expected)
    fail(file.name(), ": metadata key ", quoted(key), ": expected ", quoted(expected), ", found ", quoted(*found));
}

/// Checks the metadata and returns α; 0: none.
double read_metadata(const Gguf& file, const ModelConfig& model) {
  expect_text(file, "general.type", "adapter");
  expect_text(file, "adapter.type", "lora");
  expect_text(file, "general.architecture", model.architecture);
  if (const char* key = "adapter.alora.invocation_tokens"; file.has(key))
    fail(file.name(), ": metadata key ", quoted(key),
         ": expected an adapter that applies to all tokens, found one that applies after these tokens only");
  const double alpha = file.number("adapter.lora.alpha").value_or(0);
  if (!std::isfinite(static_cast<float>(alpha)))
    fail(file.name(), ": metadata key 'adapter.lora.alpha': expected a finite number, found ", alpha);
  return alpha;
}

/// Returns the tensors of the file by the name of the weight that they change.
std::map<std::string_view, FactorPair> pair_tensors(const Gguf& file) {
  std::map<std::string_view, FactorPair> pairs;
  for (const GgufTensor& tensor : file.tensors()) {
    constexpr std::string_view kA = ".lora_a", kB = ".lora_b";
    const bool is_a = tensor.name.ends_with(kA);
    if (!is_a && !tensor.name.ends_with(kB))
      fail(file.name(), ": tensor ", quoted(tensor.name),
           ": expected the name of a weight followed by .lora_a or .lora_b; other changes, such as those of norms, "
           "are not supported");
    FactorPair& pair = pairs[tensor.name.substr(0, tensor.name.size() - kA.size())];
    (is_a ? pair.a : pair.b) = &tensor;
  }
  if (pairs.empty()) fail(file.name(), ": expected tensors named .lora_a and .lora_b, found none");
  for (const auto& [name, pair] : pairs) {
    if (pair.a && pair.b) continue;
    fail(file.name(), ": tensor ", quoted(concat(name, pair.a ? ".lora_b" : ".lora_a")),
         " is missing: expected both factors of ", quoted(name));
  }
  return pairs;
}

/// Throws the error for a weight that adapters cannot change.
[[noreturn]] void fail_weight(const Gguf& file, std::string_view name, const Model& model) {
  const GgufTensor* found = model.file() ? model.file()->find_tensor(name) : nullptr;
  const std::string tensor = concat(file.name(), ": tensor ", quoted(concat(name, ".lora_a")), ": ");
  if (!found)
    fail(tensor, "the model has no weight ", quoted(name), ": expected an adapter that was trained for this model");
  const char* kind = name.starts_with("token_embd") || name.starts_with("position_embd") ? "embeddings"
                     : found->shape.size() > 2                                           ? "experts"
                                               : "norms, biases and convolutions";
  fail(tensor, "adapters of ", kind,
       " are not supported: expected the weight of a projection of attention, a feed-forward, a router or a "
       "recurrence, or output.weight");
}

void expect_shape(const Gguf& file, const GgufTensor& tensor, int64_t columns, int64_t rows) {
  const int64_t shape[] = {columns, rows};
  file.tensor(tensor.name, shape);
}

/// Returns a factor as floats: [rows, cols].
AlignedBuffer<float> factor_of(const GgufTensor& tensor) {
  const int64_t cols = tensor.dim(0), rows = tensor.dim(1);
  const auto row_size = static_cast<int64_t>(row_bytes(tensor.type, cols));
  AlignedBuffer<float> values(rows * cols);
  for (int64_t r = 0; r < rows; ++r)
    dequantize_row(tensor.type, tensor.data + r * row_size, values.data() + r * cols, cols);
  return values;
}

/// Reads the factors of one weight. alpha 0: none.
WeightUpdate read_update(const Gguf& file, std::string_view name, const FactorPair& pair, const Model& model,
                         double alpha) {
  const Matrix* weights = model.network().projection(name);
  if (!weights) fail_weight(file, name, model);
  WeightUpdate update;
  update.weights = *weights;
  update.rank = pair.a->dim(1);
  // A higher rank adds nothing. The limit also bounds the memory that a small quantised tensor takes as floats.
  const int64_t most = std::max(weights->rows, weights->cols);
  if (update.rank < 1 || update.rank > most)
    fail(file.name(), ": tensor ", quoted(pair.a->name), ": expected a rank from 1 to ", most, ", found ",
         update.rank);
  expect_shape(file, *pair.a, weights->cols, update.rank);
  expect_shape(file, *pair.b, update.rank, weights->rows);
  if (alpha != 0) update.factor = static_cast<float>(alpha / static_cast<double>(update.rank));
  update.a = factor_of(*pair.a);
  const AlignedBuffer<float> b = factor_of(*pair.b);
  update.b = AlignedBuffer<float>(b.size());
  for (int64_t r = 0; r < weights->rows; ++r)
    for (int64_t k = 0; k < update.rank; ++k) update.b[k * weights->rows + r] = b[r * update.rank + k];
  return update;
}

void add_to_hash(ContentHash& hash, const GgufTensor& tensor) {
  hash.add(tensor.name);
  hash.add(static_cast<uint64_t>(tensor.type));
  hash.add(std::string_view(reinterpret_cast<const char*>(tensor.data), tensor.bytes));
}

}  // namespace

std::shared_ptr<const Adapter> Adapter::open(const std::string& path, std::shared_ptr<const Model> model) {
  return from(Gguf::open(path), std::move(model));
}

std::shared_ptr<const Adapter> Adapter::from(const Gguf& file, std::shared_ptr<const Model> model) {
  const double alpha = read_metadata(file, model->config());
  std::vector<WeightUpdate> updates;
  ContentHash hash;
  hash.add(std::bit_cast<uint64_t>(alpha));
  for (const auto& [name, pair] : pair_tensors(file)) {
    updates.push_back(read_update(file, name, pair, *model, alpha));
    add_to_hash(hash, *pair.a);
    add_to_hash(hash, *pair.b);
  }
  return std::shared_ptr<const Adapter>(
      new Adapter(std::move(model), AdapterWeights(std::move(updates), hash.value())));
}

}  // namespace fathom
