#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/atomic_file.h"
#include "base/checksum.h"
#include "base/file_map.h"
#include "base/json.h"
#include "kernels/pages.h"

namespace fathom {

/// The pages of one shape in a context file.
struct ContextPages {
  PageFormat format = PageFormat::kBF16;
  int key_dim = 0, value_dim = 0;
  int value_offset = -1;  // as PageShape::value_offset
  int64_t count = 0;

  size_t page_bytes() const;
};

/// One layer of the model in a context file.
struct ContextLayer {
  int pages = -1;            // index in ContextInfo::pages; −1: a layer without attention
  int heads = 0;             // key/value heads
  int64_t state_floats = 0;  // of one recurrent state; 0: a layer without recurrence
};

/// A LoRA adapter with which the tokens were read.
struct ContextAdapter {
  std::string path;
  uint64_t hash = 0;
  float scale = 1;
};

/// What a context file says about its contents: the section "info", as JSON.
struct ContextInfo {
  std::string model_path, model_name, architecture;
  uint64_t fingerprint = 0;               // of the model file
  std::string position, cache;            // specs of methods
  std::string attend, evict;              // specs of methods whose states are stored
  int64_t context = 0, model_layers = 0;  // SequenceOptions::context and layers
  int64_t chunk = 0;                      // tokens per prefill chunk
  std::vector<ContextAdapter> adapters;
  std::vector<uint64_t> rotary;  // checksum of the frequencies of each rotary table
  int64_t tokens = 0;
  std::vector<ContextPages> pages;  // by shape
  std::vector<ContextLayer> layers;
  Json notes = Json::object();  // of the program that wrote the file

  Json to_json() const;
  /// Throws JsonError or Error for a text that does not describe a context.
  static ContextInfo parse(std::string_view json);
};

/// One entry of a page table: PageEntry, with the number of the page among those of its shape.
struct ContextEntry {
  static constexpr uint32_t kNoPage = ~uint32_t{0};
  int64_t first = 0;
  int64_t position = 0;
  uint64_t mask = 0;
  uint32_t page = 0;
  uint32_t filled = 0;
};

/// Returns the upper bound, exclusive, of positions in a context file. Rotary tables cover all positions below the
/// largest one, so a small file must not demand large tables.
constexpr int64_t max_context_position(int64_t tokens) {
  constexpr int64_t kLeast = int64_t{1} << 24;
  return tokens > kLeast / 4 ? 4 * tokens : kLeast;
}

/// The page table of one layer and head.
struct ContextTable {
  std::span<const ContextEntry> entries{};
  int64_t compacted_begin = 0, compacted_shift = 0;  // as CompactedTokens
  std::span<const int64_t> original_indices{};
};

/// The states of one recurrent layer after some numbers of tokens; the last is the state after all tokens.
struct ContextStates {
  std::span<const int64_t> tokens{};  // ascending
  std::span<const float> floats{};    // [tokens.size(), state_floats]
};

/// A record of the directory of a context file.
struct ContextSection {
  std::array<char, 16> name{};  // padded with zeros
  uint64_t offset = 0, size = 0;
  uint64_t checksum = 0;  // 0 for pages, which have one each
};

/// Writes a context file; docs/context-files.md describes the layout. The file appears complete, when finish()
/// returns, or not at all. All functions throw Error naming the file if it cannot be written.
class ContextWriter {
 public:
  explicit ContextWriter(const std::string& path) : file_(path) { file_.write(std::array<std::byte, 64>{}); }

  /// Adds a section. Throws Error if the name is longer than 15 bytes.
  void add(std::string_view name, std::span<const std::byte> bytes);
  /// Adds the page tables: of each layer with attention, in order, and each of its heads.
  void add_tables(std::span<const ContextTable> tables);
  /// Adds the states of a recurrent layer.
  void add_states(int layer, std::span<const int64_t> tokens, std::span<const float* const> states, int64_t floats);
  /// Begins the pages of one shape, which add_page() then adds in order; their number need not be known.
  void begin_pages(size_t index);
  void add_page(std::span<const std::byte> page);
  /// Ends the pages of begin_pages().
  void end_pages();
  /// Adds the section "info" and commits the file. sync: as AtomicFile::commit.
  void finish(const ContextInfo& info, bool sync = true);
  /// Bytes written so far.
  uint64_t size() const { return file_.size(); }

 private:
  void begin(std::string_view name, uint64_t alignment);
  void write(std::span<const std::byte> bytes);
  void end();

  AtomicFile file_;
  std::vector<ContextSection> sections_;
  std::unique_ptr<Checksum> sum_;  // of the open section
  size_t pages_index_ = 0;
  std::vector<uint64_t> page_sums_;
};

/// A context file, mapped. Opening checks everything but the contents of pages: header, checksums of the other
/// sections, and that all numbers fit together, so that users of this class need no checks of their own.
class ContextFile {
 public:
  /// Throws Error, naming the file and what differs, for a file that is not a context file, is of another version,
  /// truncated, altered or contradictory.
  explicit ContextFile(const std::string& path);
  /// Reads a context from memory, which must outlive the object and be aligned to 8 bytes. name: for errors.
  /// verify: whether checksums are compared; without, all other checks can be tested.
  ContextFile(std::span<const std::byte> bytes, std::string name, bool verify = true);

  const std::string& path() const { return path_; }
  uint64_t size() const { return bytes_.size(); }
  bool mapped() const { return map_ != nullptr; }  // from a file
  /// Returns the memory of what was read so far to the system (FileMap::release_memory).
  void release_memory() const {
    if (map_) map_->release_memory();
  }
  const ContextInfo& info() const { return info_; }
  std::span<const int32_t> tokens() const { return tokens_; }  // [tokens] ids; −1: read as an embedding
  /// The text that was read and the byte offset in it of each token's first byte, [tokens]; both may be absent.
  std::string_view text() const;
  std::span<const int64_t> offsets() const { return offsets_; }
  const ContextTable& table(int layer, int head) const { return tables_[first_table_[layer] + head]; }
  /// The states of a layer with recurrence.
  const ContextStates& states(int layer) const { return states_[layer]; }
  std::span<const float> logits() const { return logits_; }  // after the last token; may be absent
  /// The states of methods; empty: none.
  std::span<const std::byte> selector_state() const { return section("selector"); }
  std::span<const std::byte> evictor_state() const { return section("evictor"); }

  /// All pages of one shape.
  std::span<const std::byte> pages(size_t index) const { return pages_[index]; }
  /// The checksum that a page should have.
  uint64_t page_sum(size_t index, size_t page) const { return page_sums_[index][page]; }
  /// Throws Error if the contents of a page differ from its checksum.
  void check_page(size_t index, size_t page) const;
  /// Checks all pages and the bytes between sections. progress: called now and then with the bytes read so far.
  /// Throws Error for the first damage that it finds.
  void verify(const std::function<void(int64_t bytes)>& progress = {}) const;
  /// Offset of a section in the file; 0: it is absent.
  uint64_t offset_of(std::string_view name) const;

 private:
  void read();
  void read_sections();
  void read_tables();
  void read_states();
  void read_pages();
  void check_table(const ContextTable& table, const ContextPages& pages, std::vector<char>& used) const;
  std::span<const std::byte> section(std::string_view name) const;
  template <class T>
  std::span<const T> list(std::string_view name) const;
  template <class... Parts>
  [[noreturn]] void damaged(const Parts&... parts) const;

  std::string path_;
  std::unique_ptr<FileMap> map_;
  std::span<const std::byte> bytes_;
  bool verify_ = true;
  struct Named {
    std::string_view name;
    std::span<const std::byte> bytes;
  };
  std::vector<Named> sections_;
  ContextInfo info_;
  std::span<const int32_t> tokens_;
  std::span<const int64_t> offsets_;
  std::span<const float> logits_;
  std::vector<ContextTable> tables_;
  std::vector<size_t> first_table_;                   // [layers]
  std::vector<ContextStates> states_;                 // [layers]
  std::vector<std::span<const std::byte>> pages_;     // [shapes]
  std::vector<std::span<const uint64_t>> page_sums_;  // [shapes]
};

}  // namespace fathom
