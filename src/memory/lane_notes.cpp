#include "memory/lane_notes.h"

#include <algorithm>
#include <cstring>

#include "base/aligned.h"
#include "base/error.h"
#include "base/slab.h"

namespace fathom {

static_assert(NotePool::kRun % kAlignment == 0, "runs of notes of any size begin at cache lines");

NotePool::NotePool(size_t bytes) : bytes_(bytes), run_bytes_(kRun * bytes), slab_bytes_(whole_slab(run_bytes_)) {}

NotePool::~NotePool() {
  for (std::byte* slab : slabs_) unmap_slab(slab, slab_bytes_);
}

std::byte* NotePool::take() {
  const std::lock_guard lock(mutex_);
  if (free_.empty()) {
    std::byte* slab = map_slab(slab_bytes_);
    if (!slab) fail("out of memory: cannot get ", slab_bytes_, " more bytes for notes of pages");
    slabs_.push_back(slab);
    free_.reserve(slabs_.size() * (slab_bytes_ / run_bytes_));  // giving back needs no memory
    for (size_t i = slab_bytes_ / run_bytes_; i-- > 0;) free_.push_back(slab + i * run_bytes_);
  }
  std::byte* run = free_.back();
  free_.pop_back();
  return run;
}

void NotePool::give_back(std::byte* run) {
  const std::lock_guard lock(mutex_);
  free_.push_back(run);
}

LaneNotes::Run::Run(const Run& other) : pool(other.pool), bytes(pool->take()), sources(other.sources) {
  std::memcpy(bytes, other.bytes, NotePool::kRun * pool->note_bytes());
}

LaneNotes::LaneNotes(const LaneNotes& other)
    : pool_(other.pool_), runs_(other.runs_), edits_(other.edits_), sure_(other.sure_) {
  for (std::shared_ptr<Run>& run : runs_)
    if (run && !run->sealed) run = std::make_shared<Run>(*run);
}

bool LaneNotes::current(const Memory& memory, int layer, int head) const {
  const Lane& lane = memory.lane(layer, head);
  if (edits_ != memory.edits(layer, head) || sure_ + 1 < lane.size()) return false;
  return sure_ == lane.size() || lane[sure_].filled < kPageTokens;
}

LaneNotes::Run& LaneNotes::own_run(size_t index) {
  std::shared_ptr<Run>& run = runs_[index];
  if (!run) {
    run = std::make_shared<Run>(pool_);
  } else if (run->sealed) {
    run = std::make_shared<Run>(*run);
  }
  return *run;
}

void LaneNotes::seal() {
  const auto noted = [](const Source& source) { return source.page != kNoPage; };
  for (const std::shared_ptr<Run>& run : runs_)
    if (run && !run->sealed) run->sealed = std::ranges::all_of(run->sources, noted);
}

}  // namespace fathom
