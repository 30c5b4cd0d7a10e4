#include "train/mixture.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace fathom {
namespace {

constexpr int kTries = 12;           // to make a task's text fit
constexpr double kFilled = 0.9;      // of a row, at least, if that can be had
constexpr int64_t kProbe = 1 << 15;  // tokens of which the bytes are counted

int64_t tokens_of_tasks(const DecompositionOptions& decomposition, const MixtureOptions& options) {
  if (!(options.task_share >= 0 && options.task_share <= 1))
    fail_usage("share of tasks: expected 0 to 1, found ", options.task_share);
  const int64_t unit = int64_t{1} << decomposition.most_level;
  const int64_t units = decomposition.batch_tokens / unit;
  const int64_t of_tasks = std::llround(options.task_share * static_cast<double>(units));
  if (options.task_share > 0 && (of_tasks == 0 || of_tasks == units)) {
    fail_usage("batches of ", decomposition.batch_tokens, " tokens hold ", units, " rows of ", unit,
               ", too few for a share of tasks of ", options.task_share);
  }
  return of_tasks * unit;
}

Decomposition of_books(const TokenStore& books, DecompositionOptions options, int64_t task_tokens) {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < books.documents(); ++i) lengths.push_back(books.length(i));
  options.batch_tokens -= task_tokens;
  return Decomposition(lengths, options);
}

}  // namespace

Mixture::Mixture(const TokenStore& books, const Tokenizer& tokenizer, std::vector<Source> sources,
                 DecompositionOptions decomposition, const MixtureOptions& options)
    : books_(books),
      tokenizer_(tokenizer),
      sources_(std::move(sources)),
      options_(options),
      task_tokens_(tokens_of_tasks(decomposition, options)),
      decomposition_(of_books(books, decomposition, task_tokens_)) {
  const Vocabulary& vocabulary = tokenizer.vocabulary();
  if (vocabulary.bos == kNoToken || vocabulary.eos == kNoToken)
    fail_usage(vocabulary.source, ": training needs a BOS and an EOS token");
  if (books.vocabulary() != vocabulary.size()) {
    fail_usage("the books are in tokens of a vocabulary of ", books.vocabulary(), ", the tokenizer has ",
               vocabulary.size());
  }
  if (task_tokens_ > 0 && sources_.empty()) fail_usage("a share of tasks needs tasks");
  for (const Source& source : sources_) {
    if (!(source.weight > 0)) fail_usage("task ", source.task->name(), ": expected a weight above 0");
  }
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < books.documents() && std::ssize(ids) < kProbe; ++i) {
    const size_t had = ids.size();
    ids.resize(had + static_cast<size_t>(std::min(kProbe, books.length(i))));
    books.copy(i, 0, std::span(ids).subspan(had));
  }
  bytes_per_token_ = std::max(1.0, static_cast<double>(tokenizer.decode(ids).size()) / std::ssize(ids));
}

TrainingBatch Mixture::batch(int64_t step) {
  const PieceBatch pieces = decomposition_.batch(step);
  TrainingBatch batch;
  batch.length = int64_t{1} << pieces.level;
  for (const TokenPiece& piece : pieces.pieces) add_book(piece, batch);
  const int64_t rows = batch.rows + task_tokens_ / batch.length;
  while (batch.rows < rows) {
    Dice dice(decomposition_.options().seed, "task of a row", batch.rows, step);
    add_task(dice, batch);
  }
  return batch;
}

void Mixture::add_book(const TokenPiece& piece, TrainingBatch& batch) const {
  const size_t at = batch.targets.size();
  batch.targets.resize(at + piece.length());
  books_.copy(piece.document, piece.begin, std::span(batch.targets).subspan(at));
  batch.inputs.push_back(tokenizer_.vocabulary().bos);
  batch.inputs.insert(batch.inputs.end(), batch.targets.begin() + at, batch.targets.end() - 1);
  batch.weights.resize(batch.targets.size(), 1.0f);
  ++batch.rows;
}

void Mixture::add_task(Dice& dice, TrainingBatch& batch) const {
  const TaskSource& source = draw_source(dice);
  const ProseSource passages = [this](Dice& own, int64_t bytes) { return prose(own, bytes); };
  WeightedIds best;
  double bytes = bytes_per_token_ * static_cast<double>(batch.length);
  for (int i = 0; i < kTries; ++i) {
    const MarkedText text = source.make(dice, passages, static_cast<int64_t>(bytes));
    WeightedIds made = weighted_ids(tokenizer_, text, options_);
    const double filled = static_cast<double>(made.ids.size()) / static_cast<double>(batch.length);
    if (filled <= 1) best = std::move(made);
    if (!best.ids.empty() && (filled >= kFilled || i >= kTries / 2)) break;
    bytes *= 0.97 / filled;
  }
  if (best.ids.empty())
    fail("training task ", source.name(), ": needs more than ", batch.length, " tokens: train on longer rows");
  best.ids.resize(batch.length, tokenizer_.vocabulary().eos);
  best.weights.resize(batch.length, 0.0f);
  batch.inputs.push_back(tokenizer_.vocabulary().bos);
  batch.inputs.insert(batch.inputs.end(), best.ids.begin(), best.ids.end() - 1);
  batch.targets.insert(batch.targets.end(), best.ids.begin(), best.ids.end());
  batch.weights.insert(batch.weights.end(), best.weights.begin(), best.weights.end());
  ++batch.rows;
}

const TaskSource& Mixture::draw_source(Dice& dice) const {
  double sum = 0;
  for (const Source& source : sources_) sum += source.weight;
  double drawn = dice.uniform() * sum;
  size_t i = 0;
  while (i + 1 < sources_.size() && drawn >= sources_[i].weight) drawn -= sources_[i++].weight;
  return *sources_[i].task;
}

std::string Mixture::prose(Dice& dice, int64_t bytes) const {
  const auto wanted = static_cast<int64_t>(static_cast<double>(bytes) / bytes_per_token_);
  int64_t document = 0, length = 0;
  for (int tries = 0; tries < 20 && length <= wanted; ++tries) {
    document = dice.below(books_.documents());
    length = books_.length(document) - 1;  // without EOS
  }
  if (wanted <= 0 || length <= 0) return "";
  const int64_t count = std::min(length, wanted);
  std::vector<int32_t> ids(count);
  books_.copy(document, dice.between(0, length - count), ids);
  const std::string text = tokenizer_.decode(ids);
  const size_t first = text.find_first_of(" \n"), last = text.find_last_of(" \n");
  return first == last ? "" : text.substr(first + 1, last - first - 1);  // whole words
}

WeightedIds weighted_ids(const Tokenizer& tokenizer, const MarkedText& text, const MixtureOptions& options) {
  WeightedIds row;
  row.ids = tokenizer.encode(text.text, {.add_bos_eos = false});
  size_t end = 0, next = 0;  // of the tokens in the text; the answer that comes next
  for (const int32_t& id : row.ids) {
    const size_t begin = end;
    // the first token may begin with a space that was put before the text
    end += &id == row.ids.data() ? tokenizer.decode({&id, 1}).size() : tokenizer.piece(id).size();
    while (next < text.answers.size() && text.answers[next].end <= begin) ++next;
    const bool answer = next < text.answers.size() && text.answers[next].begin < end;
    row.weights.push_back(static_cast<float>(answer ? options.answer_weight : options.rest_weight));
  }
  row.ids.push_back(tokenizer.vocabulary().eos);
  row.weights.push_back(static_cast<float>(options.rest_weight));
  return row;
}

}  // namespace fathom
