#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "memory/memory.h"

namespace fathom {

/// Memory for runs of notes, in large pages of the machine. Thread-safe.
class NotePool {
 public:
  static constexpr size_t kRun = 64;  // notes of a run

  /// bytes: of a note; notes begin at multiples of it in a run that begins at a cache line.
  explicit NotePool(size_t bytes);
  ~NotePool();
  NotePool(const NotePool&) = delete;

  size_t note_bytes() const { return bytes_; }
  /// A run, whose bytes are whatever they were. Throws Error when there is no memory.
  std::byte* take();
  void give_back(std::byte* run);

 private:
  size_t bytes_, run_bytes_, slab_bytes_;
  std::mutex mutex_;
  std::vector<std::byte*> slabs_, free_;
};

/// What a method derives from the full pages of a lane: a note for each, side by side in the order of the lane, so
/// that who goes through them reads in one stream. Copies, for forks of a sequence, share the runs in which none is
/// missing.
class LaneNotes {
 public:
  explicit LaneNotes(std::shared_ptr<NotePool> pool) : pool_(std::move(pool)) {}
  LaneNotes(const LaneNotes& other);
  LaneNotes(LaneNotes&&) = default;
  LaneNotes& operator=(LaneNotes&&) = default;

  /// Whether each full page of this lane has a note, and nothing has changed since it was made.
  bool current(const Memory& memory, int layer, int head) const;
  /// make(slot, note) fills the bytes of the note of each full page that has none, or was written to or moved
  /// since.
  template <class Make>
  void update(const Memory& memory, int layer, int head, const Make& make) {
    const PageStore& store = memory.store();
    const Lane& lane = memory.lane(layer, head);
    runs_.resize((lane.size() + NotePool::kRun - 1) / NotePool::kRun);
    sure_ = std::min(sure_, memory.first_edited(layer, head, edits_));
    edits_ = memory.edits(layer, head);
    for (size_t s = sure_; s < lane.size(); ++s) {
      const PageSlot& slot = lane[s];
      if (slot.filled < kPageTokens || slot.page == kNoPage) continue;
      const Source source{slot.page, store.version(slot.page), slot.place};
      const Run* run = runs_[s / NotePool::kRun].get();
      const size_t i = s % NotePool::kRun;
      if (run && run->sources[i] == source) continue;
      Run& own = own_run(s / NotePool::kRun);
      own.sources[i] = {};  // until it is made
      make(slot, own.note(i));
      own.sources[i] = source;
    }
    while (sure_ < lane.size() && lane[sure_].filled == kPageTokens) ++sure_;
    seal();
  }
  /// The note of the full page in a slot, as of the last update.
  const std::byte* operator[](size_t slot) const {
    return runs_[slot / NotePool::kRun]->note(slot % NotePool::kRun);
  }

  /// How many of these slots, from the first on, have notes that lie one after the other.
  static size_t together(std::span<const uint32_t> slots) {
    size_t count = 1;
    while (count < slots.size() && slots[count] == slots[count - 1] + 1 && slots[count] % NotePool::kRun != 0)
      ++count;
    return count;
  }

 private:
  struct Source {  // what a note was made from
    PageId page = kNoPage;
    uint32_t version = 0;
    int64_t place = 0;
    bool operator==(const Source&) const = default;
  };
  struct Run {
    explicit Run(std::shared_ptr<NotePool> from) : pool(std::move(from)), bytes(pool->take()) {}
    Run(const Run& other);
    ~Run() { pool->give_back(bytes); }
    std::byte* note(size_t i) const { return bytes + i * pool->note_bytes(); }

    std::shared_ptr<NotePool> pool;
    std::byte* bytes;
    std::array<Source, NotePool::kRun> sources;
    bool sealed = false;  // others may hold it: never written to again
  };

  /// A run to be written to.
  Run& own_run(size_t index);
  void seal();

  std::shared_ptr<NotePool> pool_;
  std::vector<std::shared_ptr<Run>> runs_;
  uint64_t edits_ = ~uint64_t{0};  // of the lane at the last update
  size_t sure_ = 0;                // first slots, all full, that need no other look until then
};

}  // namespace fathom
