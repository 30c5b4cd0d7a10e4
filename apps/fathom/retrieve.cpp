// fathom retrieve: finds the passages of files that answer a query.
#include <algorithm>
#include <cstdio>

#include "base/error.h"
#include "base/format.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/progress.h"
#include "base/stopwatch.h"
#include "commands.h"
#include "console.h"
#include "decode/constraints/spans.h"
#include "decode/passages.h"
#include "decode/retrieve.h"
#include "loaded_model.h"

namespace fathom {
namespace {

constexpr size_t kShownBytes = 80;  // of a passage, in the table

struct RetrievalOptions {
  CommonOptions common;
  std::vector<std::string> files;
  std::string query, unit = "blank";
  int64_t passages = 10, width = 15, length = 10, spans = 0;
  bool json = false;
};

/// A passage and the file that it is from.
struct SourcePassage {
  std::string_view text;
  size_t file = 0;
  int64_t line = 0;  // the first line, from 1
};

/// Returns the passages of the texts, which are those of the files.
std::vector<SourcePassage> source_passages(const std::vector<std::string>& texts, const RetrievalOptions& options) {
  std::vector<SourcePassage> passages;
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto own = split_passages(texts[i], parse_passage_unit(options.unit));
    if (own.empty()) fail(input_name(options.files[i]), ": expected text, found none");
    const char* counted = texts[i].data();
    int64_t line = 1;
    for (const std::string_view passage : own) {
      line += std::count(counted, passage.data(), '\n');
      counted = passage.data();
      passages.push_back({passage, i, line});
    }
  }
  return passages;
}

std::string ngram_text(const LoadedModel& loaded, const QueryNgram& ngram) {
  std::string text;
  for (const int32_t token : ngram.tokens) text += loaded.tokenizer->piece(token);
  return text;
}

struct RetrievalCost {
  int64_t tokens_read = 0;
  double seconds = 0;
};

void print_json(const RetrieveResult& result, const std::vector<SourcePassage>& passages, const LoadedModel& loaded,
                const RetrievalOptions& options, const RetrievalCost& cost) {
  Json found = Json::array();
  for (const RankedPassage& ranked : result.passages) {
    const SourcePassage& passage = passages[static_cast<size_t>(ranked.passage)];
    Json ngrams = Json::array();
    for (const size_t i : ranked.ngrams) {
      const QueryNgram& ngram = result.ngrams[i];
      ngrams.push_back({{"text", ngram_text(loaded, ngram)},
                        {"weight", ngram.weight},
                        {"log_probability", ngram.log_probability},
                        {"count", ngram.count}});
    }
    found.push_back({{"passage", ranked.passage},
                     {"score", ranked.score},
                     {"file", options.files[passage.file]},
                     {"line", passage.line},
                     {"text", passage.text},
                     {"ngrams", ngrams}});
  }
  const Json line = {{"passages", found},
                     {"searched_passages", passages.size()},
                     {"ngrams", result.ngrams.size()},
                     {"tokens_read", cost.tokens_read},
                     {"seconds", cost.seconds}};
  write_out(line.dump() + "\n");
}

void print_table(const RetrieveResult& result, const std::vector<SourcePassage>& passages,
                 const LoadedModel& loaded, const RetrievalOptions& options) {
  std::string text;
  for (size_t i = 0; i < result.passages.size(); ++i) {
    const RankedPassage& ranked = result.passages[i];
    const SourcePassage& passage = passages[static_cast<size_t>(ranked.passage)];
    char score[32];
    std::snprintf(score, sizeof score, "%.2f", ranked.score);
    std::string shown(passage.text.substr(0, kShownBytes));
    std::ranges::replace(shown, '\n', ' ');
    text += concat(i + 1, ". ", score, "  ", input_name(options.files[passage.file]), ':', passage.line, "  ",
                   quote(shown), "\n");
    for (const size_t ngram : ranked.ngrams)
      text +=
          concat("     ", quote(ngram_text(loaded, result.ngrams[ngram])), "  ", result.ngrams[ngram].weight, "\n");
  }
  write_out(text);
}

/// Prints the spans of one text that answer the query.
void run_spans(const RetrievalOptions& options) {
  if (options.files.size() != 1) fail_usage("--spans: expected one text (-f FILE), found ", options.files.size());
  const std::string text = read_input(options.files[0]);
  const LoadedModel loaded(options.common);
  const Stopwatch watch;
  Session session = loaded.session(options.common);
  read_tokens(session, encode_prompt(*loaded.tokenizer, text + "\n" + options.query, false));
  SpanOptions spans;
  spans.spans = static_cast<int>(options.spans);
  SpanResult result;
  {
    Progress progress("searching spans", "tokens", 0);
    spans.progress = [&](int64_t tokens) {
      progress.update(tokens);
      throw_if_interrupted();
    };
    result = find_spans(session, *loaded.tokenizer, text, spans);
  }
  Json found = Json::array();
  for (const SentenceSpan& span : result.spans) {
    const std::string_view piece = std::string_view(text).substr(span.begin, span.end - span.begin);
    const int64_t line = 1 + std::count(text.begin(), text.begin() + static_cast<int64_t>(span.begin), '\n');
    found.push_back({{"begin", span.begin}, {"end", span.end}, {"line", line}, {"text", piece}});
    if (!options.json) write_out(concat(input_name(options.files[0]), ':', line, "  ", piece, "\n"));
  }
  if (options.json) write_out(Json{{"spans", found}, {"seconds", watch.seconds()}}.dump() + "\n");
}

void run_retrieve(const RetrievalOptions& options) {
  if (std::ranges::count(options.files, "-") > 1) fail_usage("-f -: standard input can be read only once");
  if (options.query.empty()) fail_usage("-p: expected a query, found an empty text");
  if (options.spans > 0) return run_spans(options);
  std::vector<std::string> texts;
  for (const std::string& file : options.files) texts.push_back(read_input(file));
  const std::vector<SourcePassage> passages = source_passages(texts, options);
  const LoadedModel loaded(options.common);
  const Stopwatch watch;
  std::vector<std::string_view> views;
  for (const SourcePassage& passage : passages) views.push_back(passage.text);
  const PassageRetriever retriever(*loaded.tokenizer, views);
  Session session = loaded.session(options.common);
  const std::vector<int32_t> query = encode_prompt(*loaded.tokenizer, options.query, false);
  read_tokens(session, query);

  RetrievalCost cost;
  RetrieveResult result;
  {
    Progress progress("generating", "tokens", options.width * options.length);
    RetrieveOptions retrieval;
    retrieval.passages = static_cast<int>(options.passages);
    retrieval.width = static_cast<int>(options.width);
    retrieval.length = options.length;
    retrieval.progress = [&](int64_t tokens) {
      cost.tokens_read = tokens;
      progress.update(tokens);
      throw_if_interrupted();
    };
    result = retriever.retrieve(session, retrieval);
  }
  cost.tokens_read += std::ssize(query);
  cost.seconds = watch.seconds();
  if (options.json) {
    print_json(result, passages, loaded, options, cost);
  } else {
    print_table(result, passages, loaded, options);
  }
  if (result.passages.empty()) note("no n-gram of the files is more likely after the query than without it");
}

}  // namespace

void add_retrieve(Command program) {
  constexpr int64_t kMost = 1'000'000;
  auto o = std::make_shared<RetrievalOptions>();
  Command command = program.add_command("retrieve", "Find the passages of files that answer a query");
  command.add_option("-f,--file", o->files, "text to search; repeatable; - is standard input")
      .type_name("FILE")
      .one_value()
      .required();
  command.add_option("-p,--prompt", o->query, "query; the model continues it with texts of the files")
      .type_name("TEXT")
      .required();
  add_size_option(command, "-k,--passages", o->passages, 1, "maximum number of passages to print [10]", kMost);
  command
      .add_option("--unit", o->unit, "what ends a passage: each line end, blank lines or the end of a file [blank]")
      .one_of({"lines", "blank", "whole"});
  add_size_option(command, "--width", o->width, 1,
                  "texts generated at the same time; more finds more passages [15]", 1024);
  add_size_option(command, "--length", o->length, 1, "maximum number of tokens of a generated text [10]", 1024);
  add_size_option(
      command, "--spans", o->spans, 0,
      "read one whole text and print at most this many spans of sentences that answer the query, without "
      "an index [0: passages]",
      64);
  add_common_options(command, o->common);
  command.add_flag("--json", o->json, "print one JSON object with the passages and the texts that matched");
  command.footer(
      R"(The model continues the query with short texts that occur in the files (SEAL: constrained generation over an index of
all texts). A passage scores by the texts it contains: more for texts that are likely after the query and rare in the
files. With --spans the model reads the text and the query, generates the openings of sentences of the text, and chooses
where each span ends (chunking-free in-context retrieval).

Examples:
  fathom retrieve -f notes.txt -p "Question: Where is the key? Answer:"
  fathom retrieve -f a.txt -f b.txt --unit lines -p "The captain" -k 3 --json
  fathom retrieve -f notes.txt --spans 2 -p "Question: Where is the key? Answer:"
)");
  command.callback([o] { run_retrieve(*o); });
}

}  // namespace fathom
