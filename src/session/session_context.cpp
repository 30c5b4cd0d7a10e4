// Session::save and Session::open: context files.
#include <algorithm>
#include <atomic>
#include <filesystem>

#include "attend/methods.h"
#include "base/checksum.h"
#include "base/error.h"
#include "base/format.h"
#include "session/session.h"

namespace fathom {
namespace {

/// Bytes of pages between calls of SavedText::progress.
constexpr uint64_t kProgressBytes = uint64_t{16} << 20;

/// Returns a checksum of the rotary positions of a layer.
uint64_t rotary_sum(const PagedKv& kv) {
  Checksum sum;
  sum.add(std::as_bytes(std::span(kv.rotations().rotary().frequencies())));
  const float factor = kv.score_factor();
  sum.add(std::as_bytes(std::span(&factor, 1)));
  return sum.value();
}

/// Returns the rotary checksums of the layers with attention.
std::vector<uint64_t> rotary_sums(const Sequence& sequence) {
  std::vector<uint64_t> sums;
  for (int layer = 0; layer < sequence.layers(); ++layer)
    if (const PagedKv* kv = sequence.paged(layer)) sums.push_back(rotary_sum(*kv));
  return sums;
}

/// The shapes of the pages of a sequence, and its layers with their number.
void describe_layers(const Sequence& sequence, ContextInfo& info, std::vector<const PageStore*>& stores) {
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

/// The page tables of a sequence, in the form of a context file.
struct StoredTables {
  std::vector<std::vector<ContextEntry>> entries;
  std::vector<ContextTable> tables;
};

StoredTables store_tables(const Sequence& sequence, ContextInfo& info) {
  StoredTables stored;
  for (int layer = 0; layer < sequence.layers(); ++layer) {
    const PagedKv* kv = sequence.paged(layer);
    for (int head = 0; kv && head < kv->heads(); ++head) {
      std::vector<ContextEntry>& entries = stored.entries.emplace_back();
      entries.reserve(kv->table(head).size());
      for (const PageEntry& entry : kv->table(head)) {
        int64_t& count = info.pages[info.layers[layer].pages].count;
        const bool stored_page = entry.page != kNoPage;
        entries.push_back({entry.first, entry.position, entry.mask,
                           stored_page ? static_cast<uint32_t>(count) : ContextEntry::kNoPage,
                           static_cast<uint32_t>(entry.filled)});
        count += stored_page;
      }
      const CompactedTokens& compacted = kv->compacted(head);
      stored.tables.push_back({entries, compacted.begin, compacted.shift, compacted.original_indices});
    }
  }
  return stored;
}

void write_states(ContextWriter& writer, int layer, const RecurrentState& state) {
  std::vector<int64_t> tokens = state.checkpoints();
  if (state.tokens() > 0) tokens.push_back(state.tokens());
  std::vector<std::shared_ptr<const RecurrentState::Snapshot>> snapshots;
  std::vector<const float*> floats;
  for (const int64_t n : tokens) floats.push_back(snapshots.emplace_back(state.snapshot(n))->floats.data());
  writer.add_states(layer, tokens, floats, state.layout().floats());
}

/// Writes the pages of each shape in the order of their numbers: by layer, head, and entry.
void write_pages(ContextWriter& writer, const Sequence& sequence, const ContextInfo& info, const SavedText& text) {
  uint64_t reported = 0;
  for (size_t shape = 0; shape < info.pages.size(); ++shape) {
    writer.begin_pages(shape);
    for (int layer = 0; layer < sequence.layers(); ++layer) {
      const PagedKv* kv = sequence.paged(layer);
      if (!kv || info.layers[layer].pages != static_cast<int>(shape)) continue;
      for (int head = 0; head < kv->heads(); ++head)
        for (const PageEntry& entry : kv->table(head))
          if (entry.page != kNoPage) writer.add_page({kv->store().keys(entry.page), kv->shape().bytes()});
      if (!text.progress || writer.size() - reported < kProgressBytes) continue;
      reported = writer.size();
      text.progress(static_cast<int64_t>(reported));
    }
    writer.end_pages();
  }
}

/// A mapped context file, and which of its pages were checked.
class OpenedContext {
 public:
  explicit OpenedContext(std::shared_ptr<const ContextFile> file) : file_(std::move(file)) {
    for (size_t shape = 0; shape < file_->info().pages.size(); ++shape)
      reads_.push_back(std::make_unique<Reads>(*file_, shape));
  }
  MappedReads* reads(size_t shape) { return reads_[shape].get(); }

 private:
  class Reads final : public MappedReads {
   public:
    Reads(const ContextFile& file, size_t shape)
        : file_(file), shape_(shape), checked_(file.info().pages[shape].count) {}
    void before_read(size_t page) override {
      if (checked_[page].load(std::memory_order_relaxed)) return;
      file_.check_page(shape_, page);
      checked_[page].store(true, std::memory_order_relaxed);
    }

   private:
    const ContextFile& file_;
    size_t shape_;
    std::vector<std::atomic<bool>> checked_;
  };
  std::shared_ptr<const ContextFile> file_;
  std::vector<std::unique_ptr<Reads>> reads_;
};

/// Mapped pages of one shape. The destructor releases those that no table has taken.
class MappedExtent {
 public:
  MappedExtent(PageStore& store, std::span<const std::byte> pages, size_t count,
               const std::shared_ptr<OpenedContext>& context, size_t shape)
      : store_(store), taken_(count, 0) {
    if (count > 0) first_ = store.map(pages, count, context, context->reads(shape));
  }
  MappedExtent(const MappedExtent&) = delete;
  ~MappedExtent() {
    for (size_t i = 0; i < taken_.size(); ++i)
      if (!taken_[i]) store_.release(first_ + static_cast<PageId>(i));
  }
  PageRef take(size_t i) {
    taken_[i] = 1;
    return {store_, first_ + static_cast<PageId>(i)};
  }

 private:
  PageStore& store_;
  PageId first_ = kNoPage;
  std::vector<char> taken_;
};

std::string model_text(const std::string& name, const std::string& architecture) {
  return concat(quote(name.empty() ? "without a name" : name), " (", architecture, ")");
}

/// Throws Error if a sequence with these options is not one to which the context fits.
void check_context(const ContextFile& file, const Sequence& sequence, const Engine& engine,
                   const SessionOptions& options) {
  const ContextInfo& info = file.info();
  const ModelConfig& model = engine.model().config();
  if (info.fingerprint != engine.model().fingerprint())
    fail(file.path(), ": read with another model: expected ", model_text(info.model_name, info.architecture),
         ", found ", model_text(model.name, model.architecture),
         info.model_name == model.name ? " with other weights" : "");
  if (std::ssize(info.layers) != sequence.layers())
    fail(file.path(), ": read with the first ", info.layers.size(), " layers of the model, found ",
         sequence.layers());
  if (info.cache != options.cache)
    fail(file.path(), ": read with --cache ", info.cache, ", found --cache ", options.cache);
  const auto same_adapter = [](const ContextAdapter& saved, const ScaledAdapter& found) {
    return saved.hash == found.weights->hash() && saved.scale == found.scale;
  };
  if (!std::ranges::equal(info.adapters, sequence.adapters(), same_adapter))
    fail(file.path(), ": read with other adapters: expected the same ", info.adapters.size(),
         " files and scales of --lora, found ", sequence.adapters().size(), " that differ");
  if (info.rotary != rotary_sums(sequence))
    fail(file.path(), ": read with other rotary positions: expected --position ", info.position,
         info.context > 0 ? concat(" and -c ", info.context) : "", ", found --position ", options.position);
}

/// Throws Error if a layer of the file has another shape than that of the sequence.
void check_layer(const ContextFile& file, int layer, const PagedKv* kv, const RecurrentState* state) {
  const ContextLayer& stored = file.info().layers[layer];
  const bool same_state = stored.state_floats == (state ? state->layout().floats() : 0);
  bool same_pages = stored.heads == (kv ? kv->heads() : 0);
  if (kv && same_pages) {
    const ContextPages& pages = file.info().pages[stored.pages];
    same_pages = PageShape{pages.format, pages.key_dim, pages.value_dim, pages.value_offset} == kv->shape();
  }
  if (!same_pages || !same_state) fail(file.path(), ": layer ", layer, " has another shape than in the model");
}

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

void restore_states(const ContextStates& stored, RecurrentState& state) {
  const int64_t floats = state.layout().floats();
  for (size_t i = 0; i < stored.tokens.size(); ++i)
    state.advance(stored.tokens[i], state.make_snapshot(stored.floats.subspan(i * floats, floats)));
}

void load_state(const ContextFile& file, std::span<const std::byte> bytes, const std::string& what,
                SequenceState* state, const Sequence& sequence) {
  if (!state || bytes.empty()) return;
  const std::string name = concat(file.path(), ": the saved state of ", what);
  ByteReader reader(bytes, name);
  state->load(reader, sequence);
  reader.expect_end();
}

}  // namespace

void Session::save(const std::string& path, const SavedText& text) const {
  if (draft_) fail("the session has an open draft: accept it first");
  if (sequence_.parallel()) fail(path, ": a session of contexts that were joined with ape cannot be saved");
  if (length() == 0) fail(path, ": nothing to save: the session has no tokens");
  ContextInfo info;
  const ModelConfig& config = model().config();
  info.model_name = config.name;
  info.architecture = config.architecture;
  info.fingerprint = model().fingerprint();
  std::error_code error;
  if (model().file()) {
    const std::filesystem::path full = std::filesystem::absolute(model().file()->name(), error);
    info.model_path = error ? model().file()->name() : full.string();
  }
  info.position = options_.position;
  info.cache = options_.cache;
  info.attend = options_.attend;
  info.evict = options_.evict;
  info.context = options_.context;
  info.model_layers = options_.layers;
  info.chunk = options_.chunk;
  for (size_t i = 0; i < sequence_.adapters().size(); ++i)
    info.adapters.push_back({i < text.adapter_paths.size() ? text.adapter_paths[i] : "",
                             sequence_.adapters()[i].weights->hash(), sequence_.adapters()[i].scale});
  info.rotary = rotary_sums(sequence_);
  info.tokens = sequence_.tokens();
  info.notes = text.notes;
  std::vector<const PageStore*> stores;
  describe_layers(sequence_, info, stores);

  ContextWriter writer(path);
  const std::vector<int32_t> ids = sequence_.ids().copy(0, sequence_.tokens());
  writer.add("tokens", std::as_bytes(std::span(ids)));
  if (!text.text.empty()) writer.add("text", std::as_bytes(std::span(text.text)));
  if (!text.offsets.empty()) writer.add("offsets", std::as_bytes(text.offsets));
  if (!logits_.empty()) writer.add("logits", std::as_bytes(std::span(logits_)));
  const auto add_state = [&](const char* name, Sequence::StateOf owner) {
    ByteWriter bytes;
    const SequenceState* state = sequence_.state(owner);
    if (!state) return;
    state->save(bytes, sequence_);
    writer.add(name, bytes.bytes());
  };
  add_state("selector", Sequence::StateOf::kSelector);
  add_state("evictor", Sequence::StateOf::kEvictor);
  const StoredTables stored = store_tables(sequence_, info);
  writer.add_tables(stored.tables);
  for (int layer = 0; layer < sequence_.layers(); ++layer)
    if (const RecurrentState* state = sequence_.recurrent(layer)) write_states(writer, layer, *state);
  write_pages(writer, sequence_, info, text);
  writer.finish(info);
}

SessionOptions Session::options_of(const ContextFile& file) {
  const ContextInfo& info = file.info();
  SessionOptions options;
  options.context = info.context;
  options.chunk = info.chunk;
  options.attend = info.attend;
  options.position = info.position;
  options.cache = info.cache;
  options.evict = info.evict;
  options.layers = static_cast<int>(info.model_layers);
  return options;
}

Session Session::open(std::shared_ptr<Engine> engine, std::shared_ptr<const ContextFile> file,
                      SessionOptions options) {
  Session session(std::move(engine), std::move(options));
  Sequence& sequence = session.sequence_;
  check_context(*file, sequence, *session.engine_, session.options_);
  const ContextInfo& info = file->info();
  const auto context = std::make_shared<OpenedContext>(file);
  std::vector<std::unique_ptr<MappedExtent>> extents(info.pages.size());
  for (int layer = 0; layer < sequence.layers(); ++layer) {
    PagedKv* kv = sequence.paged(layer);
    RecurrentState* state = sequence.recurrent(layer);
    check_layer(*file, layer, kv, state);
    if (kv) {
      const int shape = info.layers[layer].pages;
      if (!extents[shape])
        extents[shape] = std::make_unique<MappedExtent>(*kv->shared_store(), file->pages(shape),
                                                        info.pages[shape].count, context, shape);
      restore_layer(*file, layer, *kv, *extents[shape]);
    }
    if (state) restore_states(file->states(layer), *state);
  }
  sequence.restore(file->tokens());
  const int64_t vocabulary = session.model().config().vocabulary;
  const auto known = [&](int32_t id) { return id >= -1 && id < vocabulary; };
  if (!std::ranges::all_of(file->tokens(), known) ||
      (!file->logits().empty() && std::ssize(file->logits()) != vocabulary))
    fail(file->path(), ": the context file is damaged: it has token ids outside the vocabulary of ", vocabulary);
  session.logits_.assign(file->logits().begin(), file->logits().end());
  if (session.options_.attend == info.attend)
    load_state(*file, file->selector_state(), concat("--attend ", info.attend),
               sequence.state(Sequence::StateOf::kSelector), sequence);
  if (session.options_.evict == info.evict)
    load_state(*file, file->evictor_state(), concat("--evict ", info.evict),
               sequence.state(Sequence::StateOf::kEvictor), sequence);
  session.opened_ = session.length();
  return session;
}

}  // namespace fathom
