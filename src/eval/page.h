#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/json.h"

namespace fathom::eval {

/// Returns the JSON escaped for a script element: no text in it can end the element, and invalid UTF-8 becomes
/// U+FFFD.
std::string script_json(const Json& data);

/// A self-contained HTML page: its title, the content of its body, data as JSON, and the script that draws the data
/// with the elements of report/draw.js. It loads nothing.
struct DrawnPage {
  std::string_view title, body;
  Json data;
  std::string script;
};
/// Returns the page as HTML.
std::string drawn_page(const DrawnPage& page);

/// The parts of a page. The key is the name of the placeholder {{name}} that the part replaces in the template.
using PageParts = std::map<std::string_view, std::string>;

/// Fills the template in one pass, so placeholders in the text of a part are not replaced.
std::string filled_page(std::string_view page, const PageParts& parts);

}  // namespace fathom::eval
