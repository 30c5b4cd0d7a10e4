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

/// A loaded model with its tokenizer and the engine that runs its sessions.
struct LoadedModel {
  std::shared_ptr<const Model> model;
  std::unique_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<Runtime> runtime;
  std::shared_ptr<Engine> engine;      // shared by all sessions
  std::vector<AdapterScale> adapters;  // of all sessions

  /// Opens the files of the model and its adapters. Throws Error if they cannot be opened or run.
  explicit LoadedModel(const CommonOptions& options);
  /// Returns a new session. layers: as in SessionOptions.
  Session session(const CommonOptions& options, int layers = 0) const {
    SessionOptions own = options.session(adapters);
    own.layers = layers;
    return Session(engine, std::move(own));
  }
};

/// Appends tokens to the session, with progress on stderr. Returns the seconds it took. Throws Error (interrupted)
/// on Ctrl-C.
double read_tokens(Session& session, std::span<const int32_t> tokens);

/// Reads the tokens that follow the common prefix of a session with `tokens`, at least the last one, with progress.
/// The session is rewound to that prefix first. Returns the number of tokens that were read. Throws Error if
/// interrupted; the session then holds some of the tokens.
int64_t read_after_common_prefix(Session& session, std::span<const int32_t> tokens);

/// Returns tokens per second; 0 if seconds is 0.
inline double rate(int64_t tokens, double seconds) {
  return seconds > 0 ? static_cast<double>(tokens) / seconds : 0;
}

}  // namespace fathom
