#include "session/opened_context.h"

#include <algorithm>
#include <limits>

#include "memory/resident_blocks.h"

namespace fathom {
namespace {

/// The least memory for the pages of a mapped file when a budget is used up otherwise.
constexpr size_t kLeastResident = size_t{16} << 20;
/// The part of the limit that pages may take that were not needed yet: 1 / kLoadedShare. With a quarter, pages of
/// the current layer were returned to the system between being chosen and being read.
constexpr size_t kLoadedShare = 16;
/// A layer that needed this share of its pages is expected to be followed by one that needs all of them.
constexpr double kNearlyAll = 0.9;

}  // namespace

/// The pages of one shape.
class OpenedContext::Shape final : public MappedReads {
 public:
  Shape(OpenedContext& context, size_t shape)
      : context_(context),
        shape_(shape),
        bytes_(context.file_->info().pages[shape].page_bytes()),
        data_(context.file_->pages(shape).data()),
        layers_(context.file_->info().pages[shape].count),
        passes_(layers_.size()),
        checked_(layers_.size()) {
    if (context.file_->mapped() && !layers_.empty())
      resident_ =
          std::make_unique<ResidentBlocks>(context.file_->pages(shape), [&context] { return context.limit(); });
  }

  void before_read(size_t page) override {
    const uint32_t layer = layers_[page];
    if (context_.layer_.load(std::memory_order_relaxed) != layer) context_.enter_layer(layer);
    const bool resident = !resident_ || resident_->touch(data_ + page * bytes_, bytes_);
    const uint32_t pass = context_.pass_.load(std::memory_order_relaxed);
    if (passes_[page].load(std::memory_order_relaxed) != pass) {
      passes_[page].store(pass, std::memory_order_relaxed);
      read_.fetch_add(1, std::memory_order_relaxed);
    }
    if (!resident) missed_.fetch_add(1, std::memory_order_relaxed);
    if (checked_[page].load(std::memory_order_relaxed)) return;
    context_.file_->check_page(shape_, page);
    checked_[page].store(true, std::memory_order_relaxed);
  }

  /// Sets the layer that a page belongs to.
  void set_layer(uint32_t page, uint32_t layer) { layers_[page] = layer; }
  /// Returns whether a page was needed in a pass.
  bool was_read(uint32_t page, uint32_t pass) const {
    return passes_[page].load(std::memory_order_relaxed) == pass;
  }
  /// Reads a page from the file unless it is in memory. Returns whether it was not.
  bool load(uint32_t page) { return resident_->load(data_ + page * bytes_, bytes_); }
  /// Returns to the system what is in memory of pages [first, last] although it is not counted.
  void release_uncounted(uint32_t first, uint32_t last) {
    if (resident_) resident_->release_absent(data_ + first * bytes_, (last - first + 1) * bytes_);
  }
  /// Returns whether pages may be outside memory.
  bool incomplete() const { return resident_ && !resident_->all_resident(); }

  size_t page_bytes() const { return bytes_; }
  int64_t read() const { return read_.load(std::memory_order_relaxed); }
  int64_t missed() const { return missed_.load(std::memory_order_relaxed); }

 private:
  OpenedContext& context_;
  size_t shape_, bytes_;
  const std::byte* data_;
  std::vector<uint32_t> layers_;               // [pages] index in OpenedContext::layers_
  std::vector<std::atomic<uint32_t>> passes_;  // [pages] latest pass that needed the page
  std::vector<std::atomic<bool>> checked_;
  std::unique_ptr<ResidentBlocks> resident_;  // null: the file was read into memory
  std::atomic<int64_t> read_{0}, missed_{0};
};

OpenedContext::OpenedContext(std::shared_ptr<const ContextFile> file, std::shared_ptr<MemoryBudget> budget)
    : file_(std::move(file)), budget_(std::move(budget)) {
  const ContextInfo& info = file_->info();
  for (size_t shape = 0; shape < info.pages.size(); ++shape)
    shapes_.push_back(std::make_unique<Shape>(*this, shape));
  for (int layer = 0; layer < std::ssize(info.layers); ++layer) {
    if (info.layers[layer].heads == 0) continue;
    Layer& own = layers_.emplace_back();
    own.shape = shapes_[info.layers[layer].pages].get();
    for (int head = 0; head < info.layers[layer].heads; ++head)
      for (const ContextEntry& entry : file_->table(layer, head).entries)
        if (entry.page != ContextEntry::kNoPage) own.pages.push_back(entry.page);
    for (const uint32_t page : own.pages) own.shape->set_layer(page, static_cast<uint32_t>(layers_.size() - 1));
  }
  layer_ = static_cast<uint32_t>(layers_.size());
}

OpenedContext::~OpenedContext() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    requests_.fetch_add(1, std::memory_order_relaxed);
  }
  wakes_.notify_one();
  if (reader_.joinable()) reader_.join();
}

MappedReads* OpenedContext::reads(size_t shape) { return shapes_[shape].get(); }

FilePageReads OpenedContext::page_reads() const {
  FilePageReads reads{.loaded = loaded_.load(std::memory_order_relaxed)};
  for (const auto& shape : shapes_) reads += {shape->read(), shape->missed()};
  return reads;
}

/// Returns the bytes of each shape's pages that may be in memory.
size_t OpenedContext::limit() const {
  if (!budget_ || budget_->limit() == 0) return std::numeric_limits<size_t>::max();
  const size_t left = budget_->limit() - std::min(budget_->limit(), budget_->in_use());
  return std::max(kLeastResident, left) / shapes_.size();
}

/// Called when a pass needs a page of another layer than before.
void OpenedContext::enter_layer(uint32_t layer) {
  {
    const std::lock_guard lock(mutex_);
    const uint32_t before = layer_.load(std::memory_order_relaxed);
    if (before == layer) return;
    if (layer < before && before < layers_.size()) pass_.fetch_add(1, std::memory_order_relaxed);
    layers_[layer].pass = pass_.load(std::memory_order_relaxed);
    layer_.store(layer, std::memory_order_relaxed);
    if (std::ranges::none_of(shapes_, &Shape::incomplete)) return;
    requests_.fetch_add(1, std::memory_order_relaxed);
    if (!reader_.joinable()) reader_ = std::thread([this] { load_layers(); });
  }
  wakes_.notify_one();
}

/// Returns the pages that a layer will probably need: those of its latest pass. If there was none, all if the layer
/// `before` needed nearly all of its own.
std::vector<uint32_t> OpenedContext::pages_to_load(const LayerPass& layer, const LayerPass& before) {
  if (layer.pass > 0) return pages_of(layer);
  const auto read = static_cast<double>(pages_of(before).size());
  const std::vector<uint32_t>& all = before.layer->pages;
  return read < kNearlyAll * static_cast<double>(all.size()) ? std::vector<uint32_t>() : layer.layer->pages;
}

/// Returns the pages that a layer needed in a pass; none for pass 0.
std::vector<uint32_t> OpenedContext::pages_of(const LayerPass& layer) {
  std::vector<uint32_t> pages;
  if (layer.pass == 0) return pages;
  std::ranges::copy_if(layer.layer->pages, std::back_inserter(pages),
                       [&](uint32_t page) { return layer.layer->shape->was_read(page, layer.pass); });
  return pages;
}

/// Bounds the memory of the pages of layers [begin, end), which were computed; end may be before begin.
void OpenedContext::release_layers(size_t begin, size_t end) {
  for (size_t i = begin; i != end; i = (i + 1) % layers_.size()) {
    const std::vector<uint32_t>& pages = layers_[i].pages;
    if (pages.empty()) continue;
    const auto [first, last] = std::ranges::minmax(pages);
    layers_[i].shape->release_uncounted(first, last);
  }
}

/// The reader thread: reads pages of the layer after the current one until another layer begins.
void OpenedContext::load_layers() {
  std::unique_lock lock(mutex_);
  size_t released = layer_.load(std::memory_order_relaxed);
  for (uint32_t done = 0;;) {
    wakes_.wait(lock, [&] { return stopped_ || requests_ != done; });
    if (stopped_) return;
    done = requests_;
    const auto pass_of = [&](size_t i) {
      return LayerPass{&layers_[i % layers_.size()], layers_[i % layers_.size()].pass};
    };
    const size_t current = layer_.load(std::memory_order_relaxed);
    const LayerPass next = pass_of(current + 1), before = pass_of(current + layers_.size() - 1);
    lock.unlock();
    if (budget_ && budget_->limit() > 0) release_layers(released, current);
    released = current;
    Shape& shape = *next.layer->shape;
    const size_t most = limit() / kLoadedShare / shape.page_bytes();
    size_t loaded = 0;
    for (const uint32_t page : pages_to_load(next, before)) {
      if (requests_.load(std::memory_order_relaxed) != done || loaded == most) break;
      loaded += shape.load(page);
    }
    loaded_.fetch_add(static_cast<int64_t>(loaded), std::memory_order_relaxed);
    lock.lock();
  }
}

}  // namespace fathom
