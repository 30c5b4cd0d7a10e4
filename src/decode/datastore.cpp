#include "decode/datastore.h"

#include <faiss/IndexFlat.h>
#include <faiss/IndexIVFFlat.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <string_view>

#include "base/content_hash.h"
#include "base/error.h"
#include "base/file_map.h"
#include "base/write_file.h"
#include "kernels/quantize.h"

namespace fathom {
namespace {

constexpr float kLargestKey = 65504;        // largest 16-bit float
constexpr int64_t kBlock = 4096;            // keys that are converted at once
constexpr int64_t kTrainedPerList = 40;     // keys that k-means uses per list
constexpr int kTrainingSteps = 8;           // of k-means; later ones hardly change the lists
constexpr int64_t kLeastPerList = 8;        // mean length of a list
constexpr int64_t kMaxWidth = 1 << 20;      // limits of a file, which keep its size within 64 bits
constexpr int64_t kMaxEntries = 1LL << 31;  // exclusive

/// The start of a datastore file. The tokens, 32-bit integers [entries], the keys, 16-bit floats [entries, width],
/// and, with inverted lists, their centroids, floats [lists, width], and the list of each entry, 32-bit integers
/// [entries], follow it.
struct FileHeader {
  char magic[8];
  uint64_t version;
  uint64_t fingerprint;
  uint64_t vocabulary, width, entries, lists;
  uint64_t body_hash;    // ContentHash of the bytes after the header
  uint64_t header_hash;  // ContentHash of the fields above
};
constexpr std::string_view kMagic = "FTHMKNN\n";
constexpr uint64_t kVersion = 1;

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

uint64_t header_hash(const FileHeader& header) {
  return hash_content({reinterpret_cast<const char*>(&header), offsetof(FileHeader, header_hash)});
}

uint64_t body_bytes(const FileHeader& header) {
  const uint64_t of_lists = header.lists > 0 ? header.lists * header.width * 4 + header.entries * 4 : 0;
  return header.entries * 4 + header.entries * header.width * 2 + of_lists;
}

/// Returns the number of inverted lists for n keys: 4·√n, which FAISS recommends for up to a million keys, or
/// fewer, so that no list is nearly empty.
int64_t list_count(int64_t n) {
  const auto wanted = static_cast<int64_t>(4 * std::sqrt(static_cast<double>(n)));
  return std::max<int64_t>(1, std::min(wanted, n / kLeastPerList));
}

float rounded(float value) { return f16_to_f32(f32_to_f16(value)); }

/// Reads values from bytes, which may be unaligned.
class BodyReader {
 public:
  explicit BodyReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  template <class T>
  void read(std::span<T> out) {
    if (out.empty()) return;
    std::memcpy(out.data(), bytes_.data(), out.size_bytes());
    bytes_ = bytes_.subspan(out.size_bytes());
  }

 private:
  std::span<const std::byte> bytes_;
};

/// Checks size, hashes and model of a file and returns its header.
FileHeader check_file(const std::string& path, std::span<const std::byte> bytes, const DatastoreModel& model) {
  FileHeader header;
  if (bytes.size() < kMagic.size() || as_text(bytes).substr(0, kMagic.size()) != kMagic)
    fail(path, ": not a datastore: expected a file that begins with FTHMKNN");
  if (bytes.size() < sizeof header)
    fail(path, ": truncated: expected a header of ", sizeof header, " bytes, found ", bytes.size());
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.version != kVersion)
    fail(path, ": datastore version: expected ", kVersion, ", found ", header.version);
  if (header.header_hash != header_hash(header)) fail(path, ": the header is damaged: its checksum does not match");
  if (header.width < 1 || header.width > kMaxWidth || header.entries < 1 || header.entries >= kMaxEntries ||
      header.lists > header.entries)
    fail(path, ": the header is invalid: ", header.entries, " entries of width ", header.width, " in ",
         header.lists, " lists");
  const DatastoreModel found{header.fingerprint, static_cast<int64_t>(header.vocabulary),
                             static_cast<int64_t>(header.width)};
  if (found.width != model.width || found.vocabulary != model.vocabulary)
    fail(path, ": made with another model: expected width ", model.width, " and a vocabulary of ", model.vocabulary,
         ", found ", found.width, " and ", found.vocabulary);
  if (found != model)
    fail(path, ": made with another model of the same shape: expected fingerprint ", model.fingerprint, ", found ",
         found.fingerprint);
  const uint64_t expected = sizeof header + body_bytes(header);
  if (bytes.size() != expected)
    fail(path, bytes.size() < expected ? ": truncated: expected " : ": too long: expected ", expected,
         " bytes, found ", bytes.size());
  if (header.body_hash != hash_content(as_text(bytes.subspan(sizeof header))))
    fail(path, ": damaged: the checksum of its entries does not match");
  return header;
}

void check_tokens(std::span<const int32_t> tokens, int64_t vocabulary) {
  for (size_t i = 0; i < tokens.size(); ++i)
    if (tokens[i] < 0 || tokens[i] >= vocabulary)
      fail("datastore: token of entry ", i, ": expected an id from 0 to ", vocabulary - 1, ", found ", tokens[i]);
}

/// Throws Error if a number of the vectors, [n, width], is not finite or too large.
void check_vectors(const char* kind, std::span<const float> vectors, int64_t width) {
  for (size_t i = 0; i < vectors.size(); ++i)
    if (!(std::abs(vectors[i]) <= kLargestKey))
      fail("datastore: ", kind, " ", static_cast<int64_t>(i) / width,
           ": expected finite numbers of magnitude up to ", kLargestKey, ", found ", vectors[i]);
}

}  // namespace

DatastoreModel DatastoreModel::of(const Model& model) {
  if (!model.file()) fail_usage("datastore: expected a model that was read from a file");
  return {model.fingerprint(), model.config().vocabulary, model.config().width};
}

/// The keys: a flat FAISS index, or inverted lists of unencoded keys.
class Datastore::Index {
 public:
  Index(int64_t width, int64_t lists, int64_t probes)
      : flat_(width), lists_(lists), probes_(std::clamp<int64_t>(probes, 1, std::max<int64_t>(1, lists))) {
    if (lists > 0) inverted_ = std::make_unique<faiss::IndexIVFFlat>(&flat_, width, lists);
  }

  int64_t width() const { return flat_.d; }
  int64_t lists() const { return lists_; }
  std::span<const float> centroids() const { return {flat_.get_xb(), static_cast<size_t>(lists_ * width())}; }

  /// Sets the centroids of the inverted lists, [lists, width].
  void set_centroids(std::span<const float> centroids) {
    flat_.add(lists_, centroids.data());
    inverted_->is_trained = true;
  }
  /// Computes the centroids from a sample of keys, [n, width].
  void train(std::span<const float> sample) {
    inverted_->cp.min_points_per_centroid = 1;
    inverted_->cp.niter = kTrainingSteps;
    inverted_->train(std::ssize(sample) / width(), sample.data());
  }
  /// Appends keys, [n, width]. assigned: their lists; null: the nearest ones.
  void add(std::span<const float> keys, const int64_t* assigned) {
    const int64_t n = std::ssize(keys) / width();
    if (!inverted_) return flat_.add(n, keys.data());
    std::vector<int64_t> nearest;
    if (!assigned) {
      nearest.resize(n);
      flat_.assign(n, keys.data(), nearest.data());
      assigned = nearest.data();
    }
    inverted_->add_core(n, keys.data(), nullptr, assigned);
  }

  /// Writes the distances and entries of the k nearest keys; entries are −1 if fewer were found.
  void search(const float* query, int64_t k, float* distances, int64_t* entries) const {
    if (!inverted_) return flat_.search(1, query, k, distances, entries);
    std::vector<float> list_distances(probes_);
    std::vector<int64_t> nearest(probes_);
    flat_.search(1, query, probes_, list_distances.data(), nearest.data());
    faiss::IVFSearchParameters parameters;
    parameters.nprobe = static_cast<size_t>(probes_);
    faiss::IndexIVFStats stats;  // instead of the global one, which searches of other threads use
    inverted_->search_preassigned(1, query, k, nearest.data(), list_distances.data(), distances, entries, false,
                                  &parameters, &stats);
  }

  /// Writes the keys in the order of the entries, [entries, width], and their lists, [entries], if there are lists.
  void copy(int64_t entries, uint16_t* keys, int32_t* list_of) const {
    const auto convert = [&](const float* key, int64_t entry) {
      for (int64_t i = 0; i < width(); ++i) keys[entry * width() + i] = f32_to_f16(key[i]);
    };
    if (!inverted_) {
      for (int64_t entry = 0; entry < entries; ++entry) convert(flat_.get_xb() + entry * width(), entry);
      return;
    }
    for (int64_t list = 0; list < lists_; ++list) {
      const faiss::InvertedLists::ScopedIds ids(inverted_->invlists, list);
      faiss::InvertedLists::ScopedCodes codes(inverted_->invlists, list);
      for (size_t i = 0; i < inverted_->invlists->list_size(list); ++i) {
        convert(reinterpret_cast<const float*>(codes.get()) + i * width(), ids[i]);
        list_of[ids[i]] = static_cast<int32_t>(list);
      }
    }
  }

 private:
  faiss::IndexFlatL2 flat_;  // the keys, or the centroids of the inverted lists
  std::unique_ptr<faiss::IndexIVFFlat> inverted_;
  int64_t lists_, probes_;
};

Datastore::Datastore(const DatastoreModel& model, std::span<const float> keys, std::span<const int32_t> tokens,
                     const DatastoreOptions& options)
    : model_(model), tokens_(tokens.begin(), tokens.end()) {
  const int64_t n = entries(), width = model.width;
  if (n < 1 || n >= kMaxEntries) fail("datastore: expected 1 to ", kMaxEntries - 1, " entries, found ", n);
  if (width < 1 || width > kMaxWidth || std::ssize(keys) != n * width)
    fail("datastore: expected ", n, " keys of width ", width, ", found ", keys.size(), " numbers");
  check_tokens(tokens, model.vocabulary);
  check_vectors("key", keys, width);
  index_ = std::make_unique<Index>(width, n > options.exact_entries ? list_count(n) : 0, options.probes);
  if (lists() > 0) {
    const int64_t step = std::max<int64_t>(1, n / (lists() * kTrainedPerList));
    std::vector<float> sample;
    for (int64_t entry = 0; entry < n; entry += step)
      for (const float value : keys.subspan(entry * width, width)) sample.push_back(rounded(value));
    index_->train(sample);
  }
  std::vector<float> block;
  for (int64_t entry = 0; entry < n; entry += kBlock) {
    const auto some = keys.subspan(entry * width, std::min(kBlock, n - entry) * width);
    block.assign(some.begin(), some.end());
    std::ranges::transform(block, block.begin(), rounded);
    index_->add(block, nullptr);
  }
}

Datastore::Datastore(const DatastoreModel& model, std::vector<int32_t> tokens, std::unique_ptr<Index> index)
    : model_(model), tokens_(std::move(tokens)), index_(std::move(index)) {}

Datastore::Datastore(Datastore&&) noexcept = default;
Datastore& Datastore::operator=(Datastore&&) noexcept = default;
Datastore::~Datastore() = default;

int64_t Datastore::lists() const { return index_->lists(); }

Datastore Datastore::load(const std::string& path, const DatastoreModel& model, const DatastoreOptions& options) {
  const FileMap map(path);
  return parse(map.bytes(), path, model, options);
}

Datastore Datastore::parse(std::span<const std::byte> bytes, const std::string& name, const DatastoreModel& model,
                           const DatastoreOptions& options) {
  const FileHeader header = check_file(name, bytes, model);
  const auto n = static_cast<int64_t>(header.entries), width = static_cast<int64_t>(header.width),
             lists = static_cast<int64_t>(header.lists);
  const std::span<const std::byte> body = bytes.subspan(sizeof header);
  std::vector<int32_t> tokens(n), list_of(lists > 0 ? n : 0);
  std::vector<float> centroids(lists * width);
  BodyReader reader(body), key_reader(body.subspan(n * 4)), list_reader(body.subspan(n * 4 + n * width * 2));
  reader.read(std::span(tokens));
  list_reader.read(std::span(centroids));
  list_reader.read(std::span(list_of));
  try {
    check_tokens(tokens, model.vocabulary);
    check_vectors("centroid", centroids, width);
    for (const int32_t list : list_of)
      if (list < 0 || list >= lists) fail("datastore: expected lists from 0 to ", lists - 1, ", found ", list);
    auto index = std::make_unique<Index>(width, lists, options.probes);
    if (lists > 0) index->set_centroids(centroids);
    std::vector<uint16_t> halves;
    std::vector<float> block;
    for (int64_t entry = 0; entry < n; entry += kBlock) {
      const int64_t count = std::min(kBlock, n - entry);
      halves.resize(count * width);
      block.resize(count * width);
      key_reader.read(std::span(halves));
      std::ranges::transform(halves, block.begin(), f16_to_f32);
      check_vectors("key", block, width);
      const std::vector<int64_t> assigned(list_of.begin() + (lists > 0 ? entry : 0),
                                          list_of.begin() + (lists > 0 ? entry + count : 0));
      index->add(block, lists > 0 ? assigned.data() : nullptr);
    }
    return Datastore(model, std::move(tokens), std::move(index));
  } catch (const Error& error) {
    throw Error(concat(name, ": ", error.what()), error.kind());
  }
}

void Datastore::save(const std::string& path) const {
  FileHeader header{};
  std::memcpy(header.magic, kMagic.data(), kMagic.size());
  header.version = kVersion;
  header.fingerprint = model_.fingerprint;
  header.vocabulary = static_cast<uint64_t>(model_.vocabulary);
  header.width = static_cast<uint64_t>(model_.width);
  header.entries = static_cast<uint64_t>(entries());
  header.lists = static_cast<uint64_t>(lists());
  std::vector<uint16_t> keys(entries() * model_.width);
  std::vector<int32_t> list_of(lists() > 0 ? entries() : 0);
  index_->copy(entries(), keys.data(), list_of.data());

  std::vector<std::byte> bytes(sizeof header);
  bytes.reserve(sizeof header + body_bytes(header));
  const auto append = [&](std::span<const std::byte> part) { bytes.insert(bytes.end(), part.begin(), part.end()); };
  append(std::as_bytes(std::span(tokens_)));
  append(std::as_bytes(std::span(keys)));
  if (lists() > 0) {
    append(std::as_bytes(index_->centroids()));
    append(std::as_bytes(std::span(list_of)));
  }
  header.body_hash = hash_content(as_text(std::span(bytes).subspan(sizeof header)));
  header.header_hash = header_hash(header);
  std::memcpy(bytes.data(), &header, sizeof header);
  write_file(path, bytes);
}

std::vector<DatastoreNeighbour> Datastore::search(std::span<const float> query, int64_t k) const {
  if (std::ssize(query) != model_.width)
    fail("datastore: expected a query of width ", model_.width, ", found ", query.size(), " numbers");
  check_vectors("query", query, model_.width);
  if (k < 1) fail("datastore: expected at least 1 neighbour, found ", k);
  k = std::min(k, entries());
  std::vector<float> distances(k);
  std::vector<int64_t> found(k);
  index_->search(query.data(), k, distances.data(), found.data());
  std::vector<DatastoreNeighbour> neighbours;
  for (int64_t i = 0; i < k; ++i)
    if (found[i] >= 0) neighbours.push_back({found[i], tokens_[found[i]], distances[i]});
  std::ranges::sort(neighbours, [](const DatastoreNeighbour& a, const DatastoreNeighbour& b) {
    return a.distance != b.distance ? a.distance < b.distance : a.entry < b.entry;
  });
  return neighbours;
}

}  // namespace fathom
