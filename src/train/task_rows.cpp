#include "train/task_rows.h"

#include <algorithm>

#include "base/error.h"

namespace fathom::train {
namespace {

constexpr int kFitTries = 12;        // attempts to make a task's text fit a row
constexpr double kFilled = 0.9;      // share of a row that a text should fill
constexpr int64_t kProbe = 1 << 15;  // tokens from which bytes per token are estimated

double bytes_per_token(const TokenStore& books, const Tokenizer& tokenizer) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < books.documents() && std::ssize(ids) < kProbe; ++i) {
    const size_t size = ids.size();
    ids.resize(size + static_cast<size_t>(std::min(kProbe, books.length(i))));
    books.copy(i, 0, std::span(ids).subspan(size));
  }
  return std::max(1.0, static_cast<double>(tokenizer.decode(ids).size()) / static_cast<double>(ids.size()));
}

}  // namespace

WeightedIds weighted_ids(const Tokenizer& tokenizer, const MarkedText& text, const TaskWeights& weights) {
  WeightedIds row;
  row.ids = tokenizer.encode(text.text, {.add_bos_eos = false});
  size_t end = 0, next = 0;  // end of the tokens so far in the text; index of the next answer
  for (const int32_t& id : row.ids) {
    const size_t begin = end;
    // the first token may begin with a space that the tokenizer adds before the text
    end += &id == row.ids.data() ? tokenizer.decode({&id, 1}).size() : tokenizer.piece(id).size();
    while (next < text.answers.size() && text.answers[next].end <= begin) ++next;
    const bool answer = next < text.answers.size() && text.answers[next].begin < end;
    row.weights.push_back(static_cast<float>(answer ? weights.answer : weights.rest));
  }
  row.ids.push_back(tokenizer.vocabulary().eos);
  row.weights.push_back(static_cast<float>(weights.answer));  // EOS, which is as predictable as an answer
  return row;
}

TaskRows::TaskRows(const TokenStore& books, const Tokenizer& tokenizer, std::vector<TaskKind> kinds,
                   TaskWeights weights)
    : books_(books),
      tokenizer_(tokenizer),
      kinds_(std::move(kinds)),
      weights_(weights),
      bytes_per_token_(bytes_per_token(books, tokenizer)) {
  for (const TaskKind& kind : kinds_) {
    if (!(kind.weight > 0)) fail_usage("task ", kind.task->name(), ": expected a weight above 0");
  }
}

void TaskRows::add(eval::Rng& rng, Batch& batch) const {
  WeightedIds row;
  std::string name;
  for (int i = 0; i < kFitTries && row.ids.empty(); ++i) {
    const TaskSource& kind = draw_kind(rng);
    name = kind.name();
    row = fitting(kind, rng, batch.length);
  }
  if (row.ids.empty())
    fail("training task ", name, ": needs more than ", batch.length, " tokens; increase data.lengths.shortest");
  row.ids.resize(batch.length, tokenizer_.vocabulary().eos);
  row.weights.resize(batch.length, 0.0f);
  batch.tokens.push_back(tokenizer_.vocabulary().bos);
  batch.tokens.insert(batch.tokens.end(), row.ids.begin(), row.ids.end());
  batch.weights.insert(batch.weights.end(), row.weights.begin(), row.weights.end());
  ++batch.sequences;
}

/// Returns a text of at most `length` tokens, if possible at least kFilled of them; empty if the shortest is too
/// long.
WeightedIds TaskRows::fitting(const TaskSource& kind, eval::Rng& rng, int64_t length) const {
  const ProseSource passages = [this](eval::Rng& own, int64_t bytes) { return prose(own, bytes); };
  WeightedIds best;
  double bytes = bytes_per_token_ * static_cast<double>(length);
  for (int i = 0; i < kFitTries; ++i) {
    WeightedIds made = weighted_ids(tokenizer_, kind.make(rng, passages, static_cast<int64_t>(bytes)), weights_);
    const double filled = static_cast<double>(made.ids.size()) / static_cast<double>(length);
    if (filled <= 1) best = std::move(made);
    if (!best.ids.empty() && (filled >= kFilled || i >= kFitTries / 2)) break;
    bytes *= 0.97 / filled;
  }
  return best;
}

const TaskSource& TaskRows::draw_kind(eval::Rng& rng) const {
  double sum = 0;
  for (const TaskKind& kind : kinds_) sum += kind.weight;
  double drawn = rng.uniform() * sum;
  size_t i = 0;
  while (i + 1 < kinds_.size() && drawn >= kinds_[i].weight) drawn -= kinds_[i++].weight;
  return *kinds_[i].task;
}

std::string TaskRows::prose(eval::Rng& rng, int64_t bytes) const {
  const auto target = static_cast<int64_t>(static_cast<double>(bytes) / bytes_per_token_);
  int64_t document = 0, length = 0;
  for (int tries = 0; tries < 20 && length <= target; ++tries) {
    document = rng.below(books_.documents());
    length = books_.length(document) - 1;  // without EOS
  }
  if (target <= 0 || length <= 0) return "";
  const int64_t count = std::min(length, target);
  std::vector<int32_t> ids(count);
  books_.copy(document, rng.between(0, length - count), ids);
  const std::string text = tokenizer_.decode(ids);
  const size_t first = text.find_first_of(" \n"), last = text.find_last_of(" \n");
  return first == last ? "" : text.substr(first + 1, last - first - 1);  // whole words
}

Batch TaskBatches::batch(int64_t step) {
  Batch batch{.sequences = 0, .length = length_};
  while (batch.sequences < sequences_) {
    eval::Rng rng(seed_, "task of a row", batch.sequences, step);
    rows_.add(rng, batch);
  }
  return batch;
}

}  // namespace fathom::train
