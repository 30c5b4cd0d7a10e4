#pragma once

#include <span>
#include <string_view>

namespace fathom::serve {

/// A file of the web page.
struct PageFile {
  std::string_view path;  // "/" or "/NAME"
  std::string_view type;  // as in Content-Type
  std::string_view text;
};

/// Returns the files of the page for people.
std::span<const PageFile> page_files();

}  // namespace fathom::serve
