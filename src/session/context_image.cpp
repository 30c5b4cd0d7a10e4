// Tokens of a sequence in the form of a context file, and back.
#include "session/context_image.h"

#include <algorithm>

#include "base/checksum.h"
#include "base/error.h"

namespace fathom {
namespace {

/// Bytes of pages between calls of `progress`.
constexpr uint64_t kProgressBytes = uint64_t{16} << 20;

/// Describes the shapes of the pages of a sequence and its layers.
void describe_layers(const Sequence& sequence, ContextInfo& info) {
  std::vector<const PageStore*> stores;
  for (int i = 0; i < sequence.layers(); ++i) {
    ContextLayer layer;
    if (const PagedKv* kv = sequence.paged(i)) {
      auto store = std::ranges::find(stores, &kv->store());
      if (store == stores.end()) {
        const PageShape& shape = kv->shape();
        store = stores.insert(store, &kv->store());
        info.pages.push_back({shape.format, shape.key_dim, shape.value_dim, shape.value_offset, 0});
      }
      layer.pages = static_cast<int>(store - stores.begin());
      layer.heads = kv->heads();
    }
    if (const RecurrentState* state = sequence.recurrent(i)) layer.state_floats = state->layout().floats();
    info.layers.push_back(layer);
  }
}

/// The entries of a page table with tokens [begin, end).
struct EntryRange {
  size_t begin, end;
};
EntryRange entries_of(const PageTable& table, int64_t begin, int64_t end) {
  const auto index = [&](int64_t token) {
    return static_cast<size_t>(std::ranges::lower_bound(table, token, {}, &PageEntry::first) - table.begin());
  };
  return {begin > 0 ? index(begin) : 0, index(end)};
}

/// Calls visit(kv, head, entries) for the entries of each table with tokens [begin, end), by layer and head.
template <class Visit>
void for_each_table(const Sequence& sequence, int64_t begin, int64_t end, const Visit& visit) {
  for (int layer = 0; layer < sequence.layers(); ++layer) {
    const PagedKv* kv = sequence.paged(layer);
    for (int head = 0; kv && head < kv->heads(); ++head)
      visit(layer, *kv, head, entries_of(kv->table(head), begin, end));
  }
}

void write_tables(ContextWriter& writer, const Sequence& sequence, int64_t begin, int64_t end, ContextInfo& info) {
  std::vector<std::vector<ContextEntry>> entries;
  std::vector<ContextTable> tables;
  for_each_table(sequence, begin, end, [&](int layer, const PagedKv& kv, int head, EntryRange range) {
    std::vector<ContextEntry>& list = entries.emplace_back();
    list.reserve(range.end - range.begin);
    int64_t& count = info.pages[info.layers[layer].pages].count;
    for (size_t e = range.begin; e < range.end; ++e) {
      const PageEntry& entry = kv.table(head)[e];
      const bool has_page = entry.page != kNoPage;
      list.push_back({entry.first - begin, entry.position - begin, entry.mask,
                      has_page ? static_cast<uint32_t>(count) : ContextEntry::kNoPage,
                      static_cast<uint32_t>(entry.filled)});
      count += has_page;
    }
    const CompactedTokens& compacted = kv.compacted(head);
    tables.push_back({list, compacted.begin, compacted.shift, compacted.original_indices});
  });
  writer.add_tables(tables);
}

void write_states(ContextWriter& writer, int layer, const RecurrentState& state, int64_t begin, int64_t end,
                  WrittenStates states) {
  std::vector<int64_t> tokens = state.checkpoints();
  if (state.tokens() > 0) tokens.push_back(state.tokens());
  std::erase_if(tokens,
                [&](int64_t n) { return n <= begin || n > end || (states == WrittenStates::kLast && n != end); });
  std::vector<std::shared_ptr<const RecurrentState::Snapshot>> snapshots;
  std::vector<const float*> floats;
  for (int64_t& n : tokens) {
    floats.push_back(snapshots.emplace_back(state.snapshot(n))->floats.data());
    n -= begin;
  }
  writer.add_states(layer, tokens, floats, state.layout().floats());
}

/// Mapped pages of one shape. The destructor releases those that no table has taken.
class MappedExtent {
 public:
  /// mapping: keeps the file mapped. reads: notified of reads; null: nobody.
  MappedExtent(PageStore& store, const ContextFile& file, size_t shape, std::shared_ptr<const void> mapping,
               MappedReads* reads)
      : store_(store), taken_(file.info().pages[shape].count, 0) {
    if (!taken_.empty()) first_ = store.map(file.pages(shape), taken_.size(), std::move(mapping), reads);
  }
  MappedExtent(const MappedExtent&) = delete;
  ~MappedExtent() {
    for (size_t i = 0; i < taken_.size(); ++i)
      if (!taken_[i]) store_.release(id(i));
  }
  PageId id(size_t i) const { return first_ + static_cast<PageId>(i); }
  PageRef take(size_t i) {
    taken_[i] = 1;
    return {store_, id(i)};
  }

 private:
  PageStore& store_;
  PageId first_ = kNoPage;
  std::vector<char> taken_;
};

/// The mapped pages of a file, by shape.
class MappedFile {
 public:
  /// opened: of the file, notified of reads; null: nobody.
  MappedFile(const std::shared_ptr<const ContextFile>& file, const Sequence& sequence,
             const std::shared_ptr<OpenedContext>& opened)
      : extents_(file->info().pages.size()) {
    const std::shared_ptr<const void> mapping = opened ? std::shared_ptr<const void>(opened) : file;
    for (int layer = 0; layer < sequence.layers(); ++layer) {
      const PagedKv* kv = sequence.paged(layer);
      const int shape = file->info().layers[layer].pages;
      if (kv && !extents_[shape])
        extents_[shape] = std::make_unique<MappedExtent>(*kv->shared_store(), *file, shape, mapping,
                                                         opened ? opened->reads(shape) : nullptr);
    }
  }
  MappedExtent& of(const ContextFile& file, int layer) { return *extents_[file.info().layers[layer].pages]; }

 private:
  std::vector<std::unique_ptr<MappedExtent>> extents_;
};

void restore_layer(const ContextFile& file, int layer, PagedKv& kv, MappedExtent& extent) {
  std::vector<PageTable> tables;
  std::vector<CompactedTokens> compacted;
  for (int head = 0; head < kv.heads(); ++head) {
    const ContextTable& stored = file.table(layer, head);
    PageTable& table = tables.emplace_back(*kv.shared_store());
    for (const ContextEntry& entry : stored.entries)
      table.push_back({kNoPage, static_cast<int>(entry.filled), entry.first, entry.position, entry.mask},
                      entry.page == ContextEntry::kNoPage ? PageRef() : extent.take(entry.page));
    compacted.push_back({stored.compacted_begin,
                         stored.compacted_shift,
                         {stored.original_indices.begin(), stored.original_indices.end()}});
  }
  kv.restore(std::move(tables), std::move(compacted), file.info().tokens);
}

/// Throws Error if a layer of the file has another shape than that of the sequence.
void check_layers(const ContextFile& file, const Sequence& sequence) {
  for (int layer = 0; layer < sequence.layers(); ++layer) {
    const PagedKv* kv = sequence.paged(layer);
    const RecurrentState* state = sequence.recurrent(layer);
    const ContextLayer& stored = file.info().layers[layer];
    bool same =
        stored.heads == (kv ? kv->heads() : 0) && stored.state_floats == (state ? state->layout().floats() : 0);
    if (kv && same) {
      const ContextPages& pages = file.info().pages[stored.pages];
      same = PageShape{pages.format, pages.key_dim, pages.value_dim, pages.value_offset} == kv->shape();
    }
    if (!same) fail(file.path(), ": layer ", layer, " has another shape than in the model");
  }
}

/// Throws Error unless a file consists of full pages of visible tokens at positions that equal their indices.
void check_full_pages(const ContextFile& file, const Sequence& sequence) {
  for (int layer = 0; layer < sequence.layers(); ++layer) {
    const PagedKv* kv = sequence.paged(layer);
    for (int head = 0; kv && head < kv->heads(); ++head)
      for (const ContextEntry& entry : file.table(layer, head).entries)
        if (entry.filled != kPageTokens || entry.position != entry.first || entry.mask != ~uint64_t{0})
          fail(file.path(), ": expected full pages of ", kPageTokens, " tokens");
  }
  if (file.info().tokens % kPageTokens != 0) fail(file.path(), ": expected full pages of ", kPageTokens, " tokens");
}

/// Returns the floats of the last state of a layer.
std::span<const float> last_state(const ContextStates& states, int64_t floats) {
  return states.floats.last(static_cast<size_t>(floats));
}

}  // namespace

std::vector<uint64_t> rotary_sums(const Sequence& sequence) {
  std::vector<uint64_t> sums;
  for (int layer = 0; layer < sequence.layers(); ++layer) {
    const PagedKv* kv = sequence.paged(layer);
    if (!kv) continue;
    Checksum sum;
    sum.add(std::as_bytes(std::span(kv->rotations().rotary().frequencies())));
    const float factor = kv->score_factor();
    sum.add(std::as_bytes(std::span(&factor, 1)));
    sums.push_back(sum.value());
  }
  return sums;
}

void write_tokens(ContextWriter& writer, const Sequence& sequence, int64_t begin, int64_t end, ContextInfo& info,
                  WrittenStates states, const std::function<void(int64_t bytes)>& progress) {
  info.tokens = end - begin;
  if (sequence.end_position() > max_context_position(sequence.tokens()))
    fail("a context file holds positions below ", max_context_position(sequence.tokens()), ", found ",
         sequence.end_position() - 1);
  info.rotary = rotary_sums(sequence);
  describe_layers(sequence, info);
  const std::vector<int32_t> ids = sequence.ids().copy(begin, end);
  writer.add("tokens", std::as_bytes(std::span(ids)));
  write_tables(writer, sequence, begin, end, info);
  for (int layer = 0; layer < sequence.layers(); ++layer)
    if (const RecurrentState* state = sequence.recurrent(layer))
      write_states(writer, layer, *state, begin, end, states);
  uint64_t reported = 0;
  for (size_t shape = 0; shape < info.pages.size(); ++shape) {
    writer.begin_pages(shape);
    for_each_table(sequence, begin, end, [&](int layer, const PagedKv& kv, int head, EntryRange range) {
      if (info.layers[layer].pages != static_cast<int>(shape)) return;
      for (size_t e = range.begin; e < range.end; ++e) {
        const PageId page = kv.table(head)[e].page;
        if (page != kNoPage) writer.add_page({kv.store().keys(page), kv.shape().bytes()});
      }
      if (!progress || writer.size() - reported < kProgressBytes) return;
      reported = writer.size();
      progress(static_cast<int64_t>(reported));
    });
    writer.end_pages();
  }
}

std::shared_ptr<const OpenedContext> restore_tokens(const std::shared_ptr<const ContextFile>& file,
                                                    Sequence& sequence,
                                                    const std::shared_ptr<MemoryBudget>& budget) {
  check_layers(*file, sequence);
  const auto opened = std::make_shared<OpenedContext>(file, budget);
  MappedFile mapped(file, sequence, opened);
  for (int layer = 0; layer < sequence.layers(); ++layer) {
    if (PagedKv* kv = sequence.paged(layer)) restore_layer(*file, layer, *kv, mapped.of(*file, layer));
    RecurrentState* state = sequence.recurrent(layer);
    if (!state) continue;
    const ContextStates& stored = file->states(layer);
    const int64_t floats = state->layout().floats();
    for (size_t i = 0; i < stored.tokens.size(); ++i)
      state->advance(stored.tokens[i], state->make_snapshot(stored.floats.subspan(i * floats, floats)));
  }
  sequence.restore(file->tokens());
  return opened;
}

void append_tokens(const std::shared_ptr<const ContextFile>& file, Sequence& sequence) {
  check_layers(*file, sequence);
  check_full_pages(*file, sequence);
  MappedFile mapped(file, sequence, nullptr);
  for (int64_t at = 0; at < file->info().tokens; at += kPageTokens) {
    std::vector<std::vector<PageId>> pages(sequence.layers());
    for (int layer = 0; layer < sequence.layers(); ++layer) {
      const PagedKv* kv = sequence.paged(layer);
      for (int head = 0; kv && head < kv->heads(); ++head)
        pages[layer].push_back(mapped.of(*file, layer).id(file->table(layer, head).entries[at / kPageTokens].page));
    }
    sequence.adopt(pages, file->tokens().subspan(at, kPageTokens));
  }
  if (!sequence.has_recurrent_layers()) return;
  std::vector<std::shared_ptr<const RecurrentState::Snapshot>> states(sequence.layers());
  for (int layer = 0; layer < sequence.layers(); ++layer)
    if (RecurrentState* state = sequence.recurrent(layer))
      states[layer] = state->make_snapshot(last_state(file->states(layer), state->layout().floats()));
  sequence.adopt_states(states);
}

}  // namespace fathom
