#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "formats/context_file.h"
#include "memory/sequence.h"
#include "session/opened_context.h"

namespace fathom {

/// Returns a checksum of the rotary positions of each layer with attention.
std::vector<uint64_t> rotary_sums(const Sequence& sequence);

/// Which states of recurrent layers are written: all checkpoints, or only the last state.
enum class WrittenStates { kAll, kLast };

/// Writes tokens [begin, end) of a sequence: ids, page tables, recurrent states and pages, and describes them in
/// `info`. Token indices and positions are relative to `begin`, which must be the first token of a page in all
/// tables, or 0. Of recurrent layers, those in (begin, end] are written; the state at `end` must be known.
/// progress: called now and then with the bytes written so far. Throws Error.
void write_tokens(ContextWriter& writer, const Sequence& sequence, int64_t begin, int64_t end, ContextInfo& info,
                  WrittenStates states, const std::function<void(int64_t bytes)>& progress = {});

/// Restores all tokens of a file into an empty sequence. Pages stay in the file and are checked when they are first
/// read. budget: bounds the memory that they occupy, together with other pages; null or without a limit: not
/// bounded. Returns the file as its pages are read. Throws Error if the file does not fit the sequence.
std::shared_ptr<const OpenedContext> restore_tokens(const std::shared_ptr<const ContextFile>& file,
                                                    Sequence& sequence,
                                                    const std::shared_ptr<MemoryBudget>& budget);

/// Appends the tokens of a file, whole pages of 64 at consecutive positions, to a sequence whose number of tokens
/// is a multiple of 64. Pages stay in the file; the caller has checked them. Throws Error if the file does not fit
/// the sequence, which is then unchanged.
void append_tokens(const std::shared_ptr<const ContextFile>& file, Sequence& sequence);

}  // namespace fathom
