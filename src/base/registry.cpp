#include "base/registry.h"

#include "base/format.h"

namespace fathom {

void fail_unknown_method(std::string_view kind, std::string_view name, const std::vector<std::string>& known) {
  const std::vector<std::string> nearest = nearest_names(name, known);
  const std::string hint = nearest.empty() ? "" : concat("; did you mean ", comma_list(nearest), "?");
  fail_usage("unknown ", kind, kind == "task" ? " " : " method ", quote(name), hint,
             hint.empty() ? ". Known: " : " Known: ", known.empty() ? "none" : comma_list(known));
}

}  // namespace fathom
