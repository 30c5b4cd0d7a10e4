#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "formats/context_file.h"
#include "memory/memory_budget.h"
#include "memory/page_store.h"

namespace fathom {

/// How the pages of an opened context file were read.
struct FilePageReads {
  int64_t read = 0;    // pages that forward passes needed, each counted once per pass
  int64_t missed = 0;  // of these, pages that were not in memory when they were needed
  int64_t loaded = 0;  // pages that a thread read from the file before they were needed

  FilePageReads& operator+=(const FilePageReads& other) {
    read += other.read, missed += other.missed, loaded += other.loaded;
    return *this;
  }
  FilePageReads operator-(const FilePageReads& other) const {
    return {read - other.read, missed - other.missed, loaded - other.loaded};
  }
};

/// A mapped context file whose pages forward passes read. Each page is checked when it is first needed. While a
/// pass computes a layer, a thread reads the pages from the file that the next layer will need: those that it
/// needed in the pass before, or all of them if the layer is new and this one needed nearly all of its own. With a
/// limit, pages that were not used recently are returned to the system. Thread-safe.
class OpenedContext {
 public:
  /// budget: limits the memory of the pages in the file, together with other pages; null or without a limit: they
  /// may all stay in memory.
  OpenedContext(std::shared_ptr<const ContextFile> file, std::shared_ptr<MemoryBudget> budget);
  OpenedContext(const OpenedContext&) = delete;
  ~OpenedContext();

  /// Returns the object that is notified of reads of the pages of a shape.
  MappedReads* reads(size_t shape);
  FilePageReads page_reads() const;

 private:
  class Shape;
  struct Layer {
    Shape* shape = nullptr;       // null: the layer has no pages
    std::vector<uint32_t> pages;  // in the file's pages of this shape
    uint32_t pass = 0;            // latest one that needed pages of the layer; 0: none yet. Guarded by mutex_
  };
  struct LayerPass {
    const Layer* layer;
    uint32_t pass;
  };

  size_t limit() const;
  void enter_layer(uint32_t layer);
  void load_layers();
  void release_layers(size_t begin, size_t end);
  static std::vector<uint32_t> pages_to_load(const LayerPass& layer, const LayerPass& before);
  static std::vector<uint32_t> pages_of(const LayerPass& layer);

  std::shared_ptr<const ContextFile> file_;
  std::shared_ptr<MemoryBudget> budget_;
  std::vector<std::unique_ptr<Shape>> shapes_;
  std::vector<Layer> layers_;    // those with pages
  std::atomic<uint32_t> layer_;  // that the current pass computes, an index in layers_; layers_.size(): none yet
  std::atomic<uint32_t> pass_{1};
  std::atomic<int64_t> loaded_{0};

  std::mutex mutex_;
  std::condition_variable wakes_;
  std::atomic<uint32_t> requests_{0};  // number of times that a layer was begun
  bool stopped_ = false;
  std::thread reader_;  // started with the first request
};

}  // namespace fathom
