// Session::edit: changes in the middle of a text that was read. Session::join: contexts that were read alone.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "attend/block_memory.h"
#include "base/content_hash.h"
#include "base/error.h"
#include "session/session.h"

namespace fathom {
namespace {

/// Number of first layers that are run to measure how much tokens differ from a plain reading. Keys and values of
/// the first layer depend on no other token, those of the second on all.
constexpr int kMeasuredLayers = 2;

/// A part of the edited text: tokens of the session that are kept as they are, or tokens to be read.
struct EditSegment {
  bool read = false;
  int64_t begin = 0, end = 0;     // tokens of the session; kept ones begin with a page
  std::vector<int32_t> tokens{};  // to be read
};

/// The tokens [begin, end) of a page that is kept, and the index of the first one in the edited text.
struct KeptPage {
  int64_t begin, end, moved_begin;
};

/// Removes what an edit does not change at its beginning and end.
TokenEdit trimmed(TokenEdit edit, std::span<const int32_t> ids) {
  while (edit.begin < edit.end && !edit.tokens.empty() && ids[edit.end - 1] == edit.tokens.back()) {
    --edit.end;
    edit.tokens.pop_back();
  }
  size_t same = 0;
  while (edit.begin < edit.end && same < edit.tokens.size() && ids[edit.begin] == edit.tokens[same]) {
    ++edit.begin;
    ++same;
  }
  edit.tokens.erase(edit.tokens.begin(), edit.tokens.begin() + static_cast<std::ptrdiff_t>(same));
  return edit;
}

/// Checks edits and returns those that change something, trimmed.
std::vector<TokenEdit> effective_edits(std::span<const TokenEdit> edits, std::span<const int32_t> ids) {
  std::vector<TokenEdit> effective;
  int64_t end = 0;
  for (const TokenEdit& edit : edits) {
    if (edit.begin < end || edit.begin > edit.end || edit.end > std::ssize(ids))
      fail("edit: expected ascending ranges of tokens within ", ids.size(), ", found [", edit.begin, ", ", edit.end,
           ")");
    end = edit.end;
    TokenEdit own = trimmed(edit, ids);
    if (own.begin < own.end || !own.tokens.empty()) effective.push_back(std::move(own));
  }
  return effective;
}

/// The segments of an edited text after the first edit.
class EditPlan {
 public:
  EditPlan(const Sequence& sequence, std::span<const TokenEdit> edits)
      : sequence_(sequence), begin_(edits[0].begin) {
    int64_t at = begin_;
    for (const TokenEdit& edit : edits) {
      keep(at, edit.begin);
      read(edit.tokens);
      at = edit.end;
    }
    keep(at, sequence.tokens());
    read_last();
  }

  /// Number of first tokens that are unchanged.
  int64_t begin() const { return begin_; }

  const std::vector<EditSegment>& segments() const { return segments_; }
  int64_t tokens_to_read() const {
    int64_t count = 0;
    for (const EditSegment& segment : segments_) count += std::ssize(segment.tokens);
    return count;
  }
  /// Returns the kept pages.
  std::vector<KeptPage> kept_pages() const {
    std::vector<KeptPage> pages;
    int64_t moved = begin_;  // index of the segment's first token in the edited text
    for (const EditSegment& segment : segments_) {
      for (int64_t at = segment.begin; at < segment.end;) {
        const int64_t end = std::min(segment.end, sequence_.page_begin(at + 1));
        pages.push_back({at, end, moved + at - segment.begin});
        at = end;
      }
      moved += segment.end - segment.begin + std::ssize(segment.tokens);
    }
    return pages;
  }
  /// Returns all tokens after begin().
  std::vector<int32_t> tokens() const {
    std::vector<int32_t> all;
    for (const EditSegment& segment : segments_) {
      const std::vector<int32_t> some =
          segment.read ? segment.tokens : sequence_.ids().copy(segment.begin, segment.end);
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }
  /// Reads again the kept pages that begin with these tokens (ascending).
  void read_again(std::span<const int64_t> pages) {
    std::vector<EditSegment> old = std::move(segments_);
    segments_.clear();
    for (EditSegment& segment : old) {
      if (segment.read) {
        read(segment.tokens);
        continue;
      }
      for (int64_t at = segment.begin; at < segment.end;) {
        const int64_t end = std::min(segment.end, sequence_.page_begin(at + 1));
        if (std::ranges::binary_search(pages, at)) {
          read(sequence_.ids().copy(at, end));
        } else {
          add_kept(at, end);
        }
        at = end;
      }
    }
  }

 private:
  /// Reads the last token, for its logits, if it would be kept.
  void read_last() {
    if (!segments_.empty() && segments_.back().read) return;
    const int64_t last = (segments_.empty() ? begin_ : segments_.back().end) - 1;
    if (last < 0) return;
    if (segments_.empty()) {
      begin_ = last;
    } else if (--segments_.back().end == segments_.back().begin) {
      segments_.pop_back();
    }
    read({sequence_.ids()[last]});
  }
  /// Adds tokens [begin, end), which are kept from the first page on that begins among them.
  void keep(int64_t begin, int64_t end) {
    const int64_t page = std::min(end, sequence_.page_begin(begin));
    read(sequence_.ids().copy(begin, page));
    add_kept(page, end);
  }
  void add_kept(int64_t begin, int64_t end) {
    if (begin == end) return;
    if (!segments_.empty() && !segments_.back().read && segments_.back().end == begin) {
      segments_.back().end = end;
    } else {
      segments_.push_back({.begin = begin, .end = end});
    }
  }
  void read(const std::vector<int32_t>& tokens) {
    if (tokens.empty()) return;
    if (segments_.empty() || !segments_.back().read) segments_.push_back({.read = true});
    std::vector<int32_t>& all = segments_.back().tokens;
    all.insert(all.end(), tokens.begin(), tokens.end());
  }

  const Sequence& sequence_;
  int64_t begin_;
  std::vector<EditSegment> segments_;
};

/// Returns the squared differences of the keys and values of tokens [begin, begin + count) of one layer from those
/// of tokens [other_begin, …) of another sequence, summed over heads and tokens.
double squared_difference(const PagedKv& kv, int64_t begin, const PagedKv& other, int64_t other_begin,
                          int64_t count) {
  UnrotatedKeys keys, other_keys;
  double sum = 0;
  for (int head = 0; head < kv.heads(); ++head) {
    read_unrotated_keys(kv, head, {begin, begin + count}, keys);
    read_unrotated_keys(other, head, {other_begin, other_begin + count}, other_keys);
    for (size_t i = 0; i < keys.keys.size(); ++i) {
      const double difference = double{keys.keys[i]} - other_keys.keys[i];
      sum += difference * difference;
    }
    const auto value = [head](const PagedKv& from, int64_t token, int d) {
      const PageTable& table = from.table(head);
      const PageEntry& entry = *std::prev(std::ranges::upper_bound(table, token, {}, &PageEntry::first));
      return from.store().value(entry.page, static_cast<int>(token - entry.first), d);
    };
    for (int64_t i = 0; i < count; ++i) {
      for (int d = 0; d < kv.shape().value_dim; ++d) {
        const double difference = double{value(kv, begin + i, d)} - value(other, other_begin + i, d);
        sum += difference * difference;
      }
    }
  }
  return sum;
}

}  // namespace

EditReport Session::edit_exactly(std::span<const TokenEdit> edits, const EditOptions& options) {
  const std::vector<int32_t> held = ids();
  std::vector<int32_t> edited;
  int64_t at = edits[0].begin;
  for (const TokenEdit& edit : edits) {
    edited.insert(edited.end(), held.begin() + at, held.begin() + edit.begin);
    edited.insert(edited.end(), edit.tokens.begin(), edit.tokens.end());
    at = edit.end;
  }
  edited.insert(edited.end(), held.begin() + at, held.end());
  // from the beginning of a prefill chunk, so that the results have the bits of a plain reading
  int64_t begin = edits[0].begin / options_.chunk * options_.chunk;
  if (edited.empty() && begin == edits[0].begin && begin > 0) --begin;  // the last token, for its logits
  edited.insert(edited.begin(), held.begin() + begin, held.begin() + edits[0].begin);
  check_length(begin + std::ssize(edited));
  Session copy = fork();
  EditReport report;
  report.kept = sequence_.floor(landmarks().with(begin));
  copy.rewind(length() - begin);
  AppendOptions append;
  append.progress = [&](int64_t done) {
    if (options.progress) options.progress(done, std::ssize(edited));
  };
  copy.append(edited, append);
  report.read = copy.sequence_.tokens() - report.kept;
  *this = std::move(copy);
  return report;
}

/// Returns the first tokens of the kept pages that differ most from a plain reading of the edited text, ascending.
std::vector<int64_t> Session::most_changed_pages(std::span<const TokenEdit> edits, double share,
                                                 EditReport& report) const {
  const EditPlan plan(sequence_, edits);
  const std::vector<KeptPage> pages = plan.kept_pages();
  const auto chosen =
      std::min(pages.size(), static_cast<size_t>(std::ceil(share * static_cast<double>(pages.size()))));
  const int layer = kMeasuredLayers - 1;
  if (chosen == 0 || sequence_.layers() < kMeasuredLayers) return {};
  SessionOptions options = options_;
  options.layers = kMeasuredLayers;
  options.share_prefixes = false;
  Session measured(engine_, options);
  measured.sequence_.adopt(sequence_, 0, plan.begin(), sequence_.first_position());
  const std::vector<int32_t> tokens = plan.tokens();
  measured.append(tokens);
  report.measured = std::ssize(tokens);
  std::vector<double> changes(pages.size());
  runtime().pool().parallel_for(pages.size(), [&](size_t i, int) {
    changes[i] = squared_difference(sequence_.kv(layer), pages[i].begin, measured.sequence_.kv(layer),
                                    pages[i].moved_begin, pages[i].end - pages[i].begin);
  });
  std::vector<size_t> order(pages.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::ranges::greater(), [&](size_t i) { return changes[i]; });
  std::vector<int64_t> result;
  for (const size_t i : std::span(order).first(chosen)) result.push_back(pages[i].begin);
  std::ranges::sort(result);
  return result;
}

EditReport Session::edit(std::span<const TokenEdit> given, const EditOptions& options) {
  if (draft_) fail("the session has an open draft: accept it first");
  if (!(options.blend >= 0 && options.blend <= 1))
    fail_usage("blend: expected a share from 0 to 1, found ", options.blend);
  const std::vector<TokenEdit> edits = effective_edits(given, ids());
  if (edits.empty()) return {.kept = length()};
  if (options.exact || landmarks() || sequence_.has_recurrent_layers()) return edit_exactly(edits, options);
  if (evictor_ || sequence_.is_evicted())
    fail_usage("--evict ", options_.evict, " has removed tokens, so later ones cannot be moved: expected --exact");
  EditReport report;
  EditPlan plan(sequence_, edits);
  if (options.blend > 0) plan.read_again(most_changed_pages(edits, options.blend, report));
  int64_t length_after = plan.begin();
  for (const EditSegment& segment : plan.segments())
    length_after += segment.read ? std::ssize(segment.tokens) : segment.end - segment.begin;
  check_length(length_after);
  Session copy = fork();
  copy.sequence_.truncate(plan.begin());
  report.kept = plan.begin();
  const auto forget = [&] { copy.sequence_.set_state(Sequence::StateOf::kSelector, selector_->new_state()); };
  forget();
  for (const EditSegment& segment : plan.segments()) {
    if (!segment.read) {
      copy.sequence_.adopt(sequence_, segment.begin, segment.end, copy.sequence_.next_position());
      report.moved += segment.end - segment.begin;
      continue;
    }
    AppendOptions append;
    append.progress = [&](int64_t done) {
      if (options.progress) options.progress(report.read + done, plan.tokens_to_read());
    };
    copy.append(segment.tokens, append);
    report.read += std::ssize(segment.tokens);
  }
  forget();  // the state does not cover the tokens that were moved
  *this = std::move(copy);
  return report;
}

void Session::compact() {
  if (draft_) fail("the session has an open draft: accept it first");
  Session copy = fork();
  for (int layer = 0; layer < copy.sequence_.layers(); ++layer) {
    PagedKv* kv = copy.sequence_.paged(layer);
    if (!kv) continue;
    runtime().pool().parallel_for(
        kv->heads(), [&](size_t head, int) { kv->compact(runtime().work().kernels, static_cast<int>(head)); });
  }
  copy.sequence_.set_state(Sequence::StateOf::kSelector, selector_->new_state());
  sequence_ = std::move(copy.sequence_);
}

namespace {

/// Throws Error (usage) if sessions cannot be joined.
void check_parts(std::span<const Session* const> parts) {
  if (parts.empty()) fail_usage("join: expected at least one context");
  const Session& first = *parts[0];
  for (const Session* part : parts) {
    const SessionOptions &a = first.options(), &b = part->options();
    if (&part->engine() != &first.engine() || a.position != b.position || a.cache != b.cache ||
        a.layers != b.layers || a.context != b.context)
      fail_usage("join: expected contexts that were read with the same model, --position, --cache and -c");
    if (part->length() == 0) fail_usage("join: expected contexts with tokens");
    if (part->model().config().landmarks || part->sequence().has_recurrent_layers())
      fail_usage("join: a model with recurrent layers or landmarks reads contexts only one after the other");
    if (b.evict != "none" || part->sequence().is_evicted())
      fail_usage("join: --evict ", b.evict, " has removed tokens of a context: expected contexts without eviction");
  }
}

/// Returns the number of first tokens that all sessions have in common, less than the tokens of each.
int64_t common_prefix(std::span<const Session* const> parts) {
  int64_t common = parts[0]->length() - 1;
  for (const Session* part : parts.subspan(1)) {
    common = std::min(common, part->length() - 1);
    int64_t same = 0;
    const TokenList &own = part->sequence().ids(), &first = parts[0]->sequence().ids();
    while (same < common && own[same] >= 0 && own[same] == first[same]) ++same;
    common = same;
  }
  return common;
}

uint64_t hash_of_tokens(const Session& session) {
  const std::vector<int32_t> ids = session.ids();
  return hash_content({reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(ids[0])});
}

/// Returns the sessions in an order that depends only on their contents, the longest last.
std::vector<const Session*> canonical_order(std::span<const Session* const> parts) {
  std::vector<const Session*> order(parts.begin(), parts.end());
  std::ranges::sort(order, {}, [](const Session* s) { return std::pair(s->length(), hash_of_tokens(*s)); });
  return order;
}

}  // namespace

Session Session::join(std::span<const Session* const> parts, const JoinOptions& options) {
  check_parts(parts);
  if (options.reread < 0) fail_usage("join: expected 0 or more tokens to read again, found ", options.reread);
  if (parts.size() == 1) return parts[0]->fork();
  const int64_t prefix = common_prefix(parts);
  const bool concat = options.order == JoinOrder::kConcat;
  const std::vector<const Session*> order =
      concat ? std::vector<const Session*>(parts.begin(), parts.end()) : canonical_order(parts);
  Session joined = order[0]->fork();
  joined.logits_.clear();
  joined.hidden_.clear();
  joined.opened_ = order[0]->opened();
  const auto forget = [&] {
    joined.sequence_.set_state(Sequence::StateOf::kSelector, joined.selector_->new_state());
  };
  forget();
  const int64_t start = order[0]->sequence().first_position();
  for (const Session* part : std::span(order).subspan(1)) {
    const Sequence& from = part->sequence_;
    const int64_t reread = concat ? std::min(options.reread, part->length() - prefix) : 0;
    if (reread > 0) {
      const int64_t end = from.page_begin(prefix + reread);
      joined.append(from.ids().copy(prefix, end));
      joined.sequence_.adopt(from, end, from.tokens(), joined.sequence_.next_position());
    } else {
      const int64_t before = joined.sequence_.tokens();
      joined.sequence_.adopt(from, 0, from.tokens(), concat ? joined.sequence_.next_position() - prefix : start);
      joined.sequence_.mask(before, before + prefix);
    }
    joined.opened_ += part->opened();
    for (const auto& file : part->files_)
      if (std::ranges::count(joined.files_, file) == 0) joined.files_.push_back(file);
  }
  forget();
  joined.logits_.clear();
  if (options.order == JoinOrder::kApe && (options.temperature != 1 || options.scale != 1))
    joined.sequence_.set_parallel({prefix, joined.sequence_.tokens(), options.temperature, options.scale});
  return joined;
}

}  // namespace fathom
