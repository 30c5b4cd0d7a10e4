#include "eval/json_lines.h"

#include "base/error.h"
#include "base/file_map.h"
#include "base/format.h"

namespace fathom::eval {

void read_json_lines(const std::string& path, const std::function<void(int64_t, const Json&)>& visit) {
  const FileMap file(path);
  parse_json_lines(path, file.text(), visit);
}

void parse_json_lines(const std::string& name, std::string_view text,
                      const std::function<void(int64_t, const Json&)>& visit) {
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    Json object;
    try {
      object = Json::parse(line);
    } catch (const JsonError& error) {
      fail(name, ": line ", number, ": invalid JSON: ", error.what());
    }
    if (!object.is_object()) fail(name, ": line ", number, ": expected an object, found ", quote(line));
    visit(number, object);
  }
}

}  // namespace fathom::eval
