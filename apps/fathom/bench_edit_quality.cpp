// fathom bench --test edit-quality: predictions after edits, compared with those after reading the edited text.
#include <algorithm>
#include <cmath>
#include <iomanip>
#include <sstream>

#include "attend/methods.h"
#include "base/error.h"
#include "base/format.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/progress.h"
#include "bench_documents.h"
#include "bench_quality.h"
#include "console.h"
#include "eval/likelihood.h"
#include "tokens/prompt.h"

namespace fathom {
namespace {

constexpr int64_t kPredictedTokens = 48;
constexpr size_t kEditedLines = 10;

using LogitRows = std::vector<std::vector<float>>;  // [kPredictedTokens][vocabulary]

/// A text, edited by one replacement of tokens, and the tokens after both.
struct EditSample {
  std::vector<int32_t> old_tokens, tokens, next;
  TokenEdit edit;
};

/// Inserts earlier lines in the middle of a document, or deletes the lines there.
EditSample make_edit(const Tokenizer& tokenizer, const std::vector<std::string>& lines, bool insert) {
  const size_t count = std::clamp<size_t>(lines.size() / 8, 1, kEditedLines);
  const auto middle = static_cast<std::ptrdiff_t>(lines.size() / 2);
  std::vector<std::string> edited = lines;
  if (insert) {
    edited.insert(edited.begin() + middle, lines.begin(), lines.begin() + static_cast<std::ptrdiff_t>(count));
  } else {
    edited.erase(edited.begin() + middle, edited.begin() + middle + static_cast<std::ptrdiff_t>(count));
  }
  const auto tokens_of = [&](const std::vector<std::string>& all) {
    std::string text;
    for (const std::string& line : all) text += line;
    return encode_prompt(tokenizer, text, false);
  };
  EditSample sample{tokens_of(lines), tokens_of(edited), {}, {}};
  sample.next.assign(sample.tokens.end() - kPredictedTokens, sample.tokens.end());
  for (auto* tokens : {&sample.old_tokens, &sample.tokens}) tokens->resize(tokens->size() - kPredictedTokens);
  const std::vector<int32_t>&a = sample.old_tokens, &b = sample.tokens;
  const int64_t begin = std::ranges::mismatch(a, b).in1 - a.begin();
  int64_t same = 0;  // last tokens in common
  while (same < std::min(std::ssize(a), std::ssize(b)) - begin && *(a.end() - same - 1) == *(b.end() - same - 1))
    ++same;
  sample.edit = {begin, std::ssize(a) - same, {b.begin() + begin, b.end() - same}};
  return sample;
}

/// A way to take over an edit, and its sums over samples.
struct EditWay {
  std::string name;
  bool edit = true;  // false: the old text
  bool moved = true;
  EditOptions options{};
  double agreement = 0, divergence = 0;
  int64_t read = 0;
};

class EditQuality {
 public:
  EditQuality(const QualityBenchOptions& options, const SessionOptions& session,
              const std::shared_ptr<const Model>& model, const std::shared_ptr<Runtime>& runtime)
      : options_(options),
        session_(session),
        engine_(std::make_shared<Engine>(model, runtime)),
        tokenizer_(Vocabulary::read(*model->file())),
        dense_(attend_methods().make("dense")) {
    session_.attend = "dense";
    session_.evict = "none";
    ways_ = {{.name = "no edit: the old text", .edit = false},
             {.name = "edited, later tokens at their old positions", .moved = false},
             {.name = "fathom edit"}};
    for (const double share : {0.05, 0.15, 0.3})
      ways_.push_back({.name = concat("fathom edit --blend ", share), .options = {.blend = share}});
    ways_.push_back({.name = "fathom edit --exact", .options = {.exact = true}});
  }

  void run() {
    const std::vector<std::string> documents = read_documents(options_.documents);
    Progress progress("comparing", "edits", options_.samples);
    for (const std::string& document : documents) {
      if (samples_ == options_.samples) break;
      throw_if_interrupted();
      const std::vector<std::string> lines = first_lines(tokenizer_, document, options_.tokens);
      if (lines.size() < 8) continue;
      compare(make_edit(tokenizer_, lines, samples_ % 2 == 0));
      progress.update(++samples_);
    }
    if (samples_ == 0)
      fail_usage("--documents: expected texts of at least ", options_.tokens,
                 " tokens in 8 lines (--depth), found ", "none in ", documents.size(), " files");
  }

  void print() const {
    const auto predicted = static_cast<double>(samples_ * kPredictedTokens);
    std::ostringstream out;
    out << samples_ << " edits of texts of " << tokens_ / samples_ << " tokens, next " << kPredictedTokens
        << " tokens compared with those after reading the edited text\n"
        << std::left << std::setw(48) << ""
        << "agreement      KL  tokens read\n"
        << std::fixed;
    for (const EditWay& way : ways_) {
      const double agreement = way.agreement / predicted, divergence = way.divergence / predicted;
      const double share = static_cast<double>(way.read) / static_cast<double>(tokens_);
      if (options_.json) {
        write_out(Json{{"test", "edit-quality"},
                       {"method", way.name},
                       {"samples", samples_},
                       {"tokens", tokens_ / samples_},
                       {"agreement", agreement},
                       {"kl", divergence},
                       {"read_share", share}}
                      .dump() +
                  "\n");
      }
      out << std::left << std::setw(48) << way.name << std::right << std::setprecision(3) << std::setw(9)
          << agreement << std::setprecision(4) << std::setw(8) << divergence << std::setprecision(1)
          << std::setw(11) << 100 * share << " %\n";
    }
    if (!options_.json) write_out(out.str());
  }

 private:
  void compare(const EditSample& sample) {
    Session old(engine_, session_), whole(engine_, session_);
    old.append(sample.old_tokens);
    whole.append(sample.tokens);
    const LogitRows expected = predictions(whole, sample.next);
    for (EditWay& way : ways_) {
      LogitRows found;
      if (way.edit && !way.moved) {
        found = unmoved_predictions(old, sample, way.read);
      } else {
        Session edited = old.fork();
        if (way.edit) way.read += edited.edit({&sample.edit, 1}, way.options).read;
        found = predictions(edited, sample.next);
      }
      for (size_t i = 0; i < expected.size(); ++i) add(expected[i], found[i], way);
    }
    tokens_ += std::ssize(sample.tokens);
  }

  static LogitRows predictions(Session& session, const std::vector<int32_t>& next) {
    LogitRows rows;
    AppendOptions append;
    append.on_logits = [&](int64_t, std::span<const float> logits) {
      rows.emplace_back(logits.begin(), logits.end());
    };
    session.append(next, append);
    return rows;
  }

  /// Edits like Session::edit, but leaves later tokens at their positions: those of an insertion are taken twice,
  /// and a deletion leaves a gap.
  LogitRows unmoved_predictions(const Session& old, const EditSample& sample, int64_t& read) const {
    const Sequence& from = old.sequence();
    Sequence sequence = from.fork();
    sequence.truncate(sample.edit.begin);
    const int64_t page = from.page_begin(sample.edit.end);
    std::vector<int32_t> tokens = sample.edit.tokens;
    const std::vector<int32_t> rest = from.ids().copy(sample.edit.end, page);
    tokens.insert(tokens.end(), rest.begin(), rest.end());
    read += std::ssize(tokens);
    if (!tokens.empty()) forward(sequence, tokens, nullptr);
    if (page < from.tokens()) sequence.adopt(from, page, from.tokens(), from.first_position() + page);
    LogitRows rows;
    forward(sequence, sample.next, &rows);
    return rows;
  }

  /// Reads tokens with dense attention. logits: receives those after each token, if not null.
  void forward(Sequence& sequence, const std::vector<int32_t>& tokens, LogitRows* logits) const {
    std::vector<int64_t> visited;
    for (int64_t row = 0; logits && row < std::ssize(tokens); ++row) visited.push_back(row);
    Rows rows;
    rows.sequence = &sequence;
    rows.policy.selector = dense_.get();
    rows.tokens = tokens;
    rows.visited_rows = visited;
    rows.visit = [&](size_t, std::span<const float> row) { logits->emplace_back(row.begin(), row.end()); };
    engine_->forward({&rows, 1});
    rows.result.throw_if_failed();
  }

  static void add(std::span<const float> expected, std::span<const float> found, EditWay& way) {
    const auto best = [](std::span<const float> row) { return std::ranges::max_element(row) - row.begin(); };
    way.agreement += best(expected) == best(found) ? 1 : 0;
    const double expected_sum = eval::log_sum_exp(expected), found_sum = eval::log_sum_exp(found);
    for (size_t i = 0; i < expected.size(); ++i) {
      const double log_p = expected[i] - expected_sum;
      way.divergence += std::exp(log_p) * (log_p - (found[i] - found_sum));
    }
  }

  const QualityBenchOptions& options_;
  SessionOptions session_;
  std::shared_ptr<Engine> engine_;
  Tokenizer tokenizer_;
  std::shared_ptr<const Selector> dense_;
  std::vector<EditWay> ways_;
  int64_t samples_ = 0, tokens_ = 0;
};

}  // namespace

void bench_edit_quality(const QualityBenchOptions& options, const SessionOptions& session,
                        const std::shared_ptr<const Model>& model, const std::shared_ptr<Runtime>& runtime) {
  EditQuality quality(options, session, model, runtime);
  quality.run();
  quality.print();
}

}  // namespace fathom
