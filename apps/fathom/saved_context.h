#pragma once

#include <memory>
#include <string>
#include <vector>

#include "context/framed_text.h"
#include "formats/context_file.h"
#include "loaded_model.h"

namespace fathom {

/// The value of a method option that is not given to a command whose contexts have one.
inline constexpr const char* kAsRead = "as read";

/// Opens a context file for a command. Sets what was not given in `options` to that of the context: the model, its
/// adapters, the context limit, and the methods that equal those in `unset`. Throws Error.
std::shared_ptr<const ContextFile> open_context_file(const std::string& path, CommonOptions& options,
                                                     const MethodSpecs& unset);
/// Returns methods that are all kAsRead.
MethodSpecs methods_as_read();
/// Opens the session of a context file.
Session open_session(const LoadedModel& loaded, const CommonOptions& options,
                     const std::shared_ptr<const ContextFile>& file);

/// Writes a session with its text to a context file, with progress. notes: added to those of the frame.
void save_context(const Session& session, const FramedText& text, const LoadedModel& loaded,
                  const CommonOptions& options, const std::string& path, const Json& notes);

}  // namespace fathom
