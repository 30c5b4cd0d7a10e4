#include "serve/page.h"

#include <array>

namespace fathom::serve {

std::string_view embedded_page_api_js();
std::string_view embedded_page_app_js();
std::string_view embedded_page_chat_view_js();
std::string_view embedded_page_conversation_js();
std::string_view embedded_page_dialogs_js();
std::string_view embedded_page_diff_js();
std::string_view embedded_page_document_pane_js();
std::string_view embedded_page_document_view_js();
std::string_view embedded_page_dom_js();
std::string_view embedded_page_editor_js();
std::string_view embedded_page_format_js();
std::string_view embedded_page_index_html();
std::string_view embedded_page_library_js();
std::string_view embedded_page_markdown_js();
std::string_view embedded_page_methods_panel_js();
std::string_view embedded_page_offsets_js();
std::string_view embedded_page_reader_js();
std::string_view embedded_page_sse_js();
std::string_view embedded_page_store_js();
std::string_view embedded_page_strip_js();
std::string_view embedded_page_style_css();

std::span<const PageFile> page_files() {
  static const auto files = std::to_array<PageFile>({
      {"/api.js", "text/javascript; charset=utf-8", embedded_page_api_js()},
      {"/app.js", "text/javascript; charset=utf-8", embedded_page_app_js()},
      {"/chat_view.js", "text/javascript; charset=utf-8", embedded_page_chat_view_js()},
      {"/conversation.js", "text/javascript; charset=utf-8", embedded_page_conversation_js()},
      {"/dialogs.js", "text/javascript; charset=utf-8", embedded_page_dialogs_js()},
      {"/diff.js", "text/javascript; charset=utf-8", embedded_page_diff_js()},
      {"/document_pane.js", "text/javascript; charset=utf-8", embedded_page_document_pane_js()},
      {"/document_view.js", "text/javascript; charset=utf-8", embedded_page_document_view_js()},
      {"/dom.js", "text/javascript; charset=utf-8", embedded_page_dom_js()},
      {"/editor.js", "text/javascript; charset=utf-8", embedded_page_editor_js()},
      {"/format.js", "text/javascript; charset=utf-8", embedded_page_format_js()},
      {"/", "text/html; charset=utf-8", embedded_page_index_html()},
      {"/library.js", "text/javascript; charset=utf-8", embedded_page_library_js()},
      {"/markdown.js", "text/javascript; charset=utf-8", embedded_page_markdown_js()},
      {"/methods_panel.js", "text/javascript; charset=utf-8", embedded_page_methods_panel_js()},
      {"/offsets.js", "text/javascript; charset=utf-8", embedded_page_offsets_js()},
      {"/reader.js", "text/javascript; charset=utf-8", embedded_page_reader_js()},
      {"/sse.js", "text/javascript; charset=utf-8", embedded_page_sse_js()},
      {"/store.js", "text/javascript; charset=utf-8", embedded_page_store_js()},
      {"/strip.js", "text/javascript; charset=utf-8", embedded_page_strip_js()},
      {"/style.css", "text/css; charset=utf-8", embedded_page_style_css()},
  });
  return files;
}

}  // namespace fathom::serve
