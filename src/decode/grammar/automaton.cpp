#include "decode/grammar/automaton.h"

#include <algorithm>

#include "base/error.h"

namespace fathom {
namespace {

constexpr size_t kMostWays = 4096;

}  // namespace

size_t GrammarAutomaton::SetHash::operator()(const Set& set) const {
  uint64_t hash = set.ends ? 3 : set.leaves ? 7 : 1;
  for (const Way& way : set.ways) {
    hash ^= (static_cast<uint64_t>(static_cast<uint32_t>(way.stack)) << 32) | static_cast<uint32_t>(way.state);
    hash *= 0x9e3779b97f4a7c15u;
    hash ^= hash >> 29;
  }
  return hash;
}

GrammarAutomaton::GrammarAutomaton(std::shared_ptr<const TokenBytes> tokens, std::shared_ptr<const Grammar> grammar,
                                   size_t memory)
    : tokens_(std::move(tokens)), grammar_(std::move(grammar)), memory_(memory), stacks_(2) {
  Set first;
  seen_.clear();
  close(kEmptyStack, grammar_->start(), first);
  start_ = intern(std::move(first));
}

int32_t GrammarAutomaton::push(int32_t stack, int32_t state) {
  const uint64_t key = (static_cast<uint64_t>(static_cast<uint32_t>(stack)) << 32) | static_cast<uint32_t>(state);
  const auto [found, added] = stack_ids_.try_emplace(key, static_cast<int32_t>(stacks_.size()));
  if (added) stacks_.push_back({stack, state, stacks_[stack].depth + 1});
  return found->second;
}

/// Adds a way and all that it leads to without reading a byte. seen_: the ways of this closure.
void GrammarAutomaton::close(int32_t stack, int32_t state, Set& set) {
  std::vector<Way> open{{stack, state}};
  while (!open.empty()) {
    const Way way = open.back();
    open.pop_back();
    if (std::ranges::find(seen_, way) != seen_.end()) continue;
    seen_.push_back(way);
    if (seen_.size() > kMostWays) fail("the grammar has too many ways to read this text");
    bool reads = false;
    for (const Grammar::Edge& edge : grammar_->edges(way.state)) {
      switch (edge.kind) {
        case Grammar::Edge::Kind::kByte:
          reads = true;
          break;
        case Grammar::Edge::Kind::kEmpty:
          open.push_back({way.stack, edge.next});
          break;
        case Grammar::Edge::Kind::kTail:
          open.push_back({way.stack, grammar_->start(edge.rule)});
          break;
        case Grammar::Edge::Kind::kCall:
          open.push_back({push(way.stack, edge.next), grammar_->start(edge.rule)});
      }
    }
    if (reads) set.ways.push_back(way);
    if (!grammar_->ends(way.state)) continue;
    if (way.stack == kEmptyStack) {
      set.ends = true;
    } else if (way.stack == kHiddenStack) {
      set.leaves = true;
    } else {
      open.push_back({stacks_[way.stack].below, stacks_[way.stack].state});
    }
  }
}

GrammarAutomaton::State GrammarAutomaton::intern(Set set) {
  if (set.ways.empty() && !set.ends && !set.leaves) return kDead;
  std::ranges::sort(set.ways);
  const auto [found, added] = states_.try_emplace(std::move(set), static_cast<State>(sets_.size()));
  if (added) {
    sets_.push_back(&found->first);
    state_bytes_ += found->first.ways.size() * sizeof(Way) + 128;
    computed_.emplace_back();
  }
  return found->second;
}

GrammarAutomaton::State GrammarAutomaton::step(State state, unsigned char byte) {
  std::unique_ptr<std::array<State, 256>>& next = computed_[state].next;
  if (!next) {
    next = std::make_unique<std::array<State, 256>>();
    next->fill(kUnknown);
    bytes_ += sizeof(*next);
  }
  if ((*next)[byte] != kUnknown) return (*next)[byte];
  Set set;
  seen_.clear();
  for (const Way& way : sets_[state]->ways)
    for (const Grammar::Edge& edge : grammar_->edges(way.state))
      if (edge.kind == Grammar::Edge::Kind::kByte && edge.low <= byte && byte <= edge.high)
        close(way.stack, edge.next, set);
  const State result = intern(std::move(set));
  (*computed_[state].next)[byte] = result;  // intern() may have moved computed_
  return result;
}

GrammarAutomaton::State GrammarAutomaton::step(State state, std::string_view bytes) {
  const std::lock_guard lock(mutex_);
  for (size_t i = 0; i < bytes.size() && state != kDead; ++i)
    state = step(state, static_cast<unsigned char>(bytes[i]));
  bound_memory();
  return state;
}

bool GrammarAutomaton::may_end(State state) {
  const std::lock_guard lock(mutex_);
  return sets_[state]->ends;
}

std::shared_ptr<const AllowedTokens> GrammarAutomaton::allowed(State state) {
  const std::lock_guard lock(mutex_);
  if (!computed_[state].allowed) {
    std::shared_ptr<const AllowedTokens> tokens = compute_allowed(state);
    bytes_ += tokens->bytes();
    computed_[state].allowed = tokens;
    bound_memory();
    return tokens;
  }
  return computed_[state].allowed;
}

/// Returns the state with the same ways, whose common stack is hidden.
GrammarAutomaton::State GrammarAutomaton::hide_common_stack(const Set& set) {
  int32_t common = set.ways[0].stack;
  for (const Way& way : set.ways) {
    int32_t other = way.stack;
    while (common != other) {
      int32_t& deeper = stacks_[common].depth >= stacks_[other].depth ? common : other;
      deeper = stacks_[deeper].below;
    }
  }
  Set hidden;
  std::vector<int32_t> frames;
  for (const Way& way : set.ways) {
    frames.clear();
    for (int32_t stack = way.stack; stack != common; stack = stacks_[stack].below)
      frames.push_back(stacks_[stack].state);
    int32_t stack = kHiddenStack;
    for (size_t i = frames.size(); i-- > 0;) stack = push(stack, frames[i]);
    hidden.ways.push_back({stack, way.state});
  }
  return intern(std::move(hidden));
}

/// Returns what a state with a hidden stack says about each token.
const GrammarAutomaton::LocalTokens& GrammarAutomaton::local_tokens(State hidden) {
  if (const auto found = local_.find(hidden); found != local_.end()) return found->second;
  struct Path {
    State state = kDead;
    bool left = false;  // whether a way has returned to what is hidden before the last byte
  };
  LocalTokens result{AllowedTokens(tokens_->vocabulary()), {}};
  tokens_->for_each_allowed(
      Path{hidden},
      [&](Path& path, unsigned char byte) {
        if (path.state != kDead) {
          path.left |= sets_[path.state]->leaves;
          path.state = step(path.state, byte);
        }
        return path.state != kDead || path.left;
      },
      [&](int32_t token, const Path& path) {
        if (path.state != kDead) {
          result.allowed.add(token);
        } else {
          result.undecided.push_back(token);
        }
      });
  bytes_ += result.allowed.bytes() + result.undecided.size() * sizeof(int32_t) + 128;
  return local_.emplace(hidden, std::move(result)).first->second;
}

std::shared_ptr<const AllowedTokens> GrammarAutomaton::compute_allowed(State state) {
  const Set& set = *sets_[state];
  auto result = std::make_shared<AllowedTokens>(tokens_->vocabulary());
  if (!set.ways.empty()) {
    const LocalTokens& local = local_tokens(hide_common_stack(set));
    *result = local.allowed;
    for (const int32_t token : local.undecided) {
      State at = state;
      for (const char byte : tokens_->of(token)) {
        at = step(at, static_cast<unsigned char>(byte));
        if (at == kDead) break;
      }
      if (at != kDead) result->add(token);
    }
  }
  if (set.ends)
    for (const int32_t token : tokens_->ends()) result->add(token);
  return result;
}

/// Forgets what can be computed again if it takes too much memory.
void GrammarAutomaton::bound_memory() {
  if (bytes_ < memory_) return;
  for (Computed& computed : computed_) computed = {};
  local_.clear();
  bytes_ = 0;
}

}  // namespace fathom
