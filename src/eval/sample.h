#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace fathom::eval {

/// Bytes [begin, end) of a sample's prompt().
struct TextSpan {
  size_t begin = 0, end = 0;
};

/// One question to a model with its references.
struct Sample {
  enum class Mode {
    kGenerate,  // the model continues the prompt greedily
    kForced,    // the model reads the whole prompt; its predictions of the `scored` spans are scored
  };
  Mode mode = Mode::kGenerate;

  // The prompt is context + question + lead. In a chat, context + question are the user's message and the lead is
  // the beginning of the answer. The parts contain the white space between them.
  std::string context;   // the text to read; the same for all samples of a group
  std::string question;  // the question about it
  std::string lead;      // the beginning of the answer
  std::string group;     // consecutive samples with the same context have the same group; empty: no shared context
  bool chat = true;      // the chat template may be applied, in mode kGenerate
  bool cut_middle = false;  // if too long, the middle of context + question is left out (published sets)

  int64_t reserve = 0;            // maximum tokens of the answer; included in the length of the sample
  std::vector<std::string> stop;  // the answer ends before the first of these
  std::vector<std::string> references;
  std::vector<TextSpan> scored;    // kForced: spans of prompt() whose prediction is scored, in order
  int64_t scored_from = 1;         // index of the first token whose prediction may be scored
  std::vector<TextSpan> evidence;  // the parts of the text on which the answer depends, in order
  std::optional<double> depth;     // position of the fact to find: 0 at the start of the context, 1 at its end
  Json details = Json::object();   // further facts for scoring; "about" in records

  std::string prompt() const { return context + question + lead; }
};

/// Prediction of one span.
struct SpanScore {
  double nll = 0;  // −log probability of its tokens, in nats
  int64_t tokens = 0;
  bool correct = true;   // each token was the most likely one at its position
  int64_t position = 0;  // position of its first token
};

/// A model's answer to a sample.
struct Answer {
  std::string text;              // kGenerate
  std::vector<SpanScore> spans;  // kForced: one per scored span
};

struct Score {
  double value = 0;
  Json details = Json::object();  // further numbers; summaries contain their means
};

}  // namespace fathom::eval
