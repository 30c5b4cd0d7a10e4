// Session::save and Session::open: context files.
#include <algorithm>
#include <filesystem>

#include "attend/methods.h"
#include "base/error.h"
#include "base/format.h"
#include "session/context_image.h"
#include "session/session.h"

namespace fathom {
namespace {

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

void load_state(const ContextFile& file, std::span<const std::byte> bytes, const std::string& what,
                SequenceState* state, const Sequence& sequence) {
  if (!state || bytes.empty()) return;
  const std::string name = concat(file.path(), ": the saved state of ", what);
  ByteReader reader(bytes, name);
  state->load(reader, sequence);
  reader.expect_end();
}

}  // namespace

/// Describes the model and the methods of the session.
ContextInfo Session::describe() const {
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
  for (const ScaledAdapter& adapter : sequence_.adapters())
    info.adapters.push_back({"", adapter.weights->hash(), adapter.scale});
  return info;
}

/// Returns whether tokens of a call of append are restored from the disk cache and stored in it.
bool Session::uses_disk_cache(const AppendOptions& options) const {
  if (!options_.disk_cache || landmarks() || evictor_ || opened_ > 0 || options.on_logits ||
      !options.positions.empty())
    return false;
  const SequenceState* state = sequence_.state(Sequence::StateOf::kSelector);
  return (!state || !state->stores_positions()) && !needs_surprisal() && !watcher_;
}

void Session::save(const std::string& path, const SavedText& text) const {
  if (draft_) fail("the session has an open draft: accept it first");
  if (sequence_.parallel()) fail(path, ": a session of contexts that were joined with ape cannot be saved");
  if (length() == 0) fail(path, ": nothing to save: the session has no tokens");
  ContextInfo info = describe();
  for (size_t i = 0; i < std::min(info.adapters.size(), text.adapter_paths.size()); ++i)
    info.adapters[i].path = text.adapter_paths[i];
  info.notes = text.notes;

  ContextWriter writer(path);
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
  write_tokens(writer, sequence_, 0, sequence_.tokens(), info, WrittenStates::kAll, text.progress);
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
  session.files_.push_back(restore_tokens(file, sequence, session.engine_->pages().budget()));
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
  if (session.engine_->pages().budget()->limit() > 0) file->release_memory();  // tables and states were copied
  session.opened_ = session.length();
  return session;
}

FilePageReads Session::file_page_reads() const {
  FilePageReads reads;
  for (const auto& file : files_) reads += file->page_reads();
  return reads;
}

}  // namespace fathom
