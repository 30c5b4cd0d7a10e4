#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "options.h"
#include "session/session.h"
#include "tokens/prompt.h"
#include "tokens/tokenizer.h"

namespace fathom {

/// A loaded model with its tokenizer, ready for sessions.
struct LoadedModel {
  std::shared_ptr<const Model> model;
  std::unique_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<Runtime> runtime;
  std::shared_ptr<Engine> engine;  // of all sessions

  explicit LoadedModel(const CommonOptions& options);
  /// layers: as in SessionOptions.
  Session session(const CommonOptions& options, int layers = 0) const {
    SessionOptions own = options.session();
    own.layers = layers;
    return Session(engine, std::move(own));
  }
};

/// Reads tokens with progress on stderr; returns the seconds it took. Throws Error (interrupted) on Ctrl-C.
double read_tokens(Session& session, std::span<const int32_t> tokens);

/// Tokens per second; 0 for no time at all.
inline double rate(int64_t tokens, double seconds) {
  return seconds > 0 ? static_cast<double>(tokens) / seconds : 0;
}

}  // namespace fathom
