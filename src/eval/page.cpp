#include "eval/page.h"

#include "base/error.h"

namespace fathom::eval {

std::string_view embedded_report_page();
std::string_view embedded_report_css();
std::string_view embedded_report_draw_js();

std::string drawn_page(const DrawnPage& page) {
  return filled_page(embedded_report_page(), {{"title", std::string(page.title)},
                                              {"style", std::string(embedded_report_css())},
                                              {"body", std::string(page.body)},
                                              {"data", script_json(page.data)},
                                              {"script", concat(embedded_report_draw_js(), page.script)}});
}

std::string script_json(const Json& data) {
  const std::string plain = data.dump();
  std::string safe;
  safe.reserve(plain.size() + plain.size() / 16);
  for (size_t at = 0; at < plain.size(); ++at) {
    const std::string_view rest = std::string_view(plain).substr(at);
    if (rest[0] == '<') {
      safe += "\\u003c";
    } else if (rest[0] == '>') {
      safe += "\\u003e";
    } else if (rest[0] == '&') {
      safe += "\\u0026";
    } else if (rest.starts_with("\u2028") || rest.starts_with("\u2029")) {
      safe += rest.starts_with("\u2028") ? "\\u2028" : "\\u2029";
      at += 2;
    } else {
      safe += rest[0];
    }
  }
  return safe;
}

std::string filled_page(std::string_view page, const PageParts& parts) {
  std::string out;
  for (size_t begin; (begin = page.find("{{")) != page.npos;) {
    const size_t end = page.find("}}", begin);
    out += page.substr(0, begin);
    out += parts.at(page.substr(begin + 2, end - begin - 2));
    page.remove_prefix(end + 2);
  }
  return out.append(page);
}

}  // namespace fathom::eval
