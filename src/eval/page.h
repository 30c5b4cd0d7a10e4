#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/json.h"

namespace fathom::eval {

/// The JSON as it may stand inside a script element: nothing in it can end the element; bytes that are no UTF-8
/// become U+FFFD.
std::string script_json(const Json& data);

/// A page for a browser that loads nothing: title, what is in its body, data as JSON, and the script that draws it
/// with the elements of report/draw.js.
struct DrawnPage {
  std::string_view title, body;
  Json data;
  std::string script;
};
std::string drawn_page(const DrawnPage& page);

/// The parts of a page, by the names that stand in its template as {{name}}.
using PageParts = std::map<std::string_view, std::string>;

/// Fills the template in one pass, so that nothing in a part is taken for a name.
std::string filled_page(std::string_view page, const PageParts& parts);

}  // namespace fathom::eval
