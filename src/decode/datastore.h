#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "models/model.h"

namespace fathom {

/// The model whose hidden states are the keys of a datastore.
struct DatastoreModel {
  uint64_t fingerprint = 0;  // of its file: size, names and shapes of tensors, and a sample of their bytes
  int64_t vocabulary = 0;
  int64_t width = 0;  // numbers in a key

  /// Throws Error (usage) for a model without a file.
  static DatastoreModel of(const Model& model);
  bool operator==(const DatastoreModel&) const = default;
};

struct DatastoreOptions {
  int64_t exact_entries = 100'000;  // datastores of up to this many entries are searched exhaustively
  int64_t probes = 32;              // larger ones have inverted lists, of which a search scans this many
};

/// An entry of a datastore that is near to a query.
struct DatastoreNeighbour {
  int64_t entry = 0;   // number in the order of the keys
  int32_t token = 0;   // its value
  float distance = 0;  // squared Euclidean distance
};

/// Pairs of a key, which is a vector, and a token, with a nearest-neighbour index over the keys. Keys are rounded
/// to 16-bit floats; distances are those to the rounded keys. Immutable; search() is thread-safe.
class Datastore {
 public:
  /// keys: [entries, width], of magnitude up to 65504; tokens: [entries]. The inverted lists of large datastores
  /// come from k-means with a fixed seed. Throws Error for no entries, lengths that do not match, a key that is not
  /// finite or too large, and a token outside the vocabulary.
  Datastore(const DatastoreModel& model, std::span<const float> keys, std::span<const int32_t> tokens,
            const DatastoreOptions& options = {});
  Datastore(Datastore&&) noexcept;
  Datastore& operator=(Datastore&&) noexcept;
  ~Datastore();

  /// Reads a file that save() wrote. The index is that of the file. Throws Error naming the file if it is not a
  /// datastore, of another version or model, truncated or damaged.
  static Datastore load(const std::string& path, const DatastoreModel& model, const DatastoreOptions& options = {});
  /// Reads the bytes of a file. `name` is used as the file name in errors.
  static Datastore parse(std::span<const std::byte> bytes, const std::string& name, const DatastoreModel& model,
                         const DatastoreOptions& options = {});
  /// Writes a file of about entries · (2 · width + 4) bytes. Throws Error as write_file.
  void save(const std::string& path) const;

  /// Returns the k nearest entries, or all if there are fewer, nearest first and equal distances by entry. With
  /// inverted lists, near entries outside the scanned lists are missing. Throws Error if the query does not have
  /// `width` numbers of magnitude up to 65504 or k < 1.
  std::vector<DatastoreNeighbour> search(std::span<const float> query, int64_t k) const;

  const DatastoreModel& model() const { return model_; }
  int64_t entries() const { return std::ssize(tokens_); }
  /// Returns the number of inverted lists; 0: searches are exhaustive.
  int64_t lists() const;

 private:
  class Index;
  Datastore(const DatastoreModel& model, std::vector<int32_t> tokens, std::unique_ptr<Index> index);

  DatastoreModel model_;
  std::vector<int32_t> tokens_;  // [entries]
  std::unique_ptr<Index> index_;
};

}  // namespace fathom
