#include "base/registry.h"

#include <cstdio>

#include "base/format.h"

namespace fathom {

void fail_unknown_method(std::string_view kind, std::string_view name, const std::vector<std::string>& known) {
  const std::vector<std::string> nearest = nearest_names(name, known);
  const std::string hint = nearest.empty() ? "" : concat("; did you mean ", comma_list(nearest), "?");
  fail_usage("unknown ", kind, kind == "task" ? " " : " method ", quote(name), hint,
             hint.empty() ? ". Known: " : " Known: ", known.empty() ? "none" : comma_list(known));
}

void AliasWarnings::print(std::string_view kind, std::string_view method, const Values& values) {
  for (const Values::Renamed& renamed : values.renamed()) {
    const std::string text =
        concat("fathom: --", kind, " ", method, ": '", renamed.old_text, "' is now '", renamed.text, "'\n");
    const std::lock_guard lock(mutex_);
    if (printed_.insert(text).second) std::fputs(text.c_str(), stderr);
  }
}

}  // namespace fathom
