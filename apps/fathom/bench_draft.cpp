// fathom bench --draft: measures how much faster texts are decoded with drafts.
#include "bench_draft.h"

#include <algorithm>
#include <iomanip>
#include <random>
#include <sstream>

#include "base/error.h"
#include "base/format.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/progress.h"
#include "base/stopwatch.h"
#include "base/write_file.h"
#include "bench_texts.h"
#include "console.h"
#include "decode/drafter.h"
#include "decode/drafts/forced.h"
#include "decode/generation.h"
#include "eval/line_chart.h"
#include "eval/machine.h"
#include "eval/statistics.h"
#include "loaded_model.h"
#include "options.h"
#include "tokens/prompt.h"

namespace fathom {
namespace {

/// Length of the prompt of a model with random weights.
constexpr int64_t kRandomPrompt = 64;
/// Points of a line of the picture. A point needs some tokens, because a draft can have several.
constexpr int64_t kMaxPoints = 32, kMinTokensOfPoint = 8;

/// A method to measure. `forced` is not in the table of methods, because it needs to know the text.
struct MeasuredMethod {
  std::string text;              // the spec
  std::optional<Values> forced;  // the parameters of forced_source
};

/// Throws Error (usage) for an unknown method or parameter.
MeasuredMethod read_method(const std::string& text) {
  const Spec spec = parse_spec(text);
  if (spec.name == "forced") return {text, check_values(spec, forced_parameters())};
  check_draft_method(text);
  return {text, std::nullopt};
}

/// A text that has been read.
struct MeasuredText {
  std::string name;
  std::vector<int32_t> prompt;
  Session start;                        // has read the prompt
  std::vector<int32_t> continuation{};  // decoded without drafts
};

struct TimedDecoding {
  Generated result;
  double seconds = 0;    // includes what a source does at the start and at the end of a text
  bool changed = false;  // the drafts may have changed the text
  double tokens_per_second() const { return rate(result.steps, seconds); }
};

/// The measurement of a text with a method.
struct DraftFigure {
  const MeasuredText& text;
  std::string method;
  int64_t tokens = 0;                                     // decoded in each run
  std::vector<double> plain{}, drafted{};                 // tokens per second, in the order of the runs
  int64_t forwards = 0, proposed = 0, accepted = 0;       // of all runs with drafts
  double seconds = 0, drafting_seconds = 0;               // the same
  std::vector<std::vector<DraftReport::Entry>> curves{};  // of the runs with drafts

  void add(const TimedDecoding& run) {
    drafted.push_back(run.tokens_per_second());
    forwards += run.result.forwards;
    proposed += run.result.drafts.proposed();
    accepted += run.result.drafts.accepted();
    seconds += run.seconds;
    drafting_seconds += run.result.drafts.draft_seconds();
    const auto curve = run.result.drafts.curve();
    curves.emplace_back(curve.begin(), curve.end());
  }
  /// Returns the median of the ratios of neighbouring runs, in which a slow change of the machine's speed cancels.
  double ratio() const {
    std::vector<double> ratios;
    for (size_t i = 0; i < drafted.size(); ++i) {
      ratios.push_back(drafted[i] / plain[i]);
      if (i + 1 < plain.size()) ratios.push_back(drafted[i] / plain[i + 1]);
    }
    return eval::median(ratios);
  }
  double tokens_per_forward() const { return rate(tokens * std::ssize(drafted), static_cast<double>(forwards)); }
  /// Returns the accepted share of the drafted tokens; nothing if there were none.
  std::optional<double> accepted_share() const {
    if (proposed == 0) return std::nullopt;
    return static_cast<double>(accepted) / static_cast<double>(proposed);
  }
  double drafting_share() const { return drafting_seconds / seconds; }
};

/// Returns tokens per forward pass by position after the prompt, as means over the runs.
std::vector<eval::ChartPoint> by_position(const DraftFigure& figure) {
  const int64_t width = std::max(kMinTokensOfPoint, (figure.tokens + kMaxPoints - 1) / kMaxPoints);
  std::vector<double> forwards((figure.tokens + width - 1) / width);
  for (const auto& curve : figure.curves) {
    int64_t position = 0;
    for (const DraftReport::Entry& entry : curve) {
      const double each = static_cast<double>(entry.forwards) / static_cast<double>(entry.emitted);
      for (int64_t i = 0; i < entry.emitted && position < figure.tokens; ++i) forwards[position++ / width] += each;
    }
  }
  std::vector<eval::ChartPoint> points;
  for (int64_t i = 0; i < std::ssize(forwards); ++i) {
    const int64_t begin = i * width, end = std::min(begin + width, figure.tokens);
    const double tokens = static_cast<double>((end - begin) * std::ssize(figure.curves));
    if (forwards[i] > 0) points.push_back({static_cast<double>(begin + end) / 2, tokens / forwards[i]});
  }
  return points;
}

/// Returns the tokenizer of the model's file; for random weights one with a placeholder for each token.
std::unique_ptr<const Tokenizer> make_tokenizer(const Model& model) {
  if (model.file()) return std::make_unique<Tokenizer>(Vocabulary::read(*model.file()));
  Vocabulary vocabulary;
  for (int64_t i = 0; i < model.config().vocabulary; ++i) vocabulary.pieces.push_back(concat("token", i));
  return std::make_unique<Tokenizer>(std::move(vocabulary));
}

class DraftBench {
 public:
  DraftBench(const DraftBenchOptions& options, const SessionOptions& session, std::shared_ptr<const Model> model,
             std::shared_ptr<Runtime> runtime)
      : options_(options), session_options_(session), model_(std::move(model)), runtime_(std::move(runtime)) {
    for (const std::string& text : options.methods) methods_.push_back(read_method(text));
    if (!model_->file()) check_random();
    tokenizer_ = make_tokenizer(*model_);
    list_texts();
  }

  void run() {
    for (const MeasuredMethod& method : methods_) {  // wrong methods fail before anything is measured
      Session session(model_, runtime_, session_options_);
      make_drafter(method, session, {});
    }
    if (!options_.json) print_heading();
    for (size_t i = 0; i < prompts_.size(); ++i) measure(i);
    if (options_.plot.empty()) return;
    const std::string svg = eval::line_chart_svg(chart_);
    write_file(options_.plot, std::as_bytes(std::span(svg)));
    note(concat("picture written to ", options_.plot));
  }

 private:
  /// Throws Error (usage) for options that do not work with random weights, which generate no text that a source
  /// could predict.
  void check_random() const {
    if (!options_.texts.empty()) fail_usage("--text needs a model with a tokenizer, found --shape");
    for (const MeasuredMethod& method : methods_) {
      if (!method.forced && method.text != "none")
        fail_usage("--draft ", method.text,
                   ": a model with random weights (--shape) continues no text; expected --draft "
                   "forced:accept=A,length=L or none");
    }
  }

  void list_texts() {
    if (!model_->file()) {
      std::mt19937 random{1};
      std::uniform_int_distribution<int32_t> any(0, static_cast<int32_t>(model_->config().vocabulary) - 1);
      std::vector<int32_t> tokens(kRandomPrompt);
      for (int32_t& token : tokens) token = any(random);
      prompts_.emplace_back("random", std::move(tokens));
    } else if (options_.texts.empty()) {
      for (const BenchText& text : bench_texts())
        prompts_.emplace_back(text.name, encode_prompt(*tokenizer_, text.text, false));
    } else {
      for (const std::string& file : options_.texts) {
        const std::string text = read_input(file);
        if (text.empty()) fail("--text ", input_name(file), " is empty, expected a text to continue");
        prompts_.emplace_back(file, encode_prompt(*tokenizer_, text, false));
      }
    }
  }

  /// continuation: of the prompt, for `forced`. The drafter refers to the session.
  Drafter make_drafter(const MeasuredMethod& method, Session& session,
                       const std::vector<int32_t>& continuation) const {
    const int nodes = static_cast<int>(options_.nodes);
    if (!method.forced) return Drafter({{method.text}, nodes}, {model_, runtime_, tokenizer_.get(), &session});
    check_drafts_work(session, method.text);
    return Drafter(forced_source(*method.forced, continuation, model_->config().vocabulary), "forced", nodes,
                   session);
  }

  void measure(size_t index) {
    const std::string label = concat("text ", index + 1, " of ", prompts_.size(), ", ", prompts_[index].first);
    MeasuredText text{prompts_[index].first, prompts_[index].second, Session(model_, runtime_, session_options_)};
    read_tokens(text.start, text.prompt);
    {
      Progress progress(label + ": warm-up", "tokens", options_.tokens);
      const TimedDecoding first = decode(text, {"none", {}}, progress, 0);
      text.continuation = first.result.tokens;
      if (first.result.steps == 0) return note(concat(label, " ends after the prompt: nothing to measure"));
    }
    eval::ChartPanel panel{text.name, {}};
    for (const MeasuredMethod& method : methods_) {
      const DraftFigure figure = measure(text, method, label);
      options_.json ? print_object(figure) : print_row(figure);
      if (auto points = by_position(figure); !points.empty())
        panel.lines.push_back({method.text, std::move(points)});
    }
    chart_.panels.push_back(std::move(panel));
  }

  DraftFigure measure(const MeasuredText& text, const MeasuredMethod& method, const std::string& label) {
    DraftFigure figure{text, method.text};
    figure.tokens = std::ssize(text.continuation) - 1;  // the first one follows from the logits of the prompt
    Progress progress(concat(label, ": ", method.text), "tokens", 2 * options_.runs * figure.tokens);
    const Stopwatch watch;
    int64_t done = 0;
    for (int64_t i = 0; i < options_.runs; ++i) {
      const Stopwatch round;
      for (const bool drafted : {false, true}) {
        const TimedDecoding run = decode(text, drafted ? method : MeasuredMethod{"none", {}}, progress, done);
        if (!drafted || !run.changed) check_tokens(text, drafted ? method.text : "none", run.result.tokens);
        drafted ? figure.add(run) : figure.plain.push_back(run.tokens_per_second());
        done += figure.tokens;
      }
      if (options_.seconds && i + 1 < options_.runs && watch.seconds() + round.seconds() > *options_.seconds) {
        note(concat(label, ", --draft ", method.text, ": measured ", i + 1, " of ", options_.runs,
                    " runs within --seconds ", *options_.seconds, "; increase it to measure more"));
        break;
      }
    }
    return figure;
  }

  /// Continues a copy of the text's session. done: tokens of earlier runs, for the progress.
  TimedDecoding decode(const MeasuredText& text, const MeasuredMethod& method, Progress& progress,
                       int64_t done) const {
    Session session = text.start.fork();
    Drafter drafter = make_drafter(method, session, text.continuation);
    Sampler greedy;
    GenerateOptions options;
    options.max_tokens = options_.tokens + 1;
    progress.update(done);
    const Stopwatch watch;
    Generation generation(session, *tokenizer_, greedy, text.prompt, options, &drafter);
    Generation* const texts[] = {&generation};
    while (!generation.ended()) {
      Generation::advance(texts);
      progress.update(done + session.length() - std::ssize(text.prompt));
    }
    throw_if_interrupted();
    if (generation.error()) std::rethrow_exception(generation.error());
    Generated result = generation.finish();
    return {std::move(result), watch.seconds(), drafter.changes_text()};
  }

  /// Throws Error if the tokens are not those of decoding without drafts.
  void check_tokens(const MeasuredText& text, const std::string& method, const std::vector<int32_t>& found) const {
    const std::vector<int32_t>& expected = text.continuation;
    const auto at = std::ranges::mismatch(expected, found).in1 - expected.begin();
    if (at == std::ssize(expected) && at == std::ssize(found)) return;
    const auto describe = [&](const std::vector<int32_t>& tokens) {
      return at < std::ssize(tokens) ? concat(tokens[at], " ", quote(tokenizer_->piece(tokens[at])))
                                     : std::string("the end of the text");
    };
    fail("text ", text.name, ": token ", at, " of the continuation decoded with --draft ", method, " is ",
         describe(found), ", expected ", describe(expected), ", as without drafts");
  }

  void print_heading() const {
    std::ostringstream out;
    if (options_.heading) {
      out << "machine  " << eval::processor_name() << ", " << kernels().isa << ", " << runtime_->pool().threads()
          << " threads\n"
          << "model    " << model_->config().name << ", " << format_bytes(model_->network().weight_bytes(1))
          << " of weights; attend " << session_options_.attend << ", cache " << session_options_.cache << "\n";
    }
    out << "\n"
        << std::left << std::setw(name_width()) << "text"
        << "  tokens    tokens/s  without drafts    ratio  tokens/pass  accepted  drafting  draft\n";
    write_out(out.str());
  }

  void print_row(const DraftFigure& f) const {
    const auto percent = [](double share) {
      std::ostringstream out;
      out << std::fixed << std::setprecision(1) << 100 * share << "%";
      return out.str();
    };
    std::ostringstream out;
    out << std::left << std::setw(name_width()) << f.text.name << std::right << std::setw(8) << f.tokens
        << std::fixed << std::setprecision(2) << std::setw(12) << eval::median(f.drafted) << std::setw(16)
        << eval::median(f.plain) << std::setw(9) << f.ratio() << std::setw(13) << f.tokens_per_forward()
        << std::setw(10) << (f.accepted_share() ? percent(*f.accepted_share()) : "-") << std::setw(10)
        << percent(f.drafting_share()) << "  " << f.method << "\n";
    write_out(out.str());
  }

  void print_object(const DraftFigure& f) const {
    const Json line{{"test", "draft"},
                    {"model", model_->config().name},
                    {"text", f.text.name},
                    {"draft", f.method},
                    {"prompt_tokens", f.text.prompt.size()},
                    {"tokens", f.tokens},
                    {"tokens_per_second", eval::median(f.drafted)},
                    {"plain_tokens_per_second", eval::median(f.plain)},
                    {"ratio", f.ratio()},
                    {"tokens_per_forward", f.tokens_per_forward()},
                    {"accepted_share", f.accepted_share() ? Json(*f.accepted_share()) : Json()},
                    {"drafting_share", f.drafting_share()},
                    {"repeats", f.drafted.size()},
                    {"repeats_requested", options_.runs},
                    {"threads", runtime_->pool().threads()},
                    {"isa", kernels().isa}};
    write_out(line.dump() + "\n");
  }

  int name_width() const {
    size_t width = 6;
    for (const auto& [name, tokens] : prompts_) width = std::max(width, name.size());
    return static_cast<int>(width);
  }

  const DraftBenchOptions& options_;
  SessionOptions session_options_;
  std::shared_ptr<const Model> model_;
  std::shared_ptr<Runtime> runtime_;
  std::unique_ptr<const Tokenizer> tokenizer_;
  std::vector<MeasuredMethod> methods_;
  std::vector<std::pair<std::string, std::vector<int32_t>>> prompts_;  // with their names
  eval::LineChart chart_{.title = "Tokens per forward pass with drafts",
                         .x_title = "position after the prompt [tokens]",
                         .y_title = "tokens per forward pass (1: without drafts)",
                         .panels = {}};
};

}  // namespace

void add_draft_bench_options(Command command, DraftBenchOptions& o) {
  command
      .add_option("--draft", o.methods,
                  "measure how fast texts are decoded with drafts of this method and without, in alternating runs; "
                  "repeatable; list: `fathom methods draft`; also auto, none, and forced:accept=A,length=L, whose "
                  "tokens are accepted with probability A")
      .type_name("METHOD")
      .one_value();
  add_size_option(command, "--draft-nodes", o.nodes, 0,
                  "with --draft: number of tokens of a draft [0: chosen by the measured cost and acceptance]",
                  DraftTree::kMaxNodes - 1);
  command
      .add_option("--text", o.texts,
                  "with --draft: a text to continue; repeatable; - is standard input [five built-in texts: prose, "
                  "code, edit, quote, list]")
      .type_name("FILE")
      .one_value();
  command
      .add_option("--plot", o.plot,
                  "with --draft: write a picture of tokens per forward pass over the position in the text")
      .type_name("SVG");
}

void check_draft_methods(const DraftBenchOptions& options) {
  for (const std::string& text : options.methods) read_method(text);
}

void bench_drafts(const DraftBenchOptions& options, const SessionOptions& session,
                  std::shared_ptr<const Model> model, std::shared_ptr<Runtime> runtime) {
  DraftBench(options, session, std::move(model), std::move(runtime)).run();
}

}  // namespace fathom
