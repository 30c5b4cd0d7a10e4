#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "session/session.h"

namespace fathom {

/// The texts of a measurement of quality.
struct QualityBenchOptions {
  std::vector<std::string> documents;  // files and folders
  int64_t samples = 50;                // documents that are used, at most
  int64_t tokens = 2048;               // of each document
  bool json = false;
};

/// Measures how much edits in the middle of documents change the predictions of the last tokens: ten lines are
/// inserted or deleted, and the session is edited in several ways. The reference is reading the edited text. Prints
/// the share of tokens for which the most probable token is that of the reference, the divergence of the
/// predictions, and the tokens that were read. Throws Error (usage) for a model with recurrent layers or landmarks,
/// and without enough documents.
void bench_edit_quality(const QualityBenchOptions& options, const SessionOptions& session,
                        const std::shared_ptr<const Model>& model, const std::shared_ptr<Runtime>& runtime);

/// Measures the loss after four parts of a document that were read alone and joined in several ways, and after
/// reading them in sequence: of the text that follows, and of a passage of one of the first three parts that is
/// repeated. Throws Error like bench_edit_quality.
void bench_join_quality(const QualityBenchOptions& options, const SessionOptions& session,
                        const std::shared_ptr<const Model>& model, const std::shared_ptr<Runtime>& runtime);

}  // namespace fathom
