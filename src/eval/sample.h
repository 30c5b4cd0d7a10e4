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

/// One question put to a model, and what is right.
struct Sample {
  enum class Mode {
    kGenerate,  // the model continues the prompt, greedily
    kForced,    // the model reads the whole prompt; how it predicts the `asked` spans is looked at
  };
  Mode mode = Mode::kGenerate;

  // The prompt is context + question + lead. In a chat, context + question are the user's message and the lead is
  // the beginning of the answer. Blank space between the parts belongs to the parts.
  std::string context;   // what is read; samples of one group have the same
  std::string question;  // what is asked about it
  std::string lead;      // how the answer begins
  std::string group;  // samples that follow each other and share a context have the same; empty: shares with none
  bool chat = true;   // may be put in the form of a chat, if the model continues it
  bool cut_middle = false;  // context + question too long for the length lose their middle (published sets)

  int64_t reserve = 0;            // most tokens of the answer; the length asked for includes them
  std::vector<std::string> stop;  // the answer ends before the first of these
  std::vector<std::string> references;
  std::vector<TextSpan> asked;     // kForced: spans of prompt() in order
  std::vector<TextSpan> evidence;  // what the answer rests on, in the order of the text
  std::optional<double> depth;  // of the one thing that is looked for: 0 at the start of the context, 1 at its end
  Json details = Json::object();  // further facts, for scores; "about" in records

  std::string prompt() const { return context + question + lead; }
};

/// How a model predicted one span.
struct SpanScore {
  double nll = 0;  // −log probability of all its tokens, nats
  int64_t tokens = 0;
  bool right = true;     // each token was the likeliest at its place
  int64_t position = 0;  // of its first token: the number of tokens before it
};

/// What a model made of a sample.
struct Answer {
  std::string text;              // kGenerate
  std::vector<SpanScore> spans;  // kForced: one per asked span
};

struct Score {
  double value = 0;
  Json details = Json::object();  // further numbers, of which means are reported
};

}  // namespace fathom::eval
